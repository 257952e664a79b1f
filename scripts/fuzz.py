"""Reads mutated model folders, and tells each that raises anything but a TrivecError, or takes too much.

    scripts/fuzz [--cases 1000] [--seed 0] [--first 0]

Case N of a seed is the same on every run: `scripts/fuzz --seed S --first N --cases 1` replays it, and shows what was
changed and where it failed. A process of its own reads the folders, so that one that hangs or crashes is told, and the
next ones are read. Linux only: it resets the peak of a process's memory before each case.
"""

import argparse
import contextlib
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

SECONDS = 10  # of the processor, as tests.support.bounds has it; a process that works on without a word gets twice that
LIMIT = 8 << 30  # of address space: what would take the machine's memory fails here
EACH = 1000  # cases of one process: what libraries keep does not add up
_VERIFIED = 0.25  # of the cases go through `verify` as well, which opens every variant once more
_ASLEEP = 30  # times as long, for one that waits for what never comes
_OURS = 99  # how a process ends that fails between two cases
TEXTS = ["a cat", "", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", "the old red house by the river " * 5]


class Outcome(NamedTuple):
    """What became of a case."""

    case: int
    said: str
    """The class of the error, or "read"; what is wrong begins with "!"."""
    details: str = ""


def main() -> int:
    """Run the cases; 1 if any of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    given = parser.parse_args()
    os.environ |= {"TRIVEC_OFFLINE": "1", "TRIVEC_HOME": "/dev/null/none", "RUST_BACKTRACE": "0"}
    os.environ |= {"HF_HUB_CACHE": "/dev/null/none", "TOKENIZERS_PARALLELISM": "false"}
    counts: Counter[str] = Counter()
    started, failed = time.perf_counter(), 0
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where files cost little
    with tempfile.TemporaryDirectory(prefix="trivec-fuzz-", dir=memory) as scratch:
        for outcome in run(Path(scratch), given.seed, range(given.first, given.first + given.cases)):
            counts[outcome.said.removeprefix("!")] += 1
            if outcome.said.startswith("!"):
                failed += 1
                again = f"scripts/fuzz --seed {given.seed} --first {outcome.case} --cases 1"
                print(f"FAILED {outcome.said[1:]}: {again}\n{outcome.details}", flush=True)
            elif given.cases == 1:
                print(f"{outcome.said}: {outcome.details}")
    for said, count in counts.most_common():
        print(f"{count:>8,}  {said}")
    print(f"{given.cases:,} cases of seed {given.seed} in {time.perf_counter() - started:,.0f} s; {failed} failed")
    return 1 if failed else 0


def run(scratch: Path, seed: int, cases: range) -> Iterator[Outcome]:
    """The outcomes of cases, in order; a process that hangs or dies is replaced."""
    from tests.support import mutations  # noqa: F401 - before the fork: files may change while it runs
    from tests.support.seed_folders import write_seed_folders

    (scratch / "seeds").mkdir()
    seeds = write_seed_folders(scratch / "seeds")
    number = cases.start
    while number < cases.stop:
        share = range(number, min(number + EACH, cases.stop))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _work(scratch / "case", seeds, seed, share, writer)
            except BaseException:  # noqa: BLE001 - the parent's blocks are not the child's to leave
                traceback.print_exc()
                os._exit(_OURS)
            os._exit(0)
        os.close(writer)
        number = yield from _watched(child, reader, share)
        shutil.rmtree(scratch / "case", ignore_errors=True)


def _watched(child: int, pipe: int, share: range) -> Iterator[Outcome]:
    """The outcomes that a process writes, one a line; gives the number of the case that comes next."""
    number, unread = share.start, b""
    while number < share.stop:
        ready = _says_something(child, pipe)
        data = os.read(pipe, 1 << 16) if ready else b""
        unread += data
        *lines, unread = unread.split(b"\n")
        for line in lines:
            said, _, details = line.decode().partition("\t")
            yield Outcome(number, said, details.replace("\v", "\n"))
            number += 1
        if not data and number < share.stop:
            if not ready:
                os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            os.close(pipe)
            if os.waitstatus_to_exitcode(status) == _OURS:
                raise RuntimeError(f"scripts/fuzz itself failed before case {number}: see above")
            yield Outcome(number, f"!died: {os.waitstatus_to_exitcode(status)}" if ready else "!hangs")
            return number + 1
    os.waitpid(child, 0)
    os.close(pipe)
    return number


def _says_something(child: int, pipe: int) -> bool:
    """Wait for a process; False where it has worked for too long and said nothing, or neither works nor ends."""
    silent, worked = 0.0, _worked(child)
    while not select.select([pipe], [], [], 1)[0]:
        silent += 1
        if silent > SECONDS * _ASLEEP or _worked(child) - worked > SECONDS * 2:
            return False
    return True


def _worked(child: int) -> float:
    """Seconds of the processor that a process has had: on a busy machine that is not the time that went by."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _work(folder: Path, seeds: dict[str, Path], seed: int, share: range, pipe: int) -> None:
    """In the process: read each case, and write its outcome."""
    from tests.support.bounds import most_bytes
    from tests.support.mutations import change_folder

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, path in seeds.items():  # what is imported at the first use is no case's memory
        _read(name, path)
    if len(share) > 1:  # the panics of a library are told there
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for case in share:
        rng = random.Random(f"{seed} {case}")
        name = rng.choice(list(seeds))
        shutil.copytree(seeds[name], folder, dirs_exist_ok=False)
        done = change_folder(rng, folder)
        gate = rng.random() < _VERIFIED
        outcome = _measured(case, lambda: _read(name, folder, gate=gate), most_bytes(folder))  # noqa: B023
        details = f"{name}: {'; '.join(done)}\n{outcome.details}"
        line = outcome.said + "\t" + details.replace("\n", "\v")
        os.write(pipe, line.encode("utf-8", "backslashreplace") + b"\n")
        shutil.rmtree(folder)


def _measured(case: int, read: Callable[[], None], most: int) -> Outcome:
    """Read a folder: within the memory and the time, and with no other error than a TrivecError."""
    from tests.support.bounds import bounded

    from trivec import TrivecError

    try:
        with bounded(most):
            read()
    except TrivecError as error:
        return Outcome(case, type(error).__name__, str(error)[:300])
    except BaseException as error:  # noqa: BLE001 - that is what is looked for, panics among them
        return Outcome(case, f"!{type(error).__name__}", traceback.format_exc()[-3000:])
    return Outcome(case, "read")


def _read(name: str, folder: Path, *, gate: bool = True) -> None:
    """All that reads a folder, each step whether or not the one before can; the first error is raised again."""
    import trivec
    from trivec._gate.texts import verification_texts
    from trivec._gate.verify import verify
    from trivec._inspect.info import info
    from trivec.lexical import BM25

    if name == "bm25":
        BM25(str.split).load(folder / "bm25.json").encode_queries(TEXTS)
        return
    errors = []
    texts, has_manifest = verification_texts()[:3], (folder / "trivec.json").exists()
    for step in (
        lambda: info(str(folder)),
        lambda: _encode(trivec.load(folder, device="cpu", threads=1)),
        *([lambda: verify(folder, texts=texts, threads=1, record=False)] * (gate and has_manifest)),
    ):
        try:
            step()
        except trivec.TrivecError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _encode(encoder: object) -> None:
    with contextlib.closing(encoder):  # type: ignore[type-var]
        encoder.encode(TEXTS)  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
