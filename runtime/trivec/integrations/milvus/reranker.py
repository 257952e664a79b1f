"""The rerank functions of pymilvus.model, on models that run here and on hosted APIs (`pip install "trivec[milvus]"`).

    from trivec.integrations.milvus.reranker import BGERerankFunction  # was: from pymilvus.model.reranker import ...

Arguments, defaults and results are pymilvus.model's. BGE's and CrossEncoder's run here, and take what `trivec.load`
takes as well. The others ask an API (`trivec[hosted]`); their further keyword arguments are those of
`trivec.hosted.open_reranker`: base_url, timeout, max_retries, max_wait, concurrency. Any number of documents goes out,
in requests of the size that the service takes, again where that helps; `model.usage` says what was used.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from trivec._encoders.reranker import Reranker
from trivec._errors import InputError
from trivec._pooling.ranks import Ranked
from trivec.integrations.milvus._base import LoadArguments, logger
from trivec.integrations.milvus._rerank import RerankFunction, RerankResult, reranker_of

if TYPE_CHECKING:
    from trivec.hosted import HostedReranker

__all__ = [
    "BGERerankFunction",
    "CohereRerankFunction",
    "CrossEncoderRerankFunction",
    "JinaRerankFunction",
    "RerankResult",
    "TEIRerankFunction",
    "VoyageRerankFunction",
]
_TAKEN = ("base_url", "timeout", "max_retries", "max_wait", "concurrency")
_INSTEAD = {"devices": 'one reranker runs on one device: device="cuda:0".'}


# ---- here ------------------------------------------------------------------------------------------------------------


class BGERerankFunction(RerankFunction):
    """bge-reranker and other cross-encoders, cut and scored as FlagEmbedding's FlagReranker does it."""

    model: Reranker

    def __init__(
        self,
        model_name: str | PathLike[str] = "BAAI/bge-reranker-v2-m3",
        use_fp16: bool = True,
        batch_size: int = 32,
        normalize: bool = True,
        device: str | None = None,
        query_max_length: int = 256,
        max_length: int = 512,
        **kwargs: Unpack[LoadArguments],
    ) -> None:
        """Open the model.

        Args:
            model_name: a folder written by `trivec export`, or a name on the Hub.
            use_fp16: fp16 where a GPU runs it; False: fp32.
            batch_size: as of `Reranker.predict`.
            normalize: whether scores go through a sigmoid.
            device: "cpu", "cuda", "cuda:1"; None chooses.
            query_max_length: tokens of a query.
            max_length: tokens of a pair, for which the document is cut.
            kwargs: LoadArguments.

        Raises:
            InputError: an argument that is not taken, or a model of another kind.
            Whatever `trivec.load` raises.
        """
        if not use_fp16:
            kwargs = {"precision": "fp32", **kwargs}
        self.model_name, self.use_fp16, self.batch_size, self.normalize = model_name, use_fp16, batch_size, normalize
        self.query_max_length, self.max_length = query_max_length, max_length
        self.model = reranker_of(model_name, device, kwargs, _INSTEAD)
        self.device = self.model.device
        if use_fp16 and self.model.precision != "fp16":
            logger.warning("use_fp16=True has no effect on %s: %s runs there.", self.device, self.model.precision)

    def _ranked(self, query: str, texts: list[str], top_k: int | None) -> list[Ranked]:
        if top_k is not None and (not isinstance(top_k, int | np.integer) or isinstance(top_k, bool) or top_k < 1):
            raise InputError(f"top_k must be a positive integer or None, got {top_k!r}.")
        scores = self.model.compute_score(
            [(query, text) for text in texts],
            batch_size=self.batch_size,
            query_max_length=self.query_max_length,
            max_length=self.max_length,
            normalize=self.normalize,
        )
        order = np.argsort(-np.asarray(scores), kind="stable")[:top_k].tolist()
        return [{"corpus_id": row, "score": scores[row]} for row in order]


class CrossEncoderRerankFunction(RerankFunction):
    """Any cross-encoder of sentence-transformers, scored as CrossEncoder does it."""

    model: Reranker

    def __init__(
        self,
        model_name: str | PathLike[str] = "",
        device: str | None = "",
        batch_size: int = 32,
        activation_fct: Any = None,  # noqa: ANN401 - as of `Reranker.predict`
        **kwargs: Unpack[LoadArguments],
    ) -> None:
        """Open the model.

        Args:
            model_name: a folder written by `trivec export`, or a name on the Hub.
            device: "cpu", "cuda", "cuda:1"; "" and None choose.
            batch_size: as of `Reranker.predict`.
            activation_fct: as `activation_fn` of `Reranker.predict`; None: the model's own.
            kwargs: LoadArguments.

        Raises:
            InputError: no name, an argument that is not taken, or a model of another kind.
            Whatever `trivec.load` raises.
        """
        if not model_name:
            raise InputError("expected model_name: a folder written by trivec export, or a name on the Hub.")
        self.model_name, self.batch_size, self.activation_fct = model_name, batch_size, activation_fct
        self.model = reranker_of(model_name, device, kwargs, _INSTEAD)
        self.device = self.model.device

    def _ranked(self, query: str, texts: list[str], top_k: int | None) -> list[Ranked]:
        return self.model.rank(query, texts, top_k, batch_size=self.batch_size, activation_fn=self.activation_fct)


# ---- by an API -------------------------------------------------------------------------------------------------------


class HostedFunction(RerankFunction):
    """By a service; `model.usage` says what it was asked for."""

    model: "HostedReranker"

    def _open(self, provider: str, model_name: str, api_key: str | None, arguments: Mapping[str, Any]) -> None:
        """Open the model; raises as `trivec.hosted.open_reranker`, and InputError for an argument that is not known."""
        from trivec import hosted

        if unknown := [name for name in arguments if name not in _TAKEN]:
            raise InputError(f"{unknown[0]}= is not taken here: expected some of {', '.join(_TAKEN)}.")
        key = hosted.FROM_ENVIRONMENT if api_key is None else api_key
        self.model_name = model_name
        self.model = hosted.open_reranker(f"{provider}:{model_name}", api_key=key, **arguments)

    def _ranked(self, query: str, texts: list[str], top_k: int | None) -> list[Ranked]:
        return self.model.rank(query, texts, top_k)


class CohereRerankFunction(HostedFunction):
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
        """The most relevant documents, best first; None: all. Raises as `RerankFunction`."""
        found = super().__call__(query, documents, top_k)
        return found if self.return_documents else [RerankResult("", each.score, each.index) for each in found]


class VoyageRerankFunction(HostedFunction):
    """Voyage AI."""

    def __init__(self, model_name: str = "rerank-2", api_key: str | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        """Open the model: see `trivec.hosted.open_reranker`. The key is in VOYAGE_API_KEY where none is given."""
        self._open("voyage", model_name, api_key, kwargs)


class JinaRerankFunction(HostedFunction):
    """Jina AI's API."""

    def __init__(
        self,
        model_name: str = "jina-reranker-v2-base-multilingual",
        api_key: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - of trivec.hosted.open_reranker
    ) -> None:
        """Open the model: see `trivec.hosted.open_reranker`. Without a key it is JINA_API_KEY's or JINAAI_API_KEY's."""
        self._open("jina", model_name, api_key, kwargs)


class TEIRerankFunction(HostedFunction):
    """A server of Hugging Face's text-embeddings-inference; there it gives five documents, whatever top_k is."""

    def __init__(self, api_url: str, **kwargs: Any) -> None:  # noqa: ANN401 - of trivec.hosted.open_reranker
        """Connect nothing yet; `api_url` is where the server is. Raises as `trivec.hosted.open_reranker`."""
        self._open("tei", "", None, {"base_url": api_url, **kwargs})
