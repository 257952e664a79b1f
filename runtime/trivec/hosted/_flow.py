"""Batches under way: the next ones are asked for while the oldest is waited for, and rows come in the texts' order."""

import asyncio
import concurrent.futures
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import count

import numpy as np

from trivec._vectors.arrays import Array
from trivec.hosted._batches import Batch, Job


class Flow:
    """The requests of one call.

    Whoever drives it waits for `oldest()`, in a thread or on an event loop, calls `take()`, and has what is `ready()`.
    """

    LAST = 1.0
    """Seconds that requests under way may take once one has failed, or nobody wants the answers."""

    def __init__(
        self,
        jobs: Iterator[Job],
        parts: Callable[[Job], Iterator[list[int]]],
        start: "Callable[[Batch, Flow], Future[Array]]",
        ahead: int,
    ) -> None:
        """Begin nothing yet.

        Args:
            jobs: made one at a time, as they are needed; what making one raises comes after all before it.
            parts: the texts of a job that are missing, a request at a time.
            start: send a request.
            ahead: batches that are asked for at a time.
        """
        self._going_on = True
        self._failed: int | None = None
        """The first batch that failed, of those that are known to have."""
        self._open: deque[Job] = deque()
        self._batches = self._cut(jobs, parts)
        self._start, self._ahead = start, ahead
        self._waiting: deque[tuple[Batch, Future[Array]]] = deque()
        self._failure: Exception | None = None

    def oldest(self) -> "Future[Array] | None":
        """The request to wait for, when as many as may be are under way; None: there is none left."""
        while len(self._waiting) < self._ahead and (batch := next(self._batches, None)) is not None:
            self._waiting.append((batch, self._start(batch, self) if batch.rows else _nothing()))
        return self._waiting[0][1] if self._waiting else None

    def take(self) -> int:
        """Put the oldest request's vectors into their place; how many. Raises what it raised."""
        batch, future = self._waiting[0]
        vectors = future.result()
        if batch.rows:
            batch.job.fill(batch.rows, vectors)
        self._waiting.popleft()
        return len(batch.rows)

    def ready(self) -> Iterator[Job]:
        """Jobs that are done, in order."""
        while self._open and self._open[0].is_done:
            yield self._open.popleft()

    def wants(self, batch: Batch) -> bool:
        """Whether its vectors can still be had in order: those behind a failed one cannot."""
        return self._going_on and (self._failed is None or batch.number < self._failed)

    def fail(self, batch: Batch) -> None:
        """A batch has failed: what comes after it is not sent any more."""
        if self._failed is None or batch.number < self._failed:
            self._failed = batch.number

    def finish(self) -> None:
        """At the end: what went wrong in making jobs."""
        if self._failure is not None:
            raise self._failure

    # ---- when it goes wrong --------------------------------------------------------------------------------------

    def stop(self) -> "list[Future[Array]]":
        """Try nothing again, and begin nothing; what is under way may end."""
        self._going_on = False
        return [future for _, future in self._waiting]

    def rest(self) -> Iterator[Job]:
        """Give up what is still under way, and keep what has come: jobs that are done, and the one after them."""
        for batch, future in self._waiting:
            if batch.rows and not future.cancel() and not future.cancelled() and future.exception() is None:
                batch.job.fill(batch.rows, future.result())
        self._waiting.clear()
        yield from self.ready()
        if self._open:
            yield self._open.popleft()

    @staticmethod
    def last_seconds(futures: "list[Future[Array]]") -> None:
        """Wait a moment for what is under way."""
        concurrent.futures.wait(futures, timeout=Flow.LAST)

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _cut(self, jobs: Iterator[Job], parts: Callable[[Job], Iterator[list[int]]]) -> Iterator[Batch]:
        numbers = count()
        try:
            for job in jobs:
                self._open.append(job)
                for rows in parts(job):
                    yield Batch(next(numbers), job, rows)
                job.cut = True
                if not job.missing:  # it takes a place all the same, or all that is known would be read ahead
                    yield Batch(next(numbers), job, [])
        except Exception as error:  # noqa: BLE001 - raised when what came before it is through
            self._failure = error


def _nothing() -> "Future[Array]":
    """The answer to no request."""
    future: Future[Array] = Future()
    future.set_result(np.zeros((0, 0), dtype=np.float32))
    return future


async def settled(futures: "Sequence[Future[Array]]", seconds: float | None = None) -> None:
    """Wait for requests on the event loop of the caller, so long at most; raises nothing of theirs."""
    waiting = [asyncio.wrap_future(future) for future in futures]
    for each in waiting:
        each.add_done_callback(lambda done: done.cancelled() or done.exception())  # else asyncio logs what they raise
    if waiting:
        await asyncio.wait(waiting, timeout=seconds)
