"""The embedding functions of pymilvus.model on trivec: its names, parameters and return types, without torch.

    from trivec.integrations.milvus import BGEM3EmbeddingFunction  # was: from pymilvus.model.hybrid import ...

    ef = BGEM3EmbeddingFunction("BAAI/bge-m3", device="cpu")
    vectors = ef.encode_documents(["a text"])  # {"dense": [(1024,)], "sparse": csr_array (1, 250002)}

Dense functions give lists of float32 arrays, sparse ones a csr_array whose rows stay (1, N). A lone string is refused,
where pymilvus.model reads it letter by letter. Sparse vectors need `trivec[milvus]`, those that ask an API
`trivec[hosted]`; of Jina and Nomic the open weights run here, and `.hosted` has the API's. Rerankers are `.reranker`'s.
"""

from trivec.integrations.milvus import dense, hosted, hybrid, late, reranker, sparse
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
from trivec.integrations.milvus.hosted import (
    CohereEmbeddingFunction,
    GeminiEmbeddingFunction,
    MistralAIEmbeddingFunction,
    OpenAIEmbeddingFunction,
    TEIEmbeddingFunction,
    VoyageEmbeddingFunction,
)
from trivec.integrations.milvus.hybrid import BGEM3EmbeddingFunction, MGTEEmbeddingFunction
from trivec.integrations.milvus.late import ColBERTEmbeddingFunction
from trivec.integrations.milvus.reranker import (
    BGERerankFunction,
    CohereRerankFunction,
    CrossEncoderRerankFunction,
    JinaRerankFunction,
    TEIRerankFunction,
    VoyageRerankFunction,
)
from trivec.integrations.milvus.sparse import BM25EmbeddingFunction, SpladeEmbeddingFunction
from trivec.lexical import Analyzer, build_analyzer_from_yaml, build_default_analyzer

__all__ = [
    "Analyzer",
    "BGEM3EmbeddingFunction",
    "BGERerankFunction",
    "BM25EmbeddingFunction",
    "BaseEmbeddingFunction",
    "CohereEmbeddingFunction",
    "CohereRerankFunction",
    "ColBERTEmbeddingFunction",
    "CrossEncoderRerankFunction",
    "DefaultEmbeddingFunction",
    "GeminiEmbeddingFunction",
    "InstructorEmbeddingFunction",
    "JinaEmbeddingFunction",
    "JinaRerankFunction",
    "MGTEEmbeddingFunction",
    "MistralAIEmbeddingFunction",
    "Model2VecEmbeddingFunction",
    "NomicEmbeddingFunction",
    "OnnxEmbeddingFunction",
    "OpenAIEmbeddingFunction",
    "SentenceTransformerEmbeddingFunction",
    "SpladeEmbeddingFunction",
    "TEIEmbeddingFunction",
    "TEIRerankFunction",
    "VoyageEmbeddingFunction",
    "VoyageRerankFunction",
    "build_analyzer_from_yaml",
    "build_default_analyzer",
    "dense",
    "hosted",
    "hybrid",
    "late",
    "reranker",
    "sparse",
]
