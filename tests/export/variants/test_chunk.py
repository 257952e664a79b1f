"""Pooled logits without the logits: the graph in slices gives what the plain one gives."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from trivec_export._graph import vocabulary_slices
from trivec_export._graph.vocabulary_slices import chunk_pool, finish_pool, share_transposed

HIDDEN, TERMS = 16, 37
SHAPES = [(1, 1), (1, 2), (1, 7), (1, 300), (3, 1), (3, 7), (3, 300), (600, 1), (600, 2), (600, 7), (5, 103)]
"""Rows and tokens: with 512 tokens in a slice of all rows together, one slice, many, and slices of one token."""
Array = npt.NDArray[np.generic]


def graph(pool: str, kind: int = TensorProto.FLOAT, product: str = "MatMul", *, bias: bool = True) -> onnx.ModelProto:
    """states (B, S, H) -> x -> product with the vocabulary -> bias -> activation, for sums -> pooled over S (B, V)."""
    rng = np.random.default_rng(3)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    constants = {
        "bias": rng.normal(size=TERMS).astype(dtype),
        "axis": np.array([1], np.int64),
        "one": np.array(1, dtype),
    }
    weight = rng.normal(size=(HIDDEN, TERMS))
    make = helper.make_node
    if product == "MatMulIntegerToFloat":
        constants |= {
            "weight": np.clip(np.round(weight * 20), -64, 63).astype(np.int8),
            "scale": np.array(0.02, np.float32),
            "scales": rng.uniform(0.01, 0.05, TERMS).astype(np.float32),
            "zero": np.array(7, np.uint8),
            "zeros": np.zeros(TERMS, np.int8),
        }
        inputs = ["weight", "scale", "scales", "zero", "zeros"]
        nodes = [make(product, ["x", *inputs], ["logits"], domain="com.microsoft")]
    elif product == "FusedMatMul":
        constants["weight"] = np.ascontiguousarray(weight.T).astype(dtype)
        nodes = [make(product, ["x", "weight"], ["logits"], domain="com.microsoft", transB=1)]
    else:
        constants["weight"] = weight.astype(dtype)
        nodes = [make(product, ["x", "weight"], ["logits"])]
    if bias:
        nodes.append(make("Add", ["logits", "bias"], ["biased"]))
    last = nodes[-1].output[0]
    if pool == "ReduceSum":  # log(relu(x) + 1)
        nodes += [
            make("Relu", [last], ["positive"]),
            make("Add", ["positive", "one"], ["shifted"]),
            make("Log", ["shifted"], ["weights"]),
        ]
        last = "weights"
    nodes.append(make(pool, [last, "axis"], ["pooled"], keepdims=0))
    given = TensorProto.UINT8 if product == "MatMulIntegerToFloat" else kind
    model = helper.make_model(
        helper.make_graph(
            [make("Identity", ["states"], ["x"]), *nodes],
            "splade",
            [helper.make_tensor_value_info("states", given, ["batch", "tokens", HIDDEN])],
            [helper.make_tensor_value_info("pooled", kind, ["batch", TERMS])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
        ir_version=9,
    )
    onnx.checker.check_model(model)
    return model


def states(shape: tuple[int, int], dtype: npt.DTypeLike) -> Array:
    rng = np.random.default_rng(shape[0] * 1000 + shape[1])
    if dtype == np.uint8:
        return rng.integers(0, 256, (*shape, HIDDEN), dtype=np.uint8)
    return rng.normal(size=(*shape, HIDDEN)).astype(dtype)


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(opened: ort.InferenceSession, x: Array) -> npt.NDArray[np.float32]:
    made: npt.NDArray[np.float32] = opened.run(None, {"states": x})[0]
    return made


def operators(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    return [node.op_type for node in nodes]


# -------------------------------------------------------------------------------------------------- the bias, last
def test_the_maximum_before_the_bias_has_the_same_bits() -> None:
    plain, moved = graph("ReduceMax"), graph("ReduceMax")
    finish_pool(moved.graph)
    assert operators(plain.graph.node) == ["Identity", "MatMul", "Add", "ReduceMax"]
    probe = ["Mul", "ReduceSum", "Unsqueeze", "Add"]
    assert operators(moved.graph.node) == ["Identity", "MatMul", "ReduceMax", "Add", *probe]
    onnx.checker.check_model(moved)
    before, after = session(plain), session(moved)
    for shape in SHAPES:
        x = states(shape, np.float32)
        np.testing.assert_array_equal(run(after, x), run(before, x))


@pytest.mark.parametrize("case", ["sum", "matrix bias", "read twice", "other axis", "kept axis"])
def test_a_bias_that_must_stay_where_it_is(case: str) -> None:
    model = graph("ReduceSum" if case == "sum" else "ReduceMax")
    nodes, constants = model.graph.node, {tensor.name: tensor for tensor in model.graph.initializer}
    if case == "matrix bias":
        wide = numpy_helper.from_array(np.zeros((7, TERMS), np.float32), "bias")
        constants["bias"].CopyFrom(wide)
    elif case == "read twice":
        nodes.append(helper.make_node("Relu", ["biased"], ["other"]))
        value = helper.make_tensor_value_info("other", TensorProto.FLOAT, ["batch", "tokens", TERMS])
        model.graph.output.append(value)
    elif case == "other axis":
        constants["axis"].CopyFrom(numpy_helper.from_array(np.array([2], np.int64), "axis"))
    elif case == "kept axis":
        nodes[-1].attribute[0].i = 1
    before = model.SerializeToString(deterministic=True)
    finish_pool(model.graph)
    assert model.SerializeToString(deterministic=True) == before


# ----------------------------------------------------------------------------------------------------------- slices
@pytest.mark.parametrize("pool", ["ReduceMax", "ReduceSum"])
@pytest.mark.parametrize(
    ("kind", "product"),
    [
        (TensorProto.FLOAT, "MatMul"),
        (TensorProto.FLOAT, "FusedMatMul"),
        (TensorProto.FLOAT, "MatMulIntegerToFloat"),
        (TensorProto.FLOAT16, "MatMul"),
    ],
)
@pytest.mark.parametrize("moved", [True, False])
def test_slices_give_the_numbers_of_the_plain_graph(pool: str, kind: int, product: str, moved: bool) -> None:
    model = graph(pool, kind, product)
    if moved and kind == TensorProto.FLOAT and product != "MatMulIntegerToFloat":  # it is done before these are made
        finish_pool(model.graph)
    sliced = chunk_pool(model)
    onnx.checker.check_model(sliced)
    assert "Loop" in operators(sliced.graph.node)
    assert product not in operators(sliced.graph.node)
    assert [(o.name, o.type) for o in sliced.graph.output] == [(o.name, o.type) for o in model.graph.output]
    plain, opened = session(model), session(sliced)
    half = kind == TensorProto.FLOAT16
    dtype = np.uint8 if product == "MatMulIntegerToFloat" else helper.tensor_dtype_to_np_dtype(kind)
    for shape in SHAPES:
        x = states(shape, dtype)
        made, expected = run(opened, x), run(plain, x)
        assert made.shape == (shape[0], TERMS)
        assert made.dtype == expected.dtype
        assert np.abs(expected).max() > 0.5
        if pool == "ReduceMax":
            np.testing.assert_allclose(made, expected, rtol=2e-3 if half else 1e-6, atol=2e-3 if half else 2e-6)
        else:  # another order of adding up; in half precision every sum of a slice is rounded
            np.testing.assert_allclose(made, expected, rtol=1e-2 if half else 2e-6, atol=2e-3 if half else 1e-5)


@pytest.mark.parametrize("pool", ["ReduceMax", "ReduceSum"])
def test_slices_against_numpy(pool: str) -> None:
    """The plain graph is not its own witness."""
    model = graph(pool)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    opened = session(chunk_pool(model))
    for shape in SHAPES:
        x = states(shape, np.float32)
        logits = x.astype(np.float64) @ weights["weight"] + weights["bias"]  # (B, S, V)
        expected = logits.max(1) if pool == "ReduceMax" else np.log1p(np.maximum(logits, 0)).sum(1)
        np.testing.assert_allclose(run(opened, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 2, 5, 64])
def test_any_size_of_a_slice(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last slice may be a part of one."""
    monkeypatch.setattr(vocabulary_slices, "_TOKENS", tokens)
    model = graph("ReduceMax")
    plain, opened = session(model), session(chunk_pool(model))
    for shape in [(1, 1), (1, 5), (2, 7), (7, 11), (3, 64), (1, 65)]:
        x = states(shape, np.float32)
        np.testing.assert_allclose(run(opened, x), run(plain, x), rtol=1e-6, atol=2e-6)


def test_a_row_of_negative_logits_keeps_them() -> None:
    """A maximum starts at minus infinity, not at 0."""
    plain, opened = session(graph("ReduceMax")), session(chunk_pool(graph("ReduceMax")))
    x = np.zeros((2, 300, HIDDEN), np.float32)
    assert run(plain, x).min() < 0
    np.testing.assert_array_equal(run(opened, x), run(plain, x))


@pytest.mark.parametrize("pool", ["ReduceMax", "ReduceSum"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 150, 299])
def test_a_state_that_is_not_finite_shows_in_its_row(pool: str, wrong: float, place: int) -> None:
    """In torch NaN is greater than any number, and the runtime names the text whose row has one.

    onnxruntime's ReduceMax passes over a NaN that does not come first, so that the row alone looks sound.
    """
    x = np.zeros((2, 300, HIDDEN), np.float32)
    x[1, place, 3] = wrong
    model = graph(pool)
    finish_pool(model.graph)
    made = run(session(chunk_pool(model)), x)
    assert np.isfinite(made[0]).all()
    assert not np.isfinite(made[1]).all()


def test_what_comes_before_and_after_the_pooling_stays() -> None:
    model = graph("ReduceMax")
    graph_ = model.graph
    graph_.node[0].op_type = "Tanh"
    graph_.node.append(helper.make_node("Neg", ["pooled"], ["turned"]))
    graph_.node.append(helper.make_node("Shape", ["x"], ["size"]))
    graph_.output[0].name = "turned"
    graph_.output.append(helper.make_tensor_value_info("size", TensorProto.INT64, [3]))
    plain, opened = session(model), session(chunk_pool(model))
    x = states((3, 300), np.float32)
    (one, size), (two, other) = (s.run(None, {"states": x}) for s in (plain, opened))
    np.testing.assert_allclose(two, one, rtol=1e-6, atol=2e-6)
    assert size.tolist() == other.tolist() == [3, 300, HIDDEN]


def test_a_graph_without_a_vocabulary_product_stays_as_it_is() -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("ReduceMax", ["x", "axis"], ["pooled"], keepdims=0)],
            "no product",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "tokens", HIDDEN])],
            [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["batch", HIDDEN])],
            [numpy_helper.from_array(np.array([1], np.int64), "axis")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
    )
    assert chunk_pool(model) is model


# ------------------------------------------------------------------------------------------------ one table, not two
def test_a_decoder_that_is_the_embedding_table_is_not_copied() -> None:
    """ids -> table[ids] -> product with the table, turned -> maximum."""
    rng = np.random.default_rng(5)
    table = rng.normal(size=(TERMS, HIDDEN)).astype(np.float32)
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Gather", ["table", "ids"], ["x"]),
                helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
                helper.make_node("MatMul", ["x", "turned"], ["logits"]),
                helper.make_node("ReduceMax", ["logits", "axis"], ["pooled"], keepdims=0),
            ],
            "tied",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])],
            [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["batch", TERMS])],
            [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1], np.int64), "axis")],
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
        ir_version=9,
    )
    share_transposed(model.graph)
    assert operators(model.graph.node) == ["Gather", "FusedMatMul", "ReduceMax"]
    sliced = chunk_pool(model)
    assert sum(tensor.dims[:] == [TERMS, HIDDEN] for tensor in sliced.graph.initializer) == 1
    ids = rng.integers(0, TERMS, (3, 301))
    expected = (table[ids].astype(np.float64) @ table.T).max(1)
    for made in (model, sliced):
        np.testing.assert_allclose(session(made).run(None, {"ids": ids})[0], expected, rtol=1e-5, atol=1e-5)
