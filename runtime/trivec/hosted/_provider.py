"""What there is to know of a service: the fields of a row of the table, and what they speak of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trivec._encoders.calls import Overflow

Json = dict[str, Any]
_TOKENS = 120_000
"""The least number of tokens that a request of any of them may have, but for those whose row says less."""


class Ask(NamedTuple):
    """What a request says beside its texts."""

    model: str
    task: str | None
    """In the service's own word."""
    dimensions: int | None
    dtype: str
    """"float32", or the integers that the service is to give."""
    overflow: Mapping[str, Any]
    """How the service is told to cut long texts, or to refuse them."""


class Answer(NamedTuple):
    """What an answer holds."""

    vectors: list[Any]
    """Of each text, in order: a list of numbers, or base64 of them."""
    tokens: int | None
    """That the service counts; None where it does not say."""


@dataclass(frozen=True)
class Rerank:
    """A service's endpoint for the relevance of documents to a query."""

    path: str
    documents: int
    """Most documents of a request."""
    body: Callable[[str, str, Sequence[str]], Json]
    """Model, query and documents to a request."""
    answer: Callable[[Any], list[tuple[int, float]]]
    """(index, score) of each document, in any order."""
    tokens: int = _TOKENS


@dataclass(frozen=True)
class Provider:
    """A service."""

    name: str
    base_url: str | None
    """None: whoever opens it has to say."""
    path: str
    """Of the endpoint for embeddings; {model} stands for the model."""
    keys: tuple[str, ...]
    """Environment variables that may hold the key, the first that does counts."""
    inputs: int
    """Most texts of a request."""
    body: Callable[[Sequence[str], Ask], Json]
    answer: Callable[[Any, Ask], Answer]
    tasks: Mapping[str | None, str | None] = field(default_factory=dict)
    """The service's words for "query", "document" and no task; none: it reads every text alike."""
    overflow: Mapping[Overflow, Mapping[str, Any]] = field(default_factory=dict)
    """Fields of a request that cut or refuse long texts; one that is missing cannot be had."""
    dtypes: tuple[str, ...] = ()
    """Types beside float32 that it gives."""
    header: tuple[str, str] = ("Authorization", "Bearer ")
    """The header of the key, and what stands before it."""
    tokens: int = _TOKENS
    """Most tokens of a request, as `estimated_tokens` counts them."""
    body_bytes: int | None = None
    """Most bytes of a request; None: any number."""
    elsewhere: tuple[str, str] | None = None
    """What some keys begin with, and where those are taken."""
    together: str | None = None
    """A field of a request by which texts change each other's vectors."""
    address: str | None = None
    """An environment variable that may hold another base_url."""
    rerank: Rerank | None = None
    version: int = 1
    """Of this row: raised where a change of it changes vectors."""

    @property
    def variables(self) -> str:
        """The variables of the key, for messages."""
        return " or ".join(self.keys)
