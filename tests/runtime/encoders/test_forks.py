"""A child that was forked from a process with open encoders: nothing in it waits for a thread of the parent's.

Each script forks for real, and is killed where something hangs. A child's end is Python's own, in which everything is
freed, unless `os._exit` stands there.
"""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tests.support.fake_engine import FakeEngine
from tests.support.script import run_script
from tests.support.static_models import model2vec_folder
from tests.support.tiny_heads import hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
from trivec import ProviderError
from trivec._engine.devices import Device
from trivec._engine.session import Session

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork")

START = """
import os, pickle, sys, threading, time
import numpy as np
import trivec

WORDS = ("river", "boat", "old", "tree", "bird", "hill", "under", "blue", "house", "ran", "a")
TEXTS = [" ".join(WORDS[(n + i * i) % 11] for i in range(1 + n % 9)) for n in range(240)]


def forked(work):
    "The status with which a child ends that does this work."
    child = os.fork()
    if child == 0:
        work()
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
WORDS = ("river", "boat", "old", "tree", "bird", "hill", "under", "blue", "house", "ran", "a")
TEXTS = [" ".join(WORDS[(n + i * i) % 11] for i in range(1 + n % 9)) for n in range(240)]


def script(code: str, *arguments: object, **options: Any) -> str:
    return run_script(START + code, *arguments, **{"TOKENIZERS_PARALLELISM": "false", **options})


@pytest.mark.parametrize("parent", ["nothing", "one", "many"])
def test_every_kind_of_encoder_works_on_in_a_child(tiny_model: TinyModel, tmp_path: Path, parent: str) -> None:
    static = model2vec_folder(tmp_path / "static")
    folders = [
        tiny_model.folder,
        splade(tmp_path / "splade", tiny_model, random_logits(), random_weights()).folder,
        hybrid(tmp_path / "hybrid", tiny_model).folder,
        static,
    ]
    code = """
out, parent, *folders = sys.argv[1:]
encoders = [trivec.load(folder, device="cpu", threads=2) for folder in folders]
many = TEXTS * 40  # 9,600: what a static encoder takes in parts
for encoder in encoders:
    if parent == "one":
        encoder.encode("old tree")
    elif parent == "many":
        encoder.encode(many)
time.sleep(0.3)  # threads that spin have gone to sleep

def work():
    rows = [(e.represent(TEXTS), e.represent(TEXTS[7:8])) for e in encoders]
    encoders[-1].encode(many)
    with open(out, "wb") as file:
        pickle.dump(rows, file)
    for encoder in encoders[:2]:
        encoder.close()  # frees what was opened in the parent, too

print(forked(work))
"""
    assert script(code, tmp_path / "rows", parent, *folders) == "0\n"
    found = pickle.loads((tmp_path / "rows").read_bytes())
    for folder, (rows, row) in zip(folders, found, strict=True):
        with trivec.load(folder, device="cpu", threads=1) as encoder:
            expected = encoder.represent(TEXTS)
        for name in ("dense", "sparse"):
            wanted, given, one = (getattr(part, name) for part in (expected, rows, row))
            assert (wanted is None) == (given is None)
            if wanted is not None:
                dense = [part if name == "dense" else part.to_dense() for part in (wanted, given, one)]
                assert_array_equal(dense[1], dense[0])
                assert_array_equal(dense[2], dense[0][7:8])
    assert_allclose(found[0][0].dense, tiny_model.expected(TEXTS), atol=1e-6)


def test_pools_of_forked_processes(tiny_folder: Path, tiny_model: TinyModel, tmp_path: Path) -> None:
    """concurrent.futures and multiprocessing, on which torch's DataLoader and datasets.map(num_proc=) stand."""
    code = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

encoder = trivec.load(sys.argv[1], device="cpu", threads=2)
index = encoder.encode(TEXTS)  # as a module does that is imported before its workers are forked

def work(n):
    return encoder.encode(TEXTS[n:n + 60])

fork = multiprocessing.get_context("fork")
with ProcessPoolExecutor(2, fork) as pool:
    rows = [np.concatenate(list(pool.map(work, range(0, 240, 60))))]
with fork.Pool(2) as pool:
    rows.append(np.concatenate(pool.map(work, range(0, 240, 60))))
np.save(sys.argv[2], np.stack([index, *rows]))
"""
    script(code, tiny_folder, tmp_path / "rows.npy")
    for rows in np.load(tmp_path / "rows.npy"):
        assert_allclose(rows, tiny_model.expected(TEXTS), atol=1e-6)


def test_forks_while_other_threads_encode(tiny_folder: Path) -> None:
    """Whatever lock they hold at that moment."""
    code = """
encoder = trivec.load(sys.argv[1], device="cpu", threads=2)
batcher = trivec.Batcher(encoder)
expected = encoder.encode(TEXTS)
over = threading.Event()

def busy(n):
    while not over.is_set():
        encoder.encode(TEXTS[n:]) if n else [batcher.submit(text) for text in TEXTS[:20]][-1].result()

threads = [threading.Thread(target=busy, args=(n,)) for n in range(3)]
for thread in threads:
    thread.start()

def work():
    assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-6
    assert np.abs(batcher.encode(TEXTS[5]) - expected[5]).max() < 1e-6
    os._exit(0)

print({forked(work) for _ in range(12)})
over.set()
"""
    assert script(code, tiny_folder) == "{0}\n"


def test_locks_that_are_held_at_a_fork(tiny_folder: Path) -> None:
    code = """
from trivec._engine import cuda_libraries

encoder = trivec.load(sys.argv[1], device="cpu", threads=2)
batcher = trivec.Batcher(encoder)
expected = encoder.encode(TEXTS)
session = encoder.route().session
owners = [encoder, session, session.budget, session._lanes, cuda_libraries._preloaded]
locks = [owner._lock for owner in owners] + [batcher._queue.turn, batcher._queue._changed]
for lock in locks:
    assert lock.acquire(timeout=5)

def work():
    assert np.abs(encoder.encode([*TEXTS, "bird " * 99])[:240] - expected).max() < 1e-6
    assert encoder.truncated == 1
    assert np.abs(batcher.submit(TEXTS[1]).result() - expected[1]).max() < 1e-6
    assert cuda_libraries.preload(__import__("onnxruntime")) == ""

print(forked(work))
for lock in locks:
    lock.release()
"""
    assert script(code, tiny_folder) == "0\n"


def test_a_child_that_is_forked_by_a_child(tiny_folder: Path) -> None:
    code = """
encoder = trivec.load(sys.argv[1], device="cpu", threads=2)
expected = encoder.encode(TEXTS)

def work():
    assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-6

def work_twice():
    work()
    assert forked(work) == 0
    work()

print(forked(work_twice), forked(work))
work()
"""
    assert script(code, tiny_folder) == "0 0\n"


def test_a_child_opens_the_files_of_its_parent(tiny_folder: Path, tmp_path: Path) -> None:
    """Wherever they are by then."""
    code = """
import shutil
folder = shutil.copytree(sys.argv[1], sys.argv[2])
encoder = trivec.load(folder, device="cpu", threads=2)
expected = encoder.encode(TEXTS)
shutil.rmtree(folder)

def work():
    assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-6
    assert np.abs(encoder.encode(TEXTS[0]) - expected[0]).max() < 1e-6

print(forked(work))
"""
    assert script(code, tiny_folder, tmp_path / "model") == "0\n"


def test_an_iterator_goes_on_in_parent_and_child(tiny_folder: Path) -> None:
    code = """
encoder = trivec.load(sys.argv[1], device="cpu", threads=2)
expected = encoder.encode(TEXTS)
blocks = encoder.encode_iter(TEXTS, window=50)
first = next(blocks)  # the second window is being tokenized

def work():
    assert np.abs(np.concatenate([first, *blocks]) - expected).max() < 1e-6

print(forked(work))
work()
"""
    assert script(code, tiny_folder) == "0\n"


def test_a_batcher_in_a_child(tiny_folder: Path) -> None:
    code = """
import asyncio
encoder = trivec.load(sys.argv[1], device="cpu", threads=2)
expected = encoder.encode(TEXTS)
batcher = trivec.Batcher(encoder, max_waiting=4)
batcher.submit(TEXTS[0]).result()  # its thread is there
inside, go = threading.Event(), threading.Event()

class Slow:
    def encode(self, inputs, **_):
        inside.set()
        go.wait()
        return encoder.encode(inputs)
    encode_query = encode_document = encode

slow = trivec.Batcher(Slow())
waiting = [slow.submit(TEXTS[n]) for n in range(3)]  # one runs, and has the turn
inside.wait()

def work():
    go.set()
    for each in (batcher, slow):
        found = [each.encode(TEXTS[n]) for n in range(9)]
        found += [each.submit(TEXTS[n]).result() for n in range(9, 12)]
        found.append(asyncio.run(each.aencode(TEXTS[12])))
        assert np.abs(np.stack(found) - expected[:13]).max() < 1e-6
        each.close()
        try:
            each.encode("a")
        except trivec.InputError:
            print("closed", flush=True)

print(forked(work))
go.set()
assert np.abs(np.stack([w.result() for w in waiting]) - expected[:3]).max() < 1e-6
assert np.abs(batcher.encode(TEXTS[3]) - expected[3]).max() < 1e-6
"""
    assert script(code, tiny_folder) == "closed\nclosed\n0\n"


def test_a_pool_of_processes_in_a_child(tiny_folder: Path) -> None:
    """The child gets processes of its own, and its end leaves those of the parent alone."""
    code = """
encoder = trivec.load(sys.argv[1], device="cpu", threads=2)
expected = encoder.encode(TEXTS)
pool = encoder.start_multi_process_pool(["cpu"])
blocks = encoder.encode_iter(TEXTS, window=60, pool=pool)
first = next(blocks)

def workers():
    return {worker.process.pid for worker in pool._processes.workers}

def work():
    assert np.abs(encoder.encode(TEXTS, pool=pool) - expected).max() < 1e-6
    assert np.abs(np.concatenate([first, *blocks]) - expected).max() < 1e-6
    assert workers().isdisjoint(before) and len(workers()) == 1

before = workers()
print(forked(work), forked(lambda: None))
assert np.abs(encoder.encode(TEXTS, pool=pool) - expected).max() < 1e-6
assert np.abs(np.concatenate([first, *blocks]) - expected).max() < 1e-6
assert workers() == before
pool.close()
"""
    assert script(code, tiny_folder) == "0 0\n"


def test_threads_of_the_tokenizers_library_are_not_waited_for(tiny_folder: Path) -> None:
    """Where its parallelism is asked for, the library does not give it up by itself."""
    code = """
encoder = trivec.load(sys.argv[1], device="cpu", threads=2)
expected = encoder.tokenize(TEXTS)

def work():
    assert encoder.tokenize(TEXTS) == expected

print(forked(work))
"""
    assert script(code, tiny_folder, TOKENIZERS_PARALLELISM="true", RAYON_NUM_THREADS="2") == "0\n"


def test_cuda_in_a_child_is_an_error(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeEngine())
    session = Session([tiny_folder / "onnx/model.onnx"], device=Device("cuda", 0), threads=1)
    ids = np.array([[2, 5, 3]])
    session.run(ids, "token_embeddings")
    session.start_afresh()
    with pytest.raises(ProviderError, match=r'opened on cuda:0 before a fork, .* start processes with "spawn"'):
        session.run(ids, "token_embeddings")


def test_a_bound_session_is_bound_again(tiny_folder: Path) -> None:
    graph, ids = tiny_folder / "onnx/model.onnx", np.array([[2, 5, 9, 3]])
    bound = Session([graph], device=Device("cpu"), threads=1, bind=True)
    expected = bound.run(ids, "token_embeddings")
    bound.start_afresh()
    assert_array_equal(bound.run(ids, "token_embeddings"), expected)
    assert bound.providers == ("CPUExecutionProvider",)
