"""MultiVectors against FlagEmbedding's and sentence-transformers' MaxSim, and against a loop over documents."""

import copy
import dataclasses
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import util
from tests.support.flag_embedding import FlagEmbedding

from trivec import InputError
from trivec._vectors import multi as multi_module
from trivec._vectors.arrays import Floats
from trivec._vectors.multi import MultiVectors

SIZES = [((1,), (1,), 1), ((3,), (5, 2), 7), ((2, 9, 1, 4), (3, 1, 17, 8, 2), 33), ((40, 3), (1,) * 30, 5)]
EMPTY = [
    ((0,), (0,), 3),
    ((), (4, 1), 3),
    ((4, 1), (), 3),
    ((0, 2, 0, 0, 3, 0), (0, 0, 4, 0, 1, 0), 3),
    ((2,), (0,), 3),
]


def multi(lengths: tuple[int, ...], dim: int, seed: int = 0) -> MultiVectors:
    """Vectors of length 1, as ColBERT's are."""
    vectors = np.random.default_rng(seed).standard_normal((sum(lengths), dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return MultiVectors(vectors, np.cumsum([0, *lengths]))


def loop(queries: MultiVectors, documents: MultiVectors, reduce: str) -> Any:
    """The definition, in float64; 0 where there is nothing to compare."""
    result = np.zeros((len(queries), len(documents)))
    for i, query in enumerate(queries):
        for j, document in enumerate(documents):
            if len(query) and len(document):
                best = (query.astype(np.float64) @ document.astype(np.float64).T).max(1)
                result[i, j] = best.mean() if reduce == "mean" else best.sum()
    return result


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks in which a query is cut, and a document comes alone."""
    if request.param == "many blocks":
        monkeypatch.setattr(multi_module, "_BLOCK", 16)
        monkeypatch.setattr(multi_module, "_BLOCK_TOKENS", 5)


# ---- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("queries", "documents", "dim"), [*SIZES, *EMPTY])
def test_maxsim_by_its_definition(queries: tuple[int, ...], documents: tuple[int, ...], dim: int) -> None:
    a, b = multi(queries, dim), multi(documents, dim, seed=1)
    np.testing.assert_array_equal(a.maxsim(b), a.maxsim(b, reduce="mean"))
    for reduce, tolerance in (("mean", 1e-6), ("sum", 1e-5)):
        found = a.maxsim(b, reduce)  # type: ignore[arg-type]
        assert found.shape == (len(queries), len(documents))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, loop(a, b, reduce), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("queries", "documents", "dim"), SIZES)
def test_maxsim_of_sentence_transformers(queries: tuple[int, ...], documents: tuple[int, ...], dim: int) -> None:
    a, b = multi(queries, dim), multi(documents, dim, seed=1)
    np.testing.assert_allclose(a.maxsim(b, "sum"), util.maxsim(list(a), list(b)).numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(a.maxsim(b, "mean"), util.mean_maxsim(list(a), list(b)).numpy(), rtol=0, atol=1e-6)
    pairs = a[[0] * len(b)]
    expected = util.maxsim_pairwise(list(pairs), list(b)).numpy()
    np.testing.assert_allclose(pairs.maxsim_pairs(b, "sum"), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("queries", "documents", "dim"), SIZES)
def test_colbert_score_of_flag_embedding(
    queries: tuple[int, ...], documents: tuple[int, ...], dim: int, flag_embedding: "FlagEmbedding"
) -> None:
    a, b = multi(queries, dim), multi(documents, dim, seed=1)
    expected = flag_embedding.ask("colbert_scores", queries=list(a), passages=list(b))
    np.testing.assert_allclose(a.maxsim(b), expected, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("queries", "documents"), [((), ()), ((3, 0, 40, 2), (5, 7, 1, 0)), ((1,), (9,))])
def test_maxsim_of_pairs(queries: tuple[int, ...], documents: tuple[int, ...]) -> None:
    a, b = multi(queries, 17), multi(documents, 17, seed=1)
    for reduce, tolerance in (("mean", 1e-6), ("sum", 1e-5)):
        found = a.maxsim_pairs(b, reduce)  # type: ignore[arg-type]
        assert found.shape == (len(queries),)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.diagonal(loop(a, b, reduce)), rtol=0, atol=tolerance)


def test_negative_similarities_are_not_raised_to_0() -> None:
    a = MultiVectors.from_arrays([[[1.0, 0.0]], [[0.0, 2.0], [1.0, 0.0]]])
    b = MultiVectors.from_arrays([[[-3.0, 0.0], [-1.0, -1.0]], np.zeros((0, 2))])
    assert a.maxsim(b).tolist() == [[-1.0, 0.0], [-0.5, 0.0]]


@pytest.mark.parametrize("documents", [(3000, 2000, 3000), (4, *(0,) * 20000)], ids=["long", "empty"])
def test_maxsim_stays_within_its_blocks(documents: tuple[int, ...]) -> None:
    a, b = multi((3000,), 4), multi(documents, 4, seed=1)  # as one block: 96 and 240 MB
    tracemalloc.start()
    found = a.maxsim(b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(found, loop(a, b, "mean"), rtol=0, atol=1e-6)
    assert peak < 15e6


def test_the_sum_over_a_long_query_is_not_rounded_at_each_step() -> None:
    a = MultiVectors.from_arrays([np.full((20000, 1), 0.1)])
    b = MultiVectors.from_arrays([np.ones((1, 1))] * 3)
    np.testing.assert_allclose(a.maxsim(b, "sum"), [[20000 * float(np.float32(0.1))] * 3], rtol=2e-7)
    np.testing.assert_allclose(a.maxsim(b), [[0.1] * 3], rtol=2e-7)


def test_what_cannot_be_compared() -> None:
    a, b = multi((2, 3), 5), multi((2, 3), 6)
    for score in (a.maxsim, a.maxsim_pairs):
        with pytest.raises(InputError, match="vectors of dim 5 and 6 cannot be compared"):
            score(b)
        with pytest.raises(InputError, match="expected MultiVectors, got ndarray"):
            score(b.vectors)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="reduce must be 'mean' or 'sum', got 'max'"):
            score(a, reduce="max")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"got 2 queries and 1 documents.* type: queries.maxsim\(documents\)"):
        a.maxsim_pairs(a[:1])


# ---- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "index",
    [slice(1, 3), slice(-2, None), slice(3, 1), slice(None, None, -2), [], [2, 0, -1, 2], np.arange(5) > 2],
    ids=str,
)
def test_indexing_as_a_list(index: Any) -> None:
    vectors = multi((2, 0, 5, 1, 3), 7)
    found = vectors[index]
    expected = [vectors[row] for row in np.arange(5)[index].tolist()]
    assert found.vectors.dtype == np.float32
    assert found.offsets.dtype == np.int64
    assert len(found) == len(expected)
    for mine, its in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_one_text_is_a_view() -> None:
    vectors = multi((2, 0, 5, 1, 3), 7)
    expected: list[tuple[int | np.integer, int, int]] = [
        (0, 0, 2),
        (1, 2, 2),
        (2, 2, 7),
        (-1, 8, 11),
        (np.int64(-2), 7, 8),
    ]
    for row, start, stop in expected:
        np.testing.assert_array_equal(vectors[row], vectors.vectors[start:stop])
    assert np.shares_memory(vectors[2], vectors.vectors)
    assert np.shares_memory(vectors[1:4].vectors, vectors.vectors)
    wrong: Any
    for wrong in (5, -6, [5], np.ones(4, dtype=bool)):
        with pytest.raises(IndexError):
            vectors[wrong]
    with pytest.raises(InputError, match="expected a row, a slice"):
        vectors[[[0]]]  # type: ignore[list-item]


def test_from_arrays_and_concatenate() -> None:
    arrays = [np.arange(6.0).reshape(2, 3), np.zeros((0, 3)), np.ones((1, 3), dtype=np.float16)]
    vectors = MultiVectors.from_arrays(iter(arrays))
    assert (len(vectors), vectors.dim, vectors.offsets.tolist()) == (3, 3, [0, 2, 2, 3])
    for mine, its in zip(vectors, arrays, strict=True):
        np.testing.assert_array_equal(mine, its.astype(np.float32))
    again = MultiVectors.concatenate(vectors[row : row + 1] for row in (0, 1, 2))
    assert again.equals(vectors)
    assert MultiVectors.concatenate([vectors, vectors[:0], vectors]).equals(vectors[[0, 1, 2, 0, 1, 2]])
    for wrong in ([], [np.ones(3)], [np.ones((1, 3)), np.ones((1, 4))]):
        with pytest.raises(InputError, match=r"expected \(t, D\) arrays of one D, got (no arrays|shapes)"):
            MultiVectors.from_arrays(wrong)
    with pytest.raises(InputError, match="expected parts of one dim, got no parts"):
        MultiVectors.concatenate([])
    with pytest.raises(InputError, match="got parts of dim 3, 7"):
        MultiVectors.concatenate([vectors, multi((1,), 7)])


@pytest.mark.parametrize(
    ("vectors", "offsets", "message"),
    [
        (np.ones(3), [0, 3], r"vectors must be \(T, D\) numbers, got shape \(3,\)"),
        (np.ones((3, 0)), [0, 3], r"vectors must be \(T, D\) numbers, got shape \(3, 0\)"),
        (np.ones((3, 2), dtype=complex), [0, 3], "numbers, got shape .* of complex128"),
        ([["a"]], [0, 1], "numbers, got shape .* of <U1"),
        ([[1.0, np.nan]], [0, 1], "the vectors hold NaN or infinity"),
        ([[1.0, -1e39]], [0, 1], "the vectors hold NaN or infinity"),
        (np.ones((3, 2)), [0, 2], "offsets must go from 0 to 3, the number of entries, got 0 to 2"),
        (np.ones((3, 2)), [0, 2, 1, 3], "offsets must never fall: row 1 goes from 2 to 1"),
        (np.ones((3, 2)), [0.0, 3.0], r"offsets must be \(N \+ 1,\) integers"),
    ],
)
def test_what_is_no_multi_vectors_is_refused(vectors: Any, offsets: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MultiVectors(vectors, offsets)


# ---- files and values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(), (0,), (2, 0, 5, 1)])
def test_save_and_load(lengths: tuple[int, ...], tmp_path: Path) -> None:
    vectors = multi(lengths, 7)
    vectors.save(tmp_path / "it")
    found = MultiVectors.load(str(tmp_path / "it"))
    assert found.vectors.dtype == np.float32
    assert found.offsets.dtype == np.int64
    assert found.equals(vectors)


def test_what_is_no_file_of_multi_vectors(tmp_path: Path) -> None:
    path = tmp_path / "it.npz"
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"is no readable .npz file.* Write one with MultiVectors.save\(path\)"):
        MultiVectors.load(path)
    np.savez(path, vectors=np.ones((2, 3)))
    with pytest.raises(InputError, match="has no offsets, only vectors"):
        MultiVectors.load(path)
    np.savez(path, vectors=np.ones((2, 3)), offsets=[0, 3])
    with pytest.raises(InputError, match=r"it\.npz: offsets must go from 0 to 2"):
        MultiVectors.load(path)
    with pytest.raises(FileNotFoundError):
        MultiVectors.load(tmp_path / "absent.npz")


def test_equality_copies_pickles_and_what_people_see() -> None:
    vectors = multi((2, 0, 5), 7)
    for again in (copy.deepcopy(vectors), pickle.loads(pickle.dumps(vectors)), vectors[:]):
        assert again.equals(vectors)
    other: Floats = vectors.vectors + np.float32(1)
    assert not vectors.equals(MultiVectors(other, vectors.offsets))
    assert not vectors.equals(MultiVectors(vectors.vectors, np.array([0, 2, 3, 7])))
    with pytest.raises(dataclasses.FrozenInstanceError):
        vectors.vectors = other  # type: ignore[misc]
    assert repr(vectors) == "MultiVectors(3 texts, dim=7, 2.3 vectors a text)"
    assert repr(vectors[:0]) == "MultiVectors(0 texts, dim=7, 0.0 vectors a text)"
