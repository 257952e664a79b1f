"""Sparse vectors for langchain-qdrant's QdrantVectorStore (`pip install "trivec[langchain]" langchain-qdrant`).

from langchain_qdrant import QdrantVectorStore, RetrievalMode
from trivec.integrations.langchain import TrivecEmbeddings
from trivec.integrations.langchain.qdrant import TrivecSparseEmbeddings

store = QdrantVectorStore.from_texts(
    texts,
    embedding=TrivecEmbeddings("minilm"),
    sparse_embedding=TrivecSparseEmbeddings("splade"),
    retrieval_mode=RetrievalMode.HYBRID,
    location=":memory:",
)
"""

from trivec._vectors.sparse import SparseVector as Row
from trivec.integrations._adapter import missing
from trivec.integrations._text_model import sparse_row, sparse_rows
from trivec.integrations.langchain._base import FromModel

try:
    from langchain_qdrant import SparseEmbeddings, SparseVector
except ImportError as error:
    raise missing("langchain-qdrant", '"trivec[langchain]" langchain-qdrant', error) from error

__all__ = ["TrivecSparseEmbeddings"]


class TrivecSparseEmbeddings(FromModel, SparseEmbeddings):
    """Weights of terms, of SPLADE and its inference-free kin, or of BGE-M3 and mGTE; arguments as of TrivecEmbeddings.

    sparse = TrivecSparseEmbeddings("splade", encode_kwargs={"max_active_dims": 128})
    sparse.embed_query("a question")  # langchain_qdrant's SparseVector: indices and values
    """

    _needs = "sparse"

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Sparse vectors of documents, in order. Raises as `TrivecEmbeddings.embed_documents`."""
        return [_vector(row) for row in sparse_rows(self._model.documents(texts))]

    def embed_query(self, text: str) -> SparseVector:
        """The sparse vector of a query."""
        return _vector(sparse_row(self._model.query(text)))

    async def aembed_documents(self, texts: list[str]) -> list[SparseVector]:
        """`embed_documents`, while the event loop goes on; one list at a time."""
        return await self._model.apart(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> SparseVector:
        """`embed_query`, while the event loop goes on."""
        return _vector(sparse_row(await self._model.aquery(text)))


def _vector(row: Row) -> SparseVector:
    return SparseVector(indices=row.indices.tolist(), values=row.values.tolist())
