"""One variant of one route against a reference: encoded together and alone, compared head by head."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from trivec._gate.figures import (
    HEADS,
    SEARCH_OVERLAP,
    Bounds,
    Figures,
    compare,
    compare_multi,
    compare_sparse,
    search_overlap,
)
from trivec._gate.score_figures import SCORE_BOUNDS, ScoreBounds, ScoreFigures, compare_scores
from trivec._gate.texts import Pair, Text
from trivec._vectors.arrays import Floats
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors

ALONE = 48  # texts that are also encoded each in a call of its own
AnyBounds = Bounds | ScoreBounds
AnyFigures = Figures | ScoreFigures
QUERY, DOCUMENT = "query", "document"
"""The routes of a late interaction."""


class Represents(Protocol):
    """What is asked of an encoder, or of a reranker."""

    @property
    def heads(self) -> tuple[str, ...]:
        """What it gives."""

    @property
    def precision(self) -> str:
        """The variant that runs."""

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def engine_fingerprint(self) -> str:
        """What computes, in words."""

    def represent(self, inputs: Any, **options: Any) -> HybridVectors:  # noqa: ANN401
        """What it makes of texts, or pairs."""


def bounds_of(precision: str) -> dict[str, AnyBounds]:
    """The gate of a variant, by head."""
    found: dict[str, AnyBounds] = {head: by_precision[precision] for head, by_precision in HEADS.items()}
    return {**found, "score": SCORE_BOUNDS[precision]}


def missed(figures: AnyFigures, bounds: AnyBounds) -> list[str]:
    """Each bound that is not kept, as a phrase."""
    return cast("Any", bounds).missed(figures)  # type: ignore[no-any-return]  # those of one head


@dataclass(frozen=True)
class Check:
    """One variant of one route on one device."""

    precision: str
    device: str
    route: str
    figures: AnyFigures
    failed: list[str]
    worst_text: str
    texts: int
    ms_per_text: float
    worst_texts: tuple[tuple[str, float], ...] = ()
    """The texts that are furthest off, worst first, with their cosines (pairs: their differences)."""
    head: str = "dense"
    """ "dense", "sparse" or "colbert": which of a route's representations; or "score"."""
    others: tuple["Check", ...] = ()
    """An export's checks of the other routes and heads of the encoder, of which this is the worst."""
    engine: str = ""
    """What computed it, in words; "" where another graph stood for the variant."""
    layout: str = "rows"
    """"rows", or "mixed": the graph that CUDA has for texts of different lengths."""
    asked: str = ""
    """What it had to reach, for people."""

    def record(self, status: str) -> dict[str, Any]:
        """The manifest's gate entry: `measured`, or `emulated` where another graph stood for the variant.

        No time is in it: two equal exports have one manifest.
        """
        given = dataclasses.asdict(self.figures).items()
        figures = {k: v for k, v in given if k not in ("worst", "lowest") and v is not None}
        rounded = {key: round(value, 8) if isinstance(value, float) else value for key, value in figures.items()}
        return {
            "status": status,
            "device": self.device,
            "route": self.route,
            "head": self.head,
            "texts": self.texts,
            **rounded,
            "worst_text": self.worst_text[:200],
        }


def figures_by_head(
    vectors: HybridVectors,
    alone: Sequence[HybridVectors],
    stride: int,
    reference: HybridVectors,
    kinds: Sequence[str],
    *,
    scores: bool = False,
) -> dict[str, AnyFigures]:
    """Figures of each head that the reference has: "dense", "sparse", "colbert", or "score".

    Args:
        vectors: of N texts, all in one call.
        alone: of every stride-th text, each in a call of its own.
        stride: see `alone`.
        reference: of the N texts.
        kinds: what each text stands for.
        scores: whether these are pairs, and the dense parts their logits.
    """
    found: dict[str, AnyFigures] = {}
    if reference.dense is not None:
        one = np.concatenate([item.dense for item in alone if item.dense is not None])  # (M, D)
        if scores:
            return {"score": compare_scores(cast("Floats", vectors.dense), one, stride, reference.dense, kinds)}
        found["dense"] = compare(cast("Floats", vectors.dense), one, stride, reference.dense, kinds)
    if isinstance(reference.sparse, SparseVectors):
        rows = SparseVectors.concatenate([cast("SparseVectors", item.sparse) for item in alone])
        mine = cast("SparseVectors", vectors.sparse)
        found["sparse"] = compare_sparse(mine, rows, stride, reference.sparse, kinds)
    if isinstance(reference.colbert, MultiVectors):
        several = MultiVectors.concatenate([cast("MultiVectors", item.colbert) for item in alone])
        mine_too = cast("MultiVectors", vectors.colbert)
        found["colbert"] = compare_multi(mine_too, several, stride, reference.colbert, kinds)
    return found


def check_route(
    encoder: Represents,
    texts: Sequence[Text] | Sequence[Pair],
    route: str | None,
    reference: HybridVectors,
    bounds: Mapping[str, AnyBounds],
    documents: HybridVectors | None = None,
) -> list[Check]:
    """Encode all texts in one call and some in calls of their own, and compare each head with the reference.

    Of the queries of a late interaction `documents` has the reference's vectors of the same texts as documents: their
    neighbours are those that they find there, and not other queries.
    """
    listed: list[Any] = [text.text for text in texts]
    asked: dict[str, Any] = {"prompt": "", "task": route, "whole": True}
    start = time.perf_counter()
    vectors = encoder.represent(listed, **asked)
    seconds = time.perf_counter() - start
    stride = max(1, len(listed) // ALONE)
    alone = [encoder.represent([text], **asked) for text in listed[::stride]]
    kinds, scores = [text.kind for text in texts], encoder.heads == ("score",)
    found = figures_by_head(vectors, alone, stride, reference, kinds, scores=scores)
    if documents is not None:
        ours = encoder.represent(listed, **{**asked, "task": DOCUMENT})
        found["colbert"] = searched(found["colbert"], (vectors, ours), (reference, documents))
        bounds = {**bounds, "colbert": search_bounds(bounds["colbert"], encoder.precision)}
    return [
        Check(
            encoder.precision,
            encoder.device,
            route or "default",
            figures,
            missed(figures, bounds[head]),
            shown(listed[figures.worst]),
            len(listed),
            seconds / len(listed) * 1000,
            tuple((shown(listed[index]), value) for index, value in figures.lowest),
            head,
            engine=encoder.engine_fingerprint,
            asked=cast("Any", bounds[head]).asked(),
        )
        for head, figures in found.items()
    ]


def searched(
    figures: AnyFigures, ours: tuple[HybridVectors, HybridVectors], theirs: tuple[HybridVectors, HybridVectors]
) -> AnyFigures:
    """Figures of queries with the overlap of the documents that they find, (queries, documents) on both sides."""
    both = [cast("tuple[MultiVectors, MultiVectors]", tuple(part.colbert for part in side)) for side in (ours, theirs)]
    return dataclasses.replace(cast("Figures", figures), top10_overlap=search_overlap(*both))


def search_bounds(bounds: AnyBounds, precision: str) -> AnyBounds:
    """The bounds of queries that search documents by MaxSim."""
    return dataclasses.replace(cast("Bounds", bounds), top10_overlap=SEARCH_OVERLAP.get(precision))


def shown(text: str | tuple[str, str]) -> str:
    """A text, or a pair, in one string."""
    return text if isinstance(text, str) else " | ".join(text)
