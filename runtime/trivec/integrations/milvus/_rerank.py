"""What the rerank functions have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

from trivec._encoders.reranker import Reranker
from trivec._export import missing_packages
from trivec._load import load
from trivec._pooling.ranks import Ranked
from trivec.integrations._adapter import LOAD_ARGUMENTS, merged
from trivec.integrations._text_model import as_list, one
from trivec.integrations.milvus._base import check_arguments


@dataclass(slots=True)
class RerankResult:
    """A document's place."""

    text: str
    score: float
    """A float32; greater is more relevant. Of a hosted one as the service gives it."""
    index: int
    """Which of the documents."""

    def to_dict(self) -> dict[str, Any]:
        """By name."""
        return asdict(self)


class RerankFunction(ABC):
    """Documents by their relevance to a query.

    Attributes:
        model: the reranker; `model.close()` frees its memory, or ends its connections.
        model_name: as it was given.
    """

    model: Any
    model_name: str | PathLike[str]

    def __call__(self, query: str, documents: Sequence[str], top_k: int | None = 5) -> list[RerankResult]:
        """The most relevant documents, best first, of equal ones the earlier; None: all.

        Raises:
            InputError: no query, no list of texts, or a top_k below 1.
            Whatever the reranker's `rank` raises.
        """
        texts = as_list(documents, "documents")
        ranked = self._ranked(one(query), texts, top_k)
        return [RerankResult(texts[place["corpus_id"]], place["score"], place["corpus_id"]) for place in ranked]

    @abstractmethod
    def _ranked(self, query: str, texts: list[str], top_k: int | None) -> list[Ranked]:
        """As of `rank`."""


def reranker_of(
    name: str | PathLike[str], device: str | None, arguments: Mapping[str, Any], instead: Mapping[str, str]
) -> Reranker:
    """A function's reranker; arguments and errors as of `encoder_of`."""
    check_arguments(arguments, instead)
    given = {"device": device or "auto", "export": not missing_packages()}
    return load(name, kind="reranker", **merged(given, arguments, "trivec.load", LOAD_ARGUMENTS))
