"""The load generator against a server that counts, and a run of the benchmark on a tiny model."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from benchmarks import serve
from benchmarks.harness.load import Load, closed, opened, post

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Counted:
    """A server: how many requests it saw, and over how many connections; each third one is refused."""

    def __init__(self, delay: float = 0.0) -> None:
        self.requests = self.connections = self.together = self.most = 0
        self.delay = delay

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                assert json.loads(await reader.readexactly(length)) == {"a": 1}
                self.requests += 1
                status = "429 Too Many Requests" if self.requests % 3 == 0 else "200 OK"
                self.together += 1
                self.most = max(self.most, self.together)
                await asyncio.sleep(self.delay)
                self.together -= 1
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\nX-A:  b \r\n\r\n{{}}".encode())
        except (OSError, EOFError):
            pass
        finally:
            writer.close()


def run(server: Counted, work: Callable[[str], Awaitable[Load]]) -> Load:
    async def both() -> Load:
        listener = await asyncio.start_server(server, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with listener:
            return await work(f"http://127.0.0.1:{port}")

    return asyncio.run(both())


def test_a_closed_loop() -> None:
    server = Counted(0.005)
    load = run(server, lambda url: closed(url, [post("/", {"a": 1})], 4, 0.3))
    assert (server.connections, server.most) == (4, 4)
    assert sum(load.statuses.values()) == server.requests == len(load.latencies) + len(load.refusals)
    assert len(load.refusals) == server.requests // 3
    assert load.rate(2) == pytest.approx(2 * len(load.latencies) / load.seconds)
    assert load.ms(0) >= 5


def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    """One connection that takes 50 ms a request, asked 100 times a second: the last has waited for all before it."""
    server = Counted(0.05)
    load = run(server, lambda url: opened(url, [post("/", {"a": 1})], 100, 0.2, most=1))
    assert server.connections == 1
    assert server.requests > 5
    assert max(load.latencies + load.refusals) > 0.05 * server.requests - 0.25


def test_what_breaks_is_counted() -> None:
    async def slam(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def both() -> Load:
        listener = await asyncio.start_server(slam, "127.0.0.1", 0)
        async with listener:
            url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            return await closed(url, [post("/", {"a": 1})], 1, 0.05)

    load = asyncio.run(both())
    assert load.errors > 0
    assert load.rate() == 0
    assert load.ms(50) == float("inf")


def test_a_quick_run(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sys.argv",
        [
            "serve",
            str(tiny_folder),
            "--quick",
            "--only",
            "overhead,hangups,drain",
            "--threads",
            "1",
            "--out",
            str(tmp_path),
        ],
    )
    serve.main()
    records = [json.loads(line) for line in (tmp_path / "serve.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {record.get("what") or record.get("way"): record for record in records}
    assert found["HTTP less encode"]["us p50"] > 0
    assert found["share of their rows that ran"]["found"] <= 1
    assert found["exit status 0"]["found"] == 2
    assert found["resets and other errors"]["found"] == 0
