"""Shorter vectors, and vectors of length 1."""

from typing import Any, overload

import numpy as np

from trivec._errors import InputError
from trivec._pooling.sparse import top_active
from trivec._vectors.rows import (
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
from trivec._vectors.sparse import SparseVector, SparseVectors
from trivec._vectors.torch_tensors import as_given, is_tensor


def truncate_embeddings(embeddings: Vectors, truncate_dim: int | None) -> Any:  # noqa: ANN401
    """The first numbers of each vector, as sentence_transformers.util.truncate_embeddings 6.2.

    Args:
        embeddings: (N, D) or (D,), or an array of more dimensions whose last one is D.
        truncate_dim: how many to keep; None, or D and more: all.

    Returns:
        (N, min(truncate_dim, D)) or (min(truncate_dim, D),) of the same number type: a view where an array
        or a tensor came.

    Raises:
        InputError: sparse vectors, or a truncate_dim below 1.
    """
    if truncate_dim is not None:
        check_count("truncate_dim", truncate_dim)
    if is_tensor(embeddings) and take_sparse(embeddings) is None:
        return embeddings[..., :truncate_dim]
    return as_given(_any_shape(embeddings)[..., :truncate_dim], embeddings)


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
        keep their type; integers become float32, those of 32 bits and more float64. Sparse vectors stay sparse, and
        tensors tensors, without a gradient.

    Raises:
        InputError: something that is no vectors, or a number that is not finite (its row is named).
    """
    made = as_given(_normal(embeddings), embeddings)
    return made.to(embeddings.dtype) if is_tensor(embeddings) and embeddings.is_floating_point() else made


def select_max_active_dims(embeddings: Vectors, max_active_dims: int | None) -> Any:  # noqa: ANN401
    """The greatest numbers of each vector by absolute value, and 0 in the place of the others.

    sentence_transformers.util.select_max_active_dims 6.2, which leaves open what it keeps of equal numbers: here those
    of lower index.

    Args:
        embeddings: (N, D) or (D,), or an array of more dimensions whose last one is D; or sparse vectors.
        max_active_dims: how many to keep; None: all.

    Returns:
        The same shape and number type, as new numbers; sparse vectors stay sparse, and tensors tensors. What came,
        where max_active_dims is None.

    Raises:
        InputError: a max_active_dims below 1.
    """
    if max_active_dims is None:
        return embeddings
    check_count("max_active_dims", max_active_dims)
    sparse = take_sparse(embeddings)
    if sparse is not None and isinstance(sparse.rows, SparseVectors):
        rows = top_active(sparse.rows, max_active_dims)
        return as_given(rows[0] if sparse.single else rows, embeddings)
    found = _any_shape(embeddings)
    flat = found.reshape(-1, found.shape[-1])  # (N, D)
    result = np.zeros_like(flat)
    for some in slices(len(flat), flat.shape[1] * 8):
        places = np.argsort(-np.abs(flat[some]), axis=1, kind="stable")[:, :max_active_dims]  # (B, K)
        np.put_along_axis(result[some], places, np.take_along_axis(flat[some], places, 1), 1)
    made = as_given(result.reshape(found.shape), embeddings)
    return made.to(embeddings.dtype) if is_tensor(embeddings) else made


def _normal(embeddings: Vectors) -> Any:  # noqa: ANN401
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
