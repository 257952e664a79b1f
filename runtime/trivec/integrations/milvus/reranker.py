"""The rerank functions of pymilvus.model that ask a hosted API (`pip install "trivec[milvus,hosted]"`).

    from trivec.integrations.milvus.reranker import CohereRerankFunction  # was: from pymilvus.model.reranker import ...

Arguments, defaults and results are pymilvus.model's. Further keyword arguments are those of
`trivec.hosted.open_reranker`: base_url, timeout, max_retries, max_wait, concurrency. Any number of documents goes out,
in requests of the size that the service takes, again where that helps; `model.usage` says what was used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from trivec._errors import InputError
from trivec.integrations._text_model import as_list

if TYPE_CHECKING:
    from trivec.hosted import HostedReranker

__all__ = ["CohereRerankFunction", "JinaRerankFunction", "RerankResult", "TEIRerankFunction", "VoyageRerankFunction"]
_TAKEN = ("base_url", "timeout", "max_retries", "max_wait", "concurrency")


@dataclass(slots=True)
class RerankResult:
    """A document's place."""

    text: str
    score: float
    """As the service gives it, as float32; greater is more relevant."""
    index: int
    """Which of the documents."""

    def to_dict(self) -> dict[str, Any]:
        """By name."""
        return asdict(self)


class RerankFunction:
    """Documents by their relevance to a query.

    Attributes:
        model: the reranker; `model.usage` says what was asked for, `model.close()` ends the connections.
        model_name: as it was given.
    """

    model: "HostedReranker"
    model_name: str

    def _open(self, provider: str, model_name: str, api_key: str | None, arguments: Mapping[str, Any]) -> None:
        """Open the model; raises as `trivec.hosted.open_reranker`, and InputError for an argument that is not known."""
        from trivec import hosted

        if unknown := [name for name in arguments if name not in _TAKEN]:
            raise InputError(f"{unknown[0]}= is not taken here: expected some of {', '.join(_TAKEN)}.")
        key = hosted.FROM_ENVIRONMENT if api_key is None else api_key
        self.model_name = model_name
        self.model = hosted.open_reranker(f"{provider}:{model_name}", api_key=key, **arguments)

    def __call__(self, query: str, documents: Sequence[str], top_k: int | None = 5) -> list[RerankResult]:
        """The most relevant documents, best first; None: all. Raises as `HostedReranker.rank`."""
        ranked = self.model.rank(query, as_list(documents, "documents"), top_k=top_k)
        return [RerankResult(place.text, place.score, place.index) for place in ranked]


class CohereRerankFunction(RerankFunction):
    """Cohere."""

    def __init__(
        self,
        model_name: str = "rerank-english-v3.0",
        api_key: str | None = None,
        return_documents: bool = True,
        **kwargs: Any,  # noqa: ANN401 - of trivec.hosted.open_reranker
    ) -> None:
        """Open the model.

        Args:
            model_name: any that the service has.
            api_key: None: it is in CO_API_KEY or COHERE_API_KEY.
            return_documents: False: the results' texts are "".
            kwargs: of `trivec.hosted.open_reranker`.

        Raises:
            InputError: an argument that is not known, or no key.
        """
        self.return_documents = return_documents
        self._open("cohere", model_name, api_key, kwargs)

    def __call__(self, query: str, documents: Sequence[str], top_k: int | None = 5) -> list[RerankResult]:
        """The most relevant documents, best first; None: all. Raises as `HostedReranker.rank`."""
        found = super().__call__(query, documents, top_k)
        return found if self.return_documents else [RerankResult("", each.score, each.index) for each in found]


class VoyageRerankFunction(RerankFunction):
    """Voyage AI."""

    def __init__(self, model_name: str = "rerank-2", api_key: str | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        """Open the model: see `trivec.hosted.open_reranker`. The key is in VOYAGE_API_KEY where none is given."""
        self._open("voyage", model_name, api_key, kwargs)


class JinaRerankFunction(RerankFunction):
    """Jina AI's API."""

    def __init__(
        self,
        model_name: str = "jina-reranker-v2-base-multilingual",
        api_key: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - of trivec.hosted.open_reranker
    ) -> None:
        """Open the model: see `trivec.hosted.open_reranker`. Without a key it is JINA_API_KEY's or JINAAI_API_KEY's."""
        self._open("jina", model_name, api_key, kwargs)


class TEIRerankFunction(RerankFunction):
    """A server of Hugging Face's text-embeddings-inference; there it gives five documents, whatever top_k is."""

    def __init__(self, api_url: str, **kwargs: Any) -> None:  # noqa: ANN401 - of trivec.hosted.open_reranker
        """Connect nothing yet; `api_url` is where the server is. Raises as `trivec.hosted.open_reranker`."""
        self._open("tei", "", None, {"base_url": api_url, **kwargs})
