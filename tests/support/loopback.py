"""A server on this machine that stands for every hosted service: it answers in their shapes, or as a test tells it.

Vectors are made from the texts, so that rows in another order, or of another text, show.
"""

import base64
import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
KEY = "sk-loopback-0123456789abcdef"
PATHS = {"openai": "/v1", "voyage": "/v1", "jina": "/v1"}
"""What a service's base_url ends with."""
PROVIDERS = ("openai", "voyage", "cohere", "mistral", "jina", "nomic", "gemini", "tei")
_DIMENSIONS = ("dimensions", "output_dimension", "dimensionality")


def vector(text: str, dim: int = 8) -> Floats:
    """The vector (dim,) of a text: of length 1, from its hash."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    found = np.random.default_rng(seed).standard_normal(dim).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found), dtype=np.float32)


def vectors(texts: Sequence[str], dim: int = 8) -> Floats:
    """(N, dim)."""
    return np.stack([vector(text, dim) for text in texts]) if texts else np.zeros((0, dim), dtype=np.float32)


def relevance(query: str, document: str) -> float:
    """What a reranker says: from the hash of both."""
    return int.from_bytes(hashlib.sha256(f"{query}\n{document}".encode()).digest()[:3], "big") / 2**24


@dataclass
class Reply:
    """What the server does with one request, where it is not to give the right answer."""

    status: int = 200
    body: Any = None
    """JSON, or bytes as they are; None: the right answer, changed."""
    change: Callable[[Any], Any] = lambda found: found
    """Of the right answer's JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before the answer."""
    cut: bool = False
    """Close the connection in the middle of the body."""
    endless: bool = False
    """Send the body (bytes) again and again, until nobody reads any more."""


class Asked(NamedTuple):
    """A request."""

    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def texts(self) -> list[str]:
        return texts_of(self.path, self.body)


class Loopback:
    """The server; leave it with `with`.

    Attributes:
        replies: for the next requests, one each; None: the right answer. Further ones have the right answer.
        refuse: looks at each request's texts, and may reply in its own way.
        asked: every request, in order.
        sent: bytes of endless answers.
        most_at_once: requests that were open at the same time, at most; `most_sockets` connections.
    """

    def __init__(self, *, dim: int = 8, delay: float = 0.0) -> None:
        self.dim, self.delay = dim, delay
        self.replies: deque[Reply | None] = deque()
        self.refuse: Callable[[list[str]], Reply | None] = lambda _: None
        self.asked: list[Asked] = []
        self.sent = 0
        self.most_at_once = self.most_sockets = self._at_once = self._sockets = 0
        self.lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def base(self, provider: str) -> str:
        """What a provider's base_url is here."""
        return f"{self.url}{PATHS.get(provider, '')}"

    @property
    def texts(self) -> list[str]:
        """Of all requests, in order."""
        return [text for asked in self.asked for text in asked.texts]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reply_to(self, asked: Asked) -> Reply | None:
        with self.lock:
            self.asked.append(asked)
            if self.replies:
                return self.replies.popleft()
        return self.refuse(asked.texts)

    def right_answer(self, asked: Asked) -> Any:
        return answer(asked.path, asked.body, self.dim)

    def busy(self, more: int) -> None:
        with self.lock:
            self._at_once += more
            self.most_at_once = max(self.most_at_once, self._at_once)

    def connected(self, more: int) -> None:
        with self.lock:
            self._sockets += more
            self.most_sockets = max(self.most_sockets, self._sockets)


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def __init__(self, loopback: Loopback) -> None:
        self.loopback = loopback
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self.server.loopback.connected(1)
        with suppress(ConnectionError):
            super().handle()
        self.server.loopback.connected(-1)

    def do_POST(self) -> None:
        loopback = self.server.loopback
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        loopback.busy(1)
        try:
            asked = Asked(self.path.partition("?")[0], {k.lower(): v for k, v in self.headers.items()}, json.loads(raw))
            reply = loopback.reply_to(asked) or Reply()
            time.sleep(reply.delay or loopback.delay)
            body = reply.body if reply.body is not None else reply.change(loopback.right_answer(asked))
        finally:
            loopback.busy(-1)
        self._send(reply, body if isinstance(body, bytes) else json.dumps(body).encode())

    def _send(self, reply: Reply, content: bytes) -> None:
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        if reply.endless:
            self._send_on(content)
            return
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if reply.cut else content)
        self.close_connection = self.close_connection or reply.cut

    def _send_on(self, content: bytes) -> None:
        self.close_connection = True
        self.end_headers()  # without a length: until the connection ends
        with suppress(ConnectionError):
            while self.server.loopback.sent < 64 << 20:  # a test that fails is to end
                self.wfile.write(content)
                self.server.loopback.sent += len(content)

    def log_message(self, *_: object) -> None:
        pass


# ---- the services' shapes --------------------------------------------------------------------------------------------


def texts_of(path: str, body: Any) -> list[str]:
    """The texts of a request."""
    if path.endswith("rerank"):
        return list(body.get("documents") or body.get("texts"))
    if path.endswith("batchEmbedContents"):
        return ["".join(part["text"] for part in each["content"]["parts"]) for each in body["requests"]]
    found = body["input"] if "input" in body else body["texts"]
    return [found] if isinstance(found, str) else list(found)


def answer(path: str, body: Any, dim: int) -> Any:
    """What the service gives for a request."""
    texts = texts_of(path, body)
    if path.endswith("rerank"):
        return _reranked(path, body, texts)
    if path.endswith("batchEmbedContents"):
        width = body["requests"][0].get("outputDimensionality", dim)
        return {"embeddings": [{"values": vector(text, width).tolist()} for text in texts]}
    width = next((body[name] for name in _DIMENSIONS if body.get(name)), dim)
    tokens = sum(len(text.split()) for text in texts)
    if path.endswith("/embed"):
        return _cohere(path, body, texts, width, tokens)
    if path.endswith("/embedding/text"):
        rows = [vector(text, width).tolist() for text in texts]
        return {"embeddings": rows, "usage": {"total_tokens": tokens}, "model": body["model"]}
    dtype = body.get("output_dtype") or body.get("embedding_type") or "float"
    packed = "base64" in (body.get("encoding_format"), dtype)
    rows = [as_asked(vector(text, width), "float" if dtype == "base64" else dtype, packed) for text in texts]
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    usage = {"total_tokens": tokens, "prompt_tokens": tokens}
    return {"object": "list", "data": data, "model": body.get("model", ""), "usage": usage, "id": "1"}


def as_asked(found: Floats, dtype: str, packed: bool = False) -> Any:
    """A vector as numbers of a type, or as base64 of them."""
    made: npt.NDArray[Any] = found
    if dtype in ("int8", "uint8"):
        made = (
            np.round(found * 127).astype(np.int8) if dtype == "int8" else np.round(found * 127 + 127).astype(np.uint8)
        )
    elif dtype != "float":
        bits = np.packbits(found > 0)
        made = bits if dtype == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    return base64.b64encode(made.tobytes()).decode() if packed else made.tolist()


def _cohere(path: str, body: Any, texts: list[str], width: int, tokens: int) -> Any:
    kinds = body.get("embedding_types") or ["float"]
    rows = {kind: [as_asked(vector(text, width), kind) for text in texts] for kind in kinds}
    meta = {"api_version": {"version": path[2]}, "billed_units": {"input_tokens": tokens}}
    found: dict[str, Any] = {"id": "1", "texts": texts, "meta": meta}
    if path.startswith("/v1") and not body.get("embedding_types"):
        return {**found, "response_type": "embeddings_floats", "embeddings": rows["float"]}
    return {**found, "response_type": "embeddings_by_type", "embeddings": rows}


def _reranked(path: str, body: Any, texts: list[str]) -> Any:
    scored = [(relevance(body["query"], text), index) for index, text in enumerate(texts)]
    best = sorted(scored, key=lambda pair: -pair[0])
    if path == "/rerank":  # TEI
        more = [{"text": text} if body.get("return_text") else {} for text in texts]
        return [{"index": index, "score": score, **more[index]} for score, index in best]
    best = best[: body.get("top_n") or body.get("top_k")]
    listed: list[Any] = [{"index": index, "relevance_score": score} for score, index in best]
    if path == "/v1/rerank" and "top_n" in body and body.get("return_documents", True):  # Jina
        listed = [{**each, "document": {"text": texts[each["index"]]}} for each in listed]
    if "top_n" not in body and path == "/v1/rerank" and "return_documents" not in body:
        return {"object": "list", "data": listed, "model": body["model"], "usage": {"total_tokens": 1}}
    return {"id": "1", "results": listed, "data": listed, "meta": {}, "usage": {"total_tokens": 1}}


# ---- a time of one's own ---------------------------------------------------------------------------------------------


class Time:
    """A clock that only waiting moves, for `Service.clock` and `Service.sleep`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
