"""SparseVector and SparseVectors against scipy.sparse, dense numpy in float64 and plain dictionaries."""

import copy
import dataclasses
import json
import pickle
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as scipy_sparse
from tests.support.flag_embedding import FlagEmbedding

from trivec import InputError, MissingExtraError
from trivec._vectors import csr
from trivec._vectors.arrays import Floats
from trivec._vectors.sparse import SparseVector, SparseVectors

SIZES = [(0, 1), (0, 7), (1, 1), (3, 1), (1, 9), (5, 33), (17, 30522), (257, 65)]  # (N, dim)


def randoms(rows: int, dim: int, seed: int = 0, filled: float = 0.2) -> Floats:
    """Dense rows with about so many weights above and below 0; each third row has none."""
    rng = np.random.default_rng(seed)
    dense = rng.standard_normal((rows, dim)).astype(np.float32)
    dense[rng.random((rows, dim)) >= filled] = 0
    dense[1::3] = 0
    return dense


def sparse(dense: Floats) -> SparseVectors:
    """By the definition of compressed sparse rows."""
    rows, indices = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum((dense != 0).sum(1))]).astype(np.int64)
    return SparseVectors(indptr, indices.astype(np.int32), dense[rows, indices], dense.shape[1])


def check_types(vectors: SparseVectors) -> None:
    found = [array.dtype for array in (vectors.indptr, vectors.indices, vectors.values)]
    assert found == [np.int64, np.int32, np.float32]
    assert type(vectors.dim) is int


# ---- forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_to_and_from_dense_scipy_and_dictionaries(size: tuple[int, int]) -> None:
    dense = randoms(*size)
    vectors = sparse(dense)
    check_types(vectors)
    assert len(vectors) == size[0]
    assert vectors.shape == size
    assert vectors.nnz == np.count_nonzero(dense)
    np.testing.assert_array_equal(vectors.to_dense(), dense)
    matrix = vectors.to_scipy()
    assert type(matrix) is scipy_sparse.csr_array
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix.toarray(), dense)
    dicts = vectors.to_dicts()
    assert dicts == [{int(i): float(row[i]) for i in np.flatnonzero(row)} for row in dense]
    for other in (SparseVectors.from_scipy(matrix), SparseVectors.from_dicts(dicts, size[1])):
        check_types(other)
        assert other.equals(vectors)


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "lil", "dok", "bsr"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_from_every_format_of_scipy(layout: str, kind: str) -> None:
    dense = randoms(5, 33)
    matrix = getattr(scipy_sparse, f"{layout}_{kind}")(dense.astype(np.float64))
    vectors = SparseVectors.from_scipy(matrix)
    check_types(vectors)
    assert vectors.equals(sparse(dense))


def test_scipy_rows_out_of_order_and_with_repeats_are_sorted_and_added_up() -> None:
    indptr, indices, data = [0, 0, 4, 4, 6, 6], [3, 1, 3, 0, 4, 2], [1.0, 2, 4, 8, 16, 32]
    matrix = scipy_sparse.csr_matrix((data, indices, indptr), shape=(5, 5))
    vectors = SparseVectors.from_scipy(matrix)
    np.testing.assert_array_equal(vectors.to_dense(), matrix.toarray())
    assert vectors.to_dicts() == [{}, {0: 8, 1: 2, 3: 5}, {}, {2: 32, 4: 16}, {}]
    assert matrix.indices.tolist() == indices  # the caller's matrix is as it was


def test_json_and_flag_embedding_write_ids_as_strings() -> None:
    vectors = sparse(randoms(5, 33))
    loaded = json.loads(json.dumps(vectors.to_dicts()))
    assert SparseVectors.from_dicts(loaded, 33).equals(vectors)
    scalars = [{str(i): np.float32(w) for i, w in row.items()} for row in vectors.to_dicts()]
    assert SparseVectors.from_dicts(iter(scalars), 33).equals(vectors)
    assert SparseVectors.from_dicts([{np.int64(4): 1, "2": 2.5, 3: np.float16(0.5)}], 5)[0].to_dict() == {
        2: 2.5,
        3: 0.5,
        4: 1.0,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({7: 1.0}, "row 1 has the id 7, expected 0 to 6"),
        ({-1: 1.0}, "row 1 has the id -1, expected 0 to 6"),
        ({2**70: 1.0}, "expected 0 to 6"),
        ({"-1": 1.0}, "row 1 has the id '-1', expected a token id"),
        ({"cat": 1.0}, "row 1 has the id 'cat', expected a token id"),
        ({1.0: 1.0}, "row 1 has the id 1.0, expected a token id"),
        ({True: 1.0}, "row 1 has the id True, expected a token id"),
        ({None: 1.0}, "row 1 has the id None, expected a token id"),
        ({3: 1.0, "3": 2.0}, "row 1 has the id 3 twice"),
        ({3: "1.0"}, "row 1 must have numbers as weights, got '1.0'"),
        ({3: None}, "row 1 must have numbers as weights, got None"),
        ({3: True}, "row 1 must have numbers as weights, got True"),
        ({3: [1.0, 2.0]}, "row 1 must have numbers as weights"),
        ({3: 1j}, "row 1 must have numbers as weights"),
        ({2: 1.0, 3: float("nan")}, "row 1 has the weight nan for id 3, expected finite"),
        ({3: float("inf"), 2: 1.0}, "row 1 has the weight inf for id 3, expected finite"),
        ({3: 1e39}, "row 1 has the weight inf for id 3, expected finite"),
        ([(3, 1.0)], r"row 1 must be a dictionary \{id: weight\}, got list"),
    ],
)
def test_bad_dictionaries_are_refused_by_row(row: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SparseVectors.from_dicts([{1: 1.0}, row], 7)


def test_scipy_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(MissingExtraError, match=r"to_scipy needs scipy.*Type: pip install scipy"):
        sparse(randoms(2, 3)).to_scipy()


def test_what_is_no_sparse_matrix_is_refused() -> None:
    for wrong in (np.ones((2, 3)), [[1]], scipy_sparse.coo_array(np.ones(3))):
        with pytest.raises(InputError, match=r"expected a two-dimensional scipy.sparse matrix, got (ndarray|list|coo)"):
            SparseVectors.from_scipy(wrong)


def test_tokens_come_heaviest_first_and_equal_ones_by_lower_id() -> None:
    vectors = SparseVectors.from_dicts([{9: 1.0, 2: 1.0, 5: 3.0, 7: -4.0, 1: 1.0}, {}], 11)
    letters = "abcdefghijk".__getitem__
    expected = [("f", 3.0), ("b", 1.0), ("c", 1.0), ("j", 1.0), ("h", -4.0)]
    assert vectors.to_tokens(letters) == [expected, []]
    assert vectors.to_tokens(letters, top_k=3) == [expected[:3], []]
    assert vectors[0].to_tokens(letters, top_k=99) == expected
    for wrong in (0, -1, True, 1.5, "3"):
        with pytest.raises(InputError, match="top_k must be a whole number above 0"):
            vectors.to_tokens(letters, top_k=wrong)  # type: ignore[arg-type]


# ---- checks on construction ------------------------------------------------------------------------------------------


def test_lists_and_other_dtypes_are_converted() -> None:
    vectors = SparseVectors([0, 1, 3], np.array([4, 0, 2], dtype=np.uint16), [1, 2, 3], np.int16(5))  # type: ignore[arg-type]
    check_types(vectors)
    assert vectors.to_dicts() == [{4: 1.0}, {0: 2.0, 2: 3.0}]
    assert len(SparseVectors([0], [], [], 5)) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("indptr", "indices", "values", "dim", "message"),
    [
        ([], [], [], 5, r"indptr must be \(N \+ 1,\) integers, got shape \(0,\)"),
        ([[0, 1]], [1], [1.0], 5, r"indptr must be \(N \+ 1,\) integers, got shape \(1, 2\)"),
        ([0.0, 1.0], [1], [1.0], 5, "integers, got shape .* of float64"),
        ([1, 1], [1], [1.0], 5, "indptr must go from 0 to 1, the number of entries, got 1 to 1"),
        ([0, 2], [1], [1.0], 5, "indptr must go from 0 to 1, the number of entries, got 0 to 2"),
        ([0, 2, 1, 2], [1, 2], [1.0, 1.0], 5, "indptr must never fall: row 1 goes from 2 to 1"),
        ([0, 1], [1.0], [1.0], 5, r"indices must be \(nnz,\) integers, got shape \(1,\) of float64"),
        ([0, 1], [1], [1.0, 2.0], 5, r"values must be \(1,\) numbers, got shape \(2,\)"),
        ([0, 1], [1], ["a"], 5, "values must be .* numbers, got shape .* of <U1"),
        ([0, 1], [1], [1j], 5, "values must be .* numbers, got shape .* of complex128"),
        ([0, 0, 1], [5], [1.0], 5, "row 1 has index 5, expected 0 to 4"),
        ([0, 1], [-1], [1.0], 5, "row 0 has index -1, expected 0 to 4"),
        (
            [0, 1, 3],
            [4, 2, 2],
            [1.0, 2.0, 3.0],
            5,
            "the indices of row 1 must be ascending without repeats, got 2 after 2",
        ),
        ([0, 0, 3], [1, 3, 2], [1.0, 2.0, 3.0], 5, "the indices of row 1 must be ascending.* got 2 after 3. Sort them"),
        ([0, 0, 2], [1, 2], [1.0, np.nan], 5, "row 1 has the weight nan, expected finite float32"),
        ([0, 1], [1], [1e39], 5, "row 0 has the weight inf, expected finite float32"),
        ([0], [], [], 0, "dim must be a whole number from 1 to 2147483647, got 0"),
        ([0], [], [], 2**31, "dim must be a whole number"),
        ([0], [], [], 5.0, "dim must be a whole number"),
        ([0], [], [], True, "dim must be a whole number"),
    ],
)
def test_what_is_no_sparse_rows_is_refused(indptr: Any, indices: Any, values: Any, dim: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SparseVectors(indptr, indices, values, dim)


def test_a_vector_is_checked_like_a_row() -> None:
    vector = SparseVector([2, 4], [0.5, 1], 5)  # type: ignore[arg-type]
    assert len(vector) == 2
    assert vector.indices.dtype == np.int32
    assert vector.values.dtype == np.float32
    np.testing.assert_array_equal(vector.to_dense(), np.array([0, 0, 0.5, 0, 1], dtype=np.float32))
    for indices, values in (([4, 2], [1, 1]), ([5], [1]), ([1], [1, 2]), ([[1]], [[1]]), (3, 1), ([1], [np.inf])):
        with pytest.raises(InputError):
            SparseVector(indices, values, 5)  # type: ignore[arg-type]


# ---- rows ------------------------------------------------------------------------------------------------------------

INDEXES: list[Any] = [
    slice(None),
    slice(2, 5),
    slice(-3, None),
    slice(5, 2),
    slice(99, None),
    slice(None, None, -1),
    slice(1, 8, 3),
    [],
    [3],
    [2, 0, -1, 2],
    np.array([4, 4, 1], dtype=np.uint8),
    np.arange(9) % 2 == 0,
    [True] * 4 + [False] * 5,
]


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_indexing_as_numpy(index: Any) -> None:
    dense = randoms(9, 17)
    found = sparse(dense)[index]
    check_types(found)
    np.testing.assert_array_equal(found.to_dense(), dense[index])
    assert found.equals(sparse(dense[index]))


def test_one_row_and_all_rows_in_turn() -> None:
    dense = randoms(9, 17)
    vectors = sparse(dense)
    for row in (0, 1, -1, -9, np.int64(3)):
        assert isinstance(vectors[row], SparseVector)
        np.testing.assert_array_equal(vectors[row].to_dense(), dense[row])
    assert list(vectors) == [vectors[row] for row in range(9)]
    assert list(sparse(randoms(0, 3))) == []


def test_rows_past_the_end() -> None:
    vectors = sparse(randoms(9, 17))
    wrong: Any
    for wrong in (9, -10, [0, 9], [-10], np.ones(8, dtype=bool), (1, 2), "a", 1.5):
        with pytest.raises(IndexError):
            vectors[wrong]
    for wrong in ([[1]], True, None):
        with pytest.raises(InputError, match="expected a row, a slice, a list of rows or a mask"):
            vectors[wrong]


def test_a_slice_shares_memory() -> None:
    vectors = sparse(randoms(9, 17))
    assert np.shares_memory(vectors[2:7].values, vectors.values)
    assert np.shares_memory(vectors[3].indices, vectors.indices)


@pytest.mark.parametrize("counts", [(3,), (0, 5), (2, 0, 7, 1)])
def test_concatenate(counts: tuple[int, ...]) -> None:
    parts = [randoms(count, 13, seed) for seed, count in enumerate(counts)]
    found = SparseVectors.concatenate(sparse(part) for part in parts)
    check_types(found)
    assert found.equals(SparseVectors.from_scipy(scipy_sparse.vstack([scipy_sparse.csr_array(part) for part in parts])))


def test_what_cannot_be_concatenated() -> None:
    with pytest.raises(InputError, match="expected parts of one dim, got no parts"):
        SparseVectors.concatenate([])
    with pytest.raises(InputError, match="got parts of dim 5, 7"):
        SparseVectors.concatenate([sparse(randoms(2, 7)), sparse(randoms(2, 5)), sparse(randoms(1, 7))])


def test_weights_above_a_threshold_empty_rows_and_a_single_row() -> None:
    dense = randoms(9, 17)
    found = sparse(dense).above(0.25)
    check_types(found)
    np.testing.assert_array_equal(found.to_dense(), np.where(dense > 0.25, dense, 0))
    for count in (0, 3):
        check_types(SparseVectors.empty(count, 7))
        assert SparseVectors.empty(count, 7).equals(sparse(np.zeros((count, 7), dtype=np.float32)))
    row = SparseVectors.of(sparse(dense)[3])
    check_types(row)
    assert row.equals(sparse(dense)[3:4])


# ---- products --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("others", [0, 1, 4, 30])
@pytest.mark.parametrize("block", [5, 1 << 20])
def test_dot_of_all_pairs(size: tuple[int, int], others: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csr, "_BLOCK", block)
    a, b = randoms(*size), randoms(others, size[1], seed=1)
    found = sparse(a).dot(sparse(b))
    assert found.shape == (size[0], others)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    expected = scipy_sparse.csr_array(a.astype(np.float64)) @ scipy_sparse.csr_array(b.astype(np.float64)).T
    np.testing.assert_allclose(found, expected.toarray(), rtol=2e-7, atol=1e-15)  # rounded once, to float32


def test_no_product_depends_on_the_other_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = sparse(randoms(9, 65, filled=0.9)), sparse(randoms(14, 65, seed=1, filled=0.5))
    together = a.dot(b)
    np.testing.assert_array_equal(b.dot(a), together.T)
    np.testing.assert_array_equal([[one.dot(other) for other in b] for one in a], together)
    np.testing.assert_array_equal(np.concatenate([a.dot(b[row]) for row in range(14)], axis=1), together)
    monkeypatch.setattr(csr, "_BLOCK", 7)
    np.testing.assert_array_equal(a.dot(b), together)


def test_dot_with_one_vector_on_either_side() -> None:
    a, b = randoms(6, 33), randoms(1, 33, seed=1)[0]
    vector = sparse(b[None])[0]
    found = sparse(a).dot(vector)
    assert found.shape == (6, 1)
    np.testing.assert_allclose(found[:, 0], a.astype(np.float64) @ b, rtol=2e-7)
    assert [row.dot(vector) for row in sparse(a)] == found[:, 0].tolist()
    assert type(vector.dot(vector)) is float


def test_dot_equals_the_lexical_score_of_flag_embedding(flag_embedding: "FlagEmbedding") -> None:
    a, b = sparse(np.abs(randoms(5, 33))), sparse(np.abs(randoms(7, 33, seed=1)))
    expected = flag_embedding.ask("lexical_scores", queries=a.to_dicts(), passages=b.to_dicts())
    np.testing.assert_allclose(a.dot(b), expected, rtol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block", [5, 1 << 20])
def test_dot_of_rows_in_step_and_norms(size: tuple[int, int], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csr, "_BLOCK", block)
    a, b = randoms(*size), randoms(*size, seed=1, filled=0.5)
    b[::4] = 0
    found = sparse(a).row_dot(sparse(b))
    assert found.shape == (size[0],)
    assert found.dtype == np.float32
    expected = np.einsum("nd,nd->n", a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=1e-15)
    norms = sparse(a).norms()
    assert norms.shape == (size[0],)
    assert norms.dtype == np.float32
    np.testing.assert_allclose(norms, np.linalg.norm(a.astype(np.float64), axis=1), rtol=2e-7)


def test_norms_of_weights_whose_squares_leave_float32() -> None:
    vectors = SparseVectors.from_dicts([{0: 3e30, 1: 4e30}, {0: 3e-30, 1: 4e-30}], 2)
    np.testing.assert_allclose(vectors.norms(), [5e30, 5e-30], rtol=1e-6)


def test_products_stay_within_their_blocks() -> None:
    rows, width = 2000, 2000  # 4 million weights: 32 MB as float64, of which only a block may be there at a time
    indices = np.tile(np.arange(width, dtype=np.int32), rows)
    corpus = SparseVectors(np.arange(rows + 1) * width, indices, np.ones(rows * width, dtype=np.float32), width)
    products: list[tuple[Callable[[], Floats], float]] = [
        (lambda: corpus[:2].dot(corpus), width),
        (lambda: corpus.row_dot(corpus), width),
        (corpus.norms, width**0.5),
    ]
    for product, expected in products:
        tracemalloc.start()
        found = product()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(found, np.full(found.shape, expected, dtype=np.float32))
        assert peak < 25e6


def test_products_of_rows_that_have_nothing_in_common_stay_within_their_blocks_too() -> None:
    queries = SparseVectors.from_dicts([{0: 2.0}] * 300, 3)
    corpus = SparseVectors.from_dicts([{1: 1.0}, {0: 3.0}] + [{}] * 19998, 3)
    tracemalloc.start()
    found = queries.dot(corpus)  # 24 MB
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, np.tile([0] + [6] + [0] * 19998, (300, 1)))
    assert peak < 24e6 + 15e6


def test_products_of_what_does_not_fit() -> None:
    a, b = sparse(randoms(3, 7)), sparse(randoms(3, 5))
    for product in (a.dot, a.row_dot):
        with pytest.raises(InputError, match="vectors of dim 7 and 5 have no product"):
            product(b)
        with pytest.raises(InputError, match="expected SparseVectors, got ndarray"):
            product(randoms(3, 7))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="vectors of dim 7 and 5"):
        a[0].dot(b[0])
    with pytest.raises(InputError, match=r"got 3 and 2 rows. For all pairs type: a.dot\(b\)"):
        a.row_dot(a[:2])


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_scipy_reads_what_is_saved_and_the_other_way_round(size: tuple[int, int], tmp_path: Path) -> None:
    dense = randoms(*size)
    vectors = sparse(dense)
    vectors.save(tmp_path / "ours")  # exactly this path, without .npz
    check_types(SparseVectors.load(tmp_path / "ours"))
    assert SparseVectors.load(str(tmp_path / "ours")).equals(vectors)
    matrix = scipy_sparse.load_npz(tmp_path / "ours")
    assert type(matrix) is scipy_sparse.csr_array
    np.testing.assert_array_equal(matrix.toarray(), dense)
    for kind in (scipy_sparse.csr_array, scipy_sparse.csr_matrix):
        for compressed in (True, False):
            scipy_sparse.save_npz(tmp_path / "theirs.npz", kind(dense.astype(np.float64)), compressed)
            assert SparseVectors.load(tmp_path / "theirs.npz").equals(vectors)


def test_both_write_the_same_arrays(tmp_path: Path) -> None:
    vectors = sparse(randoms(5, 33))
    vectors.save(tmp_path / "ours.npz")
    scipy_sparse.save_npz(tmp_path / "theirs.npz", vectors.to_scipy(), compressed=False)
    with np.load(tmp_path / "ours.npz") as ours, np.load(tmp_path / "theirs.npz") as theirs:
        assert set(ours.files) == set(theirs.files)
        for name in theirs.files:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_what_is_no_file_of_sparse_rows(tmp_path: Path) -> None:
    path = tmp_path / "it.npz"
    good: dict[str, Any] = {"format": b"csr", "shape": (1, 5), "indptr": [0, 1], "indices": [4], "data": [1.0]}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"format": b"csc"}, "holds a csc matrix, expected csr"),
        ({"shape": (2, 5)}, r"says shape \[2, 5\], and has 1 rows"),
        ({"shape": 5}, "says shape 5"),
        ({"shape": (1, 4)}, "row 0 has index 4, expected 0 to 3"),
        ({"indptr": [0, 2]}, "indptr must go from 0 to 1"),
        ({"data": [np.nan]}, "row 0 has the weight nan"),
        ({"data": np.array([None])}, "is no readable .npz file: Object arrays cannot be loaded"),
    ]
    for changes, message in cases:
        np.savez(path, **{**good, **changes})
        with pytest.raises(InputError, match=message):
            SparseVectors.load(path)
    np.savez(path, format="csr", **{key: good[key] for key in good if key != "format"})  # text, as old scipy wrote it
    assert SparseVectors.load(path).to_dicts() == [{4: 1.0}]
    np.savez(path, **{key: good[key] for key in good if key != "indptr"})
    with pytest.raises(InputError, match=r"it\.npz has no indptr, only format, shape, indices, data"):
        SparseVectors.load(path)


def test_what_is_no_npz_file(tmp_path: Path) -> None:
    path = tmp_path / "it.npz"
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(InputError, match=r"holds a single array, expected an .npz file"):
        SparseVectors.load(path)
    sparse(randoms(5, 33)).save(path)
    whole = path.read_bytes()
    for wrong in (b"", b"{}", whole[:100], whole[: len(whole) // 2], pickle.dumps({"indptr": [0]})):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match=r"is no readable .npz file.* Write one with SparseVectors.save\(path\)"):
            SparseVectors.load(path)
    with pytest.raises(FileNotFoundError):
        SparseVectors.load(tmp_path / "absent.npz")


# ---- values ----------------------------------------------------------------------------------------------------------


def test_equality_by_value() -> None:
    vectors = sparse(randoms(5, 33))
    assert vectors.equals(sparse(randoms(5, 33)))
    assert not vectors.equals(sparse(randoms(5, 33, seed=1)))
    assert not vectors.equals(vectors[:4])
    assert not vectors.equals(SparseVectors(vectors.indptr, vectors.indices, vectors.values, 34))
    row = SparseVector([2], [0.5], 5)  # type: ignore[arg-type]
    assert row == SparseVectors.from_dicts([{2: 0.5}], 5)[0]
    others: list[npt.ArrayLike | SparseVector] = [
        SparseVectors.from_dicts([d], 5)[0] for d in ({2: 0.25}, {3: 0.5}, {})
    ]
    for other in [*others, SparseVectors.from_dicts([{2: 0.5}], 6)[0], "row"]:
        assert row != other
    with pytest.raises(TypeError, match="unhashable"):
        hash(row)


def test_copies_and_pickles_are_equal() -> None:
    vectors = sparse(randoms(5, 33))
    for again in (copy.deepcopy(vectors), pickle.loads(pickle.dumps(vectors))):
        check_types(again)
        assert again.equals(vectors)
    assert pickle.loads(pickle.dumps(vectors[0])) == vectors[0]


def test_fields_cannot_be_set() -> None:
    vectors = sparse(randoms(5, 33))
    for frozen in (vectors, vectors[0]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            frozen.dim = 7  # type: ignore[misc]


def test_what_people_see() -> None:
    vectors = SparseVectors.from_dicts([{9: 1.0, 2: 0.123456, 5: 3.0, 7: 4.0, 1: 1.0, 3: 0.01}, {}, {1: 2.0}], 11)
    assert repr(vectors) == "SparseVectors(3 rows, dim=11, 2.3 weights a row)"
    assert repr(vectors[:0]) == "SparseVectors(0 rows, dim=11, 0.0 weights a row)"
    assert repr(vectors[0]) == "SparseVector(dim=11, 6 weights: 7: 4, 5: 3, 1: 1, 9: 1, 2: 0.1235, ...)"
    assert repr(vectors[1]) == "SparseVector(dim=11, 0 weights: )"
    assert repr(vectors[2]) == "SparseVector(dim=11, 1 weights: 1: 2)"
