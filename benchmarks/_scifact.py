"""The BEIR SciFact corpus, and the figures by which vectors of it are judged."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# A full stop, a question or exclamation mark, then a space and something that begins a sentence. Cuts "et al. (1999)"
# in two now and then: these are texts to embed, not sentences to parse.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9(])")


class SciFact(NamedTuple):
    """Documents and the test queries, with what was judged relevant."""

    documents: dict[str, str]
    """id to title and abstract."""
    abstracts: dict[str, str]
    """id to abstract."""
    queries: dict[str, str]
    """id to claim, of the queries that have a judgement in the test split."""
    judgements: dict[str, dict[str, int]]
    """query id to document id to relevance."""

    def gains(self) -> npt.NDArray[np.int64]:
        """(Q, N) relevance of each document to each query, in the order of `queries` and `documents`."""
        column = {document: i for i, document in enumerate(self.documents)}
        gains = np.zeros((len(self.queries), len(column)), dtype=np.int64)  # (Q, N)
        for row, query in enumerate(self.queries):
            for document, relevance in self.judgements[query].items():
                gains[row, column[document]] = relevance
        return gains


def read(folder: Path) -> SciFact:
    """Read a folder in BEIR's layout: corpus.jsonl, queries.jsonl, qrels/test.tsv.

    A document is its title, a space and its abstract, as BEIR's models read it.
    """
    corpus = list(_lines(folder / "corpus.jsonl"))
    judgements: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, relevance = line.split("\t")
        judgements.setdefault(query, {})[document] = int(relevance)
    return SciFact(
        documents={entry["_id"]: f"{entry['title']} {entry['text']}".strip() for entry in corpus},
        abstracts={entry["_id"]: entry["text"] for entry in corpus},
        queries={e["_id"]: e["text"] for e in _lines(folder / "queries.jsonl") if e["_id"] in judgements},
        judgements=judgements,
    )


def split_sentences(text: str, least_words: int = 3) -> list[str]:
    """A text's sentences, without those of fewer than `least_words` words."""
    return [part for part in _SENTENCE_END.split(text.strip()) if len(part.split()) >= least_words]


def even_sample(items: list[str], count: int) -> list[str]:
    """Up to `count` items at equal distances, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)]


def ndcg(scores: Floats, gains: npt.NDArray[np.int64], k: int = 10) -> Doubles:
    """Normalized discounted cumulative gain at `k` of each query, as trec_eval's ndcg_cut.

    A hit at rank r counts its relevance / log2(r + 1); the sum is divided by that of the best possible ranking
    (Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR techniques", 2002). Of equal scores the earlier
    document comes first.

    Args:
        scores: (Q, N), higher is better.
        gains: (Q, N) relevance, 0 for none.
        k: ranks that count.

    Returns:
        (Q,) between 0 and 1; 0 for a query to which nothing is relevant.
    """
    depth = min(k, scores.shape[1])
    discounts = 1 / np.log2(np.arange(2, depth + 2))  # (k,)
    top = np.argsort(-scores, axis=1, kind="stable")[:, :depth]  # (Q, k)
    reached = np.take_along_axis(gains, top, axis=1) @ discounts  # (Q,)
    ideal = -np.sort(-gains, axis=1)[:, :depth] @ discounts  # (Q,)
    found: Doubles = np.divide(reached, ideal, out=np.zeros_like(reached), where=ideal > 0)
    return found


def cosine_ndcg(queries: Floats, documents: Floats, gains: npt.NDArray[np.int64]) -> Doubles:
    """(Q,) nDCG@10 of ranking documents (N, D) for queries (Q, D) by cosine, judged by gains (Q, N)."""
    q = queries / np.linalg.norm(queries, axis=1, keepdims=True)  # (Q, D)
    d = documents / np.linalg.norm(documents, axis=1, keepdims=True)  # (N, D)
    return ndcg(q @ d.T, gains)


def cosines(a: Floats, b: Floats) -> Doubles:
    """(N,) cosine of each row of a (N, D) and the same row of b (N, D), in float64."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    found: Doubles = (x * y).sum(1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    return found


def interval(values: Doubles, resamples: int = 10_000) -> tuple[float, float]:
    """The middle 95 % of the mean of values (N,) over resamples with replacement."""
    rows = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))  # (R, N)
    low, high = np.percentile(values[rows].mean(1), (2.5, 97.5))
    return float(low), float(high)


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)
