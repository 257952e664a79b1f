"""Is a variant faithful to torch? Figures on the verification texts, and the bounds they must keep."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trivec._pool import normalize

LISTED = 5  # texts that are named as furthest off
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bounds:
    """What a variant must reach; None: not asked."""

    cosine_min: float
    cosine_mean: float | None = None
    top10_overlap: float | None = None
    batch_diff: float = 1e-5


BOUNDS = {
    "fp32": Bounds(cosine_min=0.99999),
    "fp16": Bounds(cosine_min=0.9995),
    "int8": Bounds(cosine_min=0.97, cosine_mean=0.995, top10_overlap=0.9),
}


@dataclass(frozen=True)
class Figures:
    """How close a variant's vectors are to the reference's."""

    cosine_min: float
    cosine_mean: float
    top10_overlap: float
    batch_diff: float
    by_kind: dict[str, dict[str, float]]
    worst: int
    """Index of the text with the least cosine."""
    lowest: tuple[tuple[int, float], ...] = ()
    """Index and cosine of the texts that are furthest off, worst first."""


def compare(vectors: Vectors, alone: Vectors, stride: int, reference: Vectors, kinds: Sequence[str]) -> Figures:
    """Figures of one variant.

    Args:
        vectors: (N, D) of the variant, all texts in one call.
        alone: (M, D) of the variant, every stride-th text in a call of its own.
        stride: see `alone`.
        reference: (N, D) of torch in float32.
        kinds: what each text stands for.
    """
    cosines = cosine(vectors, reference)  # (N,)
    labels = np.asarray(kinds)
    by_kind = {}
    for kind in sorted(set(kinds)):
        of_kind = cosines[labels == kind]
        by_kind[kind] = {"min": round(float(of_kind.min()), 6), "mean": round(float(of_kind.mean()), 6)}
    return Figures(
        float(cosines.min()),
        float(cosines.mean()),
        top_overlap(vectors, reference),
        float(np.abs(vectors[::stride] - alone).max(initial=0.0)),
        by_kind,
        int(cosines.argmin()),
        tuple((int(i), float(cosines[i])) for i in np.argsort(cosines, kind="stable")[:LISTED]),
    )


def failures(figures: Figures, bounds: Bounds) -> list[str]:
    """Each bound that is not kept, as a phrase."""
    found = []
    if not figures.cosine_min >= bounds.cosine_min:
        found.append(f"cosine min {figures.cosine_min:.6f} < {bounds.cosine_min}")
    if bounds.cosine_mean is not None and not figures.cosine_mean >= bounds.cosine_mean:
        found.append(f"cosine mean {figures.cosine_mean:.6f} < {bounds.cosine_mean}")
    if bounds.top10_overlap is not None and not figures.top10_overlap >= bounds.top10_overlap:
        found.append(f"top-10 overlap {figures.top10_overlap:.4f} < {bounds.top10_overlap}")
    if not figures.batch_diff <= bounds.batch_diff:
        found.append(f"alone and in a batch differ by {figures.batch_diff:.2e} > {bounds.batch_diff}")
    return found


def cosine(a: Vectors, b: Vectors) -> npt.NDArray[np.float64]:
    """Row by row (N,), in float64; two zero rows count as equal, one as NaN-free 0."""
    x, y = a.astype(np.float64), b.astype(np.float64)  # (N, D)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)  # (N,)
    both_zero = ~x.any(1) & ~y.any(1)
    result: npt.NDArray[np.float64] = np.where(both_zero, 1.0, (x * y).sum(1) / np.maximum(norms, 1e-300))
    return np.nan_to_num(result, nan=-1.0)


def top_overlap(vectors: Vectors, reference: Vectors, k: int = 10) -> float:
    """Mean share of each text's k nearest neighbours (by cosine, itself excluded) that the reference has too.

    A neighbour counts where the reference scores it no lower than its own k-th: texts of one score are exchangeable.
    """
    n = len(reference)
    if n <= k:
        return 1.0
    ours, theirs = _scores(vectors), _scores(reference)  # (N, N)
    nearest = np.argpartition(-ours, k, axis=1)[:, :k]  # (N, k)
    threshold = -np.partition(-theirs, k - 1, axis=1)[:, k - 1 : k]  # (N, 1)
    kept = np.take_along_axis(theirs, nearest, axis=1) >= threshold - 1e-6  # (N, k)
    return float(kept.mean())


def _scores(vectors: Vectors) -> Vectors:
    unit = normalize(vectors)
    scores: Vectors = unit @ unit.T  # (N, N)
    np.fill_diagonal(scores, -np.inf)
    return scores
