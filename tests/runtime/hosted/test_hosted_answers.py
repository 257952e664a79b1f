"""Answers that are not what was asked for: an error that says what came, and nothing of it is kept."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.loopback import KEY, Loopback, Reply, vectors

import trivec.hosted
from trivec._errors import NonFiniteError, ServiceError
from trivec.hosted import HostedEncoder

Open = Callable[..., HostedEncoder]
TEXTS = ["one", "two", "three"]


def rows_of(found: Any) -> list[Any]:
    """The list that has an item a text, in whatever shape."""
    if "data" in found:
        return found["data"]  # type: ignore[no-any-return]
    embeddings = found["embeddings"]
    return embeddings["float"] if isinstance(embeddings, dict) else embeddings  # type: ignore[no-any-return]


def put(rows: list[Any], index: int, numbers: list[float]) -> None:
    """Another vector in the place of one."""
    if isinstance(rows[index], dict):
        rows[index]["embedding" if "embedding" in rows[index] else "values"] = numbers
    else:
        rows[index] = numbers


def changed(change: Callable[[list[Any]], object]) -> Reply:
    def of(found: Any) -> Any:
        found = copy.deepcopy(found)
        change(rows_of(found))
        return found

    return Reply(change=of)


WRONG: dict[str, tuple[Reply, type[Exception], str]] = {
    "one short": (changed(lambda rows: rows.pop()), ServiceError, r"2 vectors of \[8\] numbers to 3 texts"),
    "one twice": (
        changed(lambda rows: rows.append(copy.deepcopy(rows[0]))),
        ServiceError,
        r"4 vectors of \[8\] numbers to 3 texts|indices \[0, 0, 1, 2\] of 4 items",
    ),
    "another width": (
        changed(lambda rows: put(rows, 1, [0.5, 0.25])),
        ServiceError,
        r"3 vectors of \[2, 8\] numbers to 3 texts",
    ),
    "NaN": (
        changed(lambda rows: put(rows, 1, [float("nan")] * 8)),
        NonFiniteError,
        r"NaN or infinity for 1 of 3 texts, the first at index 1: 'two'",
    ),
    "too great": (changed(lambda rows: put(rows, 2, [1e39] * 8)), NonFiniteError, r"the first at index 2: 'three'"),
    "no numbers": (changed(lambda rows: put(rows, 0, ["a"] * 8)), ServiceError, r"something else than vectors"),  # type: ignore[list-item]
    "nothing": (Reply(body={}), ServiceError, r"something else than vectors \(KeyError"),
    "a list": (Reply(body=[1]), ServiceError, r"something else than vectors"),
    "HTML": (Reply(body=b"<html>hello</html>"), ServiceError, r"answered 200 with no JSON .*<html>hello</html>"),
    "half of it": (Reply(body=b'{"data": [{"ind'), ServiceError, r"answered 200 with no JSON"),
}


@pytest.mark.parametrize("case", WRONG)
def test_nothing_wrong_is_taken(provider: str, case: str, server: Loopback, opened: Open, tmp_path: Path) -> None:
    reply, kind, message = WRONG[case]
    encoder = opened(provider, cache=tmp_path / "cache.db")
    server.replies.append(reply)
    with pytest.raises(kind, match=message):
        encoder.encode(TEXTS)
    assert len(server.asked) == 1  # another try would cost, and give the same
    np.testing.assert_array_equal(encoder.encode(TEXTS), vectors(TEXTS))
    assert server.texts == TEXTS * 2  # nothing of the first answer was cached


@pytest.mark.parametrize("provider", ["openai", "voyage", "mistral", "jina", "tei"])
def test_indices_are_a_permutation(provider: str, server: Loopback, opened: Open) -> None:
    server.replies.append(changed(lambda rows: rows[1].update(index=0)))
    with pytest.raises(ServiceError, match=r"indices \[0, 0, 2\] of 3 items"):
        opened(provider).encode(TEXTS)


def test_one_width_from_the_first_answer_on(provider: str, server: Loopback, opened: Open) -> None:
    encoder = opened(provider)
    encoder.encode("a")
    server.dim = 6
    with pytest.raises(ServiceError, match=r"vectors of 6 numbers, and 8 were expected"):
        encoder.encode("b")


def test_the_width_that_was_asked_for(provider: str, server: Loopback, opened: Open) -> None:
    encoder = opened(provider, dimensions=4)
    assert encoder.encode(["a", "b"]).shape == (2, 4)
    server.replies.append(changed(lambda rows: put(rows, 0, [1.0] * 8)))
    with pytest.raises(ServiceError, match=r"vectors of 8 numbers, and 4 were expected"):
        encoder.encode("c")


def test_base64_that_is_none(server: Loopback, opened: Open) -> None:
    for text in ("!", "AAA=", "AAAA"):  # no base64; bytes that are no whole number of float32
        body = {"data": [{"index": 0, "embedding": text}]}
        server.replies.append(Reply(body=json.loads(json.dumps(body))))
        with pytest.raises(ServiceError, match=r"something else than vectors"):
            opened("openai").encode("x")


def test_an_answer_without_an_end(provider: str, server: Loopback, opened: Open, tmp_path: Path) -> None:
    """Of a captive portal, say: what is read has a bound, which follows from what was asked for."""
    encoder = opened(provider, dimensions=8, cache=tmp_path / "cache.db")
    server.replies.append(Reply(body=b"<p>welcome</p>" * 1000, endless=True))
    with pytest.raises(
        ServiceError, match=r"answered with more than 1,0\d\d,\d{3} bytes, and no answer to this request"
    ) as caught:
        encoder.encode(TEXTS)
    assert "it begins with '<p>welcome</p>" in str(caught.value)
    assert server.sent < 64 << 20  # the server noticed
    np.testing.assert_array_equal(encoder.encode(TEXTS), vectors(TEXTS))
    assert server.texts == TEXTS * 2  # asked for once, and nothing was cached


def test_an_error_without_an_end(server: Loopback, opened: Open) -> None:
    """Its status counts, and its beginning is shown."""
    server.replies.append(Reply(400, b"no " * 1000, endless=True))
    with pytest.raises(ServiceError, match=r"openai answered 400: no no no") as caught:
        opened("openai").encode(TEXTS)
    assert len(str(caught.value)) < 300
    assert server.sent < 64 << 20


def test_scores_without_an_end(server: Loopback) -> None:
    server.replies.append(Reply(body=f"{KEY} ".encode() * 1000, endless=True))
    with trivec.hosted.open_reranker("cohere:m", base_url=server.url) as reranker:
        with pytest.raises(ServiceError, match=r"more than 1,0\d\d,\d{3} bytes, .* begins with '\*\*\* \*\*\*"):
            reranker.scores("a", TEXTS)
        assert reranker.scores("a", TEXTS).shape == (3,)


def test_a_wordy_answer_is_read(server: Loopback, opened: Open) -> None:
    """Numbers of 17 digits, a line each, with the texts in \\u: nobody knows the width, and the bound is above it."""
    texts = [f"{n} " + "<東京>" * 2000 for n in range(4)]
    wide = np.random.default_rng(0).standard_normal((4, 4096))

    def wordy(found: Any) -> Any:
        data = [{"index": n, "text": texts[n], "embedding": row.tolist()} for n, row in enumerate(wide)]
        return json.dumps({**found, "data": data}, indent=8).replace("<", "\\u003c").encode()

    server.replies.append(Reply(change=wordy))
    found = opened("openai").encode(texts)
    np.testing.assert_array_equal(found, wide.astype(np.float32))
