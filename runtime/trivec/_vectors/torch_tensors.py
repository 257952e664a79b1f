"""numpy arrays as torch tensors, where torch is there."""

import functools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np
import numpy.typing as npt

from trivec._errors import MissingExtraError
from trivec._vectors.sparse import SparseVector, SparseVectors

P = ParamSpec("P")


def as_tensor(array: npt.NDArray[np.generic]) -> Any:  # noqa: ANN401 - torch is no dependency
    """The array as a torch tensor on the CPU.

    Raises:
        MissingExtraError: torch is not installed.
    """
    return _torch().from_numpy(np.ascontiguousarray(array).reshape(np.shape(array)))  # contiguous is never ()


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


def is_tensor(value: object) -> bool:
    """Whether it is a torch tensor. Nobody has one who has not imported torch, so it is not imported for this."""
    return isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ()))


def as_given(found: Any, *arguments: object) -> Any:  # noqa: ANN401
    """Arrays or sparse rows as tensors, where one of the arguments is a tensor or a list of tensors; on its device."""
    firsts = (value[0] if isinstance(value, list | tuple) and value else value for value in arguments)
    tensor: Any = next(filter(is_tensor, firsts), None)
    if tensor is None:
        return found
    if isinstance(found, SparseVector):
        made = as_sparse_tensor(SparseVectors.of(found))[0]
    else:
        made = as_sparse_tensor(found) if isinstance(found, SparseVectors) else as_tensor(found)
    return made.to(tensor.device)


def tensors_for_tensors(function: Callable[P, Any]) -> Callable[P, Any]:
    """A function that gives arrays, which then gives tensors where it is given tensors. No gradient comes through."""

    @functools.wraps(function)
    def wrapped(*arguments: P.args, **options: P.kwargs) -> Any:  # noqa: ANN401
        return as_given(function(*arguments, **options), *arguments, *options.values())

    return wrapped


def _torch() -> Any:  # noqa: ANN401
    try:
        __import__("torch")
    except ImportError as error:
        raise MissingExtraError(
            "convert_to_tensor=True and convert_to_numpy=False give torch tensors, and torch is not installed. Leave "
            "both at their defaults for numpy arrays, or type: pip install torch"
        ) from error
    return sys.modules["torch"]
