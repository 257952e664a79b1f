"""The way of one request through a model: let in, tokenized, queued, run; or refused, given up, dropped."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.types import Receive

from trivec._concurrency.window import DeadlineError, Job
from trivec._encoders.calls import Ready
from trivec._errors import InputError
from trivec._vectors.heads import HybridVectors
from trivec.server._errors import ApiError, DisconnectedError
from trivec.server._metrics import Metrics
from trivec.server._models import Ask, Model

_INLINE = 1_000  # characters that are tokenized in the event loop: a hop to a thread costs more


@dataclass
class Answer:
    """What a model made of a request's texts, and what that took."""

    vectors: HybridVectors
    """Of the N texts."""
    lengths: npt.NDArray[np.int64]
    """(N,) tokens that the model read."""
    ready: Ready
    tokens: int
    """Of all texts."""
    cut: list[int]
    """The texts that were cut."""
    tokenize_seconds: float = 0.0
    queue_seconds: float = 0.0
    run_seconds: float = 0.0


class Observed:
    """What a model's queue tells, handed to the event loop and to the metrics."""

    def __init__(self, work: "Work", name: str) -> None:
        self._work, self._name = work, name

    def window(self, rows: int, tokens: int, seconds: float) -> None:
        """As of RowQueue's Observer."""
        self._work.metrics.window(self._name, rows, tokens, seconds)

    def done(self, jobs: list[Job]) -> None:
        """As of RowQueue's Observer."""
        self._work.done(jobs)


class Work:
    """The requests that wait for a model, on one event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._futures: dict[Job, asyncio.Future[None]] = {}
        self._active = 0
        self.tokenizers = 2
        """Threads that tokenize while a window runs."""
        self._tokenizers = ThreadPoolExecutor(self.tokenizers, thread_name_prefix="trivec-tokenizer")

    def done(self, jobs: list[Job]) -> None:
        """Wake the requests of these jobs, whichever thread ran them."""
        waiting = [future for job in jobs if (future := self._futures.get(job)) is not None]
        if waiting:
            with suppress(RuntimeError):  # the loop has ended
                waiting[0].get_loop().call_soon_threadsafe(_wake, waiting)

    def close(self) -> None:
        """End the threads."""
        self._tokenizers.shutdown(wait=False, cancel_futures=True)

    async def represent(self, model: Model, ask: Ask, receive: Receive) -> Answer:
        """What a model makes of texts.

        Raises:
            ApiError: the request cannot be met, or not now.
            DisconnectedError: nobody waits any more.
        """
        self._active += 1
        try:
            return await self._represent(model, ask, receive)
        finally:
            self._active -= 1

    async def _represent(self, model: Model, ask: Ask, receive: Receive) -> Answer:
        arrived = time.monotonic()
        settings = model.settings
        size = _size(ask)
        estimate = _estimate(model, ask, size)
        wait = model.queue.admit(estimate, settings.max_wait)
        if wait:
            raise ApiError(
                "overloaded",
                f"The server is busy: this request would wait for {wait:.0f} s, and --max-wait is "
                f"{settings.max_wait:g} s. Ask again later.",
                retry_after=math.ceil(wait),
            )
        try:
            ready, call = await self._read(model, ask, size)
        except InputError as error:
            raise ApiError("bad_value", str(error), param=ask.field) from None
        finally:
            model.queue.release(estimate)
        answer = _checked(model, ask, ready)
        if size:
            model.tokens_per_byte += 0.1 * (answer.tokens / size - model.tokens_per_byte)
        answer.tokenize_seconds = time.monotonic() - arrived
        if len(ready.tokens.truncated):
            job = Job(ready.tokens, call, time.monotonic(), arrived + settings.timeout)
            await self._run(model, job, receive)
            _take(answer, job, ask)
        times = (answer.tokenize_seconds, answer.queue_seconds)
        self.metrics.represented(model.name, ask.heads, len(ask.texts), answer.tokens, len(answer.cut), times)
        return answer

    def give_up(self, error: Exception) -> None:
        """Have all that waits fail."""
        for future in self._futures.values():
            if not future.done():
                future.set_exception(error)

    async def in_thread(self, call: Callable[[], Any]) -> Any:  # noqa: ANN401
        """A call of the tokenizers library, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenizers, call)

    async def _read(self, model: Model, ask: Ask, size: int) -> tuple[Ready, Any]:
        if size <= _INLINE and len(ask.texts) <= 16 and ask.max_length is None and ask.side is None:
            return model.read(ask)
        try:
            async with asyncio.timeout(model.settings.timeout):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._tokenizers, model.read, ask)
        except TimeoutError:
            raise DeadlineError from None

    async def _run(self, model: Model, job: Job, receive: Receive) -> None:
        """Run a job here, if it is short and alone, or wait until its last rows are through."""
        await asyncio.sleep(0)  # who came in the same moment shows now: they run together then, and not one by one
        if self._active == 1 and model.queue.run_here(job):
            _check(job)
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._futures[job] = future
        watched = not model.queue.fits(job.waiting)  # who is in the next window anyway costs no watch
        model.queue.submit(job)
        timer = loop.call_at(loop.time() + job.deadline - time.monotonic(), _give_up, future)
        watch = loop.create_task(_until_gone(receive, future)) if watched else None
        try:
            await future
        except BaseException:
            model.queue.drop(job)
            raise
        finally:
            timer.cancel()
            del self._futures[job]
            if watch is not None:
                watch.cancel()
        _check(job)


def _wake(futures: list["asyncio.Future[None]"]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _give_up(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_exception(DeadlineError())


async def _until_gone(receive: Receive, future: "asyncio.Future[None]") -> None:
    """Give a request up once its client hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    if not future.done():
        future.set_exception(DisconnectedError())


def _check(job: Job) -> None:
    """Raise what went wrong with a job."""
    if job.error is not None:
        raise job.error


def _take(answer: Answer, job: Job, ask: Ask) -> None:
    """The numbers of a job's rows, for each text."""
    ready = answer.ready
    finite = ready.spread(job.finite())
    if not finite.all():
        index = int(np.flatnonzero(~finite)[0])
        raise ApiError(
            "non_finite",
            f"What the model makes of {ask.field}.{index} is NaN or infinite.",
            param=f"{ask.field}.{index}",
        )
    vectors = job.vectors()
    answer.vectors = vectors if ready.row_of is None else vectors.take(ready.row_of)
    answer.queue_seconds, answer.run_seconds = max(0.0, job.started - job.arrived), job.seconds


def _checked(model: Model, ask: Ask, ready: Ready) -> Answer:
    """The texts of a request, tokenized; ApiError where they are too long or too many."""
    settings = model.settings
    lengths, truncated = ready.spread(ready.tokens.lengths), ready.spread(ready.tokens.truncated)
    strict = settings.on_overflow == "error" if ask.truncate is None else not ask.truncate
    cut: list[int] = np.flatnonzero(truncated).tolist()
    if strict and cut:
        index = cut[0]
        most = ask.max_length or model.longest
        text = ask.texts[index]
        have = f"{model.length_of(text, ask)} tokens" if isinstance(text, str) else "more tokens than that"
        raise ApiError(
            "text_too_long",
            f"{ask.field}.{index} has {have}, and {model.name!r} reads {most} of a text. Shorten it, or let it be cut: "
            '"truncate": true.',
            param=f"{ask.field}.{index}",
        )
    tokens = int(lengths.sum())
    if tokens > settings.max_request_tokens:
        raise ApiError(
            "too_many_tokens",
            f"The texts have {tokens} tokens, and --max-request-tokens is {settings.max_request_tokens}. Send fewer.",
            param=ask.field,
        )
    return Answer(HybridVectors(), lengths, ready, tokens, cut)


def _size(ask: Ask) -> int:
    """Characters of a request's texts."""
    if ask.is_ids:
        return 0
    if ask.heads == ("score",):
        return sum(len(a) + len(b) for a, b in ask.texts)
    return sum(map(len, ask.texts))


def _estimate(model: Model, ask: Ask, size: int) -> int:
    """Tokens, before they are counted."""
    if ask.is_ids:
        return sum(map(len, ask.texts))
    most = (model.longest or 1 << 30) * len(ask.texts)
    return min(most, int(size * model.tokens_per_byte) + 2 * len(ask.texts))
