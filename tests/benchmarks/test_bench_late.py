"""The benchmark of late interaction: what it computes, and that its engines agree; not how fast they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from benchmarks import late
from benchmarks.harness import late_models, venvs
from benchmarks.harness.late_interaction import vectors_of
from benchmarks.harness.serve import find
from safetensors.numpy import save_file
from tests.support.late_models import oracle, pylate
from tests.support.tiny_late import DOCUMENT_LENGTH, TinyLate, write_tiny_late

TEXTS = ["the cat sat", "a small red boat", "", "the cat sat on the mat " * 9]
ENGINES = "benchmarks.harness.late_interaction"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLate:
    return write_tiny_late(tmp_path_factory.mktemp("tiny") / "model")


def assert_rows(found: Any, expected: Any) -> None:
    assert np.diff(found["offsets"]).tolist() == [len(row) for row in expected]
    np.testing.assert_allclose(found["vectors"], np.concatenate(expected), rtol=0, atol=1e-6)


def test_our_engine(tiny: TinyLate) -> None:
    options = {"folder": str(tiny.folder), "precision": "fp32", "threads": 1, "tokens": DOCUMENT_LENGTH}
    engine = find(f"{ENGINES}:trivec")(options)
    assert_rows(engine.arrays(engine.many(TEXTS, 0)), tiny.vectors(TEXTS, "document"))
    queries: Any = [[text] for text in TEXTS]
    assert_rows(engine.arrays(engine.many(queries, 1)), tiny.vectors(TEXTS, "query"))
    assert_rows(engine.arrays(engine.one(TEXTS[0])), tiny.vectors(TEXTS[:1], "query"))
    shorter = find(f"{ENGINES}:trivec")({**options, "tokens": 6})
    assert len(shorter.many(TEXTS[3:], 0)[0]) < len(engine.many(TEXTS[3:], 0)[0])


def test_sentence_transformers_engine_cuts_where_it_is_told(tmp_path: Path) -> None:
    checkpoint = pylate(tmp_path / "checkpoint")
    texts = [*TEXTS, "word " * 90]
    engine = find(f"{ENGINES}:sentence_transformers")({"folder": str(checkpoint), "threads": 1, "tokens": 40})
    found = engine.arrays(engine.many(texts, 0))
    model = oracle(checkpoint)
    model[0].document_length = 40
    assert_rows(found, model.encode_document(texts, convert_to_numpy=True))
    assert np.diff(found["offsets"]).max() == 40
    queries: Any = [[text] for text in texts]
    assert_rows(engine.arrays(engine.many(queries, 0)), model.encode_query(texts, convert_to_numpy=True))


def test_maxsim_engines_agree(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    options: dict[str, Any] = {"threads": 1}
    sides = {"queries": [4, 2, 4], "documents": [7, 3, 1, 9]}
    made = {side: [rng.normal(size=(n, 8)).astype(np.float32) for n in lengths] for side, lengths in sides.items()}
    made = {side: [row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows] for side, rows in made.items()}
    for side, rows in made.items():
        np.savez(tmp_path / f"{side}.npz", **vectors_of(rows))
        options[side] = str(tmp_path / f"{side}.npz")
    expected = [[(q @ d.T).max(1).sum() for d in made["documents"]] for q in made["queries"]]
    for engine, more, atol in (
        ("trivec_maxsim", {}, 1e-5),
        ("trivec_maxsim", {"precision": "int8"}, 0.1),
        ("sentence_transformers_maxsim", {}, 1e-5),
    ):
        opened = find(f"{ENGINES}:{engine}")({**options, **more})
        np.testing.assert_allclose(opened.arrays(opened.many([], 0))["scores"], expected, rtol=0, atol=atol)


def test_how_far_vectors_are_apart(tmp_path: Path) -> None:
    one = [np.eye(3, dtype=np.float32), np.ones((2, 3), np.float32)]
    other = [one[0] + np.float32(0.25), np.ones((1, 3), np.float32)]
    for name, rows in (("a", one), ("b", other), ("c", [one[0][:1], one[1][:1]])):
        np.savez(tmp_path / f"{name}.npz", **vectors_of(rows))
    found = late.apart(tmp_path / "a.npz", tmp_path / "b.npz")
    cosine = 1.25 / np.sqrt(1.25**2 + 2 * 0.25**2)
    assert found["documents as long"] == "1 of 2"
    assert found["largest"] == pytest.approx(0.25)
    assert found["mean"] == pytest.approx(cosine)
    assert late.apart(tmp_path / "a.npz", tmp_path / "a.npz")["largest"] == 0
    assert late.apart(tmp_path / "a.npz", tmp_path / "c.npz")["largest"] == "-"


def test_the_projected_graph_gives_vectors_of_length_1(tmp_path: Path) -> None:
    """The graph that FastEmbed runs: states, the checkpoint's own projection, and their length taken out."""
    import onnxruntime
    from onnx import TensorProto, helper

    names = ("input_ids", "token_type_ids", "states")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", "s", 4]) for name in names]
    graph = helper.make_graph([helper.make_node("Add", [*names[:2]], ["states"])], "g", values[:2], values[2:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "model.onnx"
    )
    weight = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    (tmp_path / "1_Dense").mkdir()
    save_file({"linear.weight": weight}, tmp_path / "1_Dense/model.safetensors")
    late_models._project(tmp_path / "model.onnx", tmp_path, tmp_path / "out/model.onnx")
    x = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input_ids": x})  # types are zeros
    expected = x @ weight.T
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=2, keepdims=True), atol=1e-6)


def test_requirements_that_come_alone() -> None:
    wanted = venvs.requirements("pylate")
    assert "--no-deps pylate==1.6.0" in wanted
    assert {"torch", "sentence-transformers==5.3.0", "transformers==5.3.0"} < set(wanted)
    assert not any("fast-plaid" in each for each in wanted)


def test_goals_and_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {goal.what: goal for goal in late.GOALS}
    ratio = wanted["documents at 180 tokens: trivec fp32 over PyLate"]
    assert (ratio.figure, ratio.sign, ratio.value) == ("documents 180 / trivec fp32 / PyLate", ">=", 1.5)
    query = wanted["one query, p50: trivec fp32 / sentence-transformers"]
    assert query.found({"query / trivec fp32": 3.0, "query / sentence-transformers": 10.0}) == pytest.approx(0.3)
    with pytest.raises(SystemExit):
        late.main(["--only", "speed", "--data", str(tmp_path)])
    assert "does not know" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        late.main(["--data", str(tmp_path)])
    assert "has no corpus.jsonl" in capsys.readouterr().err
    assert json.dumps(late.FULL)
