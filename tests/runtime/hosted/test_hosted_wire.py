"""What goes over the wire to each service, and what comes back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.loopback import Loopback, Reply, as_asked, vector, vectors

import trivec.hosted
from trivec._errors import InputError
from trivec.hosted import HostedEncoder

GOLDEN = Path(__file__).parents[2] / "golden/hosted"
TEXTS = ["a cat", "Schlüssel 東京", "the dog"]
Open = Callable[..., HostedEncoder]


def bodies(server: Loopback) -> list[dict[str, Any]]:
    return [{"path": asked.path, "body": asked.body} for asked in server.asked]


def test_bodies_are_the_ones_on_record(provider: str, server: Loopback, opened: Open) -> None:
    """Documents, queries, plain texts, then fewer dimensions; test_hosted_sdks.py holds the SDKs to it."""
    encoder = opened(provider)
    encoder.encode_document(TEXTS[:2])
    encoder.encode_query(TEXTS[2])
    encoder.encode(TEXTS[2])
    opened(provider, dimensions=4).encode_query("few")
    golden = json.loads((GOLDEN / f"{provider}.json").read_text(encoding="utf-8"))
    assert bodies(server) == golden


def test_rows_come_in_order(provider: str, opened: Open) -> None:
    encoder = opened(provider)
    for found in (encoder.encode(TEXTS), encoder.encode_document(TEXTS), encoder.encode_query(TEXTS)):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, vectors(TEXTS))
    np.testing.assert_array_equal(encoder.encode("a cat"), vector("a cat"))
    assert encoder.dim == 8


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize("provider", ["openai", "voyage", "mistral", "jina", "tei"])
def test_indices_decide_and_base64_is_exact(provider: str, server: Loopback, opened: Open, encoding: str) -> None:
    texts = [f"text {n}" for n in range(7)]

    def shuffled(found: Any) -> Any:
        data = [{**item, "embedding": as_asked(vector(texts[item["index"]]), "float", encoding == "base64")}
                for item in found["data"]]  # fmt: skip
        return {**found, "data": data[3:] + data[:3][::-1]}

    server.replies.append(Reply(change=shuffled))
    np.testing.assert_array_equal(opened(provider).encode(texts), vectors(texts))


def test_equal_texts_are_asked_for_once(provider: str, server: Loopback, opened: Open) -> None:
    found = opened(provider).encode(["b", "a", "b", "b"])
    np.testing.assert_array_equal(found, vectors(["b", "a", "b", "b"]))
    assert server.texts == ["b", "a"]


def test_gemini_gives_a_vector_a_text(server: Loopback, opened: Open) -> None:
    """pymilvus.model's fault 1: two texts in one content are one vector."""
    assert opened("gemini").encode(["one", "two"]).shape == (2, 8)
    (asked,) = server.asked
    assert [len(each["content"]["parts"]) for each in asked.body["requests"]] == [1, 1]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("provider", ["voyage", "cohere", "mistral", "jina"])
def test_integers_from_the_service(provider: str, opened: Open, dtype: str) -> None:
    if provider == "jina" and dtype.endswith("int8"):
        with pytest.raises(InputError, match=r"output_dtype='u?int8': jina gives float32, binary, ubinary\."):
            opened(provider, output_dtype=dtype)
        return
    encoder = opened(provider, output_dtype=dtype)
    found = encoder.encode(TEXTS)
    expected = np.array([as_asked(vector(text), dtype) for text in TEXTS])
    assert found.dtype == {"int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}[dtype]
    np.testing.assert_array_equal(found, expected)
    assert encoder.dim == 8
    if dtype.endswith("binary"):
        np.testing.assert_array_equal(found, trivec.quantize_embeddings(vectors(TEXTS), dtype))
        with pytest.raises(InputError, match=r"neither quantized, cut nor normalized again"):
            encoder.encode(TEXTS, normalize_embeddings=True)


def test_words_for_long_texts(server: Loopback, opened: Open) -> None:
    expected: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
        "openai": ({}, {}),
        "voyage": ({"truncation": True}, {"truncation": False}),
        "cohere": ({"truncate": "END"}, {"truncate": "NONE"}),
        "mistral": ({}, {}),
        "jina": ({"truncate": True}, {"truncate": False}),
        "nomic": ({"long_text_mode": "truncate"}, None),
        "gemini": ({}, None),
        "tei": ({}, {}),
    }
    words = {"truncation", "truncate", "long_text_mode"}
    for name, (cut, refused) in expected.items():
        encoder = opened(name)
        encoder.encode("x")
        assert {k: v for k, v in server.asked[-1].body.items() if k in words} == cut
        if refused is None:
            with pytest.raises(InputError, match=rf"on_overflow='error': {name} always cuts long texts"):
                encoder.encode("x", on_overflow="error")
        else:
            encoder.encode("x", on_overflow="error")
            assert {k: v for k, v in server.asked[-1].body.items() if k in words} == refused


def test_the_services_own_words_for_a_task(server: Loopback, opened: Open) -> None:
    opened("cohere").encode("x", task="clustering")
    opened("gemini").encode("x", task="CLUSTERING")
    assert server.asked[0].body["input_type"] == "clustering"
    assert server.asked[1].body["requests"][0]["taskType"] == "CLUSTERING"
    with pytest.raises(InputError, match=r"task='clustering': openai has no tasks"):
        opened("openai").encode("x", task="clustering")


def test_the_keys_header(server: Loopback, opened: Open, provider: str) -> None:
    opened(provider).encode("x")
    headers = server.asked[0].headers
    key = "sk-loopback-0123456789abcdef"
    assert headers.get("x-goog-api-key") == (key if provider == "gemini" else None)
    expected = None if provider in ("gemini", "tei") else f"Bearer {key}"
    assert headers.get("authorization") == expected
    assert headers["user-agent"].startswith("trivec/")


def test_keys_of_voyage_that_go_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOYAGE_API_KEY", "al-1")
    assert trivec.hosted.open("voyage:m").device == "ai.mongodb.com"
    monkeypatch.setenv("VOYAGE_API_KEY", "pa-1")
    assert trivec.hosted.open("voyage:m").device == "api.voyageai.com"


def test_further_fields_of_a_request(server: Loopback, opened: Open) -> None:
    encoder = opened("openai", extra_body={"user": "me"})
    encoder.encode("x")
    assert server.asked[0].body["user"] == "me"
    assert encoder.fingerprint != opened("openai").fingerprint


def test_late_chunking_keeps_the_texts_of_a_call_together(server: Loopback, opened: Open) -> None:
    """There a text's vector depends on its neighbours: equal texts differ, and none may be left out or sent alone."""
    opened("jina", extra_body={"late_chunking": True}).encode(["a", "b", "a"])
    (asked,) = server.asked
    assert asked.texts == ["a", "b", "a"]
    assert asked.body["late_chunking"] is True
