"""`compare`: several encoders on a corpus with judged queries."""

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from trivec._errors import InputError
from trivec._open import is_hosted
from trivec._system.home import home
from trivec._system.progress import progress_bar
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors
from trivec.compare._comparison import Comparison, Differing, Hit, Mean, Row
from trivec.compare._entrants import BM25, Entrant, Entry, HeadVectors, Planned, bm25_entry, entry_of, names_of, opened
from trivec.compare._entrants import planned as _planned
from trivec.compare._judged import Judged, Ranked, ranked, read_judged
from trivec.compare._metrics import (
    NONE,
    Doubles,
    cosines,
    interval,
    ndcg,
    overlap,
    rank_biased_overlap,
    recall,
    reciprocal_rank,
)
from trivec.compare._second_stage import Staged, kind_of, opened_reranker, planned_again, reranked, staged

DEPTH = 100
"""Documents of a query that are ranked."""
_LISTED = 10  # queries that are shown side by side
_HITS = 3  # documents of each


def plan(
    folder: str | os.PathLike[str],
    encoders: Sequence[Entrant],
    *,
    split: str = "test",
    limit_docs: int | None = None,
    prices: Mapping[str, float] | None = None,
    depth: int = DEPTH,
    cache: str | os.PathLike[str] | None = None,
    **options: Any,  # noqa: ANN401 - of `trivec.load`, which checks them
) -> list[Planned]:
    """What `compare` with these arguments would ask each encoder for: texts, requests, tokens, cost. Nothing is sent.

    Each is opened once, so that a wrong name, a missing key or a missing extra shows before anything is paid.

    Raises:
        As `compare`.
    """
    judged = read_judged(Path(folder), split, _count(limit_docs))
    return _plans(encoders, judged, _prices(encoders, prices), _kept_in(cache), options, _depth(depth))


def compare(
    folder: str | os.PathLike[str],
    encoders: Sequence[Entrant],
    *,
    split: str = "test",
    limit_docs: int | None = None,
    prices: Mapping[str, float] | None = None,
    max_cost: float = 1.0,
    depth: int = DEPTH,
    cache: str | os.PathLike[str] | None = None,
    show_progress: bool | None = None,
    **options: Any,  # noqa: ANN401 - of `trivec.load`, which checks them
) -> Comparison:
    """Search a judged corpus with each of several encoders, exactly, and compare what they find and what it takes.

    Vectors are kept in files, as `trivec.store` writes them: a comparison that was stopped goes on, and one with a
    further encoder asks the others for nothing.

    Args:
        folder: corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv, as BEIR has them.
        encoders: the first is what the others are compared with. "folder", a name on the Hub, either with ":int8" (or
            another variant) behind it, "provider:model?option=value", "bm25", or an open encoder. A model with several
            kinds of vectors has a row for dense and one for sparse; one of late interaction searches by MaxSim.
            "A+reranker": what A, one of these names, has found, ranked again by a reranker, which is named likewise.
        split: "test", "dev" or "train".
        limit_docs: at most so many documents: those that are relevant to a query first, then others.
        prices: of a hosted encoder, by its name here: what a million tokens cost, in any one currency.
        max_cost: where the estimated cost of all that have a price is above, nothing is sent.
        depth: documents of a query that a reranker scores, up to 100; the others stay behind them in A's order.
        cache: the folder in which vectors are kept; None: `compare` in TRIVEC_HOME.
        show_progress: a progress bar for each; None: on a terminal, where the "trivec" logger is at INFO.
        options: of `trivec.load`, for local models: device="cpu", threads=2 ...

    Raises:
        InputError: a folder in another layout, an encoder twice, a price of none, a cost above `max_cost`, or something
            that is no encoder.
        Whatever `trivec.load`, `trivec.hosted.open` and their encoders raise. What is done is kept.
    """
    judged, depth = read_judged(Path(folder), split, _count(limit_docs)), _depth(depth)
    known, place = _prices(encoders, prices), _kept_in(cache)
    _check_cost(_plans(encoders, judged, known, place, options, depth), max_cost)
    rows: list[Row] = []
    differing: dict[str, tuple[Differing, ...]] = {}
    first: tuple[HeadVectors, Ranked, Doubles] | None = None
    for entrant, name in zip(encoders, names_of(encoders), strict=True):
        stage = staged(entrant)
        entry = _entry(entrant if stage is None else stage.first, judged, place, options, show_progress)
        for vectors in entry.heads:
            label = name if len(entry.heads) == 1 else f"{name} {vectors.head}"
            found = ranked(judged, vectors.queries, vectors.documents, vectors.similarity)
            if stage is not None:
                entry, found = _again(stage, entry, judged, found, depth, place, options, show_progress)
            gains = ndcg(found.reached, found.possible)  # (Q,)
            rows.append(_row(label, entry, vectors, found, gains, first, known.get(name)))
            if first is None:
                first = (vectors, found, gains)
            else:
                differing[label] = _differing(judged, (first[1], found), (first[2], gains))
    return Comparison(os.fspath(folder), split, len(judged.documents), len(judged.queries), tuple(rows), differing)


# ---- before anything is sent -------------------------------------------------------------------------------------


def _plans(
    encoders: Sequence[Entrant],
    judged: Judged,
    prices: Mapping[str, float],
    place: Path,
    options: Mapping[str, Any],
    depth: int,
) -> list[Planned]:
    found = []
    for entrant, name in zip(encoders, names_of(encoders), strict=True):
        stage = staged(entrant)
        first = entrant if stage is None else stage.first
        with ExitStack() as stack:
            encoder = None if first == BM25 else stack.enter_context(opened(first, _answers(place), options))
            if stage is None:
                found.append(_planned(name, encoder, judged, prices.get(name)))
            else:
                reranker = stack.enter_context(opened_reranker(stage.reranker, options))
                found.append(planned_again(name, reranker, judged, depth, prices.get(name)))
    return found


def _check_cost(plans: Sequence[Planned], max_cost: float) -> None:
    if not isinstance(max_cost, int | float) or math.isnan(max_cost) or max_cost < 0:
        raise InputError(f"max_cost must be a number from 0, got {max_cost!r}.")
    total = sum(found.cost or 0.0 for found in plans)
    if total > max_cost:
        each = ", ".join(f"{found.name}: {found.cost:.2f}" for found in plans if found.cost is not None)
        raise InputError(
            f"this would cost about {total:.2f} ({each}), more than {max_cost:g}, and nothing was sent. Type --yes "
            f"(max_cost={math.ceil(total)}), or take fewer documents: --limit-docs N"
        )


def _prices(encoders: Sequence[Entrant], prices: Mapping[str, float] | None) -> dict[str, float]:
    names = names_of(encoders)
    for name, price in (prices or {}).items():
        if name not in names:
            raise InputError(f"there is a price for {name!r}, which is not compared. Expected some of {names}.")
        if not isinstance(price, int | float) or not 0 <= price < math.inf:
            raise InputError(f"the price of {name!r} must be a number from 0 for a million tokens, got {price!r}.")
    return dict(prices or {})


def _count(limit_docs: int | None) -> int | None:
    if limit_docs is not None and (not isinstance(limit_docs, int) or isinstance(limit_docs, bool) or limit_docs < 1):
        raise InputError(f"limit_docs must be a whole number from 1, got {limit_docs!r}.")
    return limit_docs


def _depth(depth: object) -> int:
    if not isinstance(depth, int) or isinstance(depth, bool) or not 1 <= depth <= DEPTH:
        raise InputError(f"depth must be a whole number from 1 to {DEPTH}, got {depth!r}.")
    return depth


def _kept_in(cache: str | os.PathLike[str] | None) -> Path:
    """The folder of kept vectors, made where it is not there."""
    place = home() / "compare" if cache is None else Path(cache)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"vectors cannot be kept in {place} ({error}). Name another folder: --cache FOLDER") from error
    return place


def _answers(place: Path) -> Path:
    return place / "answers.sqlite"


# ---- each encoder ------------------------------------------------------------------------------------------------


def _entry(entrant: Entrant, judged: Judged, place: Path, options: Mapping[str, Any], show: bool | None) -> Entry:
    """What it makes of the corpus."""
    if entrant == BM25:
        return bm25_entry(judged)
    total = len(judged.documents) + len(judged.queries)
    with opened(entrant, _answers(place), options) as encoder, closing(progress_bar(total, show)) as bar:
        return entry_of(encoder, judged, place, bar.update)


def _again(
    stage: Staged,
    entry: Entry,
    judged: Judged,
    found: Ranked,
    depth: int,
    place: Path,
    options: Mapping[str, Any],
    show: bool | None,
) -> tuple[Entry, Ranked]:
    """The ranking of the second stage; what it takes is of that stage alone."""
    total = int((found.rows[:, :depth] != NONE).sum())
    with opened_reranker(stage.reranker, options) as reranker, closing(progress_bar(total, show)) as bar:
        again, effort = reranked(judged, found, reranker, depth, place, bar.update)
        what = f"{depth} by {kind_of(reranker)}"
    times, tokens = (None, None) if effort is None else effort
    hosted = entry.hosted or is_hosted(stage.reranker)
    return Entry(what, hosted, entry.heads, None, times, tokens), again


def _row(
    label: str,
    entry: Entry,
    vectors: HeadVectors,
    found: Ranked,
    gains: Doubles,
    first: tuple[HeadVectors, Ranked, Doubles] | None,
    price: float | None,
) -> Row:
    documents = vectors.documents
    dense = isinstance(documents, np.ndarray)
    angles = None if first is None else _cosines(documents, first[0].documents)
    return Row(
        name=label,
        what=entry.what,
        hosted=entry.hosted,
        ndcg=_mean(gains),
        to_first=None if first is None else _mean(gains - first[2]),
        recall=float(recall(found.reached, found.possible).mean()),
        mrr=float(reciprocal_rank(found.reached).mean()),
        same_top10=None if first is None else float(overlap(found.rows, first[1].rows).mean()),
        rbo=None if first is None else float(rank_biased_overlap(found.rows, first[1].rows).mean()),
        cosine_min=None if angles is None else float(angles.min()),
        cosine_mean=None if angles is None else float(angles.mean()),
        documents_per_second=entry.documents_per_second,
        query_ms=entry.query_ms,
        dims=int(documents.shape[1] if dense else documents.dim),
        bytes_per_vector=4.0 * documents.shape[1] if dense else _bytes(documents) / len(documents),
        tokens=entry.tokens,
        cost=None if price is None or entry.tokens is None else entry.tokens * price / 1e6,
    )


def _bytes(documents: SparseVectors | MultiVectors) -> int:
    """Of all: int32 and float32 a term, or the numbers of every token."""
    return int(8 * documents.nnz if isinstance(documents, SparseVectors) else documents.vectors.nbytes)


def _mean(values: Doubles) -> Mean:
    """Of values (Q,)."""
    return Mean(float(values.mean()), *interval(values))


def _cosines(x: Any, y: Any) -> Doubles | None:  # noqa: ANN401 - vectors of any kind
    """Document by document (N,); None where there is no common space to look for."""
    if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray) or x.shape != y.shape:
        return None
    return cosines(x, y)


def _differing(
    judged: Judged, rankings: tuple[Ranked, Ranked], gains: tuple[Doubles, Doubles]
) -> tuple[Differing, ...]:
    """The queries on which nDCG@10 differs most; where it does not, none."""
    queries, ids = list(judged.queries), list(judged.documents)
    change = np.abs(gains[0] - gains[1])  # (Q,)
    found = []
    for i in np.argsort(-change, kind="stable")[:_LISTED].tolist():
        if not change[i]:
            break
        query = queries[i]
        a, b = (
            tuple(
                Hit(ids[row], judged.documents[ids[row]][:200], judged.judgements[query].get(ids[row], 0))
                for row in ranking.rows[i, :_HITS].tolist()
                if row != NONE
            )
            for ranking in rankings
        )
        found.append(Differing(query, judged.queries[query], (float(gains[0][i]), float(gains[1][i])), (a, b)))
    return tuple(found)
