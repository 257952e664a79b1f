"""The embedding functions of pymilvus.model on trivec: its names, parameters and return types, without torch.

    from trivec.integrations.milvus import BGEM3EmbeddingFunction  # was: from pymilvus.model.hybrid import ...

    ef = BGEM3EmbeddingFunction("BAAI/bge-m3", device="cpu")
    vectors = ef.encode_documents(["a text"])  # {"dense": [(1024,)], "sparse": csr_array (1, 250002)}

Dense functions give lists of float32 arrays, sparse ones a csr_array whose rows stay (1, N). A lone string is refused,
where pymilvus.model reads it letter by letter. Sparse vectors need `trivec[milvus]`.
"""

from trivec.integrations.milvus import dense, hybrid, sparse
from trivec.integrations.milvus._base import BaseEmbeddingFunction
from trivec.integrations.milvus.dense import (
    DefaultEmbeddingFunction,
    InstructorEmbeddingFunction,
    JinaEmbeddingFunction,
    Model2VecEmbeddingFunction,
    NomicEmbeddingFunction,
    OnnxEmbeddingFunction,
    SentenceTransformerEmbeddingFunction,
)
from trivec.integrations.milvus.hybrid import BGEM3EmbeddingFunction, MGTEEmbeddingFunction
from trivec.integrations.milvus.sparse import BM25EmbeddingFunction, SpladeEmbeddingFunction
from trivec.lexical import Analyzer, build_analyzer_from_yaml, build_default_analyzer

__all__ = [
    "Analyzer",
    "BGEM3EmbeddingFunction",
    "BM25EmbeddingFunction",
    "BaseEmbeddingFunction",
    "DefaultEmbeddingFunction",
    "InstructorEmbeddingFunction",
    "JinaEmbeddingFunction",
    "MGTEEmbeddingFunction",
    "Model2VecEmbeddingFunction",
    "NomicEmbeddingFunction",
    "OnnxEmbeddingFunction",
    "SentenceTransformerEmbeddingFunction",
    "SpladeEmbeddingFunction",
    "build_analyzer_from_yaml",
    "build_default_analyzer",
    "dense",
    "hybrid",
    "sparse",
]
