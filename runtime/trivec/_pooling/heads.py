"""What the outputs of one run become: pooled states, weights of terms, vectors of tokens."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._errors import ModelFormatError
from trivec._model.manifest import Multi, Pooling, Sparse
from trivec._pooling.dense import pool
from trivec._pooling.sparse import lexical_rows, sparse_rows, table_rows, top_active
from trivec._tokens.batch import Batch, Tokens
from trivec._vectors.arrays import Floats, normalize
from trivec._vectors.multi import MultiVectors
from trivec._vectors.ragged import reduce_rows, row_numbers
from trivec._vectors.sparse import SparseVectors


class Selection(NamedTuple):
    """Which terms of a sparse row are kept."""

    threshold: float = 0.0
    """Weights must be above it."""
    max_active_dims: int | None = None
    """The heaviest so many; None: all."""


class Wanted(NamedTuple):
    """What one run is asked for of each text."""

    dense: bool = False
    sparse: Selection | None = None
    multi: bool = False
    states: bool = False
    """Token embeddings (S, H) in the place of the multi-vector head's."""
    width: int | None = None
    """Numbers that are kept of a dense vector, or of a token's of late interaction; None: all."""
    score: bool = False
    """Logits of pairs, and nothing else."""

    @property
    def token_width(self) -> int | None:
        """Numbers that are kept of a token's vector, of late interaction; None: all."""
        return self.width if self.multi and not self.dense else None


def pool_batch(states: Floats, batch: Batch, pooling: Pooling, prompt_length: int) -> Floats:
    """Pool the token embeddings (T, H) of B texts: (B, H * modes)."""
    lengths = batch.lengths
    if len(lengths) == 1 or (lengths == lengths[0]).all():
        return pool(states.reshape(len(batch), -1, states.shape[-1]), pooling, prompt_length)
    found = [pool(part[None], pooling, prompt_length) for part in np.split(states, batch.offsets[1:-1])]
    return np.concatenate(found)


def finite_texts(numbers: Floats, offsets: npt.NDArray[np.int64] | None) -> npt.NDArray[np.bool_]:
    """(B,) whether all numbers of a text are finite: (T, ...) of tokens by their texts' offsets, or (B, V) of texts."""
    if offsets is None:
        return np.asarray(np.isfinite(numbers.max(1)))  # numpy's maximum of a row with a NaN is NaN
    broken = ~np.isfinite(numbers.reshape(len(numbers), math.prod(numbers.shape[1:]))).all(1)  # (T,), T may be 0
    return np.asarray(np.bincount(row_numbers(offsets)[broken], minlength=len(offsets) - 1) == 0)


def token_vectors(head: Multi, batch: Batch, made: Floats, width: int | None = None) -> MultiVectors:
    """The vectors (T, D) of tokens, cut to a width, without those that the head leaves out."""
    lengths, made = batch.lengths, made[:, :width]
    stays, counts = _staying(head, batch)
    if stays is not None:
        kept = made[stays]
    elif (lengths == lengths[0]).all():  # views, and no copy of a long text's vectors
        kept = made.reshape(len(batch), -1, made.shape[1])[:, head.skip :].reshape(-1, made.shape[1])
    else:
        kept = made[batch.positions() >= head.skip]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return MultiVectors._trusted(normalize(kept) if head.normalize else kept, offsets)


def vector_counts(head: Multi, tokens: Tokens) -> npt.NDArray[np.int64]:
    """(N,) how many vectors `token_vectors` makes of each text."""
    return _staying(head, Batch(tokens.ids, tokens.offsets))[1]


def _staying(head: Multi, batch: Batch) -> tuple[npt.NDArray[np.bool_] | None, npt.NDArray[np.int64]]:
    """Which tokens have a vector, (T,), None where only the first ones have none; and how many of each text, (B,)."""
    if not head.dropped_ids:
        return None, np.maximum(batch.lengths - head.skip, 0)
    stays = has_vector(head, batch.ids, batch.positions())
    return stays, reduce_rows(np.add, stays.astype(np.int64), batch.offsets)


def has_vector(head: Multi, ids: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(T,) which tokens have a vector, by their ids (T,) and their places in their texts (T,)."""
    found: npt.NDArray[np.bool_] = ~np.isin(ids, head.dropped_ids) & (positions >= head.skip)
    return found


def term_weights(
    head: Sparse, batch: Batch, made: Floats | None, table: Floats | None, select: Selection
) -> SparseVectors:
    """Weights of terms, from what the graph made (B, V) of texts or (T,) of tokens, or from a table (V,)."""
    if head.kind == "splade" and made is not None:
        return sparse_rows(made, head.activation, select.threshold, select.max_active_dims)
    if head.kind == "lexical" and made is not None:
        rows = lexical_rows(batch.ids, batch.offsets, made, head.dim, frozenset(head.dropped_ids))
    elif table is not None:
        rows = table_rows(batch.ids, batch.offsets, table)
    else:
        raise ModelFormatError(f"the array {head.array!r} of a sparse head is missing.")
    if select.threshold > 0:
        rows = rows.above(select.threshold)
    return rows if select.max_active_dims is None else top_active(rows, select.max_active_dims)
