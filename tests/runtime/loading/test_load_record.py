"""What the log says of a load."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tests.support.static_models import model2vec_folder
from tests.support.tiny_heads import hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec


def records(caplog: pytest.LogCaptureFixture, level: int) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "trivec" and record.levelno == level]


def test_one_record_a_load(tiny_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "trivec"):
        encoder = trivec.load(tiny_folder, device="cpu", precision="int8", threads=3)
        encoder.encode(["a cat", "the dog"])
    (record,) = records(caplog, logging.INFO)
    parts = vars(record)["trivec"]
    assert parts.pop("ms") >= 0
    assert parts == {
        "model": str(tiny_folder),
        "name": None,
        "version": None,
        "kind": "DenseEncoder",
        "fingerprint": encoder.fingerprint,
        "engine": encoder.engine_fingerprint,
        "device": "cpu",
        "precision": "int8",
        "threads": 3,
        "threads_from": "threads= of the call",
        "trivec": trivec.__version__,
    }
    said = record.getMessage()
    assert said.startswith(f"loaded {tiny_folder} in ")
    assert f"int8 on cpu, 3 threads (threads= of the call), trivec {trivec.__version__}, engine onnxruntime " in said
    assert parts["engine"].startswith(f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider, rows, numpy ")
    assert said.endswith(f"fingerprint {encoder.fingerprint}")


def test_every_kind_has_one(tiny_model: TinyModel, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folders = [
        splade(tmp_path / "sparse", tiny_model, random_logits(), random_weights()).folder,
        hybrid(tmp_path / "hybrid", tiny_model).folder,
        model2vec_folder(tmp_path / "static"),
    ]
    with caplog.at_level(logging.INFO, "trivec"):
        encoders = [trivec.load(folder) for folder in folders]
    told = [vars(record)["trivec"] for record in records(caplog, logging.INFO)]
    assert [parts["kind"] for parts in told] == ["SparseEncoder", "HybridEncoder", "StaticEncoder"]
    assert [parts["fingerprint"] for parts in told] == [encoders[0].fingerprint, encoders[1].fingerprint, None]
    assert told[2]["engine"].startswith(f"numpy {np.__version__}, ")


def test_the_variable_that_decides_the_threads(
    tiny_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with caplog.at_level(logging.INFO, "trivec"):
        trivec.load(tiny_folder)
    (record,) = records(caplog, logging.INFO)
    assert vars(record)["trivec"]["threads"] == 1


def test_nothing_is_hashed_for_the_log(tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    manifest = json.loads((folder / "trivec.json").read_text())
    for file in _files(manifest):
        file.pop("sha256")
    (folder / "trivec.json").write_text(json.dumps(manifest))
    with caplog.at_level(logging.INFO, "trivec"):
        trivec.load(folder, expect="unverified")
    (record,) = records(caplog, logging.INFO)
    assert vars(record)["trivec"]["fingerprint"] is None


def test_what_its_maker_calls_it(tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    manifest = json.loads((folder / "trivec.json").read_text())
    (folder / "trivec.json").write_text(json.dumps({**manifest, "name": "support", "version": "7"}))
    with caplog.at_level(logging.INFO, "trivec"):
        trivec.load(folder)
    (record,) = records(caplog, logging.INFO)
    assert [vars(record)["trivec"][key] for key in ("name", "version")] == ["support", "7"]
    assert record.getMessage().startswith(f"loaded {folder} (support 7) in ")


def _files(part: object) -> list[dict[str, object]]:
    """Every description of a file in a manifest."""
    if isinstance(part, list):
        return [file for each in part for file in _files(each)]
    if not isinstance(part, dict):
        return []
    return [*([part] if "sha256" in part else []), *(file for each in part.values() for file in _files(each))]


def test_choices_at_debug(tiny_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "trivec"):
        trivec.load(tiny_folder, device="cpu", precision="int8", threads=1)
    said = "\n".join(record.getMessage() for record in records(caplog, logging.DEBUG))
    assert f"{tiny_folder} has ['fp32', 'int8']; onnxruntime has " in said
    assert "to be tried in turn: int8 on cpu" in said
    assert "model_int8.onnx is hashed: " in said
    assert "is opened from [" in said


def test_a_server_at_info_draws_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    code = (
        "import logging, sys, trivec; logging.basicConfig(level=logging.INFO, format='%(name)s %(message)s'); "
        "encoder = trivec.load(sys.argv[1], device='cpu', threads=1)\n"
        "for _ in range(30): encoder.encode(['a cat', 'the dog'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tiny_folder], capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert line.startswith(f"trivec loaded {tiny_folder} in ")
