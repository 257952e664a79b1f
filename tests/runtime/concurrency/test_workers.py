"""Pools of processes: rows as one process gives them, in order; where something goes wrong an error, never a hang."""

import contextlib
import copy
import itertools
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.odd_encoder import Odd, gone, odd_pool, soon
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, MultiVectors, NonFiniteError, ProviderError, SparseVectors, TruncationError
from trivec._concurrency import placement, processes
from trivec._concurrency.pool import Part, WorkerPool
from trivec._engine.devices import Device
from trivec._errors import WorkerError
from trivec._system.threads import Threads

WORDS = ("find", "a", "the", "cat", "dog", "sat", "on", "mat", "hill", "red", "boat", "unknown")
TEXTS = [" ".join(np.random.default_rng(n).choice(WORDS, n % 19)) for n in range(101)]
LONG = sum(len(text.split()) > 14 for text in TEXTS)  # 16 tokens with [CLS] and [SEP]


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    """An error in place of a hang."""

    def late(*_: object) -> None:
        raise TimeoutError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    with limit(60):
        yield


@pytest.fixture(scope="module")
def odd() -> Iterator[WorkerPool]:
    """Two odd workers; a test leaves them alive."""
    with limit(60), odd_pool() as pool:
        yield pool


@pytest.fixture(scope="module")
def dense(tiny_model: "TinyModel", tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, WorkerPool]]:
    """The tiny model, and two processes of it."""
    with pytest.MonkeyPatch.context() as patch, limit(60):
        patch.setenv("TRIVEC_HOME", str(tmp_path_factory.mktemp("home")))
        encoder = trivec.load(tiny_model.folder, device="cpu", threads=1)
        with encoder, WorkerPool(encoder, ["cpu", "cpu"]) as pool:
            yield encoder, pool


# ------------------------------------------------------------------------------------------------------------- rows
@pytest.mark.parametrize("chunk_size", [1, 2, 7, 50, 101, 5000, None])
def test_dense_rows_are_those_of_one_process(chunk_size: int | None, dense: tuple[Any, WorkerPool]) -> None:
    encoder, pool = dense
    parts: list[Part] = []
    for texts in (TEXTS, TEXTS[:3], TEXTS[5:6]):
        parts.clear()
        options = {"prompt_name": "query", "normalize_embeddings": True}
        made = pool.map("encode", texts, options, chunk_size, done=parts.append)
        np.testing.assert_array_equal(np.concatenate(made), encoder.encode(texts, **options))
        size = chunk_size or max(1, -(-len(texts) // 20))
        assert [part.start for part in parts] == list(range(0, len(texts), size))
        assert sum(part.size for part in parts) == len(texts)
        assert [len(value) for value in made] == [part.size for part in parts]
    assert pool.map("encode", [], {}, chunk_size) == []
    assert pool.devices == ["cpu", "cpu"]


def test_truncated_texts_are_counted_chunk_by_chunk(dense: tuple[Any, WorkerPool]) -> None:
    parts: list[Part] = []
    dense[1].map("encode", TEXTS, {}, 10, done=parts.append)
    assert sum(part.truncated for part in parts) == LONG > 0
    assert [part.truncated for part in parts] == [
        sum(len(text.split()) > 14 for text in TEXTS[start : start + 10]) for start in range(0, 101, 10)
    ]


def test_sparse_and_hybrid_rows_are_those_of_one_process(tiny_model: "TinyModel", tmp_path: Path) -> None:
    from tests.support.tiny_heads import hybrid, random_logits, random_weights, splade

    terms = splade(tmp_path / "splade", tiny_model, random_logits(), random_weights()).folder
    with (
        trivec.load(terms, device="cpu", threads=1, max_active_dims=5) as encoder,
        WorkerPool(encoder, ["cpu"]) as pool,
    ):
        for task in ("query", "document"):
            made = pool.map("encode", TEXTS, {"task": task}, 13)
            assert SparseVectors.concatenate(made).equals(encoder.encode(TEXTS, task=task))
    heads = hybrid(tmp_path / "hybrid", tiny_model).folder
    with trivec.load(heads, device="cpu", threads=1) as encoder, WorkerPool(encoder, ["cpu"]) as pool:
        made = pool.map("encode", TEXTS, {"return_colbert_vecs": True}, 13)
        whole = encoder.encode(TEXTS, return_colbert_vecs=True)
        np.testing.assert_array_equal(np.concatenate([part.dense for part in made]), whole.dense)
        assert SparseVectors.concatenate([part.sparse for part in made]).equals(whole.sparse)
        multi = MultiVectors.concatenate([part.colbert for part in made])
        np.testing.assert_array_equal(multi.vectors, whole.colbert.vectors)
        np.testing.assert_array_equal(multi.offsets, whole.colbert.offsets)


def test_settings_go_along_and_later_ones_are_refused(tiny_folder: Path) -> None:
    with trivec.load(tiny_folder, device="cpu", threads=1, precision="int8", truncate_dim=7) as encoder:
        encoder.max_seq_length = 5
        encoder.prompts["own"] = "red "
        with WorkerPool(encoder, ["cpu"]) as pool:
            made = pool.map("encode", TEXTS, {"prompt_name": "own"})
            np.testing.assert_array_equal(np.concatenate(made), encoder.encode(TEXTS, prompt_name="own"))
            pool.check(encoder)
            pool.check(copy.copy(encoder))
            other = trivec.load(tiny_folder, device="cpu", threads=2, precision="fp32")
            with other, pytest.raises(InputError, match="this pool was started from another encoder"):
                pool.check(other)
            encoder.similarity_fn_name = "dot"  # decides nothing here
            pool.check(encoder)
            encoder.prompts["own"] = "blue "
            with pytest.raises(InputError, match=r"settings .* changed; its workers do not know them\. Start another"):
                pool.check(encoder)


def test_two_callers_at_a_time_get_their_own_rows(dense: tuple[Any, WorkerPool], odd: WorkerPool) -> None:
    encoder, pool = dense
    callers = [TEXTS[n:] for n in range(8)]
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda texts: np.concatenate(pool.map("encode", texts, {}, 3)), callers))
    for texts, rows in zip(callers, made, strict=True):
        np.testing.assert_array_equal(rows, encoder.encode(texts))
    inner = [odd.map("encode", [part.value[0]], {}) for part in odd.imap("encode", ([t] for t in "abcdefgh"), {})]
    assert inner == [[[letter]] for letter in "ABCDEFGH"]  # a call while an iterator of the same pool is open


def test_an_iterator_reads_two_chunks_a_worker_ahead_and_can_be_left(odd: WorkerPool, tmp_path: Path) -> None:
    read: list[int] = []

    def chunks() -> Iterator[list[str]]:
        for number in itertools.count():
            read.append(number)
            yield [f"text {number}", "long"]

    parts = odd.imap("encode", chunks(), {})
    assert read == []
    first = [next(parts) for _ in range(5)]
    assert first == [Part(2 * n, 2, 1, [f"TEXT {n}", "LONG"]) for n in range(5)]
    assert len(read) <= 5 + 4
    parts.close()
    assert odd.map("encode", ["a", "b"], {}, 1) == [["A"], ["B"]]
    left, after = tmp_path / "left", tmp_path / "after"
    left.mkdir()
    after.mkdir()
    slow = odd.imap("encode", (["a"] if n == 0 else [f"hold {left / str(n)}"] for n in range(10)), {})
    assert next(slow).value == ["A"]
    assert soon(lambda: names(left) == {"1", "2"})  # both workers have one; the third chunk waits
    del slow
    with ThreadPoolExecutor(1) as threads:
        both = threads.submit(odd.map, "encode", [f"hold {after / letter}" for letter in "ab"], {}, 1)
        (left / "open").touch()
        assert soon(lambda: names(after) == {"a", "b"})  # both workers are past all that was there before
        assert names(left) == {"1", "2", "open"}  # what waited is dropped; only what ran was seen to its end
        (after / "open").touch()
        assert both.result(30) == [[None], [None]]


def test_an_error_of_the_source_leaves_the_pool_usable(odd: WorkerPool) -> None:
    def chunks() -> Iterator[list[str]]:
        yield ["a"]
        yield ["b", "c"]
        raise LookupError("no more")

    found: list[Part] = []
    with pytest.raises(LookupError, match="no more"):
        for part in odd.imap("encode", chunks(), {}):
            found.append(part)  # noqa: PERF402 - extend would lose what came before the error
    assert [(part.start, part.value) for part in found] == [(0, ["A"]), (1, ["B", "C"])]
    assert odd.map("encode", ["a"], {}) == [["A"]]


# ----------------------------------------------------------------------------------------------- errors in a worker
def test_an_error_in_a_chunk_keeps_its_class_and_names_the_chunk(
    dense: tuple[Any, WorkerPool], odd: WorkerPool
) -> None:
    encoder, pool = dense
    texts = ["a cat"] * 10 + ["dog " * 40] + ["a cat"] * 10
    with pytest.raises(TruncationError, match=r"in the chunk that starts at text 8: 1 of 4 texts .* at index 2"):
        pool.map("encode", texts, {"on_overflow": "error"}, 4)
    with pytest.raises(InputError, match=r"in the chunk that starts at text 0: prompt_name 'x' is none of"):
        pool.map("encode", texts, {"prompt_name": "x"}, 4)
    np.testing.assert_array_equal(np.concatenate(pool.map("encode", texts, {}, 4)), encoder.encode(texts))
    parts = odd.imap("encode", (["a"], ["b", "c"], ["raise NonFiniteError"], ["d"]), {})
    assert [next(parts).value for _ in range(2)] == [["A"], ["B", "C"]]
    with pytest.raises(NonFiniteError, match="in the chunk that starts at text 3: because of 'raise NonFiniteError'"):
        next(parts)
    with pytest.raises(KeyError) as caught:
        odd.map("encode", ["a", "raise KeyError"], {}, 1)
    assert any("in act" in note for note in caught.value.__notes__)  # where in the worker
    assert caught.value.__notes__[-1] == "in the chunk that starts at text 1"
    with pytest.raises(RuntimeError, match="UnportableError: this and that"):
        odd.map("encode", ["unportable"], {})
    with pytest.raises((pickle.PicklingError, AttributeError)):
        odd.map("encode", ["a"], {"option": lambda: None})
    with pytest.raises(AttributeError, match="no_such"):
        odd.map("no_such", ["a"], {})
    for wrong in (0, -1, 1.5):
        with pytest.raises(InputError, match="chunk_size must be a positive integer, got"):
            odd.map("encode", ["a"], {}, wrong)  # type: ignore[arg-type]
    assert odd.map("encode", ["a", "b"], {}, np.int64(1)) == [["A"], ["B"]]  # type: ignore[arg-type]
    with pytest.raises(InputError, match="in the chunk that starts at text 0: this is a daemonic process"):
        odd.map("encode", ["pool"], {})
    assert odd.map("encode", ["a", "b", "c"], {}, 2) == [["A", "B"], ["C"]]


# ------------------------------------------------------------------------------------------------ workers that die
def test_a_killed_worker_ends_the_pool_for_everyone_at_once() -> None:
    with odd_pool() as pool, ThreadPoolExecutor(2) as threads:
        pids = [worker.process.pid or 0 for worker in pool._processes.workers]
        first = threads.submit(pool.map, "encode", ["sleep 300"], {})
        assert soon(pool._processes._tasks.empty)
        second = threads.submit(pool.map, "encode", ["a", "b", "sleep 300", "d", "sleep 300", "f"], {}, 1)
        assert soon(lambda: not pool._processes._tasks.empty())
        os.kill(pids[1], signal.SIGKILL)
        errors = [str(call.exception(30)) for call in (first, second)]  # and not after what worker 0 is at
        for error in errors:
            assert f"worker 1 (cpu, pid {pids[1]}) was killed by SIGKILL while it encoded the chunk that" in error
            assert "start fewer workers or pass a smaller batch_size" in error
        # Worker 1 has either call's sleeping chunk, or is not yet through the short ones before it.
        assert re.search(r"starts at text [012]\.", errors[1])
        with pytest.raises(WorkerError, match="Start another pool"):
            pool.map("encode", ["a"], {})
        assert soon(lambda: all(gone(pid) for pid in pids))


def test_a_worker_that_exits_in_the_middle_of_a_stream() -> None:
    with odd_pool(count=1) as pool:
        parts = pool.imap("encode", (["a", "b"], ["c"], ["exit 3"], ["d"]), {})
        assert next(parts).value == ["A", "B"]
        with pytest.raises(WorkerError, match=r"worker 0 \(cpu, pid \d+\) ended with exit code 3 .* at text 3\."):
            list(parts)
        with pytest.raises(WorkerError, match="exit code 3"):
            pool.map("encode", ["a"], {})


def test_a_worker_that_cannot_open_the_model(tiny_folder: Path) -> None:
    with pytest.raises(KeyError) as caught:
        odd_pool("raise KeyError")
    assert "could not open the model" in caught.value.__notes__[-1]
    with pytest.raises(WorkerError, match=r"worker \d .* ended with exit code 4 while it opened the model\."):
        odd_pool("exit 4")
    with (
        trivec.load(tiny_folder, device="cpu", threads=1) as encoder,
        pytest.raises(ProviderError, match=r"^worker 1 \(cuda:99, pid \d+\) could not open the model: .*CUDA"),
    ):
        WorkerPool(encoder, ["cpu", "cuda:99"])


def test_closing() -> None:
    pool = odd_pool()
    pids = pool.map("encode", ["pid", "pid"], {}, 1)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(pool.map, "encode", ["sleep 300"] * 4, {}, 1)
        assert soon(call.running)
        pool.close()
        assert "this pool of processes is closed. Start another pool" in str(call.exception(10))
    assert all(gone(pid) for (pid,) in pids)
    pool.close()
    with pytest.raises(WorkerError, match="is closed"):
        pool.map("encode", ["a"], {})
    with pytest.raises(WorkerError, match="is closed"):
        list(pool.imap("encode", [["a"]], {}))
    assert repr(pool) == "WorkerPool(closed)"


def test_a_forgotten_pool_closes_itself() -> None:
    threads = set(threading.enumerate())
    pool = odd_pool(count=1)
    assert repr(pool) == "WorkerPool(cpu)"
    ((pid,),) = pool.map("encode", ["pid"], {})
    assert len(set(threading.enumerate()) - threads) == 1
    del pool
    assert gone(pid)
    assert set(threading.enumerate()) <= threads


def test_a_stopped_worker_is_closed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM waits while a process is stopped; SIGKILL does not."""
    monkeypatch.setattr(processes, "_PATIENCE", 0.5)
    pool = odd_pool(count=1)
    ((pid,),) = pool.map("encode", ["pid"], {})
    os.kill(pid, signal.SIGSTOP)
    pool.close()
    assert gone(pid)


def test_a_pool_cannot_be_pickled_or_copied(odd: WorkerPool) -> None:
    for use in (pickle.dumps, copy.copy):
        with pytest.raises(InputError, match="a pool of processes cannot be pickled or copied"):
            use(odd)


# --------------------------------------------------------------------------------------------------- whole programs
PROGRAM = """
import sys, time
from tests.support.odd_encoder import Odd
from trivec._concurrency.pool import WorkerPool

{guard}
    pool = WorkerPool(Odd(), ["cpu", "cpu"])
    print(*[worker.process.pid for worker in pool._processes.workers], flush=True)
    {last}
"""
BUSY = "pool.map('encode', ['sleep 300'] * 2, {}, 1)"
IDLE = "time.sleep(300)"


@dataclass
class Program:
    """A script that has started two workers."""

    process: "subprocess.Popen[str]"

    def workers(self) -> list[int]:
        """The pids that it prints."""
        assert self.process.stdout is not None
        pids = [int(word) for word in self.process.stdout.readline().split()]
        assert len(pids) == 2
        return pids

    def end(self) -> str:
        """What it says on stderr up to its end."""
        return self.process.communicate(timeout=240)[1]


@contextlib.contextmanager
def running(tmp_path: Path, last: str, guard: str = "if __name__ == '__main__':") -> Iterator[Program]:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(guard=guard, last=last))
    paths = os.pathsep.join([str(Path(trivec.__file__).parents[1]), str(Path(__file__).parents[3])])
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(script)],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield Program(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("last", [BUSY, IDLE], ids=["busy", "idle"])
def test_a_killed_parent_leaves_no_workers(last: str, tmp_path: Path) -> None:
    with running(tmp_path, last) as program:
        pids = program.workers()
        time.sleep(0.2)
        program.process.kill()
        assert soon(lambda: all(gone(pid) for pid in pids))


def test_ctrl_c_ends_everything_and_says_so_once(tmp_path: Path) -> None:
    with running(tmp_path, BUSY) as program:
        pids = program.workers()
        time.sleep(0.2)
        os.killpg(program.process.pid, signal.SIGINT)  # as a terminal does: to all of them
        error = program.end()
        assert program.process.returncode == -signal.SIGINT
        assert (error.count("Traceback"), error.strip().splitlines()[-1]) == (1, "KeyboardInterrupt")
        assert all(gone(pid) for pid in pids)


LEFT_OPEN = "parts = pool.imap('encode', [['a'], ['sleep 300'], ['b']], {}); next(parts)"


@pytest.mark.parametrize("last", ["", LEFT_OPEN], ids=["idle", "in a stream"])
def test_a_program_that_does_not_close_its_pool_ends_cleanly(last: str, tmp_path: Path) -> None:
    with running(tmp_path, last) as program:
        pids = program.workers()
        assert (program.end(), program.process.returncode) == ("", 0)
        assert all(gone(pid) for pid in pids)


def test_a_script_without_a_guard_is_told_of_it(tmp_path: Path) -> None:
    with running(tmp_path, "", guard="if True:") as program:
        error = program.end()
        assert program.process.returncode == 1
        assert "bootstrapping phase" in error  # Python's own words, from the worker
        last = error.strip().splitlines()[-1]
        assert last.startswith("trivec")
        assert "ended with exit code 1 while it opened the model" in last
        assert 'if __name__ == "__main__":' in last


# ------------------------------------------------------------------------------------------------------------ places
@pytest.mark.usefixtures("every_core")
def test_workers_share_out_the_cores() -> None:
    cores = sorted(os.sched_getaffinity(0))
    found: dict[int, set[int]] = {}
    with odd_pool() as odd:
        while len(found) < 2:  # until both have had a chunk
            for pid, tasks, _ in odd.map("encode", ["pid", "cores", "sleep 0.02"] * 4, {}, 3):
                assert all(task == tasks[0] for task in tasks)  # every thread, not the main one alone
                found[pid] = tasks[0]
        first, second = found.values()
        assert not first & second or len(cores) == 1  # which cannot be shared out
        assert sorted(first | second) == cores
        assert sorted(os.sched_getaffinity(0)) == cores  # this process has them all back
        for threads, variable in odd.map("encode", ["threads", "variable RAYON_NUM_THREADS"] * 4, {}, 2):
            assert int(variable) == threads
            assert threads <= max(len(first), len(second))


@pytest.mark.parametrize(
    ("granted", "cores", "count", "expected"),
    [
        (8, 8, 2, [(4, (0, 1, 2, 3)), (4, (4, 5, 6, 7))]),
        (7, 7, 3, [(2, (0, 1)), (2, (2, 3)), (3, (4, 5, 6))]),
        (2, 2, 3, [(1, (0,)), (1, (1,)), (1, (0,))]),
        (1, 1, 2, [(1, (0,)), (1, (0,))]),
        (3, 8, 2, [(1, (0, 1, 2, 3)), (2, (4, 5, 6, 7))]),  # a quota below the cores: which ones is left to the kernel
        (2, 4, 3, [(1, (0,)), (1, (1,)), (1, (2, 3))]),
        (4, 0, 2, [(2, ()), (2, ())]),  # a system without affinities
    ],
)
def test_core_sets(
    granted: int, cores: int, count: int, expected: list[tuple[int, tuple[int, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "available_threads", lambda: Threads(granted, "the test"))
    monkeypatch.setattr(placement, "_cores", lambda: list(range(cores)))
    made = placement.places_of("cpu", ["cpu"] * count)
    assert [(place.threads, place.cores) for place in made] == expected
    assert {place.device for place in made} == {Device("cpu")}


def test_default_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for granted, count in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr(placement, "available_threads", lambda granted=granted: Threads(granted, "the test"))
        monkeypatch.setattr(placement, "_cores", lambda granted=granted: list(range(granted)))
        assert [str(place.device) for place in placement.places_of("cpu", None)] == ["cpu"] * count
    monkeypatch.setattr(placement, "_cuda_count", lambda: 3)
    places = placement.places_of("cuda:1", None)
    assert [(str(p.device), p.threads, p.cores) for p in places] == [(f"cuda:{n}", 21, ()) for n in range(3)]
    monkeypatch.setattr(placement, "_cuda_count", lambda: 0)
    assert [str(place.device) for place in placement.places_of("cuda:1", None)] == ["cuda:1"]
    mixed = placement.places_of("cpu", ["cuda", "cpu", "cuda:1", "cpu"])
    assert [(str(p.device), p.threads, len(p.cores)) for p in mixed] == [
        ("cuda:0", 16, 0),
        ("cpu", 32, 32),
        ("cuda:1", 16, 0),
        ("cpu", 32, 32),
    ]


@pytest.mark.parametrize("wrong", ["cpu", [], 2, {"cpu"}])
def test_devices_that_are_no_list(wrong: Any) -> None:
    encoder: Any = Odd()
    with pytest.raises(InputError, match=r"target_devices must be a list .* Type: \[\"cpu\", \"cpu\"\]"):
        WorkerPool(encoder, wrong)


def test_devices_that_are_unknown() -> None:
    encoder: Any = Odd()
    with pytest.raises(InputError, match=r"device 'tpu:0' is not known\. Expected 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        WorkerPool(encoder, ["cpu", "tpu:0"])
    with pytest.raises(InputError, match="names each process's device: 'cpu' or 'cuda:N', not 'auto'"):
        WorkerPool(encoder, ["auto"])
