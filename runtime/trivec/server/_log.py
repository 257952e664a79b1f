"""The log: one line a request, as text or JSON. Never a text, a vector, a key or a header."""

import json
import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trivec.server._exchange import Exchange

REQUESTS = logging.getLogger("trivec.server.requests")


def log_request(exchange: "Exchange", status: int, seconds: float) -> None:
    """One line; who asked is told at DEBUG, and so are probes."""
    level = logging.DEBUG if exchange.route.startswith("/health") else logging.INFO
    if not REQUESTS.isEnabledFor(level):
        return
    facts = exchange.facts
    fields: dict[str, Any] = {
        "id": exchange.request_id,
        "route": exchange.route,
        "model": facts.model,
        "status": status,
        "texts": facts.texts,
        "tokens": facts.tokens,
        "truncated": facts.truncated,
        "queue_ms": round(facts.queue_seconds * 1000, 1),
        "tokenize_ms": round(facts.tokenize_seconds * 1000, 1),
        "run_ms": round(facts.run_seconds * 1000, 1),
        "total_ms": round(seconds * 1000, 1),
        "key": facts.key_name,
        "in": facts.read_bytes,
        "out": facts.written_bytes,
    }
    if REQUESTS.isEnabledFor(logging.DEBUG):
        fields["client"] = (exchange.scope.get("client") or ("-",))[0]
    REQUESTS.log(level, " ".join(f"{name}={value}" for name, value in fields.items()), extra={"fields": fields})


class JsonFormatter(logging.Formatter):
    """A line of JSON for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """As of logging."""
        fields = getattr(record, "fields", None)
        said = fields if fields is not None else {"message": record.getMessage()}
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        return json.dumps({"time": moment, "level": record.levelname, **said})
