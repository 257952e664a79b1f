"""A trivec model in Qdrant's terms: collections, points and queries (`pip install "trivec[qdrant]"`).

from qdrant_client import QdrantClient
from trivec.integrations.qdrant import QdrantEncoder

encoder = QdrantEncoder("minilm") + QdrantEncoder("splade")  # vectors named "dense" and "sparse"
client = QdrantClient(":memory:")
client.create_collection("texts", **encoder.collection())
client.upload_points("texts", encoder.iter_points(texts))
client.query_points("texts", **encoder.query("a question", using="dense"), limit=3)
client.query_points("texts", **encoder.hybrid("a question"), limit=3)  # both, by reciprocal rank fusion
"""

from trivec.integrations._adapter import missing

try:
    import qdrant_client  # noqa: F401 - before the modules that use it
except ImportError as error:
    raise missing("qdrant-client", '"trivec[qdrant]"', error) from error

from trivec.integrations.qdrant._encoder import QdrantEncoder
from trivec.integrations.qdrant._search import Search
from trivec.integrations.qdrant._vectors import Collection

__all__ = ["Collection", "QdrantEncoder", "Search"]
