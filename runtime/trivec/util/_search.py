"""The best rows of a corpus for each query."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from trivec._errors import InputError
from trivec._vectors.rows import Vectors, check_count, slices, take_pair
from trivec._vectors.scores import cos_sim
from trivec.util._candidates import Candidates, Hits
from trivec.util._scorers import Names, Score, Scorer, scorer

_MOST_QUERIES = 1024  # of a chunk: more at a time are no faster
_GROUP_BYTES = 1 << 26  # what is kept of the queries that one pass over the corpus serves


def semantic_search(
    query_embeddings: Vectors,
    corpus_embeddings: Vectors,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500000,
    top_k: int = 10,
    score_function: Score = cos_sim,
) -> list[list[dict[str, int | float]]]:
    """The most similar vectors of a corpus for each query, by exact search: no index, nothing approximate.

    The call and the results of sentence_transformers.util.semantic_search 6.2, in bounded memory: the corpus is read in
    blocks of 8 MB, in its own number type, from a memory map as well.

    Args:
        query_embeddings: (N, D) or (D,), dense or sparse: see `trivec.util` for what vectors may be.
        corpus_embeddings: (M, D) or (D,).
        query_chunk_size: queries at a time, at most 1,024.
        corpus_chunk_size: rows of the corpus at a time, at most; fewer where memory would not be bounded.
        top_k: how many to find; the whole corpus where it has fewer.
        score_function: cos_sim, dot_score, euclidean_sim or manhattan_sim of this module, which are searched fast, or
            any function of blocks (Q, D) and (B, D) of both sides, as arrays in the type they came in or SparseVectors,
            that gives (Q, B) scores, the greater the better: an encoder's `similarity`, for one.

    Returns:
        For each query a list of {"corpus_id": row, "score": score}, the greatest score first, equal scores by lower
        corpus_id. Scores of cos_sim, dot_score and euclidean_sim are computed in float64 and rounded once, so that
        chunk sizes, threads and the other queries change nothing, and equal rows have equal scores.

    Raises:
        InputError: no vectors, other widths, a number that is not finite (its row is named), a size or top_k below 1,
            or a score_function that is none.
    """
    sizes = Sizes(
        check_count("query_chunk_size", query_chunk_size), check_count("corpus_chunk_size", corpus_chunk_size)
    )
    check_count("top_k", top_k)
    check_function(score_function)
    queries, corpus, _ = take_pair(query_embeddings, corpus_embeddings, Names())
    compared = scorer(queries, corpus, score_function)
    results: list[list[dict[str, int | float]]] = []
    for part in search(compared, len(queries), len(corpus), top_k, sizes):
        for ids, scores in zip(part.hits.ids.tolist(), part.hits.scores.tolist(), strict=True):
            results.append([{"corpus_id": i, "score": score} for i, score in zip(ids, scores, strict=True)])
    return results


class Sizes(NamedTuple):
    """What the caller wants to have at work at a time."""

    queries: int
    corpus: int


class Part(NamedTuple):
    """The hits of a chunk of queries."""

    start: int
    hits: Hits


def search(compared: Scorer, queries: int, corpus: int, top_k: int, sizes: Sizes) -> Iterator[Part]:
    """Hits of all queries, chunk by chunk, in order.

    Each block of the corpus is made ready once for a group of chunks, so that it is read from memory, or from a file,
    as rarely as the bound of what is kept for a group allows.
    """
    wanted = min(top_k, corpus)
    chunk_rows = min(sizes.queries, _MOST_QUERIES)
    step = min(sizes.corpus, compared.step(min(chunk_rows, max(queries, 1))))
    group = max(chunk_rows, _GROUP_BYTES // (24 * (2 * wanted + 64) + compared.query_bytes))
    for start in range(0, queries, group):
        stop = min(start + group, queries)
        chunks = [slice(at, min(at + chunk_rows, stop)) for at in range(start, stop, chunk_rows)]
        if not wanted:
            yield from (Part(some.start, _no_hits(some.stop - some.start)) for some in chunks)
            continue
        ready = [compared.chunk(some) for some in chunks]
        pools = [Candidates(some.stop - some.start, wanted, compared.exact(some), compared.shown) for some in chunks]
        for columns in slices(corpus, 1, step):
            block = compared.block(columns)
            for chunk, pool in zip(ready, pools, strict=True):
                pool.offer(compared.keys(chunk, block), columns.start)
        yield from (Part(some.start, pool.best()) for some, pool in zip(chunks, pools, strict=True))


def check_function(score_function: object) -> None:
    """InputError unless it can be called."""
    if not callable(score_function):
        raise InputError(
            f"score_function must be a function of two blocks of vectors, got {score_function!r}. "
            "Type: score_function=trivec.util.cos_sim"
        )


def _no_hits(count: int) -> Hits:
    return Hits(np.zeros((count, 0), dtype=np.int64), np.zeros((count, 0), dtype=np.float32))
