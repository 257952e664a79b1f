"""Chroma's embedding functions on trivec, dense and sparse (`pip install "chromadb>=1.5.9"`).

    import chromadb
    from trivec.integrations.chroma import TrivecEmbeddingFunction

    client = chromadb.PersistentClient("store")
    texts = client.create_collection("texts", embedding_function=TrivecEmbeddingFunction("minilm"))
    texts.add(ids=["1", "2"], documents=["a text", "another"])
    texts.query(query_texts=["a question"], n_results=1)

A collection remembers the model and its fingerprint: `client.get_collection("texts")`, after an import of this module,
opens that model again, and refuses one that gives other vectors. Give it no function of another model: Chroma compares
their names alone.
"""

import json
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

from trivec._encoders.calls import Overflow
from trivec._errors import InputError
from trivec.integrations._adapter import Model, ModelOptions, missing
from trivec.integrations._saved_model import SavedModel
from trivec.integrations._text_model import sparse_rows

try:
    from chromadb.api.types import Documents, EmbeddingFunction, SparseEmbeddingFunction
    from chromadb.base_types import SparseVector
    from chromadb.utils.embedding_functions import register_embedding_function, register_sparse_embedding_function
except ImportError as error:
    raise missing("chromadb", '"chromadb>=1.5.9"', error) from error

__all__ = ["TrivecEmbeddingFunction", "TrivecSparseEmbeddingFunction"]

_SPACES = {"cosine": "cosine", "dot": "ip", "euclidean": "l2"}
"""Chroma's distances, by the similarity of a model."""
_OPEN: WeakValueDictionary[str, "_Saved"] = WeakValueDictionary()
"""What lives, by its configuration: Chroma makes a function again each time that it looks at a collection."""


class _Saved(SavedModel):
    """What both functions have: their arguments, and how Chroma keeps them."""

    def __init__(
        self,
        model: Model,
        *,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        on_overflow: Overflow | None = None,
        load_options: Mapping[str, Any] | None = None,
        encode_options: Mapping[str, Any] | None = None,
        query_options: Mapping[str, Any] | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """Open the model.

        Args:
            model: a folder written by `trivec export`, a name on the Hub, "provider:model" of a hosted one, or what
                `trivec.load` returns.
            device: as of `trivec.load`, as are precision and threads; None: its default. Not kept in a collection.
            precision: the variant.
            threads: CPU threads. Not kept in a collection.
            on_overflow: "error" raises for a text that is longer than the model reads; None cuts it, and counts it in
                `truncated`.
            load_options: further arguments of `trivec.load`, such as {"truncate_dim": 128}.
            encode_options: options of `encode_document`, and of `encode_query` as well.
            query_options: options of `encode_query` alone, which win over those.
            fingerprint: what the model must have, as a collection has written it down.

        Raises:
            InputError: no model, one of another kind or fingerprint, or an argument that is unknown or out of range.
            Whatever `trivec.load` raises.
        """
        options = (load_options, encode_options, query_options)
        self._keep(ModelOptions(model, device, precision, threads, on_overflow, *options), fingerprint)
        self._check(self._model.encoder.similarity_fn_name)

    def _check(self, similarity: str) -> None:
        """Raise where Chroma cannot compare such vectors."""

    def get_config(self) -> dict[str, Any]:
        """What a collection keeps of it; InputError for an option that JSON does not know."""
        found = self.arguments()
        _OPEN.setdefault(_key(type(self), found), self)
        return found

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """InputError where a collection would get a model that gives other vectors."""
        if old_config.get("fingerprint") != new_config.get("fingerprint"):
            raise InputError(
                f"the collection's vectors have the fingerprint {old_config.get('fingerprint')}, those of "
                f"{new_config.get('model')} {new_config.get('fingerprint')}. Make a new collection, and add everything "
                "again."
            )

    def is_legacy(self) -> bool:
        """No; Chroma's own would open the model once more to find out."""
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model.encoder!r})"


@register_embedding_function
class TrivecEmbeddingFunction(_Saved, EmbeddingFunction[Documents]):
    """Dense vectors: of documents with the model's prompt for documents, of queries with that for queries.

        function = TrivecEmbeddingFunction("minilm", precision="int8")
        function(["a text"])  # a list of (D,) float32
        function.embed_query(["a question"])

    Attributes:
        encoder: what `trivec.load` returned.
        fingerprint: sha256 of what decides the vectors of documents; `query_fingerprint` of those of queries.
        truncated: texts that were longer than the model reads.
    """

    def _check(self, similarity: str) -> None:
        if similarity not in _SPACES:
            raise InputError(
                f"{self.encoder.name} compares by {similarity}, which Chroma cannot: it has cosine, l2 and ip. Where "
                'one of them does as well: load_options={"similarity_fn_name": "cosine"}'
            )

    def __call__(self, input: Documents) -> Any:  # noqa: A002, ANN401 - Chroma asks for the name
        """Vectors of documents, in order.

        Raises:
            InputError: no list of texts; the index of what is no text is named, and nothing is encoded.
            TruncationError: a text is too long, with on_overflow="error".
        """
        return list(self._model.documents(input).dense)  # type: ignore[arg-type]

    def embed_query(self, input: Documents) -> Any:  # noqa: A002, ANN401
        """Vectors of queries, in order."""
        return list(self._model.queries(input).dense)  # type: ignore[arg-type]

    @staticmethod
    def name() -> str:
        """The name under which collections keep it."""
        return "trivec"

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "TrivecEmbeddingFunction":
        """The function of a configuration, opened once; raises as the class."""
        found: TrivecEmbeddingFunction = _built(TrivecEmbeddingFunction, config)
        return found

    def default_space(self) -> Any:  # noqa: ANN401 - Chroma's literal
        """The distance of a new collection: the model's own similarity."""
        return _SPACES[self._model.encoder.similarity_fn_name]


@register_sparse_embedding_function
class TrivecSparseEmbeddingFunction(_Saved, SparseEmbeddingFunction[Documents]):
    """Weights of terms: SPLADE and its inference-free kin, BGE-M3 and mGTE. Arguments as of TrivecEmbeddingFunction."""

    _needs = "sparse"

    def __call__(self, input: Documents) -> Any:  # noqa: A002, ANN401 - Chroma asks for the name
        """Chroma's SparseVectors of documents, in order. Raises as `TrivecEmbeddingFunction`."""
        return _vectors(self._model.documents(input))

    def embed_query(self, input: Documents) -> Any:  # noqa: A002, ANN401
        """Chroma's SparseVectors of queries, in order."""
        return _vectors(self._model.queries(input))

    @staticmethod
    def name() -> str:
        """The name under which collections keep it."""
        return "trivec_sparse"

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "TrivecSparseEmbeddingFunction":
        """The function of a configuration, opened once; raises as the class."""
        found: TrivecSparseEmbeddingFunction = _built(TrivecSparseEmbeddingFunction, config)
        return found


def _vectors(found: Any) -> list[SparseVector]:  # noqa: ANN401 - HybridVectors
    return [SparseVector(row.indices.tolist(), row.values.tolist()) for row in sparse_rows(found)]


def _key(kind: type, config: Mapping[str, Any]) -> str:
    return json.dumps([kind.__name__, config], sort_keys=True)


def _built(kind: Any, config: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the kind that is asked for
    found = _OPEN.get(_key(kind, config))
    if found is None:
        found = _OPEN[_key(kind, config)] = kind(**config)
    return found
