"""How many texts a request has, how many requests are under way, and what happens where a service wants less."""

from collections.abc import Callable, Generator, Iterator

import numpy as np
import pytest
from tests.support.loopback import PROVIDERS, Loopback, Reply, vectors

from trivec._errors import InputError, ServiceError, TruncationError
from trivec.hosted import HostedEncoder
from trivec.hosted._batches import Budget, estimated_tokens

Open = Callable[..., HostedEncoder]
INPUTS = {
    "openai": 2048,
    "voyage": 1000,
    "cohere": 96,
    "mistral": 512,
    "jina": 512,
    "nomic": 10,
    "gemini": 100,
    "tei": 2048,
}


def test_ten_thousand_texts(provider: str, server: Loopback, opened: Open) -> None:
    texts = [f"text {n}" for n in range(10_000)]
    encoder = opened(provider)
    found = encoder.encode(texts)
    np.testing.assert_array_equal(found, vectors(texts))
    sizes = [len(asked.texts) for asked in server.asked]
    assert max(sizes) == INPUTS[provider]
    assert sum(sizes) == len(texts)
    assert server.most_at_once <= 4
    assert server.most_sockets <= 4
    assert encoder.usage.texts == len(texts)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_requests_under_way(server: Loopback, opened: Open, concurrency: int) -> None:
    server.delay = 0.02
    opened("cohere", concurrency=concurrency).encode([f"t{n}" for n in range(96 * 12)])
    assert server.most_at_once == concurrency
    assert server.most_sockets <= concurrency


def test_a_stream_is_read_a_few_batches_ahead(server: Loopback, opened: Open) -> None:
    """At most concurrency + 1 batches are held: of an endless source no more is taken than that."""
    taken = 0

    def source() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"text {taken}"

    blocks = opened("cohere", concurrency=2).encode_iter(source(), window=96)
    for number in range(1, 6):
        assert next(blocks).shape == (96, 8)
        assert taken <= 96 * (number + 3)
    assert isinstance(blocks, Generator)
    blocks.close()
    assert len(server.texts) <= 96 * 8


def test_windows_are_what_comes_out(provider: str, opened: Open) -> None:
    texts = [f"text {n}" for n in range(2500)]
    blocks = list(opened(provider).encode_iter(iter(texts), window=1000))
    assert [len(block) for block in blocks] == [1000, 1000, 500]
    np.testing.assert_array_equal(np.concatenate(blocks), vectors(texts))


def test_batch_size_asks_for_fewer(server: Loopback, opened: Open) -> None:
    opened("openai").encode([f"t{n}" for n in range(10)], batch_size=4)
    assert sorted(len(asked.texts) for asked in server.asked) == [2, 4, 4]


def test_a_request_holds_so_many_tokens(server: Loopback, opened: Open) -> None:
    """Mistral's least known limit is 16,384 for all texts of a request."""
    texts = [f"{n} " + "word " * 900 for n in range(40)]  # 4,504 bytes: about 1,500 tokens by our estimate
    opened("mistral").encode(texts)
    assert max(sum(map(estimated_tokens, asked.texts)) for asked in server.asked) <= 16_000
    assert min(len(asked.texts) for asked in server.asked[:-1]) == 10


def test_a_request_of_geminis_has_at_most_4_mib(server: Loopback, opened: Open) -> None:
    texts = ["\x01" * 100_000 + str(n) for n in range(30)]  # six bytes each in JSON
    opened("gemini").encode(texts)
    assert all(int(asked.headers["content-length"]) <= 4 << 20 for asked in server.asked)
    assert len(server.asked) >= 5


def test_the_estimate() -> None:
    assert estimated_tokens("a" * 30) == 10
    assert estimated_tokens("東京") == 3  # 6 bytes of UTF-8
    assert estimated_tokens("aéa") == pytest.approx(2 / 3 + 1)


def test_the_budget_takes_a_text_that_is_larger_than_all_of_it() -> None:
    assert list(Budget(10, 5).parts(["a" * 300, "b", "c"], [0, 1, 2])) == [[0], [1, 2]]
    assert list(Budget(2, 1e9).parts(["a"] * 5, range(5))) == [[0, 1], [2, 3], [4]]
    assert list(Budget(2, 1e9).parts([], [])) == []


@pytest.mark.parametrize("letter", ["a", "é", "東", "🙂"])
def test_the_budget_looks_at_each_text_only_where_it_must(letter: str) -> None:
    """What fits by a bound of all letters is what fits text by text: with a limit of bytes each is looked at."""
    for count in range(1, 40):
        for beside in (0.0, 3.0):
            texts, limits = [letter * (1 + n % 5) for n in range(count)], (30, 60.0)
            parts = Budget(*limits).parts(texts, range(count), beside=beside)
            assert list(parts) == list(Budget(*limits, 1 << 40).parts(texts, range(count), beside=beside))


MISTRAL = {"object": "error", "type": "invalid_request_prompt", "param": None, "code": "3210"}


def mistral(texts: list[str]) -> Reply | None:
    many = sum(len(text.split()) for text in texts) > 100
    return Reply(400, {**MISTRAL, "message": "Too many tokens in batch. Max: 100"}) if many else None


def tei(texts: list[str]) -> Reply | None:
    message = f"batch size {len(texts)} > maximum allowed batch size 32"
    return Reply(413, {"message": message, "type": "validation"}) if len(texts) > 32 else None


@pytest.mark.parametrize(("provider", "refuse"), [("mistral", mistral), ("tei", tei)])
def test_what_is_too_much_is_split_until_it_goes_through(
    provider: str, refuse: Callable[[list[str]], Reply | None], server: Loopback, opened: Open
) -> None:
    server.refuse = refuse
    texts = [f"{n} five words in all" for n in range(400)]
    encoder = opened(provider)
    np.testing.assert_array_equal(encoder.encode(texts), vectors(texts))
    first = len(server.asked)
    np.testing.assert_array_equal(encoder.encode([f"again {t}" for t in texts]), vectors([f"again {t}" for t in texts]))
    later = server.asked[first:]
    assert [asked for asked in later if refuse(asked.texts)] == []  # it has learnt
    assert max(len(asked.texts) for asked in later) >= 10
    assert encoder.usage.retries == 0


def test_mistral_has_the_same_code_for_too_many_texts(server: Loopback, opened: Open) -> None:
    body = {**MISTRAL, "message": "Too many inputs in request, split into more batches."}
    server.refuse = lambda texts: Reply(400, body) if len(texts) > 100 else None
    encoder = opened("mistral")
    encoder.encode([f"t{n}" for n in range(500)])
    assert (encoder._embeddings.budget.inputs, encoder._embeddings.budget.tokens) == (63, 16_000)  # 500, 250, 125, 63


LONG = {
    "openai": Reply(
        400,
        {"error": {"message": "This model's maximum context length is 8192 tokens, however you requested 9000 tokens"}},
    ),
    "voyage": Reply(
        400,
        {"detail": "The example at index 0 in your batch has too many tokens and does not fit"},
    ),
    "cohere": Reply(400, {"message": "too many tokens: 9000 (max 512)"}),
    "mistral": Reply(400, {**MISTRAL, "message": "Input id 3 has 9000 tokens, exceeding max 8192 tokens."}),
    "jina": Reply(422, {"detail": "Input text exceeds maximum length of 8194 tokens"}),
    "nomic": Reply(400, {"detail": "text too long"}),
    "gemini": Reply(
        400,
        {"error": {"code": 400, "message": "The input token count exceeds the maximum number of tokens allowed 2048"}},
    ),
    "tei": Reply(
        413,
        {
            "message": "Input validation error: `inputs` must have less than 512 tokens. Given: 9000",
            "type": "validation",
        },
    ),
}


def test_one_text_is_too_long(provider: str, server: Loopback, opened: Open) -> None:
    texts = [f"text {n}" for n in range(9)]
    server.refuse = lambda some: LONG[provider] if "text 6" in some else None
    encoder = opened(provider)
    budget = encoder._embeddings.budget
    before = budget.inputs, budget.tokens
    with pytest.raises(TruncationError, match=r"the text at index 6 is longer than the model reads"):
        encoder.encode(texts)
    assert (budget.inputs, budget.tokens) == before  # the text was the cause, not the batch
    assert server.asked[-1].texts == ["text 6"]


def test_what_is_too_long_may_be_said_late(server: Loopback, opened: Open) -> None:
    """Behind the 200 letters that are shown."""
    message = "Please read what follows with care, since it is long before it comes to its point. " * 4
    body = {"message": f"{message}There are too many tokens."}
    server.refuse = lambda texts: Reply(400, body) if len(texts) > 5 else None
    np.testing.assert_array_equal(opened("cohere").encode(list("abcdefgh")), vectors(list("abcdefgh")))


def test_what_to_do_about_it(server: Loopback, opened: Open) -> None:
    server.refuse = lambda _: LONG["voyage"]
    with pytest.raises(TruncationError, match=r"pass on_overflow='truncate'"):
        opened("voyage").encode("x", on_overflow="error")
    with pytest.raises(TruncationError, match=r"split it: this service does not cut texts"):
        opened("openai").encode("x")


def test_late_chunking_is_not_split(server: Loopback, opened: Open) -> None:
    server.refuse = lambda _: LONG["jina"]
    with pytest.raises(ServiceError, match=r"jina answered 422: Input text exceeds"):
        opened("jina", extra_body={"late_chunking": True}).encode(["a", "b"])
    assert len(server.asked) == 1


@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_blank_texts(provider: str, server: Loopback, opened: Open, blank: str) -> None:
    with pytest.raises(InputError, match=r"the text at index 1 is blank"):
        opened(provider).encode(["a", blank])
    assert server.asked == []
    zeros = opened(provider, blank="zeros")
    np.testing.assert_array_equal(zeros.encode(["a", blank, "b"]), [vectors(["a"])[0], np.zeros(8), vectors(["b"])[0]])
    assert server.texts == ["a", "b"]
    np.testing.assert_array_equal(zeros.encode([blank]), np.zeros((1, 8)))


def test_no_texts(provider: str, server: Loopback, opened: Open) -> None:
    assert opened(provider, dimensions=5).encode([]).shape == (0, 5)
    assert server.asked == []
    encoder = opened(provider)
    assert encoder.encode([]).shape == (0, 8)  # nobody knew the width: one word is sent, once
    assert encoder.encode([]).shape == (0, 8)
    assert list(encoder.encode_iter([])) == []
    assert server.texts == ["dimension"]
    assert encoder.usage.requests == 1


def test_lone_surrogates(server: Loopback, opened: Open) -> None:
    with pytest.raises(InputError, match=r"the text at index 1 holds a lone surrogate"):
        opened("openai").encode(["a", "b\ud800"])
    assert server.asked == []


def test_every_provider_is_tested() -> None:
    from trivec.hosted._providers import PROVIDERS as ROWS

    assert set(ROWS) == set(PROVIDERS) == set(INPUTS) == set(LONG)
