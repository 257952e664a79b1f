"""Batcher before a reranker: documents of many callers' queries meet in one run, and each caller gets his own ranks."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.rerankers import TinyReranker, write_tiny_reranker

import trivec
from trivec import Batcher, BusyError, InputError, NonFiniteError, TruncationError

QUESTIONS = ["the cat", "a dog", "boat", "the small red bird"]
DOCUMENTS = ["sat on the mat", "a small red boat", "a dog", "the cat", "tree"]
LONG = "dog " * 40
SOON = 120.0


class Gate:
    """A real reranker; its runs are written down, and wait while the gate is shut."""

    def __init__(self, reranker: trivec.Reranker) -> None:
        self.reranker = reranker
        self.pairs_to_rank = reranker.pairs_to_rank
        self.runs: list[Any] = []
        self.entered, self.open = threading.Semaphore(0), threading.Event()
        self.open.set()

    def predict(self, inputs: Any, activation_fn: Any = None, on_overflow: str = "truncate", prompt: Any = None) -> Any:
        self.runs.append(inputs)
        self.entered.release()
        assert self.open.wait(SOON)
        return self.reranker.predict(inputs, activation_fn=activation_fn, on_overflow=on_overflow, prompt=prompt)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyReranker:
    return write_tiny_reranker(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def gate(tiny: TinyReranker) -> Iterator[Gate]:
    with trivec.load(tiny.folder, kind="reranker", device="cpu", threads=1) as reranker:
        yield Gate(reranker)


@pytest.fixture
def batcher(gate: Gate) -> Iterator[Batcher]:
    with Batcher(gate) as batcher:
        yield batcher


def expected(tiny: TinyReranker, question: str, documents: list[str] = DOCUMENTS) -> tuple[list[int], Any]:
    """The order of the documents, and their scores in it, by numpy."""
    logits = tiny.logits([(question, text) for text in documents])[:, 0]
    order = np.argsort(-logits, kind="stable")
    return order.tolist(), 1 / (1 + np.exp(-logits[order]))


def check(ranks: Any, tiny: TinyReranker, question: str) -> None:
    order, scores = expected(tiny, question)
    assert [place["corpus_id"] for place in ranks] == order
    np.testing.assert_allclose([place["score"] for place in ranks], scores, rtol=1e-5)


def held(gate: Gate, batcher: Batcher) -> "Future[Any]":
    """A run that waits at the gate."""
    gate.open.clear()
    first = batcher.submit(("boat", "tree"), method="predict")
    assert gate.entered.acquire(timeout=SOON)
    return first


def test_documents_of_many_callers_run_together(gate: Gate, batcher: Batcher, tiny: TinyReranker) -> None:
    held(gate, batcher)

    async def ask() -> list[Any]:
        asked = [asyncio.ensure_future(batcher.arank(question, DOCUMENTS)) for question in QUESTIONS]
        asked.append(asyncio.ensure_future(batcher.apredict((QUESTIONS[0], DOCUMENTS[0]))))
        await asyncio.sleep(0)
        gate.open.set()
        return await asyncio.gather(*asked)

    *ranks, score = asyncio.run(ask())
    for question, places in zip(QUESTIONS, ranks, strict=True):
        check(places, tiny, question)
    assert score == pytest.approx(1 / (1 + np.exp(-tiny.logits([(QUESTIONS[0], DOCUMENTS[0])])[0, 0])), rel=1e-5)
    assert gate.runs[1:] == [[(a, b) for a in QUESTIONS for b in DOCUMENTS] + [(QUESTIONS[0], DOCUMENTS[0])]]


def test_a_lone_caller_gets_what_the_reranker_gives(gate: Gate, batcher: Batcher) -> None:
    threads = set(threading.enumerate())
    for options in ({}, {"top_k": 2}, {"return_documents": True}, {"activation_fn": "identity"}, {"prompt": "a "}):
        asked: dict[str, Any] = options
        assert batcher.rank("the cat", DOCUMENTS, **asked) == gate.reranker.rank("the cat", DOCUMENTS, **asked)
    assert batcher.rank("the cat", []) == []
    assert asyncio.run(batcher.arank("the cat", iter(()))) == []
    assert batcher.predict(["the cat", "a dog"]) == gate.reranker.predict(("the cat", "a dog"))
    assert set(threading.enumerate()) <= threads


def test_a_query_is_not_parted(gate: Gate, tiny: TinyReranker) -> None:
    """Runs of at most 7 pairs: two queries of 5 run one by one, and one of 12 all the same."""
    with Batcher(gate, max_texts=7) as batcher, ThreadPoolExecutor(3) as pool:
        held(gate, batcher)
        many = [*DOCUMENTS, *DOCUMENTS, "mat", "bird"]
        asked = [pool.submit(batcher.rank, question, DOCUMENTS) for question in QUESTIONS[:2]]
        asked.append(pool.submit(batcher.rank, "boat", many))
        while len(batcher._queue._waiting) < 3:
            assert not any(future.done() for future in asked)
        gate.open.set()
        ranks = [future.result(SOON) for future in asked]
    assert sorted(len(run) for run in gate.runs[1:]) == [5, 5, 12]
    check(ranks[0], tiny, QUESTIONS[0])
    assert [place["corpus_id"] for place in ranks[2]] == expected(tiny, "boat", many)[0]


def test_an_error_meets_who_caused_it(gate: Gate, batcher: Batcher, tiny: TinyReranker) -> None:
    held(gate, batcher)
    with ThreadPoolExecutor(2) as pool:
        wrong = pool.submit(batcher.rank, "the cat", ["a dog", LONG], on_overflow="error")
        right = pool.submit(batcher.rank, "a dog", DOCUMENTS, on_overflow="error")
        while len(batcher._queue._waiting) < 2:
            assert not wrong.done()
        gate.open.set()
        with pytest.raises(TruncationError, match="at index 1"):
            wrong.result(SOON)
        check(right.result(SOON), tiny, "a dog")


def test_scores_that_are_not_finite_fail_alone(tmp_path: Path) -> None:
    tiny = write_tiny_reranker(tmp_path / "model")
    words = tiny.words.copy()
    words[tiny.ids(("boat", ""))[0][1]] = np.nan
    tiny = write_tiny_reranker(tmp_path / "broken", words=words)
    with trivec.load(tiny.folder, kind="reranker", device="cpu") as reranker:
        gate = Gate(reranker)
        with Batcher(gate) as batcher, ThreadPoolExecutor(2) as pool:
            gate.open.clear()
            batcher.submit(("tree", "tree"), method="predict")
            assert gate.entered.acquire(timeout=SOON)
            wrong = pool.submit(batcher.rank, "boat", ["a dog"])
            right = pool.submit(batcher.rank, "a dog", ["the cat"])
            while len(batcher._queue._waiting) < 2:
                assert not wrong.done()
            gate.open.set()
            with pytest.raises(NonFiniteError):
                wrong.result(SOON)
            assert len(right.result(SOON)) == 1


def test_a_cancelled_caller_is_left_out(gate: Gate, batcher: Batcher, tiny: TinyReranker) -> None:
    held(gate, batcher)

    async def ask() -> Any:
        gone = asyncio.ensure_future(batcher.arank("the cat", DOCUMENTS))
        stays = asyncio.ensure_future(batcher.arank("a dog", DOCUMENTS))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await stays

    check(asyncio.run(ask()), tiny, "a dog")
    assert gate.runs[1:] == [[("a dog", text) for text in DOCUMENTS]]


def test_many_threads_each_get_their_own(tiny: TinyReranker) -> None:
    with (
        trivec.load(tiny.folder, kind="reranker", device="cpu") as reranker,
        Batcher(reranker) as batcher,
        ThreadPoolExecutor(16) as pool,
    ):
        asked = [(QUESTIONS[n % 4], pool.submit(batcher.rank, QUESTIONS[n % 4], DOCUMENTS)) for n in range(200)]
        for question, future in asked:
            check(future.result(SOON), tiny, question)


def test_what_is_wrong_is_refused_at_once(gate: Gate, batcher: Batcher, tmp_path: Path) -> None:
    for call, said in (
        (lambda: batcher.rank("q", ["a", None]), r"at index 1"),  # type: ignore[list-item]
        (lambda: batcher.rank(None, ["a"]), r"expected a query that is a text, got NoneType"),  # type: ignore[arg-type]
        (lambda: batcher.rank("q", "a"), r"got one text. Type: rank\(query, \[document\]\)"),
        (lambda: batcher.rank("q", ["a"], top_k=0), r"top_k must be a positive integer"),
        (lambda: batcher.rank("q", ["a"], convert_to_tensor=True), r"'convert_to_tensor' is no option of rank"),
        (lambda: batcher.rank("q", ["a"], batch=3), r"'batch' is no option of predict"),
        (lambda: batcher.predict("one text"), r"expected two texts for the pair, got str"),
        (lambda: batcher.predict(("a", "b", "c")), r"expected two texts for the pair, got 3"),
        (lambda: batcher.predict(("a", "\ud800")), r"a text of the pair"),
        (lambda: batcher.encode("a text"), r"has no encode; it has predict and rank"),
    ):
        with pytest.raises(InputError, match=said):
            call()
    assert gate.runs == []
    three = write_tiny_reranker(tmp_path / "three", ("a", "b", "c"), "identity")
    with trivec.load(three.folder, kind="reranker", device="cpu") as reranker, Batcher(reranker) as several:
        with pytest.raises(InputError, match=r"rank is for models of one label, and this one has 3"):
            several.rank("q", ["a"])
        found = several.predict(("the cat", "a dog"))
        np.testing.assert_allclose(found, three.logits([("the cat", "a dog")])[0], rtol=1e-5)
    with Batcher(gate, max_waiting=1) as full:
        held(gate, full)
        full.submit(("a", "b"), method="predict")
        with pytest.raises(BusyError):
            full.submit(("c", "d"), method="predict")
        gate.open.set()


def test_an_encoder_ranks_nothing(tiny_folder: Path) -> None:
    with trivec.load(tiny_folder, device="cpu") as encoder, Batcher(encoder) as batcher:
        with pytest.raises(InputError, match=r"rank is for rerankers, and this is DenseEncoder"):
            batcher.rank("q", ["a"])
        with pytest.raises(InputError, match=r"has no predict; it has encode"):
            batcher.predict(("a", "b"))
