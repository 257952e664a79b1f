"""From vectors to points of a plane."""

from typing import Any, Literal, NamedTuple

import numpy as np

from trivec._errors import InputError, MissingExtraError
from trivec._vectors.sparse import SparseVectors
from trivec.map._corpus import Rows
from trivec.map._pca import Components, Doubles, pca
from trivec.map._pca_sparse import pca_sparse

Projection = Literal["pca", "tsne"]
PROJECTIONS: tuple[Projection, ...] = ("pca", "tsne")
_FEWEST = 5  # rows for t-SNE: fewer have no neighbourhoods
_PERPLEXITY = 30.0  # scikit-learn's own


class Plane(NamedTuple):
    """Where N texts are in a plane."""

    points: Doubles
    """(N, 2)"""
    description: str
    """What the plane is, for people."""


def check_projection(name: str) -> None:
    """Raise unless there is such a projection and what it needs is installed.

    Raises:
        InputError: another name.
        MissingExtraError: t-SNE, without scikit-learn.
    """
    if name not in PROJECTIONS:
        raise InputError(f"projection {name!r} is not one of {', '.join(PROJECTIONS)}.")
    if name == "tsne":
        try:
            import sklearn.manifold  # noqa: F401 - to see whether it can be
        except ImportError as error:
            raise MissingExtraError(
                't-SNE needs scikit-learn, which is not installed. Type: pip install "trivec[map]", or leave out '
                "--projection tsne for PCA, which needs nothing."
            ) from error


def project(rows: Rows, projection: Projection) -> Plane:
    """Points of rows, the same ones each time."""
    found = pca_sparse(rows) if isinstance(rows, SparseVectors) else pca(rows)
    if projection == "tsne" and len(rows) >= _FEWEST and found.explained[0] > 0:
        return Plane(_tsne(rows, found.points), "t-SNE of cosine distances; near is alike, far says little")
    return Plane(found.points, _described(found, len(rows)))


def _described(found: Components, count: int) -> str:
    if count == 0:
        return "PCA"
    if found.explained[0] == 0:
        return "PCA; all vectors are equal" if count > 1 else "PCA; of a single vector"
    first, second = (f"{100 * share:.1f}" for share in found.explained)
    return f"PCA; the axes hold {first} % and {second} % of the variance"


def _tsne(rows: Rows, start: Doubles) -> Doubles:
    """t-SNE (van der Maaten and Hinton 2008): scikit-learn's TSNE(init="pca", metric="cosine", random_state=0).

    Sparse rows and rows of one number, which init="pca" refuses, begin with their components from here, scaled alike.
    """
    from sklearn.manifold import TSNE

    sparse = isinstance(rows, SparseVectors)
    begun = "pca" if not sparse and rows.shape[1] > 1 else (start / (1e4 * start[:, 0].std())).astype(np.float32)
    perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)
    model = TSNE(init=begun, metric="cosine", perplexity=perplexity, random_state=0)
    found: Doubles = np.asarray(model.fit_transform(_numbers(rows)), dtype=np.float64)
    return found


def _numbers(rows: Rows) -> Any:  # noqa: ANN401 - an array of scipy, or of numpy
    if isinstance(rows, SparseVectors):
        return rows.to_scipy()
    return rows.astype(np.float32 if rows.dtype.itemsize <= 4 else np.float64, copy=False)
