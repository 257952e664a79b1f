"""Requests that wait: let in or refused, given up, dropped; by an engine that a test holds."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.serving import SOON, numbers

import trivec
import trivec.server
from trivec.server import App


class Held:
    """An application whose model runs when the test says so; requests are asked as ASGI has it."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.encoder = trivec.load(folder, device="cpu", threads=1)
        self.app: App = trivec.server.app({"tiny": self.encoder}, **limits)
        self.queue = self.app.registry.models["tiny"].queue
        self.open, self.entered = threading.Event(), threading.Semaphore(0)
        self.runs: list[int] = []
        run_rows = self.encoder.run_rows

        def held(tokens: Any, call: Any) -> Any:
            self.runs.append(len(tokens.truncated))
            self.entered.release()
            assert self.open.wait(SOON)
            return run_rows(tokens, call)

        self.queue._engine = type("Engine", (), {"run_rows": staticmethod(held)})()
        self.run_here, self.queue.run_here = self.queue.run_here, lambda _: False  # else the loop itself would wait

    async def ask(self, texts: list[str], hung_up: asyncio.Event | None = None) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON; 0 where no answer came."""
        body = json.dumps({"input": texts, "normalize": False}).encode()
        headers = {"host": "localhost", "content-type": "application/json", "content-length": str(len(body))}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": raw, "client": ("127.0.0.1", 1)}
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await (hung_up or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        if not sent:
            return 0, {}, None
        told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], told, json.loads(b"".join(m["body"] for m in sent[1:]))

    async def until_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=SOON)

    async def until(self, what: Any) -> None:
        async with asyncio.timeout(SOON):
            while not what():
                await asyncio.sleep(0.001)

    def metric(self, name: str) -> float:
        lines = self.app.metrics.text().decode().splitlines()
        return float(next(line for line in lines if line.startswith(name)).rsplit(" ", 1)[1])


@pytest.fixture
def folder(folders: dict[str, Path]) -> Path:
    return folders["tiny"]


def test_many_requests_share_windows_and_get_their_own(folder: Path) -> None:
    held = Held(folder, max_batch_tokens=4096)

    async def scenario() -> list[Any]:
        first = asyncio.create_task(held.ask(["a"]))
        await held.until_entered()
        texts = [[f"{word} {number}", "cat"] for number in range(32) for word in ("dog", "cat")]
        rest = [asyncio.create_task(held.ask(each)) for each in texts]
        await held.until(lambda: held.queue.waiting_texts == 128)
        held.open.set()
        answers = await asyncio.gather(first, *rest)
        for each, (status, _, found) in zip([["a"], *texts], answers, strict=True):
            assert status == 200
            made = numbers([item["embedding"] for item in found["data"]])
            expected = held.encoder.encode(each)
            assert np.abs(made - expected).max() < 1e-6
        return answers

    asyncio.run(scenario())
    assert held.runs == [1, 3]  # a number is an unknown word to this model, and equal rows of a window run once
    held.app.close(encoders=True)


def test_a_server_that_is_busy_refuses_before_any_work(folder: Path) -> None:
    held = Held(folder, max_wait=0.5)
    held.queue._speed.add(1 << 30, (1 << 30) / 10)  # ten tokens a second

    async def scenario() -> None:
        first = asyncio.create_task(held.ask(["a cat"] * 3))
        await held.until_entered()
        status, headers, body = await held.ask(["a cat", "b", "c"])
        assert (status, body["error"]["code"], body["error"]["type"]) == (429, "overloaded", "rate_limit_error")
        assert int(headers["retry-after"]) >= 1
        held.open.set()
        assert (await first)[0] == 200
        assert (await held.ask(["a cat"]))[0] == 200  # nobody waits: nobody is refused

    asyncio.run(scenario())
    assert held.metric('trivec_rejected_total{reason="overloaded"}') == 1.0
    assert held.queue.seconds() == 0.0
    held.app.close(encoders=True)


def test_who_waited_too_long_gets_503_and_costs_no_run(folder: Path) -> None:
    held = Held(folder, timeout=0.2)

    async def scenario() -> None:
        first = asyncio.create_task(held.ask(["a"]))
        await held.until_entered()
        status, headers, body = await held.ask(["a cat"])
        assert (status, body["error"]["code"]) == (503, "timeout")
        assert headers["retry-after"] == "1"
        assert (await first)[0] == 503
        held.open.set()

    asyncio.run(scenario())
    held.queue.close()
    assert held.runs == [1]
    assert held.metric('trivec_rejected_total{reason="timeout"}') == 2.0
    held.app.close(encoders=True)


def test_texts_that_take_too_long_to_read_are_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(folder, timeout=0.2)
    model, go = held.app.registry.models["tiny"], threading.Event()
    monkeypatch.setattr(model, "read", lambda _: go.wait(SOON))
    status, _, body = asyncio.run(held.ask(["a cat"] * 17))
    go.set()
    assert (status, body["error"]["code"]) == (503, "timeout")
    assert held.runs == []
    assert held.queue.seconds() == 0.0
    held.app.close(encoders=True)


def test_who_hangs_up_costs_no_run(folder: Path) -> None:
    held = Held(folder, max_batch_tokens=16)

    async def scenario() -> None:
        first = asyncio.create_task(held.ask(["a"]))
        await held.until_entered()
        gone = asyncio.Event()
        leaves = asyncio.create_task(held.ask(["the cat sat on the mat"] + ["dog " * 9] * 5, gone))
        await held.until(lambda: held.queue.waiting_texts == 2)
        gone.set()
        assert (await leaves)[0] == 0
        assert held.queue.waiting_texts == 0
        held.open.set()
        assert (await first)[0] == 200
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())
    held.queue.close()
    assert held.runs == [1]
    assert held.metric('trivec_rejected_total{reason="disconnected"}') == 1.0
    assert not held.app.work._futures
    held.app.close(encoders=True)


def test_a_drain_that_takes_too_long_gives_up_what_waits(folder: Path) -> None:
    held = Held(folder)

    async def scenario() -> None:
        waits = asyncio.create_task(held.ask(["a"]))
        await held.until_entered()
        from trivec.server._errors import ApiError

        held.app.work.give_up(ApiError("draining", "now", retry_after=1))
        status, headers, body = await waits
        assert (status, body["error"]["code"], headers["retry-after"]) == (503, "draining", "1")
        held.open.set()

    asyncio.run(scenario())
    held.app.close(encoders=True)


def test_who_comes_in_the_same_moment_runs_together(folder: Path) -> None:
    held = Held(folder, max_batch_tokens=4096)
    held.open.set()
    held.queue.run_here = held.run_here
    threads: list[str] = []
    engine = held.queue._engine.run_rows

    def noted(tokens: Any, call: Any) -> Any:
        threads.append(threading.current_thread().name)
        return engine(tokens, call)

    held.queue._engine = type("Engine", (), {"run_rows": staticmethod(noted)})()

    async def scenario() -> None:
        assert (await held.ask(["a cat"]))[0] == 200  # alone: in the loop's own thread
        words = ["cat", "dog", "red", "hill", "mat", "boat", "tree", "bird"]
        answers = await asyncio.gather(*(held.ask([word]) for word in words))
        assert [status for status, _, _ in answers] == [200] * 8

    asyncio.run(scenario())
    assert threads[0] == "MainThread"
    assert set(threads[1:]) == {"trivec-rows"}
    assert sum(held.runs) == 9
    assert len(held.runs) <= 4
    held.app.close(encoders=True)


def test_large_answers_are_written_in_pieces(folder: Path) -> None:
    held = Held(folder)
    held.open.set()

    async def scenario() -> int:
        turns, done = 0, False

        async def other() -> None:
            nonlocal turns
            while not done:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        status, _, found = await held.ask(["a cat"] * 1000)
        done = True
        await task
        assert status == 200
        assert [item["index"] for item in found["data"]] == list(range(1000))
        return turns

    assert asyncio.run(scenario()) > 1000 // 32
    held.app.close(encoders=True)
