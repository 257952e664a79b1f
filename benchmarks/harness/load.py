"""Load for an HTTP server, over raw streams: a client library would cost more of the machine than the server does.

Closed loops ask again as soon as they have an answer: they find how much a server does. Open loops ask at times that
were drawn before (a Poisson process), whatever became of earlier requests, and count latency from the time at which a
request was due: a server that stalls is charged for everybody who would have come meanwhile ("coordinated omission").
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
REFUSED = 429


class Answer:
    """A status, headers by their names in small letters, and a body."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class Connection:
    """One connection that is kept alive; opened at the first request, and again where the server has closed it."""

    def __init__(self, url: str) -> None:
        split = urlsplit(url)
        self._host, self._port = split.hostname or "127.0.0.1", split.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> Answer:
        """Send a whole request, and read the whole answer.

        Raises:
            OSError, EOFError: the connection broke.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(int(head[0].split()[1]), headers, body)

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


@dataclass
class Load:
    """What became of the requests."""

    seconds: float = 0.0
    """From the first request to the last answer."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of the answers with 200."""
    refusals: list[float] = field(default_factory=list)
    """Seconds of those with 429."""
    statuses: Counter[str] = field(default_factory=Counter)
    """How many by status, or by the name of the error."""

    def took(self, status: int, seconds: float) -> None:
        """One answer."""
        self.statuses[str(status)] += 1
        if status == 200:
            self.latencies.append(seconds)
        elif status == REFUSED:
            self.refusals.append(seconds)

    def rate(self, each: int = 1) -> float:
        """Answers with 200 a second, times the texts of each."""
        return each * len(self.latencies) / max(self.seconds, 1e-9)

    @property
    def errors(self) -> int:
        """Requests that came to nothing but 200 and 429."""
        return sum(count for status, count in self.statuses.items() if status not in ("200", "429"))

    def ms(self, percentile: float) -> float:
        """Milliseconds of a percentile of the answers with 200; infinite where there are none."""
        return 1000 * float(np.percentile(self.latencies, percentile)) if self.latencies else float("inf")


def post(path: str, body: Any, key: str = "", host: str = "127.0.0.1") -> bytes:  # noqa: ANN401 - JSON
    """A request's bytes."""
    data = json.dumps(body).encode()
    bearer = f"Authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{bearer}"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def get(path: str, host: str = "127.0.0.1") -> bytes:
    """A request's bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


async def closed(url: str, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Each of some connections asks, one request after the other, until the time is over."""
    load, start = Load(), time.perf_counter()
    end, numbers = start + seconds, iter(range(1 << 62))

    async def caller() -> None:
        async with Connection(url) as connection:
            while (before := time.perf_counter()) < end:
                await _one(load, connection, requests[next(numbers) % len(requests)], before)

    await asyncio.gather(*(caller() for _ in range(connections)))
    load.seconds = time.perf_counter() - start
    return load


async def opened(
    url: str, requests: Sequence[bytes], rate: float, seconds: float, *, most: int = 512, seed: int = 0
) -> Load:
    """Requests at the times of a Poisson process of so many a second, over up to `most` connections."""
    rng = np.random.default_rng(seed)
    due = np.cumsum(rng.exponential(1 / rate, size=max(1, int(1.2 * rate * seconds) + 10)))  # (N,) seconds
    load, idle = Load(), asyncio.LifoQueue[Connection]()
    for _ in range(most):
        idle.put_nowait(Connection(url))
    start = time.perf_counter()

    async def one(number: int, at: float) -> None:
        connection = await idle.get()
        await _one(load, connection, requests[number % len(requests)], at)
        idle.put_nowait(connection)

    async with asyncio.TaskGroup() as tasks:
        for number, moment in enumerate(due[due < seconds].tolist()):
            if (wait := start + moment - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.create_task(one(number, start + moment))
    load.seconds = time.perf_counter() - start
    while not idle.empty():
        idle.get_nowait().close()
    return load


@contextlib.asynccontextmanager
async def beside(work: Any) -> AsyncIterator[None]:  # noqa: ANN401 - a coroutine
    """Something that goes on meanwhile, and is ended then."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _one(load: Load, connection: Connection, request: bytes, since: float) -> None:
    try:
        answer = await connection.ask(request)
        load.took(answer.status, time.perf_counter() - since)
    except (OSError, EOFError) as error:
        load.statuses[type(error).__name__] += 1
        connection.close()
