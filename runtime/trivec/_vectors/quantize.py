"""Vectors in the number type that a store wants: float32, int8, uint8, binary, ubinary."""

import logging
from collections.abc import Iterator
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._vectors.arrays import Floats

OUTPUT_PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


def check_output_precision(precision: str) -> None:
    """Raise InputError unless it is one of OUTPUT_PRECISIONS."""
    if precision not in OUTPUT_PRECISIONS:
        hint = " The variant (fp32, fp16, int8) is chosen at load." if precision in ("fp32", "fp16") else ""
        raise InputError(f"precision {precision!r} is not one of {', '.join(OUTPUT_PRECISIONS)}.{hint}")


def quantization_steps(ranges: Floats) -> Floats:
    """(2, D) value ranges to the (D,) width of one of 256 steps; 1 where a dimension never varies."""
    steps: Floats = (ranges[1] - ranges[0]) / 255
    return np.where(steps == 0, np.float32(1), steps)


def check_ranges(ranges: Floats | None, precision: str) -> Floats:
    """The value ranges of a call, or InputError where there are none."""
    if ranges is None:
        raise InputError(
            f"precision={precision!r} needs the value ranges that `trivec export` stores, and there are none for this "
            "call. Encode to float32 and quantize with ranges of your own corpus, or use 'binary'."
        )
    return ranges


def cut_unit_ranges(ranges: Floats, width: int) -> Floats:
    """Ranges (2, D) of vectors of length 1 to those (2, width) of their first numbers, made length 1 again.

    Each vector is stretched by one over the length of what is left of it. Here all are stretched alike, by what that
    length is where numbers are spread evenly over their ranges: so a vector does not depend on the others of a call,
    and what lies beyond the ranges is clipped.
    """
    squares = (np.square(ranges).sum(0) + ranges[0] * ranges[1]) / 3  # (D,) the mean square of a number
    left, whole = float(squares[:width].sum()), float(squares.sum())
    cut: Floats = ranges[:, :width]
    return cut * np.float32(np.sqrt(whole / left)) if left and width < len(squares) else cut


def quantize_vectors(
    vectors: npt.NDArray[np.floating[Any]], precision: str, ranges: Floats | None
) -> npt.NDArray[np.generic]:
    """Quantize as sentence_transformers.util.quantize_embeddings does with `ranges`.

    Args:
        vectors: (N, D) float32, or another float type, in which it is then computed.
        precision: int8 and uint8 cut each dimension's range into 256 steps; binary and ubinary keep the signs, eight
            to a byte.
        ranges: (2, D) least and greatest value of each dimension, for int8 and uint8.

    Returns:
        (N, D) float32, int8 or uint8, or (N, ceil(D / 8)) int8 or uint8.
    """
    if precision == "float32":
        return vectors
    if precision == "ubinary":
        return np.packbits(vectors > 0, axis=-1)
    if precision == "binary":
        return (np.packbits(vectors > 0, axis=-1).astype(np.int16) - 128).astype(np.int8)
    ranges = check_ranges(ranges, precision)
    levels = np.clip(np.floor((vectors - ranges[0]) / quantization_steps(ranges)), 0, 255)  # (N, D)
    quantized: npt.NDArray[np.generic] = (
        levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)
    )
    return quantized


logger = logging.getLogger("trivec")
Array = npt.NDArray[Any]
Embeddings = Any  # an array, a torch tensor (torch is no dependency), or a list of either
_DTYPES: dict[str, type] = {
    "float32": np.float32,
    "int8": np.int8,
    "uint8": np.uint8,
    "binary": np.int8,
    "ubinary": np.uint8,
}
_BLOCK_BYTES = 1 << 23  # the largest temporary array; a few live at a time
_STEADY = 100  # below so many rows their least and greatest values say little about the next row's


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


def _check_count(name: str, value: int, limit: int | None = None, what: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} must be a positive integer, got {value!r}.")
    if limit is not None and value > limit:
        raise InputError(f"{name} is {value}, and there are {limit} {what}. Type: {name}={limit}")
