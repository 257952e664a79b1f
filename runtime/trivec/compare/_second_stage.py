"""`A+reranker`: what A has found, ranked again by a reranker."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trivec import store
from trivec._encoders.ranking import RankingModel, fingerprint_of_ranks
from trivec._model.manifest import PRECISIONS
from trivec._open import open_reranker
from trivec._system.atomic import write_at_once
from trivec._vectors.heads import record_of
from trivec.compare._entrants import Planned
from trivec.compare._judged import Judged, Ranked
from trivec.compare._metrics import NONE
from trivec.store._schema import Head, Layout
from trivec.store._write import Encoded, write_blocks

_WINDOW = 1024  # pairs that are kept at a time: what an interruption can cost


class Staged(NamedTuple):
    """A name of two stages."""

    first: str
    reranker: str


class Effort(NamedTuple):
    """What the second stage took, in the run that did it."""

    query_ms: tuple[float, float]
    """Median and 95th percentile of a query's documents."""
    tokens: int | None
    """Of a hosted one, as it was estimated."""


def staged(entrant: object) -> Staged | None:
    """The two stages of "A+reranker"; None of anything else, such as a folder with a + in its name."""
    if not isinstance(entrant, str) or Path(entrant).exists():
        return None
    first, plus, reranker = entrant.rpartition("+")
    return Staged(first, reranker) if plus and first and reranker else None


@contextmanager
def opened_reranker(name: str, options: Mapping[str, Any]) -> Iterator[RankingModel]:
    """The reranker of a folder or name, with a variant behind it or not, or of a hosted one; closed afterwards.

    Raises:
        Whatever `trivec.load` and `trivec.hosted.open_reranker` raise.
    """
    base, _, variant = name.rpartition(":")
    if base and variant in PRECISIONS and not Path(name).exists():
        name, options = base, {**options, "precision": variant}
    reranker = open_reranker(name, **options)
    try:
        yield reranker
    finally:
        reranker.close()


def planned_again(name: str, reranker: RankingModel, judged: Judged, depth: int, price: float | None) -> Planned:
    """What the second stage would be asked for, at most; nothing is sent."""
    pairs = len(judged.queries) * min(depth, len(judged.documents))
    estimate = getattr(reranker, "estimate", None)
    if estimate is None:
        return Planned(name, False, pairs)
    usage = estimate(list(judged.queries.values()), list(judged.documents.values()), depth)
    cost = None if price is None else usage.tokens * price / 1e6
    return Planned(name, True, usage.texts, usage.requests, usage.tokens, cost)


def kind_of(reranker: Any) -> str:  # noqa: ANN401 - what only local ones have is asked for
    """The variant and device ("int8 on cpu"), or where it is hosted."""
    local = hasattr(type(reranker), "precision")
    return f"{reranker.precision} on {reranker.device}" if local else str(reranker.engine_fingerprint)


def reranked(
    judged: Judged,
    found: Ranked,
    reranker: RankingModel,
    depth: int,
    folder: Path,
    advance: Callable[[int], object] = lambda _: None,
) -> tuple[Ranked, Effort | None]:
    """The first `depth` documents of each query by the reranker's scores, of equal ones the earlier; then the others.

    Args:
        judged: the corpus.
        found: what the first stage found.
        reranker: who scores.
        depth: documents of a query that are scored.
        folder: where scores are kept; a file is found by the reranker's fingerprint and by the pairs.
        advance: called with the number of pairs after each window.

    Returns:
        The ranking, and what it took; None where the process was killed before that was noted.
    """
    queries, texts = list(judged.queries.values()), list(judged.documents.values())
    taken = [[row for row in rows[:depth].tolist() if row != NONE] for rows in found.rows]
    pairs = [(queries[i], texts[row]) for i, rows in enumerate(taken) for row in rows]
    scores, effort = _kept(reranker, pairs, folder, advance)  # (P,)
    rows, reached, start = found.rows.copy(), found.reached.copy(), 0
    for i, some in enumerate(taken):
        order = np.argsort(-scores[start : start + len(some)], kind="stable")  # (K,)
        rows[i, : len(some)], reached[i, : len(some)] = found.rows[i, order], found.reached[i, order]
        start += len(some)
    return Ranked(rows, reached, found.possible), effort


def _kept(
    reranker: RankingModel, pairs: Sequence[tuple[str, str]], folder: Path, advance: Callable[[int], object]
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], Effort | None]:
    """Scores (P,): from the folder where they are there, else made and put there, window by window."""
    written = [json.dumps(pair) for pair in pairs]
    fingerprint = fingerprint_of_ranks(reranker)
    name = hashlib.sha256("\0".join([fingerprint, "rerank", *written]).encode()).hexdigest()[:32]
    path, note = folder / f"{name}.npy", folder / f"{name}.json"
    if not path.exists():
        seconds: list[float] = []
        before = _tokens(reranker)
        head = Head(Layout("dense", 1, "float32"), fingerprint, engine=reranker.engine_fingerprint)
        write_blocks(path, head, iter(written), lambda rest, _: _blocks(reranker, rest, seconds), advance=advance)
        if seconds:
            median, late = (1000 * float(x) for x in np.percentile(seconds, (50, 95)))
            after = _tokens(reranker)
            spent = None if before is None or after is None else after - before
            write_at_once(note, json.dumps(Effort((median, late), spent)._asdict()).encode())
    vectors = record_of(store.read(path, fingerprint=fingerprint).vectors).dense
    assert vectors is not None  # noqa: S101 - a .npy holds nothing else
    return vectors[:, 0], _noted(note)


def _blocks(reranker: RankingModel, rest: Iterator[str], seconds: list[float]) -> Encoded:
    """Pairs and their scores (N, 1), window by window; a query's documents are ranked together."""
    while block := list(islice(rest, _WINDOW)):
        scores, start = np.zeros((len(block), 1), dtype=np.float32), 0
        for query, group in groupby(map(json.loads, block), key=lambda pair: pair[0]):
            documents = [text for _, text in group]
            begun = time.perf_counter()
            for place in reranker.rank(query, documents):
                scores[start + place["corpus_id"], 0] = place["score"]
            seconds.append(time.perf_counter() - begun)
            start += len(documents)
        yield block, scores


def _tokens(reranker: Any) -> int | None:  # noqa: ANN401 - of a hosted one
    usage = getattr(reranker, "usage", None)
    return None if usage is None else int(usage.tokens)


def _noted(note: Path) -> Effort | None:
    with suppress(OSError, ValueError, TypeError, KeyError):  # no note, or no longer one: the figures are not known
        said = json.loads(note.read_bytes())
        return Effort((float(said["query_ms"][0]), float(said["query_ms"][1])), said["tokens"])
    return None
