"""Micro-batching: texts that many callers ask for one at a time, encoded together."""

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple, Protocol, Self, get_args

import numpy as np

from trivec._errors import BusyError, InputError
from trivec._system.background import is_ending
from trivec._system.forks import afresh_in_children
from trivec._tokens.inputs import check_encodable
from trivec._vectors.heads import HybridVectors
from trivec._vectors.sparse import SparseVector, SparseVectors

Method = Literal["encode", "encode_query", "encode_document", "represent"]
_METHODS = get_args(Method)
_OF_REPRESENT = {"heads", "whole"}
"""What it takes beside the options of `encode`."""
_TEXTS = ("inputs", "sentences")  # what the first argument of `encode` is called


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


class Batcher:
    """Encodes texts that many threads or coroutines ask for one at a time, together where they meet.

        with Batcher(trivec.load("minilm")) as batcher:
            vector = batcher.encode("one text")  # from any number of threads: (dim,)
            vector = await batcher.aencode("one text")  # from any number of coroutines

    Nobody waits for company: a text that comes while nothing runs is encoded at once, in its caller's own thread. What
    comes while a run goes on waits for its end, and is then encoded in one call; so the batches grow with the load.
    Each caller gets what `encoder.encode(text, **options)` gives. The encoder stays the caller's to close.

    A forked child has a thread of its own; what waited in the parent is the parent's to encode. Where the interpreter
    ends and no thread can be started, callers encode for themselves.
    """

    def __init__(self, encoder: BatchEncoder, *, max_texts: int = 64, max_waiting: int | None = None) -> None:
        """Stand before an encoder.

        Args:
            encoder: what `trivec.load` returns.
            max_texts: texts of one run. More raise the throughput under load, and the time to an answer.
            max_waiting: texts that may wait beside those that run; one more raises BusyError. None: any number.

        Raises:
            InputError: a number below 1.
        """
        for name, value in (("max_texts", max_texts), ("max_waiting", max_waiting)):
            if (value is not None or name == "max_texts") and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name} must be a whole number above 0, got {value!r}.")
        self._encoder = encoder
        self._known = _option_names(encoder)
        self._queue = _Queue(encoder, max_texts, max_waiting)
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

    async def aencode(self, text: str, *, method: Method = "encode", **options: Any) -> Any:  # noqa: ANN401
        """`encode` for coroutines: neither blocks the event loop nor holds a thread while it waits.

        A coroutine that is cancelled while its text waits takes the text out.
        """
        import asyncio  # costs 40 ms, and whoever awaits has it

        return await asyncio.wrap_future(self.submit(text, method=method, **options))

    def submit(self, text: str, *, method: Method = "encode", **options: Any) -> "Future[Any]":  # noqa: ANN401
        """`encode` without waiting: a future of the result, which a thread of the Batcher will set.

        What is wrong with the text or an option's name is raised here. A future that is cancelled before its run
        starts is left out.
        """
        call = self._call(method, text, options)
        future: Future[Any] = Future()
        self._queue.add(_Request(text, call, future))
        return future

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

    def _wait(self, method: Method, text: str, options: dict[str, Any]) -> Any:  # noqa: ANN401
        call = self._call(method, text, options)
        queue = self._queue
        queue.check_open()
        if queue.is_own_thread():  # a callback of a future: waiting for this very thread would never end
            return getattr(self._encoder, method)(text, **options)
        if queue.is_idle():
            with queue.turn:
                return getattr(self._encoder, method)(text, **options)
        future: Future[Any] = Future()
        queue.add(_Request(text, call, future))
        try:
            return future.result()
        except BaseException:  # KeyboardInterrupt while it waits: nobody wants the result any more
            future.cancel()
            raise

    def _call(self, method: Method, text: object, options: Mapping[str, Any]) -> "_Call":
        """Method and options as a key, when they and the text are right."""
        if method not in _METHODS:
            raise InputError(f"method {method!r} is not one of {', '.join(_METHODS)}.")
        if not isinstance(text, str):
            hint = " Decode it first: text.decode('utf-8')." if isinstance(text, bytes) else ""
            several = " For many texts at once type: encoder.encode(texts)." if isinstance(text, list | tuple) else ""
            raise InputError(f"a Batcher takes one text a call, got {type(text).__name__}.{hint}{several}")
        check_encodable(text, "the text")
        for name in options:
            more = method == "represent" and name in _OF_REPRESENT
            if name in _TEXTS or (self._known is not None and name not in self._known and not more):
                known = ", ".join(sorted(self._known or ()))
                raise InputError(f"{name!r} is no option of {method}. Expected some of: {known}.")
        call = _Call(method, tuple((name, type(options[name]), options[name]) for name in sorted(options)))
        try:
            hash(call)
        except TypeError as error:
            raise InputError(f"an option of a Batcher must be hashable: {error}, in {dict(options)!r}.") from error
        return call


# ---- what waits ------------------------------------------------------------------------------------------------------


class _Call(NamedTuple):
    """What must be equal for texts to run together."""

    method: str
    options: tuple[tuple[str, type, Any], ...]
    """Name, type and value of each: 1 and True are equal, and mean different things."""


class _Request(NamedTuple):
    """A text, and who gets its result."""

    text: str
    call: _Call
    future: "Future[Any]"


class _Queue:
    """Texts that wait, the thread that encodes them, and whose turn it is.

    The thread starts with the first text that has to wait. It has no reference to the Batcher, so that one that nobody
    uses any more can go.
    """

    def __init__(self, encoder: BatchEncoder, max_texts: int, max_waiting: int | None) -> None:
        self._encoder = encoder
        self._max_texts = max_texts
        self._max_waiting = max_waiting
        self._closed = self._ending = False
        self.start_afresh()
        afresh_in_children(self)
        _open.add(self)

    def start_afresh(self) -> None:
        """Nobody has the turn, nothing waits, there is no thread; so in a forked child too."""
        self.turn = threading.Lock()
        """Held while the encoder runs. A plain lock in a `with`, since that is released whatever interrupts."""
        self._changed = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._thread: threading.Thread | None = None

    def is_idle(self) -> bool:
        """Whether nothing runs or waits. Two callers may both be told so: one of them then waits for its turn."""
        return not self._waiting and not self.turn.locked()

    def is_own_thread(self) -> bool:
        """Whether the caller is the thread that encodes."""
        return threading.current_thread() is self._thread

    def check_open(self) -> None:
        """Raise InputError where nothing would be encoded any more."""
        if self._closed:
            raise InputError("this Batcher is closed. Make another: Batcher(encoder)")

    def add(self, request: _Request) -> None:
        """Let a text wait; where there is no thread to be had, encode it at once."""
        self.check_open()
        with self._changed:
            self.check_open()
            if self._max_waiting is not None and len(self._waiting) >= self._max_waiting:
                raise BusyError(
                    f"{len(self._waiting)} texts wait already, and max_waiting is {self._max_waiting}. Try again later."
                )
            if self._has_thread():
                self._waiting.append(request)
                self._changed.notify()
                return
        if request.future.set_running_or_notify_cancel():
            _run(self._encoder, [request])

    def stop(self) -> None:
        """Take no more texts; what waits is still encoded."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def close(self) -> None:
        """`stop`, and wait until everything is encoded."""
        self.stop()
        self._join()

    def end_thread(self) -> None:
        """At the interpreter's end: wait until everything is encoded; who comes later encodes in the own thread."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._join()

    def _join(self) -> None:
        if self._thread is not None and not self.is_own_thread():
            self._thread.join()

    def _has_thread(self) -> bool:
        """Whether there is a thread, or one could be started."""
        if self._ending:
            return False
        if self._thread is None and not is_ending():
            thread = threading.Thread(target=self._work, name="trivec-batcher", daemon=True)
            thread.start()
            self._thread = thread
        return self._thread is not None

    def _work(self) -> None:
        """The thread: run what has gathered, until the Batcher is closed or Python ends, and nothing waits."""
        while self._something_waits():
            with self.turn:
                batch = self._take()  # only now, with all that has come while another ran
                try:
                    for requests in _groups(batch):
                        _run(self._encoder, requests)
                except BaseException as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
                    for request in batch:
                        if not request.future.done():
                            request.future.set_exception(error)
            del batch  # nothing of it stays alive while the thread waits

    def _something_waits(self) -> bool:
        """Sleep until there is something to do; False: there never will be."""
        with self._changed:
            while not self._waiting and not self._closed and not self._ending:
                self._changed.wait()
            return bool(self._waiting)

    def _take(self) -> list[_Request]:
        """The texts that waited longest, without those whose callers have gone."""
        taken: list[_Request] = []
        with self._changed:
            while self._waiting and len(taken) < self._max_texts:
                request = self._waiting.popleft()
                if request.future.set_running_or_notify_cancel():
                    taken.append(request)
        return taken


_open: "weakref.WeakSet[_Queue]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A thread that is inside onnxruntime when the interpreter goes would take the process down with it."""
    for queue in list(_open):
        queue.end_thread()


# ---- encoding --------------------------------------------------------------------------------------------------------


def _groups(batch: list[_Request]) -> Iterator[list[_Request]]:
    """Texts of equal method and options, in order of their first."""
    found: dict[_Call, list[_Request]] = {}
    for request in batch:
        found.setdefault(request.call, []).append(request)
    yield from found.values()


def _run(encoder: BatchEncoder, requests: list[_Request]) -> None:
    """Encode texts of one call, together; where that fails each alone, so that an error meets who caused it."""
    call = requests[0].call
    method = getattr(encoder, call.method)
    options = {name: value for name, _, value in call.options}
    if len(requests) > 1:
        try:
            rows = _rows(method([request.text for request in requests], **options), len(requests))
            answers = list(zip(requests, rows, strict=True))
        except Exception:  # noqa: BLE001, S110 - it comes again for the text that it is about
            pass
        else:
            for request, row in answers:
                request.future.set_result(row)
            return
    for request in requests:
        try:
            result = method(request.text, **options)
        except BaseException as error:  # noqa: BLE001 - the caller's to judge
            request.future.set_exception(error)
        else:
            request.future.set_result(result)


def _rows(result: Any, count: int) -> list[Any]:  # noqa: ANN401
    """What each of N texts alone would have given. Copies: a row that is kept must not keep its neighbours."""
    if isinstance(result, HybridVectors):
        parts = (result.dense, result.sparse, result.colbert)
        rows = ([None] * count if part is None else _rows(part, count) for part in parts)
        return [HybridVectors(*row) for row in zip(*rows, strict=True)]
    if isinstance(result, SparseVectors):
        return [SparseVector._trusted(row.indices.copy(), row.values.copy(), row.dim) for row in result]
    if isinstance(result, list):
        return result
    if isinstance(result, np.ndarray):
        return [row.copy() for row in result]  # (N, D) -> (D,)
    copy = "copy" if not hasattr(result, "clone") else "clone"  # MultiVectors' rows are arrays, a tensor's are tensors
    return [getattr(result[row], copy)() for row in range(count)]


def _option_names(encoder: BatchEncoder) -> frozenset[str] | None:
    """The options of `encode`; None where it takes any."""
    import inspect  # costs 10 ms

    parameters = inspect.signature(encoder.encode).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return frozenset(parameters) - set(_TEXTS)
