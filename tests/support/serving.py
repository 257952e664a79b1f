"""A server's application asked without a socket, and a process of `trivec serve` asked over raw ones."""

import asyncio
import base64
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

import httpx2
import numpy as np
import numpy.typing as npt

import trivec
from trivec._encoders.calls import Ready
from trivec._tokens.batch import Tokens
from trivec._vectors.heads import HybridVectors
from trivec.server import App

Floats = npt.NDArray[np.float32]
ROOT = Path(__file__).resolve().parents[2]
SOON = 120.0  # seconds that stand for ever


class WordScorer:
    """A cross-encoder in the application's own interface: the logit of a pair is how many words both have, less one."""

    heads = ("score",)
    name, device, precision = "words", "cpu", "fp32"
    fingerprint = "ab" * 32
    max_seq_length: int | None = 16

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.labels = labels
        self.sides: list[str | None] = []
        self._words: dict[str, int] = {}

    def read_pairs(self, pairs: Sequence[tuple[str, str]], *, side: str | None = None) -> Ready:
        self.sides.append(side)
        rows, cut = [], []
        for pair in pairs:
            a, b = ([self._words.setdefault(w, len(self._words) + 1) for w in text.split()] for text in pair)
            rows.append([*a[:7], 0, *b[:8]])
            cut.append(len(a) > 7 or len(b) > 8)
        tokens = Tokens.of_ids(rows)
        return Ready([b for _, b in pairs], tokens._replace(truncated=np.array(cut, dtype=np.bool_)), None)

    def run_rows(self, tokens: Tokens, _: object, /) -> tuple[HybridVectors, npt.NDArray[np.bool_]]:
        poison = self._words.get("poison")
        logits, finite = [], []
        for row in range(len(tokens.truncated)):
            ids = tokens.of(row).tolist()
            middle = ids.index(0)
            common = float(len(set(ids[:middle]) & set(ids[middle + 1 :])) - 1)
            logits.append([common, *(-common for _ in self.labels[1:])])
            finite.append(poison not in ids)
        return HybridVectors(np.array(logits, dtype=np.float32)), np.array(finite)

    def close(self) -> None:
        pass


class Client:
    """Asks an application, as ASGI has it."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.headers: dict[str, str] = {}

    def ask(self, method: str, path: str, content: bytes | None = None, **headers: str) -> httpx2.Response:
        async def asked() -> httpx2.Response:
            transport = httpx2.ASGITransport(app=self.app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.request(method, path, content=content, headers={**self.headers, **named})

        return asyncio.run(asked())

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return self.ask("GET", path, None, **headers)

    def post(self, path: str, body: object, **headers: str) -> httpx2.Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, data, **{"content_type": "application/json", **headers})

    def json(self, path: str, body: object) -> Any:
        answer = self.post(path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def error(self, path: str, body: object) -> tuple[int, str, str | None]:
        """Status, code and field of OpenAI's shape."""
        answer = self.post(path, body)
        found = answer.json()["error"]
        assert found["message"]
        return answer.status_code, found["code"], found["param"]

    def close(self) -> None:
        self.app.close(encoders=True)


def unpacked(text: str) -> Floats:
    """A vector from base64."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


def numbers(values: object) -> Floats:
    """A vector from JSON's numbers."""
    return np.array(values, dtype=np.float64).astype(np.float32)


class ServeProcess:
    """`trivec serve` as a process of its own."""

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        ready: bool = True,
        command: Sequence[str] = ("-m", "trivec", "serve", "--port", "0", "--threads", "1"),
    ) -> None:
        roots = os.pathsep.join(map(str, (Path(trivec.__file__).parents[1], ROOT)))
        self.process = subprocess.Popen(
            [sys.executable, *command, *arguments],
            env={**os.environ, "PYTHONPATH": roots, **(environment or {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._said: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)  # a pipe that nobody reads holds the server up
        self._reader.start()
        self.port = int(self.wait_for(r"listening on http://\S+:(\d+)")[1])
        if ready:
            self.wait_for(r"ready: ")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """A line of the log."""
        while (line := self._said.get(timeout=SOON)) is not None:
            found = re.search(pattern, line)
            if found:
                return found
        raise AssertionError("".join(self.lines))

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            self._said.put(line)
        self._said.put(None)

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=SOON)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def raw(self, data: bytes) -> bytes:
        """What comes back until the server closes."""
        with closing(self.connect()) as connection:
            connection.sendall(data)
            return until_closed(connection)

    def post(self, path: str, body: object, **headers: str) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON of an answer."""
        return parsed(self.raw(request(path, body, Connection="close", **headers)))

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit status after a signal."""
        self.process.send_signal(number)
        return self.status()

    def status(self) -> int:
        status = self.process.wait(timeout=SOON)
        self._reader.join(SOON)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.status()
        assert self.process.stderr is not None
        self.process.stderr.close()


def request(path: str, body: object, **headers: str) -> bytes:
    """The bytes of a POST."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": str(len(data)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + data


def until_closed(connection: socket.socket) -> bytes:
    found = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            found += piece
    return found


def one_answer(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """One answer of a connection that stays open."""
    found = b""
    while b"\r\n\r\n" not in found:
        piece = connection.recv(65536)
        assert piece, found
        found += piece
    head, _, body = found.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
    while len(body) < length:
        body += connection.recv(65536)
    return parsed(head + b"\r\n\r\n" + body)


def parsed(data: bytes) -> tuple[int, dict[str, str], Any]:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    found = json.loads(body) if body and headers.get("content-type") == "application/json" else body
    return int(first.split()[1]), headers, found
