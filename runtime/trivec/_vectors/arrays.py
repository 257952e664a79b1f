"""The types of arrays that everything speaks, and rows of length 1."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]
RowIndex = slice | Sequence[int] | npt.NDArray[np.integer | np.bool_]  # what gives several rows
Rows = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float32]


def normalize(vectors: Floats) -> Floats:
    """Rows (B, D) divided by max(their L2 norm, 1e-12), as torch.nn.functional.normalize."""
    norms: Floats = np.sqrt(np.einsum("bd,bd->b", vectors, vectors))[:, None]  # (B, 1)
    norms = np.maximum(norms, np.float32(1e-12))
    return vectors / norms
