"""Principal components of sparse rows, which stay sparse: products with blocks of vectors are all it takes."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._vectors.sparse import SparseVectors
from trivec.map._pca import Components, Doubles, leading, shares

_WIDTH = 4  # vectors of a block: equal eigenvalues need several
_DEPTH = 10  # blocks of a basis
_CYCLES = 60  # bases, each begun with the best of the one before
_TOLERANCE = 1e-9  # of the greatest eigenvalue
_ENTRIES = 1 << 18  # weights that are worked on at a time


class _Matrix(NamedTuple):
    """Rows of weights, with the columns that have any."""

    indptr: npt.NDArray[np.int64]
    """(N + 1,)"""
    columns: npt.NDArray[np.int32]
    """(nnz,)"""
    values: npt.NDArray[np.float32]
    """(nnz,)"""
    width: int
    """Columns."""

    def times(self, right: Doubles) -> Doubles:
        """(N, B) of (columns, B)."""
        made = np.zeros((len(self.indptr) - 1, right.shape[1]))
        for start, stop in _chunks(self.indptr):
            low, high = self.indptr[start], self.indptr[stop]
            lengths = np.diff(self.indptr[start : stop + 1])
            filled = np.flatnonzero(lengths)  # reduceat takes an empty row for one of a weight
            if len(filled):
                products = right[self.columns[low:high]] * self.values[low:high, None]
                made[start + filled] = np.add.reduceat(products, (self.indptr[start:stop] - low)[filled], axis=0)
        return made

    def transposed(self) -> "_Matrix":
        """Columns as rows."""
        order = np.argsort(self.columns, kind="stable")
        rows = np.repeat(np.arange(len(self.indptr) - 1, dtype=np.int32), np.diff(self.indptr))
        indptr = np.zeros(self.width + 1, dtype=np.int64)
        np.cumsum(np.bincount(self.columns, minlength=self.width), out=indptr[1:])
        return _Matrix(indptr, rows[order], self.values[order], len(self.indptr) - 1)


class Operator(NamedTuple):
    """The scatter matrix of rows less their mean, which is never written out."""

    rows: _Matrix
    columns: _Matrix
    mean: Doubles
    """(D,)"""

    def times(self, right: Doubles) -> Doubles:
        """(D, B) of (D, B)."""
        left = self.centered(right)  # (N, B)
        made: Doubles = self.columns.times(left) - np.outer(self.mean, left.sum(0))
        return made

    def centered(self, right: Doubles) -> Doubles:
        """(N, B): the rows less their mean, times (D, B)."""
        made: Doubles = self.rows.times(right) - self.mean @ right
        return made


def pca_sparse(rows: SparseVectors) -> Components:
    """The two principal components of N sparse rows, as `pca` of the same rows written out.

    Block Krylov iterations (Golub and Underwood 1977; Musco and Musco 2015) on the scatter matrix, begun again with
    their best vectors until the residuals of both are below 1e-9 of the greatest eigenvalue. Memory: the weights
    twice, and 2 * 40 vectors of as many numbers as there are terms in use.
    """
    used, columns = np.unique(rows.indices, return_inverse=True)
    if len(rows) == 0 or len(used) == 0:
        return Components(np.zeros((len(rows), 2)), (0.0, 0.0))
    matrix = _Matrix(rows.indptr, columns.astype(np.int32), rows.values, len(used))
    across = matrix.transposed()
    mean = across.times(np.ones((len(rows), 1)))[:, 0] / len(rows)  # (D,)
    total = float(np.square(rows.values, dtype=np.float64).sum() - len(rows) * (mean @ mean))
    operator = Operator(matrix, across, mean)
    if total <= 1e-13 * len(rows) * float(mean @ mean):  # equal rows
        return Components(np.zeros((len(rows), 2)), (0.0, 0.0))
    values, vectors = eigenpairs(operator, len(used))
    axes, variances = leading(vectors, values)
    return Components(operator.centered(axes), shares(variances, total))


def eigenpairs(operator: Operator, dim: int) -> tuple[Doubles, Doubles]:
    """The greatest eigenvalues (K,), descending, and their vectors (D, K), of which the first two are exact.

    Raises:
        ArithmeticError: no end in sight, which no data has brought about.
    """
    block = np.random.default_rng(0).normal(size=(dim, min(_WIDTH, dim)))
    for _ in range(_CYCLES):
        basis, images = _krylov(operator, block)
        projected = basis.T @ images  # (K, K)
        values, inner = np.linalg.eigh((projected + projected.T) / 2)
        values, inner = values[::-1], inner[:, ::-1]
        vectors = basis @ inner  # (D, K)
        residuals = np.linalg.norm(images @ inner[:, :2] - vectors[:, :2] * values[:2], axis=0)
        if basis.shape[1] == dim or (residuals <= _TOLERANCE * values[0]).all():
            return values, vectors
        block = vectors[:, :_WIDTH]
    return values, vectors


def _krylov(operator: Operator, block: Doubles) -> tuple[Doubles, Doubles]:
    """An orthonormal basis (D, K) of what the operator makes of a block, again and again, and its images (D, K)."""
    basis, images = np.zeros((len(block), 0)), np.zeros((len(block), 0))
    for _ in range(_DEPTH):
        block = _orthonormal(block, basis)
        if block.shape[1] == 0:
            break
        image = operator.times(block)
        basis, images = np.hstack([basis, block]), np.hstack([images, image])
        block = image
    return basis, images


def _orthonormal(block: Doubles, basis: Doubles) -> Doubles:
    """What a block adds to a basis, orthonormal; columns that add nothing are left out."""
    sizes = np.linalg.norm(block, axis=0)
    block = block[:, sizes > 0] / sizes[sizes > 0]
    for _ in range(2):  # "twice is enough" (Kahan)
        block = block - basis @ (basis.T @ block)
    left, sizes, _ = np.linalg.svd(block, full_matrices=False)
    left = left[:, sizes > 1e-12]
    left = left - basis @ (basis.T @ left)
    found: Doubles = np.linalg.qr(left)[0]
    return found


def _chunks(indptr: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges of rows of about _ENTRIES weights."""
    ends = np.searchsorted(indptr, np.arange(_ENTRIES, indptr[-1] + _ENTRIES, _ENTRIES), side="left")
    stops = np.unique(np.clip(ends, 1, len(indptr) - 1)).tolist()
    return list(zip([0, *stops[:-1]], stops, strict=True))
