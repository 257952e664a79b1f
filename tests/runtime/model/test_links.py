"""Links inside of a model folder: they may lead within it, or into the Hub cache's blobs."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.tiny_model import TinyModel

import trivec
from trivec import ModelFormatError

TEXTS = ["the cat sat", "a red boat"]
FILES = ["trivec.json", "tokenizer.json", "onnx/model.onnx", "onnx/model.onnx.data", "arrays.npz"]


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "models" / "model"))


def load(folder: Path) -> trivec.DenseEncoder:
    encoder: trivec.DenseEncoder = trivec.load(folder, device="cpu", threads=1)
    return encoder


def linked(place: Path, target: Path, *, relative: bool = False) -> None:
    """Move a file or folder, and leave a link to it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    place.rename(target)
    place.symlink_to(os.path.relpath(target, place.parent) if relative else target)


def check(folder: Path, tiny_model: TinyModel) -> None:
    with load(folder) as encoder:
        np.testing.assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("name", [*FILES, "onnx"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path, name: str, relative: bool) -> None:
    linked(folder / name, tmp_path / "elsewhere" / "target", relative=relative)
    with pytest.raises(ModelFormatError) as caught:
        load(folder)
    assert str(caught.value) == (
        f"{folder / name} leads to {tmp_path / 'elsewhere' / 'target'}, out of the model folder {folder}. Copy the "
        "folder together with what its links lead to: cp -rL FOLDER COPY"
    )


def test_what_to_type_helps(folder: Path, tmp_path: Path, tiny_model: TinyModel) -> None:
    linked(folder / "onnx", tmp_path / "elsewhere")
    shutil.copytree(folder, tmp_path / "copy")  # follows links, as cp -rL does
    check(tmp_path / "copy", tiny_model)


def test_a_link_that_leads_nowhere_is_named_too(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelFormatError, match=rf"tokenizer\.json leads to {re.escape(str(tmp_path / 'gone'))}, out"):
        load(folder)


def test_links_in_a_circle(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("tokenizer.json")
    with pytest.raises(trivec.IntegrityError, match=r"tokenizer\.json is missing"):
        load(folder)


def test_links_within_the_folder(folder: Path, tiny_model: TinyModel) -> None:
    """As a volume of Kubernetes has them: each file leads through ..data, which leads to a folder with a date."""
    (folder / "..2026_11").mkdir()
    (folder / "..data").symlink_to("..2026_11")
    for path in [path for path in folder.iterdir() if not path.name.startswith(".")]:
        path.rename(folder / "..2026_11" / path.name)
        path.symlink_to(f"..data/{path.name}")
    check(folder, tiny_model)


def test_a_folder_beside_it_of_a_longer_name_is_outside(folder: Path) -> None:
    linked(folder / "tokenizer.json", folder.with_name("model-2") / "tokenizer.json")
    with pytest.raises(ModelFormatError, match="out of the model folder"):
        load(folder)


@pytest.mark.parametrize("above", [False, True])
def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path, tiny_model: TinyModel, above: bool) -> None:
    place = folder.parent if above else folder
    linked(place, tmp_path / "green")
    check(folder, tiny_model)


# ---- the Hub's cache -------------------------------------------------------------------------------------------------


def snapshot(folder: Path, repository: Path, blobs: str = "blobs") -> Path:
    """The model as a snapshot in the Hub's cache, whose files are links to blobs."""
    place = repository / "snapshots" / ("b" * 40)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        name = path.relative_to(folder).as_posix()
        link, blob = place / name, repository / blobs / name.replace("/", "-")
        link.parent.mkdir(parents=True, exist_ok=True)
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return place


def test_a_snapshot_by_its_path(folder: Path, tmp_path: Path, tiny_model: TinyModel) -> None:
    check(snapshot(folder, tmp_path / "hub" / "models--lab--tiny"), tiny_model)


@pytest.mark.parametrize("blobs", ["blob", "blobs/more", "../blobs"])
def test_blobs_are_in_one_place(folder: Path, tmp_path: Path, blobs: str) -> None:
    with pytest.raises(ModelFormatError, match="out of the model folder"):
        load(snapshot(folder, tmp_path / "hub" / "models--lab--tiny", blobs))


def test_a_blob_that_leads_on(folder: Path, tmp_path: Path) -> None:
    place = snapshot(folder, tmp_path / "hub" / "models--lab--tiny")
    linked(place.parents[1] / "blobs" / "tokenizer.json", tmp_path / "secret")
    with pytest.raises(ModelFormatError, match=rf"leads to {re.escape(str(tmp_path / 'secret'))}, out"):
        load(place)


def test_blobs_that_are_a_link(folder: Path, tmp_path: Path) -> None:
    """A folder that somebody sends may look like a cache, and have any other for its blobs."""
    place = snapshot(folder, tmp_path / "hub" / "models--lab--tiny")
    linked(place.parents[1] / "blobs", tmp_path / "etc")
    with pytest.raises(ModelFormatError, match=rf"leads to {re.escape(str(tmp_path / 'etc' / 'trivec.json'))}, out"):
        load(place)


# ---- without a manifest ----------------------------------------------------------------------------------------------


def plain(folder: Path) -> None:
    """What Optimum writes: graphs, and no manifest."""
    (folder / "trivec.json").unlink()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 32}))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "onnx/model.onnx.data"])
def test_the_same_for_a_folder_without_a_manifest(folder: Path, tmp_path: Path, name: str) -> None:
    plain(folder)
    options: dict[str, Any] = {"device": "cpu", "pooling": "mean"}
    trivec.load(folder, **options).close()
    linked(folder / name, tmp_path / "elsewhere" / "target")
    with pytest.raises(ModelFormatError, match=rf"{re.escape(name)} leads to .*, out of the model folder"):
        trivec.load(folder, **options)


def test_what_is_not_read_may_lead_anywhere(folder: Path, tmp_path: Path, tiny_model: TinyModel) -> None:
    (folder / "notes.txt").symlink_to(tmp_path)
    linked(folder / "onnx" / "model_int8.onnx", tmp_path / "elsewhere")
    check(folder, tiny_model)
