"""What a search has found, scored again by a reranker."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np

from trivec._encoders.ranking import RankingModel
from trivec._encoders.reranker import Reranker
from trivec._errors import InputError
from trivec._pooling.ranks import Ranked, check_top_k, ranked

_WINDOW = 1024  # pairs at a time


class Hit(Protocol):
    """What of a hit is read: `hit["corpus_id"]`."""

    def __getitem__(self, key: str, /) -> Any:  # noqa: ANN401
        """A value by its name."""


def rerank(
    reranker: Reranker | RankingModel,
    queries: Sequence[str],
    corpus: Sequence[str],
    hits: Sequence[Sequence[Hit]],
    top_k: int | None = 10,
    **options: Any,  # noqa: ANN401 - those of the reranker
) -> list[list[Ranked]]:
    """The hits of `semantic_search`, scored again by a model that reads each query together with its documents.

    Pairs of many queries run together where the reranker is a local one, in bounded memory.

    Args:
        reranker: what `trivec.load` gives of one, or `trivec.hosted.open_reranker`.
        queries: N texts.
        corpus: M texts, those that were searched.
        hits: for each query the documents that were found, as {"corpus_id": row of the corpus}, whatever else they say.
        top_k: how many of a query's to give; None: all that were found.
        options: of a local reranker's `predict`, such as activation_fn and batch_size.

    Returns:
        For each query a list of {"corpus_id", "score"}, the greatest score first, equal ones in their order before.

    Raises:
        InputError: no such rows of the corpus, something that is no text (its place is named), or not hits for each of
            the queries. Nothing is scored.
        Whatever the reranker raises.
    """
    check_top_k(top_k)
    rows = _rows_of(queries, corpus, hits)
    if isinstance(reranker, Reranker):
        reranker.pairs_to_rank("", [])  # raises where it has several labels
        pairs = ((query, corpus[row]) for query, found in zip(queries, rows, strict=True) for row in found)
        blocks = reranker.predict_iter(pairs, window=_WINDOW, **options)
        scores: Iterator[float] = chain.from_iterable(blocks)
        places = [ranked(np.array([next(scores) for _ in found], np.float32), [], top_k, False) for found in rows]
    else:
        texts = ((query, [corpus[row] for row in found]) for query, found in zip(queries, rows, strict=True))
        places = [reranker.rank(query, listed, top_k, **options) if listed else [] for query, listed in texts]
    return [
        [{"corpus_id": found[place["corpus_id"]], "score": place["score"]} for place in ranks]
        for found, ranks in zip(rows, places, strict=True)
    ]


def _rows_of(queries: Sequence[str], corpus: Sequence[str], hits: Sequence[Sequence[Hit]]) -> list[list[int]]:
    """The rows of the corpus that were found for each query, checked."""
    for what, texts in (("queries", queries), ("the corpus", corpus)):
        if isinstance(texts, str):
            raise InputError(f"expected a list of texts for {what}, got one text. Type: [text]")
    if len(hits) != len(queries):
        raise InputError(f"hits of {len(hits)} queries came for {len(queries)} queries; expected a list for each.")
    found: list[list[int]] = []
    for number, (query, listed) in enumerate(zip(queries, hits, strict=True)):
        if not isinstance(query, str):
            raise InputError(f"the query at index {number} is {type(query).__name__}, expected a text.")
        found.append([_row_of(hit, number, corpus) for hit in listed])
    return found


def _row_of(hit: Hit, number: int, corpus: Sequence[str]) -> int:
    row = hit.get("corpus_id") if isinstance(hit, Mapping) else None
    if not isinstance(row, int | np.integer) or isinstance(row, bool) or not 0 <= row < len(corpus):
        raise InputError(
            f"a hit of the query at index {number} is {hit!r:.80}; expected corpus_id, a row of the corpus of "
            f"{len(corpus)} texts, as semantic_search gives it."
        )
    text = corpus[int(row)]
    if not isinstance(text, str):
        raise InputError(f"corpus[{row}] is {type(text).__name__}, expected a text.")
    return int(row)
