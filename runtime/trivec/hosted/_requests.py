"""Texts to a service's vectors: checked, looked up, sent a few requests at a time, split where they are too long."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from trivec._errors import InputError, NonFiniteError, ServiceError, TruncationError
from trivec._tokens.inputs import check_encodable
from trivec._vectors.arrays import Array
from trivec.hosted._answers import PACKED, check_width, dtype_of, vectors_of
from trivec.hosted._batches import Batch, Budget, Job, estimated_tokens
from trivec.hosted._cache import Cache
from trivec.hosted._failures import TooLongError
from trivec.hosted._flow import Flow, settled
from trivec.hosted._http import Service
from trivec.hosted._loop import LOOP
from trivec.hosted._provider import Ask

WORD = "dimension"
"""What is asked for where only the width is wanted."""
_NUMBER = 64  # bytes that a number takes in JSON at most: 17 digits, an exponent, a line and its blanks
_WIDEST = 16_384  # numbers of a vector, where nobody knows yet


class Wish(NamedTuple):
    """What a call wants of its texts."""

    ask: Ask
    prompt: str
    most: int | None
    """Texts of a request."""


class Embeddings:
    """A service's endpoint for vectors.

    Attributes:
        service: the address.
        budget: what a request may hold; learns.
        width: numbers (or bytes, of packed bits) of a vector; None until a first one came.
    """

    def __init__(
        self,
        service: Service,
        *,
        width: int | None,
        extra: Mapping[str, Any] | None,
        cache: Cache | None = None,
        zeros: bool = False,
    ) -> None:
        """Connect nothing yet.

        Args:
            service: the address.
            width: what the service was asked for; None: whatever it gives.
            extra: further fields of each request.
            cache: vectors that were paid for before.
            zeros: whether blank texts have a vector of zeros; else they are an error.
        """
        row = service.row
        self.service, self.width, self.cache = service, width, cache
        self.budget = Budget(row.inputs, row.tokens, row.body_bytes)
        self._zeros, self._extra = zeros, dict(extra or {})
        self._together = bool(row.together and self._extra.get(row.together))

    def request(self, ask: Ask) -> str:
        """sha256 of everything that a request says beside its text, and of whom it asks."""
        row = self.service.row
        body = {**row.body([""], ask), **self._extra}
        whom = {"provider": row.name, "address": self.service.url, "model": ask.model}
        named = {**whom, "body": body, "version": row.version}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()

    def blocks(
        self, parts: Iterator[list[str]], wish: Wish, advance: Callable[[int], object] = lambda _: None
    ) -> Iterator[Array]:
        """Vectors (N, W) of each list of texts, in order; what goes wrong is raised after all rows before it."""
        flow, done = self._flow(parts, wish), 0
        try:
            while (future := flow.oldest()) is not None:
                future.exception()  # waits
                advance(flow.take())
                for job in flow.ready():
                    done += job.count
                    yield self._rows(job, wish)
            for job in flow.ready():
                done += job.count
                yield self._rows(job, wish)
            flow.finish()
        except GeneratorExit:
            for future in flow.stop():
                future.cancel()
            raise
        except BaseException as error:  # Ctrl-C as well
            flow.last_seconds(flow.stop())
            for rows in self._rest(flow, wish):
                done += len(rows)
                yield rows
            _tell_done(error, done)
            raise

    async def block(self, texts: list[str], wish: Wish) -> Array:
        """Vectors (N, W) of texts, while the event loop of the caller goes on."""
        flow = self._flow(iter([texts]), wish)
        try:
            while (future := flow.oldest()) is not None:
                await settled([future])
                flow.take()
            flow.finish()
            (job,) = flow.ready()
        except BaseException as error:
            waiting = flow.stop()
            if isinstance(error, Exception):  # whoever cancels does not wait
                await settled(waiting, flow.LAST)
            _tell_done(error, sum(map(len, self._rest(flow, wish))))
            raise
        if not job.is_known and self.width is None:
            await self.block([WORD], wish)
        return self._rows(job, wish)

    def learn_width(self, wish: Wish) -> int:
        """The width; asks for one word where no vector has come yet."""
        if self.width is None:
            list(self.blocks(iter([[WORD]]), wish))
        if self.width is None:
            raise ServiceError(f"{self.service.row.name} gave no vector.", provider=self.service.row.name)
        return self.width

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _flow(self, parts: Iterator[list[str]], wish: Wish) -> Flow:
        request = "" if self.cache is None else self.request(wish.ask)

        def start(batch: Batch, flow: Flow) -> "Future[Array]":
            return LOOP.submit(self._sent(batch, wish.ask, request, flow))

        def cut(job: Job) -> Iterator[list[int]]:
            if not self._together:
                return self.budget.parts(job.texts, job.missing, wish.most)
            return iter([job.missing] if job.missing else [])

        return Flow(self._jobs(parts, wish, request), cut, start, self.service.concurrency + 1)

    def _rows(self, job: Job, wish: Wish) -> Array:
        width = 0 if job.is_known else self.learn_width(wish)
        return job.vectors(width, dtype_of(wish.ask.dtype))

    def _rest(self, flow: Flow, wish: Wish) -> Iterator[Array]:
        """After a failure: what is whole, and the first rows of what is not, where there are some."""
        for job in flow.rest():
            if job.is_known or self.width is not None:
                rows = job.vectors(self.width or 0, dtype_of(wish.ask.dtype))
                if len(rows):
                    yield rows

    def _jobs(self, parts: Iterator[list[str]], wish: Wish, request: str) -> Iterator[Job]:
        first = 0
        for part in parts:
            texts = [wish.prompt + text for text in part] if wish.prompt else part
            blank = self._check(part, texts, first)
            job = Job(texts, first, together=self._together)
            if blank:
                job.skip([row for row, text in enumerate(job.texts) if text in blank])
            if self.cache is not None and not self._together:
                dtype = dtype_of(wish.ask.dtype)
                known = self.cache.get(request, job.texts)
                for row, text in enumerate(job.texts):
                    size, rest = divmod(len(known.get(text, b"")), dtype.itemsize)
                    if size and not rest and self.width in (None, size):
                        job.fill([row], np.frombuffer(known[text], dtype=dtype)[None])
                        self.width = size  # what comes now is to go with it
            job.missing = job.unknown()
            first += len(part)
            yield job

    def _check(self, part: Sequence[str], texts: Sequence[str], first: int) -> set[str]:
        """The blank ones, as they would be sent; InputError where there must be none, or for what is no text."""
        for index, text in enumerate(texts):
            if not text.isascii():
                check_encodable(text, f"the text at index {first + index}")
        blank = [] if all(map(str.strip, part)) else [index for index, text in enumerate(part) if not text.strip()]
        if blank and not self._zeros:
            raise InputError(
                f"the text at index {first + blank[0]} is blank, which services refuse or charge for. Drop such texts, "
                'or open the encoder with blank="zeros" for vectors of zeros. Nothing of this block was sent.'
            )
        return {texts[index] for index in blank}

    async def _sent(self, batch: Batch, ask: Ask, request: str, flow: Flow) -> Array:
        try:
            return await self._fetched(batch, ask, request, flow)
        except Exception:
            flow.fail(batch)
            raise

    async def _fetched(self, batch: Batch, ask: Ask, request: str, flow: Flow) -> Array:
        """Vectors (B, W) of a batch; one that is too long comes in halves, and later ones are cut shorter."""
        row, texts = self.service.row, batch.texts
        body = {**row.body(texts, ask), **self._extra}
        path = row.path.format(model=ask.model)
        try:
            most = len(texts) * (self.width or _WIDEST) * _NUMBER
            found = await self.service.post(path, body, most, lambda: flow.wants(batch))
        except TooLongError as error:
            refused = error
        else:
            return self._checked(found, batch, ask, request)
        if len(texts) == 1 or self._together:
            raise self._too_long(batch, refused, ask)
        middle = len(texts) // 2
        halves = [batch._replace(rows=batch.rows[:middle]), batch._replace(rows=batch.rows[middle:])]
        vectors = [await self._fetched(half, ask, request, flow) for half in halves]
        heavier = max(halves, key=lambda half: sum(map(estimated_tokens, half.texts)))
        self.budget.within(heavier.texts, by_count=refused.by_count)  # only now: one text may have been the cause
        return np.concatenate(vectors)

    def _checked(self, found: Any, batch: Batch, ask: Ask, request: str) -> Array:  # noqa: ANN401 - JSON
        row, texts = self.service.row, batch.texts
        vectors, tokens = vectors_of(found, row, ask, len(texts), self.service.key)
        check_width(vectors.shape[1], self.width, row)
        finite = np.isfinite(vectors).all(1)  # (B,)
        if not finite.all():
            index = int(np.argmin(finite))
            raise NonFiniteError(
                f"{row.name} gave NaN or infinity for {int((~finite).sum())} of {len(texts)} texts, the first at index "
                f"{batch.job.place(batch.rows[index])}: {texts[index][:60]!r}. Nothing of that request is kept."
            )
        self.width = vectors.shape[1]
        counted = round(sum(map(estimated_tokens, texts))) if tokens is None else tokens
        self.service.count(texts=len(texts), tokens=counted)
        if self.cache is not None and not self._together:
            self.cache.put(request, texts, vectors)
        return vectors

    def _too_long(self, batch: Batch, refused: TooLongError, ask: Ask) -> Exception:
        if refused.by_count or self._together:
            return refused.error
        can_cut = ask.overflow and ask.overflow != self.service.row.overflow.get("truncate")
        hint = "pass on_overflow='truncate'" if can_cut else "split it: this service does not cut texts"
        return TruncationError(
            f"the text at index {batch.job.place(batch.rows[0])} is longer than the model reads. Shorten it, or {hint}."
            f" {refused.error}"
        )


def width_asked(dimensions: int | None, dtype: str) -> int | None:
    """Numbers of a vector that is to have so many dimensions."""
    return dimensions if dimensions is None or dtype not in PACKED else -(-dimensions // 8)


def _tell_done(error: BaseException, done: int) -> None:
    if isinstance(error, ServiceError):
        error.done = done
