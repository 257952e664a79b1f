"""Pooling, what follows it, similarity and output types against sentence-transformers' own modules on random arrays."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sentence_transformers import util
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import LayerNorm, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling as Reference
from sentence_transformers.util.quantization import quantize_embeddings

from trivec import InputError
from trivec._model.manifest import ACTIVATIONS, POOLING_MODES, Pooling, Step
from trivec._pooling.dense import apply_steps, pool
from trivec._vectors.arrays import Floats, normalize
from trivec._vectors.quantize import OUTPUT_PRECISIONS, check_output_precision, quantize_vectors
from trivec._vectors.scores import all_pairs, side_by_side

SIZES = [(1, 1, 1), (1, 2, 5), (3, 1, 7), (5, 13, 33), (2, 257, 3)]  # (B, S, H)
CONCATENATIONS = [c for n in range(1, len(POOLING_MODES) + 1) for c in itertools.combinations(POOLING_MODES, n)]


def randoms(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def small(*shape: int, seed: int = 0) -> Floats:
    """Rows whose L1 norm is about 1: similarities of that size can be compared to 1e-6."""
    found: Floats = randoms(*shape, seed=seed) * np.float32(1 / shape[1])
    return found


def reference_pool(states: Floats, modes: tuple[str, ...], prompt_length: int | None, **options: Any) -> Floats:
    features = {
        "token_embeddings": torch.from_numpy(states),
        "attention_mask": torch.ones(states.shape[:2], dtype=torch.int64),
    }
    if prompt_length is not None:
        features["prompt_length"] = torch.tensor([prompt_length])
    found: Floats = Reference(states.shape[2], modes, **options)(features)["sentence_embedding"].numpy()
    return found


def test_the_modes_are_those_of_sentence_transformers() -> None:
    assert POOLING_MODES == Reference.POOLING_MODES
    assert len(CONCATENATIONS) == 63


@pytest.mark.parametrize("shape", SIZES)
def test_every_mode_and_concatenation(shape: tuple[int, int, int]) -> None:
    states = randoms(*shape)
    for modes in CONCATENATIONS:
        found = pool(states, Pooling(modes))
        assert found.dtype == np.float32
        assert found.shape == (shape[0], shape[2] * len(modes))
        np.testing.assert_allclose(found, reference_pool(states, modes, None), rtol=1e-5, atol=2e-6, err_msg=str(modes))


def test_modes_are_concatenated_in_the_order_given() -> None:
    states = randoms(3, 7, 5)
    modes = ("lasttoken", "mean", "cls")
    np.testing.assert_allclose(pool(states, Pooling(modes)), reference_pool(states, modes, None), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", POOLING_MODES)
@pytest.mark.parametrize("prompt_length", [0, 1, 4, 12])
def test_include_prompt_false_leaves_the_prompt_out(mode: str, prompt_length: int) -> None:
    states = randoms(5, 13, 9)
    expected = reference_pool(states, (mode,), prompt_length, include_prompt=False)
    found = pool(states, Pooling((mode,), include_prompt=False), prompt_length)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("mode", POOLING_MODES)
@pytest.mark.parametrize("prompt_length", [13, 14, 99])
def test_a_prompt_that_covers_the_whole_text(mode: str, prompt_length: int) -> None:
    states = randoms(2, 13, 9)
    expected = reference_pool(states, (mode,), prompt_length, include_prompt=False)
    found = pool(states, Pooling((mode,), include_prompt=False), prompt_length)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_include_prompt_true_ignores_the_prompt_length(mode: str) -> None:
    states = randoms(2, 13, 9)
    np.testing.assert_array_equal(pool(states, Pooling((mode,)), 4), pool(states, Pooling((mode,)), 0))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_with_every_activation(activation: str) -> None:
    classes = {name.lower(): getattr(torch.nn, name) for name in dir(torch.nn)}
    torch.manual_seed(0)
    module = Dense(13, 9, activation_function=classes[activation.replace("_", "")]())
    # saturating, tiny and ordinary inputs: the reference's own formulas differ there
    vectors = np.concatenate([randoms(4, 13), 40 * randoms(3, 13, seed=1), 1e-4 * randoms(2, 13, seed=2)])
    expected = module({"sentence_embedding": torch.from_numpy(vectors)})["sentence_embedding"].detach().numpy()
    arrays = {"d.weight": module.linear.weight.detach().numpy(), "d.bias": module.linear.bias.detach().numpy()}
    found = apply_steps(vectors, (Step("dense", "d", activation),), arrays)
    assert found.dtype == np.float32
    # large inputs may cancel to a small sum, whose rounding is theirs: 40 times as coarse
    for rows, atol in ((slice(0, 4), 2e-6), (slice(4, 7), 8e-5), (slice(7, 9), 2e-6)):
        np.testing.assert_allclose(found[rows], expected[rows], rtol=2e-5, atol=atol)


@pytest.mark.parametrize("out_features", [13, 8])
@pytest.mark.parametrize("bias", [True, False])
def test_dense_residual_with_and_without_projection(out_features: int, bias: bool) -> None:
    module = Dense(13, out_features, bias=bias, use_residual=True)
    vectors = randoms(5, 13)
    expected = module({"sentence_embedding": torch.from_numpy(vectors)})["sentence_embedding"].detach().numpy()
    arrays = {"d.weight": module.linear.weight.detach().numpy()}
    if bias:
        arrays["d.bias"] = module.linear.bias.detach().numpy()
    if out_features != 13:
        arrays["d.residual"] = module.residual.weight.detach().numpy()
    found = apply_steps(vectors, (Step("dense", "d", "tanh", residual=True),), arrays)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_layer_norm() -> None:
    module = LayerNorm(33)
    torch.nn.init.normal_(module.norm.weight)
    torch.nn.init.normal_(module.norm.bias)
    vectors = np.concatenate([randoms(5, 33), 1e-3 * randoms(2, 33, seed=1), np.zeros((1, 33), dtype=np.float32)])
    expected = module({"sentence_embedding": torch.from_numpy(vectors)})["sentence_embedding"].detach().numpy()
    arrays = {"n.weight": module.norm.weight.detach().numpy(), "n.bias": module.norm.bias.detach().numpy()}
    found = apply_steps(vectors, (Step("layer_norm", "n"),), arrays)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_normalize_also_of_zeros_and_of_very_small_and_large_rows() -> None:
    scales = np.array([1, 0, 1e-20, 1e-10, 1e10], dtype=np.float32)
    vectors = scales[:, None] * randoms(5, 7)
    expected = Normalize()({"sentence_embedding": torch.from_numpy(vectors)})["sentence_embedding"].numpy()
    found = apply_steps(vectors, (Step("normalize"),), {})
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_steps_run_in_their_order() -> None:
    dense = Dense(7, 5)
    vectors = randoms(3, 7)
    arrays = {"d.weight": dense.linear.weight.detach().numpy(), "d.bias": dense.linear.bias.detach().numpy()}
    features = {"sentence_embedding": torch.from_numpy(vectors)}
    expected = Normalize()(dense(Normalize()(features)))["sentence_embedding"].detach().numpy()
    steps = (Step("normalize"), Step("dense", "d", "tanh"), Step("normalize"))
    np.testing.assert_allclose(apply_steps(vectors, steps, arrays), expected, rtol=1e-5, atol=1e-6)


# ---- similarity ------------------------------------------------------------------------------------------------------

REFERENCES = {
    "cosine": (util.cos_sim, util.pairwise_cos_sim),
    "dot": (util.dot_score, util.pairwise_dot_score),
    "euclidean": (util.euclidean_sim, util.pairwise_euclidean_sim),
    "manhattan": (util.manhattan_sim, util.pairwise_manhattan_sim),
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize(("rows", "columns", "width"), [(1, 1, 1), (3, 5, 7), (17, 2, 33), (1, 23, 3)])
def test_similarity_of_all_pairs(name: str, rows: int, columns: int, width: int) -> None:
    a, b = small(rows, width), small(columns, width, seed=1)
    found = all_pairs(name, a, b)
    assert found.shape == (rows, columns)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, REFERENCES[name][0](a, b).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", REFERENCES)
def test_similarity_of_pairs(name: str) -> None:
    a, b = small(17, 33), small(17, 33, seed=1)
    found = side_by_side(name, a, b)
    assert found.shape == (17,)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, REFERENCES[name][1](a, b).numpy(), rtol=0, atol=1e-6)


def test_euclidean_keeps_its_digits_where_vectors_are_close_unlike_the_expanded_square() -> None:
    a = 100 + randoms(3, 64)
    b = a + np.float32(0.0625)
    exact = -np.linalg.norm(a[:, None].astype(np.float64) - b[None], axis=2)
    np.testing.assert_allclose(all_pairs("euclidean", a, b), exact, rtol=1e-6)


def test_similarity_of_nothing() -> None:
    for name in REFERENCES:
        assert all_pairs(name, randoms(0, 5), randoms(3, 5)).shape == (0, 3)
        assert all_pairs(name, randoms(3, 5), randoms(0, 5)).shape == (3, 0)
        assert side_by_side(name, randoms(0, 5), randoms(0, 5)).shape == (0,)


# ---- output types ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", OUTPUT_PRECISIONS)
@pytest.mark.parametrize("width", [1, 7, 8, 33])
def test_output_types(precision: Any, width: int) -> None:
    vectors = np.concatenate([randoms(5, width), np.zeros((1, width), dtype=np.float32)])
    ranges = np.stack([vectors.min(0) + 0.1, vectors.max(0) - 0.1])  # some values lie outside, and are clipped
    ranges[1, 0] = ranges[0, 0]  # a dimension that never varies
    found = quantize_vectors(vectors, precision, ranges)
    expected: npt.NDArray[Any] = np.asarray(quantize_embeddings(vectors, precision, ranges=ranges))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_eight_bit_outputs_need_ranges_where_sentence_transformers_takes_them_from_the_batch() -> None:
    for precision in ("int8", "uint8"):
        with pytest.raises(InputError, match="needs the value ranges that `trivec export` stores"):
            quantize_vectors(randoms(3, 5), precision, None)


def test_a_variant_is_no_output_type() -> None:
    with pytest.raises(InputError, match="'fp16' is not one of float32, int8, uint8, binary, ubinary"):
        check_output_precision("fp16")


def test_normalize_matches_torch() -> None:
    vectors = randoms(17, 33)
    expected = torch.nn.functional.normalize(torch.from_numpy(vectors), dim=1).numpy()
    np.testing.assert_allclose(normalize(vectors), expected, rtol=1e-6, atol=1e-7)
