"""The embedding functions of pymilvus.model that ask a hosted API (`pip install "trivec[milvus,hosted]"`).

    from trivec.integrations.milvus import OpenAIEmbeddingFunction  # was: from pymilvus.model.dense import ...
    from trivec.integrations.milvus.hosted import JinaEmbeddingFunction  # the API; in .dense the open weights run here

Arguments, defaults and return types are pymilvus.model's, but for float32 where float64 came. Further keyword arguments
are those of `trivec.hosted.open`: base_url, timeout, max_retries, max_wait, concurrency, cache, blank. Texts go out in
requests of the size that the service takes, again where that helps; `model.usage` says what was used.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trivec._errors import InputError
from trivec.integrations._text_model import as_list
from trivec.integrations.milvus._base import BaseEmbeddingFunction

if TYPE_CHECKING:
    from trivec.hosted import HostedEncoder

__all__ = [
    "CohereEmbeddingFunction",
    "GeminiEmbeddingFunction",
    "JinaEmbeddingFunction",
    "MistralAIEmbeddingFunction",
    "NomicEmbeddingFunction",
    "OpenAIEmbeddingFunction",
    "TEIEmbeddingFunction",
    "VoyageEmbeddingFunction",
]
_TAKEN = ("base_url", "timeout", "max_retries", "max_wait", "concurrency", "cache", "blank")
Tasks = tuple[str | None, str | None, str | None]
"""Of queries, documents, and texts that are given to the function itself."""


class HostedFunction(BaseEmbeddingFunction):
    """One vector a text, from a service.

    Attributes:
        model: the encoder; `model.usage` says what was asked for, `model.close()` ends the connections.
        model_name: as it was given.
    """

    model: "HostedEncoder"
    model_name: str
    _tasks: Tasks = (None, None, None)
    _on_overflow: Literal["truncate", "error"] = "truncate"

    def _open(
        self,
        provider: str,
        model_name: str,
        api_key: str | None,
        arguments: Mapping[str, Any],
        **options: Any,  # noqa: ANN401 - of trivec.hosted.open
    ) -> None:
        """Open the model; raises as `trivec.hosted.open`, and InputError for an argument that is not known."""
        from trivec import hosted

        if unknown := [name for name in arguments if name not in _TAKEN]:
            raise InputError(f"{unknown[0]}= is not taken here: expected some of {', '.join(_TAKEN)}.")
        key = hosted.FROM_ENVIRONMENT if api_key is None else api_key
        self.model_name = model_name
        self.model = hosted.open(f"{provider}:{model_name}", api_key=key, **options, **arguments)

    def __call__(self, texts: Sequence[str]) -> list[Any]:
        """Vectors of texts, each (D,) float32."""
        return self._encode(as_list(texts, "texts"), self._tasks[2])

    def encode_queries(self, queries: Sequence[str]) -> list[Any]:
        """Vectors of queries, each (D,) float32."""
        return self._encode(as_list(queries, "queries"), self._tasks[0])

    def encode_documents(self, documents: Sequence[str]) -> list[Any]:
        """Vectors of documents, each (D,) float32."""
        return self._encode(as_list(documents, "documents"), self._tasks[1])

    @property
    def dim(self) -> int:
        """Numbers of a vector; where nothing says so yet, one word is sent to see."""
        return self.model.dim

    def _encode_query(self, query: str) -> Any:  # noqa: ANN401 - as a row of the lists
        """One query."""
        return self.encode_queries([query])[0]

    def _encode_document(self, document: str) -> Any:  # noqa: ANN401
        """One document."""
        return self.encode_documents([document])[0]

    def _encode(self, texts: list[str], task: str | None) -> list[Any]:
        """Of no texts nothing, and no request."""
        return list(self.model.encode(texts, task=task, on_overflow=self._on_overflow)) if texts else []


class OpenAIEmbeddingFunction(HostedFunction):
    """OpenAI, and every server that speaks its API."""

    def __init__(
        self,
        model_name: str = "text-embedding-ada-002",
        api_key: str | None = None,
        base_url: str | None = None,
        dimensions: int | None = None,
        **kwargs: Any,  # noqa: ANN401 - of trivec.hosted.open
    ) -> None:
        """Open the model: see `trivec.hosted.open`. The key is in OPENAI_API_KEY where none is given."""
        self._open("openai", model_name, api_key, kwargs, base_url=base_url, dimensions=dimensions)


class VoyageEmbeddingFunction(HostedFunction):
    """Voyage AI."""

    _tasks = ("query", "document", None)

    def __init__(
        self,
        model_name: str = "voyage-3-large",
        api_key: str | None = None,
        embedding_type: str | None = None,
        truncate: bool | None = None,
        dimension: int | None = None,
        **kwargs: Any,  # noqa: ANN401 - of trivec.hosted.open
    ) -> None:
        """Open the model.

        Args:
            model_name: any that the service has.
            api_key: None: it is in VOYAGE_API_KEY.
            embedding_type: None or "float"; "binary" and "ubinary" give (D,) bool.
            truncate: False: a text that is too long raises; else it is cut.
            dimension: numbers of a vector.
            kwargs: of `trivec.hosted.open`.

        Raises:
            InputError: another embedding_type, an argument that is not known, or no key.
        """
        dtype = _dtype(embedding_type, "embedding_type")
        self.embedding_type, self._on_overflow = embedding_type, "error" if truncate is False else "truncate"
        self._open("voyage", model_name, api_key, kwargs, dimensions=dimension, output_dtype=dtype)

    def _encode(self, texts: list[str], task: str | None) -> list[Any]:
        rows = super()._encode(texts, task)
        if self.embedding_type in (None, "float"):
            return rows
        shift = 128 if self.embedding_type == "binary" else 0
        return [np.unpackbits((row.astype(np.int16) + shift).astype(np.uint8)).astype(bool) for row in rows]


class CohereEmbeddingFunction(HostedFunction):
    """Cohere."""

    def __init__(
        self,
        model_name: str = "embed-english-light-v3.0",
        api_key: str | None = None,
        input_type: str = "search_document",
        embedding_types: list[str] | None = None,
        truncate: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - of trivec.hosted.open
    ) -> None:
        """Open the model.

        Args:
            model_name: any that the service has.
            api_key: None: it is in CO_API_KEY or COHERE_API_KEY.
            input_type: of texts that are given to the function itself.
            embedding_types: a list of one: "float"; "binary" and "ubinary" give bytes, eight signs in each.
            truncate: "NONE": a text that is too long raises; "START" or "END": the side that is cut.
            kwargs: of `trivec.hosted.open`.

        Raises:
            InputError: other embedding_types or truncate, an argument that is not known, or no key.
        """
        if embedding_types is not None and len(embedding_types) != 1:
            raise InputError(f"embedding_types must be a list of one type, got {embedding_types!r}.")
        if truncate not in (None, "NONE", "START", "END"):
            raise InputError(f"truncate={truncate!r} is none of NONE, START, END.")
        dtype = _dtype(embedding_types[0] if embedding_types else None, "embedding_types")
        self.input_type, self.embedding_types, self.truncate = input_type, embedding_types, truncate
        self._tasks = ("search_query", "search_document", input_type)
        self._on_overflow = "error" if truncate == "NONE" else "truncate"
        start = {"truncate": "START"} if truncate == "START" else None
        self._open("cohere", model_name, api_key, kwargs, output_dtype=dtype, extra_body=start)

    def _encode(self, texts: list[str], task: str | None) -> list[Any]:
        rows = super()._encode(texts, task)
        return rows if self.embedding_types in (None, ["float"]) else [row.tobytes() for row in rows]


class MistralAIEmbeddingFunction(HostedFunction):
    """Mistral AI."""

    def __init__(self, api_key: str | None, model_name: str = "mistral-embed", **kwargs: Any) -> None:  # noqa: ANN401
        """Open the model.

        Args:
            api_key: None: it is in MISTRAL_API_KEY or MISTRALAI_API_KEY.
            model_name: any that the service has.
            kwargs: output_dimension of the request, and those of `trivec.hosted.open`.

        Raises:
            InputError: an argument that is not known, or no key.
        """
        dimensions = kwargs.pop("output_dimension", None)
        self._open("mistral", model_name, api_key, kwargs, dimensions=dimensions)


class JinaEmbeddingFunction(HostedFunction):
    """Jina AI's API; `trivec.integrations.milvus.JinaEmbeddingFunction` runs the open weights on this machine."""

    def __init__(
        self,
        model_name: str = "jina-embeddings-v3",
        api_key: str | None = None,
        task: str = "retrieval.passage",
        dimensions: int | None = None,
        late_chunking: bool | None = False,
        **kwargs: Any,  # noqa: ANN401 - of trivec.hosted.open
    ) -> None:
        """Open the model.

        Args:
            model_name: any that the service has.
            api_key: None: it is in JINA_API_KEY or JINAAI_API_KEY.
            task: of texts that are given to the function itself.
            dimensions: numbers of a vector.
            late_chunking: take the texts of a call for the chunks of one document, in one request.
            kwargs: of `trivec.hosted.open`.

        Raises:
            InputError: an argument that is not known, or no key.
        """
        self.task, self.late_chunking = task, late_chunking
        self._tasks = ("retrieval.query", "retrieval.passage", task)
        chunks = {"late_chunking": True} if late_chunking else None
        self._open("jina", model_name, api_key, kwargs, dimensions=dimensions, extra_body=chunks)


class NomicEmbeddingFunction(HostedFunction):
    """Nomic's API; `trivec.integrations.milvus.NomicEmbeddingFunction` runs the open weights on this machine."""

    def __init__(
        self,
        model_name: str = "nomic-embed-text-v1.5",
        task_type: str = "search_document",
        dimensions: int = 768,
        *,
        api_key: str | None = None,
        dimensionality: int | None = None,
        long_text_mode: Literal["truncate", "mean"] = "truncate",
        inference_mode: str = "remote",
        **kwargs: Any,  # noqa: ANN401 - of trivec.hosted.open
    ) -> None:
        """Open the model.

        Args:
            model_name: any that the service has.
            task_type: of texts that are given to the function itself.
            dimensions: numbers of a vector.
            api_key: None: it is in NOMIC_API_KEY.
            dimensionality: another name of `dimensions`, which wins, as there.
            long_text_mode: "mean": of a text that is too long the mean of its parts; else it is cut.
            inference_mode: "remote" alone.
            kwargs: of `trivec.hosted.open`.

        Raises:
            InputError: another mode, an argument that is not known, or no key.
        """
        if inference_mode != "remote":
            raise InputError(
                f"inference_mode={inference_mode!r}: here is the API. For this machine: "
                "from trivec.integrations.milvus import NomicEmbeddingFunction"
            )
        if long_text_mode not in ("truncate", "mean"):
            raise InputError(f"long_text_mode={long_text_mode!r} is none of truncate, mean.")
        self.task_type, self.dimensionality = task_type, dimensions if dimensionality is None else dimensionality
        self._tasks = ("search_query", "search_document", task_type)
        mean = {"long_text_mode": "mean"} if long_text_mode == "mean" else None
        self._open("nomic", model_name, api_key, kwargs, dimensions=self.dimensionality, extra_body=mean)


class GeminiEmbeddingFunction(HostedFunction):
    """Google's Gemini API."""

    def __init__(
        self,
        model_name: str = "gemini-embedding-exp-03-07",
        api_key: str | None = None,
        config: Any = None,  # noqa: ANN401 - google.genai's EmbedContentConfig, or a mapping
        **kwargs: Any,  # noqa: ANN401 - of trivec.hosted.open
    ) -> None:
        """Open the model.

        Args:
            model_name: any that the service has.
            api_key: None: it is in GEMINI_API_KEY or GOOGLE_API_KEY.
            config: task_type of all texts, and output_dimensionality: a mapping, or google-genai's EmbedContentConfig.
            kwargs: of `trivec.hosted.open`.

        Raises:
            InputError: something else in config, an argument that is not known, or no key.
        """
        self.config = config
        found = dict(config if isinstance(config, Mapping) else vars(config) if config is not None else {})
        task, dimensions = found.pop("task_type", None), found.pop("output_dimensionality", None)
        if rest := sorted(name for name, value in found.items() if value is not None):
            raise InputError(f"{', '.join(rest)} in config: expected task_type and output_dimensionality alone.")
        self._tasks = (task, task, task)
        self._open("gemini", model_name, api_key, kwargs, dimensions=dimensions)


class TEIEmbeddingFunction(HostedFunction):
    """A server of Hugging Face's text-embeddings-inference."""

    def __init__(self, api_url: str, dimensions: int | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        """Connect nothing yet.

        Args:
            api_url: where the server is, without /v1.
            dimensions: what `dim` says; the server is not asked for it. None: as wide as its vectors are.
            kwargs: of `trivec.hosted.open`.

        Raises:
            InputError: no address, or an argument that is not known.
        """
        self._dimensions = dimensions
        self._open("tei", "", None, kwargs, base_url=api_url)

    @property
    def dim(self) -> int:
        """Numbers of a vector; where nothing says so yet, one word is sent to see."""
        return self.model.dim if self._dimensions is None else self._dimensions


def _dtype(name: str | None, argument: str) -> str:
    """The service's type, by pymilvus.model's name."""
    if name in (None, "float"):
        return "float32"
    if name not in ("binary", "ubinary"):
        raise InputError(
            f"{argument}: {name!r} is none of float, binary, ubinary, which Milvus stores. For int8: trivec.hosted.open"
        )
    return str(name)
