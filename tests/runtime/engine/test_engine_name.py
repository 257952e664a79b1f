"""What an encoder says of its engine, and that the figures that are stated were measured."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tests.support.fake_engine import FakeEngine
from tests.support.static_models import model2vec_folder
from tests.support.tiny_model import TinyModel

import trivec
from trivec._engine import engine_name
from trivec._engine.devices import Device, Provider
from trivec._engine.engine_drift import measured
from trivec._engine.engine_name import numpy_name, session_name

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_name, "this_kernel_class", lambda: "x86_64 fma avx2")


def test_the_engine_of_a_graph_on_the_cpu(tiny_model: TinyModel) -> None:
    expected = (
        f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider, rows, numpy {np.__version__}, x86_64 fma avx2"
    )
    named = set()
    for precision in ("fp32", "int8"):
        for threads in (1, 3):
            with trivec.load(tiny_model.folder, device="cpu", precision=precision, threads=threads) as encoder:
                named.add(encoder.engine_fingerprint)
                named.add(pickle.loads(pickle.dumps(encoder)).engine_fingerprint)
    assert named == {expected}


def test_a_closed_encoder_has_none(tiny_model: TinyModel) -> None:
    encoder = trivec.load(tiny_model.folder, device="cpu")
    encoder.close()
    with pytest.raises(trivec.InputError, match="this encoder is closed"):
        _ = encoder.engine_fingerprint


def test_a_static_model_is_numpys(tmp_path: Path) -> None:
    with trivec.load(model2vec_folder(tmp_path / "static")) as encoder:
        assert encoder.engine_fingerprint == numpy_name() == f"numpy {np.__version__}, x86_64 fma avx2"


def test_a_gpu_is_named(tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeEngine(cuda="ok"))
    monkeypatch.setattr(engine_name, "cuda_name", lambda index: f"NVIDIA H{index}")
    with trivec.load(tiny_model.folder, device="cuda", precision="fp32") as encoder:
        found = encoder.engine_fingerprint
    assert found.startswith("onnxruntime 1.31.1, CUDAExecutionProvider {")
    assert '"use_tf32": "0"' in found
    assert ", NVIDIA H0, CUDA 12.8, rows, numpy " in found


def test_options_that_compute_count_and_places_do_not() -> None:
    def named(**options: object) -> str:
        provider = Provider("SomeExecutionProvider", options)
        return session_name("1.32.0", [provider.name], [provider], Device("some", 1), "padded", "")

    assert named() == named(device_id=1, gpu_mem_limit=1 << 30)
    assert named() == f"onnxruntime 1.32.0, SomeExecutionProvider, padded, {numpy_name()}"
    assert named(fp16=True).startswith('onnxruntime 1.32.0, SomeExecutionProvider {"fp16": "True"}, padded, ')


def test_the_stated_figures_are_the_report_s() -> None:
    """The worst row of each kind of vectors in the report, but for engines that do not agree with themselves."""
    rows = [json.loads(line) for line in (ROOT / "benchmarks/results/engine-drift.jsonl").read_text().splitlines()]
    worst = [row for row in rows if row["table"] == "worst" and "model" in row]
    stated = measured()
    assert {row["model"] for row in worst} == set(stated.models)
    assert {f"{p} {head}" for p, heads in stated.drift.items() for head in heads} == {row["vectors"] for row in worst}
    for row in worst:
        precision, head = row["vectors"].split(" ")
        found = stated.drift[precision][head]
        assert found.max_diff <= row["max_diff"]
        assert found.cosine_min >= row["cosine_min"]
    assert (stated.onnxruntime[0], stated.onnxruntime[-1]) == ("1.24.4", "1.32.0")
