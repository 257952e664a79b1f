"""A ranker for Haystack."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from trivec._errors import InputError
from trivec._pooling.ranks import Ranked
from trivec.integrations._rank_model import OfReranker, RankModel, Reranking, arguments_of, open_rank_model
from trivec.integrations._saved_model import name_of, without_machine
from trivec.integrations._text_model import as_list
from trivec.integrations.haystack._texts import PACKAGE, texts_of


@component
class TrivecRanker(OfReranker):
    """The most relevant documents for a query, best first, as copies with their score."""

    __module__ = PACKAGE

    def __init__(
        self,
        model: Reranking,
        *,
        top_k: int | None = 10,
        meta_fields_to_embed: Sequence[str] | None = None,
        embedding_separator: str = "\n",
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        load_options: Mapping[str, Any] | None = None,
        rank_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Remember what to open.

        Args:
            model: the folder of a reranker, a name on the Hub, "provider:model" of a hosted one, or what `trivec.load`
                and `trivec.hosted.open_reranker` return.
            top_k: how many documents are given; None: all.
            meta_fields_to_embed: what of a document's meta is put before its content, where it has it.
            embedding_separator: what stands between these.
            device: as of `trivec.load`, as are precision and threads; None: its default.
            precision: the variant.
            threads: CPU threads.
            load_options: further arguments of `trivec.load`, or of `trivec.hosted.open_reranker`.
            rank_options: of the reranker's `rank`, such as {"activation_fn": "identity"}.

        Raises:
            InputError: top_k is no positive number, or neither a name nor a reranker came. All else `warm_up` raises.
        """
        self.top_k = _checked(top_k)
        self.meta_fields_to_embed = as_list(meta_fields_to_embed or [], "meta_fields_to_embed")
        self.embedding_separator = embedding_separator
        self._given: Any = model
        self._machine: dict[str, Any] = {"device": device, "threads": threads}
        self._precision, self._load = precision, dict(load_options or {})
        self._rank_options = dict(rank_options or {})
        if not isinstance(model, str | os.PathLike):
            self._model  # noqa: B018 - opens

    @cached_property
    def _model(self) -> RankModel:  # type: ignore[override]
        return open_rank_model(
            self._given, precision=self._precision, load=self._load, options=self._rank_options, **self._machine
        )

    def warm_up(self) -> None:
        """Open the model; raises as `trivec.load`, and InputError for one of another kind or of several labels."""
        self._model  # noqa: B018 - opens

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """{"documents": copies with `score`, best first, of equal ones the earlier}; `top_k` as above.

        Raises:
            InputError: no query, what is no document, or one without content.
            Whatever the reranker's `rank` raises.
        """
        texts = texts_of(documents, self.meta_fields_to_embed, self.embedding_separator)
        return _chosen(documents, self._model.rank(query, texts, self._wanted(top_k)))

    @component.output_types(documents=list[Document])
    async def run_async(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """`run`, while the event loop goes on."""
        texts = texts_of(documents, self.meta_fields_to_embed, self.embedding_separator)
        return _chosen(documents, await self._model.arank(query, texts, self._wanted(top_k)))

    def _wanted(self, top_k: int | None) -> int | None:
        return self.top_k if top_k is None else _checked(top_k)

    def to_dict(self) -> dict[str, Any]:
        """For a pipeline's YAML: nothing of the machine (device, threads), and no token."""
        opened = vars(self).get("_model")
        own = (
            {"precision": self._precision, **without_machine(self._load)}
            if opened is None
            else arguments_of(opened.reranker)
        )
        precision = own.pop("precision", None)
        found: dict[str, Any] = default_to_dict(
            self,
            model=os.fspath(self._given) if opened is None else name_of(self._given, opened.reranker),
            top_k=self.top_k,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
            precision=precision,
            load_options=own,
            rank_options=self._rank_options,
        )
        return found

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:  # noqa: ANN401 - the decorator makes the class anew
        """As `to_dict` wrote it."""
        return default_from_dict(cls, data)


def _checked(top_k: int | None) -> int | None:
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
        raise InputError(f"top_k must be a positive integer, or None for all, got {top_k!r}.")
    return top_k


def _chosen(documents: list[Document], ranked: list[Ranked]) -> dict[str, Any]:
    return {"documents": [replace(documents[place["corpus_id"]], score=place["score"]) for place in ranked]}
