"""The arithmetic of BM25 as pymilvus.model has it (which follows rank_bm25's BM25Okapi), on arrays.

S. Robertson and H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009). All of it is float64, in
the reference's order, so that stored statistics are the same to the last bit; at the end weights become float32.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._vectors.arrays import Ids
from trivec._vectors.csr import Csr
from trivec._vectors.ragged import row_numbers

Doubles = npt.NDArray[np.float64]
Tokens = Sequence[str]
_BLOCK = 1 << 18  # tokens that are worked on at a time: 2 MB as int64, and several such arrays live at once


class Parameters(NamedTuple):
    """What the weights depend on besides the corpus."""

    k1: float
    """From 0: how far the count of a term in a document matters."""
    b: float
    """0 to 1: how far the length of a document matters."""
    epsilon: float
    """From 0: a term that more than half of the documents have gets this times the mean IDF."""


class Statistics(NamedTuple):
    """What is learned of a corpus."""

    corpus_size: int
    """Documents."""
    avgdl: float
    """Mean number of tokens of a document."""
    terms: dict[str, int]
    """Term to its dimension: terms in the order in which the corpus first has them."""
    idf: Doubles
    """(V,)"""


class _Block(NamedTuple):
    """Some documents that are worked on together."""

    documents: list[Tokens]
    first: int
    """How many documents come before them."""
    lengths: Ids
    """(B,) tokens of each."""


class _Counts(NamedTuple):
    """How often each of some documents has each term; row i is entries indptr[i] to indptr[i + 1]."""

    indptr: Ids
    """(B + 1,)"""
    indices: Ids
    """(nnz,) terms, ascending within a row."""
    counts: Ids
    """(nnz,)"""
    lengths: Ids
    """(B,) tokens, unknown ones among them."""


def learn(documents: Iterable[Tokens], epsilon: float) -> Statistics:
    """The statistics of a corpus, read once and in blocks.

    Raises:
        InputError: there are no documents, or no terms in them.
    """
    terms: defaultdict[str, int] = defaultdict()
    terms.default_factory = terms.__len__  # a new term gets the next number
    found = np.zeros(0, dtype=np.int64)  # (V,) documents that have each term
    documents_read = tokens_read = 0
    for block in _blocks(documents):
        ids = _ids(block, map(terms.__getitem__, chain.from_iterable(block.documents)), "document")
        if not _are_strings(islice(reversed(terms), len(terms) - len(found))):  # the new ones
            _refuse(block, range(len(block.documents)), "document")
        counts = _count(ids, block.lengths, len(terms))
        found.resize(len(terms), refcheck=False)
        found += np.bincount(counts.indices, minlength=len(terms))
        documents_read, tokens_read = documents_read + len(block.documents), tokens_read + len(ids)
    if not documents_read:
        raise InputError("the corpus has no documents; expected at least one.")
    if not terms:
        raise InputError(
            f"the {documents_read} documents of the corpus have no terms: they are empty, or the analyzer drops all of "
            'their words (stop words, punctuation). See what it makes of one: bm25.analyzer("...")'
        )
    terms.default_factory = None
    idf = _idf(found, documents_read, epsilon)
    return Statistics(documents_read, tokens_read / documents_read, dict(terms), idf)


def document_weights(documents: Iterable[Tokens], known: Statistics, parameters: Parameters) -> Csr:
    """Rows (N, V) of tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / avgdl))."""
    k1, b, _ = parameters
    rows: list[Csr] = []
    for counts in _counted(documents, known.terms, "document"):
        penalty = k1 * (1 - b + b * counts.lengths / known.avgdl)  # (B,)
        tf = counts.counts.astype(np.float64)  # (nnz,)
        values = tf * (k1 + 1) / (tf + penalty[row_numbers(counts.indptr)])  # (nnz,)
        rows.append(_row_block(counts, values))
    return _joined(rows)


def query_weights(queries: Iterable[Tokens], known: Statistics) -> Csr:
    """Rows (N, V) of the IDF of each term, as often as the query has it."""
    rows: list[Csr] = []
    for counts in _counted(queries, known.terms, "query"):
        each = np.repeat(np.arange(len(counts.counts)), counts.counts)  # (T,), so that repeats add up one by one
        values = np.bincount(each, known.idf[counts.indices[each]], len(counts.counts))  # (nnz,)
        rows.append(_row_block(counts, values.astype(np.float64, copy=False)))
    return _joined(rows)


# ---- steps -----------------------------------------------------------------------------------------------------------


def _idf(found: Ids, documents: int, epsilon: float) -> Doubles:
    """(V,) ln(N - n + 0.5) - ln(n + 0.5); what comes out negative becomes epsilon times the mean of all."""
    # math.log and a running sum are the reference's; numpy's may differ in the last bit. n repeats: few logarithms.
    different, place = np.unique(found, return_inverse=True)
    logs = [math.log(documents - n + 0.5) - math.log(n + 0.5) for n in different.tolist()]
    idf = np.asarray(logs, dtype=np.float64)[place]
    mean = float(np.add.accumulate(idf)[-1]) / len(idf)
    idf[idf < 0] = epsilon * mean
    return idf


def _blocks(documents: Iterable[Tokens]) -> Iterator[_Block]:
    """Documents in blocks of bounded size; none is empty."""
    some: list[Tokens] = []
    first = size = 0
    for tokens in documents:
        some.append(tokens)
        size += len(tokens) + 1
        if size >= _BLOCK:
            yield _Block(some, first, _lengths(some))
            some, first, size = [], first + len(some), 0
    if some:
        yield _Block(some, first, _lengths(some))


def _lengths(documents: list[Tokens]) -> Ids:
    return np.fromiter(map(len, documents), dtype=np.int64, count=len(documents))


def _counted(documents: Iterable[Tokens], terms: dict[str, int], what: str) -> Iterator[_Counts]:
    for block in _blocks(documents):
        ids = _ids(block, map(terms.get, chain.from_iterable(block.documents), repeat(-1)), what)
        unknown = np.flatnonzero(ids < 0)
        if len(unknown):
            ends = np.cumsum(block.lengths)
            _refuse(block, np.unique(np.searchsorted(ends, unknown, side="right")).tolist(), what)
        yield _count(ids, block.lengths, len(terms))


# Tokens are looked at only where they are new or unknown: going through all of them once more would take as long as
# counting them.


def _ids(block: _Block, numbers: Iterable[int], what: str) -> Ids:
    """(T,) the numbers of a block's tokens; InputError where one of these is no string."""
    try:
        return np.fromiter(numbers, dtype=np.int64, count=int(block.lengths.sum()))
    except TypeError:  # a token that cannot be hashed
        _refuse(block, range(len(block.documents)), what)
        raise


def _are_strings(tokens: Iterable[object]) -> bool:
    return all(issubclass(kind, str) for kind in {*map(type, tokens)})


def _refuse(block: _Block, rows: Iterable[int], what: str) -> None:
    """Raise an InputError if one of some documents of a block has a token that is no string."""
    for row in rows:
        tokens = block.documents[row]
        if not _are_strings(tokens):
            wrong = next(token for token in tokens if not isinstance(token, str))
            raise InputError(
                f"expected strings as the terms of {what} {block.first + row}, got {type(wrong).__name__} {wrong!r}."
            )


def _count(ids: Ids, lengths: Ids, dim: int) -> _Counts:
    """Counts of the terms (T,) of documents that lie end to end; -1 is an unknown term."""
    keys = np.repeat(np.arange(len(lengths)), lengths) * dim + ids  # (T,) row by row, and ascending terms within a row
    keys = keys[ids >= 0]
    keys.sort(kind="stable")  # the rows are in order already, which this kind makes use of
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))  # (nnz,)
    rows, indices = np.divmod(keys[firsts], dim)
    indptr = np.searchsorted(rows, np.arange(len(lengths) + 1))
    return _Counts(indptr, indices, np.diff(firsts, append=len(keys)), lengths)


def _row_block(counts: _Counts, values: Doubles) -> Csr:
    return Csr(counts.indptr, counts.indices.astype(np.int32), values.astype(np.float32))


def _joined(rows: list[Csr]) -> Csr:
    """Blocks of rows, one below the other."""
    starts = np.cumsum([0, *(part.indptr[-1] for part in rows)])
    indptr = [part.indptr[1:] + start for part, start in zip(rows, starts, strict=False)]
    return Csr(
        np.concatenate([np.zeros(1, dtype=np.int64), *indptr]),
        np.concatenate([np.zeros(0, dtype=np.int32), *(part.indices for part in rows)]),
        np.concatenate([np.zeros(0, dtype=np.float32), *(part.values for part in rows)]),
    )
