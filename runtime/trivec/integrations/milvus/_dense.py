"""What the embedding functions with one vector a text have in common."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from trivec._encoders.calls import Side
from trivec._encoders.dense import DenseEncoder
from trivec._vectors.arrays import Floats
from trivec.integrations._text_model import as_list
from trivec.integrations.milvus._base import BaseEmbeddingFunction, Vector, encoder_of


def dense_encoder(
    name: str | PathLike[str],
    device: str | None,
    arguments: Mapping[str, Any],
    *,
    instead: Mapping[str, str] | None = None,
    task: str | None = None,
) -> DenseEncoder:
    """The encoder of a model with one vector a text and nothing else; arguments and errors as of `encoder_of`."""
    need = "a model with one vector a text"
    encoder: DenseEncoder = encoder_of(
        name, device, arguments, lambda e: e.heads == ("dense",), need, instead=instead, task=task
    )
    return encoder


class DenseFunction(BaseEmbeddingFunction):
    """One vector a text; each function puts its own words around it in `_read`."""

    model: DenseEncoder
    batch_size = 32
    normalize_embeddings = True

    def __call__(self, texts: Sequence[str]) -> list[Vector]:
        """Vectors of texts, each (D,) float32."""
        return self._read(as_list(texts, "texts"), None)

    def encode_queries(self, queries: Sequence[str]) -> list[Vector]:
        """Vectors of queries, each (D,) float32."""
        return self._read(as_list(queries, "queries"), "query")

    def encode_documents(self, documents: Sequence[str]) -> list[Vector]:
        """Vectors of documents, each (D,) float32."""
        return self._read(as_list(documents, "documents"), "document")

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return self.model.dim

    def _encode_query(self, query: str) -> Vector:
        """One query: (D,)."""
        return self.encode_queries([query])[0]

    def _encode_document(self, document: str) -> Vector:
        """One document: (D,)."""
        return self.encode_documents([document])[0]

    def _read(self, texts: list[str], side: Side | None) -> list[Vector]:
        """Vectors of texts that are queries, documents, or neither."""
        return self._encode(texts, task=side)

    def _encode(self, texts: list[str], task: str | None = None, prompt: str = "") -> list[Vector]:
        return list(self._matrix(texts, task, prompt, normalized=self.normalize_embeddings))

    def _matrix(self, texts: list[str], task: str | None, prompt: str, *, normalized: bool) -> Floats:
        vectors: Floats = self.model.encode(  # (N, D)
            texts, prompt=prompt, batch_size=self.batch_size, normalize_embeddings=normalized, task=task
        )
        return vectors
