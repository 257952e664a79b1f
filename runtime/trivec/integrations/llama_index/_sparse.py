"""Weights of terms for LlamaIndex, and the functions that its vector stores take for hybrid search."""

from collections.abc import Mapping
from typing import Any

from llama_index.core.base.embeddings.base_sparse import BaseSparseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from trivec._encoders.calls import Overflow
from trivec._vectors.sparse import SparseVectors
from trivec.integrations._adapter import Model, ModelOptions
from trivec.integrations._saved_model import name_of
from trivec.integrations._text_model import TextModel, sparse_row, sparse_rows
from trivec.integrations.llama_index._base import BATCH, OfTexts


class TrivecSparseEmbedding(OfTexts, BaseSparseEmbedding):
    """Weights of terms: SPLADE and its inference-free kin, BGE-M3 and mGTE.

        sparse = TrivecSparseEmbedding("splade", encode_options={"max_active_dims": 128})
        sparse.get_query_embedding("a question")  # {term: weight}
        sparse.sparse_doc_fn(["a text", "another"])  # ([[term, ...], [...]], [[weight, ...], [...]])

    Attributes:
        encoder: what `trivec.load` returned.
        fingerprint: sha256 of what decides the vectors of texts; `query_fingerprint` of those of queries.
        truncated: texts that were longer than the model reads.
    """

    _model: TextModel = PrivateAttr()

    def __init__(
        self,
        model_name: Model,
        *,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        on_overflow: Overflow | None = None,
        load_options: Mapping[str, Any] | None = None,
        encode_options: Mapping[str, Any] | None = None,
        query_options: Mapping[str, Any] | None = None,
        embed_batch_size: int = BATCH,
        num_workers: int | None = None,
    ) -> None:
        """Open the model; arguments and errors as of TrivecEmbedding."""
        options = ModelOptions(
            model_name, device, precision, threads, on_overflow, load_options, encode_options, query_options
        )
        model = options.open("sparse", "Dense ones: TrivecEmbedding")
        super().__init__(
            model_name=name_of(model_name, model.encoder), embed_batch_size=embed_batch_size, num_workers=num_workers
        )
        self._model = model

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex reports it."""
        return "TrivecSparseEmbedding"

    def sparse_doc_fn(self, texts: list[str]) -> tuple[list[list[int]], list[list[float]]]:
        """Terms and weights of each text, as LlamaIndex' vector stores take them."""
        return _lists(sparse_rows(self._model.documents(texts)))

    def sparse_query_fn(self, texts: list[str]) -> tuple[list[list[int]], list[list[float]]]:
        """Terms and weights of each query."""
        return _lists(sparse_rows(self._model.queries(texts)))

    def _get_query_embedding(self, query: str) -> dict[int, float]:
        return sparse_row(self._model.query(query)).to_dict()

    def _get_text_embedding(self, text: str) -> dict[int, float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[dict[int, float]]:
        return sparse_rows(self._model.documents(texts)).to_dicts()

    async def _aget_query_embedding(self, query: str) -> dict[int, float]:
        return sparse_row(await self._model.aquery(query)).to_dict()

    async def _aget_text_embedding(self, text: str) -> dict[int, float]:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[dict[int, float]]:
        return await self._model.apart(self._get_text_embeddings, texts)


def _lists(rows: SparseVectors) -> tuple[list[list[int]], list[list[float]]]:
    return [row.indices.tolist() for row in rows], [row.values.tolist() for row in rows]
