"""Selection of sparse weights against sentence-transformers' own modules, and against loops over tokens."""

from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import util
from sentence_transformers.sparse_encoder import modules

from trivec import InputError
from trivec._pooling.sparse import check_max_active_dims, lexical_rows, sparse_rows, table_rows, top_active
from trivec._vectors.arrays import Floats
from trivec._vectors.sparse import SparseVectors

SIZES = [(0, 1, 7), (1, 1, 1), (3, 2, 1), (1, 5, 9), (7, 3, 257), (2, 9, 30522)]  # (B, S, V)
LIMITS = [None, 1, 3, 8, 10**6]


def randoms(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def reference(logits: Floats, max_active_dims: int | None, pooling: str, activation: str) -> Floats:
    """(B, S, V) logits -> (B, V) by SpladePooling and select_max_active_dims."""
    mask = torch.ones(logits.shape[:2], dtype=torch.int64)
    features = {"token_embeddings": torch.from_numpy(logits.copy()), "attention_mask": mask}
    pooled = modules.SpladePooling(pooling, activation)(features)["sentence_embedding"]
    found: Floats = util.select_max_active_dims(pooled, max_active_dims).numpy()
    return found


def brute_force(dense: Floats, count: int) -> Floats:
    """The `count` heaviest of each row, equal ones by lower index."""
    result = np.zeros_like(dense)
    for row, weights in enumerate(dense):
        kept = np.lexsort((np.arange(len(weights)), -np.abs(weights)))[:count]
        result[row, kept] = weights[kept]
    return result


def check_rows(vectors: SparseVectors) -> None:
    """What `_trusted` trusts: it passes the checks of outsiders, and its dtypes are right without them."""
    again = SparseVectors(vectors.indptr, vectors.indices, vectors.values, vectors.dim)
    assert again.equals(vectors)
    assert [a.dtype for a in (vectors.indptr, vectors.indices, vectors.values)] == [np.int64, np.int32, np.float32]


# ---- SPLADE ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("activation", modules.SpladePooling.SPLADE_ACTIVATION)
def test_maximum_before_the_activation_as_splade_pooling(size: Any, limit: int | None, activation: str) -> None:
    logits = 3 * randoms(*size)
    expected = reference(logits, limit, "max", activation)
    found = sparse_rows(logits.max(1), activation, 0.0, limit)
    check_rows(found)
    assert found.shape == (size[0], size[2])
    np.testing.assert_array_equal(found.to_dense() != 0, expected != 0)
    np.testing.assert_allclose(found.to_dense(), expected, rtol=1e-6)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("activation", modules.SpladePooling.SPLADE_ACTIVATION)
def test_sums_come_activated(limit: int | None, activation: str) -> None:
    logits = randoms(5, 7, 129)
    found = sparse_rows(reference(logits, None, "sum", activation), "none", 0.0, limit)
    check_rows(found)
    np.testing.assert_array_equal(found.to_dense(), reference(logits, limit, "sum", activation))


def test_none_still_leaves_out_what_is_not_positive() -> None:
    pooled = np.array([[-1.0, 0.0, 0.5, -0.0, 2.0, -np.inf]], dtype=np.float32)
    assert sparse_rows(pooled, "none").to_dicts() == [{2: 0.5, 4: 2.0}]


@pytest.mark.parametrize("limit", [1, 2, 5, 20, 33])
def test_equal_weights_go_by_lower_index(limit: int) -> None:
    pooled = (np.round(2 * randoms(50, 33)) / 2).astype(np.float32)  # few different values
    expected = brute_force(np.maximum(pooled, 0), limit)
    found = sparse_rows(pooled, "none", 0.0, limit)
    check_rows(found)
    np.testing.assert_array_equal(found.to_dense(), expected)
    theirs = util.select_max_active_dims(torch.from_numpy(np.maximum(pooled, 0)), limit).numpy()
    np.testing.assert_array_equal(np.sort(found.to_dense()), np.sort(theirs))  # the same weights, wherever they are


def test_scores_that_the_logarithm_makes_equal_are_equal() -> None:
    pooled = np.array([[1e7, 1e7 + 1, 5, 1e7 + 2]], dtype=np.float32)
    assert len(set(np.log1p(pooled[0]).tolist())) == 2
    found = sparse_rows(pooled, "relu", 0.0, 2)
    assert found.indices.tolist() == [0, 1]
    np.testing.assert_array_equal(found.to_dense(), brute_force(np.log1p(pooled), 2))


@pytest.mark.parametrize("activation", ["relu", "log1p_relu", "none"])
def test_weights_up_to_the_threshold_are_dropped(activation: str) -> None:
    pooled = randoms(7, 257)
    everything = sparse_rows(pooled, activation).to_dense()
    threshold = float(np.median(everything[everything > 0]))  # one of them, or between two
    threshold = float(everything[everything >= threshold].min())
    found = sparse_rows(pooled, activation, threshold)
    check_rows(found)
    expected = np.where(everything > threshold, everything, 0)
    assert 0 < np.count_nonzero(expected) < np.count_nonzero(everything)
    np.testing.assert_array_equal(found.to_dense(), expected)
    limited = sparse_rows(pooled, activation, threshold, 3)
    np.testing.assert_array_equal(limited.to_dense(), brute_force(expected, 3))


def test_an_activation_of_ones_own() -> None:
    pooled = randoms(5, 33)
    found = sparse_rows(pooled, lambda x: (x - 1).astype(np.float64))  # may drop more, and leave float32
    check_rows(found)
    np.testing.assert_array_equal(found.to_dense(), np.where(pooled > 1, pooled - 1, 0))


def test_rows_without_a_positive_score_are_empty() -> None:
    pooled = randoms(5, 33)
    pooled[[0, 2, 4]] = -1
    found = sparse_rows(pooled, "relu", 0.0, 4)
    check_rows(found)
    assert [len(row) for row in found] == [0, 4, 0, 4, 0]


def test_scores_that_do_not_lie_together_in_memory() -> None:
    pooled = randoms(33, 10)
    expected = sparse_rows(np.ascontiguousarray(pooled.T), "relu", 0.0, 5)
    assert sparse_rows(pooled.T, "relu", 0.0, 5).equals(expected)
    before = pooled.copy()
    sparse_rows(pooled, "none", 0.0, 5)
    np.testing.assert_array_equal(pooled, before)


@pytest.mark.parametrize("activation", ["relu", "log1p_relu", "none"])
def test_what_is_not_finite_stays_to_be_seen(activation: str) -> None:
    pooled = randoms(3, 33)
    pooled[0, 7], pooled[2, 30] = np.nan, np.inf
    for threshold, limit in ((0.0, None), (0.5, None), (0.0, 1)):
        found = sparse_rows(pooled, activation, threshold, limit)
        assert np.isnan(found[0].to_dense()[7])
        assert np.isinf(found[2].to_dense()[30])
        assert np.isfinite(found[1].values).all()


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(InputError, match="activation 'gelu' is not one of relu, log1p_relu, none"):
        sparse_rows(randoms(1, 3), "gelu")


# ---- the heaviest weights --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(0, 5), (1, 1), (9, 1), (6, 40), (40, 257)])
@pytest.mark.parametrize("limit", LIMITS)
def test_top_active_goes_by_absolute_value(size: tuple[int, int], limit: int | None) -> None:
    dense = randoms(*size)
    dense[np.random.default_rng(1).random(size) < 0.6] = 0
    dense[1::3] = 0
    vectors = SparseVectors.from_dicts([{i: float(row[i]) for i in np.flatnonzero(row)} for row in dense], size[1])
    found = top_active(vectors, limit)
    check_rows(found)
    expected = util.select_max_active_dims(torch.from_numpy(dense), limit).numpy()
    np.testing.assert_array_equal(found.to_dense(), expected)
    assert vectors.nnz == np.count_nonzero(dense)  # what came is as it was


def test_top_active_of_equal_weights() -> None:
    dense = np.round(2 * randoms(50, 33))
    vectors = SparseVectors.from_dicts([{i: float(row[i]) for i in np.flatnonzero(row)} for row in dense], 33)
    for limit in (1, 2, 5, 20):
        np.testing.assert_array_equal(top_active(vectors, limit).to_dense(), brute_force(dense, limit))


def test_max_active_dims_is_a_whole_number_above_0() -> None:
    for right in (None, 1, 10**9, np.int64(3)):
        check_max_active_dims(right)
    calls: list[Callable[[Any], object]] = [
        check_max_active_dims,
        lambda value: sparse_rows(randoms(1, 3), "relu", 0.0, value),
        lambda value: top_active(SparseVectors.from_dicts([], 5), value),
    ]
    for wrong in (0, -1, True, False, 2.0, "3", np.inf):
        for call in calls:
            with pytest.raises(InputError, match="max_active_dims must be a whole number above 0, or None to keep all"):
                call(wrong)


# ---- weights of tokens -----------------------------------------------------------------------------------------------


def process_token_weights(weights: Floats, ids: Any, unused: set[int]) -> dict[int, float]:
    """FlagEmbedding 1.4.2's loop, with whole numbers as keys."""
    result: dict[int, float] = defaultdict(float)
    for weight, token in zip(weights, ids, strict=True):
        if token not in unused and weight > 0 and weight > result[int(token)]:
            result[int(token)] = float(weight)
    return dict(result)


@pytest.mark.parametrize("size", [(0, 3), (1, 0), (1, 1), (5, 13), (17, 200)])
@pytest.mark.parametrize("dim", [1, 7, 250002])
@pytest.mark.parametrize("dropped", [(), (0, 2, 1, 3), {0}, range(9)])
def test_lexical_weights_as_flag_embedding(size: tuple[int, int], dim: int, dropped: Any) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, dim, size)
    ids[:, : size[1] // 2] %= 11  # repeats in every vocabulary
    weights = np.maximum(np.round(randoms(*size), 1), 0)  # exact zeros, and equal weights
    offsets = np.arange(size[0] + 1) * size[1]
    found = lexical_rows(ids.ravel(), offsets, weights.ravel(), dim, dropped)
    check_rows(found)
    assert found.shape == (size[0], dim)
    expected = [process_token_weights(w, i, set(dropped)) for w, i in zip(weights, ids, strict=True)]
    assert [dict(sorted(row.items())) for row in expected] == found.to_dicts()


def test_negative_weights_of_tokens_do_not_count_and_nan_is_seen() -> None:
    ids = np.array([[4, 4, 5, 6, 6], [1, 2, 3, 4, 4]])
    weights = np.array([[-1, 0.5, -2, np.nan, 1], [1, -1, 2, 0.25, 0.5]], dtype=np.float32)
    found = lexical_rows(ids.ravel(), np.array([0, 5, 10]), weights.ravel(), 9, {1})
    assert found[0].indices.tolist() == [4, 6]
    assert np.isnan(found[0].values[1])
    assert found[1].to_dict() == {3: 2.0, 4: 0.5}


@pytest.mark.parametrize("lengths", [[], [0], [5], [0, 3, 0, 0, 40, 1, 0]])
@pytest.mark.parametrize("width", [1, 7, 300])
def test_tables_of_weights_as_sparse_static_embedding(lengths: list[int], width: int) -> None:
    table = np.round(randoms(width), 1)  # below 0 and, now and then, 0
    table[::5] = 0
    module = modules.SparseStaticEmbedding(SimpleNamespace(model_max_length=512), torch.from_numpy(table), frozen=True)
    texts = [np.random.default_rng(seed).integers(0, width, length) for seed, length in enumerate(lengths)]
    ids = np.concatenate([np.empty(0, dtype=np.int64), *texts])
    found = table_rows(ids, np.cumsum([0, *lengths]), table)
    check_rows(found)
    assert found.shape == (len(lengths), width)
    assert (found.values != 0).all()
    for row, text in enumerate(texts):
        features = {
            "input_ids": torch.from_numpy(text[None]),
            "attention_mask": torch.ones((1, len(text)), dtype=torch.int64),
        }
        expected = module(features)["sentence_embedding"].numpy()[0]
        np.testing.assert_array_equal(found[row].to_dense(), expected)


def test_ids_that_have_no_weight_are_refused() -> None:
    for wrong in (-1, 7):
        ids = np.array([3, wrong, 6])
        with pytest.raises(InputError, match=f"token id {wrong} is none of the 7 that have a weight"):
            table_rows(ids, np.array([0, 3]), randoms(7))
        with pytest.raises(InputError, match=f"token id {wrong} is none of the 7.* Take both from one checkpoint"):
            lexical_rows(ids, np.array([0, 3]), randoms(3), 7, ())
