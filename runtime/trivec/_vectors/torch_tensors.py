"""numpy arrays as torch tensors, where torch is there."""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from trivec._errors import MissingExtraError
from trivec._vectors.sparse import SparseVectors


def as_tensor(array: npt.NDArray[np.generic]) -> Any:  # noqa: ANN401 - torch is no dependency
    """The array as a torch tensor on the CPU.

    Raises:
        MissingExtraError: torch is not installed.
    """
    return _torch().from_numpy(np.ascontiguousarray(array))


def as_sparse_tensor(vectors: SparseVectors) -> Any:  # noqa: ANN401
    """Sparse rows as a torch COO tensor (N, V) on the CPU, coalesced.

    Raises:
        MissingExtraError: torch is not installed.
    """
    rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr))  # (nnz,)
    places = np.stack([rows, vectors.indices.astype(np.int64)])  # (2, nnz)
    torch = _torch()
    return torch.sparse_coo_tensor(
        torch.from_numpy(places),
        torch.from_numpy(vectors.values.copy()),
        vectors.shape,
        is_coalesced=True,
        check_invariants=False,
    )


def _torch() -> Any:  # noqa: ANN401
    try:
        __import__("torch")
    except ImportError as error:
        raise MissingExtraError(
            "convert_to_tensor=True and convert_to_numpy=False give torch tensors, and torch is not installed. Leave "
            "both at their defaults for numpy arrays, or type: pip install torch"
        ) from error
    return sys.modules["torch"]
