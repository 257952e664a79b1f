"""Similarity of sparse rows, as sentence_transformers.util computes it of sparse tensors."""

import numpy as np

from trivec._pooling.dense import Floats
from trivec._vectors.similarity import FUNCTIONS
from trivec._vectors.sparse import SparseVectors

_BLOCK = 64  # rows that are made dense at once, where no sparse form exists


def similarity(name: str, a: SparseVectors, b: SparseVectors) -> Floats:
    """(N, V) and (M, V) rows to (N, M) float32; name is "cosine", "dot", "euclidean" or "manhattan"."""
    if name == "manhattan":  # differences of two rows are as dense as both together
        blocks = [
            FUNCTIONS[name].all_pairs(a[i : i + _BLOCK].to_dense(), b.to_dense()) for i in range(0, len(a), _BLOCK)
        ]
        return np.concatenate([np.zeros((0, len(b)), dtype=np.float32), *blocks])
    products = a.dot(b)  # (N, M)
    if name == "dot":
        return products
    if name == "cosine":
        found: Floats = products / (_lengths(a)[:, None] * _lengths(b))
        return found
    squares = np.square(a.norms(), dtype=np.float64)[:, None] + np.square(b.norms(), dtype=np.float64)  # (N, M)
    return np.asarray(-np.sqrt(np.maximum(squares - 2.0 * products, 0.0)), dtype=np.float32)


def similarity_pairwise(name: str, a: SparseVectors, b: SparseVectors) -> Floats:
    """Row i against row i: (N,) float32."""
    if name == "dot":
        return a.row_dot(b)
    if name == "cosine":
        result: Floats = a.row_dot(b) / (_lengths(a) * _lengths(b))
        return result
    found = [
        FUNCTIONS[name].pairwise(a[i : i + _BLOCK].to_dense(), b[i : i + _BLOCK].to_dense())
        for i in range(0, len(a), _BLOCK)
    ]
    return np.concatenate([np.zeros(0, dtype=np.float32), *found])


def _lengths(rows: SparseVectors) -> Floats:
    """(N,) norms, and 1 for a row without weights: short ones are not raised to 1e-12, as dense ones are."""
    norms = rows.norms()
    return np.where(norms > 0, norms, np.float32(1))
