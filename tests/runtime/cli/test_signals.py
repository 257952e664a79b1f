"""SIGTERM, as a supervisor sends it: what is done is kept, and the same command goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from numpy.testing import assert_allclose
from tests.support.tiny_model import TinyModel

import trivec
from trivec._cli import main as main_module
from trivec._cli.main import main
from trivec.store._records import records

TEXTS = ["the cat", "a dog ran", "bird", "red boat", "old house"]


@pytest.fixture
def start(tiny_folder: Path, tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Where started commands go, so that none outlives its test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        with process:  # closes its pipes
            pass


def begin(start: list[subprocess.Popen[bytes]], folder: Path, out: str) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """`trivec encode` of a pipe that has five texts so far, in windows of two; it waits for more."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trivec", "encode", str(folder), "-o", out, "--window", "2", "--threads", "1"],
        env={**os.environ, "PYTHONPATH": str(Path(trivec.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    start.append(process)
    assert process.stdin is not None
    process.stdin.write("".join(f"{text}\n" for text in TEXTS).encode())
    process.stdin.flush()
    return process, process.stdin


def test_a_file_is_gone_on_with(start: list[subprocess.Popen[bytes]], tiny_model: TinyModel, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    partial = tmp_path / "out.npy.partial"
    process, _ = begin(start, tiny_model.folder, str(out))
    for _ in range(600):
        if partial.exists():
            with partial.open("rb") as file:
                if sum(1 for _ in records(file)) == 3:  # whose it is, and two windows
                    break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) == 143
    assert process.stderr is not None
    assert process.stderr.read().decode() == (
        f"trivec: ended by SIGTERM\ntrivec: 4 texts are done and kept in {partial}: the same call goes on from there.\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy.partial", "trivec-home"]
    process, stdin = begin(start, tiny_model.folder, str(out))
    stdin.close()
    assert process.wait(600) == 0
    assert "(4 of them done before)" in process.stderr.read().decode() if process.stderr else ""
    assert_allclose(np.load(out), tiny_model.expected(TEXTS), atol=1e-6)


def test_lines_come_out_as_they_are_done(start: list[subprocess.Popen[bytes]], tiny_model: TinyModel) -> None:
    process, _ = begin(start, tiny_model.folder, "-")
    assert process.stdout is not None
    lines = [json.loads(process.stdout.readline()) for _ in range(4)]  # while the command waits for more
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) == 143
    assert process.stdout.read() == b""
    vectors = np.array([line["embedding"] for line in lines])
    assert_allclose(vectors, tiny_model.expected(TEXTS[:4]), atol=1e-6)


def test_who_has_taken_the_signal_keeps_it(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(_: object) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    monkeypatch.setattr("trivec._cli.arguments.run_info", command)
    try:
        assert main(["info", str(tiny_folder)]) == 0
        assert heard == [signal.SIGTERM]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        assert main(["info", str(tiny_folder)]) == main_module.TERMINATED
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
