"""Sparse vectors: token ids with weights, one row (SparseVector) or many (SparseVectors, compressed sparse rows)."""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError, MissingExtraError
from trivec._vectors.arrays import Floats, Ids, RowIndex
from trivec._vectors.csr import Csr, check_csr, check_dicts, check_dim, dot_all, dot_rows, read_csr, row_norms
from trivec._vectors.ragged import resolve_rows, row_numbers, take_rows

Made = TypeVar("Made", "SparseVector", "SparseVectors")


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class SparseVector:
    """One sparse vector.

        vector = SparseVector([2054, 3899], [0.5, 1.25], dim=30522)
        vector.to_dict()  # {2054: 0.5, 3899: 1.25}

    Raises:
        InputError: indices that are not ascending or not below dim, or weights that are no finite numbers.
    """

    indices: npt.NDArray[np.int32]
    """(nnz,) ascending."""
    values: Floats
    """(nnz,) weights."""
    dim: int
    """Dimensions of the space: the size of the vocabulary."""

    def __post_init__(self) -> None:
        dim = check_dim(self.dim)
        rows = check_csr([0, np.size(self.indices)], self.indices, self.values, dim)
        _fill(self, rows.indices, rows.values, dim)

    @classmethod
    def _trusted(cls, indices: npt.NDArray[np.int32], values: Floats, dim: int) -> "SparseVector":
        """Without checks, for arrays that are right by construction."""
        return _fill(object.__new__(cls), indices, values, dim)

    def __len__(self) -> int:
        """Number of weights."""
        return len(self.indices)

    def __eq__(self, other: object) -> bool:
        """Equal by value: the same dimension, ids and weights."""
        if not isinstance(other, SparseVector):
            return NotImplemented
        same = self.dim == other.dim and np.array_equal(self.indices, other.indices)
        return same and np.array_equal(self.values, other.values)

    __hash__ = None  # type: ignore[assignment]  # its arrays can be written to

    def __repr__(self) -> str:
        heaviest = ", ".join(f"{token}: {weight:.4g}" for token, weight in self.to_tokens(str, 5))
        return f"SparseVector(dim={self.dim}, {len(self)} weights: {heaviest}{', ...' if len(self) > 5 else ''})"

    def to_dict(self) -> dict[int, float]:
        """{id: weight} in Python's numbers, ids ascending."""
        return dict(zip(self.indices.tolist(), self.values.tolist(), strict=True))

    def to_dense(self) -> Floats:
        """(dim,) float32."""
        dense = np.zeros(self.dim, dtype=np.float32)
        dense[self.indices] = self.values
        return dense

    def to_tokens(self, token: Callable[[int], str], top_k: int | None = None) -> list[tuple[str, float]]:
        """Tokens with their weights, heaviest first, equal weights by lower id.

        Args:
            token: the text of an id, such as a tokenizer's `id_to_token`.
            top_k: how many at most; None: all.

        Raises:
            InputError: top_k is no whole number above 0.
        """
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1):
            raise InputError(f"top_k must be a whole number above 0, or None for all, got {top_k!r}.")
        order = np.argsort(-self.values, kind="stable")[:top_k]
        ids, weights = self.indices[order].tolist(), self.values[order].tolist()
        return [(token(i), weight) for i, weight in zip(ids, weights, strict=True)]

    def dot(self, other: "SparseVector") -> float:
        """Dot product, summed in float64.

        Raises:
            InputError: another dimension.
        """
        return float(_one(self).row_dot(_one(other))[0])


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class SparseVectors:
    """Sparse vectors, row after row: compressed sparse rows, laid out as scipy.sparse.csr_array.

        vectors = SparseVectors.from_dicts([{3: 0.5}, {}, {1: 2.0, 3: 1.0}], dim=30522)
        vectors.dot(vectors[0])  # (3, 1) float32

    Rows come as `vectors[i]`; slices, lists of rows and masks give SparseVectors. A slice of consecutive rows shares
    the memory of its source.

    Raises:
        InputError: lengths that do not fit, offsets that fall, indices that are not ascending within their row or not
            below dim, or weights that are no finite numbers.
    """

    indptr: Ids
    """(N + 1,) int64, where each row starts and ends."""
    indices: npt.NDArray[np.int32]
    """(nnz,) ascending within a row."""
    values: Floats
    """(nnz,) weights."""
    dim: int
    """Dimensions of the space: the size of the vocabulary."""

    def __post_init__(self) -> None:
        dim = check_dim(self.dim)
        _fill(self, *check_csr(self.indptr, self.indices, self.values, dim), dim)

    @classmethod
    def _trusted(cls, indptr: Ids, indices: npt.NDArray[np.int32], values: Floats, dim: int) -> "SparseVectors":
        """Without checks, for arrays that are right by construction."""
        return _fill(object.__new__(cls), indptr, indices, values, dim)

    @classmethod
    def empty(cls, count: int, dim: int) -> "SparseVectors":
        """`count` rows without weights."""
        none = np.zeros(0, dtype=np.int32)
        return cls._trusted(np.zeros(count + 1, dtype=np.int64), none, none.astype(np.float32), check_dim(dim))

    @classmethod
    def of(cls, vector: SparseVector) -> "SparseVectors":
        """A single row as rows."""
        return _one(vector)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, dim)."""
        return len(self), self.dim

    @property
    def nnz(self) -> int:
        """Number of weights in all rows together."""
        return len(self.indices)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    def __repr__(self) -> str:
        return f"SparseVectors({len(self)} rows, dim={self.dim}, {self.nnz / max(len(self), 1):.1f} weights a row)"

    def __iter__(self) -> Iterator[SparseVector]:
        for start, stop in pairwise(self.indptr.tolist()):
            yield SparseVector._trusted(self.indices[start:stop], self.values[start:stop], self.dim)

    @overload
    def __getitem__(self, index: int | np.integer) -> SparseVector: ...
    @overload
    def __getitem__(self, index: RowIndex) -> "SparseVectors": ...
    def __getitem__(self, index: Any) -> Any:
        """A row, or the rows of a slice, of integers or of a boolean mask."""
        if isinstance(index, int | np.integer) and not isinstance(index, bool):
            row = range(len(self))[operator.index(index)]
            entries = slice(self.indptr[row], self.indptr[row + 1])
            return SparseVector._trusted(self.indices[entries], self.values[entries], self.dim)
        if isinstance(index, slice) and index.step in (None, 1):
            start, stop, _ = index.indices(len(self))
            offsets = self.indptr[start : max(stop, start) + 1]
            entries = slice(offsets[0], offsets[-1])
            return self._trusted(offsets - offsets[0], self.indices[entries], self.values[entries], self.dim)
        indptr, places = take_rows(self.indptr, resolve_rows(index, len(self)))
        return self._trusted(indptr, self.indices[places], self.values[places], self.dim)

    def above(self, threshold: float) -> "SparseVectors":
        """The weights above a threshold; NaN stays."""
        kept = ~(self.values <= threshold)  # (nnz,)
        counts = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])  # (nnz + 1,)
        return self._trusted(counts[self.indptr], self.indices[kept], self.values[kept], self.dim)

    def equals(self, other: "SparseVectors") -> bool:
        """Whether dimension, rows, ids and weights are the same."""
        same = self.dim == other.dim and np.array_equal(self.indptr, other.indptr)
        return same and np.array_equal(self.indices, other.indices) and np.array_equal(self.values, other.values)

    # ---- products ----------------------------------------------------------------------------------------------------

    def dot(self, other: "SparseVectors | SparseVector") -> Floats:
        """Dot products of all rows with all rows of `other`, in bounded memory.

        Returns:
            (N, M) float32, each summed in float64 and rounded once.

        Raises:
            InputError: another dimension.
        """
        other = _one(other) if isinstance(other, SparseVector) else other
        self._check_dim_of(other)
        return dot_all(self._csr, other._csr, self.dim)

    def row_dot(self, other: "SparseVectors") -> Floats:
        """Dot products of row i with row i of `other`.

        Returns:
            (N,) float32, each summed in float64 and rounded once.

        Raises:
            InputError: another dimension, or another number of rows.
        """
        self._check_dim_of(other)
        if len(self) != len(other):
            raise InputError(
                f"row_dot multiplies row i with row i: got {len(self)} and {len(other)} rows. "
                "For all pairs type: a.dot(b)"
            )
        return dot_rows(self._csr, other._csr, self.dim)

    def norms(self) -> Floats:
        """(N,) float32 L2 norms."""
        return row_norms(self._csr)

    # ---- other forms -------------------------------------------------------------------------------------------------

    def to_dense(self) -> Floats:
        """(N, dim) float32."""
        dense = np.zeros(self.shape, dtype=np.float32)
        dense[row_numbers(self.indptr), self.indices] = self.values
        return dense

    def to_dicts(self) -> list[dict[int, float]]:
        """{id: weight} of each row in Python's numbers, ids ascending: what Milvus and Qdrant take."""
        return [row.to_dict() for row in self]

    @classmethod
    def from_dicts(cls, dicts: Iterable[Mapping[Any, Any]], dim: int) -> "SparseVectors":
        """Rows from dictionaries {id: weight}; ids may be decimal strings, as JSON and FlagEmbedding write them.

        Raises:
            InputError: an id that is no whole number from 0 to dim - 1 or stands twice, or a weight that is no finite
                number; the row is named.
        """
        return cls._trusted(*check_dicts(dicts, check_dim(dim)), int(dim))

    def to_tokens(self, token: Callable[[int], str], top_k: int | None = None) -> list[list[tuple[str, float]]]:
        """`SparseVector.to_tokens` of each row."""
        return [row.to_tokens(token, top_k) for row in self]

    def to_scipy(self) -> Any:  # noqa: ANN401 - scipy is no dependency
        """A scipy.sparse.csr_array (N, dim) float32 that shares the memory of the weights.

        Raises:
            MissingExtraError: scipy is not installed.
        """
        try:
            scipy_sparse = import_module("scipy.sparse")
        except ImportError as error:
            raise MissingExtraError("to_scipy needs scipy, which is not installed. Type: pip install scipy") from error
        return scipy_sparse.csr_array((self.values, self.indices, self.indptr), shape=self.shape)

    @classmethod
    def from_scipy(cls, matrix: Any) -> "SparseVectors":  # noqa: ANN401 - scipy is no dependency
        """Rows of a scipy.sparse matrix or array (N, dim) of any format; memory is shared where nothing changes.

        Raises:
            InputError: no two-dimensional sparse matrix, or weights that are no finite float32.
        """
        if not hasattr(matrix, "tocsr") or len(matrix.shape) != 2:
            raise InputError(f"expected a two-dimensional scipy.sparse matrix, got {type(matrix).__name__}.")
        rows, dim = matrix.tocsr(), check_dim(matrix.shape[1])
        return cls._trusted(*check_csr(rows.indptr, rows.indices, rows.data, dim, any_order=True), dim)

    def save(self, path: str | Path) -> None:
        """Write an .npz file, at exactly this path, that scipy.sparse.load_npz reads as well."""
        with Path(path).open("wb") as file:
            self.write(file)

    def write(self, stream: IO[bytes]) -> None:
        """Write what `save` writes to a stream that can seek."""
        np.savez(
            stream,
            indices=self.indices,
            indptr=self.indptr,
            format=np.array(b"csr"),
            shape=np.array(self.shape),
            data=self.values,
            _is_array=np.array(True),
        )

    @classmethod
    def load(cls, path: str | Path) -> "SparseVectors":
        """Read what `save` or scipy.sparse.save_npz (csr format) wrote; nothing in the file is executed.

        Raises:
            InputError: another kind of file, another sparse format, or broken rows.
            FileNotFoundError: no such file.
        """
        rows, dim = read_csr(path)
        return cls._trusted(*rows, dim)

    @classmethod
    def concatenate(cls, parts: "Iterable[SparseVectors]") -> "SparseVectors":
        """The rows of all parts, in order.

        Raises:
            InputError: no parts, or parts of different dimensions.
        """
        listed = list(parts)
        dims = sorted({part.dim for part in listed})
        if len(dims) != 1:
            what = f"parts of dim {', '.join(map(str, dims))}" if dims else "no parts"
            raise InputError(f"expected parts of one dim, got {what}. SparseVectors.from_dicts([], dim) has no rows.")
        counts = np.concatenate([[0], *(np.diff(part.indptr) for part in listed)])
        indices = np.concatenate([part.indices for part in listed])
        values = np.concatenate([part.values for part in listed])
        return cls._trusted(np.cumsum(counts, dtype=np.int64), indices, values, dims[0])

    @property
    def _csr(self) -> Csr:
        return Csr(self.indptr, self.indices, self.values)

    def _check_dim_of(self, other: object) -> None:
        if not isinstance(other, SparseVectors):
            raise InputError(f"expected SparseVectors, got {type(other).__name__}.")
        if self.dim != other.dim:
            raise InputError(
                f"vectors of dim {self.dim} and {other.dim} have no product: they come from different vocabularies. "
                "Encode both with one model."
            )


def shared(row: SparseVectors, rows: SparseVectors) -> SparseVectors:
    """The terms that each of N rows shares with one, with the products of both weights, where those are above 0.

    Raises:
        InputError: another dimension.
    """
    row._check_dim_of(rows)
    if not row.nnz:
        return SparseVectors.empty(len(rows), rows.dim)
    places = np.minimum(np.searchsorted(row.indices, rows.indices), row.nnz - 1)  # (nnz,)
    common = row.indices[places] == rows.indices
    products = np.where(common, row.values[places] * rows.values, np.float32(0))  # (nnz,)
    return SparseVectors._trusted(rows.indptr, rows.indices, products, rows.dim).above(0)


def _one(vector: SparseVector) -> SparseVectors:
    """A single row as rows."""
    return SparseVectors._trusted(np.array([0, len(vector)]), vector.indices, vector.values, vector.dim)


def _fill(vector: Made, *fields: Any) -> Made:  # noqa: ANN401 - arrays, and the dimension
    """Set the fields of a frozen instance, in their order."""
    for name, value in zip(vector.__slots__, fields, strict=True):
        object.__setattr__(vector, name, value)
    return vector
