"""Memory that runs out: once it costs a rerun in two, twice it is an error; rows stay whole and in order."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from tests.support.fake_engine import OOM, machine, session

import trivec
from trivec import ProviderError
from trivec._engine.memory import Budget, is_memory_error, within

WORDS = ("cat", "dog", "sat", "ran", "on", "under", "mat", "hill", "red", "blue", "small", "old", "house")
TEXTS = [" ".join(WORDS[n // 13**i % 13] for i in range(1 + n % 11)) for n in range(301)]
SAME = [" ".join(WORDS[n // 13**i % 13] for i in range(5)) for n in range(301)]  # 7 tokens each


@pytest.fixture(params=["cuda", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def expected(folder: Path, texts: list[str], **options: Any) -> Any:
    with trivec.load(folder, device="cpu", threads=1) as encoder:
        return encoder.encode(texts, **options)


def test_once_costs_a_rerun_in_two(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, caplog: pytest.LogCaptureFixture, device: str
) -> None:
    wanted = expected(tiny_folder, SAME)
    engine = machine(monkeypatch, memory=1100)  # of the 2,107 tokens of a run
    with trivec.load(tiny_folder, device=device, precision="fp32", threads=1) as encoder:
        assert_array_equal(encoder.encode(SAME, batch_size=128), wanted)
        assert session(encoder).budget.limit == 1057
        assert [shape for _, shape, _ in engine.runs] == [(151, 7), (150, 7)]
        assert_array_equal(encoder.encode(SAME, batch_size=128), wanted)  # no failure any more
        assert sorted(shape[0] for _, shape, _ in engine.runs[2:]) == [150, 151]  # by two threads, in any order
    (record,) = caplog.records
    assert record.message.startswith("Memory ran out in a run of 301 texts with 2107 tokens; this encoder's runs")
    assert "Failed to allocate memory" in record.message


def test_texts_of_all_lengths_stay_in_order(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, device: str) -> None:
    wanted = expected(tiny_folder, TEXTS, batch_size=128)
    machine(monkeypatch, memory=600, failures=1)
    with trivec.load(tiny_folder, device=device, precision="fp32", threads=1) as encoder:
        assert_array_equal(encoder.encode(TEXTS, batch_size=128), wanted)


def test_twice_is_an_error_that_says_how_to_need_less(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, device: str
) -> None:
    machine(monkeypatch, memory=520)
    with trivec.load(tiny_folder, device=device, precision="fp32", threads=1) as encoder:
        with pytest.raises(ProviderError) as caught:
            encoder.encode(SAME, batch_size=128)
        said, place = str(caught.value), " on cuda:0" if device == "cuda" else ""
        assert said.startswith(f"onnxruntime cannot run 151 texts of 7 tokens{place}: ")
        assert "pass a smaller batch_size to encode; or set encoder.max_seq_length below 7" in said
        assert ("gpu_mem_limit" in said) == (device == "cuda")
        assert OOM in str(caught.value.__cause__)
        assert len(encoder.encode(SAME, batch_size=1)) == 301  # as told


def test_one_text_cannot_be_halved(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, device: str) -> None:
    machine(monkeypatch, memory=4)
    with trivec.load(tiny_folder, device=device, precision="fp32", threads=1) as encoder:
        with pytest.raises(ProviderError, match=r"cannot run 1 texts of 7 tokens.*set encoder.max_seq_length below 7"):
            encoder.encode("cat dog sat ran on")
        assert session(encoder).budget.limit is None  # others may have held the memory, and a query is no measure
        encoder.max_seq_length = 4
        assert encoder.encode("cat dog sat ran on").shape == (12,)


def test_other_errors_are_not_tried_again(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    engine = machine(monkeypatch)
    calls = []

    def check(shape: Any) -> None:
        calls.append(shape)
        raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")

    monkeypatch.setattr(engine, "check", check)
    with (
        trivec.load(tiny_folder, device="cuda", precision="fp32") as encoder,
        pytest.raises(ProviderError, match=r"illegal memory access was encountered\. Where the model has"),
    ):
        encoder.encode(SAME[:9])
    assert len(calls) <= 2  # once more without preallocated outputs


def test_threads_that_fail_together_halve_once(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = expected(tiny_folder, SAME)
    machine(monkeypatch, memory=1100)
    encoder = trivec.load(tiny_folder, device="cuda", precision="fp32")
    found: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda k=k: found.update({k: encoder.encode(SAME)})) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    for k in range(6):
        assert_array_equal(found[k], wanted)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("said", "is_memory"),
    [
        (OOM, True),
        ("CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size)", True),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", True),
        ("CUDNN failure 4002: CUDNN_STATUS_ALLOC_FAILED", True),
        ("bfc_arena.cc:376 Available memory of 1024 is smaller than requested bytes of 4096", True),
        ("std::bad_alloc", True),
        ("CUDA failure 700: an illegal memory access was encountered", False),
        ("Got invalid dimensions for input: input_ids", False),
    ],
)
def test_words_of_memory(said: str, is_memory: bool) -> None:
    assert is_memory_error(RuntimeError(said)) == is_memory
    assert is_memory_error(MemoryError())


def test_a_budget_of_ragged_texts() -> None:
    """As the packed layout needs it: texts of any lengths in one run."""
    lengths, budget = [300, 200, 700, 5, 5, 600, 1, 400], Budget()
    seen: list[list[int]] = []

    def run(part: slice) -> list[Any]:
        if sum(lengths[part]) > 1200 and len(lengths[part]) > 1:
            raise MemoryError
        seen.append(lengths[part])
        return [np.array(lengths[part], dtype=np.float32)[:, None]]

    (found,) = within(budget, lengths, run, lambda error, _: error)
    assert found[:, 0].tolist() == lengths
    assert (budget.limit, seen) == (1200, [[300, 200, 700], [5, 5, 600, 1, 400]])
    assert budget.of(4096) == 1200
    assert Budget().of(4096) == 4096


RUNS_OUT = """
import resource, sys
import numpy as np
import trivec
from tests.support.fake_engine import session

encoder = trivec.load(sys.argv[1], device="cpu", threads=1, precision="fp32")
opened = session(encoder)
ids = np.full((100_000, 16), 5, dtype=np.int64)  # 77 MB of float32 a step
opened.run(ids[:2], "token_embeddings")
now = next(int(line.split()[1]) for line in open("/proc/self/status") if "VmSize" in line)
resource.setrlimit(resource.RLIMIT_AS, (now * 1024 + (20 << 20),) * 2)
try:
    opened.run(ids, "token_embeddings")
except trivec.ProviderError as error:
    print("ProviderError", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc/self/status")
def test_memory_that_really_runs_out(tiny_folder: Path) -> None:
    """A process with little address space left, and no memory of earlier tests: the real onnxruntime's words."""
    path = os.pathsep.join([str(Path(trivec.__file__).parents[1]), str(Path(__file__).parents[3])])
    command, environment = [sys.executable, "-c", RUNS_OUT, str(tiny_folder)], {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    # the halves, or, where the process has held on to enough for them, what joins them
    said = "ProviderError onnxruntime cannot run (50000|100000) texts of 16 tokens: "
    assert re.match(said, done.stdout), (done.stdout, done.stderr)
    assert "smaller batch_size" in done.stdout
