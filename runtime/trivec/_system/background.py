"""Work that threads do while their caller goes on, wherever threads can be had."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Generic, Self, TypeVar

from trivec._system.forks import afresh_in_children

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_ending() -> bool:
    """Whether the main thread has ended: Python starts no threads from then on, and its executors take no work."""
    return not threading.main_thread().is_alive()


class Job(Generic[Result]):
    """Work that was handed to a thread, or is still to be done."""

    def __init__(self, work: Callable[[], Result], future: "Future[Result] | None") -> None:
        self._work, self._future, self._process = work, future, os.getpid()

    def result(self) -> Result:
        """What the work gives: from the thread, or done now where there is none, as after a fork; ask once."""
        try:
            if self._future is None or self._process != os.getpid():
                return self._work()
            return self._future.result()
        finally:
            del self  # else an error keeps what it comes from: its traceback has this frame, and the future has it

    def cancel(self) -> None:
        """Leave the work undone, unless it has begun."""
        if self._future is not None and self._process == os.getpid():
            self._future.cancel()


class Background:
    """So many threads, which start with their first work.

    At the interpreter's end, and where the system has no more of them, whoever asks for a result does the work. A
    forked child gets threads of its own.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._threads, self._name = threads, name
        self.start_afresh()
        afresh_in_children(self)

    def start_afresh(self) -> None:
        """Have no threads yet."""
        self._executor: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def submit(self, work: Callable[..., Result], *arguments: object) -> Job[Result]:
        """Have `work(*arguments)` done."""
        call = partial(work, *arguments)
        return Job(call, self.future(call))

    def future(self, call: Callable[[], Result]) -> "Future[Result] | None":
        """What will hold the result of a call; None: there is no thread for it."""
        if is_ending():
            return None
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)
        try:
            return self._executor.submit(call)
        except RuntimeError:  # the end has come meanwhile, or a limit of the system
            return None

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`work(item)` of each item, in order; all of them are handed over at once."""
        jobs = deque(self.submit(work, item) for item in items)
        return self._results(jobs)

    @staticmethod
    def _results(jobs: "deque[Job[Result]]") -> Iterator[Result]:
        try:
            while jobs:
                yield jobs.popleft().result()
        finally:
            for job in jobs:
                job.cancel()

    def close(self) -> None:
        """Wait for the threads' work, and end them."""
        if self._executor is not None:
            self._executor.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
