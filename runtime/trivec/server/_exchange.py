"""One request and its answer, as ASGI has them: headers, the body within its limits, what is logged."""

import asyncio
import itertools
import re
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from trivec.server._bodies import parse
from trivec.server._errors import ApiError, DisconnectedError
from trivec.server._settings import Settings
from trivec.server._write import dumps

Body = TypeVar("Body", bound=msgspec.Struct)
_LINGER = 1.0  # seconds
_SMALL = 32 << 10  # bytes that the transport takes at once
_PROCESS, _NUMBERS = uuid.uuid4().hex[:20], itertools.count(1)
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass
class Reply:
    """An answer."""

    body: list[bytes]
    status: int = 200
    media: str = "application/json"
    headers: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, value: object, status: int = 200, headers: list[tuple[str, str]] | None = None) -> "Reply":
        """JSON."""
        return cls([dumps(value)], status, headers=headers or [])


@dataclass
class Facts:
    """What is told of a request, in the log and in its headers. Never a text, vector, key or header."""

    model: str = "-"
    texts: int = 0
    characters: int = 0
    tokens: int = 0
    truncated: int = 0
    key_name: str = "-"
    read_bytes: int = 0
    written_bytes: int = 0
    tokenize_seconds: float = 0.0
    queue_seconds: float = 0.0
    run_seconds: float = 0.0
    fingerprint: str = ""


class Exchange:
    """A request that is being answered."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: Settings) -> None:
        self.scope, self.receive, self.send, self.settings = scope, receive, send, settings
        self.started = time.perf_counter()
        self.facts = Facts()
        self.headers: dict[str, str] = {}
        """By their names in lower case; of several the first."""
        for name, value in scope["headers"]:
            self.headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        given = self.headers.get("x-request-id", "")
        self.request_id = given if _ID.fullmatch(given) else f"{_PROCESS}{next(_NUMBERS):012x}"
        """The client's, if it is a plain word, else a new one."""
        self.tei = False
        """Whether errors are said in TEI's words."""
        self.route = "-"
        self.ignored: str | None = None
        """A field of the body that nobody knows."""
        self.closes = False
        """Whether the connection ends with this answer."""
        self._unread = False
        """Whether the client still sends what nobody wants."""

    @property
    def method(self) -> str:
        """GET, POST, ..."""
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """Without what the server is mounted at."""
        root, path = self.scope.get("root_path", ""), str(self.scope["path"])
        return path.removeprefix(root) or "/" if root else path

    # ---- the body ----------------------------------------------------------------------------------------------------

    async def parsed(self, kind: type[Body]) -> Body:
        """The JSON of the body.

        Raises:
            ApiError: it is too large, too slow, packed, of another type, no JSON, or its fields are others.
        """
        return self.read(await self.body(), kind)

    def read(self, data: bytes, kind: type[Body]) -> Body:
        """JSON that is here already."""
        found = parse(data, kind)
        self.ignored = found.ignored
        return found.body

    async def body(self) -> bytes:
        """The bytes of a body that says it is JSON."""
        self._check_headers()
        limit = self.settings.max_body
        try:
            async with asyncio.timeout(self.settings.body_timeout):
                message = await self._next()
                if not message.get("more_body"):
                    data = message["body"]
                else:
                    chunks = [message["body"]]
                    size = len(chunks[0])
                    while message.get("more_body") and size <= limit:
                        message = await self._next()
                        chunks.append(message["body"])
                        size += len(chunks[-1])
                    data = b"".join(chunks)
        except TimeoutError:
            self.closes = True
            raise ApiError(
                "body_timeout", f"The body did not come within {self.settings.body_timeout:g} s (--body-timeout)."
            ) from None
        if len(data) > limit:
            raise self._too_large(f"more than {limit}")
        self.facts.read_bytes = len(data)
        return bytes(data)

    async def _next(self) -> Mapping[str, Any]:
        self._unread = True
        message = await self.receive()
        self._unread = bool(message.get("more_body"))
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        return message

    def _check_headers(self) -> None:
        headers = self.headers
        self._unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        if headers.get("content-encoding", "identity") != "identity":
            self.closes = True
            raise ApiError("unsupported_media_type", "The body is packed. Send it as it is, without Content-Encoding.")
        media = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            self.closes = True
            raise ApiError(
                "unsupported_media_type",
                f"The body is {media[:60] or 'of no type'!r}. Send JSON, with Content-Type: application/json.",
            )
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.settings.max_body:
            raise self._too_large(length)

    def _too_large(self, size: str) -> ApiError:
        self.closes = True
        limit = self.settings.max_body
        return ApiError("body_too_large", f"The body has {size} bytes, and --max-body is {limit}. Send fewer texts.")

    # ---- the answer --------------------------------------------------------------------------------------------------

    async def reply(self, reply: Reply) -> None:
        """Send an answer whole, with the headers of every answer."""
        size = sum(map(len, reply.body))
        self.facts.written_bytes = size
        headers = [
            ("content-type", reply.media),
            ("content-length", str(size)),
            ("server", "trivec"),
            ("x-request-id", self.request_id),
            *self._told(),
            *reply.headers,
        ]
        trace = self.headers.get("traceparent", "")
        if _TRACE.fullmatch(trace):
            headers.append(("traceparent", trace))
        if self.closes:
            headers.append(("connection", "close"))
        raw = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]
        await self.send({"type": "http.response.start", "status": reply.status, "headers": raw})
        body = [] if self.method == "HEAD" else reply.body
        last = body[-1] if body else b""
        if size < _SMALL and not self.closes:
            await self.send({"type": "http.response.body", "body": b"".join(body), "more_body": False})
            return
        async with asyncio.timeout(self.settings.timeout):  # for who does not read
            for piece in body[:-1]:
                await self.send({"type": "http.response.body", "body": piece, "more_body": True})
            if self.closes and self._unread:
                await self.send({"type": "http.response.body", "body": last, "more_body": True})
                await self._read_the_rest()
                last = b""
            await self.send({"type": "http.response.body", "body": last, "more_body": False})

    async def _read_the_rest(self) -> None:
        """Drop what a refused client still sends, for a while: else it may never see the answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while (await self.receive()).get("more_body"):
                    pass

    def _told(self) -> list[tuple[str, str]]:
        """What a model's work took, in TEI's headers, and whose vectors these are."""
        facts = self.facts
        if facts.model == "-":
            return []
        total = time.perf_counter() - self.started
        found = [
            ("x-trivec-model", facts.model),
            ("x-compute-characters", str(facts.characters)),
            ("x-compute-tokens", str(facts.tokens)),
        ]
        times = {
            "compute": total,
            "total": total,
            "tokenization": facts.tokenize_seconds,
            "queue": facts.queue_seconds,
            "inference": facts.run_seconds,
        }
        found += [(f"x-{name}-time", str(round(seconds * 1000))) for name, seconds in times.items()]
        if facts.fingerprint:
            found.append(("x-trivec-fingerprint", facts.fingerprint))
        if facts.truncated:
            found.append(("x-trivec-truncated", str(facts.truncated)))
        return found
