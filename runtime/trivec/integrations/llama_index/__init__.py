"""LlamaIndex' embeddings on trivec, dense and sparse, and its rerankers (`pip install "trivec[llama-index]"`).

    from llama_index.core import Settings
    from trivec.integrations.llama_index import TrivecEmbedding  # was: HuggingFaceEmbedding

    Settings.embed_model = TrivecEmbedding("minilm")

Sparse functions, as LlamaIndex' vector stores take them for hybrid search:

    sparse = TrivecSparseEmbedding("splade")
    QdrantVectorStore(
        "texts",
        client=client,
        enable_hybrid=True,
        sparse_doc_fn=sparse.sparse_doc_fn,
        sparse_query_fn=sparse.sparse_query_fn,
    )
"""

from trivec.integrations._adapter import missing

try:
    import llama_index.core  # noqa: F401 - before the classes that derive from its own
except ImportError as error:
    raise missing("llama-index-core", '"trivec[llama-index]"', error) from error

from trivec.integrations.llama_index._dense import TrivecEmbedding
from trivec.integrations.llama_index._rerank import TrivecRerank
from trivec.integrations.llama_index._sparse import TrivecSparseEmbedding

__all__ = ["TrivecEmbedding", "TrivecRerank", "TrivecSparseEmbedding"]
