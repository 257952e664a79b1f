"""The application: routes, what every request goes through, and the states of a server's life."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Literal

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from trivec._concurrency.turn import Turn
from trivec._concurrency.window import DeadlineError
from trivec.server._errors import REJECTED, ApiError, DisconnectedError
from trivec.server._exchange import Exchange, Reply
from trivec.server._guard import check_host, check_key, check_origin, cors_headers, preflight_headers
from trivec.server._log import log_request
from trivec.server._metrics import Metrics
from trivec.server._models import Model
from trivec.server._openai import OpenAI
from trivec.server._openapi import schema
from trivec.server._page import headers, page
from trivec.server._registry import Registry
from trivec.server._rerank import Rerankers
from trivec.server._routes import NOT_SERVED, OPEN, TEI_PATHS, handlers
from trivec.server._settings import Settings
from trivec.server._tei import TEI
from trivec.server._work import Observed, Work

Handler = Callable[[Exchange], Awaitable[Reply]]
State = Literal["loading", "ready", "draining", "closed"]
_LOG = logging.getLogger("trivec.server")


class App:
    """An ASGI application that serves models."""

    def __init__(self, models: Mapping[str, Model], aliases: Mapping[str, str], settings: Settings) -> None:
        self.settings = settings
        self.registry = Registry(models, aliases)
        self.state: State = "loading"
        self.refuses = False
        """Whether new requests are turned away, since the server drains."""
        self._turns: dict[str, Turn] = {}
        self._told: dict[str, float] = {}
        table = handlers()
        called = {of: path for path, _, of in reversed(table)}  # for the metrics, by the first path of each
        counted = sorted({path for path in called.values() if path not in OPEN})
        self.metrics = Metrics(list(models.values()), counted)
        self.work = Work(self.metrics)
        openai, rerankers = OpenAI(self.registry, self.work), Rerankers(self.registry, self.work)
        tei = TEI(self.registry, self.work, rerankers)
        named = {"openai": openai, "rerankers": rerankers, "tei": tei, "app": self}
        routes = [
            Route(path, _Endpoint(called[of, name], getattr(named[of], name)), methods=[method])
            for path, method, (of, name) in table
        ]
        self._router = Router(routes, redirect_slashes=False, default=_not_found)

    # ---- its life ----------------------------------------------------------------------------------------------------

    def open(self, name: str, encoder: Any) -> None:  # noqa: ANN401 - an encoder or a Scorer
        """Have a model serve an encoder.

        Raises:
            InputError: windows that its longest text does not fit in.
        """
        turn = self._turns.setdefault(getattr(encoder, "device", ""), Turn())
        self.registry.models[name].open(encoder, Observed(self.work, name), turn)

    def begin(self) -> None:
        """All models are open and warm."""
        if self.state == "loading":
            self.state = "ready"

    def close(self, *, encoders: bool) -> None:
        """Run what waits, and end the threads; the encoders too, if they are this app's own."""
        self.state = "closed"
        self.work.close()
        for model in self.registry.models.values():
            if model.queue is not None:
                model.queue.close()
                if encoders:
                    model.encoder.close()

    # ---- a request ---------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        root = self.settings.root_path
        if root and scope["path"].startswith(f"{root}/"):
            scope = {**scope, "root_path": root}
        exchange = Exchange(scope, receive, send, self.settings)
        exchange.closes = self.state == "draining"
        exchange.tei = exchange.path in TEI_PATHS and exchange.method == "POST"
        self.metrics.in_flight.inc()
        status = 499
        try:
            reply = await self._replied(exchange)
            status = reply.status
            await exchange.reply(reply)
        except (DisconnectedError, asyncio.CancelledError, TimeoutError) as error:
            status = 499
            self.metrics.rejected.labels("disconnected").inc()
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._finish(exchange, status)

    async def _replied(self, exchange: Exchange) -> Reply:
        """The answer, or what is said of its failure."""
        origin = None
        try:
            origin = self._admitted(exchange)
            if origin is not None and exchange.method == "OPTIONS":
                return Reply([], 204, headers=[*cors_headers(origin), *preflight_headers()])
            exchange.scope.update(app=self, exchange=exchange)
            await self._router(exchange.scope, exchange.receive, exchange.send)
            reply: Reply = exchange.scope["reply"]
        except DisconnectedError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            reply = self._failed(exchange, error)
        reply.headers += cors_headers(origin)
        return reply

    def _admitted(self, exchange: Exchange) -> str | None:
        """Raise where a request is not let in; the origin of the page that asks."""
        headers, path, method = exchange.headers, exchange.path, exchange.method
        if path in OPEN and method in ("GET", "HEAD"):
            return None
        check_host(headers, self.settings)
        origin = check_origin(headers, self.settings)
        free = (path == "/" and method == "GET") or method == "OPTIONS"
        if not free and not (path == "/metrics" and self.settings.open_metrics):
            exchange.facts.key_name = check_key(headers, self.settings.keys)
        if method in ("GET", "HEAD") and (headers.get("content-length", "0") != "0" or "transfer-encoding" in headers):
            exchange.closes = True
            raise ApiError("bad_value", f"A {method} has no body. Send it by POST.")
        if self.refuses:
            exchange.closes = True
            raise ApiError("draining", "The server is being stopped. Ask again.", retry_after=1)
        return origin

    def _failed(self, exchange: Exchange, error: Exception) -> Reply:
        """What is said of a failure; what nobody expected goes into the log, and not into the answer."""
        found = _as_api_error(error, exchange)
        if found is None:
            self._tell_once(exchange, error)
            found = ApiError(
                "internal_error", f"Something went wrong here. The log has it under {exchange.request_id}."
            )
        if found.code in REJECTED:
            self.metrics.rejected.labels(REJECTED[found.code]).inc()
        return Reply.of(found.body(exchange.tei), found.status(exchange.tei), found.extra_headers())

    def _tell_once(self, exchange: Exchange, error: Exception) -> None:
        """The traceback in the log, of each kind once a minute: without the message, which may quote a text."""
        now, kind = time.monotonic(), type(error).__name__
        _LOG.error("%s in request %s", kind, exchange.request_id)
        if now - self._told.get(kind, -60.0) >= 60.0:
            self._told[kind] = now
            frames = []
            trace = error.__traceback__
            while trace is not None:
                frames.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno} {trace.tb_frame.f_code.co_name}")
                trace = trace.tb_next
            _LOG.error("%s came from:\n  %s", kind, "\n  ".join(frames))

    def _finish(self, exchange: Exchange, status: int) -> None:
        self.metrics.in_flight.dec()
        seconds = time.perf_counter() - exchange.started
        if exchange.ignored is not None:
            self.metrics.ignored.inc()
            _LOG.debug("request %s has a field that nobody knows: %r", exchange.request_id, exchange.ignored)
        if exchange.route not in OPEN:  # probes are no requests
            self.metrics.answered(exchange.route, exchange.facts.model, status, seconds)
        log_request(exchange, status, seconds)

    # ---- what it says of itself --------------------------------------------------------------------------------------

    def is_stuck(self) -> bool:
        """Whether a model's thread is dead, or its window takes far too long."""
        return any(model.queue is not None and model.queue.is_stuck() for model in self.registry.models.values())

    async def ready(self, exchange: Exchange) -> Reply:  # noqa: ARG002
        """GET /health: whether requests should come here."""
        if self.state == "ready" and not self.is_stuck():
            return Reply([b""], media="text/plain")
        return Reply.of({"status": "stuck" if self.state == "ready" else self.state}, 503, [("retry-after", "1")])

    async def live(self, exchange: Exchange) -> Reply:  # noqa: ARG002
        """GET /health/live: whether the process should go on."""
        return Reply.of({"status": "stuck"}, 500) if self.is_stuck() else Reply([b""], media="text/plain")

    async def exposition(self, exchange: Exchange) -> Reply:  # noqa: ARG002
        """GET /metrics."""
        text = await self.work.in_thread(self.metrics.text)
        return Reply([text], media="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, exchange: Exchange) -> Reply:  # noqa: ARG002
        """GET /openapi.json."""
        return Reply.of(schema())

    async def page(self, exchange: Exchange) -> Reply:
        """GET /: the page, or nothing, as of TEI."""
        if not self.settings.ui:
            return await self.ready(exchange)
        text = page(wants_key=bool(self.settings.keys))
        return Reply([text], media="text/html; charset=utf-8", headers=list(headers()))


class _Endpoint:
    """A handler as an ASGI application, without Starlette's Request and Response: they cost more than the work."""

    def __init__(self, path: str, handler: Handler) -> None:
        self._path, self._handler = path, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        exchange: Exchange = scope["exchange"]
        exchange.route = self._path
        app: App = scope["app"]
        if (
            app.state == "loading"
            and exchange.path not in OPEN
            and self._path not in ("/metrics", "/", "/openapi.json")
        ):
            raise ApiError("loading", "The models are loading. Ask again.", retry_after=1)
        scope["reply"] = await self._handler(exchange)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    exchange: Exchange = scope["exchange"]
    way = NOT_SERVED.get(exchange.path, "GET /openapi.json lists the routes.")
    raise ApiError("not_found", f"There is no {exchange.path[:100]!r} here. {way}")


def _as_api_error(error: Exception, exchange: Exchange) -> ApiError | None:
    """What of a failure can be said; None: nothing."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, DeadlineError):
        seconds = exchange.settings.timeout
        return ApiError("timeout", f"There was no answer within {seconds:g} s (--timeout). Ask again.", retry_after=1)
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return ApiError(
            "method_not_allowed",
            f"{exchange.path!r} takes {allowed}, not {exchange.method}.",
            headers=(("allow", allowed),),
        )
    return None


async def _lifespan(receive: Receive, send: Send) -> None:
    with suppress(asyncio.CancelledError):
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
