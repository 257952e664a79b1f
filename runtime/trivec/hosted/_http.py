"""Requests to a service: a few at a time, again where that may help, and one pause for all where it asks for one."""

import asyncio
import json
import random
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2

from trivec._system.forks import afresh_in_children, never_freed
from trivec._version import __version__
from trivec.hosted._failures import Found, TryAgainError, answer_of
from trivec.hosted._key import Key, is_loopback
from trivec.hosted._loop import LOOP
from trivec.hosted._provider import Provider

_CONNECT = 5.0  # seconds
_SPARE = 1 << 20  # bytes of an answer around its vectors; and all of an error that is read
_ECHO = 6  # bytes that a byte of a request takes in an answer that repeats it: \u0001
_IDLE = 30.0  # seconds that a connection is kept for the next request
_JSON = {"Content-Type": "application/json"}
_FIRST, _LONGEST = 0.5, 8.0  # seconds: waits are at most 0.5 * 2^n, and never above 8


class Usage(NamedTuple):
    """What an encoder has asked of its service so far."""

    requests: int = 0
    """Answered or not."""
    texts: int = 0
    """That were answered."""
    tokens: int = 0
    """As the service counts them; where it does not say, an estimate."""
    retries: int = 0
    """Requests that were sent again."""
    seconds_waited: float = 0.0
    """Between a failure and the next try, added up over requests."""


@dataclass(frozen=True)
class Patience:
    """How long a service is waited for."""

    max_retries: int = 5
    max_wait: float = 60.0
    """Seconds: a service that asks for a longer pause is not waited for."""
    timeout: float = 60.0
    """Seconds without a byte of an answer."""


class _Line:
    """What belongs to one event loop: connections, places among those who ask, and the pause."""

    def __init__(self, client: httpx2.AsyncClient, places: int, end: "weakref.finalize[..., Service]") -> None:
        self.client, self.end = client, end
        self.places = asyncio.Semaphore(places)
        self.paused_until = 0.0


class Service:
    """One address, one key. Used on the event loop alone, but for `close` and `usage`.

    Attributes:
        clock: seconds, as `sleep` passes them; tests replace both.
    """

    def __init__(self, row: Provider, url: str, key: Key, *, concurrency: int, patience: Patience) -> None:
        self.row, self.url, self.key = row, url, key
        self.concurrency, self.patience = concurrency, patience
        self.usage = Usage()
        self.clock: Callable[[], float] = time.monotonic
        self.sleep: Callable[[float], Any] = asyncio.sleep
        self._line: _Line | None = None
        afresh_in_children(self)

    def start_afresh(self) -> None:
        """In a forked child: the connections are the parent's, and closing them would tell the service so."""
        if self._line is not None:
            self._line.end.detach()  # epoll's set is shared: closing here would take the parent's sockets out of it
        never_freed(self._line)
        self._line = None

    def count(self, **more: float) -> None:
        """Add to what was used."""
        self.usage = self.usage._replace(**{name: getattr(self.usage, name) + n for name, n in more.items()})

    async def post(self, path: str, body: Mapping[str, Any], most: int, wanted: Callable[[], bool]) -> Any:  # noqa: ANN401
        """The JSON that the service answers with.

        Args:
            path: behind the address.
            body: the request.
            most: bytes that what is asked for can take in an answer; more is not read.
            wanted: whether anybody still wants the answer: if not, nothing is sent any more.

        Raises:
            TooLongError: the request holds more than the service takes.
            ServiceError: it refuses, goes on failing, gives no JSON, or more of it than there can be.
        """
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        most += _ECHO * len(content) + _SPARE
        for tried in count(1):
            try:
                return await self._once(path, content, most, wanted)
            except TryAgainError as failed:
                error, delay, for_all = failed.error, failed.delay, failed.for_all
            if tried > self.patience.max_retries or not wanted():
                break
            await self._wait(tried, delay, for_all=for_all)
        raise error  # outside, so that no request, which has the key, hangs on it

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        line, self._line = self._line, None
        if line is not None:
            LOOP.end(line.client.aclose())

    # ---- helpers -------------------------------------------------------------------------------------------------

    async def _once(self, path: str, content: bytes, most: int, wanted: Callable[[], bool]) -> Any:  # noqa: ANN401
        line = self._open()
        async with line.places:
            while (left := line.paused_until - self.clock()) > 0:
                await self.sleep(left)
            if not wanted():
                raise asyncio.CancelledError
            if line.client.is_closed:  # by `close`, while this waited for its place
                return await self._once(path, content, most, wanted)
            self.count(requests=1)
            found: Found | Exception
            try:
                found = await _read(line.client, f"{self.url}{path}", content, most)
            except httpx2.RequestError as error:
                found = error
        return answer_of(found, self.row, self.key, self.patience.max_wait)

    def _open(self) -> _Line:
        if self._line is None:
            host = urlsplit(self.url).hostname or ""
            here = f"all://{f'[{host}]' if ':' in host else host}"
            client = httpx2.AsyncClient(
                mounts={here: None} if is_loopback(host) else None,  # no proxy is to see the key
                auth=self.key.auth(self.row.header),
                headers={"User-Agent": f"trivec/{__version__}"},
                timeout=httpx2.Timeout(self.patience.timeout, connect=min(_CONNECT, self.patience.timeout)),
                limits=httpx2.Limits(
                    max_connections=self.concurrency,
                    max_keepalive_connections=self.concurrency,
                    keepalive_expiry=_IDLE,
                ),
            )
            end = weakref.finalize(self, _forget, client)
            end.atexit = False
            self._line = _Line(client, self.concurrency, end)
        return self._line

    async def _wait(self, tried: int, delay: float | None, *, for_all: bool) -> None:
        """As long as the service asks; else up to 0.5, 1, 2, 4, 8 seconds, by chance, so that callers spread out.

        Where the service is the one who wants it, nobody else asks meanwhile.
        """
        longest = min(_FIRST * 2 ** (tried - 1), _LONGEST, self.patience.max_wait)
        seconds = random.uniform(0, longest) if delay is None else delay  # noqa: S311 - no secret
        self.count(retries=1, seconds_waited=seconds)
        if for_all and self._line is not None:
            self._line.paused_until = max(self._line.paused_until, self.clock() + seconds)
        await self.sleep(seconds)


async def _read(client: httpx2.AsyncClient, url: str, content: bytes, most: int) -> Found:
    """Send a request and read the answer, up to so many bytes: what goes on for ever is not to fill the memory."""
    async with client.stream("POST", url, content=content, headers=_JSON) as response:
        most = most if response.status_code == 200 else _SPARE
        pieces, size = [], 0
        async with aclosing(response.aiter_bytes()) as stream:
            async for piece in stream:
                pieces.append(piece)
                size += len(piece)
                if size > most:
                    break
    whole = b"".join(pieces)
    return Found(response.status_code, response.reason_phrase, response.headers, whole[:most], size <= most)


def _forget(client: httpx2.AsyncClient) -> None:
    """Nobody has the service any more."""
    if not client.is_closed:
        LOOP.end(client.aclose())
