"""A reranker with the options of its calls, local or hosted: what the adapters for reranking have in common."""

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from trivec._encoders.ranking import RankingModel, fingerprint_of_ranks, is_ranking_model
from trivec._errors import InputError
from trivec._open import hosted_reranker_options, is_hosted, open_reranker
from trivec._pooling.ranks import Ranked
from trivec.integrations._adapter import LOAD_ARGUMENTS, check_open_already, merged
from trivec.integrations._text_model import as_list, one

Reranking = str | os.PathLike[str] | RankingModel
"""What an adapter is made from: a folder, a name on the Hub, "provider:model", or a model that is open already: a
reranker, or one of late interaction."""
_DECIDED = ("self", "query", "documents", "top_k", "return_documents", "device", "pool", "chunk_size")
"""What an adapter says itself of a call, and what makes no sense for one query's documents."""


class RankModel:
    """A reranker with the options of its calls; safe to use from many threads, and pickles with it.

    Attributes:
        reranker: what `trivec.load` or `trivec.hosted.open_reranker` returned.
    """

    def __init__(self, reranker: RankingModel, options: Mapping[str, Any] | None = None) -> None:
        """Check the options, which are those of the reranker's own `rank`.

        Raises:
            InputError: an option that it does not have, or that has a wrong value.
        """
        self.reranker, self._options = reranker, dict(options or {})
        known = [name for name in inspect.signature(type(reranker).rank).parameters if name not in _DECIDED]
        for name, value in self._options.items():
            if name not in known:
                some = f"some of {', '.join(known)}" if known else "none: a hosted reranker has no options"
                raise InputError(f"{name}={value!r} is no option of this reranker's rank. Expected {some}.")
        self.rank("a query", [])  # a wrong value shows now

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides its scores.

        Raises:
            InputError: one of the options is a function, of which nobody knows what it does.
        """
        if callable(self._options.get("activation_fn")):
            raise InputError("activation_fn is a function, which has no fingerprint. Name one: 'sigmoid', 'identity'")
        return fingerprint_of_ranks(self.reranker, self._options)

    @property
    def engine_fingerprint(self) -> str:
        """What computes them, in words."""
        return self.reranker.engine_fingerprint

    def rank(self, query: object, documents: object, top_k: int | None = None) -> list[Ranked]:
        """Documents by their relevance, best first. Raises as `Reranker.rank`, or as `HostedReranker.rank`."""
        return self.reranker.rank(one(query), as_list(documents), top_k, **self._options)

    async def arank(self, query: object, documents: object, top_k: int | None = None) -> list[Ranked]:
        """`rank`, while the event loop goes on."""
        return await self.reranker.arank(one(query), as_list(documents), top_k, **self._options)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """A score of each pair, those of one query ranked together.

        Raises:
            InputError: something that is no pair of texts; its index is named.
        """
        places: dict[str, list[int]] = {}
        for place, pair in enumerate(pairs):
            if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise InputError(f"expected a pair of texts at index {place}, got {pair!r:.60}.")
            places.setdefault(pair[0], []).append(place)
        found = [0.0] * len(pairs)
        for query, rows in places.items():
            for ranked in self.rank(query, [pairs[place][1] for place in rows]):
                found[rows[ranked["corpus_id"]]] = ranked["score"]
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return RankModel, (self.reranker, self._options)

    def __deepcopy__(self, _: object) -> Self:
        return self  # a copy would open the graph again, for the same scores


def open_rank_model(
    model: Reranking | None,
    *,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    cache_dir: str | None = None,
    load: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> RankModel:
    """A reranker, opened here unless it is open already.

    Args:
        model: what it is.
        device: as of `trivec.load`, as are precision, threads and cache_dir; None: its default.
        precision: the variant.
        threads: CPU threads.
        cache_dir: of the Hub.
        load: further arguments of `trivec.load`, or of `trivec.hosted.open_reranker`.
        options: of its `rank`.

    Raises:
        InputError: no reranker, an argument that is unknown or given twice, or arguments for one that is open.
        Whatever `trivec.load` and `trivec.hosted.open_reranker` raise.
    """
    given = {"device": device, "precision": precision, "threads": threads, "cache_dir": cache_dir}
    if is_hosted(model):
        taken = merged(given, load, "trivec.hosted.open_reranker", (*given, *hosted_reranker_options()))
    else:
        taken = merged(given, load, "trivec.load", [name for name in LOAD_ARGUMENTS if name != "kind"])
    if is_ranking_model(model):
        check_open_already(model, taken)
        return RankModel(model, options)
    if not isinstance(model, str | os.PathLike):
        raise InputError(
            "expected a reranker's folder, its name on the Hub, provider:model of a hosted one, or what trivec.load or "
            f"trivec.hosted.open_reranker returns, got {type(model).__name__}."
        )
    reranker = open_reranker(model, **taken)
    try:
        return RankModel(reranker, options)
    except BaseException:
        reranker.close()
        raise


def arguments_of(reranker: Any) -> dict[str, Any]:  # noqa: ANN401 - what only local ones have is asked for
    """What opens a reranker again, beside its name: of a hosted one nothing, whose name says it."""
    own = getattr(reranker, "load_arguments", None)
    return {} if own is None else {"precision": reranker.precision, **own()}


class OfReranker:
    """What a framework's class with a RankModel says of it."""

    _model: RankModel

    @property
    def reranker(self) -> RankingModel:
        """The reranker; `reranker.close()` frees its memory."""
        return self._model.reranker

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides the scores."""
        return self._model.fingerprint

    @property
    def engine_fingerprint(self) -> str:
        """What computes scores here: where it differs, those of one model differ slightly."""
        return self._model.engine_fingerprint

    @property
    def truncated(self) -> int | None:
        """Pairs that were longer than the model reads, so far; None of a hosted one, which does not say."""
        return self._model.reranker.truncated
