"""Rows of unequal length that lie one after the other: row i is entries offsets[i] to offsets[i + 1]."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._vectors.arrays import Array, Ids
from trivec._vectors.damaged import readable


def check_offsets(name: str, offsets: npt.ArrayLike, total: int) -> Ids:
    """(N + 1,) int64 that starts at 0, never falls and ends at `total`; InputError otherwise."""
    found = np.asarray(offsets)
    if found.ndim != 1 or len(found) == 0 or not np.issubdtype(found.dtype, np.integer):
        raise InputError(f"{name} must be (N + 1,) integers, got shape {found.shape} of {found.dtype}.")
    found = found.astype(np.int64, copy=False)
    if found[0] != 0 or found[-1] != total:
        raise InputError(f"{name} must go from 0 to {total}, the number of entries, got {found[0]} to {found[-1]}.")
    falling = np.flatnonzero(found[1:] < found[:-1])
    if len(falling):
        row = int(falling[0])
        raise InputError(f"{name} must never fall: row {row} goes from {found[row]} to {found[row + 1]}.")
    return found


def resolve_rows(index: object, count: int) -> Ids:
    """Rows that a slice, integers or a boolean mask name, numpy's way: negative ones count from the end.

    Raises:
        IndexError: a row past the end, or a mask of another length.
        InputError: anything that is no list of rows.
    """
    rows = np.arange(count)[index]  # type: ignore[call-overload]  # numpy says what an index is
    if rows.ndim != 1:
        raise InputError(f"expected a row, a slice, a list of rows or a mask, got {type(index).__name__} {index!r}.")
    return np.asarray(rows, dtype=np.int64)


def take_rows(offsets: Ids, rows: npt.NDArray[np.integer]) -> tuple[Ids, Ids]:
    """Offsets (R + 1,) of the rows taken, and the positions of their entries."""
    lengths = np.diff(offsets)[rows]  # (R,)
    taken = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(lengths, out=taken[1:])
    return taken, np.arange(taken[-1]) + np.repeat(offsets[rows] - taken[:-1], lengths)


def row_numbers(offsets: Ids) -> Ids:
    """The row of each entry."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def blocks(offsets: Ids, entries: int) -> Iterator[slice]:
    """Slices of whole rows, in order, each of at most so many entries (a longer row comes alone)."""
    start, count = 0, len(offsets) - 1
    while start < count:
        stop = int(np.searchsorted(offsets, offsets[start] + entries, side="right")) - 1
        yield slice(start, stop := max(stop, start + 1))
        start = stop


def reduce_rows(ufunc: np.ufunc, values: Array, offsets: Ids, axis: int = 0) -> Array:
    """Sum or maximum over the entries of each row, along an axis of `values`; 0 for a row without entries.

    Args:
        ufunc: np.add or np.maximum.
        values: as long along `axis` as offsets[-1] - offsets[0]; (T,) or (T, C) with axis 0, (C, T) with axis 1.
        offsets: (N + 1,); need not start at 0.
        axis: the one of the entries.

    Returns:
        As `values`, N long along `axis`.
    """
    filled = np.flatnonzero(offsets[1:] > offsets[:-1])  # reduceat gives an empty row the entry of the next one
    if len(filled) == len(offsets) - 1 and len(filled):
        return np.asarray(ufunc.reduceat(values, offsets[:-1] - offsets[0], axis=axis))
    shape = list(values.shape)
    shape[axis] = len(offsets) - 1
    result = np.zeros(shape, dtype=values.dtype)
    if len(filled):
        reduced = ufunc.reduceat(values, offsets[filled] - offsets[0], axis=axis)
        result[(slice(None),) * axis + (filled,)] = reduced
    return result


def read_npz(path: str | Path, names: tuple[str, ...], writer: str) -> dict[str, Array]:
    """The named arrays of an .npz file.

    Raises:
        InputError: another kind of file, a damaged one, or one that lacks an array.
        FileNotFoundError: no such file.
    """
    with readable(Path(path), f" Write one with {writer}."), Path(path).open("rb") as file:
        stored = np.load(file, allow_pickle=False)  # of a path, it leaves a file open that is no whole .npz
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise InputError(f"{path} holds a single array, expected an .npz file. Write one with {writer}.")
        missing = [name for name in names if name not in stored.files]
        if missing:
            raise InputError(
                f"{path} has no {', '.join(missing)}, only {', '.join(stored.files) or 'nothing'}. "
                f"Write it with {writer}."
            )
        return {name: stored[name] for name in names}
