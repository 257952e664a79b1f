"""What adapters, comparisons and the command line ask of whatever ranks documents, wherever its scores come from."""

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeGuard

from trivec._pooling.ranks import Ranked


class RankingModel(Protocol):
    """The public face of every reranker: Reranker and LateEncoder of `trivec.load`, and those of `trivec.hosted`."""

    @property
    def name(self) -> str:
        """What opens it again."""

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides the numbers of a plain call; of ranks see `fingerprint_of_ranks`."""

    @property
    def engine_fingerprint(self) -> str:
        """What computes them, in words."""

    @property
    def truncated(self) -> int | None:
        """Pairs, or texts of a LateEncoder, that were cut so far; None: nobody knows."""

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


def fingerprint_of_ranks(model: RankingModel, options: Mapping[str, Any] | None = None) -> str:
    """sha256 of everything that decides the scores of `rank(query, documents, **options)`."""
    of = getattr(model, "fingerprint_of_ranks", None) or getattr(model, "fingerprint_of", None)
    if of is None:  # a hosted one, whose requests have no options
        return model.fingerprint
    known = inspect.signature(of).parameters
    found: str = of(**{name: value for name, value in (options or {}).items() if name in known})
    return found
