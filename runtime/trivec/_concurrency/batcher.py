"""Micro-batching: texts that many callers ask for one at a time, encoded together; and pairs, scored together."""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal, Protocol, Self, cast, get_args

import numpy as np

from trivec._concurrency.batch_queue import Call, Queue, Request
from trivec._errors import InputError
from trivec._pooling.ranks import Ranked, ranked
from trivec._tokens.inputs import check_encodable, checked_pair
from trivec._vectors.heads import HybridVectors

Pair = tuple[str, str]
Method = Literal["encode", "encode_query", "encode_document", "represent", "predict"]
_METHODS = get_args(Method)
_OF_PAIRS = "predict"
_NOT_OF_RANK = ("apply_softmax", "convert_to_numpy", "convert_to_tensor")
_OF_REPRESENT = {"heads", "whole"}
"""What it takes beside the options of `encode`."""
_TEXTS = ("inputs", "sentences")  # what the first argument of `encode` is called
_NOTHING = np.zeros(0, dtype=np.float32)  # scores of no documents


class BatchEncoder(Protocol):
    """What a Batcher needs of an encoder; whatever `trivec.load` returns has it."""

    @property
    def encode(self) -> Callable[..., Any]:
        """One text to its result, or a list of texts to the results of all."""

    @property
    def encode_query(self) -> Callable[..., Any]:
        """`encode` of queries."""

    @property
    def encode_document(self) -> Callable[..., Any]:
        """`encode` of documents."""


class BatchReranker(Protocol):
    """What a Batcher needs of a reranker."""

    @property
    def predict(self) -> Callable[..., Any]:
        """One pair to its score, or a list of pairs to the scores of all."""

    def pairs_to_rank(self, query: object, documents: object, top_k: object = None) -> list[Pair]:
        """The pairs of a query, checked."""


class Batcher:
    """Encodes texts that many threads or coroutines ask for one at a time, together where they meet.

        with Batcher(trivec.load("minilm")) as batcher:
            vector = batcher.encode("one text")  # from any number of threads: (dim,)
            vector = await batcher.aencode("one text")  # from any number of coroutines

    Nobody waits for company: a text that comes while nothing runs is encoded at once, in its caller's own thread. What
    comes while a run goes on waits for its end, and is then encoded in one call; so the batches grow with the load.
    Each caller gets what `encoder.encode(text, **options)` gives. The encoder stays the caller's to close.

    Of a reranker it is the documents of many callers' queries that meet:

        with Batcher(trivec.load("reranker")) as batcher:
            ranks = batcher.rank("a question", documents)  # as reranker.rank; arank for coroutines
            score = batcher.predict(("a question", "a passage"))

    A forked child has a thread of its own; what waited in the parent is the parent's to encode. Where the interpreter
    ends and no thread can be started, callers encode for themselves.
    """

    def __init__(
        self, encoder: BatchEncoder | BatchReranker, *, max_texts: int = 64, max_waiting: int | None = None
    ) -> None:
        """Stand before an encoder.

        Args:
            encoder: what `trivec.load` returns.
            max_texts: texts, or pairs, of one run. More raise the throughput under load, and the time to an answer. The
                documents of one query run together, however many they are.
            max_waiting: calls that may wait beside those that run; one more raises BusyError. None: any number.

        Raises:
            InputError: a number below 1.
        """
        for name, value in (("max_texts", max_texts), ("max_waiting", max_waiting)):
            if (value is not None or name == "max_texts") and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name} must be a whole number above 0, got {value!r}.")
        self._encoder = encoder
        self._known = _option_names(encoder)
        self._queue = Queue(encoder, max_texts, max_waiting)
        weakref.finalize(self, self._queue.stop).atexit = False  # a Batcher that is forgotten leaves no thread behind

    def encode(self, text: str, **options: Any) -> Any:  # noqa: ANN401 - the encoder decides
        """The result of one text, as `encoder.encode(text, **options)` gives it.

        Texts with the same options run together; numbers may differ from the lone call's in their last bit, as those of
        any batch do.

        Args:
            text: one text.
            options: those of the encoder's `encode`.

        Raises:
            InputError: no text, an option that `encode` does not know, or the Batcher is closed.
            BusyError: max_waiting texts wait already.
            TruncationError, NonFiniteError, ProviderError: as of the encoder, to this caller alone.
        """
        return self._wait("encode", text, options)

    def encode_query(self, text: str, **options: Any) -> Any:  # noqa: ANN401
        """`encode` by the encoder's `encode_query`."""
        return self._wait("encode_query", text, options)

    def encode_document(self, text: str, **options: Any) -> Any:  # noqa: ANN401
        """`encode` by the encoder's `encode_document`."""
        return self._wait("encode_document", text, options)

    def represent(self, text: str, **options: Any) -> HybridVectors:  # noqa: ANN401
        """`encode` by the encoder's `represent`: `heads` is a tuple there."""
        found: HybridVectors = self._wait("represent", text, options)
        return found

    def predict(self, pair: Sequence[str], **options: Any) -> Any:  # noqa: ANN401
        """The score of one pair, as `reranker.predict(pair, **options)` gives it; raises as `encode`."""
        return self._wait("predict", pair, options)

    async def apredict(self, pair: Sequence[str], **options: Any) -> Any:  # noqa: ANN401
        """`predict` for coroutines, as `aencode`."""
        return await self.aencode(pair, method="predict", **options)

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        return_documents: bool = False,
        **options: Any,  # noqa: ANN401
    ) -> list[Ranked]:
        """The documents of one query by their scores, as `reranker.rank(query, documents, ...)` gives them.

        Args:
            query: one text.
            documents: N texts.
            top_k: how many of them to give; None: all.
            return_documents: whether each comes with its text.
            options: the others of `rank`.

        Raises:
            As `encode`; and InputError for a query or a document that is no text.
        """
        pairs = self._to_rank(query, documents, top_k, options)
        scores = self._wait("predict", pairs, options, len(pairs)) if pairs else _NOTHING
        return ranked(scores, [text for _, text in pairs], top_k, return_documents)

    async def arank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        return_documents: bool = False,
        **options: Any,  # noqa: ANN401
    ) -> list[Ranked]:
        """`rank` for coroutines, as `aencode`."""
        import asyncio

        pairs = self._to_rank(query, documents, top_k, options)
        future = self._submit("predict", pairs, options, len(pairs)) if pairs else None
        scores = _NOTHING if future is None else await asyncio.wrap_future(future)
        return ranked(scores, [text for _, text in pairs], top_k, return_documents)

    async def aencode(self, text: Any, *, method: Method = "encode", **options: Any) -> Any:  # noqa: ANN401
        """`encode` for coroutines: neither blocks the event loop nor holds a thread while it waits.

        A coroutine that is cancelled while its text waits takes the text out.
        """
        import asyncio  # costs 40 ms, and whoever awaits has it

        return await asyncio.wrap_future(self.submit(text, method=method, **options))

    def submit(self, text: Any, *, method: Method = "encode", **options: Any) -> "Future[Any]":  # noqa: ANN401
        """`encode` without waiting: a future of the result, which a thread of the Batcher will set.

        What is wrong with the text or an option's name is raised here. A future that is cancelled before its run
        starts is left out.
        """
        return self._submit(method, text, options)

    def close(self) -> None:
        """Encode what waits, then stop; later calls raise InputError. The encoder stays open."""
        self._queue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        raise InputError("a Batcher cannot be pickled or copied. Pickle its encoder, and there type: Batcher(encoder)")

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _submit(self, method: Method, text: Any, options: dict[str, Any], count: int | None = None) -> "Future[Any]":  # noqa: ANN401
        call = self._call(method, text, options, count)
        future: Future[Any] = Future()
        self._queue.add(Request(text, call, future, count))
        return future

    def _to_rank(self, query: object, documents: object, top_k: object, options: Mapping[str, Any]) -> list[Pair]:
        """The pairs of a query; InputError for what `rank` does not take."""
        if not hasattr(self._encoder, "pairs_to_rank"):
            raise InputError(f"rank is for rerankers, and this is {self._encoder!r}.")
        wrong = next((name for name in _NOT_OF_RANK if name in options), None)
        if wrong is not None:
            raise InputError(f"{wrong!r} is no option of rank.")
        return cast("BatchReranker", self._encoder).pairs_to_rank(query, documents, top_k)

    def _wait(self, method: Method, text: Any, options: dict[str, Any], count: int | None = None) -> Any:  # noqa: ANN401
        call = self._call(method, text, options, count)
        queue = self._queue
        queue.check_open()
        if queue.is_own_thread():  # a callback of a future: waiting for this very thread would never end
            return getattr(self._encoder, method)(text, **options)
        if queue.is_idle():
            with queue.turn:
                return getattr(self._encoder, method)(text, **options)
        future: Future[Any] = Future()
        queue.add(Request(text, call, future, count))
        try:
            return future.result()
        except BaseException:  # KeyboardInterrupt while it waits: nobody wants the result any more
            future.cancel()
            raise

    def _call(self, method: Method, text: object, options: Mapping[str, Any], count: int | None = None) -> Call:
        """Method and options as a key, when they and the text are right."""
        if method not in _METHODS:
            raise InputError(f"method {method!r} is not one of {', '.join(_METHODS)}.")
        if not hasattr(self._encoder, method):
            has = "predict and rank" if hasattr(self._encoder, _OF_PAIRS) else "encode"
            raise InputError(f"{self._encoder!r} has no {method}; it has {has}.")
        if method == _OF_PAIRS:
            for part in checked_pair(text, "the pair") if count is None else ():
                check_encodable(part, "a text of the pair")
        elif not isinstance(text, str):
            hint = " Decode it first: text.decode('utf-8')." if isinstance(text, bytes) else ""
            several = " For many texts at once type: encoder.encode(texts)." if isinstance(text, list | tuple) else ""
            raise InputError(f"a Batcher takes one text a call, got {type(text).__name__}.{hint}{several}")
        else:
            check_encodable(text, "the text")
        for name in options:
            more = method == "represent" and name in _OF_REPRESENT
            if name in _TEXTS or (self._known is not None and name not in self._known and not more):
                known = ", ".join(sorted(self._known or ()))
                raise InputError(f"{name!r} is no option of {method}. Expected some of: {known}.")
        call = Call(method, tuple((name, type(options[name]), options[name]) for name in sorted(options)))
        try:
            hash(call)
        except TypeError as error:
            raise InputError(f"an option of a Batcher must be hashable: {error}, in {dict(options)!r}.") from error
        return call


def _option_names(encoder: object) -> frozenset[str] | None:
    """The options of `encode`, or of `predict`; None where it takes any."""
    import inspect  # costs 10 ms

    parameters = inspect.signature(getattr(encoder, _OF_PAIRS if hasattr(encoder, _OF_PAIRS) else "encode")).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return frozenset(parameters) - set(_TEXTS)
