"""An encoder with the options of its calls, and what frameworks hand over and take back."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self, TypeVar, cast

import numpy as np

from trivec._concurrency.batcher import BatchEncoder, Batcher
from trivec._encoders.calls import Overflow, Side
from trivec._encoders.named_call import fingerprint_of_call, spelled_out
from trivec._encoders.protocol import Encoder
from trivec._errors import InputError
from trivec._system.background import Background
from trivec._tokens.inputs import as_texts, check_texts, one_by_one
from trivec._vectors.heads import Head, HybridVectors
from trivec._vectors.sparse import SparseVector, SparseVectors

T = TypeVar("T")
_NOT_TAKEN = {"output_value", "save_to_cpu", "return_dense", "return_sparse", "return_colbert_vecs"}
_NOT_TAKEN |= {"convert_to_numpy", "convert_to_tensor", "convert_to_sparse_tensor"}
_PROCESSES = {"device", "pool", "chunk_size"}
_OF_MANY = {*_PROCESSES, "show_progress_bar"}
"""What makes no sense for one text."""
_PROMPTS = {"prompt", "prompt_name"}


class TextModel:
    """An encoder with the options of its calls; safe to use from many threads, and pickles with its encoder.

    Attributes:
        encoder: what `trivec.load` returned.
        heads: the kinds of vectors that are asked for.
    """

    def __init__(
        self,
        encoder: Encoder,
        heads: Sequence[Head],
        document: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        on_overflow: Overflow | None = None,
    ) -> None:
        """Check the options.

        Args:
            encoder: what `trivec.load` returns.
            heads: the kinds of vectors.
            document: options of `encode_document`, and of `encode_query` as well.
            query: options of `encode_query`, which win over those. A prompt here replaces any prompt there.
            on_overflow: for both; None: as the options say, else "truncate".

        Raises:
            InputError: an option that is not known, does not apply here, or has a wrong value.
        """
        self.encoder, self.heads = encoder, tuple(heads)
        of_both, of_query = dict(document or {}), dict(query or {})
        for options, refused in ((of_both, set[str]()), (of_query, _OF_MANY)):
            if on_overflow is not None and options.setdefault("on_overflow", on_overflow) != on_overflow:
                raise InputError(f"on_overflow is given twice: {on_overflow!r} and {options['on_overflow']!r}.")
            check_options(encoder, options, refused)
        prompted = not _PROMPTS.isdisjoint(of_query)
        left_out = _OF_MANY | (_PROMPTS if prompted else set())
        self._document = of_both
        self._query = {**{k: v for k, v in of_both.items() if k not in left_out}, **of_query}
        self._try()
        # Single texts of many threads and coroutines, together where they meet.
        self._batcher = Batcher(cast("BatchEncoder", self.encoder))  # every kind is one, by its own encode
        # Lists of texts of coroutines, one list at a time: it has all the cores then, and no other thread waits.
        self._thread = Background(1, "trivec-documents")

    def documents(self, texts: object, *, bar: bool = False) -> HybridVectors:
        """Vectors of N texts; `bar` shows how far it is.

        Raises:
            InputError: no list of texts.
            TruncationError, NonFiniteError: as of the encoder.
        """
        shown = {"show_progress_bar": True} if bar else {}
        return self.encoder.represent(as_list(texts), self.heads, **self._options("document"), **shown)

    def queries(self, texts: object) -> HybridVectors:
        """Vectors of N queries."""
        return self.encoder.represent(as_list(texts), self.heads, **self._options("query"))

    def query(self, text: object) -> HybridVectors:
        """Vectors of one query; queries that are asked for at the same time run together."""
        return self._batcher.represent(one(text), heads=self.heads, **self._options("query"))

    async def aquery(self, text: object) -> HybridVectors:
        """`query`, while the event loop goes on."""
        options = self._options("query")
        found: HybridVectors = await self._batcher.aencode(one(text), method="represent", heads=self.heads, **options)
        return found

    async def apart(self, work: Callable[..., T], *arguments: object) -> T:
        """What `work(*arguments)` returns, while the event loop goes on; one such work at a time."""
        call = partial(work, *arguments)
        future = self._thread.future(call)
        return call() if future is None else await asyncio.wrap_future(future)

    def fingerprint(self, side: Side) -> str:
        """sha256 of everything that decides the vectors of documents or of queries."""
        return fingerprint_of_call(self.encoder, self._options(side))

    def of_none(self) -> HybridVectors:
        """No vectors, of the right widths."""
        plain = {name: value for name, value in self._options("document").items() if name not in _PROCESSES}
        return self.encoder.represent([], self.heads, **plain)

    def __reduce__(self) -> tuple[Any, ...]:
        return TextModel, (self.encoder, self.heads, self._document, self._query)

    def __deepcopy__(self, _: object) -> Self:
        return self  # a copy would open the graph again, for the same vectors

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _try(self) -> None:
        """Raise where an option's value is wrong."""
        only = self.encoder.opened_for  # a model may be open for its queries alone
        sides: tuple[Side, ...] = ("document", "query")
        for side in sides:
            if only in (None, side):
                options = self._options(side)
                plain = {name: value for name, value in options.items() if name not in _PROCESSES}
                self.encoder.check_call(self.heads, **plain)

    def _options(self, side: Side) -> dict[str, Any]:
        """Options with which `encode` does what `encode_document` or `encode_query` does."""
        options = self._document if side == "document" else self._query
        return spelled_out(self.encoder, f"encode_{side}", options)


def check_options(encoder: Encoder, options: Mapping[str, Any], refused: set[str]) -> None:
    """Raise InputError for an option that an adapter's calls do not take."""
    known = sorted(encoder.encode_options().keys() - _NOT_TAKEN - refused)
    for name, value in options.items():
        if name in _NOT_TAKEN:
            raise InputError(f"{name}={value!r} is not taken here: the adapter decides what comes out.")
        if name not in known:
            why = "does not apply to a query, which is one text" if name in refused else "is no option of this model"
            raise InputError(f"{name}={value!r} {why}. Expected some of: {', '.join(known)}.")
        if name == "precision" and value != "float32":
            raise InputError(
                f"precision={value!r} among the options of encode is the number type of the vectors, and they are "
                "floats here. The model's variant is an argument of the adapter: precision='int8'."
            )


def as_list(texts: object, name: str | None = None) -> list[str]:
    """Texts as a list; a lone string, which would be read letter by letter, and what is no text are refused.

    The InputError names the index of what is no text, and the argument where `name` gives it.
    """
    wanted = "expected" if name is None else f"{name} must be"
    if isinstance(texts, str | bytes):
        raise InputError(f"{wanted} a list of texts, got one {type(texts).__name__}. Type: [{texts[:20]!r}]")
    if name is None:
        return as_texts(texts, None)[0]
    listed = list(one_by_one(texts, f"{wanted} a list of texts"))
    check_texts(listed, f"{wanted} texts")
    return listed


def one(text: object) -> str:
    """A single text, or InputError."""
    if not isinstance(text, str):
        hint = " Decode it first: text.decode('utf-8')." if isinstance(text, bytes) else ""
        raise InputError(f"expected one text, got {type(text).__name__} {str(text)[:40]!r}.{hint}")
    return text


# ---- what comes out --------------------------------------------------------------------------------------------------


def dense_lists(vectors: HybridVectors) -> Any:  # noqa: ANN401 - (N, D) or (D,) as nested lists
    """Dense vectors as lists of Python's floats: one list of a single text."""
    return cast("np.ndarray[Any, Any]", vectors.dense).tolist()


def sparse_row(vectors: HybridVectors) -> SparseVector:
    """The sparse vector of a single text."""
    return cast("SparseVector", vectors.sparse)


def sparse_rows(vectors: HybridVectors) -> SparseVectors:
    """The sparse vectors of N texts."""
    return cast("SparseVectors", vectors.sparse)
