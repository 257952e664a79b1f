"""Batcher: what meets runs together, everyone gets his own result or error, and nobody waits for ever."""

import asyncio
import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.tiny_heads import TERMS, hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
from trivec import Batcher, BusyError, InputError, NonFiniteError, TruncationError
from trivec._vectors.heads import HybridVectors

TEXTS = ["the cat sat on the mat", "", "A small RED boat", "un mot inconnu: 東京", "dog " * 40, "a", "bird", "a dog"]
LONG = "dog " * 40  # beyond the 16 tokens of the tiny models
SOON = 120.0  # seconds that stand for ever


class Gate:
    """A real encoder; its calls are written down, and wait while the gate is shut."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.calls: list[Any] = []
        self.threads: list[int] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()
        self.error: Callable[[list[str]], BaseException | None] = lambda _: None

    def encode(self, inputs: Any, **options: Any) -> Any:
        return self._call("encode", inputs, options)

    def encode_query(self, inputs: Any, **options: Any) -> Any:
        return self._call("encode_query", inputs, options)

    def encode_document(self, inputs: Any, **options: Any) -> Any:
        return self._call("encode_document", inputs, options)

    def _call(self, method: str, inputs: Any, options: dict[str, Any]) -> Any:
        self.calls.append(inputs)
        self.threads.append(threading.get_ident())
        self.entered.release()
        assert self.open.wait(SOON)
        error = self.error([inputs] if isinstance(inputs, str) else inputs)
        if error is not None:
            raise error
        return getattr(self.encoder, method)(inputs, **options)


def load(folder: Path) -> Any:
    return trivec.load(folder, device="cpu", threads=1)


def same(a: Any, b: Any) -> bool:
    """Bit for bit."""
    if isinstance(a, HybridVectors):
        return all(same(getattr(a, name), getattr(b, name)) for name in ("dense", "sparse", "colbert"))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    return bool(a == b)


@pytest.fixture
def gate(tiny_folder: Path) -> Gate:
    return Gate(load(tiny_folder))


@pytest.fixture
def batcher(gate: Gate) -> Iterator[Batcher]:
    """Over the gate; threads that a failing test leaves inside are let out."""
    made = Batcher(gate)
    yield made
    gate.open.set()
    made.close()


def held(gate: Gate, batcher: Batcher) -> "Future[Any]":
    """A run that goes on until the gate opens."""
    gate.open.clear()
    first = batcher.submit("a cat")
    assert gate.entered.acquire(timeout=SOON)
    return first


def in_thread(call: Callable[[], Any]) -> "Future[Any]":
    """The result of a call in a thread of its own."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return future


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "this should have happened by now"
        time.sleep(0.001)


# ------------------------------------------------------------------------------------------------ what runs together
def test_what_comes_during_a_run_is_encoded_together(gate: Gate, batcher: Batcher) -> None:
    first = held(gate, batcher)
    waiting = [batcher.submit(text) for text in TEXTS]
    gate.open.set()
    for text, future in [("a cat", first), *zip(TEXTS, waiting, strict=True)]:
        assert same(future.result(SOON), gate.encoder.encode(text))
    assert gate.calls == ["a cat", TEXTS]


def test_a_lone_caller_is_served_in_its_own_thread(gate: Gate, batcher: Batcher) -> None:
    threads = set(threading.enumerate())
    for method in ("encode", "encode_query", "encode_document"):
        assert same(getattr(batcher, method)("a dog"), getattr(gate.encoder, method)("a dog"))
    assert gate.threads == [threading.get_ident()] * 3
    assert set(threading.enumerate()) <= threads


def test_max_texts(gate: Gate) -> None:
    with Batcher(gate, max_texts=3) as batcher:
        held(gate, batcher)
        waiting = [batcher.submit(text) for text in TEXTS]
        gate.open.set()
        assert [same(f.result(SOON), gate.encoder.encode(t)) for f, t in zip(waiting, TEXTS, strict=True)] == [True] * 8
    assert gate.calls[1:] == [TEXTS[:3], TEXTS[3:6], TEXTS[6:]]


def test_only_calls_with_the_same_method_and_options_run_together(gate: Gate, batcher: Batcher) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = [
        ("encode", {}),
        ("encode_query", {}),
        ("encode", {"normalize_embeddings": True}),
        ("encode", {"prompt": "red "}),
        ("encode", {"prompt": "red ", "normalize_embeddings": True}),
        ("encode", {"normalize_embeddings": True, "prompt": "red "}),
        ("encode_document", {}),
        ("encode", {}),
    ]
    held(gate, batcher)
    waiting = [
        batcher.submit(text, method=method, **options) for text, (method, options) in zip(TEXTS, calls, strict=True)
    ]
    gate.open.set()
    for text, (method, options), future in zip(TEXTS, calls, waiting, strict=True):
        assert same(future.result(SOON), getattr(gate.encoder, method)(text, **options))
    assert gate.calls[1:] == [[TEXTS[0], TEXTS[7]], TEXTS[1], TEXTS[2], TEXTS[3], [TEXTS[4], TEXTS[5]], TEXTS[6]]


def test_options_that_are_equal_but_of_different_types_run_apart(gate: Gate, batcher: Batcher) -> None:
    held(gate, batcher)
    good, bad = batcher.submit("a", truncate_dim=5), batcher.submit("a", truncate_dim=5.0)
    gate.open.set()
    assert same(good.result(SOON), gate.encoder.encode("a", truncate_dim=5))
    with pytest.raises(InputError, match="truncate_dim must be between 1 and 12"):
        bad.result(SOON)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "int8"},
        {"precision": "ubinary", "normalize_embeddings": True},
        {"output_value": "token_embeddings"},
        {"truncate_dim": 7},
        {"batch_size": 1},
    ],
)
def test_rows_are_what_the_call_alone_gives(gate: Gate, batcher: Batcher, options: dict[str, Any]) -> None:
    held(gate, batcher)
    waiting = [batcher.submit(text, **options) for text in TEXTS]
    gate.open.set()
    for text, future in zip(TEXTS, waiting, strict=True):
        row = future.result(SOON)
        assert same(row, gate.encoder.encode(text, **options))
        assert row.base is None or row.base.shape[0] in (1, len(row))  # the neighbours' rows are not kept


def test_tensors_and_descriptions(gate: Gate, batcher: Batcher) -> None:
    held(gate, batcher)
    tensors = [batcher.submit(text, convert_to_tensor=True) for text in TEXTS]
    told = [batcher.submit(text, output_value=None) for text in TEXTS]
    gate.open.set()
    for text, tensor, description in zip(TEXTS, tensors, told, strict=True):
        assert torch.equal(tensor.result(SOON), gate.encoder.encode(text, convert_to_tensor=True))
        expected = gate.encoder.encode(text, output_value=None)
        assert all(same(value, expected[name]) for name, value in description.result(SOON).items())
    assert len(gate.calls) == 3


@pytest.mark.parametrize("options", [{}, {"return_dense": False}, {"return_colbert_vecs": True}])
def test_hybrid_vectors(tiny_model: "TinyModel", tmp_path: Path, options: dict[str, Any]) -> None:
    gate = Gate(load(hybrid(tmp_path / "model", tiny_model).folder))
    with Batcher(gate) as batcher:
        held(gate, batcher)
        waiting = [batcher.submit(text, **options) for text in TEXTS]
        gate.open.set()
        for text, future in zip(TEXTS, waiting, strict=True):
            assert same(future.result(SOON), gate.encoder.encode(text, **options))
    assert gate.calls == ["a cat", TEXTS]


def test_sparse_vectors(tiny_model: "TinyModel", tmp_path: Path) -> None:
    gate = Gate(load(splade(tmp_path / "model", tiny_model, random_logits(), random_weights()).folder))
    with Batcher(gate) as batcher:
        held(gate, batcher)
        documents = [batcher.submit(text, method="encode_document", max_active_dims=4) for text in TEXTS]
        queries = [batcher.submit(text, method="encode_query") for text in TEXTS]
        gate.open.set()
        for text, document, query in zip(TEXTS, documents, queries, strict=True):
            assert same(document.result(SOON), gate.encoder.encode_document(text, max_active_dims=4))
            assert same(query.result(SOON), gate.encoder.encode_query(text))
            assert document.result().indices.base is None
    assert gate.calls == ["a cat", TEXTS, TEXTS]


def test_64_threads_each_get_their_own_vectors(tiny_folder: Path) -> None:
    encoder = load(tiny_folder)
    texts = [" ".join(TEXTS[(n >> shift) % 8] for shift in (0, 3, 6)) for n in range(512)]
    expected = [encoder.encode(text) for text in texts]
    with Batcher(encoder, max_texts=16) as batcher, ThreadPoolExecutor(64) as pool:
        found = list(pool.map(batcher.encode, texts * 2, timeout=SOON))
    assert all(same(a, b) for a, b in zip(found, expected * 2, strict=True))


# ------------------------------------------------------------------------------------------------------------ errors
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ["a", "b"],
            r"a Batcher takes one text a call, got list. For many texts at once type: encoder.encode\(texts\)",
        ),
        (b"a", r"got bytes. Decode it first: text.decode\('utf-8'\)"),
        (None, "got NoneType"),
        ("a \ud800", "the text holds a lone surrogate"),
    ],
)
def test_what_is_no_text_is_refused_at_once(gate: Gate, batcher: Batcher, text: Any, message: str) -> None:
    held(gate, batcher)
    for ask in (batcher.encode, batcher.encode_query, batcher.encode_document, batcher.submit):
        with pytest.raises(InputError, match=message):
            ask(text)
    with pytest.raises(InputError, match=message):
        asyncio.run(batcher.aencode(text))


def test_options_are_checked_at_once(tiny_folder: Path) -> None:
    with Batcher(load(tiny_folder)) as batcher:
        with pytest.raises(InputError, match=r"'normalise' is no option of encode\. Expected some of: batch_size, "):
            batcher.encode("a", normalise=True)
        with pytest.raises(InputError, match="'sentences' is no option"):
            batcher.submit("a", sentences="b")
        with pytest.raises(InputError, match=r"must be hashable: unhashable type: 'list', in \{'device': \['cpu'\]\}"):
            batcher.encode("a", device=["cpu"])
        with pytest.raises(InputError, match="method 'embed' is not one of encode, encode_query, encode_document"):
            batcher.submit("a", method="embed")  # type: ignore[arg-type]
        with pytest.raises(InputError, match="'nothing' is none of this model's prompts"):
            batcher.encode("a", prompt_name="nothing")


@pytest.mark.parametrize("value", [0, -1, 1.5, None])
def test_max_texts_must_be_a_number(gate: Gate, value: Any) -> None:
    with pytest.raises(InputError, match="max_texts must be a whole number above 0, got"):
        Batcher(gate, max_texts=value)


def test_too_long_a_text_fails_alone(gate: Gate, batcher: Batcher) -> None:
    held(gate, batcher)
    waiting = {text: batcher.submit(text, on_overflow="error") for text in ("a", LONG, "bird")}
    gate.open.set()
    for text in ("a", "bird"):
        assert same(waiting[text].result(SOON), gate.encoder.encode(text))
    with pytest.raises(TruncationError, match="1 of 1 texts are longer than 16 tokens"):
        waiting[LONG].result(SOON)
    assert same(batcher.encode("a"), gate.encoder.encode("a"))


def test_a_vector_that_is_not_finite_fails_alone(tiny_model: "TinyModel", tmp_path: Path) -> None:
    table = np.random.default_rng(5).normal(size=(TERMS, 5)).astype(np.float32)
    table[tiny_model.ids("bird")[1], 2] = np.nan
    weights = np.zeros(TERMS, np.float32)
    weights[tiny_model.ids("bird")[1]] = np.nan
    gate = Gate(load(hybrid(tmp_path / "model", tiny_model, token_embeddings=table, token_weights=weights).folder))
    with Batcher(gate) as batcher:
        held(gate, batcher)
        waiting = {text: batcher.submit(text) for text in ("a", "a bird", "cat")}
        gate.open.set()
        for text in ("a", "cat"):
            assert same(waiting[text].result(SOON), gate.encoder.encode(text))
        with pytest.raises(NonFiniteError, match="'a bird'"):
            waiting["a bird"].result(SOON)


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, KeyboardInterrupt, SystemExit])
def test_no_error_of_the_encoder_ends_the_thread(gate: Gate, batcher: Batcher, error: type[BaseException]) -> None:
    held(gate, batcher)
    gate.error = lambda texts: error("guilty") if "dog" in texts else None
    waiting = {text: batcher.submit(text) for text in ("a", "dog", "cat")}
    gate.open.set()
    with pytest.raises(error, match="guilty"):
        waiting["dog"].result(SOON)
    if issubclass(error, Exception):
        assert same(waiting["a"].result(SOON), gate.encoder.encode("a"))
    else:  # such as no encoder raises: it is everyone's, but nobody waits for ever
        with pytest.raises(error, match="guilty"):
            waiting["a"].result(SOON)
    assert same(batcher.submit("bird").result(SOON), gate.encoder.encode("bird"))


def test_a_result_of_a_wrong_length_reaches_nobody(gate: Gate, batcher: Batcher) -> None:
    expected = {text: gate.encoder.encode(text) for text in ("a", "b")}
    short = np.zeros((1, 12), np.float32)
    held(gate, batcher)
    gate.encoder = type("Short", (), {"encode": lambda _, t: expected[t] if isinstance(t, str) else short})()
    waiting = {text: batcher.submit(text) for text in expected}
    gate.open.set()
    for text, future in waiting.items():
        assert same(future.result(SOON), expected[text])


def test_a_thread_that_cannot_start_is_the_callers_error(
    gate: Gate, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            batcher.submit("a")
    assert same(batcher.encode("a"), gate.encoder.encode("a"))
    assert same(batcher.submit("a").result(SOON), gate.encoder.encode("a"))
    assert gate.calls == ["a", "a"]  # what could not be taken on is not encoded later


# ------------------------------------------------------------------------------------------------ those who go again
def test_a_cancelled_future_is_left_out(gate: Gate, batcher: Batcher) -> None:
    first = held(gate, batcher)
    waiting = [batcher.submit(text) for text in ("a", "dog", "cat")]
    assert waiting[1].cancel()
    assert not first.cancel()  # it runs already
    gate.open.set()
    assert same(waiting[2].result(SOON), gate.encoder.encode("cat"))
    with pytest.raises(CancelledError):
        waiting[1].result(SOON)
    assert gate.calls == ["a cat", ["a", "cat"]]


def test_a_cancelled_coroutine_is_left_out(gate: Gate, batcher: Batcher) -> None:
    async def main() -> list[Any]:
        held(gate, batcher)
        tasks = [asyncio.ensure_future(batcher.aencode(text)) for text in ("a", "dog", "cat")]
        await asyncio.sleep(0)
        tasks[1].cancel()
        with pytest.raises(asyncio.TimeoutError):  # another way to go
            await asyncio.wait_for(batcher.aencode("bird"), 0.05)
        gate.open.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    a, dog, cat = asyncio.run(main())
    assert same(a, gate.encoder.encode("a"))
    assert isinstance(dog, asyncio.CancelledError)
    assert same(cat, gate.encoder.encode("cat"))
    assert gate.calls == ["a cat", ["a", "cat"]]


def test_coroutines_run_together_without_a_thread_each(gate: Gate, batcher: Batcher) -> None:
    async def main() -> list[Any]:
        held(gate, batcher)
        asked = asyncio.gather(*(batcher.aencode(text, method="encode_query") for text in TEXTS * 50))
        await asyncio.sleep(0)
        before = set(threading.enumerate())
        gate.open.set()
        found = await asked
        assert set(threading.enumerate()) <= before
        return found

    threads = set(threading.enumerate())
    found = asyncio.run(main())
    assert len(set(threading.enumerate()) - threads) == 1
    assert all(same(row, gate.encoder.encode_query(text)) for row, text in zip(found, TEXTS * 50, strict=True))
    assert [len(call) for call in gate.calls[1:]] == [64] * 6 + [16]


def test_an_interrupted_caller_takes_its_text_out(
    gate: Gate, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(future: "Future[Any]", timeout: float | None = None) -> Any:
        raise KeyboardInterrupt

    first = held(gate, batcher)
    with monkeypatch.context() as patch:
        patch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            batcher.encode("dog")
    gate.open.set()
    first.result(SOON)
    batcher.close()
    assert gate.calls == ["a cat"]


def test_an_error_in_the_callers_own_thread_frees_the_turn(gate: Gate, batcher: Batcher) -> None:
    gate.error = lambda texts: KeyboardInterrupt() if texts == ["dog"] else None
    with pytest.raises(KeyboardInterrupt):
        batcher.encode("dog")
    assert same(batcher.encode("a"), gate.encoder.encode("a"))
    assert same(batcher.submit("a").result(SOON), gate.encoder.encode("a"))


def test_a_callback_may_ask_again(gate: Gate, batcher: Batcher) -> None:
    found: Future[Any] = Future()
    held(gate, batcher).add_done_callback(lambda _: found.set_result(batcher.encode("dog")))
    gate.open.set()
    assert same(found.result(SOON), gate.encoder.encode("dog"))


# ----------------------------------------------------------------------------------------------------- max_waiting
def test_max_waiting(gate: Gate) -> None:
    with Batcher(gate, max_waiting=2) as batcher:
        held(gate, batcher)
        waiting = [batcher.submit("a"), batcher.submit("dog")]
        for ask in (batcher.submit, batcher.encode):
            with pytest.raises(BusyError, match="2 texts wait already, and max_waiting is 2"):
                ask("cat")
        gate.open.set()
        assert [same(f.result(SOON), gate.encoder.encode(t)) for f, t in zip(waiting, ("a", "dog"), strict=True)]
        assert same(batcher.encode("cat"), gate.encoder.encode("cat"))


# ----------------------------------------------------------------------------------------------------------- the end
def test_close_finishes_what_waits(gate: Gate) -> None:
    batcher = Batcher(gate)
    held(gate, batcher)
    waiting = [batcher.submit(text) for text in TEXTS]
    closing = in_thread(batcher.close)
    until(lambda: batcher._queue._closed)
    with pytest.raises(InputError, match=r"this Batcher is closed. Make another: Batcher\(encoder\)"):
        batcher.submit("a")
    assert not closing.done()
    gate.open.set()
    closing.result(SOON)
    assert all(same(f.result(0), gate.encoder.encode(t)) for f, t in zip(waiting, TEXTS, strict=True))
    batcher.close()
    for ask in (batcher.encode, batcher.encode_query, batcher.encode_document, batcher.submit):
        with pytest.raises(InputError, match="this Batcher is closed"):
            ask("a")
    assert same(gate.encoder.encode("a"), waiting[5].result())  # the encoder stays open


def test_close_from_a_callback(gate: Gate) -> None:
    batcher = Batcher(gate)
    done = threading.Event()
    first = held(gate, batcher)

    def close(_: "Future[Any]") -> None:
        batcher.close()
        done.set()

    first.add_done_callback(close)
    last = batcher.submit("a")
    gate.open.set()
    assert done.wait(SOON)
    assert same(last.result(SOON), gate.encoder.encode("a"))


def test_a_forgotten_batcher_leaves_neither_thread_nor_encoder(gate: Gate) -> None:
    batcher = Batcher(gate)
    batcher.submit("a").result(SOON)
    thread = batcher._queue._thread
    assert thread is not None
    reference = weakref.ref(gate.encoder)
    gate.calls.clear()
    del batcher
    gc.collect()
    thread.join(SOON)
    assert not thread.is_alive()
    gate.encoder = None
    gc.collect()
    assert reference() is None


def test_a_closed_encoder_is_everyones_error(tiny_folder: Path) -> None:
    encoder = load(tiny_folder)
    with Batcher(encoder) as batcher:
        encoder.close()
        with pytest.raises(InputError, match="this encoder is closed"):
            batcher.encode("a")
        with pytest.raises(InputError, match="this encoder is closed"):
            batcher.submit("a").result(SOON)


def test_pickle_and_copy_are_refused(batcher: Batcher) -> None:
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InputError, match=r"Pickle its encoder, and there type: Batcher\(encoder\)"):
            act(batcher)


def test_the_interpreter_ends_with_everything_encoded(tiny_folder: Path) -> None:
    code = """
import sys, trivec
from trivec._concurrency.batcher import Batcher
batcher = Batcher(trivec.load(sys.argv[1], device="cpu", threads=1))
last = [batcher.submit("a dog " * 20) for _ in range(5000)][-1]
last.add_done_callback(lambda future: print(future.result().shape, flush=True))
"""
    assert run(code, tiny_folder) == "(12,)\n"


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, "PYTHONPATH": str(Path(trivec.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
