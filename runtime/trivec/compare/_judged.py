"""A corpus with judged queries, in BEIR's layout, and how a ranking of it is judged."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trivec._errors import InputError
from trivec._system.text_files import decode_lines
from trivec._vectors.multi import REDUCE_OF, MultiVectors
from trivec._vectors.scores import cos_sim, dot_score, euclidean_sim, manhattan_sim
from trivec._vectors.sparse import SparseVectors
from trivec.compare._metrics import NONE, Gains, Ranking
from trivec.util import semantic_search

_SCORES = {"cosine": cos_sim, "dot": dot_score, "euclidean": euclidean_sim, "manhattan": manhattan_sim}


class Judged(NamedTuple):
    """Documents, the queries that have a judgement, and what was judged relevant."""

    documents: dict[str, str]
    """By id, title and text with a space between, as BEIR's models read them."""
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]
    """Relevance by document, by query."""


class Ndcg(NamedTuple):
    """nDCG@10, the mean of all queries; None where a side is a file, which has no vectors of queries."""

    a: float | None
    """Of A's queries on A's documents."""
    b: float | None
    mixed: float | None
    """Of B's queries on A's documents: what a search has whose index is not encoded again."""


def read_judged(folder: Path, split: str = "test", limit: int | None = None) -> Judged:
    """Read corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv.

    Args:
        folder: in BEIR's layout.
        split: whose judgements.
        limit: at most so many documents: those that are relevant to a query first, then others, each in their order.
            Queries without a relevant one among them are left out, and so are judgements of documents that are.

    Raises:
        InputError: one of them is missing, or a line of it cannot be understood; or nothing in it is judged.
    """
    qrels = folder / "qrels"
    corpus, queries, judgements = folder / "corpus.jsonl", folder / "queries.jsonl", qrels / f"{split}.tsv"
    missing = [path.relative_to(folder).as_posix() for path in (corpus, queries, judgements) if not path.is_file()]
    if missing:
        there = f" There is {', '.join(sorted(path.stem for path in qrels.glob('*.tsv')))}." if qrels.is_dir() else ""
        raise InputError(
            f"{folder} lacks {', '.join(missing)}. Expected BEIR's layout: corpus.jsonl, queries.jsonl, "
            f"qrels/{split}.tsv.{there}"
        )
    documents = {d["_id"]: f"{d.get('title') or ''} {d['text']}".strip() for d in _rows(corpus)}
    judged = _judgements(judgements)
    asked = {q["_id"]: q["text"] for q in _rows(queries) if q["_id"] in judged}
    if limit is not None and limit < len(documents):
        documents, judged = _limited(documents, {query: judged[query] for query in asked}, limit)
        asked = {query: text for query, text in asked.items() if query in judged}
    if not asked or not documents:
        raise InputError(
            f"{folder}: no query of queries.jsonl is judged in qrels/{split}.tsv, or there are no documents."
        )
    return Judged(documents, asked, judged)


def _limited(
    documents: dict[str, str], judged: dict[str, dict[str, int]], limit: int
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Documents and judgements of a smaller corpus."""
    relevant = {document for relevance in judged.values() for document, gain in relevance.items() if gain > 0}
    order = sorted(documents, key=lambda document: document not in relevant)  # stable: each kind in its order
    kept = set(order[:limit])
    few = {document: text for document, text in documents.items() if document in kept}
    left = {query: {d: gain for d, gain in relevance.items() if d in kept} for query, relevance in judged.items()}
    return few, {query: relevance for query, relevance in left.items() if any(g > 0 for g in relevance.values())}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as stream:
        for number, line in enumerate(decode_lines(stream, str(path)), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number} is not valid JSON: {error}") from error
            if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("_id", "text")):
                raise InputError(f'{path}, line {number}: expected an object with "_id" and "text", both strings.')
            yield row


def _judgements(path: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    with path.open("rb") as stream:
        for number, line in enumerate(decode_lines(stream, str(path)), 1):
            query, *rest = line.rstrip("\r\n").split("\t")
            if number == 1:
                if rest and rest[-1].lstrip("-").isdecimal():
                    raise InputError(
                        f"{path}, line 1: expected the columns' names (query-id, corpus-id, score), got a judgement, "
                        f"{line.strip()[:60]!r}."
                    )
                continue
            if not line.strip():
                continue
            try:
                document, relevance = rest
                found.setdefault(query, {})[document] = int(relevance)
            except ValueError as error:
                expected = "expected query, document and relevance with tabs between"
                raise InputError(f"{path}, line {number}: {expected}, got {line.strip()[:60]!r}.") from error
    return found


class Ranked(NamedTuple):
    """The best documents of each query of a corpus, and what was judged of them."""

    rows: Ranking
    """(Q, K) rows of the documents, best first; NONE where a query has fewer hits."""
    reached: Gains
    """(Q, K) relevance of the hits, 0 for none."""
    possible: Gains
    """(Q, P) relevance of all that was judged relevant, 0 where a query has less."""


def ranked(judged: Judged, queries: Any, documents: Any, similarity: str, k: int = 100) -> Ranked:  # noqa: ANN401
    """The documents ranked for each query. One with the id of the query is none of its hits, as in BEIR.

    Args:
        judged: the corpus.
        queries: vectors (Q, D) of `judged.queries`, dense or sparse; or those of their tokens.
        documents: vectors (N, D) of `judged.documents`; of sparse ones those without a common term are no hits.
        similarity: "cosine", "dot", "euclidean" or "manhattan"; of tokens "maxsim" or "meanmaxsim".
        k: hits of a query.
    """
    row_of = {document: row for row, document in enumerate(judged.documents)}
    if isinstance(documents, MultiVectors):
        found = _by_maxsim(queries, documents, similarity, k + 1)
    else:
        found = semantic_search(queries, documents, top_k=k + 1, score_function=_SCORES[similarity])
    least = 0.0 if isinstance(documents, SparseVectors) else -np.inf
    rows = np.full((len(judged.queries), k), NONE)
    reached = np.zeros((len(judged.queries), k), dtype=np.int64)
    possible = np.zeros((len(rows), max(map(len, judged.judgements.values()), default=0)), dtype=np.int64)
    for i, (query, hits) in enumerate(zip(judged.queries, found, strict=True)):
        own, relevance = row_of.get(query), _positive(judged.judgements[query], query)
        gains = {row_of[document]: gain for document, gain in relevance.items() if document in row_of}
        listed = [int(hit["corpus_id"]) for hit in hits if hit["score"] > least]
        listed = [row for row in listed if row != own][:k]
        rows[i, : len(listed)] = listed
        reached[i, : len(listed)] = [gains.get(row, 0) for row in listed]
        possible[i, : len(relevance)] = list(relevance.values())
    return Ranked(rows, reached, possible)


def _by_maxsim(queries: MultiVectors, documents: MultiVectors, similarity: str, k: int) -> list[list[Any]]:
    """The best documents of each query, in the form of `semantic_search`."""
    scores = queries.maxsim(documents, REDUCE_OF[similarity])  # (Q, N)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
    return [[{"corpus_id": j, "score": row[j]} for j in best] for row, best in zip(scores, order, strict=True)]


def _positive(relevance: Mapping[str, int], query: str) -> dict[str, int]:
    return {document: gain for document, gain in relevance.items() if gain > 0 and document != query}
