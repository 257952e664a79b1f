"""trivec: text embeddings from ONNX graphs, without torch.

encoder = trivec.load("folder-or-hub-name")
vectors = encoder.encode(["first text", "second text"])  # (2, dim) float32
"""

from trivec._concurrency.batcher import Batcher
from trivec._encoders.dense import DenseEncoder
from trivec._encoders.hybrid import HybridEncoder
from trivec._encoders.late import LateEncoder
from trivec._encoders.reranker import Reranker
from trivec._encoders.sparse import SparseEncoder
from trivec._encoders.static import StaticEncoder
from trivec._errors import (
    BusyError,
    GateError,
    InputError,
    IntegrityError,
    MissingExtraError,
    ModelFormatError,
    ModelNotFoundError,
    NonFiniteError,
    ProviderError,
    ServiceError,
    TrivecError,
    TruncationError,
    WorkerError,
)
from trivec._export import export
from trivec._load import load
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.quantize import dequantize_embeddings, quantize_embeddings
from trivec._vectors.quantized_search import hamming_distance, int8_scores, rescore, search_quantized
from trivec._vectors.sparse import SparseVector, SparseVectors
from trivec._version import __version__

__all__ = [
    "Batcher",
    "BusyError",
    "DenseEncoder",
    "GateError",
    "HybridEncoder",
    "HybridVectors",
    "InputError",
    "IntegrityError",
    "LateEncoder",
    "MissingExtraError",
    "ModelFormatError",
    "ModelNotFoundError",
    "MultiVectors",
    "NonFiniteError",
    "ProviderError",
    "Reranker",
    "ServiceError",
    "SparseEncoder",
    "SparseVector",
    "SparseVectors",
    "StaticEncoder",
    "TrivecError",
    "TruncationError",
    "WorkerError",
    "__version__",
    "dequantize_embeddings",
    "export",
    "hamming_distance",
    "int8_scores",
    "load",
    "quantize_embeddings",
    "rescore",
    "search_quantized",
]

for _name in __all__:  # tracebacks and repr show trivec.InputError, not trivec._errors.InputError
    _value = globals()[_name]
    if isinstance(_value, type) or callable(_value):
        _value.__module__ = __name__
