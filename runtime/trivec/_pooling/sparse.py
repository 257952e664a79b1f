"""From scores to sparse rows: what SPLADE pools, the weights of tokens, and tables of token weights.

No function here drops a NaN silently: it stays in the row as a weight, so that the caller can name the text.
"""

from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._vectors.arrays import Floats, Ids
from trivec._vectors.ragged import row_numbers
from trivec._vectors.sparse import SparseVectors

_ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "relu": np.log1p,
    "log1p_relu": lambda x: np.log1p(np.log1p(x)),
    "none": lambda x: x,
}


def check_max_active_dims(value: object) -> None:
    """Raise InputError unless it is None or a whole number above 0."""
    if value is None or (isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 1):
        return
    raise InputError(f"max_active_dims must be a whole number above 0, or None to keep all, got {value!r}.")


def sparse_rows(
    pooled: Floats,
    activation: Callable[[Floats], Floats] | str,
    threshold: float = 0.0,
    max_active_dims: int | None = None,
) -> SparseVectors:
    """The weights of pooled scores: activation, threshold and the heaviest of each row.

    Follows sentence-transformers 6.2: `SpladePooling.forward` (its activations are monotone, so the maximum over the
    tokens may be taken before them) and `select_max_active_dims`, after it. Only scores above 0 can survive relu, so
    only they meet the logarithms.

    Args:
        pooled: (B, V) float32 scores: the maximum of the logits over the tokens of a text, or for sum pooling the sum
            of the activated ones.
        activation: "relu", log(1 + x) of what relu leaves; "log1p_relu", the logarithm twice (Geng et al. 2025, used by
            OpenSearch); "none", relu alone, for scores that are activated already; or a function of (n,) scores.
        threshold: weights up to here are dropped.
        max_active_dims: how many weights a row may have, the heaviest, equal ones by lower index; None: all.

    Returns:
        B rows of dim V, indices ascending. NaN and infinite scores stay, as weights.

    Raises:
        InputError: an unknown activation, or max_active_dims that is no whole number above 0.
    """
    check_max_active_dims(max_active_dims)
    function = _ACTIVATIONS.get(activation) if isinstance(activation, str) else activation
    if function is None:
        raise InputError(f"activation {activation!r} is not one of {', '.join(_ACTIVATIONS)}.")
    count, dim = pooled.shape
    flat = pooled.ravel()
    places = np.flatnonzero(~(flat <= 0))  # (n,): above 0, or NaN
    weights = np.asarray(function(flat[places]), dtype=np.float32)
    dropped = weights <= threshold
    if dropped.any():
        places, weights = places[~dropped], weights[~dropped]
    starts = np.arange(count + 1) * dim
    indptr = np.searchsorted(places, starts)
    places -= np.repeat(starts[:-1], np.diff(indptr))
    return top_active(SparseVectors._trusted(indptr, places.astype(np.int32), weights, dim), max_active_dims)


def top_active(vectors: SparseVectors, max_active_dims: int | None) -> SparseVectors:
    """The heaviest weights of each row, by their absolute value.

    As sentence-transformers 6.2 `select_max_active_dims`, which leaves open what it keeps of equal weights: here those
    of lower index.

    Args:
        vectors: any rows.
        max_active_dims: how many weights a row may have; None: all.

    Raises:
        InputError: max_active_dims is no whole number above 0.
    """
    check_max_active_dims(max_active_dims)
    lengths = np.diff(vectors.indptr)  # (N,)
    longer = np.flatnonzero(lengths > max_active_dims) if max_active_dims is not None else lengths[:0]
    if max_active_dims is None or len(longer) == 0:
        return vectors
    kept = np.ones(vectors.nnz, dtype=bool)
    starts, stops = vectors.indptr[longer].tolist(), vectors.indptr[longer + 1].tolist()
    for start, stop in zip(starts, stops, strict=True):
        kept[start:stop] = _heaviest(vectors.values[start:stop], int(max_active_dims))
    indptr = np.concatenate([[0], np.cumsum(np.minimum(lengths, max_active_dims))])
    return SparseVectors._trusted(indptr, vectors.indices[kept], vectors.values[kept], vectors.dim)


def _heaviest(weights: Floats, count: int) -> npt.NDArray[np.bool_]:
    """Which `count` of (n,) weights, n > count, are the heaviest; of equal ones the first."""
    sizes = np.abs(weights)
    sizes[np.isnan(sizes)] = np.inf  # NaN has no order, and must not be lost
    least = np.partition(sizes, len(sizes) - count)[len(sizes) - count]
    kept: npt.NDArray[np.bool_] = sizes > least
    equal = np.flatnonzero(sizes == least)
    kept[equal[: count - np.count_nonzero(kept)]] = True
    return kept


def lexical_rows(ids: Ids, offsets: Ids, weights: Floats, dim: int, dropped_ids: Collection[int]) -> SparseVectors:
    """One weight for each token id of a text: the greatest of its occurrences.

    Follows FlagEmbedding 1.4.2 (`M3Embedder`, `_process_token_weights`): weights above 0, without special tokens.

    Args:
        ids: (T,) int64 token ids of all texts, one after the other.
        offsets: (N + 1,) int64: text i has ids[offsets[i]:offsets[i + 1]].
        weights: (T,) float32 weight of each token.
        dim: size of the vocabulary.
        dropped_ids: ids that get no weight: CLS, EOS, PAD and UNK in FlagEmbedding.

    Returns:
        N rows. NaN weights stay: a token with one has NaN.

    Raises:
        InputError: an id that is not below dim.
    """
    _check_ids(ids, dim)
    counted = ~(weights <= 0) & ~np.isin(ids, [*dropped_ids])  # (T,)
    keys = row_numbers(offsets)[counted] * dim + ids[counted]  # (n,)
    order = np.argsort(keys)
    keys = keys[order]
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    greatest = np.maximum.reduceat(weights[counted][order], firsts) if len(firsts) else np.empty(0, dtype=np.float32)
    return _keyed_rows(keys[firsts], greatest, len(offsets) - 1, dim)


def table_rows(ids: Ids, offsets: Ids, table: Floats) -> SparseVectors:
    """Each distinct token id of a text with its weight in a table: inference-free sparse vectors.

    Follows sentence-transformers 6.2 `SparseStaticEmbedding.forward`: how often a token occurs does not count, and
    negative weights stay.

    Args:
        ids: (T,) int64 token ids of all texts, one after the other.
        offsets: (N + 1,) int64: text i has ids[offsets[i]:offsets[i + 1]].
        table: (V,) float32 weight of each id.

    Returns:
        N rows of dim V, without zeros.

    Raises:
        InputError: an id that the table does not have.
    """
    _check_ids(ids, len(table))
    keys = np.sort(row_numbers(offsets) * len(table) + ids)  # (T,)
    keys = keys[np.diff(keys, prepend=-1) != 0]  # (n,); faster than np.unique
    weights = table[keys % len(table)]
    return _keyed_rows(keys[weights != 0], weights[weights != 0], len(offsets) - 1, len(table))


def _keyed_rows(keys: Ids, weights: Floats, count: int, dim: int) -> SparseVectors:
    """Rows from ascending keys row * dim + index."""
    indptr = np.searchsorted(keys, np.arange(count + 1) * dim)
    return SparseVectors._trusted(indptr, (keys % dim).astype(np.int32), weights, dim)


def _check_ids(ids: Ids, dim: int) -> None:
    if ids.size and (ids.min() < 0 or ids.max() >= dim):
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise InputError(
            f"token id {wrong} is none of the {dim} that have a weight: the tokenizer and the weights are of different "
            "vocabularies. Take both from one checkpoint."
        )
