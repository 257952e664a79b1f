"""One event loop in a thread of its own, on which every request of a process runs, whoever waits for it."""

import asyncio
import atexit
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from trivec._errors import InputError
from trivec._system.background import is_ending
from trivec._system.forks import afresh_in_children, never_freed

Result = TypeVar("Result")
_SECONDS = 1.0  # for connections to close when Python ends


class EventLoop:
    """The loop; its thread starts with the first work, in a forked child anew."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self.start_afresh()
        afresh_in_children(self)

    def start_afresh(self) -> None:
        """In a forked child the thread is not there, and what the loop waits with is the parent's as well."""
        never_freed(self._loop)
        self._loop = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, work: Coroutine[Any, Any, Result]) -> "Future[Result]":
        """Have it run; the future is of its result.

        Raises:
            InputError: Python is about to end, and starts no thread any more.
        """
        with self._lock:
            loop = self._running()
        if loop is None:
            work.close()
            raise InputError("Python ends, and no request can be sent any more. Encode before the main thread returns.")
        return asyncio.run_coroutine_threadsafe(work, loop)

    def end(self, work: Coroutine[Any, Any, object]) -> None:
        """Have something closed, if the loop still runs; nobody waits for it."""
        loop = self._loop
        if loop is None or loop.is_closed():
            work.close()
        else:
            asyncio.run_coroutine_threadsafe(work, loop)

    def stop(self) -> None:
        """Let what closes close, then end the thread."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(_finish(loop), loop)
            thread.join(2 * _SECONDS)

    def _running(self) -> asyncio.AbstractEventLoop | None:
        if self._loop is None and not is_ending():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_work, args=(loop,), name="trivec-hosted", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the end has come meanwhile, or a limit of the system
                loop.close()
                return None
            self._loop, self._thread = loop, thread
        return self._loop


def _work(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _finish(loop: asyncio.AbstractEventLoop) -> None:
    left = asyncio.all_tasks(loop) - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=_SECONDS)
    await loop.shutdown_default_executor()
    loop.stop()


LOOP = EventLoop()
atexit.register(LOOP.stop)
