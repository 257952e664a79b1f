"""Similarity of vectors, as sentence_transformers.util computes it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._pooling.dense import Floats, normalize


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
