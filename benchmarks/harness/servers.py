"""Servers as processes: ours, infinity, and what people write around a library themselves."""

import asyncio
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from benchmarks.harness.load import Answer, Connection, get

_READY = 180.0  # seconds


class Server:
    """A process that serves on a port of its own; leave it with `with`.

    Attributes:
        url: where.
        live: seconds from its start to the first answer of any kind.
        ready: seconds from its start to 200 of the path that says so.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, ready: str = "/health", live: str = "/health"
    ) -> None:
        """Start it; `{port}` in the command is the port.

        Raises:
            RuntimeError: it ended, or was not ready in time; with what it said last.
        """
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [word.replace("{port}", str(port)) for word in command],
            env={**os.environ, **environment},
            stdout=self._said,
            stderr=self._said,
        )
        self.live = self._wait(live, start, any_status=True)
        self.ready = self._wait(ready, start)

    def _wait(self, path: str, start: float, *, any_status: bool = False) -> float:
        while time.perf_counter() - start < _READY:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}: {self.said()[-500:]}")
            try:
                status = asyncio.run(self._ask(get(path))).status
            except (OSError, EOFError):
                status = 0
            if status == 200 or (any_status and status):
                return time.perf_counter() - start
            time.sleep(0.005)
        self.process.kill()
        raise RuntimeError(f"the server was not ready after {_READY:g} s: {self.said()[-500:]}")

    async def _ask(self, request: bytes) -> Answer:
        async with Connection(self.url) as connection:
            return await connection.ask(request)

    def ask(self, request: bytes) -> Answer:
        """One request on a connection of its own."""
        return asyncio.run(self._ask(request))

    def said(self) -> str:
        """Its output so far."""
        self._said.seek(0)
        return self._said.read().decode("utf-8", "replace")

    def metrics(self) -> dict[str, float]:
        """Sums of Prometheus' samples, by name."""
        found: dict[str, float] = {}
        for line in self.ask(get("/metrics")).body.decode().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                key = name.partition("{")[0]
                found[key] = found.get(key, 0.0) + float(value)
        return found

    def memory(self) -> float:
        """Megabytes that it and its children hold."""
        return sum(_status(pid, "VmRSS:") for pid in self._family()) / 1024

    def cpu(self) -> float:
        """Seconds of CPU time so far, of it and its children."""
        ticks = 0
        for pid in self._family():
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def files(self) -> int:
        """Open file descriptors."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def _family(self) -> list[int]:
        found = [self.process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                found += [int(child) for child in task.read_text(encoding="ascii").split()]
        return found

    def stop(self, number: int = signal.SIGTERM, timeout: float = 60) -> int:
        """Send a signal; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._said.close()


def _status(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def plain(engine: str, options: Mapping[str, Any], port: int) -> None:
    """What people write themselves: a library's `encode` behind starlette, a call in a thread for each request.

    Run as `python -m benchmarks.harness.servers ENGINE OPTIONS PORT` in an environment that has the library.

    Args:
        engine: of benchmarks/harness/engines.py.
        options: its own.
        port: of this machine.
    """
    from benchmarks.harness.engines import ENGINES

    concurrency, responses = (importlib.import_module(f"starlette.{name}") for name in ("concurrency", "responses"))
    routing = importlib.import_module("starlette.routing")
    opened = ENGINES[engine](options)

    def encode(texts: list[str]) -> Any:  # noqa: ANN401 - an array (N, D)
        return opened.arrays(opened.many(texts, 32))["dense"]

    async def embeddings(request: Any) -> Any:  # noqa: ANN401 - starlette's
        asked = json.loads(await request.body())
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        vectors = await concurrency.run_in_threadpool(encode, texts)
        data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(vectors.tolist())]
        return responses.JSONResponse({"object": "list", "data": data, "model": "plain", "usage": {"total_tokens": 0}})

    async def health(_: object) -> Any:  # noqa: ANN401
        return responses.PlainTextResponse("")

    routes = [routing.Route("/v1/embeddings", embeddings, methods=["POST"]), routing.Route("/health", health)]
    application = importlib.import_module("starlette.applications").Starlette(routes=routes)
    importlib.import_module("uvicorn").run(
        application, host="127.0.0.1", port=port, log_level="warning", access_log=False
    )


if __name__ == "__main__":
    plain(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
