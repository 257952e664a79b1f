"""Arithmetic on sparse rows (compressed sparse rows, as in scipy.sparse), with memory bounded by blocks of rows."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._vectors.arrays import Array, Floats, Ids
from trivec._vectors.ragged import blocks, check_offsets, read_npz, reduce_rows, row_numbers, take_rows

_BLOCK = 1 << 18  # entries that are worked on at a time: 2 MB as float64, and several such arrays live at once
_MAX_DIM = np.iinfo(np.int32).max
_WRITER = "SparseVectors.save(path) or scipy.sparse.save_npz(path, matrix.tocsr())"


class Csr(NamedTuple):
    """Row i has the weights values[indptr[i]:indptr[i + 1]] at indices[indptr[i]:indptr[i + 1]], ascending."""

    indptr: Ids
    """(N + 1,) int64"""
    indices: npt.NDArray[np.int32]
    """(nnz,)"""
    values: Floats
    """(nnz,)"""


# ---- checks ----------------------------------------------------------------------------------------------------------


def check_dim(dim: object) -> int:
    """The dimension as an int; InputError unless it is a whole number that int32 indices reach."""
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer) or not 1 <= dim <= _MAX_DIM:
        raise InputError(f"dim must be a whole number from 1 to {_MAX_DIM}, got {dim!r}.")
    return int(dim)


def check_csr(
    indptr: npt.ArrayLike, indices: npt.ArrayLike, values: npt.ArrayLike, dim: int, *, any_order: bool = False
) -> Csr:
    """Arrays from outside as a Csr, dtypes converted.

    Args:
        indptr: (N + 1,) integers.
        indices: (nnz,) integers.
        values: (nnz,) finite numbers.
        dim: number of dimensions, checked already.
        any_order: sort the indices of a row and add up equal ones, as scipy understands them, where True. Otherwise
            they must be ascending.

    Raises:
        InputError: lengths, offsets, indices or weights that are no sparse rows of that dimension.
    """
    ids, weights = np.asarray(indices), np.asarray(values)
    if ids.ndim != 1 or (len(ids) and not np.issubdtype(ids.dtype, np.integer)):
        raise InputError(f"indices must be (nnz,) integers, got shape {ids.shape} of {ids.dtype}.")
    if weights.shape != ids.shape or weights.dtype.kind not in "fiub":
        raise InputError(f"values must be ({len(ids)},) numbers, got shape {weights.shape} of {weights.dtype}.")
    offsets = check_offsets("indptr", indptr, len(ids))
    if len(ids) and (ids.min() < 0 or ids.max() >= dim):
        place = int(np.flatnonzero((ids < 0) | (ids >= dim))[0])
        raise InputError(f"row {_row_at(offsets, place)} has index {ids[place]}, expected 0 to {dim - 1}.")
    with np.errstate(over="ignore"):
        weights = weights.astype(np.float32, copy=False)
    if not np.isfinite(weights).all():
        place = int(np.flatnonzero(~np.isfinite(weights))[0])
        raise InputError(f"row {_row_at(offsets, place)} has the weight {weights[place]}, expected finite float32.")
    found = Csr(offsets, ids.astype(np.int32, copy=False), weights)
    descent = _first_descent(found)
    if descent is None:
        return found
    if any_order:
        return _sorted_rows(found, dim)
    raise InputError(
        f"the indices of row {_row_at(offsets, descent)} must be ascending without repeats, got {ids[descent]} after "
        f"{ids[descent - 1]}. Sort them, or build the rows from dictionaries: SparseVectors.from_dicts(dicts, dim)"
    )


def read_csr(path: str | Path) -> tuple[Csr, int]:
    """Rows and their dimension from the .npz layout of scipy.sparse.save_npz, csr format.

    Raises:
        InputError: another kind of file, another sparse format, or broken rows.
        FileNotFoundError: no such file.
    """
    stored = read_npz(path, ("format", "shape", "indptr", "indices", "data"), _WRITER)
    kind = stored["format"].tobytes().replace(b"\0", b"")  # bytes; or text, with four bytes a letter
    if kind != b"csr":
        raise InputError(f"{path} holds a {kind.decode('ascii', 'replace')} matrix, expected csr. Write {_WRITER}.")
    count, shape = np.size(stored["indptr"]) - 1, stored["shape"].tolist()
    if not isinstance(shape, list) or len(shape) != 2 or shape[0] != count:
        raise InputError(f"{path} says shape {shape}, and has {count} rows. Write {_WRITER}.")
    try:
        dim = check_dim(shape[1])
        return check_csr(stored["indptr"], stored["indices"], stored["data"], dim, any_order=True), dim
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def check_dicts(dicts: Iterable[Mapping[Any, Any]], dim: int) -> Csr:
    """Rows from {id: weight}; ids may be decimal strings, as JSON and FlagEmbedding write them.

    Raises:
        InputError: naming the row.
    """
    rows = [_checked_dict(row, number, dim) for number, row in enumerate(dicts)]
    indptr = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(ids) for ids, _ in rows], out=indptr[1:])
    indices = np.concatenate([np.empty(0, dtype=np.int32), *(ids for ids, _ in rows)])
    return Csr(indptr, indices, np.concatenate([np.empty(0, dtype=np.float32), *(weights for _, weights in rows)]))


def _checked_dict(row: Mapping[Any, Any], number: int, dim: int) -> tuple[npt.NDArray[np.int32], Floats]:
    if not isinstance(row, Mapping):
        raise InputError(f"row {number} must be a dictionary {{id: weight}}, got {type(row).__name__}.")
    if not row:
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)
    ids = np.array([*row] if {*map(type, row)} == {int} else [_whole(key, number) for key in row])
    outside = ids[(ids < 0) | (ids >= dim)]
    if len(outside):
        raise InputError(f"row {number} has the id {outside[0]}, expected 0 to {dim - 1}.")
    for kind in {*map(type, row.values())}:
        if kind is bool or not issubclass(kind, int | float | np.integer | np.floating):
            wrong = next(weight for weight in row.values() if type(weight) is kind)
            raise InputError(f"row {number} must have numbers as weights, got {wrong!r}.")
    order = np.argsort(ids, kind="stable")
    found = ids[order].astype(np.int32)
    twice = np.flatnonzero(found[1:] == found[:-1])
    if len(twice):
        raise InputError(f"row {number} has the id {found[twice[0]]} twice: as a number and as a string.")
    with np.errstate(over="ignore"):
        weights = np.array([*row.values()]).astype(np.float32)[order]
    broken = np.flatnonzero(~np.isfinite(weights))
    if len(broken):
        raise InputError(
            f"row {number} has the weight {weights[broken[0]]} for id {found[broken[0]]}, expected finite."
        )
    return found, weights


def _whole(key: object, number: int) -> int:
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return int(key)
    if isinstance(key, str) and key.isascii() and key.isdigit():
        return int(key)
    raise InputError(f"row {number} has the id {key!r}, expected a token id: a whole number.")


def _row_at(indptr: Ids, place: int) -> int:
    """The row that the entry at `place` is of."""
    return int(np.searchsorted(indptr, place, side="right")) - 1


def _first_descent(rows: Csr) -> int | None:
    """Place of the first index that is not above the one before it in its row."""
    descents = np.zeros(len(rows.indices), dtype=bool)
    np.less_equal(rows.indices[1:], rows.indices[:-1], out=descents[1:])
    starts = rows.indptr[:-1]
    descents[starts[starts < len(descents)]] = False
    return int(descents.argmax()) if descents.any() else None


def _sorted_rows(rows: Csr, dim: int) -> Csr:
    """Indices ascending, equal ones added up."""
    keys = row_numbers(rows.indptr) * dim + rows.indices  # (nnz,)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    ends = np.searchsorted(keys[firsts], np.arange(len(rows.indptr)) * dim)
    return Csr(ends, rows.indices[order][firsts], np.add.reduceat(rows.values[order], firsts))


# ---- products --------------------------------------------------------------------------------------------------------


def dot_all(a: Csr, b: Csr, dim: int, dtype: type[np.floating] = np.float32) -> Array:
    """(N, M) products of all rows of `a` with all rows of `b`, in float64 by ascending index, rounded once to `dtype`.

    As a search in an inverted index: the entries of the smaller side by column, met by each entry of the other. Only
    what two rows have in common costs anything, and no product depends on which other rows are there.
    """
    result = np.zeros((len(a.indptr) - 1, len(b.indptr) - 1), dtype=dtype)
    if len(a.indices) <= len(b.indices):
        _dot_into(a, b, dim, result)
    else:
        _dot_into(b, a, dim, result.T)
    return result


def _dot_into(a: Csr, b: Csr, dim: int, result: Array) -> None:
    """Products of all rows of `a`, the side that goes by column, with all rows of `b` into (N, M)."""
    for some in blocks(a.indptr + np.arange(len(a.indptr)), _BLOCK):
        columns = _by_column(a, some, dim)
        lengths = np.diff(columns.starts)  # (dim,)
        for block in blocks(b.indptr, _BLOCK):
            part = _with_columns(b, block, lengths > 0)
            costs = np.concatenate([[0], np.cumsum(lengths[part.indices])])[part.indptr]
            costs += np.arange(len(costs)) * (some.stop - some.start)  # the matches of a row, and its products
            for rows in blocks(costs, _BLOCK):
                found = result[some, block.start + rows.start : block.start + rows.stop]
                found[:] = _matched(columns, part, rows, (found.shape[0], found.shape[1]))


class _Columns(NamedTuple):
    """Entries by column: column c has those from starts[c] to starts[c + 1]."""

    starts: Ids
    """(dim + 1,)"""
    rows: Ids
    """(nnz,)"""
    values: npt.NDArray[np.float64]
    """(nnz,)"""


def _by_column(rows: Csr, block: slice, dim: int) -> _Columns:
    offsets = rows.indptr[block.start : block.stop + 1]
    entries = slice(offsets[0], offsets[-1])
    starts = np.zeros(dim + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows.indices[entries], minlength=dim), out=starts[1:])
    order = np.argsort(rows.indices[entries], kind="stable")
    return _Columns(starts, row_numbers(offsets)[order], rows.values[entries][order].astype(np.float64))


def _matched(columns: _Columns, part: Csr, rows: slice, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """(n, R) products of the n rows that lie in columns with R rows of `part`."""
    offsets = part.indptr[rows.start : rows.stop + 1]
    entries = slice(offsets[0], offsets[-1])
    ends, places = take_rows(columns.starts, part.indices[entries])  # every match of every entry
    sources = row_numbers(ends)  # the entry of each match
    products = part.values[entries][sources] * columns.values[places]  # float64, where no product is rounded
    cells = columns.rows[places] * shape[1] + row_numbers(offsets)[sources]
    return np.asarray(np.bincount(cells, products, shape[0] * shape[1]), dtype=np.float64).reshape(shape)


def dot_rows(a: Csr, b: Csr, dim: int, dtype: type[np.floating] = np.float32) -> Array:
    """(N,) products of row i with row i, in float64 by ascending index, rounded once to `dtype`."""
    result = np.empty(len(a.indptr) - 1, dtype=dtype)
    for block in blocks(a.indptr + b.indptr, _BLOCK):
        rows = block.stop - block.start
        (rows_a, keys_a, values_a), (_, keys_b, values_b) = _keyed(a, block, dim), _keyed(b, block, dim)
        places = np.minimum(np.searchsorted(keys_b, keys_a), max(len(keys_b) - 1, 0))
        hits = np.flatnonzero(keys_b[places] == keys_a) if len(keys_b) else places[:0]
        products = values_a[hits].astype(np.float64) * values_b[places[hits]]
        result[block] = np.bincount(rows_a[hits], products, rows)
    return result


def square_distances(a: Csr, b: Csr, dim: int) -> npt.NDArray[np.float64]:
    """(N, M) |a|^2 + |b|^2 - 2ab of all rows of `a` and of `b`, in float64 up to the subtraction.

    All three are sums by ascending index, one number after the other: of equal rows they are equal, and the distance 0.
    """
    squares = dot_rows(a, a, dim, np.float64)[:, None] + dot_rows(b, b, dim, np.float64)  # (N, M)
    return np.asarray(np.maximum(squares - 2 * dot_all(a, b, dim, np.float64), 0), dtype=np.float64)


def row_norms(rows: Csr) -> Floats:
    """(N,) L2 norms."""
    result = np.empty(len(rows.indptr) - 1, dtype=np.float32)
    for block in blocks(rows.indptr, _BLOCK):
        offsets = rows.indptr[block.start : block.stop + 1]
        squares = np.square(rows.values[offsets[0] : offsets[-1]], dtype=np.float64)
        result[block] = np.sqrt(reduce_rows(np.add, squares, offsets))
    return result


def _with_columns(rows: Csr, block: slice, used: npt.NDArray[np.bool_]) -> Csr:
    """The rows of a block without the entries that nothing is multiplied with."""
    offsets = rows.indptr[block.start : block.stop + 1]
    entries = slice(offsets[0], offsets[-1])
    kept = np.flatnonzero(used[rows.indices[entries]])
    ends = np.searchsorted(kept, offsets - offsets[0])
    return Csr(ends, rows.indices[entries][kept], rows.values[entries][kept])


def _keyed(rows: Csr, block: slice, dim: int) -> tuple[Ids, Ids, Floats]:
    """Row within the block, an ascending key of row and index, and weight of each entry."""
    offsets = rows.indptr[block.start : block.stop + 1]
    entries = slice(offsets[0], offsets[-1])
    numbers = row_numbers(offsets)
    return numbers, numbers * dim + rows.indices[entries], rows.values[entries]
