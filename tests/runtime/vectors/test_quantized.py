"""Small vectors against sentence-transformers' quantization and brute force in float64."""

import logging
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sentence_transformers.util import quantization as reference

import trivec
from trivec import InputError
from trivec._vectors import quantize
from trivec._vectors.arrays import Floats

Array = npt.NDArray[Any]
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
SMALL = PRECISIONS[1:]
SHAPES = [(1, 1, 1), (1, 5, 7), (3, 1, 8), (5, 13, 33), (2, 101, 64), (7, 129, 65)]  # (N, M, D)
UNIT = 2.0**-24  # float32's rounding


def randoms(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ranges_of(dim: int) -> Floats:
    """Narrower than the vectors, so that some are clipped, different in each dimension, one of them without width."""
    found = np.stack([-1.5 - randoms(dim, seed=1) ** 2, 1 + randoms(dim, seed=2) ** 2]).astype(np.float32)
    found[1, dim // 2] = found[0, dim // 2]
    return found


def quantized(vectors: Array, precision: str) -> Array:
    found: Any = reference.quantize_embeddings(vectors, precision, ranges=ranges_of(vectors.shape[-1]))  # type: ignore[arg-type, unused-ignore]
    assert isinstance(found, np.ndarray)
    return found


def bits_of(rows: Array, dim: int) -> Array:
    """(M, ceil(D / 8)) to (M, D) zeros and ones, by text: no packing that we might share a mistake with."""
    unsigned = rows.astype(np.int64) + (128 if rows.dtype == np.int8 else 0)
    return np.array([[int(bit) for bit in "".join(f"{byte:08b}" for byte in row)][:dim] for row in unsigned.tolist()])


def exact_values(rows: Array, precision: str, dim: int) -> npt.NDArray[np.float64]:
    """What the reference's rescoring multiplies the query with."""
    if precision == "float32":
        return rows.astype(np.float64)
    if precision in ("binary", "ubinary"):
        return bits_of(rows, dim).astype(np.float64)
    found: Any = reference._dequantize_embeddings(rows, precision, ranges_of(dim))  # type: ignore[arg-type, unused-ignore]
    return np.asarray(found, dtype=np.float64)


def best_of(scores: Array, ids: Array, count: int) -> tuple[list[list[int]], list[list[float]]]:
    """Rows sorted by score, then by id, in plain Python."""
    rows = [
        sorted(zip((-np.float32(s) for s in row), names, strict=True))[:count]
        for row, names in zip(scores.tolist(), ids.tolist(), strict=True)
    ]
    return [[name for _, name in row] for row in rows], [[-float(score) for score, _ in row] for row in rows]


def check_hits(found: tuple[Array, Array], count: int, top_k: int) -> None:
    assert found[0].dtype == np.int64
    assert found[1].dtype == np.float32
    assert found[0].shape == found[1].shape == (count, top_k)


# ---- quantize --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (3, 8), (201, 33), (0, 9)])
def test_quantize_with_ranges(precision: Any, dtype: type, shape: tuple[int, int]) -> None:
    zeros = np.zeros((min(shape[0], 1), shape[1]), np.float32)
    vectors: Array = np.concatenate([randoms(*shape), zeros]).astype(dtype)
    ranges = ranges_of(shape[1]).astype(np.float64) + 1e-9  # the reference rounds them to float32 first
    found = trivec.quantize_embeddings(vectors, precision, ranges)
    expected: Any = reference.quantize_embeddings(vectors, precision, ranges=ranges)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)
    if len(vectors):
        np.testing.assert_array_equal(trivec.quantize_embeddings(vectors[0], precision, ranges), expected[0])


@pytest.mark.parametrize("precision", SMALL)
def test_quantize_without_ranges(precision: Any, caplog: pytest.LogCaptureFixture) -> None:
    for count in (2, 99, 100):
        vectors, other = randoms(count, 11), randoms(3, 11, seed=5) * 2
        caplog.clear()
        with caplog.at_level(logging.WARNING, "trivec"):
            found = trivec.quantize_embeddings(vectors, precision)
        said = [r.message for r in caplog.records if r.name == "trivec"]
        assert len(said) == (count < 100 and precision.endswith("int8"))
        assert all(f"Computing {precision} quantization buckets based on {count} embeddings" in line for line in said)
        np.testing.assert_array_equal(found, np.asarray(reference.quantize_embeddings(vectors, precision)))
        caplog.clear()
        calibrated = trivec.quantize_embeddings(other, precision, calibration_embeddings=vectors)
        expected: Any = reference.quantize_embeddings(other, precision, calibration_embeddings=vectors)
        np.testing.assert_array_equal(calibrated, expected)
        assert not [r for r in caplog.records if r.name == "trivec"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_quantize_lists_and_tensors(precision: Any) -> None:
    matrices = [randoms(3, 9), randoms(0, 9), randoms(110, 9, seed=4)]
    rows = list(randoms(120, 9))
    for make in (lambda m: m, torch.from_numpy, lambda m: torch.from_numpy(m).to(torch.bfloat16)):
        for items in ([make(m) for m in matrices], [make(m) for m in rows], []):
            found = trivec.quantize_embeddings(items, precision)
            expected: Any = reference.quantize_embeddings(items, precision)
            assert isinstance(found, list) is isinstance(expected, list)
            assert len(found) == len(expected)
            for one, other in zip(found, expected, strict=True):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)
    tensor = torch.from_numpy(rows[0]).requires_grad_()
    np.testing.assert_array_equal(
        trivec.quantize_embeddings(tensor, precision, ranges_of(9)), quantized(rows[0], precision)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((randoms(3, 5), "fp16"), "'fp16' is not one of float32, int8, uint8, binary, ubinary"),
        ((np.ones((3, 5), np.int8), "binary"), "expected float vectors, got int8: they are quantized already"),
        ((np.array(["a"]), "binary"), "expected float vectors, got <U1"),
        ((randoms(1, 2, 3), "binary"), r"expected \(N, D\) or \(D,\) vectors, got an array of shape \(1, 2, 3\)"),
        (([randoms(3, 5), randoms(3, 4)], "binary"), r"vectors of one width, got shapes \[\(3, 4\), \(3, 5\)\]"),
        (([randoms(5), randoms(3, 5)], "binary"), r"vectors of one width, got shapes"),
        ((np.array([[1.0, np.nan]]), "ubinary"), r"hold NaN.*np.isnan\(x\).any\(1\)"),
        ((randoms(1, 5), "int8"), r"int8 ranges cannot be computed from 1 embeddings.*Pass ranges=\(2, D\)"),
        ((randoms(5), "uint8"), "uint8 ranges cannot be computed from 1 embeddings"),
        ((randoms(3, 5), "int8", None, randoms(1, 5)), "cannot be computed from 1 calibration_embeddings"),
        ((randoms(3, 5), "int8", None, randoms(3, 4)), r"calibration_embeddings must be \(C, 5\), got .* \(3, 4\)"),
        ((randoms(3, 5), "int8", ranges_of(7)), r"must be of shape \(2, 5\), got \(2, 7\). Type: ranges\[:, :5\]"),
        ((randoms(3, 5), "int8", ranges_of(4)), r"must be of shape \(2, 5\), got \(2, 4\)\.$"),
        ((randoms(3, 5), "int8", ranges_of(5)[::-1]), "least values first: dimension 0 goes from"),
        ((np.array([[1, np.inf], [1, 2]]), "int8"), "must be finite.*dimension 1 goes from 2.0 to inf"),
    ],
)
def test_what_cannot_be_quantized(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        trivec.quantize_embeddings(*arguments)


# ---- dequantize ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_dequantize_eight_bits(precision: Any) -> None:
    for count, dim in [(0, 3), (1, 1), (5, 7), (300, 33)]:
        rows, ranges = quantized(randoms(count, dim), precision), ranges_of(dim)
        found = trivec.dequantize_embeddings(rows, precision, ranges)
        expected = np.asarray(reference._dequantize_embeddings(rows, precision, ranges)).astype(np.float32)
        assert found.dtype == np.float32
        assert found.shape == (count, dim)
        np.testing.assert_array_equal(found, expected)
        if count:
            np.testing.assert_array_equal(trivec.dequantize_embeddings(rows[0], precision, ranges), expected[0])


def test_dequantized_values_are_within_a_step() -> None:
    vectors = randoms(50, 13)
    ranges = np.stack([vectors.min(0), vectors.max(0)])
    steps = (ranges[1] - ranges[0]).astype(np.float64) / 255
    for precision in ("int8", "uint8"):
        back = trivec.dequantize_embeddings(trivec.quantize_embeddings(vectors, precision, ranges), precision, ranges)
        behind = (vectors.astype(np.float64) - back) / steps
        assert behind.min() > -1e-3
        assert behind.max() < 1 + 1e-3


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_dequantize_signs(precision: str) -> None:
    for count, dim in [(0, 3), (1, 1), (5, 8), (7, 33)]:
        vectors = randoms(count, dim)
        rows = quantized(vectors, precision)
        found = trivec.dequantize_embeddings(rows, precision, dim=dim)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.where(vectors > 0, 1, -1))
        whole = trivec.dequantize_embeddings(rows, precision)
        assert whole.shape == (count, 8 * rows.shape[1])
        assert (whole[:, dim:] == -1).all()
    assert trivec.dequantize_embeddings(rows[0], precision, dim=33).shape == (33,)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.ones((2, 3), np.int8), "float32"), {}, "precision 'float32' is not quantized"),
        ((np.ones((2, 3), np.uint8), "int8", ranges_of(3)), {}, "quantized must be int8, got uint8"),
        ((np.ones((2, 3), np.int8), "int8"), {}, r"int8 needs ranges=\(2, 3\)"),
        ((np.ones((2, 3), np.int8), "int8", ranges_of(3)), {"dim": 4}, "must have 4 numbers a row .*, got 3"),
        (
            (np.ones((2, 3), np.uint8), "ubinary"),
            {"dim": 25},
            r"must have 4 numbers a row \(25 dimensions in ubinary\)",
        ),
        ((np.ones((2, 3), np.uint8), "ubinary"), {"dim": "25"}, "dim must be a positive integer, got '25'"),
        ((np.ones((1, 2, 3), np.uint8), "ubinary"), {}, r"must be \(N, W\) or \(W,\), got an array of shape"),
    ],
)
def test_what_cannot_be_dequantized(arguments: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        trivec.dequantize_embeddings(*arguments, **options)


# ---- scores ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["bitwise_count", "table"] if hasattr(np, "bitwise_count") else ["table"])
def popcount(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of counting: numpy 2's and that of numpy 1, which has no other."""
    if request.param == "table":
        monkeypatch.delattr(np, "bitwise_count", raising=False)


@pytest.mark.parametrize("block", [1, 3000, 1 << 23])
def test_hamming_distance(popcount: None, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "_BLOCK_BYTES", block)
    for n, m, dim in [*SHAPES, (3, 0, 9), (0, 3, 9)]:
        a, b = randoms(n, dim), randoms(m, dim, seed=1)
        expected = ((a > 0)[:, None] != (b > 0)[None]).sum(2)  # (N, M)
        for one in ("binary", "ubinary"):
            for other in ("binary", "ubinary"):
                found = trivec.hamming_distance(quantized(a, one), quantized(b, other))
                assert found.dtype == np.int32
                assert found.shape == (n, m)
                np.testing.assert_array_equal(found, expected)


def test_hamming_distance_of_views_and_single_rows() -> None:
    rows = quantized(randoms(20, 130), "ubinary")
    expected = trivec.hamming_distance(rows, rows)
    np.testing.assert_array_equal(trivec.hamming_distance(rows[::-3], np.asfortranarray(rows)), expected[::-3])
    np.testing.assert_array_equal(trivec.hamming_distance(rows[4], rows[5]), expected[4:5, 5:6])
    assert np.diag(expected).tolist() == [0] * 20


@pytest.mark.parametrize("corpus_type", ["int8", "uint8"])
@pytest.mark.parametrize("query_type", ["float32", "float64", "int8", "uint8"])
@pytest.mark.parametrize("block", [1, 1000, 1 << 23])
def test_int8_scores(corpus_type: str, query_type: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "_BLOCK_BYTES", block)
    for n, m, dim in [*SHAPES, (3, 0, 9), (0, 3, 9)]:
        ranges, corpus = ranges_of(dim), quantized(randoms(m, dim, seed=1), corpus_type)
        queries = randoms(n, dim).astype(query_type) if query_type[0] == "f" else quantized(randoms(n, dim), query_type)
        found = trivec.int8_scores(queries, corpus, ranges)
        assert found.dtype == np.float32
        assert found.shape == (n, m)
        exact = queries if query_type[0] == "f" else exact_values(queries, query_type, dim)  # (N, D)
        rows = exact_values(corpus, corpus_type, dim)  # (M, D)
        steps = np.where(ranges[1] == ranges[0], 1, (ranges[1] - ranges[0]) / np.float32(255)).astype(np.float64)
        offsets = ranges[0] + 128 * steps
        size = np.abs(exact * steps) @ np.abs((rows - offsets) / steps).T + np.abs(exact @ offsets)[:, None]
        assert (np.abs(found - exact @ rows.T) <= (dim + 3) * UNIT * size).all()  # the docstring's promise


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trivec.hamming_distance(randoms(2, 3), np.ones((2, 3), np.uint8)), "queries must be uint8 or int8, g"),
        (
            lambda: trivec.hamming_distance(np.ones((2, 3), np.uint8), [[1, 2, 3]]),
            "corpus must be uint8 or int8, got i",
        ),
        (lambda: trivec.hamming_distance(np.ones((2, 3), np.uint8), np.ones((2, 4), np.int8)), "3 bytes .*, .* has 4"),
        (lambda: trivec.int8_scores(randoms(2, 3), randoms(2, 3), ranges_of(3)), "corpus must be int8 or uint8, got f"),
        (lambda: trivec.int8_scores([[1, 2, 3]], np.ones((2, 3), np.int8), ranges_of(3)), "must be float.*, got int64"),
        (lambda: trivec.int8_scores(randoms(2, 4), np.ones((2, 3), np.int8), ranges_of(3)), "queries .* 3 .*, got 4"),
        (lambda: trivec.int8_scores(np.ones((2, 4), np.int8), np.ones((2, 3), np.int8), ranges_of(3)), "3 .*, got 4"),
        (
            lambda: trivec.int8_scores(randoms(2, 3), np.ones((2, 3), np.int8), ranges_of(4)),
            r"shape \(2, 3\), got \(2, 4",
        ),
        (lambda: trivec.int8_scores([np.nan, 1], np.ones((1, 2), np.int8), ranges_of(2)), "hold NaN or infinity"),
        (lambda: trivec.int8_scores([1e300, 1], np.ones((1, 2), np.int8), ranges_of(2)), "hold NaN or infinity"),
    ],
)
def test_what_cannot_be_scored(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


# ---- search ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("block", [1, 2000, 1 << 23])
def test_rescore(precision: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "_BLOCK_BYTES", block)
    for n, m, dim in [*SHAPES, (0, 3, 9)]:
        queries, corpus = randoms(n, dim), quantized(randoms(m, dim, seed=1), precision)
        ids = np.random.default_rng(2).integers(0, m, (n, 17)).astype(np.uint64)
        # the reference: np.einsum("ij,ikj->ik", rescore_embeddings, top_k_embeddings)
        scores = np.einsum("ij,ikj->ik", queries.astype(np.float64), exact_values(corpus, precision, dim)[ids])
        for top_k in (1, 10, 17):
            found = trivec.rescore(queries, ids, corpus, precision, ranges_of(dim), top_k)
            check_hits(found, n, top_k)
            expected = best_of(scores, ids, top_k)
            assert found[0].tolist() == expected[0]
            np.testing.assert_allclose(found[1], np.reshape(expected[1], (n, top_k)), rtol=2 * UNIT)
        if n:
            one = trivec.rescore(queries[0], ids[0], corpus, precision, ranges_of(dim), 17)
            np.testing.assert_array_equal(one[0], found[0][:1])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rescore_ties_and_empty_places(precision: str) -> None:
    corpus = quantized(np.repeat(randoms(2, 11), 6, axis=0), precision)  # rows 0-5 are equal, and rows 6-11
    query = randoms(1, 11, seed=3)
    ids, scores = trivec.rescore(query, [[5, -1, 11, 2, 7, -1, 0, 6]], corpus, precision, ranges_of(11), 8)
    first, last = (
        ([0, 2, 5], [6, 7, 11]) if scores[0, 0] == _score(query, corpus[0], precision) else ([6, 7, 11], [0, 2, 5])
    )
    assert ids.tolist() == [[*first, *last, -1, -1]]
    assert np.isneginf(scores[0, 6:]).all()
    assert scores[0, 0] == scores[0, 2] > scores[0, 3] == scores[0, 5]


def _score(query: Floats, row: Array, precision: str) -> float:
    """The one place whose rounding is compared exactly: a rescore of this row alone."""
    scores = trivec.rescore(query, [[0]], row[None], precision, ranges_of(query.shape[1]), 1)[1]  # (1, 1)
    return float(scores[0, 0])


@pytest.mark.parametrize("precision", SMALL)
@pytest.mark.parametrize("block", [1, 3000, 1 << 23])
def test_search_quantized(popcount: None, precision: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "_BLOCK_BYTES", block)
    for n, m, dim in [*SHAPES, (0, 3, 9), (3, 200, 5)]:  # 5 bits: nearly all distances are ties
        queries, vectors = randoms(n, dim), randoms(m, dim, seed=1)
        corpus = quantized(vectors, precision)
        scores = queries.astype(np.float64) @ exact_values(corpus, precision, dim).T  # (N, M)
        coarse = (
            ((queries > 0)[:, None] != (vectors > 0)[None]).sum(2) if precision in ("binary", "ubinary") else -scores
        )
        for wanted, multiplier in ((1, 1), (1, 4), (3, 2), (7, 40)):
            top_k = min(wanted, m)
            found = trivec.search_quantized(queries, corpus, precision, ranges_of(dim), top_k, multiplier)
            order = np.argsort(coarse, axis=1, kind="stable")[:, : top_k * multiplier]
            ids, expected = best_of(np.take_along_axis(scores, order, 1), order, top_k)
            check_hits(found, n, top_k)
            assert found[0].tolist() == ids
            np.testing.assert_allclose(found[1], np.reshape(expected, (n, top_k)), rtol=2 * UNIT, atol=1e-7)


@pytest.mark.parametrize(("precision", "count"), [("int8", 36), ("uint8", 36), ("binary", 100), ("ubinary", 100)])
def test_equal_rows_are_found_by_lower_id(precision: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = quantized(np.tile(randoms(1, 19), (count, 1)), precision)  # float32 BLAS gives equal rows unequal scores
    for block in (1, 500, 1 << 23):
        monkeypatch.setattr(quantize, "_BLOCK_BYTES", block)
        ids, scores = trivec.search_quantized(randoms(19, seed=3), corpus, precision, ranges_of(19), 9, 4)
        assert ids.tolist() == [list(range(9))]
        assert len(set(scores[0].tolist())) == 1


@pytest.mark.parametrize("query", [(1.0, 0.0), (-1.0, -0.0)])
def test_zero_scores_of_either_sign_are_ties(query: tuple[float, float]) -> None:
    ranges = np.array([[-128, -128], [127, 127]], np.float32)  # steps of 1, so that rows stand for themselves
    corpus = np.array([[0, 5], [0, -5], [0, 5], [0, -5]], np.int8)
    ids, scores = trivec.search_quantized(np.array(query), corpus, "int8", ranges, 3, 2)
    assert ids.tolist() == [[0, 1, 2]]
    assert scores.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("precision", SMALL)
def test_search_in_a_memory_map(precision: str, tmp_path: Path) -> None:
    queries, corpus = randoms(3, 20), quantized(randoms(50, 20, seed=1), precision)
    np.save(tmp_path / "corpus.npy", corpus)
    mapped = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    expected = trivec.search_quantized(queries, corpus, precision, ranges_of(20))
    found = trivec.search_quantized(queries, mapped, precision, ranges_of(20))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


CORPUS = np.ones((3, 2), np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: trivec.search_quantized(randoms(1, 9), CORPUS, "ubinary"),
            "top_k is 10, and .* 3 rows.* Type: top_k=3",
        ),
        (lambda: trivec.search_quantized(randoms(1, 9), CORPUS[:0], "ubinary", top_k=1), "the corpus is empty"),
        (
            lambda: trivec.search_quantized(randoms(1, 9), CORPUS, "ubinary", top_k=0),
            "top_k must be a positive .*, got 0",
        ),
        (lambda: trivec.search_quantized(randoms(1, 9), CORPUS, "ubinary", None, 1, 1.5), "multiplier must.* got 1.5"),  # type: ignore[arg-type]
        (lambda: trivec.search_quantized(randoms(1, 9), CORPUS, "ubinary", None, True), "positive integer, got True"),
        (lambda: trivec.search_quantized(randoms(1, 9), CORPUS, "binary"), "corpus must be int8, got uint8"),
        (lambda: trivec.search_quantized(randoms(1, 9), CORPUS, "float32"), "'float32' is not quantized"),
        (lambda: trivec.search_quantized(randoms(1, 9), CORPUS, "int4"), "'int4' is not one of"),
        (lambda: trivec.search_quantized(randoms(1, 9), CORPUS, "uint8"), r"must have 9 numbers a row .*, got 2"),
        (lambda: trivec.search_quantized(randoms(1, 2), CORPUS, "uint8"), r"uint8 needs ranges=\(2, 2\)"),
        (lambda: trivec.search_quantized(randoms(1, 17), CORPUS, "ubinary"), r"must have 3 .*\(17 .* ubinary\), got 2"),
        (lambda: trivec.search_quantized(CORPUS, CORPUS, "ubinary"), "queries must be float vectors, got uint8"),
        (lambda: trivec.search_quantized(randoms(1, 1, 9), CORPUS, "ubinary"), r"queries must be \(N, D\) or \(D,\)"),
        (
            lambda: trivec.rescore(randoms(1, 9), [[0, 3]], CORPUS, "ubinary", top_k=1),
            "candidate id 3 is no row.* 0 to 2",
        ),
        (lambda: trivec.rescore(randoms(1, 9), [[0, -2]], CORPUS, "ubinary", top_k=1), "candidate id -2 is no row"),
        (lambda: trivec.rescore(randoms(1, 9), [[0, 1]], CORPUS, "ubinary"), "top_k is 10, and there are 2 candidates"),
        (
            lambda: trivec.rescore(randoms(2, 9), [[0, 1]], CORPUS, "ubinary"),
            r"must be \(2, K\) integers.* got .* \(1, 2",
        ),
        (lambda: trivec.rescore(randoms(1, 9), [[0.0]], CORPUS, "ubinary"), "got shape .* of float64"),
        (lambda: trivec.rescore(randoms(1, 2), [[0]], CORPUS, "float32", top_k=1), "corpus must be float32, got uint8"),
    ],
)
def test_what_cannot_be_searched(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


# ---- memory ----------------------------------------------------------------------------------------------------------


def peak(call: Callable[[], Any]) -> float:
    """MiB that a call allocates beyond what it returns."""
    tracemalloc.start()
    try:
        result = call()
        found = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    kept = sum(part.nbytes for part in (result if isinstance(result, tuple) else (result,)))
    return float(found - kept) / 2**20


def test_temporaries_stay_within_64_mib() -> None:
    rng = np.random.default_rng(0)
    dim, ranges = 256, ranges_of(256)
    corpus = rng.integers(-128, 128, (100_000, dim), dtype=np.int8)  # 24 MiB; 98 MiB as float32
    bits = rng.integers(0, 256, (1_000_000, dim // 8), dtype=np.uint8)  # 30 MiB; 8 MiB of int64 for one query's order
    queries = randoms(60, dim)
    signs = trivec.quantize_embeddings(queries, "ubinary")
    ids = rng.integers(0, len(corpus), (60, 5000))  # 585 MiB of float64 candidates
    peaks = {
        "hamming_distance": peak(lambda: trivec.hamming_distance(signs[:10], bits)),
        "int8_scores": peak(lambda: trivec.int8_scores(queries, corpus, ranges)),
        "rescore": peak(lambda: trivec.rescore(queries, ids, corpus, "int8", ranges)),
        "search int8": peak(lambda: trivec.search_quantized(queries, corpus, "int8", ranges)),
        "search ubinary": peak(lambda: trivec.search_quantized(queries[:10], bits, "ubinary")),
    }
    assert max(peaks.values()) < 64, peaks
    assert min(peaks.values()) > 0, peaks
