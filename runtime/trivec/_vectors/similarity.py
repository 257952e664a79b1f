"""Similarity of vectors, as sentence_transformers.util computes it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._vectors.arrays import Floats, normalize
from trivec._vectors.sparse import SparseVectors


class Similarity(NamedTuple):
    """A similarity between all pairs, and between equal rows."""

    all_pairs: Callable[[Floats, Floats], Floats]
    pairwise: Callable[[Floats, Floats], Floats]


def as_rows(vectors: npt.ArrayLike) -> Floats:
    """(D,) or (N, D), of any number type, as (N, D) float32.

    Raises:
        InputError: it has another number of dimensions.
    """
    rows = np.asarray(vectors, dtype=np.float32)
    if rows.ndim not in (1, 2):
        raise InputError(f"expected one vector or a matrix of vectors, got an array of shape {rows.shape}.")
    return rows[None] if rows.ndim == 1 else rows


def _cosine(a: Floats, b: Floats) -> Floats:
    return normalize(a) @ normalize(b).T  # (N, M)


def _cosine_pairwise(a: Floats, b: Floats) -> Floats:
    return _dot_pairwise(normalize(a), normalize(b))


def _dot(a: Floats, b: Floats) -> Floats:
    return a @ b.T  # (N, M)


def _dot_pairwise(a: Floats, b: Floats) -> Floats:
    result: Floats = np.einsum("nd,nd->n", a, b)
    return result


def _euclidean(a: Floats, b: Floats) -> Floats:
    """-||a - b||, row by row: the expanded square loses half the digits where a and b are close."""
    return np.stack([-np.sqrt(np.square(row - b).sum(1)) for row in a]) if len(a) else _dot(a, b)  # (N, M)


def _euclidean_pairwise(a: Floats, b: Floats) -> Floats:
    result: Floats = -np.sqrt(np.square(a - b).sum(1))  # (N,)
    return result


def _manhattan(a: Floats, b: Floats) -> Floats:
    return np.stack([-np.abs(row - b).sum(1) for row in a]) if len(a) else _dot(a, b)  # (N, M)


def _manhattan_pairwise(a: Floats, b: Floats) -> Floats:
    result: Floats = -np.abs(a - b).sum(1)  # (N,)
    return result


FUNCTIONS = {
    "cosine": Similarity(_cosine, _cosine_pairwise),
    "dot": Similarity(_dot, _dot_pairwise),
    "euclidean": Similarity(_euclidean, _euclidean_pairwise),
    "manhattan": Similarity(_manhattan, _manhattan_pairwise),
}
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
