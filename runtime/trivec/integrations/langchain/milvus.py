"""Sparse vectors for langchain-milvus' Milvus (`pip install "trivec[langchain]" langchain-milvus`).

from langchain_milvus import Milvus
from trivec.integrations.langchain import TrivecEmbeddings
from trivec.integrations.langchain.milvus import TrivecSparseEmbeddings

store = Milvus.from_texts(
    texts,
    embedding=[TrivecEmbeddings("minilm"), TrivecSparseEmbeddings("splade")],
    vector_field=["dense", "sparse"],
    index_params=[
        {"index_type": "FLAT", "metric_type": "COSINE"},
        {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP"},
    ],
    search_params=[{"metric_type": "COSINE"}, {"metric_type": "IP"}],
    connection_args={"uri": "texts.db"},
)
store.similarity_search("a question", k=3, ranker_type="rrf")

Without these parameters langchain-milvus drops the lightest fifth of the terms, which Milvus Lite refuses.
"""

from trivec.integrations._adapter import missing
from trivec.integrations._text_model import sparse_row, sparse_rows
from trivec.integrations.langchain._base import FromModel

try:
    from langchain_milvus.utils.sparse import BaseSparseEmbedding
except ImportError as error:
    raise missing("langchain-milvus", '"trivec[langchain]" langchain-milvus', error) from error

__all__ = ["TrivecSparseEmbeddings"]


class TrivecSparseEmbeddings(FromModel, BaseSparseEmbedding):
    """Weights of terms, of SPLADE and its inference-free kin, or of BGE-M3 and mGTE; arguments as of TrivecEmbeddings.

    sparse = TrivecSparseEmbeddings("splade", encode_kwargs={"max_active_dims": 128})
    sparse.embed_query("a question")  # {term: weight}
    """

    _needs = "sparse"

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Weights of documents' terms, in order. Raises as `TrivecEmbeddings.embed_documents`."""
        return sparse_rows(self._model.documents(texts)).to_dicts()

    def embed_query(self, query: str) -> dict[int, float]:
        """The weights of a query's terms."""
        return sparse_row(self._model.query(query)).to_dict()

    async def aembed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """`embed_documents`, while the event loop goes on; one list at a time."""
        return await self._model.apart(self.embed_documents, texts)

    async def aembed_query(self, query: str) -> dict[int, float]:
        """`embed_query`, while the event loop goes on."""
        return sparse_row(await self._model.aquery(query)).to_dict()
