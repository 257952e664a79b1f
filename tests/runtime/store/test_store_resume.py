"""Interrupted runs: killed at random and at chosen moments, cut off, damaged, out of space, with other texts or models.

Run as a program, this file is what is killed: a process that imports everything once and then starts a child for each
run, so that a run takes a tenth of a second.
"""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, store
from trivec._cli.main import main
from trivec.store import _journal, _write
from trivec.store._formats import FORMATS

WORDS = ("cat", "dog", "old", "red", "hill", "boat", "東京", "")
TEXTS = [" ".join(WORDS[(i * 7 + j) % 8] for j in range(i % 6)) + f" number {i}" for i in range(150)]
WINDOW = 6  # 25 blocks
SUFFIXES = ("parquet", "jsonl", "npy")
CPU = ("--device", "cpu", "--threads", "1")


@pytest.fixture(scope="module")
def encoder(tiny_model: "TinyModel") -> Iterator[trivec.DenseEncoder]:
    with trivec.load(tiny_model.folder, device="cpu", threads=1) as found:
        yield found


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files are not synced: only a power cut needs it. What would have been."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(str(Path(f"/proc/self/fd/{handle}").readlink())))
    return synced


class StopError(Exception):
    """What a source of texts raises."""


def until(count: int) -> Iterator[str]:
    yield from TEXTS[:count]
    raise StopError


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def interrupted(path: Path, encoder: trivec.DenseEncoder, count: int, **options: Any) -> Path:
    """A run that has ended after so many texts; its partial file."""
    with pytest.raises(StopError):
        store.write(path, encoder, until(count), window=WINDOW, **options)
    return path.with_name(f"{path.name}.partial")


# ---- kill -9 ---------------------------------------------------------------------------------------------------------


def _run(folder: str, path: Path, before: Callable[[], None] | None, report: Path | None, **options: Any) -> None:
    """What a child does: write the texts slowly; then say how many of them it encoded."""
    encoded = 0
    os.fsync = lambda fd: None  # noqa: ARG005 - 30 ms of a slow disk, and no kill needs it
    with trivec.load(folder, device="cpu", threads=1) as encoder:
        original = type(encoder)._run

        def run(self: Any, texts: Any, call: Any) -> Any:
            nonlocal encoded
            encoded += len(getattr(texts, "texts", texts))
            time.sleep(0.002)
            return original(self, texts, call)

        type(encoder)._run = run
        if before is not None:
            before()
        written = store.write(path, encoder, TEXTS, window=WINDOW, **options)
    if report is not None:
        report.write_text(json.dumps([written.rows, written.resumed, encoded]))


def _start(*arguments: Any, **options: Any) -> int:
    """A child's process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        _run(*arguments, **options)
        status = 0
    finally:
        os._exit(status)


def _finish(folder: str, path: Path, **options: Any) -> list[int]:
    """Run to the end: rows, rows that were there, texts that were encoded."""
    report = path.with_suffix(".report")
    if os.waitstatus_to_exitcode(os.waitpid(_start(folder, path, None, report, **options), 0)[1]) != 0:
        raise RuntimeError(f"{path} was not written")
    found: list[int] = json.loads(report.read_text())
    return found


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_in_a_record() -> None:
    """Half of the tenth block is written."""
    original, count = _journal.Journal._put, [0]

    def put(self: _journal.Journal, parts: Any) -> None:
        count[0] += 1
        if count[0] == 11:
            whole = b"".join(bytes(part) for part in parts)
            original(self, [whole[: len(whole) // 2]])
            _die()
        original(self, parts)

    _journal.Journal._put = put  # type: ignore[method-assign]


def _die_while_joining() -> None:
    found = FORMATS[".parquet"]

    def write(stream: Any, *arguments: Any) -> None:
        found.write(stream, *arguments)
        stream.seek(100)
        stream.truncate()
        _die()

    FORMATS[".parquet"] = found._replace(write=write)


def _die_before_the_name() -> None:
    Path.replace = lambda *_: _die()  # type: ignore[method-assign, assignment]


def _die_after_the_name() -> None:
    _write.sync_folder = lambda folder: _die()  # type: ignore[attr-defined] # noqa: ARG005


MOMENTS = (_die_in_a_record, _die_while_joining, _die_before_the_name, _die_after_the_name)


def kill_and_resume(folder: str, work: Path) -> dict[str, Any]:
    """What becomes of runs that are killed at ten random moments, and at those of MOMENTS."""
    reference = work / "reference.parquet"
    _finish(folder, reference)
    whole, outcomes = reference.read_bytes(), []
    for number in range(10):
        path = work / f"{number}.parquet"
        reader, writer = os.pipe()
        child = _start(folder, path, None, None, progress=lambda _, pipe=writer: os.write(pipe, b"."))
        os.close(writer)
        for _ in range(random.randrange(len(TEXTS) // WINDOW)):
            os.read(reader, 1)
        time.sleep(random.uniform(0, 0.005))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        finished = path.exists()
        rows, resumed, encoded = _finish(folder, path, overwrite=finished)
        outcomes.append([finished, rows, resumed, encoded, path.read_bytes() == whole])
    chosen = {}
    for moment in MOMENTS:
        path = work / f"{moment.__name__}.parquet"
        os.waitpid(_start(folder, path, moment, None), 0)
        left = [p.name.removeprefix(path.name) for p in sorted(work.glob(f"{path.name}*"))]
        chosen[moment.__name__] = [left, *_finish(folder, path, overwrite=True), path.read_bytes() == whole]
    return {"random": outcomes, "chosen": chosen, "left": [path.name for path in work.glob("*.partial*")]}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork")
def test_killed_runs_go_on(tiny_folder: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, __file__, str(tiny_folder), str(work)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["left"] == []
    for _, rows, resumed, encoded, equal in found["random"]:
        assert (rows, equal) == (len(TEXTS), True)
        assert encoded == rows - resumed  # nothing twice
        assert resumed % WINDOW == 0
    assert sum(0 < resumed < len(TEXTS) for _, _, resumed, _, _ in found["random"]) >= 3  # kills half way
    assert found["chosen"] == {
        "_die_in_a_record": [[".partial"], 150, 54, 96, True],
        "_die_while_joining": [[".partial", ".partial.joined"], 150, 150, 0, True],
        "_die_before_the_name": [[".partial", ".partial.joined"], 150, 150, 0, True],
        "_die_after_the_name": [["", ".partial"], 150, 150, 0, True],
    }


# ---- what a partial file may look like -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_source_that_fails_and_goes_on(encoder: trivec.DenseEncoder, tmp_path: Path, suffix: str) -> None:
    path, reference = tmp_path / f"out.{suffix}", tmp_path / f"reference.{suffix}"
    store.write(reference, encoder, TEXTS, window=WINDOW)
    with pytest.raises(StopError) as raised:
        store.write(path, encoder, until(40), window=WINDOW)
    partial = path.with_name(f"out.{suffix}.partial")
    assert raised.value.__notes__ == [f"40 texts are done and kept in {partial}: the same call goes on from there."]
    assert files(tmp_path) == [partial.name, reference.name]
    advanced: list[int] = []
    assert store.write(path, encoder, iter(TEXTS), window=WINDOW, progress=advanced.append) == (path, 150, 40)
    assert advanced == [6, 6, 6, 6, 6, 6, 4] + [6] * 18 + [2]
    texts, vectors, _ = store.read(path)
    assert texts in (None, TEXTS)
    np.testing.assert_array_equal(np.asarray(vectors), encoder.encode(TEXTS))
    assert files(tmp_path) == [path.name, reference.name]
    assert path.read_bytes() == reference.read_bytes()  # though a block ended elsewhere


def test_any_length_of_what_is_left_is_gone_on_with(encoder: trivec.DenseEncoder, tmp_path: Path) -> None:
    path, texts = tmp_path / "out.npy", TEXTS[:12]
    store.write(path, encoder, texts, window=3)
    expected = path.read_bytes()
    path.unlink()
    with pytest.raises(StopError):
        store.write(path, encoder, until(9), window=3)
    partial = path.with_name("out.npy.partial")
    left = partial.read_bytes()
    seen = set()
    for length in [*range(0, len(left), 41), *range(len(left) - 3, len(left) + 1)]:
        for tail in (b"", b"\0" * 40):  # a file that was made longer before its bytes were written
            partial.write_bytes(left[:length] + (tail if length > 20 else b""))
            seen.add(store.write(path, encoder, texts, window=3).resumed)
            assert path.read_bytes() == expected
            path.unlink()
    assert seen == {0, 3, 6, 9}
    assert files(tmp_path) == []


def test_a_byte_that_changed_costs_what_follows_it(encoder: trivec.DenseEncoder, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    partial = interrupted(path, encoder, 30)
    left = bytearray(partial.read_bytes())
    left[len(left) // 2] ^= 4
    partial.write_bytes(left)
    assert 0 < store.write(path, encoder, TEXTS, window=WINDOW).resumed < 30
    np.testing.assert_array_equal(np.asarray(store.read(path).vectors), encoder.encode(TEXTS))


def test_a_file_is_on_the_disk_before_it_has_its_name(
    encoder: trivec.DenseEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_waiting_for_the_disk: list[str],
) -> None:
    path, replace = tmp_path / "out.parquet", Path.replace
    partial = path.with_name("out.parquet.partial")

    def replaced(self: Path, target: Path) -> Path:
        no_waiting_for_the_disk.append(f"{self} -> {target}")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(_journal, "_SYNC_SECONDS", 0.0)
    store.write(path, encoder, TEXTS[:12], window=WINDOW)
    joined = f"{partial}.joined"
    expected = [*[str(partial)] * 3, joined, f"{joined} -> {path}", str(tmp_path)]
    assert [line for line in no_waiting_for_the_disk if str(tmp_path) in line] == expected


def test_nothing_done_leaves_nothing(encoder: trivec.DenseEncoder, tmp_path: Path) -> None:
    with pytest.raises(StopError) as raised:
        store.write(tmp_path / "out.npy", encoder, until(0))
    assert not hasattr(raised.value, "__notes__")
    assert files(tmp_path) == []


def test_start_over(encoder: trivec.DenseEncoder, tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    interrupted(path, encoder, 30)
    assert store.write(path, encoder, TEXTS, resume=False).resumed == 0
    interrupted(path, encoder, 30, overwrite=True)
    assert np.load(path).shape == (150, 12)  # the finished file stays until the new one is complete
    with pytest.raises(InputError, match=r"exists. Choose another name, or replace it: overwrite=True"):
        store.write(path, encoder, TEXTS)
    assert store.write(path, encoder, TEXTS, overwrite=True).resumed == 30


def test_another_window_goes_on(encoder: trivec.DenseEncoder, tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    interrupted(path, encoder, 30)
    assert store.write(path, encoder, TEXTS, window=50).resumed == 30
    assert store.read(path).texts == TEXTS


# ---- what does not belong together -----------------------------------------------------------------------------------


def test_another_model_is_refused(encoder: trivec.DenseEncoder, tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    partial = interrupted(path, encoder, 30)
    left = partial.read_bytes()
    with trivec.load(tiny_folder, device="cpu", threads=1, precision="int8") as other:
        with pytest.raises(InputError) as raised:
            store.write(path, other, TEXTS)
        assert str(raised.value) == (
            f"{partial} was begun with the fingerprint {encoder.fingerprint[:12]}, and this call has "
            f"{other.fingerprint[:12]}: another model, variant, prompt or option. Go on with what it was begun with, "
            "or start over: overwrite=True"
        )
        with pytest.raises(InputError, match="another model, variant, prompt or option"):
            store.write(path, encoder, TEXTS, normalize_embeddings=True)
        assert partial.read_bytes() == left
        assert store.write(path, other, TEXTS, overwrite=True).resumed == 0
        np.testing.assert_array_equal(np.asarray(store.read(path).vectors), other.encode(TEXTS))


@pytest.mark.parametrize(
    ("texts", "message", "kept"),
    [
        (TEXTS[:20], r"the texts end after 20, before those done in .*out.npy.partial", 18),
        ([*TEXTS[:7], "another", *TEXTS[8:]], r"texts 6 to 11 \(from 0\) are not those done in", 6),
        ([TEXTS[1], TEXTS[0], *TEXTS[2:]], r"texts 0 to 5 \(from 0\) are not those done in", 0),
        ([TEXTS[0] + TEXTS[1], "", *TEXTS[2:]], r"texts 0 to 5 \(from 0\) are not those done in", 0),
        ([*TEXTS[:8], 8, *TEXTS[9:]], r"expected strings, got int at index 8: 8\.", None),
    ],
)
def test_other_texts_are_refused(
    encoder: trivec.DenseEncoder, tmp_path: Path, texts: list[Any], message: str, kept: int | None
) -> None:
    path = tmp_path / "out.npy"
    partial = interrupted(path, encoder, 30)
    left = partial.read_bytes()
    with pytest.raises(InputError, match=message) as raised:
        store.write(path, encoder, texts)
    assert "or start over from there: overwrite=True" in str(raised.value) or "expected strings" in str(raised.value)
    assert partial.read_bytes() == left
    if kept is not None:  # what is the same is kept, what is not is done again
        assert store.write(path, encoder, texts, overwrite=True, window=WINDOW)[1:] == (len(texts), kept)
        np.testing.assert_array_equal(np.load(path), encoder.encode(texts))


def test_a_file_of_somebody_else_is_not_touched(encoder: trivec.DenseEncoder, tmp_path: Path) -> None:
    for content in (b"my notes", b"trivec partial 9\n" + b"x" * 99):
        (tmp_path / "out.npy.partial").write_bytes(content)
        for options in ({}, {"overwrite": True}, {"resume": False}):
            with pytest.raises(InputError, match="is in the way, and is no interrupted run of this version of trivec"):
                store.write(tmp_path / "out.npy", encoder, TEXTS, **options)  # type: ignore[arg-type]
        assert (tmp_path / "out.npy.partial").read_bytes() == content


def test_two_processes_do_not_write_one_file(encoder: trivec.DenseEncoder, tmp_path: Path) -> None:
    begun, end = threading.Event(), threading.Event()

    def slow() -> Iterator[str]:
        yield from TEXTS[:40]
        begun.set()
        end.wait(240)
        yield from TEXTS[40:]

    first = threading.Thread(target=lambda: store.write(tmp_path / "out.npy", encoder, slow(), window=WINDOW))
    first.start()  # a lock is of an open file, so a thread stands for a process here
    assert begun.wait(240)
    try:
        with pytest.raises(InputError, match=r"is being written by another process. Wait for it to end, or choose"):
            store.write(tmp_path / "out.npy", encoder, TEXTS)
    finally:
        end.set()
        first.join()
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), encoder.encode(TEXTS))
    assert files(tmp_path) == ["out.npy"]


def test_an_error_after_a_resume_says_where_it_counts_from(encoder: trivec.DenseEncoder, tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    interrupted(path, encoder, 30)
    with pytest.raises(trivec.TruncationError, match="in the block that starts at text 120") as raised:
        store.write(path, encoder, [*TEXTS, "cat " * 30], window=WINDOW, on_overflow="error")
    assert raised.value.__notes__ == [
        "Texts are counted from the 30 that an earlier run has done.",
        f"150 texts are done and kept in {path}.partial: the same call goes on from there.",
    ]


# ---- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bytes_left", "done"), [(3000, False), (12_000, True)])
def test_a_full_disk(encoder: trivec.DenseEncoder, tmp_path: Path, bytes_left: int, done: bool) -> None:
    """A limit on the size of files stands for it: while texts are encoded, and while the file is put together."""
    path, texts = tmp_path / "out.jsonl", TEXTS[:60]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, limits[1]))
    try:
        with pytest.raises(OSError, match=r"out.jsonl") as raised:
            store.write(path, encoder, texts, window=WINDOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.EFBIG
    assert files(tmp_path) == ["out.jsonl.partial"]
    assert "texts are done and kept in" in raised.value.__notes__[0]
    written = store.write(path, encoder, texts, window=WINDOW)
    assert (written.resumed == len(texts)) is done
    assert written.resumed > 0
    np.testing.assert_array_equal(np.asarray(store.read(path).vectors), encoder.encode(texts))


# ---- the command line ------------------------------------------------------------------------------------------------


def test_ctrl_c_and_the_same_command_again(
    tiny_model: "TinyModel", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trivec._cli.encode.WINDOW", WINDOW)
    original, calls = trivec.DenseEncoder.encode, [0]

    def stopped(self: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == 7:
            raise KeyboardInterrupt
        return original(self, inputs, *rest, **options)

    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, TEXTS)), encoding="utf-8")
    out = tmp_path / "out.parquet"
    command = ["encode", str(tiny_model.folder), str(tmp_path / "in.jsonl"), "-o", str(out), *CPU]
    monkeypatch.setattr(trivec.DenseEncoder, "encode", stopped)
    assert main(command) == 130
    assert files(tmp_path) == ["in.jsonl", "out.parquet.partial"]
    assert capsys.readouterr().err == (
        f"trivec: interrupted\ntrivec: 30 texts are done and kept in {out}.partial: the same call goes on from there.\n"
    )
    assert main([*command, "--normalize"]) == 1
    assert "another model, variant, prompt or option. Go on with what it was begun with, or start over: --force" in (
        capsys.readouterr().err
    )
    monkeypatch.setattr(trivec.DenseEncoder, "encode", original)
    assert main(command) == 0
    assert capsys.readouterr().err.startswith("150 texts (30 of them done before), dim 12 float32, ")
    assert store.read(out).texts == TEXTS
    assert files(tmp_path) == ["in.jsonl", "out.parquet"]


if __name__ == "__main__":
    import pyarrow.parquet  # noqa: F401 - what is imported once is there for all children

    trivec.load(sys.argv[1], device="cpu", threads=1).close()

    print(json.dumps(kill_and_resume(sys.argv[1], Path(sys.argv[2]))))
