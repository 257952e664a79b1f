"""Shorter vectors, and vectors of length 1."""

from typing import Any, overload

import numpy as np

from trivec._errors import InputError
from trivec._vectors.sparse import SparseVector, SparseVectors
from trivec.util._inputs import (
    Array,
    Vectors,
    as_array,
    block_of,
    check_count,
    slices,
    take,
    take_dense,
    take_sparse,
    unit,
    work_type,
)


def truncate_embeddings(embeddings: Vectors, truncate_dim: int | None) -> Array:
    """The first numbers of each vector, as sentence_transformers.util.truncate_embeddings 6.2.

    Args:
        embeddings: (N, D) or (D,), or an array of more dimensions whose last one is D.
        truncate_dim: how many to keep; None, or D and more: all.

    Returns:
        (N, min(truncate_dim, D)) or (min(truncate_dim, D),) of the same number type: a view where an array came.

    Raises:
        InputError: sparse vectors, or a truncate_dim below 1.
    """
    if truncate_dim is not None:
        check_count("truncate_dim", truncate_dim)
    return _any_shape(embeddings)[..., :truncate_dim]


@overload
def normalize_embeddings(embeddings: SparseVectors) -> SparseVectors: ...
@overload
def normalize_embeddings(embeddings: SparseVector) -> SparseVector: ...
@overload
def normalize_embeddings(embeddings: Vectors) -> Any: ...  # noqa: ANN401


def normalize_embeddings(embeddings: Vectors) -> Any:
    """Vectors of length 1, as sentence_transformers.util.normalize_embeddings 6.2 (torch.nn.functional.normalize).

    Args:
        embeddings: (N, D) or (D,), or an array of more dimensions whose last one is D; or sparse vectors.

    Returns:
        The same shape, each vector divided by max(its norm, 1e-12), a sparse one by its norm if that is not 0. Floats
        keep their type; integers become float32, those of 32 bits and more float64. Sparse vectors stay sparse.

    Raises:
        InputError: something that is no vectors, or a number that is not finite (its row is named).
    """
    sparse = take_sparse(embeddings)
    if sparse is not None and isinstance(sparse.rows, SparseVectors):
        rows = _normalized(sparse.rows)
        return rows[0] if sparse.single else rows
    found = _any_shape(embeddings)
    flat = found.reshape(int(np.prod(found.shape[:-1])), found.shape[-1])  # (N, D)
    dtype = work_type(found)
    result = np.empty(flat.shape, dtype=found.dtype if found.dtype.kind == "f" else dtype)
    for some in slices(len(flat), flat.shape[1] * dtype.itemsize):
        result[some] = unit(block_of(flat, some, dtype), "embeddings", some.start)
    return result.reshape(found.shape)


def _normalized(rows: SparseVectors) -> SparseVectors:
    norms = rows.norms()  # (N,)
    scale = np.repeat(np.where(norms > 0, norms, np.float32(1)), np.diff(rows.indptr))  # (nnz,)
    return SparseVectors(rows.indptr, rows.indices, rows.values / scale, rows.dim)


def _any_shape(embeddings: Vectors) -> Array:
    """An array of one dimension or more, of numbers."""
    if take_sparse(embeddings) is not None or not hasattr(embeddings, "__array__"):
        single = take(embeddings, "embeddings").single
        rows = take_dense(embeddings, "embeddings")
        return rows[0] if single else rows
    found = as_array(embeddings)
    if found.dtype.kind not in "fiub" or found.ndim == 0:
        raise InputError(f"embeddings must be numbers, (N, D) or (D,), got {found.dtype} of shape {found.shape}.")
    return found
