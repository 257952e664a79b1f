"""Similarities of all pairs of vectors, and of vectors side by side: those of `trivec.util` and of encoders."""

from collections.abc import Callable
from typing import Any

import numpy as np

from trivec._errors import InputError
from trivec._vectors.rows import (
    EPSILON,
    Array,
    Pair,
    Vectors,
    block_of,
    slices,
    squares,
    take_pair,
    unit,
    work_type,
)
from trivec._vectors.similarity import similarity, similarity_pairwise
from trivec._vectors.sparse import SparseVectors
from trivec._vectors.torch_tensors import tensors_for_tensors

SPARSE_ROWS = 64  # rows of a vocabulary's width that are made dense at once, where no sparse form exists
_CACHED = 1 << 17  # numbers of a block that a core works on several times in a row
_CALLED = ("a", "b")
_CLOSE = 1e-6  # below this part of |a|^2 + |b|^2, |a|^2 + |b|^2 - 2ab is mostly rounding


def cos_sim(a: Vectors, b: Vectors) -> Any:  # noqa: ANN401
    """Cosine of the angle between a[i] and b[j], for all pairs.

    a . b / (max(|a|, 1e-12) max(|b|, 1e-12)), as sentence_transformers.util.cos_sim 6.2; 0 where one is all zeros.

    Args:
        a: (N, D) or (D,): see `trivec.util` for what vectors may be.
        b: (M, D) or (D,).

    Returns:
        (N, M) float32; float64 where float64 or integers of 32 bits or more came. A torch tensor where a or b is one,
        or a list of them, without a gradient.

    Raises:
        InputError: no vectors, other widths, or a number that is not finite (its row is named).
    """
    return all_pairs("cosine", a, b)


def dot_score(a: Vectors, b: Vectors) -> Any:  # noqa: ANN401
    """Dot product of a[i] and b[j], for all pairs. Arguments, result and errors are those of `cos_sim`."""
    return all_pairs("dot", a, b)


def euclidean_sim(a: Vectors, b: Vectors) -> Any:  # noqa: ANN401
    """-|a[i] - b[j]|, the negative Euclidean distance, for all pairs, as sentence_transformers.util.euclidean_sim 6.2.

    |a|^2 + |b|^2 - 2ab in float64, and from the differences where the two are so close that this would cancel; the
    reference does the former in float32. Arguments, result and errors are those of `cos_sim`.
    """
    return all_pairs("euclidean", a, b)


def manhattan_sim(a: Vectors, b: Vectors) -> Any:  # noqa: ANN401
    """Negative sum of the absolute differences of a[i] and b[j], for all pairs.

    As sentence_transformers.util.manhattan_sim 6.2. Arguments, result and errors are those of `cos_sim`.
    """
    return all_pairs("manhattan", a, b)


def pairwise_cos_sim(a: Vectors, b: Vectors) -> Any:  # noqa: ANN401
    """Cosine of the angle between a[i] and b[i].

    Args:
        a: (N, D); (1, D) or (D,) stands beside every row of b.
        b: (N, D); (1, D) or (D,) stands beside every row of a.

    Returns:
        (N,) float32, each computed in float64 and rounded once; float64 where float64 or integers of 32 bits or more
        came. Of (D,) and (D,) a single number. A torch tensor where a or b is one, or a list of them.

    Raises:
        InputError: no vectors, other widths or numbers of rows, or a number that is not finite (its row is named).
    """
    return side_by_side("cosine", a, b)


def pairwise_dot_score(a: Vectors, b: Vectors) -> Any:  # noqa: ANN401
    """Dot product of a[i] and b[i]. Arguments, result and errors are those of `pairwise_cos_sim`."""
    return side_by_side("dot", a, b)


def pairwise_euclidean_sim(a: Vectors, b: Vectors) -> Any:  # noqa: ANN401
    """-|a[i] - b[i]|. Arguments, result and errors are those of `pairwise_cos_sim`."""
    return side_by_side("euclidean", a, b)


def pairwise_manhattan_sim(a: Vectors, b: Vectors) -> Any:  # noqa: ANN401
    """-sum(|a[i] - b[i]|). Arguments, result and errors are those of `pairwise_cos_sim`."""
    return side_by_side("manhattan", a, b)


# ---- all pairs -------------------------------------------------------------------------------------------------------


@tensors_for_tensors
def all_pairs(name: str, a: Vectors, b: Vectors, called: tuple[str, str] = _CALLED) -> Array:
    """`cos_sim` and its like by the name of the similarity; messages call both sides by theirs."""
    left, right, _ = take_pair(a, b, called)
    if isinstance(left, SparseVectors) or isinstance(right, SparseVectors):
        return _sparse_pairs(name, left, right)
    dtype = work_type(left, right)
    result = np.empty((len(left), len(right)), dtype=dtype)
    inner = np.dtype(np.float64) if name == "euclidean" else dtype
    most = 1024 if name == "euclidean" else None  # whose (B, B) temporaries are bounded as well
    for rows in slices(len(left), left.shape[1] * inner.itemsize, most):
        one = _ready(name, block_of(left, rows, inner), called[0], rows.start)
        for columns in slices(len(right), right.shape[1] * inner.itemsize, most):
            other = _ready(name, block_of(right, columns, inner), called[1], columns.start)
            _INTO[name](one, other, result[rows, columns])
    return result


def _ready(name: str, rows: Array, side: str, start: int) -> Array:
    if name == "cosine":
        return unit(rows, side, start)
    squares(rows, side, start)  # raises where a number is not finite
    return rows


def _products_into(a: Array, b: Array, result: Array) -> None:
    np.matmul(a, b.T, out=result)


def _euclidean_into(a: Array, b: Array, result: Array) -> None:
    """-|a - b| of (N, D) and (M, D) float64 into (N, M)."""
    sums = np.einsum("nd,nd->n", a, a)[:, None] + np.einsum("md,md->m", b, b)  # (N, M)
    found = sums - 2 * (a @ b.T)
    close = np.flatnonzero(found < _CLOSE * sums)
    for some in slices(len(close), 8 * a.shape[1]):
        i, j = np.divmod(close[some], len(b))
        found[i, j] = np.square(a[i] - b[j]).sum(1)
    result[:] = -np.sqrt(found)


def manhattan_into(a: Array, b: Array, result: Array) -> None:
    """-sum(|a - b|) of (N, D) and (M, D) into (N, M); what a pair gets does not depend on the others."""
    step = max(1, _CACHED // max(b.shape[1], 1))
    space = np.empty((min(step, len(b)), b.shape[1]), dtype=b.dtype)
    for start in range(0, len(b), step):
        some = b[start : start + step]
        differences = space[: len(some)]
        for row, target in zip(a, result[:, start : start + step], strict=True):
            np.subtract(some, row, out=differences)
            np.abs(differences, out=differences)
            np.negative(differences.sum(1), out=target)


_INTO: dict[str, Callable[[Array, Array, Array], None]] = {
    "cosine": _products_into,
    "dot": _products_into,
    "euclidean": _euclidean_into,
    "manhattan": manhattan_into,
}


def _sparse_pairs(name: str, a: Array | SparseVectors, b: Array | SparseVectors) -> Array:
    if not isinstance(a, SparseVectors) or not isinstance(b, SparseVectors):
        raise InputError("expected both sides to be sparse.")  # take_pair has seen to it
    if name != "manhattan":
        return similarity(name, a, b)
    result = np.empty((len(a), len(b)), dtype=np.float32)
    for start in range(0, len(b), SPARSE_ROWS):
        result[:, start : start + SPARSE_ROWS] = similarity(name, a, b[start : start + SPARSE_ROWS])
    return result


# ---- side by side ----------------------------------------------------------------------------------------------------


@tensors_for_tensors
def side_by_side(name: str, a: Vectors, b: Vectors, called: tuple[str, str] = _CALLED) -> Array:
    """`pairwise_cos_sim` and its like by the name of the similarity."""
    pair = take_pair(a, b, called)
    left, right = pair.a, pair.b
    if len(left) != len(right) and 1 not in (len(left), len(right)):
        raise InputError(
            f"row i is compared with row i, but {called[0]} has {len(left)} rows and {called[1]} has {len(right)}. "
            f"For all pairs type: {_NAMES[name] if called == _CALLED else 'encoder.similarity'}({', '.join(called)})"
        )
    count = len(right) if len(left) == 1 else len(left)
    if isinstance(left, SparseVectors) and isinstance(right, SparseVectors):
        everywhere = np.zeros(count, dtype=np.int64)
        one, other = (side if len(side) == count else side[everywhere] for side in (left, right))
        return _shaped(similarity_pairwise(name, one, other), pair)
    return _shaped(_dense_side_by_side(name, np.asarray(left), np.asarray(right), count, called), pair)


def _dense_side_by_side(name: str, a: Array, b: Array, count: int, called: tuple[str, str]) -> Array:
    result = np.empty(count, dtype=work_type(a, b))
    for some in slices(count, 8 * a.shape[1]):
        one, other = (
            block_of(side, some if len(side) == count else slice(None), np.dtype(np.float64)) for side in (a, b)
        )
        sizes = [
            np.sqrt(squares(rows, side, some.start if len(source) == count else 0, result.dtype))
            for rows, side, source in ((one, called[0], a), (other, called[1], b))
        ]
        if name == "cosine":
            found = np.einsum("nd,nd->n", *np.broadcast_arrays(one, other))
            found = found / (np.maximum(sizes[0], EPSILON) * np.maximum(sizes[1], EPSILON))
        elif name == "dot":
            found = np.einsum("nd,nd->n", *np.broadcast_arrays(one, other))
        elif name == "euclidean":
            found = -np.sqrt(np.square(one - other).sum(1))
        else:
            found = -np.abs(one - other).sum(1)
        result[some] = found
    return result


def _shaped(found: Array, pair: Pair) -> Array:
    if not all(pair.single):
        return found
    one: Array = found[0]  # a number, which has shape ()
    return one


_NAMES = {"cosine": "cos_sim", "dot": "dot_score", "euclidean": "euclidean_sim", "manhattan": "manhattan_sim"}
