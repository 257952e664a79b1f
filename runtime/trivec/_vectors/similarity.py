"""Similarity of sparse rows, as sentence_transformers.util computes it; of vectors of any kind: `scores`."""

import numpy as np

from trivec._vectors.arrays import Floats
from trivec._vectors.csr import square_distances
from trivec._vectors.sparse import SparseVectors


def _euclidean_pairwise(a: Floats, b: Floats) -> Floats:
    result: Floats = -np.sqrt(np.square(a - b).sum(1))  # (N,)
    return result


def _manhattan(a: Floats, b: Floats) -> Floats:
    return np.stack([-np.abs(row - b).sum(1) for row in a])  # (N, M), N above 0


def _manhattan_pairwise(a: Floats, b: Floats) -> Floats:
    result: Floats = -np.abs(a - b).sum(1)  # (N,)
    return result


_PAIRWISE = {"euclidean": _euclidean_pairwise, "manhattan": _manhattan_pairwise}
_BLOCK = 64  # rows that are made dense at once, where no sparse form exists


def similarity(name: str, a: SparseVectors, b: SparseVectors) -> Floats:
    """(N, V) and (M, V) rows to (N, M) float32; name is "cosine", "dot", "euclidean" or "manhattan"."""
    if name == "manhattan":  # differences of two rows are as dense as both together
        blocks = [_manhattan(a[i : i + _BLOCK].to_dense(), b.to_dense()) for i in range(0, len(a), _BLOCK)]
        return np.concatenate([np.zeros((0, len(b)), dtype=np.float32), *blocks])
    if name == "euclidean":
        a._check_dim_of(b)
        return np.asarray(-np.sqrt(square_distances(a._csr, b._csr, a.dim)), dtype=np.float32)  # (N, M)
    products = a.dot(b)  # (N, M)
    if name == "dot":
        return products
    found: Floats = products / (_lengths(a)[:, None] * _lengths(b))
    return found


def similarity_pairwise(name: str, a: SparseVectors, b: SparseVectors) -> Floats:
    """Row i against row i: (N,) float32."""
    if name == "dot":
        return a.row_dot(b)
    if name == "cosine":
        result: Floats = a.row_dot(b) / (_lengths(a) * _lengths(b))
        return result
    found = [
        _PAIRWISE[name](a[i : i + _BLOCK].to_dense(), b[i : i + _BLOCK].to_dense()) for i in range(0, len(a), _BLOCK)
    ]
    return np.concatenate([np.zeros(0, dtype=np.float32), *found])


def _lengths(rows: SparseVectors) -> Floats:
    """(N,) norms, and 1 for a row without weights: short ones are not raised to 1e-12, as dense ones are."""
    norms = rows.norms()
    return np.where(norms > 0, norms, np.float32(1))
