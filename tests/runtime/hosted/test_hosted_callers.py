"""Many threads, coroutines and processes on one encoder."""

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.loopback import Loopback, Reply, Time, vector, vectors
from tests.support.script import run_script

import trivec.hosted
from trivec._errors import InputError, ServiceError
from trivec.hosted import HostedEncoder
from trivec.hosted._batches import Job

Open = Callable[..., HostedEncoder]


def test_64_threads(server: Loopback, opened: Open) -> None:
    encoder = opened("openai")
    found: dict[int, bool] = {}

    def ask(number: int) -> None:
        texts = [f"{number} {n}" for n in range(5)]
        found[number] = bool(np.array_equal(encoder.encode(texts), vectors(texts)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(64), True)
    assert server.most_at_once <= 4
    assert server.most_sockets <= 4
    assert encoder.usage.texts == 64 * 5


def test_200_coroutines(server: Loopback, opened: Open) -> None:
    encoder = opened("openai")
    before = threading.active_count()

    async def all_of_them() -> tuple[list[np.ndarray], int]:
        asking = [asyncio.ensure_future(encoder.aencode(f"text {n}")) for n in range(200)]
        await asyncio.sleep(0)
        busiest = threading.active_count()
        return await asyncio.gather(*asking), busiest

    found, busiest = asyncio.run(all_of_them())
    np.testing.assert_array_equal(np.stack(found), vectors([f"text {n}" for n in range(200)]))
    assert busiest <= before + 1 + 4  # one for all requests, and the server's
    assert server.most_at_once <= 4


def test_aencode_is_encode(provider: str, opened: Open) -> None:
    encoder = opened(provider)
    options: dict[str, Any] = {"normalize_embeddings": True, "truncate_dim": 5, "task": "query"}
    found = asyncio.run(encoder.aencode(["a", "b", "a"], **options))
    np.testing.assert_array_equal(found, encoder.encode(["a", "b", "a"], **options))
    assert asyncio.run(encoder.aencode("a")).shape == (8,)
    assert asyncio.run(opened(provider).aencode([])).shape == (0, 8)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        asyncio.run(encoder.aencode("a", nonsense=1))


def test_aencode_counts_what_is_done(server: Loopback, opened: Open) -> None:
    server.refuse = lambda some: Reply(503, {}) if "2" in some else None
    with pytest.raises(ServiceError) as caught:
        asyncio.run(opened("openai", max_retries=0).aencode(["0", "1", "2", "3"], batch_size=1))
    assert caught.value.done == 2


def test_a_cancelled_coroutine_leaves_the_others_alone(server: Loopback, opened: Open) -> None:
    server.delay = 0.2
    encoder = opened("openai", concurrency=2)

    async def both() -> np.ndarray:
        given_up = asyncio.ensure_future(encoder.aencode("a"))
        kept = asyncio.ensure_future(encoder.aencode("b"))
        await asyncio.sleep(0.05)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        found: np.ndarray = await kept
        return found

    np.testing.assert_array_equal(asyncio.run(both()), vector("b"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="../shared or not, this system does not fork")
def test_a_fork_after_open(server: Loopback) -> None:
    """The child has connections of its own; the parent's go on."""
    code = """
import os, sys
import numpy as np
import trivec.hosted
encoder = trivec.hosted.open("openai:m", base_url=sys.argv[1], api_key=None)
before = encoder.encode(["a", "b"])
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.write(writing, encoder.encode(["a", "b"]).tobytes())
    encoder.close()
    os._exit(0)
again = encoder.encode(["a", "b"])
os.waitpid(child, 0)
os.close(writing)
assert os.read(reading, 1000) == before.tobytes() == again.tobytes() == encoder.encode(["a", "b"]).tobytes()
print("equal")
"""
    assert run_script(code, f"{server.url}/v1").strip() == "equal"


def test_the_end_of_the_interpreter(server: Loopback) -> None:
    """An encoder that nobody closes keeps no process alive; when Python ends it is either used or refused."""
    code = """
import atexit, sys
import trivec
import trivec.hosted
encoder = trivec.hosted.open("openai:m", base_url=sys.argv[1], api_key=None)
def last():
    try:
        print(encoder.encode(["a"]).shape)
    except trivec.InputError as error:
        print(error)
atexit.register(last)
encoder.encode(["a"])
"""
    said = run_script(code, f"{server.url}/v1").strip()
    assert said == "(1, 8)" or said.startswith("Python ends")


def test_closed(opened: Open) -> None:
    encoder = opened("openai")
    encoder.encode("a")
    encoder.close()
    encoder.close()
    with pytest.raises(InputError, match=r"this encoder is closed\. Open it again: trivec\.hosted\.open\('openai:any"):
        encoder.encode("a")
    assert "closed" in repr(encoder)


def test_one_that_is_forgotten_leaves_no_socket(server: Loopback) -> None:
    import trivec.hosted

    encoder = trivec.hosted.open("openai:m", base_url=server.base("openai"), api_key=None)
    encoder.encode("a")
    assert server._sockets == 1
    del encoder
    gc.collect()
    deadline = time.monotonic() + 240
    while server._sockets and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server._sockets == 0


@pytest.mark.parametrize("case", ["encode", "aencode", "encode_iter", "again", "rerank"])
def test_what_a_call_held_is_freed_with_it(case: str, server: Loopback, opened: Open, tmp_path: Path) -> None:
    """Not when Python's collector finds the time: texts and vectors of many calls would fill the memory meanwhile."""
    encoder = opened("cohere", cache=tmp_path / "cache.db")
    texts = [f"text {n}" for n in range(250)]
    encoder._embeddings.service.sleep = Time().sleep
    if case == "again":
        server.replies.extend([Reply(503, {}), None, Reply(429, {})])

    def call() -> None:
        if case == "aencode":
            asyncio.run(encoder.aencode(texts))
        elif case == "encode_iter":
            assert sum(map(len, encoder.encode_iter(texts, window=100))) == 250
        elif case == "rerank":
            with trivec.hosted.open_reranker("cohere:m", base_url=server.url) as reranker:
                reranker.scores("a", texts)
        else:
            encoder.encode(texts)

    gc.collect()
    gc.disable()
    try:
        call()
        deadline = time.monotonic() + 240
        while (held := jobs()) and time.monotonic() < deadline:
            time.sleep(0.05)  # the thread of the requests lets go a moment later
    finally:
        gc.enable()
    assert held == 0


def jobs() -> int:
    """Calls' texts with their vectors that are still there."""
    return sum(isinstance(thing, Job) for thing in gc.get_objects())
