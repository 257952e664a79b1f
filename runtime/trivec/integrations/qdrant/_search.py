"""Queries by several vectors."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict

from qdrant_client import models

from trivec._errors import InputError
from trivec._vectors.heads import Head
from trivec.integrations.qdrant._points import check_count

Fusion = Literal["rrf", "dbsf"]
FUSIONS = {"rrf": models.Fusion.RRF, "dbsf": models.Fusion.DBSF}


class Search(TypedDict, total=False):
    """Arguments of `QdrantClient.query_points`."""

    query: Any
    using: str
    prefetch: list[models.Prefetch]


class HybridOptions(TypedDict, total=False):
    """Options of `QdrantEncoder.hybrid`."""

    using: Sequence[str] | None
    rerank: str | None
    fusion: Fusion
    prefetch_limit: int
    query_filter: models.Filter | None


class Plan(NamedTuple):
    """The options of `hybrid`, checked."""

    searching: list[str]
    rerank: str | None
    fusion: Fusion
    prefetch_limit: int
    query_filter: models.Filter | None

    @property
    def names(self) -> list[str]:
        """The vectors that a query needs."""
        return [*self.searching, *([] if self.rerank is None else [self.rerank])]

    def search(self, values: Mapping[str, Any]) -> Search:
        """The query, with the vectors of its text by their names."""
        prefetch = [
            models.Prefetch(query=values[name], using=name, limit=self.prefetch_limit, filter=self.query_filter)
            for name in self.searching
        ]
        if self.rerank is not None:
            return {"prefetch": prefetch, "query": values[self.rerank], "using": self.rerank}
        return {"prefetch": prefetch, "query": models.FusionQuery(fusion=FUSIONS[self.fusion])}


def planned(
    heads: Mapping[str, Head],
    using: Sequence[str] | None = None,
    rerank: str | None = None,
    fusion: Fusion = "rrf",
    prefetch_limit: int = 100,
    query_filter: models.Filter | None = None,
) -> Plan:
    """The options of `hybrid`, checked against the vectors that there are, by their names.

    Raises:
        InputError: an unknown name or fusion, or too few vectors.
    """
    if isinstance(using, str):
        raise InputError(f"using must be a list of names, got {using!r}. Type: using=[{using!r}]")
    searching = [name for name, head in heads.items() if head != "colbert" and name != rerank]
    names = searching if using is None else list(using)
    for name in [*names, *([] if rerank is None else [rerank])]:
        check_name(heads, name)
    if len(names) < (2 if rerank is None else 1):
        raise InputError(
            f"only {names} would search, and there is nothing to {'fuse' if rerank is None else 'rerank'}. For one "
            "vector type: encoder.query(text, using=...)"
        )
    if fusion not in FUSIONS:
        raise InputError(f"fusion {fusion!r} is not one of {', '.join(FUSIONS)}.")
    check_count("prefetch_limit", prefetch_limit)
    return Plan(names, rerank, fusion, prefetch_limit, query_filter)


def check_name(heads: Mapping[str, Head], name: str) -> None:
    """Raise InputError unless there is a vector of this name."""
    if name not in heads:
        raise InputError(f"there is no vector {name!r}; there are {', '.join(map(repr, heads))}.")
