"""Who may ask, what is refused before a body is read, and what a server says of itself."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.serving import Client

import trivec
import trivec.server
from trivec import InputError
from trivec.server import Settings

KEYS = {"sk-one": "alice", "sk-two": "bob"}
NAMES = """
requests_total texts_total tokens_total truncated_texts_total rejected_total ignored_fields_total
request_duration_seconds_bucket queue_duration_seconds_sum tokenization_duration_seconds_count
inference_duration_seconds_count input_tokens_bucket window_texts_bucket window_tokens_bucket queue_texts queue_tokens
requests_in_flight connections estimated_wait_seconds model_info
"""
BODY = {"input": "the secret of the cat", "model": "tiny"}


@pytest.fixture
def encoder(folders: dict[str, Path]) -> Iterator[Any]:
    with trivec.load(folders["tiny"], device="cpu", threads=1) as encoder:
        yield encoder


def made(encoder: Any, **limits: Any) -> Client:
    return Client(trivec.server.app({"tiny": encoder}, **limits))


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_keys(encoder: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = made(encoder, keys=KEYS, open_metrics=False)
    with caplog.at_level(logging.DEBUG, "trivec.server"):
        for given in ("", "Bearer", "Bearer sk-on", "Bearer sk-one2", "Basic sk-one"):
            answer = client.post("/v1/embeddings", BODY, authorization=given)
            assert code(answer) == (401, "invalid_api_key")
            assert answer.headers["www-authenticate"] == "Bearer"
        for key, name in KEYS.items():
            assert client.post("/v1/embeddings", BODY, authorization=f"Bearer {key}").status_code == 200
            assert f"key={name}" in caplog.text
    assert "sk-one" not in caplog.text
    assert "secret" not in caplog.text
    assert client.post("/embed", {"inputs": "a"}).json()["error_type"] == "Validation"
    for path in ("/health", "/health/live", "/health/ready", "/ping", "/"):
        assert client.get(path).status_code == 200
    for path in ("/metrics", "/info", "/v1/models", "/openapi.json", "/nothing"):
        assert client.get(path).status_code == 401
    assert "sk-one" not in client.get("/info", authorization="Bearer sk-one").text
    assert "sk-one" not in repr(client.app.settings)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", ""])
def test_a_foreign_name_is_refused(encoder: Any, host: str) -> None:
    client = made(encoder)
    assert code(client.post("/v1/embeddings", BODY, host=host)) == (403, "host_not_allowed")
    assert client.get("/health", host=host).status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost:8080", "127.0.0.1", "[::1]:8080", "10.0.0.7:8080", "embed.svc", "LOCALHOST"]
)
def test_own_names_and_addresses_are_not(encoder: Any, host: str) -> None:
    client = made(encoder, allow_hosts=("embed.svc",))
    assert client.post("/v1/embeddings", BODY, host=host).status_code == 200


def test_pages_of_other_origins(encoder: Any) -> None:
    client = made(encoder, cors_origins=("https://app.example",), keys=KEYS)
    own = {"authorization": "Bearer sk-one"}
    for origin in ("https://evil.example", "null", "http://localhost:9999"):
        assert code(client.post("/v1/embeddings", BODY, origin=origin, **own)) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in client.post("/v1/embeddings", BODY, origin="x", **own).headers
    assert client.post("/v1/embeddings", BODY, origin="http://localhost", **own).status_code == 200
    answer = client.post("/v1/embeddings", BODY, origin="https://app.example", **own)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    asked = client.ask("OPTIONS", "/v1/embeddings", None, origin="https://app.example")
    assert asked.status_code == 204
    assert "authorization" in asked.headers["access-control-allow-headers"]
    assert client.ask("OPTIONS", "/v1/embeddings", None).status_code == 405


def test_what_is_refused_before_it_is_parsed(encoder: Any) -> None:
    client = made(encoder, max_body=1000)
    assert code(client.post("/v1/embeddings", BODY, content_type="text/plain")) == (415, "unsupported_media_type")
    assert code(client.post("/v1/embeddings", BODY, content_type="")) == (415, "unsupported_media_type")
    assert code(client.post("/v1/embeddings", BODY, content_encoding="gzip")) == (415, "unsupported_media_type")
    assert code(client.post("/v1/embeddings", {"input": "a" * 1000})) == (413, "body_too_large")
    assert code(client.ask("GET", "/v1/models", b"{}")) == (400, "bad_value")
    answer = client.get("/v1/embeddings")
    assert code(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert code(client.get("/v1/nothing")) == (404, "not_found")
    pooling = client.post("/pooling", {})
    assert code(pooling) == (404, "not_found")
    assert "outputs" in pooling.json()["error"]["message"]


def test_limits_of_a_request(encoder: Any) -> None:
    client = made(encoder, max_texts=2, max_request_tokens=10)
    assert client.error("/v1/embeddings", {"input": ["a"] * 3})[1] == "too_many_texts"
    assert client.error("/v1/embeddings", {"input": ["cat cat cat cat", "dog dog dog dog"]})[1] == "too_many_tokens"
    assert client.json("/v1/embeddings", {"input": ["cat", "dog"]})


def test_on_overflow(encoder: Any) -> None:
    client = made(encoder, on_overflow="error")
    long = "dog " * 40
    assert client.error("/v1/embeddings", {"input": long}) == (400, "text_too_long", "input.0")
    assert client.json("/v1/embeddings", {"input": long, "truncate": True})["usage"]["truncated"] == [0]
    assert client.post("/embed", {"inputs": long}).status_code == 422


def test_a_bug_says_nothing_of_itself(encoder: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    client = made(encoder)

    def broken(*_: object) -> None:
        raise RuntimeError("the secret text, and /a/path")

    monkeypatch.setattr(encoder, "run_rows", broken)
    with caplog.at_level(logging.INFO, "trivec.server"):
        answers = [client.post("/v1/embeddings", {"input": "secret"}) for _ in range(3)]
    for answer in answers:
        assert code(answer) == (500, "internal_error")
        assert "secret" not in answer.text
        assert "path" not in answer.text
        assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
    assert "secret" not in caplog.text
    assert caplog.text.count("came from:") == 1  # a minute
    monkeypatch.undo()
    assert client.json("/v1/embeddings", {"input": "a"})


def test_states(encoder: Any) -> None:
    client = made(encoder)
    app = client.app
    app.state = "loading"
    assert client.get("/health/live").status_code == 200
    for path in ("/health", "/health/ready", "/ping"):
        assert client.get(path).status_code == 503
    answer = client.post("/v1/embeddings", BODY)
    assert code(answer) == (503, "loading")
    assert answer.headers["retry-after"] == "1"
    assert client.post("/embed", {"inputs": "a"}).json()["error_type"] == "Unhealthy"
    app.state = "draining"
    assert client.get("/health").status_code == 503
    answer = client.post("/v1/embeddings", BODY)
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    app.refuses = True
    assert code(client.post("/v1/embeddings", BODY)) == (503, "draining")
    assert client.get("/health/live").status_code == 200


def test_behind_a_proxy_that_keeps_a_prefix(encoder: Any) -> None:
    client = made(encoder, root_path="/models/a")
    for path in ("/models/a/v1/embeddings", "/v1/embeddings"):
        assert client.post(path, BODY).status_code == 200
    assert client.get("/models/a/health").status_code == 200
    assert client.post("/models/a/embed", {"inputs": []}).json()["error_type"] == "Empty"
    assert client.post("/models/b/v1/embeddings", BODY).status_code == 404


def test_a_stuck_model_is_told(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = made(encoder)
    monkeypatch.setattr(client.app.registry.models["tiny"].queue, "is_stuck", lambda: True)
    assert client.get("/health/ready").status_code == 503
    assert client.get("/health/live").status_code == 500


def test_metrics_are_there_from_the_start(encoder: Any) -> None:
    client = made(encoder)
    lines = client.get("/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    names = {line.partition("{")[0].partition(" ")[0] for line in values}
    for name in NAMES.split():
        assert f"trivec_{name}" in names
    assert any(name.startswith("process_") for name in names)
    assert values['trivec_requests_total{model="tiny",route="/v1/embeddings",status="200"}'] == "0.0"
    for reason in ("overloaded", "timeout", "disconnected", "draining", "too_large", "auth", "origin"):
        assert values[f'trivec_rejected_total{{reason="{reason}"}}'] == "0.0"
    client.json("/v1/embeddings", {"input": ["a", "dog " * 40], "model": "tiny:query"})
    client.error("/v1/embeddings", {"input": "a", "model": "unknown-model"})
    text = client.get("/metrics").text
    assert 'trivec_requests_total{model="tiny",route="/v1/embeddings",status="200"} 1.0' in text
    assert 'trivec_texts_total{model="tiny",output="dense"} 2.0' in text
    assert 'trivec_truncated_texts_total{model="tiny"} 1.0' in text
    assert "unknown-model" not in text
    assert 'trivec_requests_total{model="-",route="/v1/embeddings",status="404"} 1.0' in text


def test_the_description(encoder: Any) -> None:
    found = json.loads(made(encoder).get("/openapi.json").text)
    assert found["openapi"] == "3.1.0"
    fields = found["components"]["schemas"]["Embeddings"]["properties"]
    assert {"input", "outputs", "dimensions", "encoding_format"} <= fields.keys()
    assert {"/v1/embeddings", "/rerank", "/embed", "/v1/models"} <= found["paths"].keys()


@pytest.mark.parametrize(
    "limits",
    [{"max_texts": 0}, {"timeout": -1}, {"on_overflow": "x"}, {"token_ids": "cl100k_base"}, {"max_batch_tokens": 0}],
)
def test_limits_that_cannot_be(limits: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Settings(**limits)


def test_names_that_cannot_be(encoder: Any) -> None:
    with pytest.raises(InputError, match="there is no model 'x'"):
        trivec.server.app({"tiny": encoder}, aliases={"a": "x"})
    with pytest.raises(InputError, match="is a model's name already"):
        trivec.server.app({"tiny": encoder}, aliases={"tiny": "tiny"})
    with pytest.raises(InputError, match="cannot be called 'x:query'"):
        trivec.server.app({"x:query": encoder})
    with pytest.raises(InputError, match="below the 16 tokens"):
        trivec.server.app({"tiny": encoder}, max_batch_tokens=15)
    with pytest.raises(InputError, match="'far' is a Elsewhere: a server runs models itself"):
        trivec.server.app({"far": type("Elsewhere", (), {})()})
    with pytest.raises(TypeError):
        trivec.server.app({"tiny": encoder}, max_text=15)
