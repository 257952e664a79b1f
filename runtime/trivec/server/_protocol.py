"""HTTP on a socket: uvicorn's protocol, with deadlines and limits where it has none.

A silent connection, half a header and headers without end stay open there for ever; here they are refused in JSON.
"""

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from trivec.server._errors import ApiError
from trivec.server._write import dumps

HEADER_BYTES, HEADER_COUNT = 16 << 10, 100
_LINGER = 1.0  # seconds for which what a refused client still sends is read and dropped: else it may not see the answer


class Protocol(HttpToolsProtocol):
    """A connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        header_timeout: float,
        on_lost: Callable[[], None],
        refused: Callable[[str], None],
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state={})
        self._header_timeout, self._on_lost, self._refused = header_timeout, on_lost, refused
        self._timer: asyncio.TimerHandle | None = None
        self._size = 0
        self._reads_headers = True
        self._error: ApiError | None = None
        self._is_refused = False
        self._answered = 0.0

    # ---- its time ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As of asyncio; the first header has to follow."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._timer = self.loop.call_later(self._header_timeout, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """As of asyncio."""
        self._stop_timer()
        super().connection_lost(exc)
        self._on_lost()

    def _late(self) -> None:
        self._timer = None
        if self.transport.is_closing() or not (self.cycle is None or self.cycle.response_complete):
            return  # what follows a request may take until its answer is out
        if self._size:
            self.refuse(ApiError("body_timeout", f"The headers did not come within {self._header_timeout:g} s."))
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- what comes --------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """As of asyncio."""
        if self._is_refused or self.transport.is_closing():
            return
        if self._reads_headers:
            self._size = self._size or 1
            if self._timer is None:
                self._timer = self.loop.call_later(self._header_timeout, self._late)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Of the parser."""
        super().on_message_begin()
        self._size, self._reads_headers = 1, True

    def on_url(self, url: bytes) -> None:
        """Of the parser."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the parser."""
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)
        if len(self.headers) > HEADER_COUNT:
            self._fail(ApiError("headers_too_large", f"There are more than {HEADER_COUNT} headers."))

    def on_headers_complete(self) -> None:
        """Of the parser."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._fail(ApiError("bad_value", f"There are {hosts} Host headers; HTTP wants one."))
        self._stop_timer()
        self._size, self._reads_headers = 0, False
        second = int(time.time())
        if _Date.second != second:
            _Date.second, _Date.text = second, formatdate(second, usegmt=True).encode()
        self.server_state.default_headers = [(b"date", _Date.text)]
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Of the parser."""
        self._reads_headers = True
        super().on_message_complete()

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > HEADER_BYTES:
            self._fail(ApiError("headers_too_large", f"The headers have more than {HEADER_BYTES} bytes."))

    def _fail(self, error: ApiError) -> None:
        """Have the parser stop, which then calls `send_400_response`."""
        self._error = self._error or error
        raise error

    # ---- what is said ------------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """What the parser, or this class, does not take."""
        self.refuse(self._error or ApiError("bad_value", msg))

    def refuse(self, error: ApiError) -> None:
        """Answer with an error and close; of a request whose answer has begun already, close."""
        self._stop_timer()
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._refused(error.code)
        answers = self.cycle is not None and not self.cycle.response_complete and self.cycle.response_started
        if answers:
            self.transport.close()
            return
        body = dumps(error.body(tei=False))
        lines = [
            STATUS_LINE[error.status(tei=False)],
            b"content-type: application/json\r\nserver: trivec\r\nconnection: close\r\n",
            *(f"{name}: {value}\r\n".encode() for name, value in error.extra_headers()),
            b"content-length: %d\r\n\r\n" % len(body),
            body,
        ]
        self.transport.write(b"".join(lines))
        if self.cycle is not None:  # its request is over
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._timer = self.loop.call_later(_LINGER, self.transport.close)

    def eof_received(self) -> None:
        """As of asyncio: the client sends no more."""
        if self._is_refused:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Of a request's cycle."""
        self._answered = self.loop.time()
        super().on_response_complete()

    # ---- its end -----------------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether no request is being read or answered."""
        return self._size == 0 and (self.cycle is None or self.cycle.response_complete)

    @property
    def spare_seconds(self) -> float:
        """How long it has been kept for a next request; 0 before the first and during one."""
        return self.loop.time() - self._answered if self._answered and self.is_idle else 0.0

    @property
    def may_end(self) -> bool:
        """Whether a request is being answered whose headers can still say that the connection ends."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_started and cycle.keep_alive

    @property
    def is_half_read(self) -> bool:
        """Whether a request is being read: its headers or its body."""
        if self.cycle is not None and not self.cycle.response_complete:
            return bool(self.cycle.more_body) and not self.cycle.response_started
        return self._size > 0

    def drain(self) -> None:
        """The server is being stopped: close what is idle, refuse what is half read, let the rest finish."""
        if self.is_half_read:
            self.refuse(ApiError("draining", "The server is being stopped. Ask again.", retry_after=1))
        else:
            self.shutdown()


class _Date:
    """The Date of this second."""

    second = 0
    text = b""
