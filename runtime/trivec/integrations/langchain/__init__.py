"""LangChain's embeddings on trivec (`pip install "trivec[langchain]"`).

    from langchain_core.vectorstores import InMemoryVectorStore
    from trivec.integrations.langchain import TrivecEmbeddings  # was: from langchain_huggingface import ...

    store = InMemoryVectorStore(TrivecEmbeddings("minilm"))
    store.add_texts(["a text", "another"])
    store.similarity_search("a question", k=1)

TrivecReranker is a compressor of documents for a second stage, and TrivecCrossEncoder what LangChain's own take. Sparse
vectors, for hybrid search, are in `trivec.integrations.langchain.qdrant` and `.milvus`: each store wants them in a form
of its own.
"""

from typing import cast

from trivec.integrations._adapter import missing
from trivec.integrations._text_model import dense_lists
from trivec.integrations.langchain._base import FromModel

try:
    from langchain_core.embeddings import Embeddings
except ImportError as error:
    raise missing("langchain-core", '"trivec[langchain]"', error) from error

from trivec.integrations.langchain._rerank import TrivecCrossEncoder, TrivecReranker

__all__ = ["TrivecCrossEncoder", "TrivecEmbeddings", "TrivecReranker"]


class TrivecEmbeddings(FromModel, Embeddings):
    """Dense vectors of documents and queries, for every vector store of LangChain.

        embeddings = TrivecEmbeddings("minilm", precision="int8", encode_kwargs={"normalize_embeddings": True})
        embeddings.embed_query("a question")  # list of floats

    Documents are encoded with the model's prompt for documents, queries with that for queries, where it has them.
    Queries that threads or coroutines ask for at the same time run together (`trivec.Batcher`). A BGE-M3 or mGTE model
    gives its dense vectors.

    A cache keeps vectors under the text. Where documents and queries have prompts of their own, one that keeps both in
    one namespace (query_embedding_cache=True) gives a query the vector of a document. Queries need their own store:

        from langchain_classic.embeddings import CacheBackedEmbeddings
        from langchain_classic.storage import LocalFileStore

        cached = CacheBackedEmbeddings.from_bytes_store(
            embeddings,
            LocalFileStore("cache/documents"),
            namespace=embeddings.fingerprint,
            query_embedding_cache=LocalFileStore(f"cache/queries/{embeddings.query_fingerprint}"),
            key_encoder="sha256",
        )

    Attributes:
        encoder: what `trivec.load` returned.
        fingerprint: sha256 of what decides the vectors of documents, and of nothing else.
        engine_fingerprint: what computes them here. Another engine's vectors are close and not equal: `trivec diff`.
        query_fingerprint: the same of queries. Equal to `fingerprint` where a text has one vector as either.
        truncated: texts that were longer than the model reads.
    """

    _needs = "dense"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents, in order.

        Raises:
            InputError: no list of texts; the index of what is no text is named, and nothing is encoded.
            TruncationError: a text is too long, with on_overflow="error".
            NonFiniteError: a vector is NaN or infinite; the text is named.
        """
        return cast("list[list[float]]", dense_lists(self._model.documents(texts)))

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query. Raises as `embed_documents`."""
        return cast("list[float]", dense_lists(self._model.query(text)))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents`, while the event loop goes on; one list at a time."""
        return await self._model.apart(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query`, while the event loop goes on."""
        return cast("list[float]", dense_lists(await self._model.aquery(text)))
