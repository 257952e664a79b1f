"""Vectors as people have them, checked: dense ones as an array of any number type, sparse ones as SparseVectors."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVector, SparseVectors

Array = npt.NDArray[Any]
Vectors = Any
"""An array, a torch tensor, a scipy.sparse matrix, SparseVectors, or a list of vectors: whatever `take` takes."""
BLOCK_BYTES = 1 << 23  # the largest temporary array; a few live at a time
EPSILON = 1e-12  # least norm that torch.nn.functional.normalize divides by


class Taken(NamedTuple):
    """Vectors from outside."""

    rows: Array | SparseVectors
    """(N, D) of any number type."""
    single: bool
    """Whether one vector came, without N."""


def take(vectors: Vectors, name: str) -> Taken:
    """Vectors of any kind as rows; `name` is what messages call them.

    Raises:
        InputError: something else, or vectors of several widths.
    """
    if isinstance(vectors, HybridVectors | MultiVectors):
        parts = ".dense or .sparse" if isinstance(vectors, HybridVectors) else ".vectors, or compare with .maxsim"
        raise InputError(f"{name} must be one vector a row, got {type(vectors).__name__}. Take a part: {name}{parts}")
    sparse = take_sparse(vectors)
    if sparse is not None:
        return sparse
    if isinstance(vectors, list | tuple) and vectors and take_sparse(vectors[0]) is not None:
        return Taken(SparseVectors.concatenate(take(vector, name).rows for vector in vectors), False)  # type: ignore[misc]
    found = _dense(vectors, name)
    if found.dtype.kind not in "fiub":
        raise InputError(f"{name} must be numbers, got {found.dtype}. Encode texts first: encoder.encode(texts)")
    if found.ndim not in (1, 2):
        raise InputError(f"{name} must be (N, D) or (D,), got an array of shape {found.shape}.")
    return Taken(np.atleast_2d(found), found.ndim == 1)


def take_dense(vectors: Vectors, name: str) -> Array:
    """(N, D) of any number type, for what has no sparse form.

    Raises:
        InputError: sparse rows, and what `take` raises.
    """
    rows = take(vectors, name).rows
    if isinstance(rows, SparseVectors):
        raise InputError(f"{name} must be dense vectors, got {rows!r}. Where they fit in memory: x.to_dense()")
    return rows


class Terms(NamedTuple):
    """Rows of terms from outside."""

    rows: SparseVectors
    """(N, V)"""
    single: bool
    """Whether one row came, without N."""


def take_terms(vectors: Vectors, name: str) -> Terms:
    """Vectors of any kind as sparse rows.

    Raises:
        InputError: what `take` raises.
    """
    rows, single = take(vectors, name)
    return Terms(_as_sparse(rows, rows.shape[1], name), single)


class Pair(NamedTuple):
    """Vectors of two sides, of one width, both dense or both sparse."""

    a: Array | SparseVectors
    b: Array | SparseVectors
    single: tuple[bool, bool]


def take_pair(a: Vectors, b: Vectors, names: tuple[str, str]) -> Pair:
    """Both sides as rows; where one is sparse, the other becomes so, as in sentence-transformers.

    Raises:
        InputError: widths that differ, and what `take` raises.
    """
    one, other = take(a, names[0]), take(b, names[1])
    left, right = one.rows, other.rows
    if isinstance(left, SparseVectors) != isinstance(right, SparseVectors):
        dim = next(side.dim for side in (left, right) if isinstance(side, SparseVectors))
        left, right = (_as_sparse(side, dim, name) for side, name in zip((left, right), names, strict=True))
    widths = left.shape[1], right.shape[1]
    if widths[0] != widths[1] and (0, 0) not in (left.shape, right.shape):  # an empty list has no width
        raise InputError(
            f"{names[0]} have {widths[0]} numbers a vector, {names[1]} have {widths[1]}. Encode both with one model, "
            "and truncate both alike."
        )
    return Pair(left, right, (one.single, other.single))


def take_sparse(vectors: Vectors) -> Taken | None:
    """SparseVectors, a scipy.sparse matrix or a sparse tensor as rows; None: something else."""
    if isinstance(vectors, SparseVectors):
        return Taken(vectors, False)
    if isinstance(vectors, SparseVector):
        return Taken(SparseVectors.of(vectors), True)
    if hasattr(vectors, "tocsr"):
        return Taken(SparseVectors.from_scipy(vectors), False)
    if not str(getattr(vectors, "layout", "")).startswith("torch.sparse"):
        return None
    made = vectors.detach().cpu().to_sparse_coo().coalesce()
    places, values = np.asarray(made.indices()), np.asarray(made.values().float())  # (1 or 2, nnz), (nnz,)
    single = len(places) == 1
    if values.ndim != 1 or len(places) > 2:
        raise InputError(f"expected a sparse tensor (N, D) or (D,), got one of shape {tuple(made.shape)}.")
    counts = np.bincount(np.zeros_like(places[0]) if single else places[0], minlength=1 if single else made.shape[0])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return Taken(SparseVectors(indptr, places[-1], values, dim=made.shape[-1]), single)


def _dense(vectors: Vectors, name: str) -> Array:
    if hasattr(vectors, "as_py"):  # one row of a column of pyarrow's
        vectors = getattr(vectors, "values", vectors)
    if not isinstance(vectors, list | tuple):
        found = as_array(vectors)
        if found.dtype != object or found.ndim != 1:
            return found
        vectors = list(found)  # a column of vectors, as readers of Parquet give it
    if not vectors:
        return np.zeros((0, 0), dtype=np.float32)
    try:
        if all(hasattr(item, "__array__") for item in vectors):
            return np.stack([as_array(item) for item in vectors])
        found = np.asarray(vectors)
    except ValueError as error:
        gap = next((row for row, item in enumerate(vectors) if not hasattr(item, "__len__")), None)
        if gap is not None:
            raise InputError(
                f"{name} hold no vector in row {gap}, but {vectors[gap]!r:.40}. Leave such rows out first."
            ) from error
        widths = sorted({len(item) for item in vectors})
        raise InputError(f"{name} must be vectors of one width, got a list of widths {widths}.") from error
    return found.astype(np.float32) if found.dtype == np.float64 else found  # Python's floats, as torch.tensor


def as_array(item: Any) -> Array:  # noqa: ANN401 - torch is no dependency
    """An array, or a tensor of any device or float type, as an array."""
    if hasattr(item, "detach"):
        item = item.detach().cpu()
        item = item.float() if "bfloat16" in str(item.dtype) or "float8" in str(item.dtype) else item
    return np.asarray(item)


def _as_sparse(rows: Array | SparseVectors, dim: int, name: str) -> SparseVectors:
    """Dense rows as sparse ones."""
    if isinstance(rows, SparseVectors):
        return rows
    if rows.shape == (0, 0):
        return SparseVectors.empty(0, dim)
    for some in slices(len(rows), rows.shape[1] * 4):
        squares(block_of(rows, some, np.dtype(np.float32)), name, some.start)
    places, columns = np.nonzero(rows)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(places, minlength=len(rows)))])
    return SparseVectors(indptr, columns.astype(np.int32), rows[places, columns], dim=rows.shape[1])


# ---- numbers ---------------------------------------------------------------------------------------------------------


def work_type(*rows: Array) -> np.dtype[Any]:
    """float32, or float64 where float32 cannot hold what comes: float64 and integers of 32 bits or more."""
    found = np.result_type(np.float32, *(array.dtype for array in rows))
    return found if found.itemsize <= 8 else np.dtype(np.float64)


def block_of(rows: Array, some: slice | Array, dtype: np.dtype[Any]) -> Array:
    """(B, D) of the rows, contiguous, in a type; a view where they are so already."""
    return np.ascontiguousarray(rows[some], dtype=dtype)


def squares(rows: Array, name: str, start: int = 0, dtype: np.dtype[Any] | None = None) -> Array:
    """(B,) sums of squares of (B, D) floats, which stand from row `start` on in `name`; `dtype` is what results get.

    Raises:
        InputError: a number is not finite, or so great that products of such rows would not be.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        found: Array = np.einsum("nd,nd->n", rows, rows)
    dtype = rows.dtype if dtype is None else dtype
    if (found <= np.finfo(dtype).max / 8).all():  # not so for NaN
        return found
    broken = ~np.isfinite(rows)  # (B, D)
    if broken.any():
        row, column = (int(place) for place in np.argwhere(broken)[0])
        raise InputError(
            f"{name} hold {rows[row, column]} in row {start + row}, expected finite numbers. All such rows: "
            "np.flatnonzero(~np.isfinite(x).all(1))"
        )
    row = int(found.argmax())
    greatest = float(np.abs(rows[row]).max())
    way = "Type: x.astype(np.float64)" if dtype == np.float32 else "Scale the vectors down."
    raise InputError(f"{name} hold {greatest:.3g} in row {start + row}, whose square is too great for {dtype}. {way}")


def unit(rows: Array, name: str, start: int = 0) -> Array:
    """(B, D) floats divided by max(their norm, 1e-12), as torch.nn.functional.normalize; raises as `squares`."""
    norms = np.sqrt(squares(rows, name, start))[:, None]  # (B, 1)
    return np.asarray(rows / np.maximum(norms, rows.dtype.type(EPSILON)))


def slices(count: int, row_bytes: int, most: int | None = None, start: int = 0) -> Iterator[slice]:
    """Slices over rows `start` to `count`, each within BLOCK_BYTES and of at most `most` rows, of one at least."""
    rows = max(1, min(BLOCK_BYTES // max(row_bytes, 1), most or count))
    ends = [*range(start, count, rows), count]
    return (slice(*both) for both in pairwise(ends))


def check_count(name: str, value: object) -> int:
    """A positive whole number as an int; InputError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} must be a positive integer, got {value!r}.")
    return int(value)
