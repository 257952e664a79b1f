"""Odd names, addresses, answers and moments: an error that says what to type, no key in it, and nothing lost."""

import asyncio
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.loopback import KEY, Loopback, Reply, vectors
from tests.support.script import run_script

import trivec
import trivec.hosted
from trivec._errors import InputError, ServiceError
from trivec._open import open_encoder
from trivec.hosted import HostedEncoder

Open = Callable[..., HostedEncoder]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "expected provider:model, such as 'openai:MODEL', got NoneType"),
        ("openai", "'openai' names no provider"),
        ("openai:m?dimensions", r"cannot read what is behind openai:m\? Type: openai:m\?option=value"),
        (f"openai:m?{KEY}", r"cannot read what is behind openai:m\?"),
        (f"openai:m?api_key={KEY}", r"api_key= behind openai:m\? is no option\. .* in api_key=\."),
        (f"openai?api_key={KEY}", "'openai' names no provider"),
        (f"openai:m?blank=zeros&blank=zeros&extra_body={KEY}", "blank is given twice for 'openai:m'"),
    ],
)
def test_names(name: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        trivec.hosted.open(name)
    assert KEY not in str(caught.value)


def test_load_names_who_opens_it() -> None:
    with pytest.raises(trivec.ModelNotFoundError, match=r"opens with trivec\.hosted\.open\('openai:m'\)"):
        trivec.load("openai:m")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (f"ftp://user:{KEY}@example.com", "no user, password"),
        (f"https://user:{KEY}@example.com:port", "no user, password"),
        (f"{KEY}@example.com", "no user, password"),
        (f"example.com?key={KEY}", "no user, password"),
        ("https://exa mple.com", "and name a host"),
        ("", "must begin with https://"),
        (3, "base_url must be a string or None, got int"),
    ],
)
def test_addresses(address: Any, message: str) -> None:
    """None is asked, and none shows what is in it where that may be a key."""
    with pytest.raises(InputError, match=message) as caught:
        trivec.hosted.open("openai:m", base_url=address)
    assert KEY not in str(caught.value)


def test_http_to_another_machine(provider: str) -> None:
    if provider == "tei":
        assert trivec.hosted.open("tei:", base_url="http://example.com").name  # it has no key
    else:
        with pytest.raises(InputError, match=r"a key goes over https:// alone"):
            trivec.hosted.open(f"{provider}:m", base_url="http://example.com")


def test_a_key_among_arguments_that_are_not_known() -> None:
    from trivec.integrations.langchain import TrivecEmbeddings

    with pytest.raises(InputError, match=r"key= is no argument of trivec\.hosted\.open") as caught:
        TrivecEmbeddings("openai:m", model_kwargs={"key": KEY})
    assert KEY not in str(caught.value)
    with pytest.raises(InputError, match=r"token: a hosted model runs at its service") as caught:
        open_encoder("openai:m", token=KEY)
    assert KEY not in str(caught.value)


def test_arguments_that_look_like_none(server: Loopback) -> None:
    """0 is no False, and no key is not the variable's."""
    from trivec.integrations.langchain import TrivecEmbeddings

    options = {"base_url": server.base("openai"), "api_key": None, "max_retries": 0}
    embeddings = TrivecEmbeddings("openai:m", model_kwargs=options, device="auto", threads=None)
    server.replies.append(Reply(503, {}))
    with pytest.raises(ServiceError):
        embeddings.embed_query("a")
    (asked,) = server.asked
    assert "authorization" not in asked.headers
    embeddings.encoder.close()


def test_fields_that_are_ours(provider: str, opened: Open) -> None:
    """Texts of a user's own, or numbers of another type, would be read as what they are not."""
    ours = {"cohere": "texts", "nomic": "texts", "gemini": "requests"}.get(provider, "input")
    with pytest.raises(InputError, match=rf"extra_body must not hold {', '.join(sorted((ours, 'model')))}: see"):
        opened(provider, extra_body={ours: ["x"], "model": "other"})
    with pytest.raises(InputError, match=r"extra_body is no JSON"):
        opened(provider, extra_body={"x": object()})
    assert opened(provider, extra_body={"encoding_format": "float"}).encode(["a"]).shape == (1, 8)


def test_output_dtype_is_an_argument(opened: Open) -> None:
    with pytest.raises(InputError, match=r"extra_body must not hold output_dtype"):
        opened("voyage", extra_body={"output_dtype": "int8"})


ODD = {
    "a key in 200": Reply(body={"error": f"for {KEY}"}),
    "a key in 200, deep": Reply(body={"data": [{"index": 0, "embedding": KEY}], "embeddings": [KEY, {"values": KEY}]}),
    "a key as a code": Reply(400, {"error": {"message": "x", "code": KEY}}, headers={"x-request-id": KEY}),
    "a key in a redirect": Reply(302, {}, headers={"Location": f"http://127.0.0.1:9/?key={KEY}"}),
    "no gzip": Reply(body=b"nonsense", headers={"Content-Encoding": "gzip"}),
    "deep": Reply(body=b"[" * 100_000),
    "deep, 400": Reply(400, b"[" * 100_000),
    "a date that is none": Reply(503, {}, headers={"Retry-After": "Mon, 01 Jan 2024 00:00:00 +99999999999999"}),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_answers(provider: str, case: str, server: Loopback, opened: Open) -> None:
    server.replies.append(ODD[case])
    with pytest.raises(ServiceError, match=provider) as caught:
        opened(provider, max_retries=0).encode(["a"])
    assert KEY not in f"{caught.value}{vars(caught.value)}" or provider == "tei"  # which was given none
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_a_key_in_scores(server: Loopback) -> None:
    server.replies.append(Reply(body={"error": f"for {KEY}"}))
    with trivec.hosted.open_reranker("cohere:m", base_url=server.url) as reranker:
        with pytest.raises(ServiceError, match=r"one score for each of 1 documents: .*\*\*\*") as caught:
            reranker.scores("a", ["b"])
        assert KEY not in str(caught.value)


def test_nothing_there(server: Loopback, opened: Open) -> None:
    server.replies.append(Reply(404, {"detail": "Not Found"}))
    with pytest.raises(ServiceError, match=r"404: Not Found\. Does the service have this model, and is base_url= its"):
        opened("openai").encode(["a"])


def test_this_machine_is_asked_without_a_proxy(server: Loopback, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over http:// the proxy would see the key."""
    with Loopback() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        np.testing.assert_array_equal(opened("openai").encode(["a"]), vectors(["a"]))
        assert proxy.asked == []


def test_another_port_is_another_service(server: Loopback, opened: Open, tmp_path: Path) -> None:
    """Two servers of one machine, without a model's name, have different models."""
    cache = tmp_path / "cache.db"
    first = opened("tei", cache=cache)
    first.encode(["a"])
    with (
        Loopback(dim=6) as other,
        trivec.hosted.open("tei:", base_url=other.url, cache=cache) as second,
    ):
        assert second.encode(["a"]).shape == (1, 6)
        assert first.fingerprint != second.fingerprint


def test_the_width_though_the_cache_has_the_word(opened: Open, tmp_path: Path) -> None:
    for _ in range(2):
        assert opened("openai", cache=tmp_path / "cache.db").dim == 8
        assert asyncio.run(opened("openai", cache=tmp_path / "cache.db").aencode([])).shape == (0, 8)


def test_vectors_of_two_widths_are_no_stream(server: Loopback, opened: Open, tmp_path: Path) -> None:
    """A model that changed under its name: what is cached is not mixed with what comes."""
    opened("openai", cache=tmp_path / "cache.db").encode(["a"])
    server.dim = 6
    blocks = opened("openai", cache=tmp_path / "cache.db").encode_iter(["a", "b"], window=1)
    assert next(blocks).shape == (1, 8)
    with pytest.raises(ServiceError, match=r"vectors of 6 numbers, and 8 were expected: .* name another cache file"):
        next(blocks)


def test_a_stream_that_is_known_is_not_read_ahead(opened: Open, tmp_path: Path) -> None:
    encoder = opened("openai", cache=tmp_path / "cache.db", concurrency=2, blank="zeros")
    encoder.encode(["a"])
    taken = 0

    def source() -> Iterator[str]:
        nonlocal taken
        for taken in range(1, 501):
            yield "a" if taken % 2 else ""

    blocks = encoder.encode_iter(source(), window=2)
    np.testing.assert_array_equal(next(blocks), [vectors(["a"])[0], np.zeros(8)])
    assert taken <= 2 * 5
    assert sum(len(block) for block in blocks) == 498
    assert encoder.usage.texts == 1


def test_coroutines_log_nothing(server: Loopback, opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    """asyncio reports an exception that nobody looked at; the one that is raised has been."""
    caplog.set_level(logging.ERROR, "asyncio")
    server.refuse = lambda _: Reply(400, {"detail": "no"})
    encoder = opened("openai")

    async def ask() -> None:
        with pytest.raises(ServiceError):
            await encoder.aencode([f"{n}" for n in range(6)], batch_size=1)
        gc.collect()

    asyncio.run(ask())
    gc.collect()
    assert caplog.text == ""


def test_closed_by_two_while_others_wait(server: Loopback, opened: Open) -> None:
    """Those who wait have their rows, over new connections."""
    server.delay = 0.05
    encoder = opened("openai", concurrency=2)
    found: dict[int, Any] = {}

    def ask(number: int) -> None:
        try:
            found[number] = encoder.encode([f"{number} {n}" for n in range(6)], batch_size=1)
        except BaseException as error:  # noqa: BLE001 - shown
            found[number] = error

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in asking:
        thread.start()
    while len(server.asked) < 3:
        time.sleep(0.01)
    closing = [threading.Thread(target=encoder.close) for _ in range(2)]
    for thread in closing:
        thread.start()
    for thread in (*closing, *asking):
        thread.join()
    for number in range(3):
        if not isinstance(found[number], InputError):  # whoever began after the end
            np.testing.assert_array_equal(found[number], vectors([f"{number} {n}" for n in range(6)]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_that_forgets_it(server: Loopback) -> None:
    """The parent's connection is the parent's: it is used again."""
    code = """
import gc, os, sys
import trivec.hosted
encoder = trivec.hosted.open("openai:m", base_url=sys.argv[1], api_key=None, timeout=240, max_retries=0)
other = trivec.hosted.open("openai:m", base_url=sys.argv[1], api_key=None)
encoder.encode(["a"])
child = os.fork()
if child == 0:
    other.encode(["b"])
    del encoder
    gc.collect()
    other.encode(["c"])
    os._exit(0)
os.waitpid(child, 0)
print(encoder.encode(["d"]).shape)
"""
    assert run_script(code, f"{server.url}/v1").strip() == "(1, 8)"
    assert server.most_sockets == 2
