"""What is asked again, after which wait, and what is not."""

import email.utils
import json
import re
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.support.loopback import Loopback, Reply, Time, vectors

import trivec.hosted
from trivec._errors import ServiceError
from trivec.hosted import HostedEncoder
from trivec.hosted._providers import PROVIDERS as ROWS

Open = Callable[..., HostedEncoder]
BUSY = {
    "openai": {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}},
    "voyage": {"detail": "Rate limit"},
    "cohere": {"message": "too fast"},
    "mistral": {"object": "error", "message": "Requests rate limit exceeded", "type": "rate_limited", "code": "1300"},
    "jina": {"detail": "RATE_LIMIT_EXCEEDED"},
    "nomic": {"detail": "slow down"},
    "gemini": {"error": {"code": 429, "message": "Resource exhausted", "status": "RESOURCE_EXHAUSTED"}},
    "tei": {"error": "Model is overloaded", "error_type": "overloaded"},
}


@pytest.fixture
def patient(opened: Open) -> tuple[Open, Time]:
    """`open` with a time of its own."""
    own = Time()

    def open_(provider: str, **options: Any) -> HostedEncoder:
        encoder = opened(provider, **options)
        encoder._embeddings.service.clock, encoder._embeddings.service.sleep = own.clock, own.sleep
        return encoder

    return open_, own


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "1"}, 1.0, 1.0),
        ({"retry-after-ms": "50"}, 0.05, 0.05),
        ({"Retry-After": "2", "retry-after-ms": "1500"}, 1.5, 1.5),
        ({"Retry-After": "0"}, 0.0, 0.0),
        ({}, 0.0, 0.5),
        ({"Retry-After": "soon"}, 0.0, 0.5),
    ],
)
def test_429(
    provider: str, server: Loopback, patient: tuple[Open, Time], headers: dict[str, str], least: float, most: float
) -> None:
    open_, own = patient
    server.replies.append(Reply(429, BUSY[provider], headers=headers))
    encoder = open_(provider)
    np.testing.assert_array_equal(encoder.encode(["a"]), vectors(["a"]))
    assert len(server.asked) == 2
    assert own.waits[:1] != [] or least == 0
    assert least <= own.now <= most + 1e-6
    assert encoder.usage.retries == 1
    assert encoder.usage.requests == 2
    assert encoder.usage.seconds_waited == pytest.approx(own.waits[0])


def test_429_until_a_date(provider: str, server: Loopback, patient: tuple[Open, Time]) -> None:
    open_, own = patient
    date = email.utils.formatdate(time.time() + 30, usegmt=True)  # whole seconds
    server.replies.append(Reply(429, BUSY[provider], headers={"Retry-After": date}))
    open_(provider).encode(["a"])
    assert 20 < own.waits[0] <= 30


def test_429_for_an_hour_raises_at_once(provider: str, server: Loopback, patient: tuple[Open, Time]) -> None:
    open_, own = patient
    server.replies.append(Reply(429, BUSY[provider], headers={"Retry-After": "3600"}))
    with pytest.raises(ServiceError, match=r"pause of 3600 s\. That is more than max_wait=60: call again") as caught:
        open_(provider).encode(["a"])
    assert (len(server.asked), own.waits, caught.value.retry_after) == (1, [], 3600.0)
    assert (caught.value.provider, caught.value.status) == (provider, 429)


def test_gemini_says_the_delay_in_the_body(server: Loopback, patient: tuple[Open, Time]) -> None:
    open_, own = patient
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}
    message = "You exceeded your current quota, please check your plan and billing details"  # of a minute, too
    body = {"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": [info]}}
    server.replies.append(Reply(429, body))
    open_("gemini").encode(["a"])
    assert own.waits[0] == 17.0


LATE = "Please read what follows with care, since it is long before it comes to its point. " * 4
REFUSED = {
    "no money, OpenAI": (
        "openai",
        429,
        {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}},
    ),
    "no money, Jina": ("jina", 403, {"detail": "AUTHZ_INSUFFICIENT_BALANCE"}),
    "pay, Jina": ("jina", 402, {"error": "Payment required"}),
    "balance, Voyage": ("voyage", 402, {"detail": "no payment method"}),
    "no money, said late": ("voyage", 429, {"detail": f"{LATE}Your balance is used up."}),
    "a trial's end, Cohere": ("cohere", 429, {"message": "You are past your billing limit"}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_no_money_is_asked_for_once(case: str, server: Loopback, patient: tuple[Open, Time]) -> None:
    name, status, body = REFUSED[case]
    open_, own = patient
    server.replies.append(Reply(status, body))
    with pytest.raises(ServiceError) as caught:
        open_(name).encode(["a"])
    assert (len(server.asked), own.waits, caught.value.status) == (1, [], status)
    if status != 429:
        assert ROWS[name].keys[0] in str(caught.value)


def test_a_wrong_key_names_its_variable(provider: str, server: Loopback, patient: tuple[Open, Time]) -> None:
    open_, own = patient
    server.replies.append(Reply(401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}))
    with pytest.raises(ServiceError, match=rf"{provider} answered 401: Incorrect API key provided\.") as caught:
        open_(provider).encode(["a"])
    assert (len(server.asked), own.waits, caught.value.code) == (1, [], "invalid_api_key")
    if ROWS[provider].keys:
        assert f"The key came from {ROWS[provider].keys[0]}." in str(caught.value)


def test_no_key_at_all(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    row = ROWS[provider]
    for variable in row.keys:
        monkeypatch.delenv(variable, raising=False)
    expected = (
        f"{provider} needs a key. Set {' or '.join(row.keys)}" if row.keys else f"{provider} runs where you run it"
    )
    with pytest.raises(trivec.InputError, match=re.escape(expected)):
        trivec.hosted.open(f"{provider}:m")


TROUBLE = {
    "500": Reply(500, {"message": "internal"}),
    "502 HTML": Reply(502, b"<html><body>Bad Gateway</body></html>", headers={"Content-Type": "text/html"}),
    "503": Reply(503, {"error": "busy"}),
    "408": Reply(408, {"detail": "timeout"}),
    "425": Reply(425, {}),
    "cut in the middle": Reply(cut=True),
    "too slow": Reply(delay=1.0),
}


@pytest.mark.parametrize("case", TROUBLE)
def test_trouble_that_passes(provider: str, case: str, server: Loopback, patient: tuple[Open, Time]) -> None:
    open_, own = patient
    encoder = open_(provider, timeout=0.25 if case == "too slow" else 20)
    server.replies.extend([TROUBLE[case]] * (1 if case == "too slow" else 2))
    np.testing.assert_array_equal(encoder.encode(["a", "b"]), vectors(["a", "b"]))
    count = encoder.usage.retries
    if case == "too slow":  # on a busy machine more may be, and some of them before a connection stands
        assert 2 <= len(server.asked) <= count + 1
    else:
        assert (count, len(server.asked)) == (2, 3)
    assert len(own.waits) == count
    for n, wait in enumerate(own.waits):
        assert 0 <= wait <= 0.5 * 2**n


def test_nobody_listens(provider: str) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        own = Time()
        base = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with trivec.hosted.open(f"{provider}:m", base_url=base, max_retries=2) as encoder:
            encoder._embeddings.service.clock, encoder._embeddings.service.sleep = own.clock, own.sleep
            with pytest.raises(ServiceError, match=rf"{provider} did not answer \(ConnectError") as caught:
                encoder.encode(["a"])
        assert (encoder.usage.retries, encoder.usage.requests) == (2, 3)
        assert (caught.value.status, caught.value.done) == (None, 0)


def test_trouble_that_stays(provider: str, server: Loopback, patient: tuple[Open, Time]) -> None:
    """`done` counts the texts, from the first on, that were answered."""
    open_, _ = patient
    encoder = open_(provider, max_retries=3)
    texts = [f"text {n}" for n in range(5)]
    server.refuse = lambda some: Reply(503, {"message": "down"}) if "text 3" in some else None
    with pytest.raises(ServiceError, match=rf"{provider} answered 503") as caught:
        encoder.encode(texts, batch_size=1)
    assert caught.value.done == 3
    assert sum(asked.texts == ["text 3"] for asked in server.asked) == 4
    assert server.texts.count("text 0") == 1


def test_one_pause_for_all(server: Loopback, opened: Open) -> None:
    """What one request is told, all obey: while it waits, none is sent."""
    encoder = opened("openai", concurrency=4)
    sent: list[float] = []
    server.refuse = lambda _: sent.append(time.monotonic())
    server.replies.append(Reply(429, BUSY["openai"], headers={"retry-after-ms": "700"}))
    server.replies.extend([Reply(delay=0.1)] * 3)  # under way already
    encoder.encode([f"t{n}" for n in range(12)], batch_size=1)
    assert len(sent) == 13 - 4
    assert sorted(server.texts) == sorted([f"t{n}" for n in range(12)] + [server.asked[0].texts[0]])
    first = min(sent)
    assert encoder.usage.seconds_waited == pytest.approx(0.7)
    assert max(sent) - first < 5  # together, once the pause is over


def test_a_redirect_is_refused_and_the_key_stays_here(provider: str, server: Loopback, opened: Open) -> None:
    with Loopback() as elsewhere:
        server.replies.append(Reply(307, {}, headers={"Location": f"{elsewhere.url}/v1/embeddings"}))
        with pytest.raises(ServiceError, match=r"answered 307.*Redirects, here to .* are not followed"):
            opened(provider).encode("a")
        assert elsewhere.asked == []


def test_what_a_service_says_is_cut_at_200_letters(server: Loopback, opened: Open) -> None:
    server.replies.append(
        Reply(400, {"error": {"message": "x" * 5000, "code": "odd", "type": "t"}}, headers={"x-request-id": "r1"})
    )
    with pytest.raises(ServiceError) as caught:
        opened("openai").encode("a")
    assert "x" * 200 + "." in str(caught.value)
    assert "x" * 201 not in str(caught.value)
    assert (caught.value.request_id, caught.value.code) == ("r1", "odd")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"detail": [{"loc": ["body"], "msg": "field required", "type": "missing"}]}, "field required"),
        ({"error": "bad"}, "bad"),
        ({"message": "bad"}, "bad"),
        ({"error": {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"}}, "bad"),
        ("bad", "bad"),
        ({}, "{}"),
        (b"<b>bad</b>", "<b>bad</b>"),
        (b"", "Bad Request"),
    ],
)
def test_every_shape_of_an_error(server: Loopback, opened: Open, body: Any, message: str) -> None:
    server.replies.append(Reply(400, body if isinstance(body, bytes) else json.loads(json.dumps(body))))
    with pytest.raises(ServiceError, match=re.escape(message)) as caught:
        opened("openai").encode("a")
    assert caught.value.status == 400
    assert len(server.asked) == 1
