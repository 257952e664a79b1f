"""Haystack's components on trivec: embedders, dense and sparse, and a ranker (`pip install "haystack-ai>=3.4.1"`).

    from haystack import Document
    from trivec.integrations.haystack import TrivecDocumentEmbedder, TrivecRanker, TrivecTextEmbedder

    documents = TrivecDocumentEmbedder("minilm").run([Document(content="a text")])["documents"]
    TrivecTextEmbedder("minilm").run("a question")["embedding"]  # list of floats
    TrivecRanker("reranker", top_k=3).run("a question", documents)["documents"]

A component opens its model in `warm_up`, which pipelines and `run` call. `to_dict` of an open one holds the
fingerprint: made again from that, it refuses a model that gives other vectors. Haystack wants to be told whom to trust:
`Pipeline.loads(kept, allowed_modules=["trivec.integrations.haystack"])`.
"""

from trivec.integrations._adapter import missing

try:
    import haystack  # noqa: F401 - before the classes that it makes components
except ImportError as error:
    raise missing("haystack-ai", '"haystack-ai>=3.4.1"', error) from error

from trivec.integrations.haystack._embedders import (
    TrivecDocumentEmbedder,
    TrivecSparseDocumentEmbedder,
    TrivecSparseTextEmbedder,
    TrivecTextEmbedder,
)
from trivec.integrations.haystack._ranker import TrivecRanker

__all__ = [
    "TrivecDocumentEmbedder",
    "TrivecRanker",
    "TrivecSparseDocumentEmbedder",
    "TrivecSparseTextEmbedder",
    "TrivecTextEmbedder",
]
