"""Embedders for Haystack: of texts, which are queries, and of documents; dense and sparse."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.dataclasses import SparseEmbedding

from trivec._encoders.calls import Overflow
from trivec._vectors.sparse import SparseVector
from trivec.integrations._adapter import Model, ModelOptions
from trivec.integrations._saved_model import SavedModel
from trivec.integrations._text_model import as_list, dense_lists, sparse_row, sparse_rows
from trivec.integrations.haystack._texts import PACKAGE, texts_of


class _Embedder(SavedModel):
    """What all embedders have: their arguments, and how Haystack keeps them."""

    def __init__(
        self,
        model: Model,
        *,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        on_overflow: Overflow | None = None,
        load_options: Mapping[str, Any] | None = None,
        encode_options: Mapping[str, Any] | None = None,
        query_options: Mapping[str, Any] | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """Remember what to open.

        Args:
            model: a folder written by `trivec export`, a name on the Hub, "provider:model" of a hosted one, or what
                `trivec.load` returns.
            device: as of `trivec.load`, as are precision and threads; None: its default.
            precision: the variant.
            threads: CPU threads.
            on_overflow: "error" raises for a text that is longer than the model reads; None cuts it, and counts it in
                `truncated`.
            load_options: further arguments of `trivec.load`, such as {"truncate_dim": 128}.
            encode_options: options of `encode_document`, and of `encode_query` as well.
            query_options: options of `encode_query` alone, which win over those.
            fingerprint: what the model must have, as `to_dict` has written it down.

        Raises:
            InputError: neither a name nor an encoder, or an encoder of another kind. All else `warm_up` raises.
        """
        options = (load_options, encode_options, query_options)
        self._keep(ModelOptions(model, device, precision, threads, on_overflow, *options), fingerprint)

    def warm_up(self) -> None:
        """Open the model; raises as `trivec.load`, and InputError for one of another kind or fingerprint."""
        self._model  # noqa: B018 - opens

    def to_dict(self) -> dict[str, Any]:
        """For a pipeline's YAML: nothing of the machine (device, threads), and no token."""
        found: dict[str, Any] = default_to_dict(self, **self.arguments())
        return found

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:  # noqa: ANN401 - the decorator makes the class anew
        """As `to_dict` wrote it."""
        return default_from_dict(cls, data)


class _DocumentEmbedder(_Embedder):
    """An embedder that also reads what a document's meta says."""

    def __init__(
        self,
        model: Model,
        *,
        meta_fields_to_embed: Sequence[str] | None = None,
        embedding_separator: str = "\n",
        **options: Any,  # noqa: ANN401 - as of TrivecTextEmbedder
    ) -> None:
        """Remember what to open.

        Args:
            model: as of TrivecTextEmbedder.
            meta_fields_to_embed: what of a document's meta is put before its content, where it has it.
            embedding_separator: what stands between these.
            options: as of TrivecTextEmbedder.

        Raises:
            InputError, TypeError: as of TrivecTextEmbedder.
        """
        super().__init__(model, **options)
        self.meta_fields_to_embed = as_list(meta_fields_to_embed or [], "meta_fields_to_embed")
        self.embedding_separator = embedding_separator

    def arguments(self) -> dict[str, Any]:
        """What makes it again."""
        own = {"meta_fields_to_embed": self.meta_fields_to_embed, "embedding_separator": self.embedding_separator}
        return {**super().arguments(), **(own if self.meta_fields_to_embed else {})}

    def _embedded(self, documents: list[Document]) -> dict[str, Any]:
        """Copies of documents, each with its row."""
        found = self._model.documents(texts_of(documents, self.meta_fields_to_embed, self.embedding_separator))
        name, rows = (
            ("embedding", dense_lists(found))
            if self._needs == "dense"
            else ("sparse_embedding", map(_sparse, sparse_rows(found)))
        )
        return {"documents": [replace(document, **{name: row}) for document, row in zip(documents, rows, strict=True)]}


@component
class TrivecTextEmbedder(_Embedder):
    """The dense vector of a query, with the model's prompt for queries."""

    __module__ = PACKAGE
    _side = "query"

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """{"embedding": D floats}; InputError for what is no text, TruncationError as `on_overflow` says."""
        return {"embedding": dense_lists(self._model.query(text))}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, Any]:
        """`run`, while the event loop goes on; queries that meet run together."""
        return {"embedding": dense_lists(await self._model.aquery(text))}


@component
class TrivecSparseTextEmbedder(_Embedder):
    """A query's weights of terms: SPLADE and its inference-free kin, BGE-M3 and mGTE."""

    __module__ = PACKAGE
    _needs, _side = "sparse", "query"

    @component.output_types(sparse_embedding=SparseEmbedding)
    def run(self, text: str) -> dict[str, Any]:
        """{"sparse_embedding": Haystack's SparseEmbedding}; raises as TrivecTextEmbedder."""
        return {"sparse_embedding": _sparse(sparse_row(self._model.query(text)))}

    @component.output_types(sparse_embedding=SparseEmbedding)
    async def run_async(self, text: str) -> dict[str, Any]:
        """`run`, while the event loop goes on."""
        return {"sparse_embedding": _sparse(sparse_row(await self._model.aquery(text)))}


@component
class TrivecDocumentEmbedder(_DocumentEmbedder):
    """Dense vectors of documents, with the model's prompt for documents; what it is given stays as it is."""

    __module__ = PACKAGE

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """{"documents": copies with `embedding`}; InputError for what is no document, or one without content."""
        return self._embedded(documents)

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """`run`, while the event loop goes on; one list at a time."""
        return await self._model.apart(self._embedded, documents)


@component
class TrivecSparseDocumentEmbedder(_DocumentEmbedder):
    """Documents' weights of terms; what it is given stays as it is."""

    __module__ = PACKAGE
    _needs = "sparse"

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """{"documents": copies with `sparse_embedding`}; raises as TrivecDocumentEmbedder."""
        return self._embedded(documents)

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """`run`, while the event loop goes on; one list at a time."""
        return await self._model.apart(self._embedded, documents)


def _sparse(row: SparseVector) -> SparseEmbedding:
    return SparseEmbedding(row.indices.tolist(), row.values.tolist())
