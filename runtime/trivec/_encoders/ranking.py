"""What adapters, comparisons and the command line ask of a reranker, wherever its scores come from."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeGuard

from trivec._pooling.ranks import Ranked


class RankingModel(Protocol):
    """The public face of every reranker: those that `trivec.load` returns, and those of `trivec.hosted`."""

    @property
    def name(self) -> str:
        """What opens it again."""

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides the scores of a plain `rank(query, documents)`."""

    @property
    def engine_fingerprint(self) -> str:
        """What computes them, in words."""

    @property
    def truncated(self) -> int | None:
        """Pairs that were cut so far; None: nobody knows."""

    def rank(
        self, query: str, documents: Sequence[str], top_k: int | None = None, return_documents: bool = False
    ) -> list[Ranked]:
        """Documents by their relevance, best first, of equal ones the earlier: index `corpus_id`, `score`, `text`."""

    @property
    def arank(self) -> Callable[..., Coroutine[Any, Any, list[Ranked]]]:
        """`rank`, while the event loop goes on."""

    def close(self) -> None:
        """Free what it holds."""


def is_ranking_model(thing: object) -> TypeGuard[RankingModel]:
    """Whether it has a reranker's methods. Asked of its class: some properties raise when it is closed."""
    return all(callable(getattr(type(thing), name, None)) for name in ("rank", "arank", "close"))
