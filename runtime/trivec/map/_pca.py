"""Principal components of dense rows, from their covariance, in bounded memory."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError

Doubles = npt.NDArray[np.float64]
_BLOCK = 1 << 21  # numbers that are float64 at a time: 16 MB
_ROUNDING = 1e-13  # of the greatest variance: less than so much is what arithmetic left


class Components(NamedTuple):
    """What N rows are along their two main axes."""

    points: Doubles
    """(N, 2)"""
    explained: tuple[float, float]
    """Parts of the variance of the rows."""


def pca(rows: npt.NDArray[Any]) -> Components:
    """The two principal components of rows (N, D) of any numbers.

    As sklearn.decomposition.PCA(2, svd_solver="covariance_eigh").fit_transform: rows less their mean, onto the
    eigenvectors of the covariance with the two greatest eigenvalues (Pearson 1901), each turned so that its entry of
    greatest size is positive. A direction without variance gives zeros.

    Raises:
        InputError: numbers whose squares are too large for float64.
    """
    count, dim = rows.shape
    if count == 0 or dim == 0:
        return Components(np.zeros((count, 2)), (0.0, 0.0))
    first = rows[0].astype(np.float64)  # (D,); equal rows less it are zero, exactly
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scatter = _moments(rows, first)
    if not np.isfinite(scatter).all():
        raise InputError("the vectors hold numbers whose squares are too large for float64. Divide them by a constant.")
    values, vectors = np.linalg.eigh(scatter)  # ascending (D,), columns (D, D)
    axes, variances = leading(vectors[:, ::-1], values[::-1])
    points = np.empty((count, 2))
    for start, block in _blocks(rows, first):
        points[start : start + len(block)] = (block - mean) @ axes
    return Components(points, shares(variances, float(np.trace(scatter))))


def leading(vectors: Doubles, values: Doubles) -> tuple[Doubles, Doubles]:
    """The first two axes (D, 2) and their eigenvalues (2,); zeros where there is none or no variance.

    Args:
        vectors: (D, K) eigenvectors as columns, K > 0.
        values: (K,) their eigenvalues, descending.
    """
    axes, kept = np.zeros((len(vectors), 2)), np.zeros(2)
    for place in range(min(2, len(values))):
        if values[place] > _ROUNDING * values[0]:
            axis = vectors[:, place]
            axes[:, place] = axis * np.sign(axis[np.argmax(np.abs(axis))])
            kept[place] = values[place]
    return axes, kept


def shares(variances: Doubles, total: float) -> tuple[float, float]:
    """Parts of a total; 0 of nothing."""
    if total <= 0:
        return 0.0, 0.0
    return float(variances[0]) / total, float(variances[1]) / total


def _moments(rows: npt.NDArray[Any], first: Doubles) -> tuple[Doubles, Doubles]:
    """Of the rows less `first`: mean (D,), and the sum of (row - mean) (row - mean)ᵀ (D, D).

    Subtracting a row before anything else keeps the digits of rows that are far from zero and close together.
    """
    mean, scatter, count = np.zeros(len(first)), np.zeros((len(first), len(first))), 0
    for _, block in _blocks(rows, first):
        # Chan, Golub and LeVeque 1979: the sums of two sets from the sums of each.
        own = block.mean(0)
        off = own - mean
        merged = count + len(block)
        centered = block - own
        scatter += centered.T @ centered
        scatter += np.outer(off, off) * (count * len(block) / merged)
        mean += off * (len(block) / merged)
        count = merged
    return mean, scatter


def _blocks(rows: npt.NDArray[Any], first: Doubles) -> Any:  # noqa: ANN401 - a generator of two things
    """Where each block starts, and its rows less `first` (B, D) float64."""
    size = max(1, _BLOCK // rows.shape[1])
    for start in range(0, len(rows), size):
        yield start, rows[start : start + size].astype(np.float64) - first
