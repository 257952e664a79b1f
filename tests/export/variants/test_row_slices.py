"""Feed-forward parts in slices of the tokens: the graph in slices gives what the plain one gives."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper

from trivec_export._graph import row_slices
from trivec_export._graph.row_slices import slice_feed_forward

HIDDEN, INNER, TERMS = 16, 48, 90
SHAPES = [(1, 1), (1, 2), (1, 7), (1, 8), (1, 9), (1, 300), (3, 1), (3, 7), (3, 300), (600, 1), (5, 103)]
"""Rows and tokens: with 8 tokens in a slice of all rows together, one slice, many, and a last one that is not full."""
make = helper.make_node
rng = np.random.default_rng(5)
WEIGHTS: Mapping[str, npt.NDArray[Any]] = {
    "table": rng.normal(size=(TERMS, HIDDEN)).astype(np.float32),
    "up": rng.normal(size=(HIDDEN, INNER)).astype(np.float32) / 4,
    "up.bias": rng.normal(size=INNER).astype(np.float32),
    "gate": rng.normal(size=(HIDDEN, INNER)).astype(np.float32) / 4,
    "both": rng.normal(size=(HIDDEN, 2 * INNER)).astype(np.float32) / 4,
    "down": rng.normal(size=(INNER, HIDDEN)).astype(np.float32) / 4,
    "down.bias": rng.normal(size=HIDDEN).astype(np.float32),
    "norm": np.ones(HIDDEN, np.float32),
    "up.int8": rng.integers(-64, 64, (HIDDEN, INNER)).astype(np.int8),
    "down.int8": rng.integers(-64, 64, (INNER, HIDDEN)).astype(np.int8),
    "up.scale": rng.uniform(0.01, 0.02, INNER).astype(np.float32),
    "down.scale": rng.uniform(0.01, 0.02, HIDDEN).astype(np.float32),
    "scale": np.array(0.03, np.float32),
    "one_scale": np.array(1, np.float32),
    "zero": np.array(128, np.uint8),
    "last": np.array([-1], np.int64),
    "tokens": np.array([1], np.int64),
    "tiny": np.array(1e-9, np.float32),
    "row_max": np.array(127, np.float32),
    "from": np.array([0], np.int64),
    "half": np.array([INNER], np.int64),
    "end": np.array([2 * INNER], np.int64),
    "positions": rng.normal(size=(300, INNER)).astype(np.float32),
}


def integers(x: str, weight: str, out: str, bias: str = "") -> onnx.NodeProto:
    inputs = [x, f"{weight}.int8", "scale", f"{weight}.scale", "zero", "", *([bias] if bias else [])]
    return make("MatMulIntegerToFloat", inputs, [out], domain="com.microsoft")


def by_row(x: str, name: str) -> list[onnx.NodeProto]:
    """As int8's second rung quantizes: each row by its largest value."""
    return [
        make("Abs", [x], [f"{name}.abs"]),
        make("ReduceMax", [f"{name}.abs", "last"], [f"{name}.largest"]),
        make("Max", [f"{name}.largest", "tiny"], [f"{name}.max"]),
        make("Div", [f"{name}.max", "row_max"], [f"{name}.scale_of_row"]),
        make("Div", [x, f"{name}.scale_of_row"], [f"{name}.rows"]),
        make("QuantizeLinear", [f"{name}.rows", "one_scale", "zero"], [f"{name}.uint8"]),
    ]


def plain() -> list[onnx.NodeProto]:
    return [
        make("MatMul", ["x", "up"], ["wide"]),
        make("Add", ["wide", "up.bias"], ["biased"]),
        make("Gelu", ["biased"], ["active"]),
        make("MatMul", ["active", "down"], ["narrow"]),
        make("Add", ["narrow", "down.bias"], ["y"]),
    ]


def gated() -> list[onnx.NodeProto]:
    return [
        make("MatMul", ["x", "gate"], ["g"]),
        make("Sigmoid", ["g"], ["s"]),
        make("Mul", ["g", "s"], ["silu"]),
        make("MatMul", ["x", "up"], ["wide"]),
        make("Mul", ["silu", "wide"], ["active"]),
        make("MatMul", ["active", "down"], ["y"]),
    ]


def split() -> list[onnx.NodeProto]:
    return [
        make("MatMul", ["x", "both"], ["wide"]),
        make("Split", ["wide"], ["a", "b"], axis=2, num_outputs=2),
        make("Gelu", ["a"], ["active"]),
        make("Mul", ["active", "b"], ["product"]),
        make("MatMul", ["product", "down"], ["y"]),
    ]


def cut() -> list[onnx.NodeProto]:
    return [
        make("MatMul", ["x", "both"], ["wide"]),
        make("Slice", ["wide", "from", "half", "last"], ["a"]),
        make("Slice", ["wide", "half", "end", "last"], ["b"]),
        make("Tanh", ["a"], ["active"]),
        make("Mul", ["active", "b"], ["product"]),
        make("MatMul", ["product", "down"], ["y"]),
    ]


def static() -> list[onnx.NodeProto]:
    return [
        make("QuantizeLinear", ["x", "scale", "zero"], ["x.uint8"]),
        integers("x.uint8", "up", "wide", "up.bias"),
        make("FastGelu", ["wide"], ["active"], domain="com.microsoft"),
        make("QuantizeLinear", ["active", "scale", "zero"], ["active.uint8"]),
        integers("active.uint8", "down", "y", "down.bias"),
    ]


def rows() -> list[onnx.NodeProto]:
    return [
        *by_row("x", "x"),
        integers("x.uint8", "up", "product"),
        make("Mul", ["product", "x.scale_of_row"], ["unbiased"]),
        make("Add", ["unbiased", "up.bias"], ["wide"]),
        make("Relu", ["wide"], ["active"]),
        *by_row("active", "active"),
        integers("active.uint8", "down", "narrow"),
        make("Mul", ["narrow", "active.scale_of_row"], ["scaled"]),
        make("Add", ["scaled", "down.bias"], ["y"]),
    ]


KINDS: dict[str, Callable[[], list[onnx.NodeProto]]] = {
    each.__name__: each for each in (plain, gated, split, cut, static, rows)
}


def model(nodes: list[onnx.NodeProto], more: tuple[str, ...] = ()) -> onnx.ModelProto:
    """ids (B, S) -> x (B, S, H), normalized -> the part -> y + x, normalized: states (B, S, H)."""
    graph = helper.make_graph(
        [
            make("Gather", ["table", "input_ids"], ["rows_of_table"]),
            make("LayerNormalization", ["rows_of_table", "norm"], ["x"], axis=-1),
            *nodes,
            make("Add", ["y", "x"], ["sum"]),
            make("LayerNormalization", ["sum", "norm"], ["states"], axis=-1),
        ],
        "part",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [
            helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", "tokens", HIDDEN]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in more),
        ],
    )
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in WEIGHTS.items() if name in used)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def session(made: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])


def ids(shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    return np.random.default_rng(shape[0] * 1000 + shape[1]).integers(0, TERMS, shape)


def operators(made: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in made.graph.node]


@pytest.fixture(autouse=True)
def _small_parts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_slices, "_LEAST_BYTES", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_states(kind: str) -> None:
    whole = model(KINDS[kind]())
    sliced = slice_feed_forward(whole, None, 8)
    onnx.checker.check_model(sliced)
    assert operators(sliced).count("Scan") == 1
    assert not {"MatMul", "MatMulIntegerToFloat", "Gelu", "FastGelu"} & set(operators(sliced))
    before, after = session(whole), session(sliced)
    for shape in SHAPES:
        feeds = {"input_ids": ids(shape)}
        (expected,), (found,) = before.run(None, feeds), after.run(None, feeds)
        assert_allclose(found, expected, atol=2e-6)


def test_several_parts_and_what_comes_between() -> None:
    """A square product, as attention's last one, is no part; both parts are cut by the same shapes."""
    second = plain()
    for node in second:
        node.input[:] = [f"{name}2" if name in ("wide", "biased", "active", "narrow") else name for name in node.input]
        node.input[:] = ["between" if name == "x" else name for name in node.input]
        node.output[:] = ["y" if name == "y" else f"{name}2" for name in node.output]
    first = plain()
    first[-1].output[0] = "first"
    square = make("MatMul", ["first", "square"], ["between"])
    made = model([*first, square, *second])
    weight = np.random.default_rng(1).normal(size=(HIDDEN, HIDDEN)).astype(np.float32)
    made.graph.initializer.append(numpy_helper.from_array(weight, "square"))
    sliced = slice_feed_forward(made, 9000, 8)
    assert operators(sliced).count("Scan") == 2
    assert operators(sliced).count("MatMul") == 1
    assert operators(sliced).count("ReduceProd") == 1
    for shape in SHAPES:
        feeds = {"input_ids": ids(shape)}
        assert_allclose(session(sliced).run(None, feeds)[0], session(made).run(None, feeds)[0], atol=2e-6)


def test_small_parts_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_slices, "_LEAST_BYTES", 100 * INNER * 4)
    made = model(plain())
    assert slice_feed_forward(made, 99) is made
    assert operators(slice_feed_forward(made, 100)).count("Scan") == 1
    assert operators(slice_feed_forward(made, None)).count("Scan") == 1


def _changed(change: str) -> onnx.ModelProto:
    nodes = plain()
    if change == "read elsewhere":
        nodes.append(make("ReduceMean", ["active", "last"], ["mean"], keepdims=1))
        nodes[-2].output[0] = "z"
        nodes.append(make("Add", ["z", "mean"], ["y"]))
    elif change == "over tokens":
        nodes[2] = make("Softmax", ["biased"], ["active"], axis=1)
    elif change == "largest over tokens":
        nodes[2:3] = [
            make("ReduceMax", ["biased", "tokens"], ["most"], keepdims=1),
            make("Sub", ["biased", "most"], ["active"]),
        ]
    elif change == "split over tokens":
        nodes[2:3] = [
            make("Split", ["biased"], ["a", "b"], axis=1, num_outputs=2),
            make("Concat", ["b", "a"], ["active"], axis=1),
        ]
    elif change == "by position":
        nodes[1] = make("Add", ["wide", "positions"], ["biased"])
    elif change == "weights that are computed":
        nodes[0] = make("MatMul", ["x", "computed"], ["wide"])
        nodes.insert(0, make("Neg", ["up"], ["computed"]))
    return model(nodes, ("active",) if change == "an output" else ())


@pytest.mark.parametrize(
    "change",
    [
        "read elsewhere",
        "an output",
        "over tokens",
        "largest over tokens",
        "split over tokens",
        "by position",
        "weights that are computed",
    ],
)
def test_what_is_not_of_each_token_alone_stays_whole(change: str) -> None:
    made = _changed(change)
    assert slice_feed_forward(made, None, 8) is made
