"""Attention in groups of heads: the graph in groups gives what the plain one gives."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper

from trivec_export._graph import head_groups
from trivec_export._graph.head_groups import group_heads

HIDDEN, HEADS = 32, 8
SHAPES = [(1, 1), (1, 7), (3, 40), (2, 300)]
make = helper.make_node


def model(kind: str, *, heads: int = HEADS, change: str = "") -> onnx.ModelProto:
    """states (B, S, H) -> queries, keys, values -> attention (B, S, H)."""
    rng = np.random.default_rng(7)
    constants: dict[str, npt.NDArray[Any]] = {}
    nodes = []
    source = "states"
    if kind == "int8":
        constants |= {"scale": np.array(0.03, np.float32), "zero": np.array(128, np.uint8)}
        nodes.append(make("QuantizeLinear", ["states", "scale", "zero"], ["integers"]))
        source = "integers"
    for name in ("query", "key", "value"):
        weight = rng.normal(size=(HIDDEN, HIDDEN)).astype(np.float32) / 4
        bias = rng.normal(size=HIDDEN).astype(np.float32)
        if kind == "int8":
            scale = np.float32(0.02) if name == "key" else rng.uniform(0.01, 0.02, HIDDEN).astype(np.float32)
            constants |= {
                f"{name}.weight": rng.integers(-64, 64, (HIDDEN, HIDDEN)).astype(np.int8),
                f"{name}.scale": np.asarray(scale),
                f"{name}.bias": bias,
            }
            inputs = [source, f"{name}.weight", "scale", f"{name}.scale", "zero", "", f"{name}.bias"]
            nodes.append(make("MatMulIntegerToFloat", inputs, [name], domain="com.microsoft"))
            continue
        constants[f"{name}.weight"] = weight
        made = name if kind == "bare" else f"{name}.product"
        nodes.append(make("MatMul", [source, f"{name}.weight"], [made]))
        if kind != "bare":
            constants[f"{name}.bias"] = bias
            pair = [f"{name}.bias", made] if name == "key" else [made, f"{name}.bias"]
            nodes.append(make("Add", pair, [name]))
    inputs = ["query", "key", "value"]
    if change == "mask":
        constants["bias.of.all"] = rng.normal(size=HIDDEN * 3).astype(np.float32)
        inputs.append("bias.of.all")
    scale_of = {} if kind == "bare" else {"scale": 0.4}
    nodes.append(
        make("MultiHeadAttention", inputs, ["mixed"], domain="com.microsoft", num_heads=heads, **scale_of)  # type: ignore[arg-type]
    )
    outputs = ["mixed"]
    if change == "read elsewhere":
        nodes.append(make("Neg", ["key"], ["negative"]))
        outputs.append("negative")
    if change == "an output":
        outputs.append("value")
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", "tokens", HIDDEN])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "tokens", HIDDEN]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(made: onnx.ModelProto, states: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: npt.NDArray[np.float32] = session.run(["mixed"], {"states": states})[0]
    return found


def operators(made: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in made.graph.node]


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_groups, "_LEAST_BYTES", 1)


@pytest.mark.parametrize("kind", ["biased", "bare", "int8"])
def test_the_same_states(kind: str) -> None:
    whole = model(kind)
    grouped = group_heads(whole, None)
    onnx.checker.check_model(grouped)
    assert operators(grouped).count("MultiHeadAttention") == 4
    assert operators(grouped).count("Concat") == 1
    size = {tensor.name: int(np.prod(tensor.dims)) for tensor in grouped.graph.initializer}
    assert sum(size.values()) == sum(int(np.prod(tensor.dims)) for tensor in whole.graph.initializer)
    for shape in SHAPES:
        states = np.random.default_rng(shape[1]).normal(size=(*shape, HIDDEN)).astype(np.float32)
        assert_allclose(run(grouped, states), run(whole, states), atol=2e-6)


@pytest.mark.parametrize("change", ["mask", "read elsewhere", "an output"])
def test_what_cannot_be_cut_stays_whole(change: str) -> None:
    made = model("biased", change=change)
    assert group_heads(made, None) is made


def test_heads_that_the_groups_do_not_share(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model("biased", heads=2)
    assert group_heads(made, None) is made
    assert operators(group_heads(made, None, 2)).count("MultiHeadAttention") == 2


def test_small_attention_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_groups, "_LEAST_BYTES", 100 * HIDDEN * 4)
    made = model("biased")
    assert group_heads(made, 99) is made
    assert group_heads(made, 0) is made
    assert operators(group_heads(made, 100)).count("MultiHeadAttention") == 4
