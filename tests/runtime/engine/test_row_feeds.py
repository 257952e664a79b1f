"""Graphs of a fixed number of rows or tokens, and inputs of other types, against the same model in numpy."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, ModelFormatError
from trivec._engine.devices import Device
from trivec._engine.session import Session

VOCABULARY, WIDTH = 24, 5
RNG = np.random.default_rng(3)
TABLE = RNG.normal(size=(VOCABULARY, WIDTH)).astype(np.float32)
PLACES = RNG.normal(size=(40, WIDTH)).astype(np.float32)
TYPES = {"int64": TensorProto.INT64, "int32": TensorProto.INT32, "bool": TensorProto.BOOL, "float": TensorProto.FLOAT}


def expected(ids: Any) -> Any:
    """Ids (S,) to (S, W): each token's vector and place, and what all tokens that count have in common."""
    tokens = TABLE[ids] + PLACES[: len(ids)]  # (S, W)
    return np.tanh(tokens + tokens.mean(0))


def write_graph(
    path: Path, shape: Sequence[Any], *, kind: str = "int64", mask: str | None = "int64", sentence: bool = False
) -> Path:
    """ids, mask and position_ids (B, S) to token_embeddings (B, S, W) as `expected`, or their mean over the mask."""
    inputs = {"input_ids": kind, **({"attention_mask": mask} if mask else {}), "position_ids": kind}
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Cast", ["position_ids"], ["at"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "ids"], ["words"]),
        helper.make_node("Gather", ["places", "at"], ["placed"]),
        helper.make_node("Add", ["words", "placed"], ["tokens"]),
        helper.make_node("Cast", ["attention_mask" if mask else "input_ids"], ["flat"], to=TensorProto.FLOAT),
        *([] if mask else [helper.make_node("Mul", ["flat", "nought"], ["zeros"])]),
        *([] if mask else [helper.make_node("Add", ["zeros", "one"], ["ones"])]),
        helper.make_node("Unsqueeze", ["flat" if mask else "ones", "last"], ["weights"]),
        helper.make_node("Mul", ["tokens", "weights"], ["counted"]),
        helper.make_node("ReduceSum", ["counted", "first"], ["sum"]),
        helper.make_node("ReduceSum", ["weights", "first"], ["count"]),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Add", ["tokens", "mean"], ["mixed"]),
        helper.make_node("Tanh", ["mixed"], ["token_embeddings"]),
        helper.make_node("Mul", ["token_embeddings", "weights"], ["left"]),
        helper.make_node("ReduceSum", ["left", "first"], ["whole"], keepdims=0),
        helper.make_node("Squeeze", ["count", "first"], ["counts"]),
        helper.make_node("Div", ["whole", "counts"], ["sentence_embedding"]),
    ]
    constants: dict[str, Any] = {"table": TABLE, "places": PLACES, "last": np.array([2]), "first": np.array([1])}
    constants |= {"nought": np.float32(0), "one": np.float32(1)}
    output = helper.make_tensor_value_info("token_embeddings", TensorProto.FLOAT, [*shape, WIDTH])
    if sentence:
        output = helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, [shape[0], WIDTH])
    graph = helper.make_graph(
        nodes,
        "fixed",
        [helper.make_tensor_value_info(name, TYPES[kind], shape) for name, kind in inputs.items()],
        [output],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def rows(count: int, length: int) -> Any:
    return np.random.default_rng(length).integers(0, VOCABULARY, (count, length))  # (B, S)


@pytest.mark.parametrize("length", [1, 7, 12])
@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("shape", [("b", "s"), (1, "s"), (3, "s"), ("b", 12), (1, 12), (4, 12)])
def test_any_rows_run_in_a_graph_of_a_fixed_shape(
    tmp_path: Path, shape: Sequence[Any], count: int, length: int
) -> None:
    path = write_graph(tmp_path / "m.onnx", shape)
    session = Session([path], device=Device("cpu"), threads=1)
    ids = rows(count, length)
    found = session.run(ids, "token_embeddings")
    assert found.shape == (count, length, WIDTH)
    assert_allclose(found, [expected(row) for row in ids], atol=1e-6)
    assert session.tokens == (12 if shape[1] == 12 else None)
    pooled = Session([write_graph(path, shape, sentence=True)], device=Device("cpu"), threads=1)
    assert_allclose(pooled.run(ids, "sentence_embedding"), [expected(row).mean(0) for row in ids], atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "mask"), [("int32", "int32"), ("int64", "bool"), ("int32", "float"), ("float", "bool")]
)
def test_inputs_are_fed_in_the_types_of_the_graph(tmp_path: Path, kind: str, mask: str) -> None:
    session = Session([write_graph(tmp_path / "m.onnx", (1, 9), kind=kind, mask=mask)], device=Device("cpu"), threads=1)
    ids = rows(3, 4)
    assert_allclose(session.run(ids, "token_embeddings"), [expected(row) for row in ids], atol=1e-6)


def test_a_graph_that_cannot_be_padded(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "m.onnx", ("b", 6), mask=None)
    with pytest.raises(ModelFormatError, match=r"m.onnx reads texts of exactly 6 tokens and has no attention_mask"):
        Session([path], device=Device("cpu"), threads=1)
    one = Session([write_graph(path, (1, "s"), mask=None)], device=Device("cpu"), threads=1)
    ids = rows(4, 6)
    assert_allclose(one.run(ids, "token_embeddings"), [expected(row) for row in ids], atol=1e-6)


@pytest.mark.parametrize("past", [1, 24])
def test_a_graph_that_reads_its_past(tmp_path: Path, past: int) -> None:
    path = write_graph(tmp_path / "m.onnx", ("b", "s"))
    model = onnx.load(path)
    for i in range(past):
        model.graph.input.append(helper.make_tensor_value_info(f"past_key_values.{i}.key", TensorProto.FLOAT, ["b"]))
    onnx.save(model, path)
    with pytest.raises(ModelFormatError) as caught:
        Session([path], device=Device("cpu"), threads=1)
    assert f"m.onnx reads past_key_values ({past} inputs, such as past_key_values.0.key): it writes" in str(
        caught.value
    )
    assert len(str(caught.value)) < 400


def test_a_whole_model_of_a_fixed_shape(tiny_model: TinyModel, tmp_path: Path) -> None:
    """Texts are cut at what the graph reads, and counted; batches, lanes and neighbours change nothing."""
    folder = tmp_path / "model"
    write_graph(folder / "onnx" / "model.onnx", (1, 9))
    shutil.copy(tiny_model.folder / "tokenizer.json", folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 40}))
    texts = ["the cat sat", "", "a red boat on the river " * 3, "find", "a b c d e f g"] * 9
    with trivec.load(folder, device="cpu", threads=2, pooling="mean") as encoder:
        assert encoder.max_seq_length == 9
        ids = [
            [*tiny_model.ids(text)[:8], 3] if len(tiny_model.ids(text)) > 9 else tiny_model.ids(text) for text in texts
        ]
        wanted = [expected(row).mean(0) for row in ids]
        assert_allclose(encoder.encode(texts, batch_size=3), wanted, atol=1e-6)
        assert encoder.truncated == 9
        assert_allclose([encoder.encode(text) for text in texts[:5]], wanted[:5], atol=1e-6)
        states = encoder.encode(texts[:4], output_value="token_embeddings")
        for state, row in zip(states, ids, strict=False):
            assert_allclose(state, expected(row), atol=1e-6)
        with pytest.raises(InputError, match="max_seq_length can be at most 9"):
            encoder.max_seq_length = 16
