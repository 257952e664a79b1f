"""Rows of token ids that many requests wait for, run in windows: fair, bounded in time, equal rows once.

A row is a text that is tokenized already, so its cost is known before it runs. One queue stands before one model; the
queues of one device share a `Turn`, so that two models never fight for the same cores.
"""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trivec._concurrency.turn import Turn
from trivec._concurrency.window import DeadlineError, Job, Speed, Window, distinct_rows, in_turn, shared_out
from trivec._system.forks import afresh_in_children
from trivec._tokens.batch import Tokens
from trivec._vectors.heads import HybridVectors

WINDOW_SECONDS = 0.05
"""What a window is to take: a new request waits for the rest of one, and for its own."""
_SOON = 0.005  # seconds that a run may take in its caller's own thread
_STUCK, _LATE = 60.0, 10  # a window is stuck after so many seconds, and so many times what it was to take


class Engine(Protocol):
    """What runs rows; every encoder of texts is one."""

    def run_rows(self, tokens: Tokens, key: Hashable, /) -> tuple[HybridVectors, npt.NDArray[np.bool_]]:
        """What is made of N rows, and whether everything of a row is finite, (N,)."""


class Observer(Protocol):
    """Who is told; from the thread that ran the rows."""

    def window(self, rows: int, tokens: int, seconds: float) -> None:
        """A window is through."""

    def done(self, jobs: list[Job]) -> None:
        """These jobs are through, or failed."""


class RowQueue:
    """Jobs that wait, and the thread that runs them."""

    def __init__(
        self,
        engine: Engine,
        observer: Observer,
        *,
        turn: Turn,
        least: int,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Stand before a model.

        Args:
            engine: the model.
            observer: who is told what is through.
            turn: shared by the queues of one device.
            least: tokens of a window at least, however slow the model is; the longest text should fit.
            most: tokens of a window at most.
            clock: seconds.
        """
        self._engine, self._observer, self._clock = engine, observer, clock
        self._turn, self._bounds = turn, (least, most)
        self._speed = Speed()
        self.start_afresh()
        turn.join(self)
        afresh_in_children(self)

    def start_afresh(self) -> None:
        """Nothing waits, nothing runs, there is no thread; so in a forked child too."""
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._thread: threading.Thread | None = None
        self._closed = self._was_alone = False
        self._served: dict[Hashable, int] = {}
        self._windows = 0
        self._reserved = self._waiting = self._running = 0
        self._since = 0.0

    # ---- what is said of it ------------------------------------------------------------------------------------------

    @property
    def budget(self) -> int:
        """Tokens of the next window."""
        least, most = self._bounds
        return min(most, max(least, int(self._speed.rate * WINDOW_SECONDS)))

    @property
    def waiting_texts(self) -> int:
        """Rows that are in no window yet."""
        return sum(len(job.lengths) - job.taken for job in list(self._jobs))

    @property
    def waiting_tokens(self) -> int:
        """Their tokens."""
        return self._waiting

    def seconds(self) -> float:
        """What all that was let in is expected to take."""
        return (self._reserved + self._waiting + self._running) / self._speed.rate

    def admit(self, tokens: int, limit: float) -> float:
        """Let in a request of about so many tokens: 0.0; or the seconds that it would wait, above the limit.

        A device with nothing to do refuses nobody. `submit` or `release` has to follow.
        """
        before = self._turn.seconds()
        wait = before + tokens / self._speed.rate
        if before and wait > limit:
            return wait
        self._reserved += tokens
        return 0.0

    def release(self, tokens: int) -> None:
        """What was let in does not come, or comes now."""
        self._reserved -= tokens

    def fits(self, tokens: int) -> bool:
        """Whether so many tokens will be in the next window."""
        return self._waiting + tokens <= self.budget

    def is_stuck(self) -> bool:
        """Whether a window takes far too long, or nobody is there to run what waits."""
        if self._running:
            return self._clock() - self._since > max(_STUCK, _LATE * self._running / self._speed.rate)
        return self._thread is not None and not self._thread.is_alive() and not self._closed

    def seed(self, tokens: int, seconds: float) -> None:
        """Start with a speed that a warm-up measured."""
        self._speed.add(tokens, seconds)

    # ---- jobs --------------------------------------------------------------------------------------------------------

    def run_here(self, job: Job) -> bool:
        """Run a short job in the caller's own thread, where nothing else waits or runs; False: it is to be submitted.

        Two hops between threads cost more than a short text on a busy machine.
        """
        tokens = job.waiting
        if self._jobs or tokens / self._speed.rate > _SOON or not self._turn.take_if_free():
            return False
        try:
            job.take(len(job.lengths))
            self._run(Window(job.key, [(job, 0, job.taken)], tokens))
        finally:
            self._turn.give()
        return True

    def submit(self, job: Job) -> None:
        """Let a job wait for its windows; the observer is told when it is through."""
        with self._changed:
            self._jobs.append(job)
            self._waiting += job.waiting
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="trivec-rows", daemon=True)
                self._thread.start()
            self._changed.notify()

    def drop(self, job: Job) -> None:
        """Nobody waits for a job any more: what of it is in no window does not run."""
        with self._changed:
            job.gone = True
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= job.waiting

    def close(self) -> None:
        """Run what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if not self._jobs:
                    return
            self._turn.take()
            try:
                late, window = self._take()  # only now, with all that has come while another ran
                if late:
                    self._observer.done(late)
                if window is not None:
                    self._run(window)
                del late, window  # nothing of it stays alive while the thread waits
            finally:
                self._turn.give()

    def _take(self) -> tuple[list[Job], Window | None]:
        """The jobs whose time is up, and the next window."""
        now = self._clock()
        with self._changed:
            late = [job for job in self._jobs if now >= job.deadline]
            for job in late:
                job.error = DeadlineError()
            self._jobs = [job for job in self._jobs if now < job.deadline]
            budget = self.budget
            jobs = in_turn(self._jobs, now, self._served)
            if self._was_alone and any(job.lengths[job.taken] <= budget for job in self._jobs):
                jobs = in_turn([job for job in self._jobs if job.lengths[job.taken] <= budget], now, self._served)
            slices = shared_out(jobs, budget)
            tokens = sum(job.take(stop) for job, _, stop in slices)
            self._was_alone = tokens > budget
            self._jobs = [job for job in self._jobs if job.taken < len(job.lengths)]
            self._waiting = sum(job.waiting for job in self._jobs)
            if not slices:
                return late, None
            self._windows += 1
            self._served = {job.key: self._served.get(job.key, 0) for job in self._jobs}
            self._served[jobs[0].key] = self._windows
            return late, Window(jobs[0].key, slices, tokens)

    def _run(self, window: Window) -> None:
        """Run a window, and hand its jobs what they are due. An error meets whose rows caused it."""
        self._running, self._since = window.tokens, self._clock()
        try:
            rows, seconds = self._made(window)
        except BaseException as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            if len(window.slices) > 1:
                for each in window.slices:
                    self._run(Window(window.key, [each], sum(each[0].lengths[each[1] : each[2]])))
            else:
                self._fail(window.slices[0][0], error)
            return
        finally:
            self._running = 0
        self._observer.window(rows, window.tokens, seconds)
        finished = [job for job, _, _ in window.slices if job.is_done and not job.gone]
        if finished:
            self._observer.done(finished)

    def _made(self, window: Window) -> tuple[int, float]:
        """Run each row that differs once, and give it to all whose it is; how many rows those were, and seconds."""
        tokens, places = distinct_rows(window.slices)
        vectors, finite = self._engine.run_rows(tokens, window.key)
        seconds = self._clock() - self._since
        self._speed.add(len(tokens.ids), seconds)
        for (job, _, _), rows in zip(window.slices, places, strict=True):
            job.started = job.started or self._since
            whole = len(window.slices) == 1 and len(rows) == len(finite)
            job.add(vectors if whole else vectors.take(rows), finite if whole else finite[rows], seconds)
        return len(finite), seconds

    def _fail(self, job: Job, error: BaseException) -> None:
        job.error = error
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= job.waiting
        self._observer.done([job])
