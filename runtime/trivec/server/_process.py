"""A process that serves: it listens at once, loads its models, drains on SIGTERM."""

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from uvicorn.config import Config
from uvicorn.server import ServerState

from trivec.server._app import App
from trivec.server._errors import REJECTED, ApiError
from trivec.server._protocol import Protocol

_LOG = logging.getLogger("trivec.server")
_GRACE = 0.2  # seconds in which a request that was under way on an idle connection still gets its 503
_SPARE = 1.0  # seconds after an answer in which a client is left its connection, though others wait for one
_LAST = 5.0  # seconds for what is left when the time of a drain is over


class PortTakenError(Exception):
    """Somebody listens there already."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        PortTakenError: somebody else does.
        OSError: the address is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(f"port {port} of {host} is taken. Choose another: --port 0 picks one.") from error
        raise
    listener.setblocking(False)
    return listener


class Process:
    """An application on a socket."""

    def __init__(self, app: App, listener: socket.socket, load: Callable[[], None]) -> None:
        """Serve an application.

        Args:
            app: whose models are still to be opened.
            listener: of `listen`.
            load: opens them, in a thread of its own; what it raises ends the process.
        """
        self.app, self._listener, self._load = app, listener, load
        settings = app.settings
        self._config = Config(
            app, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
            timeout_keep_alive=settings.keep_alive,  # type: ignore[arg-type]
        )  # fmt: skip
        self._config.load()
        self._server = ServerState()
        self._failure: BaseException | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._accepts = False
        app.metrics.connections.set_function(lambda: len(self._server.connections))

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, and drain.

        Raises:
            BaseException: what `load` raised.
        """
        for name in ("uvicorn.error", "asyncio"):  # else lines of no format, such as of each client that hangs up
            logging.getLogger(name).setLevel(logging.ERROR)
        asyncio.run(self._run())
        if self._failure is not None:
            raise self._failure
        if self._loader.is_alive():  # inside onnxruntime, perhaps: it would take the interpreter's end down with it
            _leave(0)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self._stop, self._freed = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        self._accept()
        self._loader = threading.Thread(target=self._open, args=(loop,), name="trivec-loader", daemon=True)
        self._loader.start()
        await self._stop.wait()
        await self._drain()

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loader's thread."""
        try:
            self._load()
        except BaseException as error:  # noqa: BLE001 - told when the process ends
            self._failure = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self._opened)

    def _opened(self) -> None:
        if self._failure is not None:
            self._stop.set()
        elif not self._stop.is_set():
            self.app.begin()
            notify("READY=1")
            _LOG.info("ready: %s", ", ".join(self.app.registry.names()))

    def _signalled(self, number: int) -> None:
        """The first signal drains; the second ends the process."""
        if self._stop.is_set():
            _leave(128 + number)
        _LOG.info("%s: draining", signal.Signals(number).name)
        self._stop.set()

    # ---- connections -------------------------------------------------------------------------------------------------

    def _accept(self, accepts: bool = True) -> None:
        """Begin to take connections, or stop."""
        loop = asyncio.get_running_loop()
        self._accepts = accepts
        if accepts:
            loop.add_reader(self._listener, self._take)
        else:
            loop.remove_reader(self._listener)

    def _take(self, most: int | None = None) -> None:
        """Take those who wait, up to the limit of connections; more wait in the kernel's queue until there is room."""
        limit = self.app.settings.max_connections if most is None else most
        loop = asyncio.get_running_loop()
        if len(self._server.connections) + len(self._connecting) >= limit:
            loop.remove_reader(self._listener)
            self._make_room()
            return
        while len(self._server.connections) + len(self._connecting) < limit:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # out of descriptors, say
                _LOG.error("cannot accept: %s", error.strerror)
                loop.remove_reader(self._listener)
                loop.call_later(0.1, self._lost)
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else a kept connection waits 40 ms
            task = loop.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _make_room(self) -> None:
        """Somebody waits: end the connection that has been kept longest without a request.

        One that was used a moment ago may have its next request under way, which would be lost: the client of a request
        that is still to be answered is told instead that its connection ends with the answer.
        """
        connections = self._connections()
        spare = max(connections, key=lambda connection: connection.spare_seconds, default=None)
        if spare is not None and spare.spare_seconds >= _SPARE:
            spare.shutdown()
            return
        ending = next((connection for connection in connections if connection.may_end), None)
        if ending is not None:
            ending.shutdown()
        asyncio.get_running_loop().call_later(_SPARE, self._lost)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        except OSError:  # gone already
            connection.close()

    def _protocol(self) -> Protocol:
        return Protocol(self._config, self._server, self.app.settings.header_timeout, self._lost, self._count_refusal)

    def _lost(self) -> None:
        self._freed.set()
        if self._accepts:
            self._accept()

    def _count_refusal(self, code: str) -> None:
        if code in REJECTED:
            self.app.metrics.rejected.labels(REJECTED[code]).inc()

    def _connections(self) -> list[Protocol]:
        return [connection for connection in self._server.connections if isinstance(connection, Protocol)]

    # ---- the end -----------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Finish what was let in, refuse the rest, close everything."""
        settings = self.app.settings
        self.app.state = "draining"
        notify("STOPPING=1")
        if self._failure is None:
            await asyncio.sleep(settings.drain_delay)
        self.app.refuses = True
        self._accept(False)
        self._take(most=sys.maxsize)  # who connected already is answered: a socket that is closed resets the others
        self._listener.close()
        await asyncio.gather(*self._connecting)
        for connection in self._connections():
            if not connection.is_idle:
                connection.drain()
        await self._emptied(_GRACE)
        for connection in self._connections():
            connection.drain()
        if not await self._emptied(settings.drain_timeout):
            self.app.work.give_up(ApiError("draining", "The server is being stopped. Ask again.", retry_after=1))
            await self._emptied(_LAST)
        for connection in self._connections():
            connection.transport.abort()
        closing = threading.Thread(target=self.app.close, kwargs={"encoders": True}, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, _LAST)
        if closing.is_alive():
            _LOG.error("a window does not end: leaving it")
            _leave(0)
        _LOG.info("drained")

    async def _emptied(self, seconds: float) -> bool:
        """Wait until all connections are closed; False: they are not, after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._server.connections:
                    self._freed.clear()
                    await self._freed.wait()
        return not self._server.connections


def notify(state: str) -> None:
    """Tell systemd, where it started this process."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.connect("\0" + address[1:] if address.startswith("@") else address)
        told.send(state.encode())


def _leave(status: int) -> None:
    """End the process at once."""
    logging.shutdown()
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)
