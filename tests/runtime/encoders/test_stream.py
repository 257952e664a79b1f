"""Streams of texts, and texts that come more than once, on the tiny model whose vectors numpy knows."""

import sqlite3
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tests.support.tiny_model import TinyModel

import trivec
from trivec import DenseEncoder, InputError, TruncationError
from trivec._encoders.windows import blocks
from trivec._engine.session import Session
from trivec._tokens.tokenizer import TextTokenizer

WORDS = ("find", "a", "the", "cat", "dog", "sat", "ran", "on", "under", "mat", "hill", "red", "blue", "small")


def sentence(number: int) -> str:
    """A text of its own for each number, of 1 to 8 words."""
    return " ".join(WORDS[number // 14**i % 14] for i in range(1 + number % 8)) + f" {'cat ' * (number % 3)}"


@pytest.fixture
def encoder(tiny_folder: Path) -> DenseEncoder:
    encoder: DenseEncoder = trivec.load(tiny_folder, device="cpu", threads=1)
    return encoder


def tokenizing_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("trivec-tokenizer")]


# ---- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 7, 25, 1000])
def test_blocks_come_in_order(encoder: DenseEncoder, tiny_model: "TinyModel", window: int) -> None:
    texts = [sentence(n) for n in range(25)]
    found = list(encoder.encode_iter(iter(texts), window=window))
    assert [len(block) for block in found] == [len(texts[i : i + window]) for i in range(0, 25, window)]
    assert_allclose(np.concatenate(found), tiny_model.expected(texts), atol=1e-6)


def test_no_texts_give_no_block(encoder: DenseEncoder) -> None:
    assert list(encoder.encode_iter([])) == []


def test_options_hold_for_every_block(encoder: DenseEncoder, tiny_model: "TinyModel") -> None:
    found = list(encoder.encode_iter(["cat", "red dog", "mat"], window=2, truncate_dim=5, prompt_name="query"))
    expected = tiny_model.expected(["find the cat", "find the red dog", "find the mat"])[:, :5]
    assert_allclose(np.concatenate(found), expected, atol=1e-6)


def test_texts_are_read_one_window_ahead_and_no_further(encoder: DenseEncoder) -> None:
    read = []

    def texts() -> Iterator[str]:
        for number in range(1000):
            read.append(number)
            yield sentence(number)

    found = encoder.encode_iter(texts(), window=10)
    assert read == []
    next(found)
    assert len(read) == 20
    next(found)
    assert len(read) == 30


def test_a_window_is_tokenized_in_another_thread_while_the_one_before_is_encoded(
    encoder: DenseEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session of the first window waits until the tokenizer has begun with the second."""
    began, tokenize, run = threading.Event(), TextTokenizer.__call__, Session.run_all
    caller, tokenizing = threading.get_ident(), []

    def tokenizing_call(self: TextTokenizer, texts: Any, prompt: str = "") -> Any:
        tokenizing.append(threading.get_ident())
        if len(tokenizing) == 2:
            began.set()
        return tokenize(self, texts, prompt)

    def waiting_run(self: Session, *arguments: Any) -> Any:
        assert began.wait(timeout=240)
        return run(self, *arguments)

    monkeypatch.setattr(TextTokenizer, "__call__", tokenizing_call)
    monkeypatch.setattr(Session, "run_all", waiting_run)
    assert len(list(encoder.encode_iter(["cat", "dog", "red cat", "blue dog"], window=2))) == 2
    assert len(tokenizing) == 2
    assert caller not in tokenizing


def test_the_source_is_asked_in_the_caller_s_thread(encoder: DenseEncoder) -> None:
    """A database cursor belongs to its thread."""
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table texts (text)")
        connection.executemany("insert into texts values (?)", [(sentence(n),) for n in range(30)])
        rows = connection.execute("select text from texts order by rowid")
        found = list(encoder.encode_iter((row[0] for row in rows), window=4))
    assert_allclose(np.concatenate(found), encoder.encode([sentence(n) for n in range(30)]), atol=1e-6)


@pytest.mark.parametrize(("before", "blocks_before"), [(0, 0), (3, 1), (4, 1), (5, 2), (8, 2)])
def test_an_error_of_the_source_comes_after_the_blocks_of_the_texts_before_it(
    encoder: DenseEncoder, before: int, blocks_before: int
) -> None:
    class SourceError(Exception):
        pass

    def texts() -> Iterator[str]:
        yield from (sentence(n) for n in range(before))
        raise SourceError("the connection is gone")

    found = encoder.encode_iter(texts(), window=4)
    rows: list[Any] = []
    with pytest.raises(SourceError, match="the connection is gone"):
        rows.extend(found)
    assert len(rows) == blocks_before
    assert sum(len(block) for block in rows) == before
    if before:
        assert_allclose(np.concatenate(rows), encoder.encode([sentence(n) for n in range(before)]), atol=1e-6)
    assert tokenizing_threads() == []


def test_a_bad_text_is_named_after_the_blocks_before_it(encoder: DenseEncoder) -> None:
    found = encoder.encode_iter(["a", "b", "c", 4], window=2)  # type: ignore[list-item]
    assert next(found).shape == (2, 12)
    with pytest.raises(InputError, match=r"^in the block that starts at text 2: expected strings, got int at index 1"):
        next(found)
    assert tokenizing_threads() == []


def test_a_long_text_is_named_too(encoder: DenseEncoder) -> None:
    found = encoder.encode_iter(["a", "b", "c", "cat " * 50], window=2, on_overflow="error")
    next(found)
    with pytest.raises(TruncationError, match=r"^in the block that starts at text 2: 1 of 2 texts"):
        next(found)


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_stream_that_is_closed_early_leaves_no_thread_and_closes_its_source(
    encoder: DenseEncoder, taken: int
) -> None:
    closed = []

    def texts() -> Iterator[str]:
        try:
            yield from (sentence(n) for n in range(1000))
        finally:
            closed.append(True)

    source: Any = texts()
    found: Any = encoder.encode_iter(source, window=10)
    assert len(list(islice(found, taken))) == taken
    found.close()
    assert tokenizing_threads() == []
    source.close()
    assert closed == ([True] if taken else [])
    assert encoder.encode("cat").shape == (12,)


def test_arguments_are_checked_at_the_call(encoder: DenseEncoder) -> None:
    with pytest.raises(InputError, match="window must be a whole number of at least 1, got 0"):
        encoder.encode_iter([], window=0)
    with pytest.raises(InputError, match=r"window must be a whole number of at least 1, got 2\.5"):
        encoder.encode_iter([], window=2.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"encode_iter takes an iterable of texts, got one text. Type: encode\(text\)"):
        encoder.encode_iter("one text")
    with pytest.raises(InputError, match="prompt_name 'nope' is none of this model's prompts"):
        encoder.encode_iter([], prompt_name="nope")


def test_streams_of_several_threads_do_not_mix(encoder: DenseEncoder) -> None:
    lists = [[sentence(k * 100 + n) for n in range(40)] for k in range(8)]
    found: dict[int, Any] = {}

    def work(k: int) -> None:
        found[k] = np.concatenate(list(encoder.encode_iter(lists[k], window=3)))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    for k, texts in enumerate(lists):
        assert_allclose(found[k], encoder.encode(texts), atol=1e-6)


def test_an_error_that_is_not_trivec_s_keeps_its_class() -> None:
    def fail(_: list[str]) -> list[str]:
        raise ZeroDivisionError("by zero")

    with pytest.raises(ZeroDivisionError, match=r"^by zero$"):
        list(blocks(["a"], 1, fail, lambda ready: ready))


# ---- the same text more than once ------------------------------------------------------------------------------------


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every run of a session."""
    rows, run = [], Session.run_all

    def counting(self: Session, ids: Any, outputs: Any) -> Any:
        rows.append(len(ids))
        return run(self, ids, outputs)

    monkeypatch.setattr(Session, "run_all", counting)
    return rows


def test_a_text_that_comes_again_runs_once(encoder: DenseEncoder, tiny_model: "TinyModel", ran: list[int]) -> None:
    texts = ["cat", "a red dog", "cat", "cat", "mat", "a red dog", "Cat"]
    found = encoder.encode(texts)
    assert sum(ran) == 4
    assert_allclose(found, tiny_model.expected(texts), atol=1e-6)
    assert_array_equal(found[0], found[2])
    found[0] = 0  # rows are the caller's own
    assert np.abs(found[2]).max() > 0


def test_every_output_has_a_row_for_each_text(encoder: DenseEncoder, tiny_model: "TinyModel") -> None:
    texts = ["cat", "a red dog", "cat"]
    assert_allclose(
        encoder.encode(texts, normalize_embeddings=True, truncate_dim=5),
        (v := tiny_model.expected(texts)[:, :5]) / np.linalg.norm(v, axis=1, keepdims=True),
        atol=1e-6,
    )
    bits = encoder.encode(texts, precision="ubinary")
    assert_array_equal(bits, np.packbits(tiny_model.expected(texts) > 0, axis=-1))
    tokens: Any = encoder.encode(texts, output_value="token_embeddings")
    assert [len(rows) for rows in tokens] == [3, 5, 3]
    described: Any = encoder.encode(texts, output_value=None)
    assert [item["input_ids"].tolist() for item in described] == [tiny_model.ids(text) for text in texts]


def test_counts_and_indexes_are_those_of_the_texts_as_they_came(encoder: DenseEncoder) -> None:
    long = "cat " * 50
    encoder.encode(["dog", long, "dog", long, long])
    assert encoder.truncated == 3
    with pytest.raises(TruncationError, match=r"^2 of 5 texts are longer than 16 tokens, the first at index 3\."):
        encoder.encode(["dog", "mat", "dog", long, long], on_overflow="error")
