"""trivec.util's similarities, against sentence_transformers.util."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sentence_transformers import util as reference

import trivec
from trivec import HybridVectors, InputError, MultiVectors, SparseVector, SparseVectors, util
from trivec._vectors.similarity import similarity, similarity_pairwise

Array = npt.NDArray[Any]
pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch, of its own sparse tensors
ALL_PAIRS = ("cos_sim", "dot_score", "euclidean_sim", "manhattan_sim")
PAIRWISE = tuple(f"pairwise_{name}" for name in ALL_PAIRS)
SHORT = {"cos_sim": "cosine", "dot_score": "dot", "euclidean_sim": "euclidean", "manhattan_sim": "manhattan"}
SHAPES = [(1, 1, 1), (3, 5, 7), (17, 33, 65), (30, 27, 384), (0, 4, 5), (4, 0, 5), (0, 0, 3)]  # (N, M, D)


def randoms(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Of about length 1."""
    found = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(found / np.sqrt(shape[-1]), dtype=np.float32)


def theirs(name: str, a: Any, b: Any) -> Array:
    found: torch.Tensor = getattr(reference, name)(a, b)
    return found.numpy()


def ours(name: str, a: Any, b: Any) -> Array:
    """As an array; what comes is a tensor where a side is one, or a list of them, and an array otherwise."""
    found: Any = getattr(util, name)(a, b)
    firsts = [side[0] if isinstance(side, list | tuple) and side else side for side in (a, b)]
    tensor = any(isinstance(first, torch.Tensor) for first in firsts)
    assert isinstance(found, torch.Tensor) == tensor
    made: Array = found.numpy() if tensor else found
    return made


def check(found: Array, expected: Array, *, dtype: Any = np.float32, rtol: float = 1e-6) -> None:
    assert found.shape == expected.shape
    assert found.dtype == dtype
    assert_allclose(found, expected, rtol=rtol, atol=1e-6)


def terms(rows: int, dim: int, seed: int = 0) -> Array:
    """Mostly zeros; row 1 has none else."""
    rng = np.random.default_rng(seed)
    found = np.where(rng.random((rows, dim)) < 0.2, rng.standard_normal((rows, dim)), 0).astype(np.float32)
    found[min(1, rows - 1)] = 0
    return found


def as_tensor(rows: Array) -> torch.Tensor:
    return torch.from_numpy(rows).to_sparse()


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_PAIRS)
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_all_pairs(name: str, n: int, m: int, d: int) -> None:
    a, b = randoms(n, d), randoms(m, d, seed=1)
    check(ours(name, a, b), theirs(name, a, b), rtol=5e-6)  # distances of 20 and more: float32's own rounding
    wide = a.astype(np.float64), b.astype(np.float64)
    check(ours(name, a, b), theirs(name, *wide))
    check(ours(name, wide[0], b), theirs(name, *wide), dtype=float)


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (5, 7), (33, 65), (30, 384), (0, 5)])
def test_side_by_side(name: str, n: int, d: int) -> None:
    a, b = randoms(n, d), randoms(n, d, seed=1)
    check(ours(name, a, b), theirs(name, a, b))
    check(ours(name, a.astype(np.float64), b), theirs(name, a.astype(np.float64), b.astype(np.float64)), dtype=float)
    if n:
        check(ours(name, a, b[0]), theirs(name, a, b[0]))
        check(ours(name, a[:1], b), theirs(name, a[:1], b))
        check(ours(name, a[0], b[0]), theirs(name, a[0], b[0]))
        assert ours(name, a[0], b[0]).shape == ()


@pytest.mark.parametrize("name", ALL_PAIRS + PAIRWISE)
def test_zeros_equal_rows_and_short_vectors(name: str) -> None:
    a = randoms(6, 9)
    a[1] = 0
    a[2] = 1e-18  # below the 1e-12 that norms are raised to
    a[3] = 1e-8
    b = a.copy()
    b[5] += 1e-4
    expected = theirs(name, a.astype(np.float64), b.astype(np.float64))
    check(ours(name, a, b), expected)
    if "cos" in name or "dot" in name:
        check(ours(name, a, b), theirs(name, a, b))


def test_rows_that_are_close_keep_their_distance() -> None:
    """|a|^2 + |b|^2 - 2ab in float32, which the reference takes for more than 25 rows, gives 0 or 1e-3 here."""
    a = randoms(40, 384) + 3
    b = a + np.float32(1e-5)
    exact = -np.sqrt(np.square(a.astype(np.float64) - b).sum(1))
    assert_allclose(np.diag(util.euclidean_sim(a, b)), exact, rtol=1e-6)
    assert_allclose(util.pairwise_euclidean_sim(a, b), exact, rtol=1e-6)


@pytest.mark.parametrize("norm", [1.0, 25.0, 4000.0])
def test_sparse_rows_that_are_close_keep_their_distance(norm: float) -> None:
    """|a|^2 + |b|^2 - 2ab of products and norms in float32 puts a row of norm 25 0.01 away from itself."""
    rows = np.tile(terms(3, 700, seed=3)[:1], (9, 1))
    rows *= np.float32(norm) / np.linalg.norm(rows)
    rows[np.arange(9), np.flatnonzero(rows[0])[:9]] *= 1 + np.float32(1e-4) * np.arange(9, dtype=np.float32)
    wide = rows.astype(np.float64)
    exact = -np.sqrt(np.square(wide[:, None] - wide).sum(-1))
    vectors = SparseVectors.from_scipy(sparse.csr_array(rows))
    for found in (util.euclidean_sim(vectors, vectors), similarity("euclidean", vectors, vectors)):
        assert_array_equal(np.diag(found), 0)
        assert_allclose(found, exact, rtol=1e-4, atol=norm * 1e-8)
    hits = util.semantic_search(vectors, vectors, top_k=9, score_function=util.euclidean_sim)
    best = [[hit["corpus_id"] for hit in row] for row in hits]
    assert best == np.argsort(-exact, axis=1, kind="stable").tolist()


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_more_rows_than_a_block_has(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = randoms(50, 31), randoms(70, 31, seed=1)
    whole = ours(name, a, b), ours(f"pairwise_{name}", a, b[:50])
    monkeypatch.setattr("trivec._vectors.rows.BLOCK_BYTES", 1000)
    monkeypatch.setattr("trivec._vectors.scores._CACHED", 100)
    assert_allclose(ours(name, a, b), whole[0], rtol=1e-6, atol=1e-7)
    assert_array_equal(ours(f"pairwise_{name}", a, b[:50]), whole[1])


# ---- what vectors may be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_PAIRS + PAIRWISE)
@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint8, np.int32, np.int64, bool])
def test_number_types(name: str, dtype: Any) -> None:
    a, b = (np.abs(20 * randoms(7, 33, seed=seed)).astype(dtype) for seed in (0, 1))
    expected = theirs(name, a.astype(np.float64), b.astype(np.float64))
    check(ours(name, a, b), expected, dtype=np.float64 if dtype in (np.int32, np.int64) else np.float32)
    if dtype is np.float16:
        check(ours(name, a, b), theirs(name, a, b))


def test_products_of_int8_do_not_wrap_around() -> None:
    a = np.full((2, 300), 127, dtype=np.int8)
    assert util.dot_score(a, a).tolist() == [[300 * 127**2] * 2] * 2


@pytest.mark.parametrize("name", ALL_PAIRS + PAIRWISE)
def test_lists_tensors_and_single_vectors(name: str) -> None:
    a, b = randoms(4, 9), randoms(4, 9, seed=1)
    expected = theirs(name, a, b)
    graph = torch.from_numpy(a).requires_grad_()
    for one in (a.tolist(), [*a], tuple(a), [*torch.from_numpy(a)], torch.from_numpy(a), graph, a[:, ::-1][:, ::-1]):
        check(ours(name, one, b), expected)
    half = torch.from_numpy(a).to(torch.bfloat16)
    check(ours(name, half, b), theirs(name, half, torch.from_numpy(b)))
    if name in ALL_PAIRS:
        check(ours(name, a[0], b), theirs(name, a[0], b))
        check(ours(name, a, b[0].tolist()), theirs(name, a, b[0]))


def test_no_vectors() -> None:
    b = randoms(4, 9)
    for name in ALL_PAIRS:
        assert ours(name, [], b).shape == (0, 4)
        assert ours(name, b, []).shape == (4, 0)


@pytest.mark.parametrize("name", ALL_PAIRS + PAIRWISE)
def test_sparse_vectors(name: str) -> None:
    dense = terms(70, 50), terms(70, 50, seed=1)
    a, b = (SparseVectors.from_scipy(sparse.csr_array(rows)) for rows in dense)
    expected = theirs(name, *map(as_tensor, dense))
    check(ours(name, a, b), expected)
    for one in (dense[0], sparse.csr_matrix(dense[0]), as_tensor(dense[0]), as_tensor(dense[0]).to_sparse_csr(), [*a]):
        check(ours(name, one, b), expected)
        check(ours(name, one, dense[1]), expected)
    check(ours(name, a, list(as_tensor(dense[1]))), expected)
    if name in ALL_PAIRS:
        check(ours(name, a[0], b), expected[:1])
        check(ours(name, as_tensor(dense[0])[0], b), expected[:1])
    else:
        check(ours(name, a[0], b[0]), expected[0])
        check(ours(name, a[:1], b), theirs(name, as_tensor(dense[0][[0] * 70]), as_tensor(dense[1])))


# ---- the similarity of encoders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_what_sparse_encoders_call_similarity(name: str) -> None:
    dense = terms(70, 50), terms(70, 50, seed=1)
    dense[0][3] *= 1e-8  # its product with as short a row is far below 1e-12
    dense[1][4] *= 1e-8
    a, b = (SparseVectors.from_scipy(sparse.csr_array(rows)) for rows in dense)
    check(similarity(SHORT[name], a, b), theirs(name, *map(as_tensor, dense)))
    check(similarity(SHORT[name], a[:0], b), np.zeros((0, 70)))
    check(similarity_pairwise(SHORT[name], a, b), theirs(f"pairwise_{name}", *map(as_tensor, dense)))


# ---- normalize and truncate ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (9,), (0, 5), (1, 7), (5, 7), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_normalize(shape: tuple[int, ...], dtype: Any) -> None:
    rows = randoms(*shape).astype(dtype)
    rows[..., :1] *= rows[..., :1] > 0
    rows[:1] *= len(shape) == 1  # a row of zeros
    found, expected = util.normalize_embeddings(rows), reference.normalize_embeddings(torch.from_numpy(rows)).numpy()
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    expected = np.nan_to_num(expected)  # 0 / 0, where float16 has no 1e-12
    assert_allclose(found, expected, atol=1e-3 if dtype is np.float16 else 1e-6)
    assert_array_equal(util.normalize_embeddings(torch.from_numpy(rows)), found)


def test_normalize_integers_lists_and_sparse_vectors() -> None:
    assert_allclose(util.normalize_embeddings(np.array([[3, 4], [0, 0]])), np.array([[0.6, 0.8], [0, 0]]))
    assert util.normalize_embeddings(np.array([[3, 4]], np.int8)).dtype == np.float32
    assert_allclose(util.normalize_embeddings([3.0, 4.0]), [0.6, 0.8], rtol=1e-7)
    dense = terms(9, 20)
    dense[3] *= 1e-14  # below 1e-12, which does not count where vectors are sparse
    rows = SparseVectors.from_scipy(sparse.csr_array(dense))
    expected = reference.normalize_embeddings(as_tensor(dense)).to_dense().numpy()
    assert_allclose(util.normalize_embeddings(rows).to_dense(), expected, atol=1e-6)
    assert isinstance(util.normalize_embeddings(rows[0]), SparseVector)


def test_truncate() -> None:
    for rows in (randoms(3, 7), randoms(7), randoms(2, 3, 7), randoms(0, 7)):
        for dim in (None, 1, 5, 7, 9):
            assert_array_equal(util.truncate_embeddings(rows, dim), reference.truncate_embeddings(rows, dim))
    rows = randoms(3, 7)
    assert util.truncate_embeddings(rows, 2).base is rows
    assert_array_equal(util.truncate_embeddings(torch.from_numpy(rows), 2), rows[:, :2])
    assert_array_equal(util.truncate_embeddings(rows.tolist(), 2), rows[:, :2])


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_PAIRS + PAIRWISE)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numbers_that_are_not_finite(name: str, value: float, dtype: Any) -> None:
    good, bad = randoms(5, 3).astype(dtype), randoms(5, 3).astype(dtype)
    bad[2, 1] = value
    for one, other, side in ((bad, good, "a"), (good, bad, "b")):
        with pytest.raises(InputError) as caught:
            ours(name, one, other)
        assert str(caught.value) == (
            f"{side} hold {value} in row 2, expected finite numbers. All such rows: "
            "np.flatnonzero(~np.isfinite(x).all(1))"
        )


def test_numbers_whose_squares_are_not_finite() -> None:
    rows = randoms(5, 3)
    rows[2, 1] = 1e20
    for name in ("cos_sim", "dot_score", "pairwise_dot_score", "pairwise_cos_sim"):
        with pytest.raises(InputError, match=r"a hold 1e\+20 in row 2, whose square is too great for float32. Type: x"):
            ours(name, rows, rows)
    wide = rows.astype(np.float64)
    check(util.cos_sim(wide, wide), theirs("cos_sim", wide, wide), dtype=float)
    with pytest.raises(InputError, match=r"in row 0, whose square is too great for float64. Scale the vectors down."):
        util.dot_score([np.array([1e200])], [1.0])


@pytest.mark.parametrize("size", [-1, 2], ids=["lists", "lists of one size"])
def test_columns_of_pyarrow(size: int) -> None:
    """Those of pandas, polars, DuckDB and LanceDB: tests/runtime/frameworks/test_tables.py."""
    import pyarrow as pa

    rows = np.array([[1, 2], [3, -4], [0, 1]], np.float32)
    column = pa.array(rows.tolist(), pa.list_(pa.float32(), size))
    for found in (column, pa.chunked_array([column[:1], column[1:]])):
        np.testing.assert_array_equal(util.dot_score(found, rows), rows @ rows.T)
        np.testing.assert_array_equal(util.dot_score(found[1], rows), rows[1:2] @ rows.T)
    gap = pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), size))
    with pytest.raises(InputError, match="a hold no vector in row 1, but None"):
        util.dot_score(gap, rows)


HYBRID = HybridVectors(np.zeros((1, 2), np.float32), None, None)
MULTI = MultiVectors.from_arrays([np.ones((1, 2), np.float32)])


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (["a text"], "a must be numbers, got <U6. Encode texts first: encoder.encode(texts)"),
        (None, "a must be numbers, got object. Encode texts first"),
        ([[1.0, 2.0], [1.0]], "a must be vectors of one width, got a list of widths [1, 2]."),
        ([np.ones(2), np.ones(3)], "a must be vectors of one width, got a list of widths [2, 3]."),
        ([np.ones(2), None], "a hold no vector in row 1, but None. Leave such rows out first."),
        ([[1.0, 2.0], 3.0], "a hold no vector in row 1, but 3.0. Leave such rows out first."),
        (np.ones((2, 2, 2)), "a must be (N, D) or (D,), got an array of shape (2, 2, 2)."),
        (3.0, "a must be (N, D) or (D,), got an array of shape ()."),
        (np.ones((2, 3)), "a have 3 numbers a vector, b have 2. Encode both with one model, and"),
        (SparseVectors.empty(2, 5), "a have 5 numbers a vector, b have 2."),
        (HYBRID, "a must be one vector a row, got HybridVectors. Take a part: a.dense or .sparse"),
        (MULTI, "a must be one vector a row, got MultiVectors."),
    ],
)
@pytest.mark.parametrize("name", ["cos_sim", "pairwise_cos_sim"])
def test_no_such_vectors(name: str, vectors: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        ours(name, vectors, np.ones((2, 2), np.float32))
    assert message in str(caught.value)


def test_unequal_numbers_of_rows_side_by_side() -> None:
    with pytest.raises(InputError) as caught:
        util.pairwise_euclidean_sim(randoms(3, 2), randoms(5, 2))
    assert str(caught.value) == (
        "row i is compared with row i, but a has 3 rows and b has 5. For all pairs type: euclidean_sim(a, b)"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: util.truncate_embeddings(randoms(2, 3), 0), "truncate_dim must be a positive integer, got 0."),
        (lambda: util.truncate_embeddings(randoms(2, 3), True), "truncate_dim must be a positive integer, got True."),
        (
            lambda: util.truncate_embeddings(SparseVectors.empty(1, 3), 2),
            "embeddings must be dense vectors, got Sp",
        ),
        (lambda: util.truncate_embeddings(np.float32(3), 2), "embeddings must be numbers, (N, D) or (D,), got float32"),
        (
            lambda: util.normalize_embeddings(np.array([[1.0], [np.nan]])),
            "embeddings hold nan in row 1, expected",
        ),
        (lambda: util.normalize_embeddings(["text"]), "embeddings must be numbers, got <U4."),
    ],
)
def test_no_such_dim_or_vectors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value)


# ---- the module ------------------------------------------------------------------------------------------------------


def test_names_and_what_the_import_brings() -> None:
    assert util.__all__ == sorted(util.__all__)
    assert {getattr(util, name).__module__ for name in util.__all__} == {"trivec", "trivec.util"}
    assert set(util.__all__) - {"rerank"} <= set(reference.__all__)  # a second stage, which it leaves to its readers
    code = "import trivec.util, sys; print({'torch', 'scipy', 'onnxruntime', 'sklearn'} & set(sys.modules))"
    path = {"PYTHONPATH": str(Path(trivec.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
