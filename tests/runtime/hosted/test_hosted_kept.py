"""What a service has answered is not lost: caches, stores, and runs that end in the middle."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.support.loopback import Loopback, Reply, vectors

import trivec
from trivec import store
from trivec._errors import InputError, NonFiniteError, ServiceError
from trivec.hosted import HostedEncoder
from trivec.hosted._encoder import PROBES

Open = Callable[..., HostedEncoder]
TEXTS = [f"text {n}" for n in range(600)]
DOWN = Reply(503, {"message": "down"})


def dies_at(server: Loopback, first: int) -> None:
    """From this text on nothing is answered."""
    last = set(TEXTS[first:])
    server.refuse = lambda some: None if last.isdisjoint(some) else DOWN


def twice(server: Loopback) -> list[str]:
    """Texts that were sent more than once, but for the probe, of which each run has one."""
    return [text for text, count in Counter(server.texts).items() if count > 1 and text not in PROBES]


def test_a_second_call_asks_for_the_rest(provider: str, server: Loopback, opened: Open, tmp_path: Path) -> None:
    texts = TEXTS[:60]
    encoder = opened(provider, cache=tmp_path / "cache.db", max_retries=0)
    dies_at(server, 30)
    with pytest.raises(ServiceError) as caught:
        encoder.encode(texts, batch_size=10)
    assert caught.value.done == 30
    server.asked.clear()
    server.refuse = lambda _: None
    np.testing.assert_array_equal(encoder.encode(texts, batch_size=10), vectors(texts))
    assert sorted(server.texts) == sorted(texts[30:])


def test_a_store_goes_on(provider: str, server: Loopback, opened: Open, tmp_path: Path) -> None:
    """What came before the failure is in the file's journal, up to the request that failed."""
    texts = TEXTS[:100]
    encoder = opened(provider, max_retries=0, dimensions=8)
    dies_at(server, 60)
    with pytest.raises(ServiceError) as caught:
        store.write(tmp_path / "x.npy", encoder, texts, batch_size=10, window=30)
    assert "texts are done and kept" in caught.value.__notes__[-1]
    server.asked.clear()
    server.refuse = lambda _: None
    written = store.write(tmp_path / "x.npy", encoder, texts, batch_size=10, window=30)
    assert written.resumed == 60
    assert sorted(server.texts) == sorted([*PROBES, *texts[60:]])
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), vectors(texts))


def test_no_text_is_asked_for_twice_over_two_runs(server: Loopback, opened: Open, tmp_path: Path) -> None:
    """With one request at a time nothing is under way beside the one that failed."""
    encoder = opened("cohere", max_retries=0, dimensions=8, concurrency=1)
    server.refuse = lambda _: DOWN if len(server.asked) == 4 else None
    with pytest.raises(ServiceError):
        store.write(tmp_path / "x.npy", encoder, TEXTS, window=500)
    failed = server.asked[3].texts
    store.write(tmp_path / "x.npy", encoder, TEXTS, window=500)
    assert twice(server) == failed
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), vectors(TEXTS))


RUN = """
import sys
import trivec.hosted
from trivec import store
url, out, cache = sys.argv[1:]
texts = [f"text {n}" for n in range(600)]
encoder = trivec.hosted.open("cohere:m", base_url=url, api_key=None, dimensions=8, concurrency=2, cache=cache or None)
try:
    if out:
        store.write(out, encoder, texts, window=200, batch_size=20)
    else:
        encoder.encode(texts, batch_size=20)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("kept_by", ["cache", "store"])
def test_ctrl_c_and_again(server: Loopback, tmp_path: Path, kept_by: str) -> None:
    server.delay = 0.1
    cache, out = str(tmp_path / "cache.db"), str(tmp_path / "x.npy")
    arguments = [server.url, out if kept_by == "store" else "", cache if kept_by == "cache" else ""]
    environment = {**os.environ, "PYTHONPATH": str(Path(trivec.__file__).parents[1])}
    command = [sys.executable, "-W", "ignore", "-c", RUN, *arguments]
    run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    while len(server.asked) < 9 and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=600)
    assert said == "interrupted\n"
    assert len(server.asked) < 30
    server.delay = 0.0
    subprocess.run(command, env=environment, check=True, timeout=600)
    assert set(server.texts) - set(PROBES) == set(TEXTS)
    assert len(twice(server)) <= 20 * 3  # of requests under way


def test_the_cache_is_for_the_same_request_alone(provider: str, server: Loopback, opened: Open, tmp_path: Path) -> None:
    cache = tmp_path / "cache.db"
    texts = ["a", "b"]
    opened(provider, cache=cache).encode(texts, normalize_embeddings=True)
    count = len(server.asked)
    found = opened(provider, cache=cache).encode(texts, truncate_dim=4)  # of the same vectors
    np.testing.assert_array_equal(found, vectors(texts)[:, :4])
    assert len(server.asked) == count
    opened(provider, cache=cache, dimensions=4).encode(texts)
    opened(provider, cache=cache).encode(texts, prompt="p: ")
    opened(provider, cache=cache, extra_body={"seed": 1}).encode(texts)
    assert len(server.asked) == count + 3
    query = opened(provider, cache=cache)
    query.encode_query(texts)
    same = provider in ("openai", "mistral", "tei")  # where a query is asked for as a document is
    assert len(server.asked) == count + 3 + (not same)


def test_a_probe_is_asked_for_anew(server: Loopback, opened: Open, tmp_path: Path) -> None:
    encoder = opened("openai", cache=tmp_path / "cache.db")
    first = encoder.probe()
    np.testing.assert_array_equal(first, encoder.probe())
    assert (first.shape, first.dtype.name, len(server.asked)) == ((3, 8), "float32", 2)


def test_a_cache_of_another_width_is_no_answer(server: Loopback, opened: Open, tmp_path: Path) -> None:
    """A model that changed under its name: what it gives now does not go with what it gave."""
    opened("openai", cache=tmp_path / "cache.db").encode(["a"])
    server.dim = 6
    with pytest.raises(ServiceError, match=r"vectors of 6 numbers"):
        opened("openai", cache=tmp_path / "cache.db").encode(["a", "b"])
    encoder = opened("openai", cache=tmp_path / "cache.db")
    encoder.encode("c")
    np.testing.assert_array_equal(encoder.encode(["a"]), vectors(["a"], 6))


def test_a_cache_that_is_none(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello " * 1000)
    for path in (tmp_path / "text", tmp_path / "no/such/folder.db"):
        with pytest.raises(InputError, match=r"cache='.*' cannot be used"):
            opened("openai", cache=path)


@pytest.mark.parametrize(("pragma", "why"), [("max_page_count=1", "disk is full"), ("query_only=ON", "readonly")])
def test_a_cache_that_takes_no_more(
    pragma: str, why: str, server: Loopback, opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was paid for is given all the same, and what is there already is not paid for again."""
    encoder = opened("openai", dimensions=512, cache=tmp_path / "cache.db")
    before = encoder.encode(TEXTS[:100], batch_size=10)
    cache = encoder._embeddings.cache
    assert cache is not None
    with cache._open() as connection:
        connection.execute(f"PRAGMA {pragma}")  # SQLite's own refusal: of a page more than there are, of any write
    server.asked.clear()
    found = encoder.encode(TEXTS, batch_size=10)
    np.testing.assert_array_equal(found, vectors(TEXTS, 512))
    np.testing.assert_array_equal(found[:100], before)
    assert sorted(server.texts) == sorted(TEXTS[100:])
    np.testing.assert_array_equal(encoder.encode(TEXTS[500:]), vectors(TEXTS[500:], 512))
    (warned,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"cache={str(tmp_path / 'cache.db')!r} takes no more vectors: " in warned
    assert why in warned


def test_a_cache_from_many_threads(server: Loopback, opened: Open, tmp_path: Path) -> None:
    encoders = [opened("openai", cache=tmp_path / "cache.db") for _ in range(2)]
    wrong: list[int] = []

    def work(number: int) -> None:
        texts = [f"{n}" for n in range(number, number + 20)]
        if not np.array_equal(encoders[number % 2].encode(texts), vectors(texts)):
            wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    with sqlite3.connect(tmp_path / "cache.db") as connection:
        assert connection.execute("SELECT count(*) FROM vectors").fetchone() == (35,)
    connection.close()


def test_a_source_that_fails(server: Loopback, opened: Open) -> None:
    def source() -> object:
        yield from TEXTS[:25]
        raise OSError("the disk is gone")

    blocks = opened("openai").encode_iter(source(), window=10)  # type: ignore[arg-type]
    found = [next(blocks) for _ in range(3)]
    assert [len(block) for block in found] == [10, 10, 5]
    with pytest.raises(OSError, match="the disk is gone"):
        next(blocks)
    np.testing.assert_array_equal(np.concatenate(found), vectors(TEXTS[:25]))


def test_rows_before_a_failure_come_first(server: Loopback, opened: Open) -> None:
    texts = TEXTS[:50]
    server.refuse = lambda some: Reply(change=_nan) if "text 27" in some else None
    blocks = opened("openai").encode_iter(iter(texts), window=20, batch_size=5)
    found = [next(blocks), next(blocks)]
    assert [len(block) for block in found] == [20, 5]
    with pytest.raises(NonFiniteError, match=r"the first at index 25: 'text 25'"):
        list(blocks)


def _nan(found: object) -> object:
    assert isinstance(found, dict)
    for item in found["data"]:
        item["embedding"] = [float("nan")] * 8
    return found


def test_a_blank_text_ends_a_stream_after_what_came_before(opened: Open) -> None:
    blocks = opened("openai").encode_iter(["a", "b", "c", " "], window=2)
    assert len(next(blocks)) == 2
    with pytest.raises(InputError, match=r"the text at index 3 is blank"):
        next(blocks)
