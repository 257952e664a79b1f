"""The second engine: the same files in OpenVINO against the reference, what it refuses, what it is not mixed with."""

import multiprocessing
import os
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tests.support.rerankers import write_tiny_reranker
from tests.support.static_models import model2vec_folder
from tests.support.tiny_heads import hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
from trivec import Batcher, DenseEncoder, InputError, ModelFormatError, ProviderError
from trivec._cli.main import main
from trivec._engine import openvino_session
from trivec._engine.openvino_session import OpenVinoSession, has_bf16
from trivec._errors import MissingExtraError
from trivec._system.cpu import Cpu, read_cpu
from trivec.store import read

TEXTS = ["a cat", "the old dog ran under the red house on the hill", "a boat", "", "find the small bird", "a cat"]
WORDS = ("find", "a", "the", "cat", "dog", "sat", "hill")
MANY = [" ".join(WORDS[(n + i) % 7] for i in range(1 + n % 11)) for n in range(333)]
OTHERS = frozenset({"fma", "avx2", "avx512f", "avx512_vnni"})
WITHOUT = Cpu("A CPU 9000", OTHERS)


def load(folder: Path, **options: Any) -> Any:
    return trivec.load(folder, **{"engine": "openvino", "device": "cpu", "threads": 2, **options})


def session(encoder: Any) -> OpenVinoSession:
    found = next(pipeline.session for pipeline in encoder.routes.values())
    assert isinstance(found, OpenVinoSession)
    return found


# ---- what it computes ------------------------------------------------------------------------------------------------


def test_vectors_are_the_reference_s(tiny_folder: Path, tiny_model: TinyModel) -> None:
    with load(tiny_folder) as encoder:
        assert (encoder.engine, encoder.device, encoder.precision) == ("openvino", "cpu", "fp32")
        assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-5)
        assert_allclose(encoder.encode(MANY), tiny_model.expected(MANY), atol=1e-5)  # in lanes
        assert session(encoder)._narrow is not None
        assert_allclose(encoder.encode(TEXTS[1]), tiny_model.expected(TEXTS[1:2])[0], atol=1e-5)


def test_int8_is_onnxruntime_s_within_its_gate(tiny_folder: Path) -> None:
    with trivec.load(tiny_folder, precision="int8", device="cpu") as other:
        expected = other.encode(MANY)
    with load(tiny_folder, precision="int8") as encoder:
        found = encoder.encode(MANY)
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)  # (N,)
    assert cosines.min() > 0.99


def test_sparse_and_hybrid(tiny_model: TinyModel, tmp_path: Path) -> None:
    terms = splade(tmp_path / "splade", tiny_model, random_logits(), random_weights()).folder
    several = hybrid(tmp_path / "hybrid", tiny_model).folder
    with trivec.load(terms, device="cpu") as other, load(terms) as encoder:
        assert_allclose(encoder.encode(MANY).to_dense(), other.encode(MANY).to_dense(), atol=1e-5)
    asked = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}
    with trivec.load(several, device="cpu") as other, load(several) as encoder:
        found, expected = encoder.encode(MANY, **asked), other.encode(MANY, **asked)
        assert_allclose(found.dense, expected.dense, atol=1e-5)
        assert_allclose(found.colbert.vectors, expected.colbert.vectors, atol=1e-5)
        only = encoder.encode(MANY, return_dense=False, return_sparse=True)  # the graph computes all, one is handed on
        assert_allclose(only.sparse.to_dense(), expected.sparse.to_dense(), atol=1e-5)
        assert only.dense is None


def test_a_reranker_with_its_token_types(tmp_path: Path) -> None:
    model = write_tiny_reranker(tmp_path / "model")
    pairs = [(MANY[n], MANY[-n]) for n in range(40)]
    with load(model.folder) as reranker:
        assert reranker.engine == "openvino"
        assert_allclose(reranker.predict(pairs, activation_fn="identity"), model.logits(pairs)[:, 0], atol=1e-5)


def test_float32_is_forced_and_bf16_is_asked_for(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's own choice is bf16 wherever the CPU has it."""
    asked = []
    module = openvino_session._openvino()
    real = module.Core.compile_model

    def compile_model(self: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        asked.append(settings["INFERENCE_PRECISION_HINT"])
        return real(self, model, device, settings)

    monkeypatch.setattr(module.Core, "compile_model", compile_model)
    monkeypatch.setattr(openvino_session, "read_cpu", lambda: Cpu("", OTHERS | {"avx512_bf16"}))
    for precision in ("fp32", "bf16", "int8"):
        load(tiny_folder, precision=precision).close()
    monkeypatch.setattr(openvino_session, "read_cpu", lambda: WITHOUT)
    load(tiny_folder, precision="int8").close()
    assert asked == ["f32", "bf16", "bf16", "f32"]


def test_bf16_where_the_cpu_has_it_and_the_reason_where_not(tiny_folder: Path, tiny_model: TinyModel) -> None:
    if not has_bf16():
        with pytest.raises(ProviderError, match=r"needs a CPU with avx512_bf16 or AMX, and this one \(.+\) has"):
            load(tiny_folder, precision="bf16")
        return
    with load(tiny_folder, precision="bf16") as encoder:
        found, expected = encoder.encode(MANY), tiny_model.expected(MANY)
    assert encoder.precision == "bf16"
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)  # (N,)
    assert cosines.min() >= 0.9995
    assert np.abs(found - expected).max() > 1e-6  # it was not float32


@pytest.mark.parametrize("flags", [{"avx512_bf16"}, {"amx_bf16"}, {"bf16"}, set()])
def test_which_cpus_have_bf16(flags: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_session, "read_cpu", lambda: Cpu("", OTHERS | flags))
    assert has_bf16() is bool(flags)


def test_a_system_that_tells_no_features_is_asked_through_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    here = has_bf16()
    monkeypatch.setattr(openvino_session, "read_cpu", lambda: Cpu("", None))
    assert read_cpu().features is not None  # or the two would be the same question
    assert has_bf16() is here


# ---- what it is not taken for ----------------------------------------------------------------------------------------


def test_it_is_never_chosen_by_itself(tiny_folder: Path) -> None:
    with trivec.load(tiny_folder, device="cpu") as encoder, trivec.load(tiny_folder, engine="onnxruntime") as same:
        assert encoder.engine == same.engine == "onnxruntime"
        assert encoder.engine_fingerprint == same.engine_fingerprint
        assert encoder.fingerprint == same.fingerprint


def test_fingerprints_are_its_own(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_session, "read_cpu", lambda: Cpu("", OTHERS | {"avx512_bf16"}))
    found = {}
    for precision in ("fp32", "bf16", "int8"):
        with load(tiny_folder, precision=precision) as encoder:
            found["openvino", precision] = encoder.fingerprint
            assert (", CPU bf16, rows" in encoder.engine_fingerprint) == (precision != "fp32")
    for precision in ("fp32", "int8"):
        with load(tiny_folder, precision=precision, engine="onnxruntime") as encoder:
            found["onnxruntime", precision] = encoder.fingerprint
    assert len(set(found.values())) == 5


def test_a_store_of_one_engine_is_not_gone_on_with_by_the_other(tiny_folder: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a cat\nthe dog\n", encoding="utf-8")
    command = ["encode", str(tiny_folder), str(texts), "-o", str(tmp_path / "x.parquet")]
    assert main([*command, "--engine", "openvino"]) == 0
    stored = read(tmp_path / "x.parquet")
    with load(tiny_folder) as encoder:
        assert stored.fingerprint == encoder.fingerprint
        assert stored.engine == encoder.engine_fingerprint
    with trivec.load(tiny_folder, device="cpu") as other:
        assert stored.fingerprint != other.fingerprint


# ---- what else an encoder does ---------------------------------------------------------------------------------------


def test_pickles_pools_and_a_batcher(tiny_folder: Path) -> None:
    with load(tiny_folder) as encoder:
        expected = encoder.encode(MANY)
        with pickle.loads(pickle.dumps(encoder)) as copy:
            assert (copy.engine, copy.fingerprint) == ("openvino", encoder.fingerprint)
            assert_array_equal(copy.encode(MANY), expected)
        assert_allclose(encoder.encode(MANY, device=["cpu", "cpu"]), expected, atol=1e-6)
        with Batcher(encoder) as batcher:
            assert_allclose(batcher.encode(TEXTS[0]), encoder.encode(TEXTS[0]), atol=1e-6)
        assert encoder.load_arguments()["engine"] == "openvino"


@pytest.mark.parametrize("how", ["renamed", "removed"])
def test_a_folder_that_goes(tiny_folder: Path, tiny_model: TinyModel, tmp_path: Path, how: str) -> None:
    """The second session, of bulk calls, opens later than that."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    with load(folder) as encoder:
        if how == "renamed":
            folder.rename(tmp_path / "away")
        else:
            shutil.rmtree(folder)
        assert_allclose(encoder.encode(MANY), tiny_model.expected(MANY), atol=1e-5)
        assert session(encoder)._narrow is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_is_told(tiny_folder: Path) -> None:
    with load(tiny_folder) as encoder:
        encoder.encode(MANY)
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_encode_in_child, args=(encoder, sender))
        child.start()
        assert receiver.poll(30)
        said = receiver.recv()
        child.join(240)
        assert child.exitcode == 0
        assert said.startswith("ProviderError: this encoder was opened with OpenVINO before a fork")


def _encode_in_child(encoder: DenseEncoder, sender: Any) -> None:
    try:
        sender.send(encoder.encode("a cat"))
    except Exception as error:  # noqa: BLE001
        sender.send(f"{type(error).__name__}: {error}")


# ---- what is refused -------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "unknown": ({"engine": "tensorrt"}, InputError, "engine 'tensorrt' is none of auto, onnxruntime, openvino"),
    "bf16 alone": ({"engine": "auto", "precision": "bf16"}, InputError, r'engine="openvino", precision="bf16"\)'),
    "bf16 elsewhere": ({"engine": "onnxruntime", "precision": "bf16"}, InputError, "no bf16 arithmetic on CPUs"),
    "cuda": ({"device": "cuda"}, InputError, r'engine="openvino" runs on the CPU, and device=\'cuda\''),
    "providers": ({"providers": ["CPUExecutionProvider"]}, InputError, "both say what runs the graph"),
    "mixed": ({"layout": "mixed"}, InputError, 'layout="mixed" is for CUDA'),
    "fp16": ({"precision": "fp16"}, ProviderError, 'Load precision="fp32", "bf16" or "int8"'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_with_it(tiny_folder: Path, case: str) -> None:
    options, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        trivec.load(tiny_folder, **{"engine": "openvino", **options})


def test_bf16_is_refused_by_the_name_of_the_cpu(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_session, "read_cpu", lambda: WITHOUT)
    with pytest.raises(ProviderError, match=r"avx512_bf16 or AMX, and this one \(A CPU 9000\) has neither"):
        load(tiny_folder, precision="bf16")


def test_a_static_model_has_no_graph(tmp_path: Path) -> None:
    model2vec_folder(tmp_path / "static")
    with pytest.raises(InputError, match="there is no graph for an engine to run"):
        load(tmp_path / "static")


def test_without_the_package(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r'Type: pip install "trivec\[openvino\]"'):
        load(tiny_folder)


def test_a_graph_that_it_cannot_read(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / "trivec.json").unlink()
    for path in (folder / "onnx").glob("*.onnx"):
        path.write_bytes(b"\x08\x07" + path.read_bytes()[2:200])
    with pytest.raises(ModelFormatError, match=r'OpenVINO 20.+ cannot read .+Load it with engine="onnxruntime"'):
        load(folder, pooling="mean")


# ---- the commands ----------------------------------------------------------------------------------------------------


def test_verify_proves_it(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tiny_folder), "--engine", "openvino", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    rows = [line.split("  ")[0] for line in said.splitlines() if line.endswith("passed")]
    expected = ["fp32 openvino", *(["bf16 openvino"] if has_bf16() else []), "int8 openvino"]
    assert list(dict.fromkeys(rows)) == expected
    assert "engine: OpenVINO 20" in said


def test_verify_says_what_company_changes(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OpenVinoSession.run_feeds

    def shaken(self: OpenVinoSession, feeds: Any, outputs: Any) -> Any:
        arrays = real(self, feeds, outputs)
        return [array + np.float32(1e-5) * (len(array) > 1) for array in arrays]

    monkeypatch.setattr(OpenVinoSession, "run_feeds", shaken)
    assert main(["verify", str(tiny_folder), "--engine", "openvino", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "fp32 openvino dense: a text alone and among others differs by up to" in said


def test_doctor_and_info_know_it(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tiny_folder), "--engine", "openvino"]) == 0
    said = capsys.readouterr().out
    assert "telemetry of openvino" in said
    assert "OpenVINO's CPU (this OpenVINO counts no nodes)" in said
    assert main(["info", str(tiny_folder), "--engine", "openvino", "--fingerprints"]) == 0
    said = capsys.readouterr().out
    with load(tiny_folder) as encoder:
        assert f"fp32: {encoder.fingerprint}" in said
    assert "fp16:" not in said
