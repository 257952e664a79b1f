"""A csr_array whose rows stay two-dimensional."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.sparse import csr_array  # noqa: TID251 - of the milvus extra; only what returns such an array imports this

from trivec._vectors.sparse import SparseVectors


class RowArray(csr_array):  # type: ignore[misc]  # scipy has no types
    """A scipy.sparse.csr_array (N, dim) of which a single row is (1, dim).

    scipy 1.15 and later give a one-dimensional array for x[0] and list(x)[0]. The examples of the Milvus documentation
    were written for (1, dim), and pymilvus refuses anything else as a sparse vector. pymilvus 3 also asks for the
    length of what it is to search for, which scipy does not give. All other indexing, and all arithmetic, is scipy's.
    """

    def __len__(self) -> int:
        """The number of rows."""
        return int(self.shape[0])

    def __array__(self, *_: object, **__: object) -> np.ndarray[Any, Any]:
        """A single object to numpy, as scipy's own arrays are: with a length, numpy would take it for a sequence."""
        whole = np.empty((), dtype=object)
        whole[()] = self
        return whole

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - as scipy
        """x[i] and x[i, a:b] as x[[i]] and x[[i], a:b]; the rest as scipy."""
        row = key[0] if isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], slice) else key
        if isinstance(row, int | np.integer) and not isinstance(row, bool | np.bool_):
            if not -self.shape[0] <= row < self.shape[0]:
                raise IndexError(f"row {row} of {self.shape[0]} rows")
            start = row % self.shape[0]
            rows = super().__getitem__(slice(start, start + 1))
            return rows[:, key[1]] if isinstance(key, tuple) else rows
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        """Each row, (1, dim)."""
        return (self[row] for row in range(self.shape[0]))


def row_array(vectors: SparseVectors) -> RowArray:
    """The vectors as a RowArray (N, dim) float32 that shares the memory of the weights."""
    narrow = vectors.nnz <= np.iinfo(np.int32).max  # scipy wants one type of both, and would copy the wider one
    indptr = vectors.indptr.astype(np.int32) if narrow else vectors.indptr
    return RowArray((vectors.values, vectors.indices, indptr), shape=vectors.shape)
