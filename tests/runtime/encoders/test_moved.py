"""A model whose folder is moved, removed or replaced while it is open: the one that was loaded goes on."""

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.testing import assert_allclose
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, IntegrityError, ModelNotFoundError
from trivec._loading.load_keywords import Precision
from trivec._model import held_file
from trivec.store import read, write

WORDS = ("river", "boat", "old", "tree", "bird", "hill", "under", "blue", "house", "ran", "a")
TEXTS = [" ".join(WORDS[(n + i * i) % 11] for i in range(1 + n % 9)) for n in range(240)]


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model, of which these tests do what they like."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "green" / "model")).parent / "model"


def become_another(folder: Path) -> None:
    """Other weights of the same shape in files of the same names."""
    for file in ("model.onnx.data", "model_int8.onnx.data"):
        data = (folder / "onnx" / file).read_bytes()
        (folder / "onnx" / file).unlink()
        (folder / "onnx" / file).write_bytes(bytes(reversed(data[::4] * 4)))


def replaced(folder: Path) -> None:
    """What `mv model old; mv new model` does."""
    folder.rename(folder.with_name("old"))
    shutil.copytree(folder.with_name("old"), folder)
    become_another(folder)


def plain(folder: Path) -> None:
    """A folder without a manifest: what sentence-transformers writes."""
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    described = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(described))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 12, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    (folder / "trivec.json").unlink()


# ---- the folder moves ------------------------------------------------------------------------------------------------


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def files_replaced(folder: Path) -> None:
    """Each file anew under its name, as rsync and git do it."""
    become_another(folder)


def nothing(_: Path) -> None: ...


@pytest.mark.parametrize("happens", [replaced, removed, files_replaced, nothing])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_model_that_was_loaded_goes_on(
    folder: Path, tiny_model: TinyModel, happens: Callable[[Path], None], precision: Precision
) -> None:
    with trivec.load(folder, precision=precision, device="cpu", threads=2) as encoder:
        expected, before = tiny_model.expected(TEXTS, precision), encoder.fingerprint
        happens(folder)
        assert_allclose(encoder.encode(TEXTS), expected, atol=1e-6)  # the lanes open their session only now
        assert_allclose(np.stack([encoder.encode(text) for text in TEXTS[:9]]), expected[:9], atol=1e-6)
        assert encoder.fingerprint == before
        blocks = list(encoder.encode_iter(TEXTS, window=70))
        assert_allclose(np.concatenate(blocks), expected, atol=1e-6)


@pytest.mark.parametrize("happens", [replaced, removed])
def test_so_does_one_without_a_manifest(folder: Path, tiny_model: TinyModel, happens: Callable[[Path], None]) -> None:
    plain(folder)
    with trivec.load(folder, device="cpu", threads=2) as encoder:
        expected = encoder.fingerprint
    with trivec.load(folder, device="cpu", threads=2) as encoder:
        happens(folder)
        assert encoder.fingerprint == expected  # its files' sha256 are computed only now
        assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)


def test_a_link_is_flipped(folder: Path, tiny_model: TinyModel) -> None:
    blue = Path(shutil.copytree(folder, folder.with_name("blue")))
    become_another(blue)
    link = folder.with_name("current")
    link.symlink_to(folder.name)
    encoder = trivec.load(link, device="cpu", threads=2)
    link.unlink()
    link.symlink_to(blue.name)
    with encoder, pickle.loads(pickle.dumps(encoder)) as other:
        for one in (encoder, other):
            assert_allclose(one.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
        assert encoder.name == other.name == str(folder)


def test_links_inside_of_a_folder_are_flipped(folder: Path, tiny_model: TinyModel) -> None:
    """A folder of weights that is a link, and files that are, as in the Hub's cache."""
    (folder / "onnx").rename(folder / "v1")
    shutil.copytree(folder / "v1", folder / "onnx")
    become_another(folder)
    (folder / "onnx").rename(folder / "v2")
    (folder / "onnx").symlink_to("v1")
    data = folder / "v1" / "model.onnx.data"
    data.rename(folder / "v1" / "blob")
    data.symlink_to("blob")
    with trivec.load(folder, device="cpu", threads=2) as encoder:
        (folder / "onnx").unlink()
        (folder / "onnx").symlink_to("v2")
        data.unlink()
        data.symlink_to("../v2/model.onnx.data")
        assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)


def test_the_working_directory_changes(
    folder: Path, tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    encoder = trivec.load("model", device="cpu", threads=2)
    (tmp_path / "model").mkdir()  # another one of that name
    monkeypatch.chdir(tmp_path)
    with encoder, pickle.loads(pickle.dumps(encoder)) as other:
        for one in (encoder, other):
            assert_allclose(one.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)


def test_a_cache_of_the_hub_by_a_relative_path(
    folder: Path, tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "c" * 40
    repository = tmp_path / "cache" / "models--some--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)
    monkeypatch.chdir(tmp_path)
    encoder = trivec.load("some/model", cache_dir="cache", local_files_only=True, device="cpu", threads=2)
    monkeypatch.chdir(folder)
    with encoder, pickle.loads(pickle.dumps(encoder)) as other:
        for one in (encoder, other):
            assert_allclose(one.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)


def test_the_working_directory_changes_while_a_file_is_written(
    tiny_folder: Path, tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()

    def texts() -> Any:
        yield from TEXTS[:100]
        monkeypatch.chdir(tmp_path / "elsewhere")
        yield from TEXTS[100:]

    monkeypatch.chdir(tmp_path)
    with trivec.load(tiny_folder, device="cpu", threads=2) as encoder:
        write("rows.jsonl", encoder, texts(), window=50)
    assert_allclose(np.asarray(read(tmp_path / "rows.jsonl").vectors), tiny_model.expected(TEXTS), atol=1e-6)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_files_that_are_replaced_while_they_are_opened(
    folder: Path, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = onnxruntime.InferenceSession, []

    def opening(*arguments: Any, **options: Any) -> Any:
        calls.append(type(arguments[0]))
        if len(calls) == 1:
            replaced(folder)
        return real(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opening)
    with trivec.load(folder, device="cpu", threads=1) as encoder:
        assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    assert calls == [str, bytes]


# ---- a file is written over ------------------------------------------------------------------------------------------


def write_over(path: Path) -> None:
    """As `cp other path` does: the file stays the same one, with other bytes."""
    with path.open("r+b") as stream:
        stream.write(path.read_bytes()[::-1])
    os.utime(path, ns=(1, 1))  # whatever the clock's resolution


def test_a_file_that_was_written_over_is_an_error(folder: Path) -> None:
    with trivec.load(folder, device="cpu", threads=2) as encoder:
        write_over(folder / "onnx" / "model.onnx.data")
        with pytest.raises(
            IntegrityError, match=r"model\.onnx\.data was written over since it was loaded, .* rename it"
        ):
            encoder.encode(TEXTS)


def test_so_it_is_where_its_folder_is_gone_as_well(folder: Path) -> None:
    with trivec.load(folder, device="cpu", threads=2) as encoder:
        write_over(folder / "onnx" / "model.onnx")
        shutil.rmtree(folder)
        with pytest.raises(IntegrityError, match=r"model\.onnx was written over since it was loaded"):
            encoder.encode(TEXTS)


def test_so_it_is_where_a_fingerprint_would_be_another_files(folder: Path) -> None:
    plain(folder)
    with trivec.load(folder, device="cpu", threads=2) as encoder:
        write_over(folder / "tokenizer.json")
        with pytest.raises(IntegrityError, match=r"tokenizer\.json was written over"):
            _ = encoder.fingerprint


def test_another_date_is_no_other_file(folder: Path, tiny_model: TinyModel) -> None:
    with trivec.load(folder, device="cpu", threads=2) as encoder:
        for path in (folder / "onnx").iterdir():
            os.utime(path, ns=(10**18, 10**18))
        assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)


# ---- processes and pickles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [nothing, plain])
def test_a_pickle_opens_no_other_model(folder: Path, make: Callable[[Path], None]) -> None:
    make(folder)
    with trivec.load(folder, device="cpu", threads=1) as encoder:
        data = pickle.dumps(encoder)
        replaced(folder)
        if make is nothing:  # a whole new model, manifest and all
            manifest = json.loads((folder / "trivec.json").read_text())
            for ref in _refs(manifest):
                ref["sha256"] = hashlib.sha256((folder / ref["path"]).read_bytes()).hexdigest()
            (folder / "trivec.json").write_text(json.dumps(manifest))
        with pytest.raises(IntegrityError, match="holds another model by now than the encoder that was pickled"):
            pickle.loads(data)
        with pytest.raises(IntegrityError, match="holds another model by now"):
            encoder.encode(TEXTS[:4], device=["cpu"])
        shutil.rmtree(folder)
        with pytest.raises(ModelNotFoundError, match="there is no folder"):
            pickle.loads(data)


def _refs(value: Any) -> list[dict[str, Any]]:
    """Every entry of a manifest that describes a file."""
    if isinstance(value, dict):
        return [value] if "sha256" in value else [ref for part in value.values() for ref in _refs(part)]
    return [ref for part in value for ref in _refs(part)] if isinstance(value, list) else []


# ---- where no file is held open --------------------------------------------------------------------------------------


def test_without_open_files_another_model_is_an_error(
    folder: Path, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    monkeypatch.setattr(held_file, "_HOLDS", False)
    with trivec.load(folder, device="cpu", threads=2) as encoder:
        assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    with trivec.load(folder, device="cpu", threads=2) as encoder:
        shutil.copytree(folder, folder.with_name("copy"))
        shutil.rmtree(folder)
        folder.with_name("copy").rename(folder)  # other files with the same bytes will do
        assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    with trivec.load(folder, device="cpu", threads=2) as encoder:
        replaced(folder)
        with pytest.raises(IntegrityError, match=r"onnx\.data is gone, or another file than the one that was loaded"):
            encoder.encode(TEXTS)


def _open_files(folder: Path) -> set[int]:
    """Descriptors of what is in the folder; others come and go with other tests' threads."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists the others is closed by now
            if path.readlink().is_relative_to(folder.resolve()):
                found.add(int(path.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc/self/fd")
def test_files_that_something_else_has_closed(folder: Path, tiny_model: TinyModel) -> None:
    """What makes a daemon of a process closes all descriptors, and their numbers go to other files."""
    encoder = trivec.load(folder, device="cpu", threads=2)
    held = sorted(_open_files(folder))
    assert held
    for descriptor in held:  # and nothing between them: that is another test's
        os.close(descriptor)
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(held[-1])]
    assert set(held) <= set(others)
    assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    encoder.close()
    del encoder
    for descriptor in others:
        os.close(descriptor)  # they were not closed by whoever had the numbers before


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc/self/fd")
def test_closing_an_encoder_closes_its_files(folder: Path) -> None:
    kept = []
    for _ in range(5):
        encoder = trivec.load(folder, device="cpu", threads=2)
        encoder.encode(TEXTS)
        assert _open_files(folder)
        encoder.close()
        kept.append(encoder)  # closed is enough
        del encoder
    assert not _open_files(folder)
    with pytest.raises(InputError, match="this encoder is closed"):
        _ = kept[0].fingerprint
