"""BERTopic on trivec (`pip install "bertopic>=0.17.4"`).

    from bertopic import BERTopic
    from trivec.integrations.bertopic import TrivecBackend

    topics = BERTopic(embedding_model=TrivecBackend("minilm"))
    topics.fit_transform(texts)

    topics.save("topics", serialization="safetensors")  # keeps no model: give it again
    BERTopic.load("topics", embedding_model=TrivecBackend("minilm"))

BERTopic takes an encoder that it does not know for none at all, and fetches a model of its own from the Hub. Where this
module has been imported, it refuses one of trivec's that comes without TrivecBackend.
"""

from typing import Any

from trivec.integrations._adapter import missing
from trivec.integrations._embedder import Backend, Matrix, refuse_encoders

try:
    from bertopic import _bertopic
    from bertopic.backend import BaseEmbedder, _utils
except ImportError as error:
    raise missing("bertopic", '"bertopic>=0.17.4"', error) from error

__all__ = ["TrivecBackend"]


class TrivecBackend(Backend, BaseEmbedder):
    """Vectors of documents and of words for a topic model; pickles, and so a model that is saved by pickle keeps it.

        backend = TrivecBackend("minilm", precision="int8")
        backend.embed_documents(["a text"])  # (1, D) float32

    Documents get the model's prompt for documents. What BERTopic embeds as words (the terms of `find_topics`, and of
    topics that have no documents) it compares with those, and so they get the prompt for queries.

    Attributes:
        encoder: what `trivec.load` returned.
        fingerprint: sha256 of what decides the vectors of documents; `query_fingerprint` of those of words.
        truncated: texts that were longer than the model reads.
    """

    def embed_words(self, words: Any, verbose: bool = False) -> Matrix:  # noqa: ANN401, ARG002 - words are short
        """(N, D) float32 of N words. Raises as `embed`."""
        return self._model.queries(words).dense  # type: ignore[return-value]

    def embed_documents(self, document: Any, verbose: bool = False) -> Matrix:  # noqa: ANN401
        """(N, D) float32 of N documents. Raises as `embed`."""
        return self.embed(document, verbose)


refuse_encoders((_bertopic, _utils), "BERTopic(embedding_model=TrivecBackend(encoder))", __name__)
