"""What files say of the engine that computed them, and who is told where it is another one."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.tiny_heads import random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, store
from trivec._engine import engine_name

TEXTS = ["a cat", "the dog", "", "a cat and the dog", "the cat", "dog"]
GOLDEN = Path(__file__).parents[2] / "golden"
STATED = json.loads((Path(trivec.__file__).parent / "_engine/data/engine_drift.json").read_text(encoding="utf-8"))


@pytest.fixture
def encoders(tiny_model: TinyModel, tmp_path: Path) -> dict[str, Any]:
    sparse = splade(tmp_path / "sparse", tiny_model, random_logits(), random_weights()).folder
    dense = trivec.load(tiny_model.folder, device="cpu", threads=1)
    return {"npz": trivec.load(sparse, device="cpu", threads=1), "npy": dense, "jsonl": dense, "parquet": dense}


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, this is a machine with other kernels."""
    monkeypatch.setattr(engine_name, "this_kernel_class", lambda: "x86_64 as nobody has it")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "npy", "npz"])
def test_every_file_says_both(
    encoders: dict[str, Any],
    suffix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoder, path = encoders[suffix], tmp_path / f"out.{suffix}"
    store.write(path, encoder, TEXTS)
    here, prints = encoder.engine_fingerprint, {"fingerprint": encoder.fingerprint}
    found = store.read(path, **prints, engine=here, strict=True)
    assert (found.fingerprint, found.engine) == (encoder.fingerprint, here)
    assert all(block.engine == here for block in store.read_iter(path, window=2, engine=here, strict=True))
    assert not caplog.records
    elsewhere(monkeypatch)
    other = encoder.engine_fingerprint
    assert other != here
    assert encoder.fingerprint == found.fingerprint
    store.read(path, **prints, engine=other)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    said = record.getMessage()
    assert said.startswith(f"{path}: computed by another engine, {here}; here it is {other}. Measured on ")
    for precision in ("fp32", "int8"):
        figures = STATED["drift"][precision]["dense"]
        told = f"{precision} dense by up to {figures['max_diff']:.1e} (cosine at least {figures['cosine_min']:.6f})"
        assert told in said
    for read in (store.read, store.read_iter):
        with pytest.raises(InputError, match="For equal bits encode the texts again, or leave out strict"):
            read(path, engine=other, strict=True)


@pytest.mark.parametrize("name", ["dense.npy", "dense.jsonl", "splade.npz", "hybrid.parquet"])
def test_files_of_before_do_not_say(name: str, caplog: pytest.LogCaptureFixture) -> None:
    path = GOLDEN / "stores" / name
    assert store.read(path).engine is None
    store.read(path, engine="anything")
    assert not caplog.records
    with pytest.raises(InputError, match="it is not said which engine computed it, and anything is wanted"):
        store.read(path, engine="anything", strict=True)
    with pytest.raises(InputError, match=r"strict=True compares engines: say which. Type: engine=encoder.engine_fing"):
        store.read(path, strict=True)


def interrupted(path: Path, encoder: Any, after: int) -> None:
    """Write to a file until so many texts are read, and fail."""

    def texts() -> Any:
        yield from TEXTS[:after]
        raise KeyError("the source ended")

    with pytest.raises(KeyError):
        store.write(path, encoder, texts(), window=2)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "npy", "npz"])
def test_going_on_with_another_engine_is_told_and_stands_in_the_file(
    encoders: dict[str, Any],
    suffix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoder, path = encoders[suffix], tmp_path / f"out.{suffix}"
    interrupted(path, encoder, 4)
    first = encoder.engine_fingerprint
    elsewhere(monkeypatch)
    second = encoder.engine_fingerprint
    with pytest.raises(InputError, match="For equal bits start over: overwrite=True, or leave out strict"):
        store.write(path, encoder, TEXTS, window=2, strict=True)
    assert not caplog.records
    written = store.write(path, encoder, TEXTS, window=2)
    assert (written.rows, written.resumed) == (6, 4)
    assert f"what is done in {path}.partial: computed by another engine, {first}; here it is {second}" in caplog.text
    assert store.read(path).engine == f"{first}; {second}"
    with pytest.raises(InputError, match="computed by another engine"):
        store.read(path, engine=second, strict=True)


def test_a_run_of_before_goes_on_and_its_file_does_not_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))
    path = tmp_path / "dense.npy"
    shutil.copy(GOLDEN / "stores" / "half-dense.npy.partial", f"{path}.partial")
    with trivec.load(GOLDEN / "dense", device="cpu", threads=1) as encoder:
        written = store.write(path, encoder, said["texts"], window=4, **said["stores"]["dense.npy"])
    assert written.resumed == 4
    assert not caplog.records
    assert store.read(path).engine is None


def test_lines_that_were_put_together(
    encoders: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder, both = encoders["jsonl"], tmp_path / "both.jsonl"
    names = [tmp_path / f"{name}.jsonl" for name in ("one", "again", "normalized")]
    store.write(names[0], encoder, TEXTS)
    elsewhere(monkeypatch)
    store.write(names[1], encoder, TEXTS)
    store.write(names[2], encoder, TEXTS, normalize_embeddings=True)
    both.write_bytes(names[0].read_bytes() + names[1].read_bytes())
    assert np.asarray(store.read(both).vectors).shape[0] == 12
    assert f"{both}, line 7 and what follows: computed by another engine" in caplog.text
    first, second = (str(store.read(name).engine) for name in names[:2])
    with pytest.raises(InputError, match="line 7 and what follows: computed by another engine"):
        store.read(both, engine=first, strict=True)
    with pytest.raises(InputError, match="line 7 and what follows: computed by another engine"):
        list(store.read_iter(both, window=2, engine=first, strict=True))
    caplog.clear()
    store.read(both, engine=second)  # of which the first part is not, and the second is
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{both}: computed by another engine, {first}; here it is {second}. ")
    both.write_bytes(names[0].read_bytes() + names[2].read_bytes())
    with pytest.raises(InputError, match="line 7 begins the vectors of another model or of other options"):
        store.read(both)
    lines = names[0].read_bytes().splitlines(keepends=True)
    both.write_bytes(b"".join(lines[1:]))  # a part, which does not say
    assert (store.read(both).fingerprint, store.read(both).engine) == (None, None)


@pytest.mark.parametrize("name", ["fingerprint", "engine"])
def test_what_is_no_fingerprint(name: str, encoders: dict[str, Any], tmp_path: Path) -> None:
    store.write(tmp_path / "out.npy", encoders["npy"], TEXTS)
    arguments: dict[str, Any] = {name: encoders["npy"]}
    with pytest.raises(InputError, match=f"{name} must be a string, got DenseEncoder. Type: {name}="):
        store.read(tmp_path / "out.npy", **arguments)


def test_what_a_file_says_in_numbers_is_nothing(encoders: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    store.write(path, encoders["npy"], TEXTS)
    data = path.read_bytes()
    start, end = data.rindex(b"\ntrivec {"), data.rindex(b"\ntrivec crc32 ")
    path.write_bytes(data[:start] + b'\ntrivec {"fingerprint": 5, "engine": [1]}' + data[end:])
    with pytest.raises(InputError, match="does not say which model wrote it"):
        store.read(path, fingerprint="of some model")
    with pytest.raises(InputError, match="is damaged: what it holds has the checksum"):
        store.read(path)
