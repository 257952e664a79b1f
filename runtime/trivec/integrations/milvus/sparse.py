"""Embedding functions with weights of terms: SPLADE, and BM25."""

from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Unpack

from trivec._encoders.protocol import Encoder
from trivec._errors import InputError, ModelNotFoundError
from trivec.integrations._text_model import as_list
from trivec.integrations.milvus._base import (
    BaseEmbeddingFunction,
    LoadArguments,
    check_scipy,
    encoder_of,
    rows_of,
    with_instruction,
)
from trivec.lexical import BM25

__all__ = ["BM25EmbeddingFunction", "SpladeEmbeddingFunction"]
_MS_MARCO = "bm25_msmarco_v1.json"


class _SparseFunction(BaseEmbeddingFunction):
    """Weights of terms."""

    model: Encoder | BM25

    @property
    def dim(self) -> int:
        """Terms of the vocabulary: columns of the arrays; 0 of a BM25 before `fit` or `load`."""
        return self.model.dim

    def _encode_query(self, query: str) -> Any:  # noqa: ANN401
        """One query: (1, dim)."""
        return self.encode_queries([query])

    def _encode_document(self, document: str) -> Any:  # noqa: ANN401
        """One document: (1, dim)."""
        return self.encode_documents([document])


class SpladeEmbeddingFunction(_SparseFunction):
    """SPLADE: log1p(relu(logits)), the largest of a text's tokens for each term of the vocabulary.

        ef = SpladeEmbeddingFunction("naver/splade-cocondenser-ensembledistil")
        ef.encode_documents(["a text"])  # csr_array (1, 30522) float32

    Inference-free models work as well: their queries come from a table of weights.
    """

    def __init__(
        self,
        model_name: str | PathLike[str] = "naver/splade-cocondenser-ensembledistil",
        batch_size: int = 32,
        query_instruction: str = "",
        doc_instruction: str = "",
        device: str | None = "cpu",
        k_tokens_query: int | None = None,
        k_tokens_document: int | None = None,
        **kwargs: Unpack[LoadArguments],
    ) -> None:
        """Open the model.

        Args:
            model_name: a folder written by `trivec export`, or a name on the Hub.
            batch_size: as of `SparseEncoder.encode`.
            query_instruction: put before each query.
            doc_instruction: put before each document.
            device: "cpu", "cuda", "cuda:1"; None chooses.
            k_tokens_query: keep the heaviest so many terms of a query; None: all.
            k_tokens_document: the same for documents.
            kwargs: LoadArguments.

        Raises:
            MissingExtraError: scipy is not installed.
            InputError: an unknown argument, or the model is not a sparse one.
            Whatever `trivec.load` raises.
        """
        check_scipy()
        self.model_name, self.batch_size = model_name, batch_size
        self.query_instruction, self.doc_instruction = query_instruction, doc_instruction
        self.k_tokens_query, self.k_tokens_document = k_tokens_query, k_tokens_document
        need = "a SPLADE model (a masked language model)"
        self.model: Encoder = encoder_of(model_name, device, kwargs, lambda e: e.heads == ("sparse",), need)
        self.device = self.model.device

    def __call__(self, texts: Sequence[str]) -> Any:  # noqa: ANN401 - scipy has no types
        """Vectors of texts, without an instruction and with all their terms: csr_array (N, dim) float32."""
        return self._encode(as_list(texts, "texts"), None, None)

    def encode_queries(self, queries: Sequence[str]) -> Any:  # noqa: ANN401
        """Vectors of queries: csr_array (N, dim) float32, of which a row stays (1, dim)."""
        texts = with_instruction(self.query_instruction, as_list(queries, "queries"))
        return self._encode(texts, "query", self.k_tokens_query)

    def encode_documents(self, documents: Sequence[str]) -> Any:  # noqa: ANN401
        """Vectors of documents: csr_array (N, dim) float32, of which a row stays (1, dim)."""
        texts = with_instruction(self.doc_instruction, as_list(documents, "documents"))
        return self._encode(texts, "document", self.k_tokens_document)

    def _encode(self, texts: list[str], task: str | None, k_tokens: int | None) -> Any:  # noqa: ANN401
        return rows_of(
            self.model.encode(texts, prompt="", batch_size=self.batch_size, task=task, max_active_dims=k_tokens)
        )


class BM25EmbeddingFunction(_SparseFunction):
    """BM25: no model, but a corpus whose terms it learns.

        ef = BM25EmbeddingFunction(corpus=texts)
        ef.encode_documents(texts)  # csr_array (N, dim) float32; the score is the dot product with encode_queries
        ef.save("bm25.json")

    The file is the one that pymilvus.model writes and reads.
    """

    def __init__(
        self,
        analyzer: Callable[[str], Sequence[str]] | None = None,
        corpus: Sequence[str] | None = None,
        k1: float = 1.5,
        b: float = 0.75,
        epsilon: float = 0.25,
        num_workers: int = 1,
    ) -> None:
        """Make the function, and fit it where a corpus is given.

        Args:
            analyzer: a function from a text to its terms, such as `build_default_analyzer("de")`; None: English.
            corpus: texts to learn from; None: call `fit` or `load`.
            k1: from 0, how far the count of a term matters.
            b: 0 to 1, how far the length of a document matters.
            epsilon: from 0; a term that more than half of the documents have gets this times the mean IDF.
            num_workers: processes that analyze texts.

        Raises:
            MissingExtraError: scipy is not installed.
            InputError: a parameter out of range, or a corpus without terms.
        """
        check_scipy()
        self.model: BM25 = BM25(analyzer, k1=k1, b=b, epsilon=epsilon, workers=num_workers)
        self.analyzer, self.num_workers = self.model.analyzer, num_workers
        if corpus is not None:
            self.fit(corpus)

    def __call__(self, texts: Sequence[str]) -> Any:  # noqa: ANN401, ARG002 - as of the others
        """Not for BM25, which reads queries and documents differently.

        Raises:
            InputError: always.
        """
        raise InputError("BM25 reads queries and documents differently. Type: encode_documents or encode_queries")

    def fit(self, corpus: Sequence[str]) -> None:
        """Learn the terms of a corpus and their weights, in place of what was learned before.

        Raises:
            InputError: no documents, one that is no text, or no terms in any of them.
        """
        self.model.fit(as_list(corpus, "corpus"))

    def encode_queries(self, queries: Sequence[str]) -> Any:  # noqa: ANN401 - scipy has no types
        """IDF weights of queries: csr_array (N, dim) float32, of which a row stays (1, dim).

        Raises:
            InputError: neither fitted nor loaded, or something that is no text.
        """
        return rows_of(self.model.encode_queries(as_list(queries, "queries")))

    def encode_documents(self, documents: Sequence[str]) -> Any:  # noqa: ANN401
        """Weights of documents: csr_array (N, dim) float32, of which a row stays (1, dim).

        Raises:
            InputError: neither fitted nor loaded, or something that is no text.
        """
        return rows_of(self.model.encode_documents(as_list(documents, "documents")))

    def save(self, path: str | PathLike[str]) -> None:
        """Write what was learned: JSON, as of pymilvus.model."""
        self.model.save(fspath(path))

    def load(self, path: str | PathLike[str] | None = None) -> None:
        """Take what was learned from a file that this function or pymilvus.model has written.

        Args:
            path: None: "bm25_msmarco_v1.json" in the working folder, as there; it is not downloaded.

        Raises:
            ModelNotFoundError: no such file.
            ModelFormatError: truncated, of another version, or with values that no statistics have.
        """
        if path is None and not Path(_MS_MARCO).exists():
            raise ModelNotFoundError(
                f"load() without a path reads {_MS_MARCO}, which is not in {Path.cwd()}; nothing is downloaded. Fetch "
                "it from milvus-io/pymilvus-assets, or name a file: load(path)"
            )
        self.model.load(_MS_MARCO if path is None else fspath(path))
