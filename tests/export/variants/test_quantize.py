"""int8: exact integers against numpy, faithful graphs against float32, and what must not depend on anything."""

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.support.small_graph import HIDDEN, INNER, VOCAB, Builder, Floats, array, cosine, encoder, set_array, texts

from trivec._errors import InputError, NonFiniteError
from trivec_export._graph.run import open_session, random_texts
from trivec_export._variants.int8.assemble import Group, assemble
from trivec_export._variants.int8.calibrate import Channels, pooled
from trivec_export._variants.int8.linears import View, groups
from trivec_export._variants.int8.quantize import Quantized, _fitted, _observe, held_out, quantize
from trivec_export._variants.int8.smooth import affine, dequantized, fit, quantize_rows, split_rows, spread


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return encoder()


@pytest.fixture(scope="module")
def quantized(model: onnx.ModelProto) -> Quantized:
    return quantize(model, texts())


def static_fits(model: onnx.ModelProto, view: View) -> list[Group]:
    channels = _observe(model, view, texts())
    return [_fitted(view, members, channels) for members in groups(view)]


def run(model: onnx.ModelProto, ids: NDArray[np.int64]) -> Floats:
    return np.asarray(open_session(model).run(None, {"input_ids": ids})[0])


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def integer_layer(x: NDArray[np.uint8], weight: NDArray[np.int8], zero: int) -> NDArray[Any]:
    """MatMulIntegerToFloat with scales of 1, by onnxruntime."""
    names = ["x", "weight", "one", "ones", "zero"]
    node = helper.make_node("MatMulIntegerToFloat", names, ["y"], domain="com.microsoft")
    values = [weight, np.float32(1), np.ones(weight.shape[1], np.float32), np.uint8(zero)]
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in zip(names[1:], values, strict=True)],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("size", [1, 7, 64, 384, 1560])
@pytest.mark.parametrize("zero", [0, 131])
def test_the_largest_products_do_not_saturate(size: int, zero: int) -> None:
    """u8 * s8 pairs are summed in 16 bits on AVX2: 2 * 255 * 63 fits, 2 * 255 * 127 would not."""
    rng = np.random.default_rng(0)
    weight = np.full((size, 17), 63, np.int8)
    weight[:, 5:9] = -63
    weight[:, 9:] = rng.choice([-63, 63], (size, 8))
    x = np.full((5, size), 255, np.uint8)
    exact = (x.astype(np.int64) - zero) @ weight.astype(np.int64)
    assert_array_equal(integer_layer(x, weight, zero), exact)


def test_small_encoders_stay_close(model: onnx.ModelProto, quantized: Quantized) -> None:
    unseen = texts(seed=2)
    found = cosine(pooled(quantized.model, unseen), pooled(model, unseen))
    assert found.min() > 0.999
    assert all(layer.error < 0.05 for layer in quantized.layers)


def test_every_linear_layer_is_one_integer_node(quantized: Quantized) -> None:
    found = operators(quantized.model)
    assert found["MatMulIntegerToFloat"] == len(quantized.layers) == 12
    assert found["MatMul"] == 0
    assert found["QuantizeLinear"] == 8  # q, k and v of a layer read one
    assert [layer.precision for layer in quantized.layers] == ["int8"] * 12
    readers = Counter(n.input[0] for n in quantized.model.graph.node if n.op_type == "MatMulIntegerToFloat")
    assert sorted(readers.values()) == [1, 1, 1, 1, 1, 1, 3, 3]


def test_weights_have_seven_bits_and_zero_points_are_shared(quantized: Quantized) -> None:
    for node in quantized.model.graph.node:
        if node.op_type == "MatMulIntegerToFloat":
            weight = array(quantized.model, node.input[1])
            assert weight.dtype == np.int8
            assert np.abs(weight.astype(int)).max() == 63
            assert array(quantized.model, node.input[4]).shape == ()


def test_a_text_does_not_depend_on_its_batch(quantized: Quantized) -> None:
    ids = np.random.default_rng(3).integers(0, VOCAB, (64, 23))
    session = open_session(quantized.model)
    together = session.run(None, {"input_ids": ids})[0]
    alone = np.concatenate([session.run(None, {"input_ids": row[None]})[0] for row in ids])
    assert_allclose(together, alone, atol=1e-5, rtol=0)


def test_the_model_passed_in_is_not_changed() -> None:
    model = encoder()
    before = model.SerializeToString()
    quantize(model, texts(), target_cosine=1.0, max_fp32_share=0.2)
    assert model.SerializeToString() == before


def test_norms_before_layers_take_the_smoothing(model: onnx.ModelProto, quantized: Quantized) -> None:
    """Pre-norm: only the layers read the norm, so it divides. Post-norm: the residual reads it too, so a Mul does."""
    early = encoder(before=True)
    result = quantize(early, texts()).model
    unseen = texts(seed=2)
    assert cosine(pooled(result, unseen), pooled(early, unseen)).min() > 0.998
    # Left for a Mul: one for the embedding table, and one after each Gelu, whose factor no linear layer can take.
    assert operators(result)["Mul"] == 1 + 2
    assert operators(quantized.model)["Mul"] == 1 + 2 + 4


def test_the_gelu_of_integer_layers_alone_takes_its_tanh_form(model: onnx.ModelProto, quantized: Quantized) -> None:
    assert operators(quantized.model)["FastGelu"] == operators(model)["Gelu"] == 2
    assert operators(quantized.model)["Gelu"] == 0
    view = View(model.graph)
    mixed = assemble(model, view, static_fits(model, view), {"layer1.down"})
    forms = {node.output[0]: node.op_type for node in mixed.graph.node if node.op_type.endswith("Gelu")}
    assert forms == {"layer0.gelu": "FastGelu", "layer1.gelu": "Gelu"}  # float32 keeps what the model says


def test_values_take_the_smoothing_of_the_attention_output(quantized: Quantized) -> None:
    reader = next(n for n in quantized.model.graph.node if n.name == "layer0.out.product")
    quantizer = next(n for n in quantized.model.graph.node if n.output[0] == reader.input[0])
    assert quantizer.input[0] == "layer0.attention"


def test_outlier_channels_come_in_copies(model: onnx.ModelProto, quantized: Quantized) -> None:
    """The layer before the Gelu has more columns than in float32, and the one after it as many rows."""
    shapes = {t.name: tuple(t.dims) for t in quantized.model.graph.initializer}
    assert shapes["layer0.up.weight.int8"] == (HIDDEN, INNER + 2)
    assert shapes["layer0.down.weight.int8"] == (INNER + 2, HIDDEN)


def test_splitting_rescues_an_outlier() -> None:
    """One channel a hundred times as strong as the others would leave them a bit or two."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 64)).astype(np.float32)
    x[:, 7] = 100 + x[:, 7]
    weight = rng.normal(size=(64, 48)).astype(np.float32)
    found = Channels(x.min(0), x.max(0), x.min(0), x.max(0), x[:400], x[400:])
    plain, split = fit(found, [weight]), fit(found, [weight], splits=16)
    assert split.copies[7] > 4
    assert split.copies.sum() == 80
    assert split.layers[0].error < 0.75 * plain.layers[0].error


def test_the_integers_of_copies_add_up() -> None:
    rng = np.random.default_rng(0)
    copies = np.array([1, 3, 1, 2])
    q = np.round(rng.uniform(-1, 1, (4, 9)) * 63 * copies[:, None]).astype(np.float32)
    q[1, 0], q[1, 1] = -189, 189
    parts = spread(q, copies)
    assert parts.shape == (7, 9)
    assert np.abs(parts.astype(int)).max() == 63
    assert_array_equal(np.add.reduceat(parts.astype(int), [0, 1, 4, 5], axis=0), q)


def test_copies_go_to_the_row_that_sets_the_scales() -> None:
    weight = np.ones((5, 8), np.float32)
    weight[3] = 12
    assert_array_equal(split_rows(weight, 4), [1, 1, 1, 5, 1])
    assert_array_equal(split_rows(weight, 0), [1, 1, 1, 1, 1])


def test_affine_ranges_hold_zero_and_the_extremes() -> None:
    for low, high in ((-0.17, 24.7), (-3.0, 3.0), (0.5, 2.0), (-2.0, -0.5), (0.0, 0.0)):
        scale, zero = affine(low, high)
        assert 0 <= zero <= 255
        ends = scale * (np.array([0, 255]) - zero)
        assert ends[0] <= min(low, 0) + scale / 2
        assert ends[1] >= max(high, 0) - scale / 2


def test_a_token_far_outside_calibration_clips_and_stays_finite() -> None:
    """Without a norm behind the table, a token a thousand times as large as the others is far out of range."""
    builder = Builder()
    table = builder.rng.normal(size=(VOCAB, HIDDEN)).astype(np.float32)
    x = builder.add("Gather", [builder.weight("table", table), "input_ids"], "embedded")
    model = builder.model(builder.linear(x, "out", HIDDEN, HIDDEN))
    result = quantize(model, texts()).model
    scales = array(result, "table.scale").copy()
    scales[1999] *= 1000
    set_array(result, "table.scale", scales)
    out = run(result, np.array([[5, 1999, 7]]))[0]  # (3, H)
    exact = run(model, np.array([[5, 1999, 7]]))[0]
    assert np.isfinite(out).all()
    assert np.abs(out[1]).max() < 10 * np.abs(out[[0, 2]]).max()  # 1000 times as large in float32
    assert cosine(out[[0, 2]], exact[[0, 2]]).min() > 0.999


def test_values_beyond_the_range_take_its_ends() -> None:
    bounds = affine(-1.0, 3.0)
    x = np.array([[-50.0, 50.0, 0.0, 1.0]], np.float32)
    found = dequantized(x, np.ones(4, np.float32), bounds)
    assert_allclose(found, [[-1.0, 3.0, 0.0, 1.0]], atol=bounds.scale / 2 + 1e-6)


def test_embedding_rows_are_within_half_a_step(model: onnx.ModelProto, quantized: Quantized) -> None:
    table = array(model, "table")
    rows, scale = quantize_rows(table)
    assert rows.dtype == np.int8
    assert scale.shape == (VOCAB, 1)
    assert (np.abs(rows * scale - table) <= scale / 2 * (1 + 1e-5)).all()
    assert array(quantized.model, "table.int8").dtype == np.int8
    assert "table" not in {t.name for t in quantized.model.graph.initializer}
    zeros, zero_scale = quantize_rows(np.zeros((2, 3), np.float32))
    assert np.isfinite(zero_scale).all()
    assert not zeros.any()


def test_tables_read_in_another_way_stay_as_they_are() -> None:
    builder = Builder()
    table = builder.random("table", VOCAB, HIDDEN)
    x = builder.add("Gather", [table, "input_ids"], "embedded")
    turned = builder.add("Transpose", [table], "turned", perm=[1, 0])
    model = builder.model(builder.add("MatMul", [x, turned], "scores"))
    result = quantize(model, texts(8)).model
    assert operators(result) == operators(model)


@pytest.mark.parametrize("turned", [0, 1])
def test_gemm_is_a_linear_layer(turned: int) -> None:
    builder = Builder()
    x = builder.add("Gather", [builder.random("table", VOCAB, HIDDEN), "input_ids"], "embedded")
    flat = builder.add("Reshape", [x, builder.weight("rows", np.array([-1, HIDDEN]))], "flat")
    shape = (48, HIDDEN) if turned else (HIDDEN, 48)
    inputs = [flat, builder.random("w", *shape), builder.random("b", 48)]
    y = builder.add("Gemm", inputs, "gemm", transB=turned)
    model = builder.model(builder.add("Reshape", [y, builder.weight("out", np.array([1, -1, 48]))], "shaped"))
    result = quantize(model, texts(8))
    assert operators(result.model)["Gemm"] == 0
    unseen = texts(8, seed=5)
    assert cosine(pooled(result.model, unseen), pooled(model, unseen)).min() > 0.999


def test_shared_weights_stay_shared() -> None:
    """ALBERT: two layers, one weight; the integers are written once and serve both inputs."""
    builder = Builder()
    x = builder.add("Gather", [builder.random("table", VOCAB, HIDDEN), "input_ids"], "embedded")
    weight = builder.random("w", HIDDEN, HIDDEN, scale=HIDDEN**-0.5)
    for i in range(2):
        x = builder.norm(builder.add("MatMul", [x, weight], f"product{i}"), f"norm{i}")
    model = builder.model(x)
    assert [len(group) for group in groups(View(model.graph))] == [2]
    result = quantize(model, texts())
    matrices = [t for t in result.model.graph.initializer if list(t.dims) == [HIDDEN, HIDDEN]]
    assert len(matrices) == 1
    unseen = texts(seed=2)
    assert cosine(pooled(result.model, unseen), pooled(model, unseen)).min() > 0.99


def test_a_float_layer_reads_the_copies_of_its_integer_twin() -> None:
    """Two layers share their FFN's weights, one of them stays float32, and both get copies of outlier channels."""
    model = encoder()
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name.startswith(("layer1.up.", "layer1.down.")) and name.endswith("weight"):
                node.input[i] = name.replace("layer1", "layer0")
    view = View(model.graph)
    fits = static_fits(model, view)
    assert any(group.fit.copies.max() > 1 for group in fits)
    unseen = texts(12, seed=2)
    for kept in ("layer0.down", "layer1.down", "layer0.up"):
        mixed = assemble(model, view, fits, {kept})
        assert cosine(pooled(mixed, unseen), pooled(model, unseen)).min() > 0.995, kept


def test_ranges_hold_tokens_that_no_calibration_text_has() -> None:
    """Half of the vocabulary is three times as large as the half that the texts use."""
    builder = Builder()
    table = builder.rng.normal(size=(VOCAB, HIDDEN)).astype(np.float32)
    table[VOCAB // 2 :] *= 3
    x = builder.add("Gather", [builder.weight("table", table), "input_ids"], "embedded")
    model = builder.model(builder.linear(x, "out", HIDDEN, HIDDEN))
    result = quantize(model, [ids % (VOCAB // 2) for ids in texts()]).model
    unseen = np.arange(VOCAB // 2, VOCAB)[None]
    assert np.quantile(cosine(run(result, unseen)[0], run(model, unseen)[0]), 0.05) > 0.999


def test_random_texts_look_like_texts(model: onnx.ModelProto) -> None:
    calibration = [np.array([[11, 5, 6, 7, 12]]), np.array([[11, *range(100), 12]])] * 60
    found = [ids for ids, _ in random_texts(model, calibration)]
    assert len(found) == 120 // 16
    for ids in found:
        assert 4 <= ids.shape[1] <= 64
        assert (ids[0, 0], ids[0, -1]) == (11, 12)
    inner = np.concatenate([ids[0, 1:-1] for ids in found])
    assert inner.min() < 200
    assert VOCAB - 200 < inner.max() < VOCAB
    assert all(ids.shape == (1, 1) for ids, _ in random_texts(model, [np.array([[3]])]))


def test_the_bias_takes_up_the_mean_error() -> None:
    rng = np.random.default_rng(0)
    x = (3 + rng.normal(size=(500, 24))).astype(np.float32)
    weight = rng.normal(size=(24, 10)).astype(np.float32)
    found = fit(Channels(x.min(0), x.max(0), x.min(0), x.max(0), x, x), [weight])
    layer = found.layers[0]
    output = dequantized(x, found.factor, found.range) @ (layer.weight * layer.scale) + layer.bias
    assert_allclose((output - x @ weight).mean(0), 0, atol=1e-4)
    assert layer.error < 0.03


def test_feedback_is_kept_where_it_wins_on_rows_that_it_did_not_fit() -> None:
    """Rows that span few directions let GPTQ hide its errors in the others: it loses on rows of another kind."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(48, 20)).astype(np.float32)
    mixing = rng.normal(size=(6, 48))
    narrow, alike = ((rng.normal(size=(400, 6)) @ mixing).astype(np.float32) for _ in range(2))
    other = rng.normal(size=(400, 48)).astype(np.float32) * narrow.std()
    errors = {}
    for name, measured in (("alike", alike), ("other", other)):
        rows = np.concatenate([narrow, measured])
        low, high = rows.min(0), rows.max(0)
        errors[name] = fit(Channels(low, high, low, high, narrow, measured), [weight]).layers[0]
    assert errors["alike"].rounding == "gptq"
    assert errors["other"].rounding == "nearest"
    assert_array_equal(np.abs(errors["other"].weight.astype(int)).max(0), 63)


def test_whole_kinds_are_held_out() -> None:
    kinds = ["english", "latin", "english", "code", "thai", "greek", "thai", "greek", "han", "emoji", "greek"]
    assert held_out(len(kinds), kinds) == {4, 6}
    assert held_out(9, None) == {3, 7}
    assert held_out(9, ["user"] * 9) == {3, 7}
    with pytest.raises(InputError, match="2 kinds for 3 calibration texts"):
        quantize(encoder(), texts(3), ["greek", "han"])


def test_the_costliest_layers_stay_float_within_the_limits(model: onnx.ModelProto, quantized: Quantized) -> None:
    unseen = texts(seed=2)
    reference = pooled(model, unseen)
    mixed = quantize(model, texts(), target_cosine=1.0, max_fp32_share=0.25)
    kept = [layer for layer in mixed.layers if layer.precision == "fp32"]
    assert 1 <= len(kept) <= 3
    assert operators(mixed.model)["MatMul"] == len(kept)
    gain = (
        cosine(pooled(mixed.model, unseen), reference).mean()
        - cosine(pooled(quantized.model, unseen), reference).mean()
    )
    assert gain > 0
    small = quantize(model, texts(), target_cosine=1.0, max_fp32_share=0.25, max_fp32_bytes=4 * HIDDEN * HIDDEN)
    assert sum(layer.precision == "fp32" for layer in small.layers) <= 1
    none = quantize(model, texts(), target_cosine=1.0, max_fp32_share=0)
    assert not any(layer.precision == "fp32" for layer in none.layers)


@pytest.mark.parametrize("before", [False, True])
def test_float_layers_between_integer_ones(before: bool) -> None:
    """A float32 layer takes part in what its neighbours need: copies of channels, divided outputs."""
    model = encoder(before=before)
    view = View(model.graph)
    fits = static_fits(model, view)
    unseen = texts(12, seed=2)
    reference = pooled(model, unseen)
    for output in view.linears:
        mixed = assemble(model, view, fits, {output})
        assert cosine(pooled(mixed, unseen), reference).min() > 0.998, output
    every = assemble(model, view, fits, set(view.linears))
    assert operators(every)["MatMulIntegerToFloat"] == 0


def test_nan_names_the_node(model: onnx.ModelProto) -> None:
    bad = onnx.ModelProto()
    bad.CopyFrom(model)
    scale = array(bad, "layer0.norm1.scale").copy()
    scale[2] = np.nan
    set_array(bad, "layer0.norm1.scale", scale)
    with pytest.raises(NonFiniteError, match=r"'layer0.norm1' of node 'layer0.up.product' holds NaN or infinity"):
        quantize(bad, texts(4))


def test_a_nan_weight_is_named(model: onnx.ModelProto) -> None:
    bad = onnx.ModelProto()
    bad.CopyFrom(model)
    weight = array(bad, "layer1.down.weight").copy()
    weight[2, 3] = np.inf
    set_array(bad, "layer1.down.weight", weight)
    with pytest.raises(NonFiniteError, match=r"'layer1.down.weight' of node 'layer1.down.product'"):
        quantize(bad, texts(4))


def test_no_texts_is_an_error(model: onnx.ModelProto) -> None:
    with pytest.raises(InputError, match="no calibration texts"):
        quantize(model, [])


def test_one_short_text_is_enough_to_run(model: onnx.ModelProto) -> None:
    result = quantize(model, [np.array([7])])
    assert run(result.model, np.array([[7]])).shape == (1, 1, HIDDEN)


# --------------------------------------------------------------------------------------------- the ladder
MASSIVE = 7  # the id of a token with one value 300 times the others', as a first token or a full stop has it


def massive(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose layers read what no norm levels, with one token that is 300 times as large in one channel."""
    made = encoder(before=True, seed=3)
    table = array(made, "table").copy()
    table[MASSIVE, 5] = 300
    set_array(made, "table", table)
    for node in made.graph.node:  # the residual, which nothing levels, is what the linear layers read
        if node.op_type == "LayerNormalization" and node.name != "last":
            node.op_type, node.domain = "Identity", ""
            del node.input[1:], node.attribute[:]
    return made


def with_massive(rows: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    found = [row.copy() for row in rows]
    for row in found:
        row[0, 0] = MASSIVE
    return found


def test_rows_of_their_own_scale_hold_what_a_range_does_not() -> None:
    model = massive(encoder())
    calibration, unseen = with_massive(texts()), with_massive(texts(seed=2))

    def last(states: Floats) -> Floats:
        return states[:, -1]

    static = quantize(model, calibration, target_cosine=-1, least_cosine=-1, max_fp32_share=0, pool=last)
    ladder = quantize(model, calibration, max_fp32_share=0, pool=last)
    assert {layer.precision for layer in static.layers} == {"int8"}
    assert "int8 by row" in {layer.precision for layer in ladder.layers}
    expected = pooled(model, unseen, last)
    assert cosine(pooled(static.model, unseen, last), expected).mean() < 0.97
    assert cosine(pooled(ladder.model, unseen, last), expected).mean() > 0.99


def test_what_is_not_accepted_goes_up_the_ladder() -> None:
    """The held-out texts let static ranges pass; who has the last word asks for rows of their own scale."""
    model, calibration = massive(encoder()), with_massive(texts())
    asked: list[bool] = []

    def accept(graph: onnx.ModelProto) -> bool:
        asked.append(any(node.op_type == "ReduceMax" for node in graph.graph.node))
        return asked[-1]

    reached = partial(quantize, model, calibration, target_cosine=-1, least_cosine=-1)
    made = reached(accept=accept, max_fp32_share=0)
    assert asked == [False, True]
    assert "int8 by row" in {layer.precision for layer in made.layers}
    refused = reached(accept=lambda _: False, max_fp32_share=0.25)
    assert {"int8 by row", "fp32"} <= {layer.precision for layer in refused.layers}


def test_a_row_of_its_own_scale_does_not_depend_on_its_batch() -> None:
    model = massive(encoder())
    made = quantize(model, with_massive(texts()), max_fp32_share=0).model
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCAB, (6, 11))
    ids[3, 0] = MASSIVE
    together = run(made, ids)
    assert_array_equal(together, np.concatenate([run(made, ids[i : i + 1]) for i in range(6)]))


def test_what_static_ranges_hold_stays_static(quantized: Quantized) -> None:
    assert {layer.precision for layer in quantized.layers} == {"int8"}


def test_by_row_arithmetic_equals_numpy() -> None:
    """x / s rounded to 7 bits a side, times the integers, times s: written down here."""
    model = massive(encoder())
    view = View(model.graph)
    channels = _observe(model, view, with_massive(texts()))
    (members,) = [g for g in groups(view) if g[0].name.startswith("layer0.up")]
    group = _fitted(view, members, channels, by_row=True)
    assert group.fit.range is None
    kept = {linear.output for linear in view.linears.values()} - {linear.output for linear in members}
    others = [_fitted(view, g, channels) for g in groups(view) if g is not members and g[0].name != members[0].name]
    made = assemble(model, view, [group, *others], kept)
    linear = members[0]
    ids = with_massive(texts(1))[0]
    x, y = open_session(made, [linear.source, linear.output]).run([linear.source, linear.output], {"input_ids": ids})
    x, y = x[0], y[0]  # (S, K), (S, N)
    smoothed = x / group.fit.factor
    scale = np.abs(smoothed).max(1, keepdims=True) / 127
    integers = group.integers(linear)
    bias = array(model, linear.bias) + integers.bias
    expected = np.round(smoothed / scale) @ integers.weight.astype(np.float64) * scale * integers.scale + bias
    assert_allclose(y, expected, rtol=0, atol=np.abs(expected).max() * 2e-2)  # a rounding at a half may differ
    assert np.mean(np.abs(y - expected) < np.abs(expected).max() * 1e-5) > 0.9
