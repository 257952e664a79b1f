"""sentence-transformers, which the exports must equal."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer

Floats = npt.NDArray[np.float32]


def reference(folder: Path, **options: Any) -> SentenceTransformer:
    """The checkpoint in torch, float32, on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"}, **options)


def least_cosine(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """The least cosine of equal rows; two zero rows agree."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    assert x.shape == y.shape, (x.shape, y.shape)
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    same = np.where(norms == 0, np.isclose(x, y).all(-1), (x * y).sum(-1) / np.maximum(norms, 1e-30))
    return float(same.min())
