"""float16: what overflows stays float32, and an emulated graph shows on the CPU what would not have."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tests.support.small_graph import HIDDEN, VOCAB, Builder, Floats, array, cosine, encoder, set_array, texts

from trivec._errors import InputError, NonFiniteError
from trivec._gate.texts import verification_texts
from trivec_export._checkpoint.tokenizer import token_ids
from trivec_export._gate.texts import calibration_texts
from trivec_export._graph.run import open_session
from trivec_export._reference.torch_model import load
from trivec_export._trace.trace import trace
from trivec_export._variants import half as half_module
from trivec_export._variants.half import LIMIT, convert_half, emulate_half
from trivec_export._variants.int8.calibrate import pooled


def run(model: onnx.ModelProto, ids: NDArray[np.int64], *, optimize: bool = True) -> Floats:
    return np.asarray(open_session(model, optimize=optimize).run(None, {"input_ids": ids})[0])


def multiplied(*factors: float) -> onnx.ModelProto:
    """A table's rows times each of the factors, one after the other."""
    builder = Builder()
    table = np.array([[1.0, 2.0], [1 + 2**-9, 1 + 2**-12], [-1.0, 0.0]], np.float32)
    x = builder.add("Gather", [builder.weight("table", table), "input_ids"], "embedded")
    for i, factor in enumerate(factors):
        x = builder.add("Mul", [x, builder.weight(f"factor{i}", np.array(factor, np.float32))], f"product{i}")
    return builder.model(x)


def half_everywhere(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """Converted as if no value were ever too large."""
    with monkeypatch.context() as patch:
        patch.setattr(half_module, "LIMIT", np.inf)
        return convert_half(model, [np.array([[0, 1, 2]])]).model


@pytest.mark.parametrize("optimize", [True, False])
def test_emulation_rounds_and_overflows(monkeypatch: pytest.MonkeyPatch, optimize: bool) -> None:
    """1e5 becomes infinity for good, 1 + 2**-12 becomes 1; onnxruntime alone would show neither."""
    ids = np.array([[0, 1, 2]])
    half = half_everywhere(multiplied(1e4, 10.0, 1e-4, 0.1), monkeypatch)
    found = run(emulate_half(half), ids, optimize=optimize)[0]
    assert_array_equal(found, [[np.inf, np.inf], [np.inf, np.inf], [-np.inf, 0]])
    exact = run(emulate_half(half_everywhere(multiplied(1.0), monkeypatch)), ids, optimize=optimize)[0]
    assert_array_equal(exact, [[1, 2], [1 + 2**-9, 1], [-1, 0]])


def test_emulation_equals_numpy_in_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each product is rounded once: float32 product of halves, then half."""
    model = multiplied(1.7, 0.3, 9.1)
    expected = array(model, "table").astype(np.float16)
    for factor in (1.7, 0.3, 9.1):
        expected = (expected.astype(np.float32) * np.float32(np.float16(factor))).astype(np.float16)
    found = run(emulate_half(half_everywhere(model, monkeypatch)), np.array([[0, 1, 2]]))[0]
    assert_array_equal(found, expected.astype(np.float32))


def test_what_overflows_is_kept_and_named() -> None:
    ids = np.array([[0, 1, 2]])
    half = convert_half(multiplied(1e4, 10.0, 1e-4), [ids])
    assert half.kept == ["product0", "product1", "product2"]  # makes, reads and makes, reads what is above the limit
    found = run(emulate_half(half.model), ids)[0]
    np.testing.assert_allclose(found, run(multiplied(10.0), ids)[0], rtol=2**-9)
    # Kept nodes hand their values on in float32: casts for what comes in, for the factors, and for what goes on.
    casts = [node.attribute[0].i for node in half.model.graph.node if node.op_type == "Cast"]
    assert Counter(casts) == {TensorProto.FLOAT: 1 + 3 + 1, TensorProto.FLOAT16: 1}


def overflowing() -> onnx.ModelProto:
    """An encoder whose second FFN works at 300,000, and whose next norm undoes it, as T5's do."""
    model = encoder()
    for name in ("layer1.down.weight", "layer1.down.bias"):
        set_array(model, name, array(model, name) * np.float32(3e5))
    return model


def test_an_overflowing_layer_agrees_with_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    model, unseen = overflowing(), texts(seed=2)
    reference = pooled(model, unseen)
    half = convert_half(model, texts())
    assert "layer1.down.product" in half.kept
    assert "layer1.norm2" in half.kept
    assert not [name for name in half.kept if name.startswith("layer0")]
    assert cosine(pooled(emulate_half(half.model), unseen), reference).min() >= 0.9995
    with monkeypatch.context() as patch, np.errstate(over="ignore"):
        patch.setattr(half_module, "LIMIT", np.inf)
        careless = convert_half(model, texts())
    assert careless.kept == []
    bad = np.concatenate([run(emulate_half(careless.model), ids).mean(1) for ids in unseen])
    assert not np.isfinite(bad).all()


def test_a_large_weight_stays_float() -> None:
    half = convert_half(overflowing(), texts())
    kinds = {tensor.name: tensor.data_type for tensor in half.model.graph.initializer}
    assert kinds.pop("layer1.down.weight") == TensorProto.FLOAT
    assert kinds.pop("layer1.down.bias") == TensorProto.FLOAT
    assert set(kinds.values()) == {TensorProto.FLOAT16}


def test_plain_encoders_are_half_throughout(tmp_path: Path) -> None:
    model = encoder()
    half = convert_half(model, texts())
    assert half.kept == []
    assert {tensor.data_type for tensor in half.model.graph.initializer} == {TensorProto.FLOAT16}
    assert [node.op_type for node in half.model.graph.node].count("Cast") == 1
    assert half.model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    onnx.save(half.model, tmp_path / "half.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "half.onnx", providers=["CPUExecutionProvider"])
    assert (session.get_inputs()[0].type, session.get_outputs()[0].type) == ("tensor(int64)", "tensor(float)")
    unseen = texts(seed=2)
    assert cosine(pooled(half.model, unseen), pooled(model, unseen)).min() > 0.99999
    assert cosine(pooled(emulate_half(half.model), unseen), pooled(model, unseen)).min() > 0.9995


def test_no_model_is_changed() -> None:
    model = overflowing()
    before = model.SerializeToString()
    half = convert_half(model, texts(8))
    assert model.SerializeToString() == before
    written = half.model.SerializeToString()
    emulate_half(half.model)
    assert half.model.SerializeToString() == written


def positions(*, infinity: float) -> onnx.ModelProto:
    """Angles of positions up to 5,000, and a bias that hides odd positions from an embedding table's rows."""
    builder = Builder()
    x = builder.add("Gather", [builder.random("table", VOCAB, HIDDEN), "input_ids"], "embedded")
    far = builder.weight("far", np.array(4001, np.int64))
    place = builder.add("Add", ["input_ids", far], "place")
    real = builder.add("Cast", [place], "real", to=TensorProto.FLOAT)
    angle = builder.add("Mul", [real, builder.weight("rate", np.array(0.7, np.float32))], "angle")
    wave = builder.add("Sin", [angle], "wave")
    two = builder.weight("two", np.array(2, np.int64))
    odd = builder.add("Cast", [builder.add("Mod", ["input_ids", two], "rest")], "odd", to=TensorProto.BOOL)
    low, zero = builder.weight("low", np.array(infinity, np.float32)), builder.weight("zero", np.array(0, np.float32))
    bias = builder.add("Where", [odd, low, zero], "bias")
    scores = builder.add("Softmax", [builder.add("Add", [wave, bias], "sum")], "scores", axis=-1)
    last = builder.weight("last", np.array([-1], np.int64))
    weights = builder.add("Unsqueeze", [scores, last], "column")
    return builder.model(builder.add("Mul", [x, weights], "weighted"))


@pytest.mark.parametrize("infinity", [-np.inf, float(np.finfo(np.float32).min)])
def test_positions_stay_exact_and_masks_fit(infinity: float) -> None:
    model = positions(infinity=infinity)
    ids = np.random.default_rng(0).integers(0, VOCAB, (1, 61))
    half = convert_half(model, [ids])
    assert half.kept == []  # no mask counts as an overflow
    for found in (run(half.model, ids), run(emulate_half(half.model), ids)):
        np.testing.assert_allclose(found, run(model, ids), atol=2e-3)
        assert not found[0, ids[0] % 2 == 1].any()


def test_an_epsilon_does_not_become_zero() -> None:
    builder = Builder()
    table = builder.weight("table", np.zeros((3, 4), np.float32))
    x = builder.add("Gather", [table, "input_ids"], "embedded")
    y = builder.add("Add", [x, builder.weight("epsilon", np.array(1e-12, np.float32))], "above")
    model = builder.model(builder.add("Div", [x, y], "ratio"))
    half = convert_half(model, [np.array([[0, 1]])]).model
    assert_array_equal(run(emulate_half(half), np.array([[0, 2]])), np.zeros((1, 2, 4), np.float32))


def test_types_that_onnx_does_not_define_for_half_stay() -> None:
    """Range knows no float16; here it starts from a value that a text decides."""
    builder = Builder()
    x = builder.add("Gather", [builder.random("table", VOCAB, 8), "input_ids"], "embedded")
    start = builder.add("ReduceMax", [x], "start", keepdims=0)
    end = builder.add("Add", [start, builder.weight("eight", np.array(7.5, np.float32))], "end")
    steps = builder.add("Range", [start, end, builder.weight("one", np.array(1, np.float32))], "steps")
    model = builder.model(builder.add("Mul", [x, steps], "scaled"))
    ids = np.array([[3, 4, 5]])
    half = convert_half(model, [ids])
    assert half.kept == []
    np.testing.assert_allclose(run(half.model, ids), run(model, ids), rtol=0.01)


def test_constants_inside_nodes_are_converted() -> None:
    builder = Builder()
    x = builder.add("Gather", [builder.random("table", VOCAB, 8), "input_ids"], "embedded")
    shape = builder.add("Shape", [x], "shape")
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.5])
    filled = builder.add("ConstantOfShape", [shape], "filled", value=value)
    constant = builder.add("Constant", [], "constant", value=helper.make_tensor("c", TensorProto.FLOAT, [], [0.25]))
    model = builder.model(builder.add("Sum", [x, filled, constant], "sum"))
    ids = np.array([[3, 4, 5]])
    half = convert_half(model, [ids]).model
    for found in (run(half, ids), run(emulate_half(half), ids)):
        np.testing.assert_allclose(found, run(model, ids), atol=2e-3)


def test_nan_names_the_node() -> None:
    model = encoder()
    bias = array(model, "layer0.up.bias").copy()
    bias[3] = np.nan
    set_array(model, "layer0.up.bias", bias)
    with pytest.raises(NonFiniteError, match=r"of node 'layer0.* is NaN on calibration text 0"):
        convert_half(model, texts(4))


def test_no_texts_is_an_error() -> None:
    with pytest.raises(InputError, match="no calibration texts"):
        convert_half(encoder(), [])


def test_the_limit_leaves_room() -> None:
    assert float(np.finfo(np.float16).max) == LIMIT * 4


def test_minilm_is_faithful(minilm_checkpoint: Path) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_checkpoint, model_max_length=256)
    model = trace(load(minilm_checkpoint).model, max_length=512).graph
    half = convert_half(model, token_ids(tokenizer, [text.text for text in calibration_texts()[::16]]))
    assert half.kept == []
    rows = token_ids(tokenizer, [text.text for text in verification_texts()[::20] if text.text])
    ids = [row[None] for row in rows]
    assert cosine(pooled(emulate_half(half.model), ids), pooled(model, ids)).min() >= 0.9995
