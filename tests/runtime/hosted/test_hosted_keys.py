"""A key goes to its service and nowhere else: its bytes are looked for wherever something could be read."""

import copy
import logging
import pickle
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.loopback import KEY, Loopback, Reply

import trivec.hosted
from trivec._errors import InputError, ServiceError
from trivec.hosted import HostedEncoder
from trivec.hosted._key import Key
from trivec.hosted._providers import PROVIDERS as ROWS

Open = Callable[..., HostedEncoder]


def shown(error: BaseException) -> str:
    """All that a report of an error could show, the locals of each frame as well."""
    assert error.__traceback__ is not None
    ours = error.__traceback__.tb_next  # the first frame is the test's
    report = traceback.TracebackException(type(error), error, ours, capture_locals=True)
    return "".join(report.format()) + repr(vars(error))


@pytest.mark.parametrize("given", [True, False])
def test_it_is_found_nowhere(
    provider: str, given: bool, server: Loopback, opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    options: dict[str, Any] = {"api_key": KEY} if given and ROWS[provider].keys else {}
    encoder = opened(provider, cache=tmp_path / "cache.db", max_retries=0, **options)
    encoder.encode(["a"])
    texts = [repr(encoder), encoder.name, encoder.fingerprint, repr(encoder._options), repr(vars(encoder))]
    texts += [repr(encoder._embeddings.service.key), str(encoder._embeddings.service.key)]
    line = encoder._embeddings.service._line
    assert line is not None
    texts += [repr(line.client), repr(line.client.headers), repr(dict(line.client.headers)), repr(line.client.auth)]
    echo = KEY if ROWS[provider].keys else "none"  # some services repeat it
    replies = [
        Reply(401, {"error": {"message": f"Incorrect API key provided: {echo}"}}),
        Reply(500, f"key {echo}".encode()),
        Reply(200, f"no JSON {echo}".encode()),
        Reply(cut=True),
        Reply(body={}),
        Reply(302, {}, headers={"Location": "http://127.0.0.1:9/"}),
    ]
    for reply in replies:
        server.replies.append(reply)
        with pytest.raises(ServiceError) as caught:
            encoder.encode(["b"])
        texts.append(shown(caught.value))
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        texts.append(repr(pickle.dumps(caught.value)))
    texts.append(caplog.text)
    texts += [repr(vars(record)) for record in caplog.records]
    if not given or not ROWS[provider].keys:
        texts.append(repr(pickle.dumps(encoder)))
    encoder.close()
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert files != []
    assert [text for text in texts if KEY in text] == []
    assert [data for data in files if KEY.encode() in data] == []
    assert any(KEY in value for asked in server.asked for value in asked.headers.values()) is bool(ROWS[provider].keys)


def test_pickles_name_a_place_and_no_key(server: Loopback, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = opened("openai", dimensions=4, concurrency=2)
    encoder.prompts["query"] = "q: "
    again = pickle.loads(pickle.dumps(encoder))
    with again:
        assert (again.name, again.fingerprint, again.prompts) == (encoder.name, encoder.fingerprint, encoder.prompts)
        again.encode("a")
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    with pickle.loads(pickle.dumps(encoder)) as other:
        other.encode("a")
    assert server.asked[1].headers["authorization"] == "Bearer sk-another"


def test_an_argument_is_not_pickled(opened: Open) -> None:
    encoder = opened("openai", api_key=KEY)
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InputError, match=r"cannot be pickled: .* Set OPENAI_API_KEY here and there, and leave"):
            copied(encoder)
    with pytest.raises(TypeError, match="a key is not pickled"):
        pickle.dumps(Key(KEY))


def test_no_key_stays_no_key(server: Loopback, opened: Open) -> None:
    with pickle.loads(pickle.dumps(opened("openai", api_key=None))) as encoder:
        encoder.encode("a")
    assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize("host", ["http://example.com/v1", "http://10.0.0.7:8080", "http://127.0.0.1.example.com"])
def test_http_to_another_machine(host: str) -> None:
    with pytest.raises(InputError, match=r"a key goes over https:// alone, or to this machine"):
        trivec.hosted.open("openai:m", base_url=host)
    assert trivec.hosted.open("openai:m", base_url=host, api_key=None).name


def test_addresses() -> None:
    for url in ("http://localhost:8080/v1", "http://127.1.2.3", "http://[::1]:8080", "https://example.com/v1/"):
        assert trivec.hosted.open("openai:m", base_url=url).device
    for url, why in {
        "ftp://example.com": "must begin with https:// or http://",
        "example.com": "must begin with https:// or http://",
        "https://": "name a host",
        "https://user:secret@example.com": "no user, password",
        "https://example.com?key=secret": "no user, password",
        "https://example.com:port": "is no address",
    }.items():
        with pytest.raises(InputError, match=re.escape(why)) as caught:
            trivec.hosted.open("openai:m", base_url=url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["", " ", "two\nlines", "schlüssel"])
def test_no_key_of_that_shape(key: str) -> None:
    with pytest.raises(InputError, match=r"api_key is empty or holds what no key does") as caught:
        trivec.hosted.open("openai:m", api_key=key)
    assert not key.strip() or key not in str(caught.value)


def test_the_address_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://proxy.example.com/v1")
    assert trivec.hosted.open("openai:m").device == "proxy.example.com"
    assert trivec.hosted.open("openai:m", base_url="https://other.example.com").device == "other.example.com"


def test_the_second_variable_of_a_service(monkeypatch: pytest.MonkeyPatch, server: Loopback) -> None:
    names = {
        "cohere": "COHERE_API_KEY",
        "mistral": "MISTRALAI_API_KEY",
        "jina": "JINAAI_API_KEY",
        "gemini": "GOOGLE_API_KEY",
    }
    for provider, variable in names.items():
        monkeypatch.delenv(ROWS[provider].keys[0])
        monkeypatch.setenv(variable, "second")
        with trivec.hosted.open(f"{provider}:m", base_url=server.base(provider)) as encoder:
            encoder.encode("a")
        assert "second" in " ".join(server.asked[-1].headers.values())
