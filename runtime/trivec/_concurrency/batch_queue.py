"""Texts, or pairs, that many callers wait for: what waits, the thread that runs it, and whose turn it is."""

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from trivec._errors import BusyError, InputError
from trivec._system.background import is_ending
from trivec._system.forks import afresh_in_children
from trivec._vectors.heads import HybridVectors
from trivec._vectors.sparse import SparseVector, SparseVectors


class Call(NamedTuple):
    """What must be equal for texts to run together."""

    method: str
    options: tuple[tuple[str, type, Any], ...]
    """Name, type and value of each: 1 and True are equal, and mean different things."""


class Request(NamedTuple):
    """A text, or a pair, and who gets its result; or several, who belong together."""

    text: Any
    call: Call
    future: "Future[Any]"
    size: int | None = None
    """How many, where `text` is a list; their results come in one array."""

    @property
    def texts(self) -> list[Any]:
        """All of them."""
        return [self.text] if self.size is None else self.text


class Queue:
    """Texts that wait, the thread that encodes them, and whose turn it is.

    The thread starts with the first text that has to wait. It has no reference to the Batcher, so that one that nobody
    uses any more can go.
    """

    def __init__(self, encoder: object, max_texts: int, max_waiting: int | None) -> None:
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
        self._waiting: deque[Request] = deque()
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

    def add(self, request: Request) -> None:
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

    def _take(self) -> list[Request]:
        """The texts that waited longest, without those whose callers have gone; what belongs together is not parted."""
        taken: list[Request] = []
        room = self._max_texts
        with self._changed:
            while self._waiting and (not taken or (self._waiting[0].size or 1) <= room):
                request = self._waiting.popleft()
                if request.future.set_running_or_notify_cancel():
                    taken.append(request)
                    room -= request.size or 1
        return taken


_open: "weakref.WeakSet[Queue]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A thread that is inside onnxruntime when the interpreter goes would take the process down with it."""
    for queue in list(_open):
        queue.end_thread()


# ---- encoding --------------------------------------------------------------------------------------------------------


def _groups(batch: list[Request]) -> Iterator[list[Request]]:
    """Texts of equal method and options, in order of their first."""
    found: dict[Call, list[Request]] = {}
    for request in batch:
        found.setdefault(request.call, []).append(request)
    yield from found.values()


def _run(encoder: object, requests: list[Request]) -> None:
    """Encode texts of one call, together; where that fails each alone, so that an error meets who caused it."""
    call = requests[0].call
    method = getattr(encoder, call.method)
    options = {name: value for name, _, value in call.options}
    if len(requests) > 1:
        try:
            texts = [text for request in requests for text in request.texts]
            rows = _rows(method(texts, **options), len(texts))
            if len(rows) != len(texts):
                raise ValueError(f"{len(rows)} results of {len(texts)} texts")
            answers = list(zip(requests, _shared_out(rows, requests), strict=True))
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


def _shared_out(rows: list[Any], requests: list[Request]) -> Iterator[Any]:
    """The results of each request: its row, or an array of its rows."""
    start = 0
    for request in requests:
        stop = start + len(request.texts)
        yield rows[start] if request.size is None else np.asarray(rows[start:stop], dtype=np.float32)
        start = stop


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
