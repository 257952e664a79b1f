"""KeyBERT on trivec (`pip install "keybert>=0.9"`).

    from keybert import KeyBERT
    from trivec.integrations.keybert import TrivecBackend

    KeyBERT(TrivecBackend("minilm")).extract_keywords("a text of some length")

KeyBERT takes an encoder that it does not know for none at all, and fetches a model of its own from the Hub. Where this
module has been imported, it refuses one of trivec's that comes without TrivecBackend.
"""

from trivec.integrations._adapter import missing
from trivec.integrations._embedder import Backend, refuse_encoders

try:
    from keybert import _model
    from keybert.backend import BaseEmbedder, _utils
except ImportError as error:
    raise missing("keybert", '"keybert>=0.9"', error) from error

__all__ = ["TrivecBackend"]


class TrivecBackend(Backend, BaseEmbedder):
    """Vectors of texts and of their words, which KeyBERT compares; both get the model's prompt for documents.

        backend = TrivecBackend("minilm", precision="int8")
        backend.embed(["a text"])  # (1, D) float32

    KeyBERT does not say which of the two it asks for. It pickles. Attributes as of trivec.integrations.bertopic's.
    """


refuse_encoders((_model, _utils), "KeyBERT(TrivecBackend(encoder))", __name__)
