"""Figures of rankings, query by query: arithmetic on arrays, no encoder and no corpus."""

import numpy as np
import numpy.typing as npt

from trivec._gate.figures import cosine
from trivec._vectors.arrays import Floats

_BLOCK = 1 << 14  # vectors that are float64 at once
Doubles = npt.NDArray[np.float64]
Gains = npt.NDArray[np.int64]
Ranking = npt.NDArray[np.int64]
"""(Q, K) rows of the documents, best first; NONE where a query has fewer hits."""
NONE = -1


def ndcg(reached: Gains, possible: Gains, k: int = 10) -> Doubles:
    """Normalized discounted cumulative gain at `k` of each query, as trec_eval's ndcg_cut.

    A hit at rank r counts its relevance / log2(r + 1); the sum is divided by that of the best possible ranking
    (Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR techniques", 2002).

    Args:
        reached: (Q, K) relevance of the hits, best first, 0 for none.
        possible: (Q, P) relevance of everything that was judged, in any order, 0 for none.
        k: ranks that count.

    Returns:
        (Q,) between 0 and 1; 0 for a query to which nothing is relevant.
    """
    ideal = _discounted(-np.sort(-possible, axis=1), k)  # (Q,)
    return _share(_discounted(reached, k), ideal)


def recall(reached: Gains, possible: Gains, k: int = 100) -> Doubles:
    """(Q,) share of the relevant documents that are among the first `k` hits, as trec_eval's recall.

    Args:
        reached: (Q, K), as of `ndcg`.
        possible: (Q, P), as of `ndcg`.
        k: ranks that count.
    """
    return _share((reached[:, :k] > 0).sum(1).astype(np.float64), (possible > 0).sum(1).astype(np.float64))


def reciprocal_rank(reached: Gains, k: int = 10) -> Doubles:
    """(Q,) 1 / rank of the first relevant hit among the first `k`, 0 where none is: MRR is its mean.

    Args:
        reached: (Q, K), as of `ndcg`.
        k: ranks that count.
    """
    relevant = reached[:, :k] > 0  # (Q, k)
    first = relevant.argmax(1) if relevant.shape[1] else np.zeros(len(relevant), np.int64)  # (Q,)
    return np.where(relevant.any(1), 1 / (first + 1.0), 0.0)


def interval(values: Doubles, resamples: int = 10_000) -> tuple[float, float]:
    """The middle 95 % of the mean of values (Q,) over resamples with replacement (Efron's percentile bootstrap)."""
    rows = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))  # (R, Q)
    low, high = np.percentile(values[rows].mean(1), (2.5, 97.5))
    return float(low), float(high)


def cosines(a: Floats, b: Floats) -> Doubles:
    """(N,) cosine of each row of a (N, D) and the same row of b (N, D), in float64, in bounded memory."""
    return np.concatenate([cosine(a[i : i + _BLOCK], b[i : i + _BLOCK]) for i in range(0, len(a), _BLOCK)])


def overlap(a: Ranking, b: Ranking, k: int = 10) -> Doubles:
    """(Q,) share of the first `k` hits of a (Q, K) that are among the first `k` of b (Q, K) as well.

    Of a query with fewer hits, the share of the longer list; 1 where neither has any.
    """
    both = _common(a[:, :k], b[:, :k]).sum(1)  # (Q,)
    length = np.maximum((a[:, :k] != NONE).sum(1), (b[:, :k] != NONE).sum(1))
    return np.where(length > 0, both / np.maximum(length, 1), 1.0)


def rank_biased_overlap(a: Ranking, b: Ranking, p: float = 0.9) -> Doubles:
    """(Q,) extrapolated rank-biased overlap: 1 of equal rankings, 0 of rankings without a common document.

    Equation 32 of Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", 2010, of lists of one
    length: the agreement at each depth, weighted by p to its power, so that the first ranks count most.

    Args:
        a: (Q, K) hits.
        b: (Q, K) hits.
        p: how far the reader goes on from one rank to the next: with 0.9 the first ten ranks have 86 % of the weight.
    """
    lengths = np.maximum((a != NONE).sum(1), (b != NONE).sum(1))  # (Q,)
    depths = np.arange(1, a.shape[1] + 1)  # (K,)
    agreed = np.stack([_common(a[:, :d], b[:, :d]).sum(1) for d in depths] or [np.zeros(len(a))], axis=1)  # (Q, K)
    weights = np.where(depths <= lengths[:, None], (1 - p) / p * p**depths / depths, 0.0)  # (Q, K)
    rest = agreed.max(1) / np.maximum(lengths, 1) * p**lengths  # (Q,)
    return np.where(lengths > 0, (agreed[:, : len(depths)] * weights).sum(1) + rest, 1.0)


def _discounted(gains: Gains, k: int) -> Doubles:
    """(Q,) of gains (Q, K)."""
    depth = min(k, gains.shape[1])
    return np.asarray(gains[:, :depth] @ (1 / np.log2(np.arange(2, depth + 2))))


def _share(part: Doubles, whole: Doubles) -> Doubles:
    """(Q,) 0 where there is nothing to reach."""
    found: Doubles = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return found


def _common(a: Ranking, b: Ranking) -> npt.NDArray[np.bool_]:
    """(Q, K) whether a hit of a is one of b as well."""
    return np.asarray(((a[:, :, None] == b[:, None, :]) & (a[:, :, None] != NONE)).any(2))
