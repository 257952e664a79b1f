"""Files that are not what the manifest says, and the notes that spare the second check."""

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.support.tiny_model import TinyModel

import trivec
from trivec import IntegrityError, ModelFormatError
from trivec._model import integrity, manifest_file
from trivec._model.integrity import check, describe, sha256
from trivec._model.manifest import FileRef

FILES = ["onnx/model.onnx", "onnx/model.onnx.data", "tokenizer.json", "arrays.npz"]


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose sha256 was computed."""
    names: list[str] = []

    def counting(path: Path) -> str:
        names.append(path.name)
        return sha256(path)

    monkeypatch.setattr(integrity, "sha256", counting)
    return names


def load(folder: Path) -> trivec.DenseEncoder:
    encoder: trivec.DenseEncoder = trivec.load(folder, device="cpu", threads=1)
    return encoder


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(IntegrityError) as caught:
        load(folder)
    assert str(caught.value) == (
        f"{folder / name} is missing; the manifest lists it. Copy the folder again, or export it again: trivec export"
    )


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(IntegrityError, match=f"has {len(data) - 1:,} bytes; the manifest says {len(data):,}. It is tr"):
        load(folder)


@pytest.mark.parametrize("name", FILES)
def test_an_altered_file_of_the_same_size(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=r"has sha256 [0-9a-f]{16}\.\.\.; the manifest says .* It was altered"):
        load(folder)


def test_a_file_of_another_variant_is_not_looked_at(folder: Path, tiny_model: "TinyModel") -> None:
    (folder / "onnx/model_int8.onnx.data").unlink()
    with load(folder) as encoder:
        np.testing.assert_allclose(encoder.encode(["a cat"]), tiny_model.expected(["a cat"]), atol=1e-6)
    with pytest.raises(IntegrityError, match=r"model_int8\.onnx\.data is missing"):
        trivec.load(folder, device="cpu", precision="int8")


def test_arrays_that_are_no_npz(folder: Path) -> None:
    (folder / "arrays.npz").write_bytes(b"not a zip file")
    manifest = manifest_file.read(folder)
    damaged = dataclasses.replace(manifest, arrays=describe(folder, "arrays.npz"))
    (folder / "trivec.json").write_text(manifest_file.dumps(damaged), encoding="utf-8")
    with pytest.raises(ModelFormatError, match=r"arrays\.npz is no readable \.npz file"):
        load(folder)


def test_the_second_load_hashes_nothing(folder: Path, hashed: list[str]) -> None:
    load(folder).close()
    assert sorted(hashed) == ["arrays.npz", "model.onnx", "model.onnx.data", "tokenizer.json"]
    hashed.clear()
    load(folder).close()
    assert hashed == []


def test_a_changed_time_or_digest_is_hashed_again(folder: Path, hashed: list[str]) -> None:
    path, ref = folder / "tokenizer.json", describe(folder, "tokenizer.json")
    hashed.clear()
    check(path, ref)
    check(path, ref)
    assert hashed == ["tokenizer.json"]
    os.utime(path, ns=(1, 1))
    check(path, ref)
    assert hashed == ["tokenizer.json"] * 2
    with pytest.raises(IntegrityError):
        check(path, FileRef(ref.path, ref.bytes, "0" * 64))


def test_an_alteration_after_the_note_is_found(folder: Path) -> None:
    load(folder).close()
    data = bytearray((folder / "onnx/model.onnx.data").read_bytes())
    data[0] ^= 1
    (folder / "onnx/model.onnx.data").write_bytes(data)
    with pytest.raises(IntegrityError, match="It was altered"):
        load(folder)


def test_a_copy_has_a_note_of_its_own(folder: Path, tmp_path: Path, hashed: list[str]) -> None:
    load(folder).close()
    hashed.clear()
    load(Path(shutil.copytree(folder, tmp_path / "copy"))).close()
    assert len(hashed) == 4


def test_a_failed_check_leaves_no_note(folder: Path, trivec_home: Path) -> None:
    path = folder / "tokenizer.json"
    with pytest.raises(IntegrityError):
        check(path, FileRef("tokenizer.json", path.stat().st_size, "0" * 64))
    assert not (trivec_home / "checked").exists()


def test_a_home_that_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[str]
) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    monkeypatch.setenv("TRIVEC_HOME", str(blocked / "home"))
    for _ in range(2):
        load(folder).close()
    assert len(hashed) == 8


def test_a_home_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    check(folder / "tokenizer.json", describe(folder, "tokenizer.json"))


def test_a_reference_without_digest_checks_the_size_only(folder: Path, hashed: list[str]) -> None:
    size = (folder / "tokenizer.json").stat().st_size
    check(folder / "tokenizer.json", FileRef("tokenizer.json", size))
    assert hashed == []
    with pytest.raises(IntegrityError, match="bytes; the manifest says 1"):
        check(folder / "tokenizer.json", FileRef("tokenizer.json", 1))
