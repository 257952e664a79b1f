"""Are a variant's scores of pairs faithful to torch's? Figures on the verification pairs, and their bounds.

Differences are of logits, before any activation, in standard deviations of the reference's logits over the pairs
(sigma): what matters of a score is its place among others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trivec._gate.figures import LISTED
from trivec._vectors.arrays import Floats

_APART = 0.25  # sigmas between two scores whose order counts
_LEAST_SIGMA = 1e-6  # where all pairs have one score
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScoreFigures:
    """How close a variant's logits are to the reference's."""

    sigma: float
    """Standard deviation of the reference's logits over the pairs; of several labels the largest."""
    rms: float
    """Root mean square of the differences, in sigmas."""
    largest: float
    """The largest difference, in sigmas."""
    max_diff: float
    """The same as a number."""
    spearman: float
    """Rank correlation; of several labels the least."""
    swapped: float
    """Share of the pairs of scores further than a quarter sigma apart that are in another order."""
    batch_diff: float
    by_kind: dict[str, dict[str, float]]
    """Root mean square and largest difference, in sigmas."""
    worst: int
    """Index of the pair with the largest difference."""
    lowest: tuple[tuple[int, float], ...] = ()
    """Index and difference, in sigmas, of the pairs that are furthest off, worst first."""

    @property
    def badness(self) -> float:
        """The greater, the further off."""
        return self.rms

    def cells(self) -> dict[str, str]:
        """The figures of a table's row, by column."""
        return {
            "rms": f"{self.rms:.4f}",
            "max": f"{self.largest:.4f}",
            "Spearman": f"{self.spearman:.4f}",
            "reordered": f"{self.swapped:.4%}",
        }

    def of_kind(self, kind: str) -> str:
        """Its figures of one kind of texts: the root mean square and the largest difference."""
        found = self.by_kind[kind]
        return f"{found['rms']:.4f} / {found['max']:.4f}"


@dataclass(frozen=True)
class ScoreBounds:
    """What a variant must reach, in sigmas; None: not asked."""

    largest: float
    rms: float | None = None
    spearman: float | None = None
    swapped: float | None = None
    batch_diff: float = 1e-5
    """As a number, of logits whose sigma is at most 1; of others it grows with sigma."""
    least_sigma: float = 0.0
    """Logits that vary less are judged as if they varied so much."""

    def missed(self, figures: ScoreFigures) -> list[str]:
        """Each bound that is not kept, as a phrase."""
        found = []
        allowed = self.largest * max(figures.sigma, self.least_sigma)
        if not figures.max_diff <= allowed:
            found.append(f"largest difference {figures.max_diff:.2e} > {allowed:.2e}, {self.largest} sigma")
        if self.rms is not None and not figures.rms <= self.rms:
            found.append(f"rms difference {figures.rms:.4f} sigma > {self.rms}")
        if self.spearman is not None and not figures.spearman >= self.spearman:
            found.append(f"Spearman {figures.spearman:.4f} < {self.spearman}")
        if self.swapped is not None and not figures.swapped <= self.swapped:
            found.append(f"{figures.swapped:.2%} of the scores further than {_APART} sigma apart change their order")
        if not figures.batch_diff <= self.batch_diff * max(1.0, figures.sigma):
            found.append(f"alone and in a batch differ by {figures.batch_diff:.2e} > {self.batch_diff}")
        return found

    def asked(self) -> str:
        """The bounds, for people."""
        parts = [f"max {self.largest}"]
        parts += [f"rms {self.rms}"] if self.rms is not None else []
        parts += [f"Spearman {self.spearman}"] if self.spearman is not None else []
        parts += [f"reordered {self.swapped:.2%}"] if self.swapped is not None else []
        return ", ".join(parts)


SCORE_BOUNDS = {
    "fp32": ScoreBounds(largest=1e-4, least_sigma=1.0),
    "bf16": ScoreBounds(largest=0.16),  # three bits fewer than fp16 has
    "fp16": ScoreBounds(largest=0.02),
    "int8": ScoreBounds(largest=0.6, rms=0.1, spearman=0.99, swapped=0.005),
}


def compare_scores(logits: Floats, alone: Floats, stride: int, reference: Floats, kinds: Sequence[str]) -> ScoreFigures:
    """Figures of one variant.

    Args:
        logits: (N, L) of the variant, all pairs in one call.
        alone: (M, L) of the variant, every stride-th pair in a call of its own.
        stride: see `alone`.
        reference: (N, L) of torch in float32.
        kinds: what each pair stands for.
    """
    ours, theirs = logits.astype(np.float64), reference.astype(np.float64)  # (N, L)
    spread = np.maximum(theirs.std(0), _LEAST_SIGMA)  # (L,)
    off = np.nan_to_num(np.abs(ours - theirs) / spread, nan=np.inf)  # (N, L)
    worst, labels = off.max(1), np.asarray(kinds)  # (N,)
    by_kind = {}
    for kind in sorted(set(kinds)):
        of_kind = off[labels == kind]
        by_kind[kind] = {"rms": round(_rms(of_kind), 6), "max": round(float(of_kind.max()), 6)}
    columns = range(theirs.shape[1])
    return ScoreFigures(
        sigma=float(spread.max()),
        rms=max(_rms(off[:, i]) for i in columns),
        largest=float(worst.max()),
        max_diff=float(np.nan_to_num(np.abs(ours - theirs), nan=np.inf).max()),
        spearman=min(spearman(ours[:, i], theirs[:, i]) for i in columns),
        swapped=max(swapped(ours[:, i], theirs[:, i], _APART * float(spread[i])) for i in columns),
        batch_diff=float(np.abs(logits[::stride] - alone).max(initial=0.0)),
        by_kind=by_kind,
        worst=int(worst.argmax()),
        lowest=tuple((int(i), float(worst[i])) for i in np.argsort(-worst, kind="stable")[:LISTED]),
    )


def _rms(off: Doubles) -> float:
    return float(np.sqrt(np.square(off).mean()))


def spearman(ours: Doubles, theirs: Doubles) -> float:
    """Rank correlation of two lists of numbers (N,); equal ones share their ranks' mean, and constants give 1 or 0."""
    a, b = _ranks(ours), _ranks(theirs)
    a, b = a - a.mean(), b - b.mean()
    norms = float(np.sqrt((a @ a) * (b @ b)))
    if not norms:
        return float(not a.any() and not b.any())
    return float(a @ b) / norms


def _ranks(values: Doubles) -> Doubles:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)  # the rank of the last of each value
    ranks: Doubles = (last - (counts - 1) / 2)[places]
    return ranks


def swapped(ours: Doubles, theirs: Doubles, apart: float) -> float:
    """Share of the pairs among N numbers that are further than `apart` in theirs and in another order in ours."""
    far = changed = 0
    for row in range(len(theirs)):
        gaps, mine = theirs[row + 1 :] - theirs[row], ours[row + 1 :] - ours[row]
        wide = np.abs(gaps) > apart
        far += int(wide.sum())
        changed += int((np.sign(mine[wide]) != np.sign(gaps[wide])).sum())
    return changed / far if far else 0.0
