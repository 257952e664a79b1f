"""int8 and float16 of graphs that score pairs: token types are fed, and logits are measured by their deviation."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tests.support.small_graph import HIDDEN, VOCAB, Builder, Floats, array, texts

from trivec_export._graph.run import Example, examples_of, open_session, random_texts
from trivec_export._variants.half import convert_half, emulate_half
from trivec_export._variants.int8.calibrate import closeness, observe, pooled
from trivec_export._variants.int8.quantize import Quantized, quantize


def cross_encoder(types: Floats, seed: int = 0) -> onnx.ModelProto:
    """Tokens and types (2, H), two layers, and a score (B, 1) of the first token."""
    builder = Builder(seed)
    tokens = builder.add("Gather", [builder.random("table", VOCAB, HIDDEN), "input_ids"], "embedded")
    kinds = builder.add("Gather", [builder.weight("types", types), "token_type_ids"], "typed")
    x = builder.norm(builder.add("Add", [tokens, kinds], "both"), "norm")
    for number in range(2):
        x = builder.layer(x, f"layer{number}", before=False)
    zero = builder.weight("zero", np.array(0, np.int64))
    first = builder.add("Gather", [x, zero], "first", axis=1)  # (B, H)
    builder.add("Gemm", [first, builder.random("classifier", HIDDEN, 1)], "scores")
    ids, kinds_in = (
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "token_type_ids")
    )
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 1])
    graph = helper.make_graph(builder.nodes, "small", [ids, kinds_in], [scores], builder.weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def pairs(seed: int = 1) -> list[Example]:
    """Texts whose second half is of type 1."""
    return [Example(ids, np.array([ids.shape[1] // 2])) for ids in map(np.atleast_2d, texts(seed=seed))]


def token_types(pair: Example) -> NDArray[np.int64]:
    """(1, S): 0 for the first text, 1 for the second."""
    assert pair.second is not None
    return (np.arange(pair.ids.shape[1])[None] >= pair.second[:, None]).astype(np.int64)


def run(model: onnx.ModelProto, examples: list[Example]) -> Floats:
    """(N, 1), by onnxruntime, with types made here."""
    session = open_session(model)
    feeds = ({"input_ids": pair.ids, "token_type_ids": token_types(pair)} for pair in examples)
    return np.concatenate([session.run(None, feed)[0] for feed in feeds])


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    types = np.random.default_rng(7).normal(size=(2, HIDDEN)).astype(np.float32)
    types[1] *= 4  # the second text moves what passes through the layers
    return cross_encoder(types)


@pytest.fixture(scope="module")
def quantized(model: onnx.ModelProto) -> Quantized:
    return quantize(model, pairs())


def test_types_are_fed(model: onnx.ModelProto) -> None:
    unseen = pairs(seed=5)
    np.testing.assert_array_equal(pooled(model, unseen), run(model, unseen))
    without = [Example(ids) for ids, _ in unseen]  # zeros
    assert np.abs(pooled(model, without) - run(model, unseen)).max() > 0.5


def test_int8_is_close_on_pairs_that_it_has_not_seen(model: onnx.ModelProto, quantized: Quantized) -> None:
    unseen = pairs(seed=5)
    expected, found = run(model, unseen), run(quantized.model, unseen)
    off = np.abs(found - expected) / expected.std()
    assert np.sqrt((off**2).mean()) < 0.1
    assert off.max() < 0.6
    assert {value.name for value in quantized.model.graph.input} == {"input_ids", "token_type_ids"}
    assert sum(layer.precision != "fp32" for layer in quantized.layers) >= 8
    (classifier,) = [node for node in quantized.model.graph.node if node.output[0] == "scores"]
    assert classifier.op_type == "Gemm"  # once a pair: it costs nothing


def test_statistics_have_seen_the_second_text(model: onnx.ModelProto) -> None:
    """Extremes of what is looked up, by numpy: they hold the types that every pair has."""
    table, types = array(model, "table"), array(model, "types")
    seen = [table[pair.ids[0]] + types[token_types(pair)[0]] for pair in pairs()]
    found = observe(model, {"both": "norm"}, pairs(), rows=64, held_out=())["both"]
    np.testing.assert_allclose(found.low, np.concatenate(seen).min(0), rtol=1e-6)
    np.testing.assert_allclose(found.high, np.concatenate(seen).max(0), rtol=1e-6)
    blind = observe(model, {"both": "norm"}, [Example(ids) for ids, _ in pairs()], rows=64, held_out=())["both"]
    assert not np.allclose(found.high, blind.high)


def test_what_only_the_second_text_overflows_stays_float32(model: onnx.ModelProto) -> None:
    types = np.zeros((2, HIDDEN), np.float32)
    types[1, 3] = 60_000  # above the limit, where a token of type 1 stands
    large = cross_encoder(types)
    blind, half = convert_half(large, [Example(ids) for ids, _ in pairs()]), convert_half(large, pairs())
    assert {"typed", "both"} <= set(half.kept)
    assert "both" in half.kept
    unseen = pairs(seed=5)
    expected = run(large, unseen)
    off = np.abs(run(emulate_half(half.model), unseen) - expected).max() / expected.std()
    assert off < 0.05
    assert blind.kept  # a weight that large is told from the weights alone
    small = convert_half(model, pairs())
    assert small.kept == []
    expected = run(model, unseen)
    assert np.abs(run(emulate_half(small.model), unseen) - expected).max() / expected.std() < 0.02


def test_random_pairs_look_like_pairs(model: onnx.ModelProto) -> None:
    found = random_texts(model, pairs())
    assert all(second is not None and 1 <= second[0] <= ids.shape[1] for ids, second in found)
    assert any(second is not None and second[0] < ids.shape[1] for ids, second in found)
    assert all(second is None for _, second in random_texts(model, [Example(ids) for ids, _ in pairs()]))


def test_examples() -> None:
    (row,) = examples_of([np.array([5, 6, 7])])
    assert row.ids.shape == (1, 3)
    pair = Example(np.array([[5, 6, 7, 8]]), np.array([2]))
    assert examples_of([pair]) == [pair]
    feeds: dict[str, NDArray[Any]] = pair.feeds(["input_ids", "token_type_ids"])
    assert feeds["token_type_ids"].tolist() == [[0, 0, 1, 1]]
    assert pair.cut(3).feeds(["token_type_ids"])["token_type_ids"].tolist() == [[0, 0, 1]]


def test_closeness_by_hand() -> None:
    reference = np.array([[1.0], [-1.0], [3.0], [-3.0]], np.float32)  # deviation: the square root of 5
    made = reference + np.array([[0.5], [0.0], [0.0], [-1.0]], np.float32)
    found = closeness(made, reference, scores=True)
    assert found == pytest.approx((1 - np.sqrt(1.25 / 4) / np.sqrt(5), 1 - 1 / np.sqrt(5)))
    assert closeness(reference, reference, scores=True) == (1.0, 1.0)
    two = np.concatenate([reference, 100 * reference], axis=1)  # of several labels the worst counts
    worse = two.copy()
    worse[0, 1] += 100
    assert closeness(worse, two, scores=True)[1] == pytest.approx(1 - 1 / np.sqrt(5))
    unit = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    assert closeness(unit, unit[::-1], scores=False) == pytest.approx((0.6, 0.6))
