"""BM25 as sparse vectors: documents and queries whose dot product is the score."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from trivec._errors import InputError
from trivec._vectors.csr import Csr
from trivec._vectors.sparse import SparseVectors
from trivec.lexical import _stored
from trivec.lexical._build import build_default_analyzer
from trivec.lexical._texts import AnalyzerLike, analyzed, tokenized
from trivec.lexical._weights import Doubles, Statistics, document_weights, learn, query_weights


class BM25:
    """BM25 weights of documents, IDF weights of queries.

        bm25 = BM25().fit(corpus)
        scores = bm25.encode_queries(["what divides?"]).dot(bm25.encode_documents(corpus))  # (1, N) float32
        bm25.save("bm25.json")

    The same numbers, and the same file, as pymilvus.model's BM25EmbeddingFunction. Terms that the corpus does not have
    weigh nothing. One object serves many threads once it is fitted.

    Args:
        analyzer: a function from a text to its terms; None: `build_default_analyzer("en")`.
        k1: from 0, how far the count of a term in a document matters.
        b: 0 to 1, how far the length of a document matters.
        epsilon: from 0; a term that more than half of the documents have gets this times the mean IDF.
        workers: processes that analyze the texts of `fit` and `encode_documents`, for analyzers that are slow; the
            default ones are mostly faster without. The analyzer must be picklable, as those of trivec are.

    Raises:
        InputError: a parameter that is out of its range.
    """

    def __init__(
        self,
        analyzer: AnalyzerLike | None = None,
        *,
        k1: float = 1.5,
        b: float = 0.75,
        epsilon: float = 0.25,
        workers: int = 1,
    ) -> None:
        if analyzer is not None and not callable(analyzer):
            raise InputError(
                f"analyzer must be a function from a text to its terms, got {type(analyzer).__name__} {analyzer!r}. "
                'For a language type: build_default_analyzer("de")'
            )
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise InputError(f"workers must be a whole number from 1, got {workers!r}.")
        self.analyzer: AnalyzerLike = analyzer or build_default_analyzer()
        self._parameters = _stored.check_parameters(k1, b, epsilon)
        self._statistics: Statistics | None = None
        self._workers = workers

    def __repr__(self) -> str:
        k1, b, epsilon = self._parameters
        known = self._statistics
        state = f"{known.corpus_size} documents, {len(known.terms)} terms" if known else "not fitted"
        return f"BM25({state}, k1={k1}, b={b}, epsilon={epsilon}, analyzer={self.analyzer!r})"

    # ---- what it knows -----------------------------------------------------------------------------------------------

    @property
    def k1(self) -> float:
        """How far the count of a term matters."""
        return self._parameters.k1

    @property
    def b(self) -> float:
        """How far the length of a document matters."""
        return self._parameters.b

    @property
    def epsilon(self) -> float:
        """The weight of terms in more than half of the documents, times the mean IDF."""
        return self._parameters.epsilon

    @property
    def dim(self) -> int:
        """Number of terms, which is the dimension of the vectors; 0 before `fit` or `load`."""
        return len(self._statistics.terms) if self._statistics else 0

    @property
    def corpus_size(self) -> int:
        """Documents of the corpus; 0 before `fit` or `load`."""
        return self._statistics.corpus_size if self._statistics else 0

    @property
    def avgdl(self) -> float:
        """Mean number of terms of a document; 0 before `fit` or `load`."""
        return self._statistics.avgdl if self._statistics else 0.0

    @property
    def terms(self) -> list[str]:
        """The term of each dimension, so that `vectors.to_tokens(bm25.terms.__getitem__)` shows what a vector holds."""
        return list(self._statistics.terms) if self._statistics else []

    @property
    def idf(self) -> Doubles:
        """(dim,) float64 weights of the terms.

        Raises:
            InputError: it is not fitted.
        """
        return self._known().idf.copy()

    # ---- learning ----------------------------------------------------------------------------------------------------

    def fit(self, corpus: Iterable[str]) -> "BM25":
        """Learn the terms of a corpus and their weights; what was learned before is replaced, once this succeeds.

        Args:
            corpus: texts; they are read once, and not kept.

        Returns:
            This object.

        Raises:
            InputError: no documents, one that is no text, or no terms in any of them.
            WorkerError: a process died (workers > 1).
        """
        return self._learn(analyzed(self.analyzer, corpus, "document", self._workers))

    def fit_tokens(self, corpus: Iterable[Sequence[str]]) -> "BM25":
        """`fit` for documents that are split already: a list of terms for each; no analyzer is asked."""
        return self._learn(tokenized(corpus, "document"))

    def _learn(self, documents: Iterable[Sequence[str]]) -> "BM25":
        self._statistics = learn(documents, self.epsilon)
        return self

    # ---- encoding ----------------------------------------------------------------------------------------------------

    def encode_documents(self, documents: Iterable[str]) -> SparseVectors:
        """Weights of documents, which need not be of the corpus.

        Returns:
            (N, dim) tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / avgdl)) for each term.

        Raises:
            InputError: it is not fitted, or a document is no text.
            WorkerError: a process died (workers > 1).
        """
        self._known()
        return self._documents(analyzed(self.analyzer, documents, "document", self._workers))

    def encode_document_tokens(self, documents: Iterable[Sequence[str]]) -> SparseVectors:
        """`encode_documents` for documents that are split already."""
        return self._documents(tokenized(documents, "document"))

    def encode_queries(self, queries: Iterable[str]) -> SparseVectors:
        """Weights of queries.

        Returns:
            (N, dim) the IDF of each term, as many times as the query has it.

        Raises:
            InputError: it is not fitted, or a query is no text.
        """
        return self._queries(analyzed(self.analyzer, queries, "query"))

    def encode_query_tokens(self, queries: Iterable[Sequence[str]]) -> SparseVectors:
        """`encode_queries` for queries that are split already."""
        return self._queries(tokenized(queries, "query"))

    def _documents(self, documents: Iterable[Sequence[str]]) -> SparseVectors:
        known = self._known()
        return _vectors(document_weights(documents, known, self._parameters), known)

    def _queries(self, queries: Iterable[Sequence[str]]) -> SparseVectors:
        known = self._known()
        return _vectors(query_weights(queries, known), known)

    # ---- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write a JSON file that pymilvus.model reads as well; an existing one is replaced, in one step.

        Raises:
            InputError: it is not fitted.
            OSError: the file cannot be written.
        """
        _stored.write(path, self._known(), self._parameters)

    def load(self, path: str | Path) -> "BM25":
        """Take statistics, k1, b and epsilon from a file that `save`, or pymilvus.model, has written.

        The file does not say which analyzer its terms came from: it must be this object's.

        Returns:
            This object; where the file is refused, it stays as it was.

        Raises:
            ModelNotFoundError: no such file.
            ModelFormatError: truncated, of another version, or with values that no statistics have.
        """
        self._statistics, self._parameters = _stored.read(path)
        return self

    def _known(self) -> Statistics:
        if self._statistics is None:
            raise InputError("this BM25 knows no corpus yet. Type: bm25.fit(corpus), or bm25.load(path)")
        return self._statistics


def _vectors(rows: Csr, known: Statistics) -> SparseVectors:
    return SparseVectors._trusted(*rows, len(known.terms))
