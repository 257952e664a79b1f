"""Runs side by side, each with one thread: the same rows, as many at a time as there are threads."""

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tests.support.tiny_heads import hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
from trivec import DenseEncoder, ProviderError
from trivec._engine import session as session_module
from trivec._engine.session import Session

WORDS = ("find", "a", "the", "cat", "dog", "sat", "ran", "on", "under", "mat", "hill", "red", "blue", "small")
TEXTS = [" ".join(WORDS[n // 14**i % 14] for i in range(1 + n % 11)) for n in range(333)]  # 2,600 tokens


def load(folder: Path, threads: int) -> Any:
    return trivec.load(folder, device="cpu", threads=threads)


def session(encoder: Any) -> Session:
    found = next(p.session for p in encoder._pipelines.values() if p.session is not None)
    assert isinstance(found, Session)
    return found


def lanes() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("trivec-lane")}


@pytest.fixture
def encoder(tiny_folder: Path) -> Iterator[DenseEncoder]:
    with trivec.load(tiny_folder, device="cpu", threads=2) as encoder:
        yield encoder


def test_rows_are_those_of_one_session(encoder: DenseEncoder, tiny_folder: Path, tiny_model: "TinyModel") -> None:
    found = encoder.encode(TEXTS)
    assert session(encoder)._narrow is not None
    with trivec.load(tiny_folder, device="cpu", threads=1) as single:
        assert_array_equal(found, single.encode(TEXTS))
        assert session(single)._narrow is None
    assert_allclose(found, tiny_model.expected(TEXTS), atol=1e-6)
    assert_array_equal(encoder.encode(TEXTS[7]), found[7])


def test_sparse_and_hybrid_rows_are_those_of_one_session(tiny_model: "TinyModel", tmp_path: Path) -> None:
    terms = splade(tmp_path / "splade", tiny_model, random_logits(), random_weights()).folder
    several = hybrid(tmp_path / "hybrid", tiny_model).folder
    with load(terms, 1) as single, load(terms, 2) as double:
        assert_array_equal(double.encode(TEXTS).to_dense(), single.encode(TEXTS).to_dense())
        assert session(double)._narrow is not None
    with load(several, 1) as single, load(several, 2) as double:
        found, expected = (e.encode(TEXTS, return_colbert_vecs=True) for e in (double, single))
        assert_array_equal(found.dense, expected.dense)
        assert_array_equal(found.sparse.to_dense(), expected.sparse.to_dense())
        for row in (0, 5, 332):
            assert_array_equal(found.colbert[row], expected.colbert[row])


def test_less_work_than_lanes_opens_no_second_session(encoder: DenseEncoder) -> None:
    encoder.encode("the cat")
    encoder.encode(["the cat", "the dog", "red cat"])  # one run: texts of one length
    assert session(encoder)._narrow is None
    encoder.encode(["the cat", "the red cat"])
    assert session(encoder)._narrow is not None


def test_work_of_one_length_is_cut_for_the_lanes(encoder: DenseEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, run = [], Session.run_all

    def recording(self: Session, ids: Any, outputs: Any) -> Any:
        rows.append(len(ids))
        return run(self, ids, outputs)

    monkeypatch.setattr(Session, "run_all", recording)
    encoder.encode([f"word{n} cat" for n in range(400)])  # 4 tokens each
    assert sorted(rows) == [16, 128, 128, 128]  # 512 tokens
    rows.clear()
    encoder.encode([f"word{n} cat" for n in range(400)], batch_size=64)
    assert sorted(rows) == [200, 200]
    rows.clear()
    encoder.encode([f"word{n} cat" for n in range(400)], batch_size=4)
    assert sorted(rows) == [16, *[32] * 12]  # at most 128 tokens


def test_two_runs_are_under_way_at_a_time_and_no_more(encoder: DenseEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    both, run, lock = threading.Barrier(2), Session.run_all, threading.Lock()
    now, most, calls = 0, 0, 0

    def counting(self: Session, ids: Any, outputs: Any) -> Any:
        nonlocal now, most, calls
        with lock:
            now, calls = now + 1, calls + 1
            most, first = max(most, now), calls <= 2
        if first:
            both.wait(timeout=240)  # ends only if a second run begins before the first one ends
        made = run(self, ids, outputs)
        with lock:
            now -= 1
        return made

    monkeypatch.setattr(Session, "run_all", counting)
    encoder.encode(TEXTS)
    assert most == 2 < calls


def test_an_error_of_one_run_is_raised_and_the_encoder_goes_on(
    encoder: DenseEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, run = encoder.encode(TEXTS), Session.run_all

    def failing(self: Session, ids: Any, outputs: Any) -> Any:
        if ids.shape[1] == 5:
            raise ProviderError("no memory for 5 tokens")
        return run(self, ids, outputs)

    with monkeypatch.context() as patch, pytest.raises(ProviderError, match="no memory for 5 tokens"):
        patch.setattr(Session, "run_all", failing)
        encoder.encode(TEXTS)
    assert_array_equal(encoder.encode(TEXTS), expected)


def test_calls_of_several_threads_share_the_lanes(encoder: DenseEncoder) -> None:
    before = lanes()  # another test's
    expected, found = encoder.encode(TEXTS), {}

    def work(k: int) -> None:
        found[k] = encoder.encode(np.roll(TEXTS, k))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert len(lanes() - before) <= 2
    for k in range(8):
        assert_array_equal(found[k], np.roll(expected, k, axis=0))


def test_closing_ends_the_threads(tiny_folder: Path) -> None:
    encoder = trivec.load(tiny_folder, device="cpu", threads=2)
    before = lanes()
    encoder.encode(TEXTS)
    assert lanes() - before
    encoder.close()
    gc.collect()
    deadline = time.monotonic() + 240
    while lanes() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lanes() <= before


def test_large_models_run_one_at_a_time(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second session packs the weights a second time."""
    monkeypatch.setattr(session_module, "_SMALL", 100)
    with trivec.load(tiny_folder, device="cpu", threads=2) as encoder:
        encoder.encode(TEXTS)
        assert session(encoder)._narrow is None
