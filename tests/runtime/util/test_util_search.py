"""trivec.util.semantic_search, against sentence_transformers.util and against everything sorted."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import sparse
from sentence_transformers import util as reference

from trivec import InputError, SparseVectors, load, util
from trivec.util import cos_sim, dot_score, euclidean_sim, manhattan_sim, semantic_search

Array = npt.NDArray[Any]
Found = list[list[dict[str, int | float]]]
pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch, of its own sparse tensors
FUNCTIONS = (cos_sim, dot_score, euclidean_sim, manhattan_sim)


def randoms(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Of about length 1."""
    found = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(found / np.sqrt(shape[-1]), dtype=np.float32)


def theirs(queries: Any, corpus: Any, **options: Any) -> Found:
    function = options.pop("score_function", cos_sim)
    options["score_function"] = getattr(reference, function.__name__)
    tensors = (x if isinstance(x, torch.Tensor) else torch.tensor(np.asarray(x)) for x in (queries, corpus))
    found: Found = reference.semantic_search(*tensors, **options)
    return found


def everything(queries: Array, corpus: Array, function: Any, top_k: int) -> Found:
    """All scores in float64, rounded to float32, sorted by score and then by id."""
    wide = torch.from_numpy(queries.astype(float)), torch.from_numpy(corpus.astype(float))
    if function is euclidean_sim:  # the reference's |a|^2 + |b|^2 - 2ab is 1e-8 where rows are equal
        scores = -torch.cdist(*wide, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    else:
        scores = getattr(reference, function.__name__)(*wide).numpy()
    listed: Found = []
    for row in scores.astype(np.float32):
        best = sorted(range(len(corpus)), key=lambda i: (-row[i], i))[:top_k]
        listed.append([{"corpus_id": i, "score": float(row[i])} for i in best])
    return listed


def ids(found: Found) -> list[list[int]]:
    return [[int(hit["corpus_id"]) for hit in hits] for hits in found]


def check(found: Found, expected: Found) -> None:
    assert ids(found) == ids(expected)
    for hits, others in zip(found, expected, strict=True):
        assert [list(hit) for hit in hits] == [["corpus_id", "score"]] * len(others)
        assert {type(hit["corpus_id"]) for hit in hits} <= {int}
        assert {type(hit["score"]) for hit in hits} <= {float}
        scores = [[hit["score"] for hit in row] for row in (hits, others)]
        assert_allclose(scores[0], scores[1], rtol=1e-6, atol=1e-6)


# ---- the same as theirs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("n", "m", "d", "top_k"),
    [(1, 1, 1, 1), (1, 1, 3, 9), (3, 7, 5, 9), (7, 7, 33, 7), (5, 999, 65, 9), (2, 300, 384, 250)],
)
def test_like_theirs(function: Any, n: int, m: int, d: int, top_k: int) -> None:
    queries, corpus = randoms(n, d), 3 * randoms(m, d, seed=1) * np.arange(1, m + 1)[:, None].astype(np.float32) ** -0.3
    found = semantic_search(queries, corpus, top_k=top_k, score_function=function)
    check(found, theirs(queries.astype(float), corpus.astype(float), top_k=top_k, score_function=function))
    check(found, everything(queries, corpus, function, top_k))


def test_its_defaults() -> None:
    queries, corpus = randoms(130, 16), randoms(400, 16, seed=1)
    found = semantic_search(queries, corpus)
    check(found, theirs(queries, corpus))
    assert {len(hits) for hits in found} == {10}


def test_nothing_to_search_for_or_in() -> None:
    rows = randoms(3, 5)
    nothing: Any
    for nothing in (rows[:0], []):
        assert semantic_search(rows, nothing) == theirs(rows, rows[:0]) == [[], [], []]
        assert semantic_search(nothing, rows) == theirs(rows[:0], rows) == []


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_query_and_rows_of_zeros(function: Any) -> None:
    queries, corpus = randoms(3, 5), randoms(200, 5, seed=1)
    queries[1] = 0
    corpus[10:90] = 0
    for top_k in (4, 199, 300):
        found = semantic_search(queries, corpus, top_k=top_k, score_function=function)
        check(found, everything(queries, corpus, function, top_k))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.int64])
def test_number_types(function: Any, dtype: Any) -> None:
    queries, corpus = (400 * randoms(3, 40)).astype(dtype), (400 * randoms(500, 40, seed=1)).astype(dtype)
    expected = everything(queries, corpus, function, 7)
    check(semantic_search(queries, corpus, top_k=7, score_function=function), expected)
    check(semantic_search(queries.astype(np.float32), corpus, top_k=7, score_function=function), expected)


def test_vectors_of_every_kind(tmp_path: Path) -> None:
    queries, corpus = randoms(3, 5), randoms(50, 5, seed=1)
    expected = semantic_search(queries, corpus, top_k=4)
    np.save(tmp_path / "corpus.npy", corpus)
    mapped = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    turned = np.asfortranarray(corpus)
    for one in (mapped, turned, corpus.tolist(), list(corpus), torch.from_numpy(corpus), corpus[::-1][::-1]):
        assert semantic_search(queries, one, top_k=4) == expected
    assert semantic_search(queries[0], corpus, top_k=4) == expected[:1]
    assert semantic_search(queries.tolist()[1], corpus, top_k=4) == expected[1:2]
    assert ids(semantic_search(queries, corpus[0])) == [[0]] * 3


@pytest.mark.parametrize("function", FUNCTIONS)
def test_sparse_vectors(function: Any) -> None:
    rng = np.random.default_rng(0)
    dense = [np.where(rng.random((rows, 90)) < 0.2, rng.standard_normal((rows, 90)), 0) for rows in (5, 300)]
    queries, corpus = (SparseVectors.from_scipy(sparse.csr_array(rows.astype(np.float32))) for rows in dense)
    tensors = [torch.from_numpy(rows.astype(np.float32)).to_sparse() for rows in dense]
    expected = theirs(*tensors, top_k=6, score_function=function)
    for one in (queries, tensors[0], dense[0].astype(np.float32)):
        check(semantic_search(one, corpus, top_k=6, score_function=function), expected)
    check(semantic_search(queries[2], corpus, top_k=6, score_function=function), expected[2:3])


# ---- defined in every case -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [*FUNCTIONS, lambda a, b: -np.abs(a @ b.T)])
def test_equal_scores_by_lower_id_whatever_the_chunks(function: Any) -> None:
    """Rows that stand several times; a matrix product rounds them differently here and there."""
    different = randoms(41, 37, seed=1)
    corpus = np.concatenate([different] * 30)[np.random.default_rng(2).permutation(30 * 41)]
    queries = np.concatenate([randoms(9, 37), different[:4]])
    for top_k in (3, 45):
        found = [
            semantic_search(queries, corpus, query_chunk, corpus_chunk, top_k, function)
            for query_chunk, corpus_chunk in ((100, 500000), (1, 1), (4, 77), (5, 100), (100, 1229), (7, 640))
        ]
        if function in FUNCTIONS:
            check(found[0], everything(queries, corpus, function, top_k))
            assert all(other == found[0] for other in found)
            assert semantic_search(queries[3], corpus, top_k=top_k, score_function=function) == found[0][3:4]
        for other in found:
            for hits in other:
                keys = [(-hit["score"], hit["corpus_id"]) for hit in hits]
                assert keys == sorted(keys)


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_a_corpus_that_gets_better_or_worse(order: slice) -> None:
    """Every row is a candidate, or none behind the first block."""
    angles = np.linspace(1.5, 0, 3000)[order]
    corpus = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    query = np.array([[1, 0]], np.float32)
    for chunk in (3000, 100, 7):
        check(semantic_search(query, corpus, 100, chunk, 20), everything(query, corpus, cos_sim, 20))


def test_rows_that_one_long_row_hides() -> None:
    """The bound of what a product rounds grows with the longest row of a block."""
    queries, corpus = randoms(4, 30), randoms(600, 30, seed=1)
    corpus[333] *= 1e7
    for function in (dot_score, euclidean_sim):
        for chunk in (600, 50):
            found = semantic_search(queries, corpus, 100, chunk, 5, function)
            check(found, everything(queries, corpus, function, 5))


def test_great_and_small_numbers() -> None:
    queries, corpus = randoms(3, 20), randoms(300, 20, seed=1)
    for scale in (1e-9, 1e15):
        for function in (cos_sim, dot_score, euclidean_sim):
            wide = (corpus.astype(float) * scale).astype(np.float32)
            found = semantic_search(queries, wide, top_k=5, score_function=function)
            assert ids(found) == ids(everything(queries, wide, function, 5))


def test_many_queries_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, corpus = randoms(300, 12), randoms(100, 12, seed=1)
    whole = semantic_search(queries, corpus)
    monkeypatch.setattr("trivec.util._search._GROUP_BYTES", 1)
    monkeypatch.setattr("trivec.util._search._MOST_QUERIES", 64)
    assert semantic_search(queries, corpus) == whole


# ---- functions of the caller's ---------------------------------------------------------------------------------------


def test_any_function() -> None:
    queries, corpus = randoms(30, 12), randoms(200, 12, seed=1)
    expected = semantic_search(queries, corpus)
    calls: list[tuple[int, int]] = []

    def cosine(a: Array, b: Array) -> Array:
        calls.append((len(a), len(b)))
        found: Array = util.cos_sim(a, b)
        return found

    check(semantic_search(queries, corpus, 8, 150, score_function=cosine), expected)
    assert sorted(set(calls)) == [(6, 50), (6, 150), (8, 50), (8, 150)]
    check(semantic_search(queries, corpus, score_function=reference.cos_sim), expected)
    check(semantic_search(queries, corpus, score_function=lambda a, b: util.cos_sim(a, b).tolist()), expected)
    whole = semantic_search(
        queries, corpus, top_k=3, score_function=lambda a, b: np.round(5 * (a @ b.T)).astype(np.int8)
    )
    assert {hit["score"] for hits in whole for hit in hits} <= {*map(float, range(-9, 9))}


def test_rows_that_a_function_rules_out() -> None:
    queries, corpus = randoms(2, 4), randoms(6, 4, seed=1)
    found = semantic_search(queries, corpus, score_function=lambda a, b: np.where(b[:, 0] > 0, a @ b.T, -np.inf))
    out = [i for i in range(6) if corpus[i, 0] <= 0]
    assert [row[-len(out) :] for row in ids(found)] == [out, out]
    assert {hit["score"] for hits in found for hit in hits[-len(out) :]} == {-np.inf}


def test_the_similarity_of_an_encoder(tiny_folder: Path) -> None:
    encoder = load(tiny_folder, similarity_fn_name="euclidean")
    vectors = encoder.encode(["a cat", "the dog ran", "a red boat"])
    check(
        semantic_search(vectors, vectors, score_function=encoder.similarity),
        semantic_search(vectors, vectors, score_function=euclidean_sim),
    )


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [cos_sim, dot_score, euclidean_sim])
def test_memory_is_bounded(function: Any) -> None:
    """Of 200,000 overlapping windows: as an array of their own they would be 205 MB."""
    numbers = randoms(200_255) * np.float32(100)
    corpus = np.lib.stride_tricks.sliding_window_view(numbers, 256)
    queries = np.ascontiguousarray(corpus[[17, 150_000]])
    tracemalloc.start()
    found = semantic_search(queries, corpus, score_function=function)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row[0] for row in ids(found)] == [17, 150_000]
    assert peak < 60e6


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [*FUNCTIONS, lambda a, b: a @ b.T])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(function: Any, value: float) -> None:
    queries, corpus = randoms(250, 3), randoms(250, 3, seed=1)
    for name, rows in (("query_embeddings", queries), ("corpus_embeddings", corpus)):
        before = rows[203, 1]
        rows[203, 1] = value
        for chunk in (1000, 60):
            with pytest.raises(InputError, match=f"^{name} hold {value} in row 203, expected finite numbers."):
                semantic_search(queries, corpus, 100, chunk, score_function=function)
        rows[203, 1] = before


ROWS = randoms(3, 4)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((ROWS, ROWS), {"top_k": 0}, "top_k must be a positive integer, got 0."),
        ((ROWS, ROWS), {"top_k": 2.5}, "top_k must be a positive integer, got 2.5."),
        ((ROWS, ROWS), {"query_chunk_size": 0}, "query_chunk_size must be a positive integer, got 0."),
        ((ROWS, ROWS), {"corpus_chunk_size": None}, "corpus_chunk_size must be a positive integer, got None."),
        (
            (ROWS, ROWS),
            {"score_function": "cosine"},
            "score_function must be a function of two blocks of vectors, got",
        ),
        (
            (ROWS, ROWS[:, :2]),
            {},
            "query_embeddings have 4 numbers a vector, corpus_embeddings have 2. Encode",
        ),
        ((["a question"], ROWS), {}, "query_embeddings must be numbers, got <U10. Encode texts first: encoder.encode("),
        ((ROWS, ROWS[None]), {}, "corpus_embeddings must be (N, D) or (D,), got an array of shape (1, 3, 4)."),
        ((ROWS, ROWS), {"score_function": lambda a, _: a}, "of 3 and 3 rows it gave float32 of shape (3, 4)."),
        (
            (ROWS, ROWS),
            {"score_function": lambda *_: np.full((3, 3), np.nan)},
            "gave nan for query 0 and row 0 of the",
        ),
    ],
)
def test_bad_arguments(arguments: tuple[Any, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        semantic_search(*arguments, **options)
    assert message in str(caught.value)


def test_a_function_that_gives_nan_for_one_pair() -> None:
    queries, corpus = randoms(30, 4), randoms(90, 4, seed=1)

    def broken(a: Array, b: Array) -> Array:
        scores: Array = a @ b.T
        scores[(a == queries[17]).all(1)[:, None] & (b == corpus[77]).all(1)] = np.nan
        return scores

    with pytest.raises(InputError) as caught:
        semantic_search(queries, corpus, 7, 20, score_function=broken)
    assert str(caught.value) == "score_function gave nan for query 17 and row 77 of the corpus."
