"""Small vectors for a store: to and from eight bits or one, scored and searched as they lie there.

Quantized rows are those of `encode(precision=...)`: int8 and uint8 are (N, D) with one step a dimension; binary (int8)
and ubinary (uint8) are (N, ceil(D / 8)) signs, eight to a byte. Everything here works on corpora of any length, memory
maps among them: the scores and searches below stay within 64 MB of temporaries beside what they take and return.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._vectors.arrays import Floats
from trivec._vectors.quantize import (
    _DTYPES,
    Array,
    _blocks,
    _check_count,
    _check_quantized_precision,
    _check_ranges,
    _check_width,
    _quantized_rows,
    _values,
    check_output_precision,
    quantization_steps,
    quantize_vectors,
)

Ids = npt.NDArray[np.int64]

# ---- to eight bits or one, and back ----------------------------------------------------------------------------------


# ---- scores between quantized rows -----------------------------------------------------------------------------------


def hamming_distance(queries: npt.ArrayLike, corpus: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Number of signs in which two rows differ, for all pairs.

    Args:
        queries: (N, W) or (W,) uint8 (ubinary) or int8 (binary).
        corpus: (M, W) or (W,) uint8 or int8; need not be the same of the two.

    Returns:
        (N, M) int32. The bits that fill a row's last byte are equal everywhere, and count nothing.

    Raises:
        InputError: another dtype or number of dimensions, or rows of another width.
    """
    a = _quantized_rows(queries, "queries", (np.uint8, np.int8))
    b = _quantized_rows(corpus, "corpus", (np.uint8, np.int8))
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"queries have {a.shape[1]} bytes a row, the corpus has {b.shape[1]}. "
            "Quantize both from vectors of one width, to binary or ubinary."
        )
    result = np.empty((len(a), len(b)), dtype=np.int32)
    for columns in _blocks(len(b), max(b.shape[1], 8 * 64)):
        _hamming_block(a, b[columns], result[:, columns])
    return result


def int8_scores(queries: npt.ArrayLike, corpus: npt.ArrayLike, ranges: npt.ArrayLike) -> Floats:
    """Dot products with an int8 or uint8 corpus, for all pairs, without a dequantized copy of it.

    A row c stands for c * s + b, with step s and offset b of each dimension, so q . (c * s + b) = (q * s) . c + q . b:
    one product with the integers, which float32 holds exactly, and one number a query. As s differs by dimension, the
    products themselves are rounded to float32 (only one step for all dimensions would leave integer sums). The result
    is within (D + 3) * 2**-24 * (sum_d |q_d s_d c_d| + |q . b|) of the exact one, c counted from -128 and b from there.

    Args:
        queries: (N, D) or (D,) floats, or int8 / uint8 rows that were quantized with the same ranges.
        corpus: (M, D) or (D,) int8 or uint8.
        ranges: (2, D) least and greatest value of each dimension that the corpus was quantized with.

    Returns:
        (N, M) float32.

    Raises:
        InputError: another dtype, rows of another width, ranges that do not fit, or queries that are not finite.
    """
    rows = _quantized_rows(corpus, "corpus", (np.int8, np.uint8))
    width = rows.shape[1]
    checked = _check_ranges(ranges, width, "int8")
    asked = np.asarray(queries)
    kind = asked.dtype.name if asked.dtype in (np.int8, np.uint8) else "float32"
    asked = _float_queries(asked) if kind == "float32" else _quantized_rows(asked, "queries", (asked.dtype.type,))
    _check_width(asked.shape[1], width, kind, "queries")
    result = np.empty((len(asked), len(rows)), dtype=np.float32)
    for block in _blocks(len(asked), 8 * width):
        part = asked[block] if kind == "float32" else _values(asked[block], kind, checked, width)
        scaled, bias = _scaled(part, checked)
        for columns in _blocks(len(rows), 4 * width):
            _dot_block(scaled, bias, rows[columns], result[block, columns])
    return result


def _hamming_block(queries: Array, corpus: Array, result: npt.NDArray[np.int32]) -> None:
    """Distances of (N, W) and (M, W) bytes into (N, M), where (M, W) fits in a block."""
    count, word = _popcount()
    stored = _words(corpus, word)  # (w, M)
    flip = np.uint8(0x80 if queries.dtype != corpus.dtype else 0)  # binary is ubinary - 128: its top bit is turned over
    for block in _blocks(len(queries), 8 * 9 * max(len(corpus), 1)):  # an eighth, which a core's cache holds
        asked = _words(queries[block].view(np.uint8) ^ flip, word)  # (w, B)
        part = result[block]
        part[:] = 0
        for one, other in zip(asked, stored, strict=True):
            part += count(one[:, None] ^ other)  # (B, M)


def _words(rows: Array, word: npt.DTypeLike) -> Array:
    """(N, W) bytes as (ceil(W / size), N) words, filled up with zeros: a column of words lies together in memory."""
    size = np.dtype(word).itemsize
    filled = np.zeros((len(rows), -(-rows.shape[1] // size) * size), dtype=np.uint8)
    filled[:, : rows.shape[1]] = rows.view(np.uint8)
    return np.ascontiguousarray(filled.view(word).T)


_TABLE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)  # (256,) bits of a byte


def _popcount() -> tuple[Callable[[Array], Array], npt.DTypeLike]:
    """What counts the ones of each word, and the word it takes."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count, np.uint64
    return _TABLE.take, np.uint8  # numpy 1


def _scaled(queries: Array, ranges: Floats) -> tuple[Floats, Floats]:
    """(N, D) times each dimension's step, and (N, 1) products with the offsets of integers that count from -128."""
    steps = quantization_steps(ranges).astype(np.float64)  # (D,)
    offsets = ranges[0] + 128 * steps
    return (queries * steps).astype(np.float32), (queries @ offsets).astype(np.float32)[:, None]


def _dot_block(scaled: Floats, bias: Floats, corpus: Array, result: Floats) -> None:
    """Scores of (N, D) queries and (M, D) integers into (N, M), where (M, D) floats fit in a block."""
    integers = corpus.astype(np.float32)  # (M, D)
    if corpus.dtype == np.uint8:
        integers -= 128  # as int8: smaller terms, smaller rounding
    np.matmul(scaled, integers.T, out=result)
    result += bias


# ---- search ----------------------------------------------------------------------------------------------------------


def rescore(
    query_vectors: npt.ArrayLike,
    candidate_ids: npt.ArrayLike,
    corpus: npt.ArrayLike,
    precision: str,
    ranges: npt.ArrayLike | None = None,
    top_k: int = 10,
) -> tuple[Ids, Floats]:
    """Score float queries against a few rows of a quantized corpus, and keep the best.

    The rescoring of sentence-transformers' semantic_search_faiss and semantic_search_usearch: the dot product of the
    query with the dequantized row, for signs with their bits 0 and 1 (the order is that of -1 and 1).

    Args:
        query_vectors: (N, D) or (D,) floats.
        candidate_ids: (N, K) or (K,) integers, rows of the corpus; -1 is an empty place, as faiss fills short results.
            An id that stands twice is scored twice.
        corpus: (M, D) int8 or uint8, (M, ceil(D / 8)) binary or ubinary, or (M, D) float32 to rescore with the vectors
            themselves. Only the candidates are read, so a memory map will do.
        precision: the corpus's: "int8", "uint8", "binary", "ubinary" or "float32".
        ranges: (2, D), the ones the corpus was quantized with, for int8 and uint8.
        top_k: how many to keep, at most K.

    Returns:
        ids (N, top_k) int64 and scores (N, top_k) float32, best first, equal scores by lower id; empty places last,
        with id -1 and score -inf.

    Raises:
        InputError: a dtype, width or ranges that do not fit the precision, ids outside of the corpus, an empty corpus,
            top_k beyond K, or queries that are not finite.
    """
    check_output_precision(precision)
    queries, rows, checked = _check_search(query_vectors, corpus, precision, ranges)
    ids = np.asarray(candidate_ids)
    ids = ids[None] if ids.ndim == 1 else ids
    if ids.ndim != 2 or len(ids) != len(queries) or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(
            f"candidate_ids must be ({len(queries)}, K) integers, a row for each query; "
            f"got shape {ids.shape} of {ids.dtype}."
        )
    _check_count("top_k", top_k, ids.shape[1], "candidates")
    if ids.size and (ids.min() < -1 or ids.max() >= len(rows)):
        wrong = ids.min() if ids.min() < -1 else ids.max()
        raise InputError(f"candidate id {wrong} is no row of this corpus: expected 0 to {len(rows) - 1}, or -1.")
    result = _no_hits(len(queries), top_k)
    for block in _blocks(len(queries), 8 * ids.shape[1]):
        best = _rescore(queries[block], ids[block].astype(np.int64), rows, precision, checked, top_k)
        result[0][block], result[1][block] = best
    return result


def search_quantized(
    query_vectors: npt.ArrayLike,
    corpus: npt.ArrayLike,
    precision: str,
    ranges: npt.ArrayLike | None = None,
    top_k: int = 10,
    rescore_multiplier: int = 4,
) -> tuple[Ids, Floats]:
    """The best rows of a quantized corpus for each query, by exact search and rescoring.

    Signs: the nearest top_k * rescore_multiplier rows by Hamming distance to the query's own signs, equal distances by
    lower id, then `rescore` with its floats. int8 and uint8: the greatest by `int8_scores`, which are dot products with
    the float query already; rescoring them in float64 settles what float32 rounds, so a multiplier of 2 serves there
    (with 1, rows that are equal but for the last bit may be taken in either order: BLAS rounds by position).

    Args:
        query_vectors: (N, D) or (D,) floats.
        corpus: (M, D) int8 or uint8, or (M, ceil(D / 8)) binary or ubinary. Read block by block.
        precision: the corpus's: "int8", "uint8", "binary" or "ubinary".
        ranges: (2, D), the ones the corpus was quantized with, for int8 and uint8.
        top_k: how many to find, at most M.
        rescore_multiplier: candidates for each place of the result.

    Returns:
        ids (N, top_k) int64 and scores (N, top_k) float32, as `rescore` gives them.

    Raises:
        InputError: a dtype, width or ranges that do not fit the precision, an empty corpus, top_k beyond M, or queries
            that are not finite.
    """
    _check_quantized_precision(precision)
    queries, rows, checked = _check_search(query_vectors, corpus, precision, ranges)
    _check_count("top_k", top_k, len(rows), "rows in the corpus")
    _check_count("rescore_multiplier", rescore_multiplier)
    kept = min(top_k * rescore_multiplier, len(rows))
    columns = [*_blocks(len(rows), 4 * queries.shape[1])]
    result = _no_hits(len(queries), top_k)
    for block in _blocks(len(queries), 8 * max(columns[0].stop + kept, queries.shape[1])):
        ids = _coarse(queries[block], rows, columns, precision, checked, kept)
        best = _rescore(queries[block], ids, rows, precision, checked, top_k)
        result[0][block], result[1][block] = best
    return result


def _no_hits(count: int, top_k: int) -> tuple[Ids, Floats]:
    return np.empty((count, top_k), dtype=np.int64), np.empty((count, top_k), dtype=np.float32)


def _coarse(
    queries: Floats, rows: Array, columns: list[slice], precision: str, ranges: Floats | None, kept: int
) -> Ids:
    """(N, kept) ids of the rows with the least coarse cost, equal costs by lower id."""
    costs = np.empty((len(queries), columns[0].stop), dtype=np.int32)
    scaled, bias = (None, None) if ranges is None else _scaled(queries, ranges)
    signs = quantize_vectors(queries, precision, None) if ranges is None else None  # (N, W)
    best = np.empty((len(queries), 0), dtype=np.int64)
    for block in columns:
        cost = costs[:, : block.stop - block.start]  # (N, B)
        if signs is not None:
            _hamming_block(signs, rows[block], cost)
        elif scaled is not None and bias is not None:
            scores = cost.view(np.float32)
            _dot_block(scaled, bias, rows[block], scores)
            np.negative(scores, out=scores)
            cost ^= (cost >> 31) & 0x7FFFFFFF  # floats' bits in the order of their values
        keys = np.empty((len(queries), best.shape[1] + cost.shape[1]), dtype=np.int64)
        keys[:, : best.shape[1]] = best
        fresh = keys[:, best.shape[1] :]
        fresh[:] = cost
        fresh <<= 32  # cost above, id below: no two keys are equal
        fresh += np.arange(block.start, block.stop)
        if keys.shape[1] > kept:
            keys.partition(kept - 1, axis=1)
        best = keys[:, :kept].copy()
    return best & 0xFFFFFFFF


def _rescore(
    queries: Floats, ids: Ids, rows: Array, precision: str, ranges: Floats | None, top_k: int
) -> tuple[Ids, Floats]:
    count, dim = ids.shape[1], queries.shape[1]
    flat = ids.ravel()  # (N * K,)
    scores = np.empty(len(flat), dtype=np.float32)
    for block in _blocks(len(flat), 8 * dim):
        pairs = np.arange(block.start, block.stop) // count  # whose candidate each is
        values = _values(rows[np.maximum(flat[block], 0)], precision, ranges, dim)  # (B, D) float64
        scores[block] = np.einsum("bd,bd->b", values, queries[pairs].astype(np.float64))
    scores[flat == -1] = -np.inf
    table = scores.reshape(ids.shape)
    # sorted as float32: what shows as equal is in the order of the ids
    order = np.lexsort((ids, -table), axis=-1)[:, :top_k]
    return np.take_along_axis(ids, order, 1), np.take_along_axis(table, order, 1)


# ---- checks ----------------------------------------------------------------------------------------------------------


def _float_queries(queries: npt.ArrayLike) -> Floats:
    """(N, D) float32, finite; a single vector becomes (1, D)."""
    found = np.asarray(queries)
    if not np.issubdtype(found.dtype, np.floating):
        raise InputError(f"queries must be float vectors, got {found.dtype}. Encode them with precision='float32'.")
    if found.ndim not in (1, 2):
        raise InputError(f"queries must be (N, D) or (D,), got an array of shape {found.shape}.")
    with np.errstate(over="ignore"):
        rows = np.atleast_2d(found).astype(np.float32, copy=False)
    if rows.size and not np.isfinite([rows.min(), rows.max()]).all():
        raise InputError("the queries hold NaN or infinity. Find the rows: ~np.isfinite(queries).all(1)")
    return rows


def _check_search(
    queries: npt.ArrayLike, corpus: npt.ArrayLike, precision: str, ranges: npt.ArrayLike | None
) -> tuple[Floats, Array, Floats | None]:
    """Queries (N, D), corpus (M, W) and, for int8 and uint8, ranges (2, D), which fit together."""
    asked = _float_queries(queries)
    rows = _quantized_rows(corpus, "corpus", (_DTYPES[precision],))
    _check_width(rows.shape[1], asked.shape[1], precision, "corpus")
    if len(rows) == 0:
        raise InputError("the corpus is empty: nothing can be found in it. Quantize and pass at least one vector.")
    return asked, rows, _check_ranges(ranges, asked.shape[1], precision) if precision.endswith("int8") else None
