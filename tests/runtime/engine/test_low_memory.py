"""low_memory: weights stay in the mapped file, the vectors are the reference's; what has no such weights says so."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper, numpy_helper
from tests.support.rerankers import write_tiny_reranker
from tests.support.static_models import model2vec_folder
from tests.support.tiny_heads import hybrid
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError
from trivec._cli.main import main

WORDS = ("find", "a", "the", "cat", "dog", "sat", "hill")
TEXTS = [" ".join(WORDS[(n + i) % 7] for i in range(1 + n % 11)) for n in range(333)]


def load(folder: Path, **options: Any) -> Any:
    given: dict[str, Any] = {"threads": 2, "low_memory": True, **options}
    return trivec.load(folder, **given)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_vectors_are_the_same(tiny_folder: Path, tiny_model: TinyModel, precision: str) -> None:
    with (
        load(tiny_folder, precision=precision) as encoder,
        load(tiny_folder, precision=precision, low_memory=False) as other,
    ):
        assert encoder.device == "cpu"
        found = encoder.encode(TEXTS)
        assert_allclose(found, tiny_model.expected(TEXTS, precision), atol=1e-6)
        assert encoder.fingerprint == other.fingerprint
        assert "weights as stored" in encoder.engine_fingerprint
        assert "weights as stored" not in other.engine_fingerprint
        assert_array_equal(pickle.loads(pickle.dumps(encoder)).encode(TEXTS), found)


def test_nothing_is_packed(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the lanes' session as well."""
    opened: list[str] = []
    real = onnxruntime.InferenceSession

    def session(model: Any, options: Any, **others: Any) -> Any:
        opened.append(_entry(options, "session.disable_prepacking"))
        return real(model, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with load(tiny_folder) as encoder:
        encoder.encode(TEXTS)
    assert opened == ["1"] * 2
    opened.clear()
    trivec.load(tiny_folder, threads=1).close()
    assert opened == [""]


def _entry(options: Any, name: str) -> str:
    try:
        return str(options.get_session_config_entry(name))
    except RuntimeError:  # onnxruntime's answer to a name that is not set
        return ""


def test_weights_are_not_copied_and_runs_keep_nothing(tmp_path: Path) -> None:
    """A matrix of 64 MB, read where it is mapped; a run over 128 MB, of which nothing is left."""
    width = 4096
    weight = np.random.default_rng(0).normal(size=(width, width)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["input_ids"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["numbers", "weight"], ["tokens"]),
        ],
        "one",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "s"])],
        [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["b", width])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "one.onnx"), save_as_external_data=True, location="one.onnx.data")
    (opened, after), (low, low_after) = (
        json.loads(_run(OPENED, str(tmp_path), json.dumps(low_memory))) for low_memory in (False, True)
    )
    assert opened - low > 0.9 * weight.nbytes
    assert after - opened > 1.5 * weight.nbytes  # what the arena of a small model keeps, for the next run
    assert low_after - low < 0.5 * weight.nbytes


OPENED = """
import json, sys
from pathlib import Path
from trivec._engine.devices import Device
from trivec._engine.session import Session
import numpy as np

def private():  # bytes that no file stands behind
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

import onnxruntime
before = private()
folder = Path(sys.argv[1])
files = [folder / "one.onnx", folder / "one.onnx.data"]
session = Session(files, device=Device("cpu"), threads=1, low_memory=json.loads(sys.argv[2]))
session.run_feeds({"input_ids": np.ones((1, 4096), dtype=np.int64)}, ["tokens"])
opened = private() - before
for rows in (4096, 1):  # what a run hands out is in the arena, until the next one
    session.run_feeds({"input_ids": np.ones((rows, 4096), dtype=np.int64)}, ["tokens"])
print([opened, private() - before])
"""


def _run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout


def test_several_heads_and_pairs(tiny_model: TinyModel, tmp_path: Path) -> None:
    several = hybrid(tmp_path / "hybrid", tiny_model).folder
    asked = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}
    with load(several) as encoder, trivec.load(several, device="cpu") as other:
        found, expected = encoder.encode(TEXTS, **asked), other.encode(TEXTS, **asked)
        assert_allclose(found.dense, expected.dense, atol=1e-6)
        assert_allclose(found.colbert.vectors, expected.colbert.vectors, atol=1e-6)
    model = write_tiny_reranker(tmp_path / "reranker")
    pairs = [(TEXTS[n], TEXTS[-n]) for n in range(40)]
    with load(model.folder) as reranker:
        assert_allclose(reranker.predict(pairs, activation_fn="identity"), model.logits(pairs)[:, 0], atol=1e-5)


def test_workers_have_it_too(tiny_folder: Path, tiny_model: TinyModel) -> None:
    with load(tiny_folder) as encoder:
        pool = encoder.start_multi_process_pool(["cpu", "cpu"])
        try:
            assert_allclose(encoder.encode(TEXTS, pool=pool), tiny_model.expected(TEXTS), atol=1e-6)
        finally:
            encoder.stop_multi_process_pool(pool)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "cuda"}, "device='cuda' is asked for"),
        ({"engine": "openvino"}, 'engine="openvino" makes copies of its own'),
        ({"providers": ["CPUExecutionProvider"]}, "providers= may copy them"),
        ({"precision": "fp16"}, 'precision="fp16" and layout="mixed" are for CUDA'),
        ({"layout": "mixed"}, 'precision="fp16" and layout="mixed" are for CUDA'),
        ({"low_memory": 1}, "low_memory must be True or False, got 1"),
        ({"low_memory": "yes"}, "low_memory must be True or False, got 'yes'"),
    ],
)
def test_what_does_not_go_with_it(tiny_folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load(tiny_folder, **options)


def test_a_static_model(tmp_path: Path) -> None:
    folder = model2vec_folder(tmp_path / "static")
    with pytest.raises(InputError, match=r"low_memory=True: .+ is a static model.+Leave it out"):
        load(folder)


def test_the_command(tiny_folder: Path, tmp_path: Path, tiny_model: TinyModel) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:40]))
    out = tmp_path / "out.npy"
    assert main(["encode", str(tiny_folder), str(tmp_path / "texts.txt"), "-o", str(out), "--low-memory"]) == 0
    assert_allclose(np.load(out), tiny_model.expected(TEXTS[:40]), atol=1e-6)


def test_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    def config(*arguments: str) -> Any:
        assert main(["serve", *arguments, "--print-config"]) == 0
        return json.loads(capsys.readouterr().out)

    assert config("a=folder", "--low-memory")["models"]["a"]["low_memory"] is True
    both = config("a=folder", "b=folder", "b.low_memory=true")["models"]
    assert (both["a"]["low_memory"], both["b"]["low_memory"]) == (False, True)
    assert main(["serve", "a=folder", "a.low_memory=yes"]) == 2
    assert "a.low_memory must be true or false, got 'yes'" in capsys.readouterr().err
