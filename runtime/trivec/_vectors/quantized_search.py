"""Small vectors for a store: to and from eight bits or one, scored and searched as they lie there.

Quantized rows are those of `encode(precision=...)`: int8 and uint8 are (N, D) with one step a dimension; binary (int8)
and ubinary (uint8) are (N, ceil(D / 8)) signs, eight to a byte. Everything here works on corpora of any length, memory
maps among them: the scores and searches below stay within 64 MB of temporaries beside what they take and return.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._pooling.dense import Floats
from trivec._vectors.quantize import check_output_precision, quantization_steps, quantize_vectors

logger = logging.getLogger("trivec")

Array = npt.NDArray[Any]
Embeddings = Any  # an array, a torch tensor (torch is no dependency), or a list of either
Ids = npt.NDArray[np.int64]
_DTYPES: dict[str, type] = {
    "float32": np.float32,
    "int8": np.int8,
    "uint8": np.uint8,
    "binary": np.int8,
    "ubinary": np.uint8,
}
_BLOCK_BYTES = 1 << 23  # the largest temporary array; a few live at a time
_STEADY = 100  # below so many rows their least and greatest values say little about the next row's

# ---- to eight bits or one, and back ----------------------------------------------------------------------------------


@overload
def quantize_embeddings(
    embeddings: Array,
    precision: str,
    ranges: npt.ArrayLike | None = ...,
    calibration_embeddings: Embeddings | None = ...,
) -> Array: ...
@overload
def quantize_embeddings(
    embeddings: Embeddings,
    precision: str,
    ranges: npt.ArrayLike | None = ...,
    calibration_embeddings: Embeddings | None = ...,
) -> Any: ...  # noqa: ANN401


def quantize_embeddings(
    embeddings: Embeddings,
    precision: str,
    ranges: npt.ArrayLike | None = None,
    calibration_embeddings: Embeddings | None = None,
) -> Any:
    """Quantize float vectors: the call and the results of sentence_transformers.util.quantize_embeddings 6.2.

    Args:
        embeddings: (N, D) or (D,) floats, a list of (D,) vectors, or a list of (T, D) matrices (multi-vectors, which
            share their ranges). torch tensors are taken as well.
        precision: "float32", "int8", "uint8", "binary" or "ubinary".
        ranges: (2, D) least and greatest value of each dimension, for int8 and uint8. An exported model stores its own:
            `<route>.ranges` in arrays.npz, `<route>.normalized_ranges` for normalized vectors.
        calibration_embeddings: (C, D), at least 2 rows, to take the ranges from where none are given. Without both,
            they come from `embeddings`, with a warning below 100 rows.

    Returns:
        (N, D) float32, int8 or uint8, or (N, ceil(D / 8)) int8 (binary) or uint8 (ubinary); without N for one vector;
        a list of such for a list of matrices.

    Raises:
        InputError: an unknown precision, vectors that are quantized already, ragged or NaN, ranges that do not fit, or
            that would have to come from a single vector.
    """
    check_output_precision(precision)
    matrices = [_as_array(item) for item in embeddings] if isinstance(embeddings, list) else [_as_array(embeddings)]
    if not matrices:
        return []
    if len({(m.ndim, m.shape[-1:]) for m in matrices}) > 1:
        raise InputError(f"expected vectors of one width, got shapes {sorted({m.shape for m in matrices})}.")
    listed = isinstance(embeddings, list) and matrices[0].ndim == 2
    if isinstance(embeddings, list) and not listed:
        matrices = [np.stack(matrices)]
    for matrix in matrices:
        _check_floats(matrix)
    checked = None
    if precision in ("int8", "uint8"):
        checked = _ranges_for(matrices, precision, ranges, calibration_embeddings)
    results = [_quantize(matrix, precision, checked) for matrix in matrices]
    return results if listed else results[0]


def dequantize_embeddings(
    quantized: npt.ArrayLike, precision: str, ranges: npt.ArrayLike | None = None, *, dim: int | None = None
) -> Floats:
    """Floats that quantized rows stand for.

    int8 and uint8 give the lower edge of their step, in float64 rounded once, as sentence-transformers' rescoring does
    (`_dequantize_embeddings`): at most one step below the vector that was quantized. The middle of the step would be
    nearer, yet adds the same to every dot product with a query, so no ranking depends on it. Signs give -1 and 1.

    Args:
        quantized: (N, D) or (D,) int8 or uint8; (N, ceil(D / 8)) or (ceil(D / 8),) for signs.
        precision: what they were quantized to: "int8", "uint8", "binary" or "ubinary".
        ranges: (2, D), the ones they were quantized with, for int8 and uint8.
        dim: D, for signs; None: all bits of the last byte count.

    Returns:
        (N, D) or (D,) float32.

    Raises:
        InputError: an unknown precision, another dtype or width than it has, or missing ranges.
    """
    _check_quantized_precision(precision)
    rows = _quantized_rows(quantized, "quantized", (_DTYPES[precision],))  # (N, W)
    width = rows.shape[1]
    if dim is None:
        dim = width if precision.endswith("int8") else 8 * width
    else:
        _check_count("dim", dim)
    _check_width(width, dim, precision, "quantized")
    checked = _check_ranges(ranges, width, precision) if precision.endswith("int8") else None
    result = np.empty((len(rows), dim), dtype=np.float32)
    for block in _blocks(len(rows), 8 * dim):
        values = _values(rows[block], precision, checked, dim)  # (B, D) float64
        result[block] = values if checked is not None else 2 * values - 1
    return result[0] if np.ndim(quantized) == 1 else result


def _quantize(matrix: Array, precision: str, ranges: Floats | None) -> Array:
    if precision == "float32":
        return matrix.astype(np.float32)
    if precision in ("int8", "uint8") and matrix.size == 0:
        return np.zeros(matrix.shape, dtype=_DTYPES[precision])
    return quantize_vectors(matrix, precision, ranges)


def _ranges_for(
    matrices: list[Array], precision: str, ranges: npt.ArrayLike | None, calibration: Embeddings | None
) -> Floats | None:
    """The ranges that were given, else those of the calibration vectors, else those of the vectors themselves."""
    width = matrices[0].shape[-1]
    if ranges is not None:
        return _check_ranges(_as_array(ranges), width, precision)
    if calibration is None:
        rows = np.concatenate([np.atleast_2d(m) for m in matrices])  # (N, D)
        if len(rows) == 0:
            return None  # nothing to quantize, so no ranges are needed
        source = "embeddings"
    else:
        rows, source = np.atleast_2d(_as_array(calibration)), "calibration_embeddings"
        if rows.ndim != 2 or rows.shape[1] != width:
            raise InputError(f"calibration_embeddings must be (C, {width}), got an array of shape {rows.shape}.")
        _check_floats(rows)
    if len(rows) < 2:
        raise InputError(
            f"{precision} ranges cannot be computed from {len(rows)} {source}: every dimension would have no width. "
            "Pass ranges=(2, D), such as the exported model's own, or calibration_embeddings of many texts."
        )
    if calibration is None and len(rows) < _STEADY:
        logger.warning(
            f"Computing {precision} quantization buckets based on {len(rows)} embeddings. Pass ranges, or "
            f"calibration_embeddings of {_STEADY} texts or more: the next vectors will lie outside of these."
        )
    return _check_ranges(np.stack([rows.min(0), rows.max(0)]), width, precision)


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


def _values(rows: Array, precision: str, ranges: Floats | None, dim: int) -> npt.NDArray[np.float64]:
    """(B, D) float64: the rows dequantized, or their bits 0 and 1."""
    if precision in ("binary", "ubinary"):
        flip = np.uint8(0x80 if precision == "binary" else 0)
        return np.unpackbits(rows.view(np.uint8) ^ flip, axis=1, count=dim).astype(np.float64)
    values = rows.astype(np.float64)
    if ranges is not None:
        if precision == "int8":
            values += 128
        values *= quantization_steps(ranges)
        values += ranges[0]
    return values


# ---- checks ----------------------------------------------------------------------------------------------------------


def _blocks(count: int, row_bytes: int) -> Iterator[slice]:
    """Slices over `count` rows, each within _BLOCK_BYTES, and of a row at least."""
    rows = max(1, _BLOCK_BYTES // max(row_bytes, 1))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def _as_array(item: Any) -> Array:  # noqa: ANN401 - torch is no dependency
    """An array, a tensor of any device or float type, or nested numbers, as an array."""
    if hasattr(item, "detach"):
        item = item.detach().cpu()
        item = item.float() if "bfloat16" in str(item.dtype) else item  # numpy has no such type
    return np.asarray(item)


def _check_floats(matrix: Array) -> None:
    if matrix.ndim not in (1, 2):
        raise InputError(f"expected (N, D) or (D,) vectors, got an array of shape {matrix.shape}.")
    if matrix.dtype in (np.int8, np.uint8):
        raise InputError(f"expected float vectors, got {matrix.dtype}: they are quantized already.")
    if not np.issubdtype(matrix.dtype, np.floating) and not np.issubdtype(matrix.dtype, np.integer):
        raise InputError(f"expected float vectors, got {matrix.dtype}.")
    if matrix.size and np.isnan(matrix.min()):
        raise InputError("the vectors hold NaN, which no integer stands for. Find the rows: np.isnan(x).any(1)")


def _check_quantized_precision(precision: str) -> None:
    check_output_precision(precision)
    if precision == "float32":
        raise InputError("precision 'float32' is not quantized. Expected int8, uint8, binary or ubinary.")


def _quantized_rows(rows: npt.ArrayLike, name: str, dtypes: tuple[type, ...]) -> Array:
    """(N, W) of one of the dtypes; a single row becomes (1, W)."""
    found = np.asarray(rows)
    if found.dtype not in dtypes:
        wanted = " or ".join(np.dtype(d).name for d in dtypes)
        raise InputError(
            f"{name} must be {wanted}, got {found.dtype}. Pass what encode or quantize_embeddings gave, and name the "
            "precision that it was made with."
        )
    if found.ndim not in (1, 2):
        raise InputError(f"{name} must be (N, W) or (W,), got an array of shape {found.shape}.")
    return found[None] if found.ndim == 1 else found


def _check_width(width: int, dim: int, precision: str, name: str) -> None:
    """Raise InputError unless rows of `width` hold `dim` numbers of this precision."""
    expected = -(-dim // 8) if precision in ("binary", "ubinary") else dim
    if width != expected:
        raise InputError(
            f"{name} must have {expected} numbers a row ({dim} dimensions in {precision}), got {width}. Quantize and "
            "compare vectors of one width, and name the precision that they have."
        )


def _check_ranges(ranges: npt.ArrayLike | None, width: int, precision: str) -> Floats:
    """(2, width) float32, finite, the least value above."""
    if ranges is None:
        raise InputError(
            f"{precision} needs ranges=(2, {width}), the least and greatest value of each dimension: those that the "
            'rows were quantized with, such as the exported model\'s "<route>.ranges" in arrays.npz.'
        )
    found = np.asarray(ranges, dtype=np.float32)
    if found.shape != (2, width):
        cut = f" Type: ranges[:, :{width}]" if found.ndim == 2 and len(found) == 2 and found.shape[1] > width else ""
        raise InputError(f"ranges must be of shape (2, {width}), got {found.shape}.{cut}")
    with np.errstate(invalid="ignore", over="ignore"):
        widths = found[1] - found[0]  # (D,)
    if not np.isfinite(widths).all() or (widths < 0).any():
        wrong = int(np.flatnonzero(~(np.isfinite(widths) & (widths >= 0)))[0])
        raise InputError(
            f"ranges must be finite, least values first: dimension {wrong} goes from {found[0, wrong]} to "
            f"{found[1, wrong]}. Type: np.stack([vectors.min(0), vectors.max(0)])"
        )
    return found


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


def _check_count(name: str, value: int, limit: int | None = None, what: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} must be a positive integer, got {value!r}.")
    if limit is not None and value > limit:
        raise InputError(f"{name} is {value}, and there are {limit} {what}. Type: {name}={limit}")
