"""What was found between two sides, and what follows from it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from trivec._gate.figures import HEADS, Bounds
from trivec.compare._judged import Ndcg

Verdict = Literal["interchangeable", "mix with this loss", "encode again"]
VERDICTS: tuple[Verdict, ...] = ("interchangeable", "mix with this loss", "encode again")
"""Best first."""
NDCG_NOISE, NDCG_LOSS = 0.001, 0.01
"""What a search may lose by mixing and be called the same, or worth mixing: a tenth of a point, and one point."""
KEPT = 0.99
"""Share of neighbours that stay, of vectors that are called interchangeable."""


class SideFacts(NamedTuple):
    """What is compared."""

    name: str
    """A folder, a name on the Hub, or a file."""
    what: str
    """ "fp32 on cpu", or "stored"."""
    fingerprint: str | None
    """Of the model and the options of the call; None where a file does not say."""
    engine: str | None


class Moved(NamedTuple):
    """A text whose vectors are far apart."""

    cosine: float
    text: str
    """Its beginning; "" where no texts are known."""


@dataclass(frozen=True)
class HeadDifference:
    """What changes in one kind of vectors."""

    dims: tuple[int, int]
    """Numbers of a vector, or terms, of A and of B."""
    equal: bool
    """To the bit."""
    cosine_min: float | None
    """None where vectors cannot be compared: of other dims, or of other tokens."""
    cosine_mean: float | None
    top10_kept: float
    """Mean share of a text's ten nearest neighbours in A that it has in B as well; 1 of up to 11 texts,
    each of which has all others."""
    texts_changed: float
    """Share of the texts whose ten nearest neighbours are others."""
    ndcg: Ndcg | None
    """None without judgements."""
    moved: tuple[Moved, ...]
    """The texts that are furthest apart, the furthest first."""
    norm_change: float = 0.0
    """Of dense vectors, the most by which the norm of a text's vector changes, as a share of the larger one: what a
    dot product and a distance see, and a cosine does not."""


@dataclass(frozen=True)
class Difference:
    """What changes from A to B."""

    a: SideFacts
    b: SideFacts
    texts: int
    heads: Mapping[str, HeadDifference]
    """By kind of vectors: "dense", "sparse", "colbert"."""

    @property
    def verdict(self) -> Verdict:
        """What may be done with vectors of A where B runs: the worst of all heads.

        "interchangeable": as close as fp16 has to be to fp32, in norm as well, 99 % of neighbours stay, and nDCG@10
        falls by no more than 0.1 points. "mix with this loss": as close as int8 has to be, and nDCG@10 falls by no more
        than 1 point. "encode again": neither.
        """
        return max((_judge(head, found)[0] for head, found in self.heads.items()), key=VERDICTS.index)

    @property
    def reason(self) -> str:
        """Why: the figures that decide."""
        return "; ".join(f"{head}: {_judge(head, found)[1]}" for head, found in self.heads.items())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        heads = {}
        for head, found in self.heads.items():
            moved = [moved._asdict() for moved in found.moved]
            judged = None if found.ndcg is None else found.ndcg._asdict()
            heads[head] = {**asdict(found), "dims": list(found.dims), "moved": moved, "ndcg": judged}
        sides = {"a": self.a._asdict(), "b": self.b._asdict()}
        return {**sides, "texts": self.texts, "heads": heads, "verdict": self.verdict, "reason": self.reason}


def _judge(head: str, found: HeadDifference) -> tuple[Verdict, str]:
    """What follows for one head, and why."""
    if found.cosine_min is None or found.cosine_mean is None:
        other = "dimensions" if found.dims[0] != found.dims[1] else "tokens"
        return "encode again", f"vectors of other {other} ({found.dims[0]} and {found.dims[1]}) have no common space"
    reason = (
        f"cosine at least {found.cosine_min:.6f}, mean {found.cosine_mean:.6f}, "
        f"{1 - found.top10_kept:.2%} of the top 10 change"
    )
    if found.equal:
        return "interchangeable", "equal to the bit"
    loss = 0.0
    if found.ndcg is not None and found.ndcg.mixed is not None:
        own = max(value for value in (found.ndcg.a, found.ndcg.b) if value is not None)
        loss = own - found.ndcg.mixed
        reason += f", nDCG@10 {100 * found.ndcg.mixed:.2f} where {100 * own:.2f} is possible"
    close, loose = HEADS[head]["fp16"], HEADS[head]["int8"]
    if found.norm_change > _norm_bound(close):
        reason += f", norms change by up to {found.norm_change:.2%}"
    elif found.cosine_min >= close.cosine_min and found.top10_kept >= KEPT and loss <= NDCG_NOISE:
        return "interchangeable", reason
    bounds = (
        (-found.norm_change, -_norm_bound(loose)),
        (found.cosine_min, loose.cosine_min),
        (found.cosine_mean, loose.cosine_mean or 0.0),
        (found.top10_kept, loose.top10_overlap or 0.0),
        (-loss, -NDCG_LOSS),
    )
    return ("mix with this loss" if all(value >= bound for value, bound in bounds) else "encode again"), reason


def _norm_bound(bounds: Bounds) -> float:
    """The change of a norm that moves a vector as far as the least cosine that is allowed."""
    return math.sqrt(2 * (1 - bounds.cosine_min))
