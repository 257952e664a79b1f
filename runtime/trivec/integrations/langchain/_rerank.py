"""Rerankers for LangChain: a cross-encoder, and a compressor of documents."""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from pydantic import ConfigDict, Field, PrivateAttr

from trivec._errors import InputError
from trivec._pooling.ranks import Ranked
from trivec.integrations._rank_model import OfReranker, RankModel, Reranking, open_rank_model

SCORE = "relevance_score"
"""The key of a document's score among its metadata, as LangChain's own rerankers name it."""


def _opened(model: Reranking | None, model_name: str | None, **options: Any) -> RankModel:  # noqa: ANN401
    if (model is None) == (model_name is None):
        raise InputError("expected one model: its folder or name as the first argument, or as model_name=.")
    return open_rank_model(model_name if model is None else model, **options)


class TrivecCrossEncoder(OfReranker, BaseCrossEncoder):
    """Scores of pairs, for LangChain's CrossEncoderReranker and whoever else takes a cross-encoder.

    Safe to use from many threads; pickles.

        encoder = TrivecCrossEncoder("reranker", precision="int8")
        encoder.score([("a question", "a passage"), ("a question", "another")])  # list of floats

    Attributes:
        reranker: what `trivec.load` or `trivec.hosted.open_reranker` returned.
        fingerprint: sha256 of what decides the scores, and of nothing else.
        truncated: pairs that were longer than the model reads.
    """

    def __init__(
        self,
        model: Reranking | None = None,
        *,
        model_name: str | None = None,
        cache_folder: str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        rank_kwargs: Mapping[str, Any] | None = None,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Open the model. The names are those of langchain-community's HuggingFaceCrossEncoder, and trivec's.

        Args:
            model: a folder written by `trivec export`, a name on the Hub, "provider:model" of a hosted one, or what
                `trivec.load` returns.
            model_name: the same, by its older name.
            cache_folder: the Hub's cache folder; None: its default.
            model_kwargs: further arguments of `trivec.load`, or of `trivec.hosted.open_reranker`.
            rank_kwargs: options of the reranker's `rank`, such as {"activation_fn": "identity"}.
            device: as of `trivec.load`, as are precision and threads; None: its default.
            precision: the variant.
            threads: CPU threads.

        Raises:
            InputError: no model, one of another kind or of several labels, or an argument that is unknown.
            Whatever `trivec.load` raises.
        """
        self._model = _opened(
            model,
            model_name,
            cache_dir=cache_folder,
            load=model_kwargs,
            options=rank_kwargs,
            device=device,
            precision=precision,
            threads=threads,
        )

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """A score of each pair; those of one query run together.

        Raises:
            InputError: something that is no pair of texts; its index is named, and nothing is scored.
            Whatever the reranker's `rank` raises.
        """
        return self._model.scores(text_pairs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model.reranker!r})"


class TrivecReranker(OfReranker, BaseDocumentCompressor):
    """The most relevant documents for a query, best first, for ContextualCompressionRetriever and by itself.

    Safe to use from many threads and coroutines; pickles.

        reranker = TrivecReranker("reranker", top_n=3)
        reranker.compress_documents(documents, "a question")[0].metadata["relevance_score"]

    The documents that it is given stay as they are: those that it gives are copies with the score among their metadata.

    Attributes:
        top_n: how many documents are given; None: all.
        reranker, fingerprint, truncated: as of TrivecCrossEncoder.
    """

    model_config = ConfigDict(extra="forbid")
    top_n: int | None = Field(default=3, ge=1)
    _model: RankModel = PrivateAttr()

    def __init__(
        self,
        model: Reranking | None = None,
        *,
        top_n: int | None = 3,
        model_name: str | None = None,
        cache_folder: str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        rank_kwargs: Mapping[str, Any] | None = None,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Open the model; arguments and errors as of TrivecCrossEncoder, and `top_n`."""
        fields: dict[str, Any] = {"top_n": top_n}
        super().__init__(**fields)
        self._model = _opened(
            model,
            model_name,
            cache_dir=cache_folder,
            load=model_kwargs,
            options=rank_kwargs,
            device=device,
            precision=precision,
            threads=threads,
        )

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - nothing is told on the way
    ) -> Sequence[Document]:
        """The `top_n` most relevant documents, best first, of equal ones the earlier.

        Raises:
            InputError: the query or a document's page_content is no text.
            Whatever the reranker's `rank` raises.
        """
        return _chosen(documents, self._model.rank(query, _texts(documents), self.top_n))

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - nothing is told on the way
    ) -> Sequence[Document]:
        """`compress_documents`, while the event loop goes on."""
        return _chosen(documents, await self._model.arank(query, _texts(documents), self.top_n))


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents]


def _chosen(documents: Sequence[Document], ranked: list[Ranked]) -> list[Document]:
    chosen = []
    for place in ranked:
        document = documents[place["corpus_id"]]
        metadata = {**document.metadata, SCORE: place["score"]}
        chosen.append(document.model_copy(update={"metadata": metadata}))
    return chosen
