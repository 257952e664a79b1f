"""What `load(low_memory=True)` saves and costs: start, memory of its own, one text, short and long texts.

    python -m benchmarks.low_memory FOLDER ... [--runs 5] [--rounds 5] [--threads 2]

Two processes of each variant, with and without, take turns; ratios are taken within a round, and of CPU time, for the
clock of a busy machine tells little. Prints Markdown and writes benchmarks/results/low-memory.*.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from benchmarks.harness.machine import cpu_name, now
from benchmarks.harness.tables import Row, Table, write
from benchmarks.harness.venvs import ROOT
from benchmarks.harness.worker import Contender, Process, cold_start, encode, latency

SHORT, LONG = 64, 4
"""Texts of a round."""
CALLS = 20
WAYS = ("packed", "low_memory")


def contenders(folder: Path, precision: str, threads: int) -> list[Contender]:
    """The same variant in both ways."""
    options = {"folder": str(folder), "precision": precision, "threads": threads}
    return [
        Contender(f"{folder.name} {precision}, {way}", "trivec", "", options | {"low_memory": way == WAYS[1]})
        for way in WAYS
    ]


def texts() -> tuple[list[str], list[str]]:
    """Short ones, of about 15 tokens, and long ones of 512, no two alike."""
    return (
        [f"number {n}: the quick brown fox jumps over the lazy dog by the river" for n in range(SHORT)],
        [f"{n}{' word' * 520}" for n in range(LONG)],
    )


def measure(pair: Sequence[Contender], args: argparse.Namespace, scratch: Path) -> Row:
    """A row of the table: figures of `low_memory`, after what they are without it."""
    python, (short, long) = Path(sys.executable), texts()
    files = []
    for name, found in (("short", short), ("long", long)):
        files.append(scratch / f"{name}.json")
        files[-1].write_text(json.dumps(found))
    starts: list[list[float]] = [[], []]
    for run in range(args.runs + 1):
        for way, contender in enumerate(pair):
            seconds = cold_start(contender, python, args.threads)
            if run:  # the first fills the file cache
                starts[way].append(seconds)
    own: list[int] = []
    ratios: dict[str, list[float]] = {"one text": [], "short": [], "long": []}
    with ExitStack() as stack:
        running = []
        for way, contender in enumerate(pair):
            process = stack.enter_context(Process(contender, python, args.threads, scratch / f"{way}.log"))
            process.load()
            process.ask(latency(files[0], 1))
            own.append(process.ask({"do": "own"})["bytes"])
            running.append(process)
        for number in range(args.rounds + 1):
            turn = running if number % 2 else running[::-1]
            cpu = {
                id(process): (
                    process.ask(latency(files[0], CALLS, skip=2))["cpu"],
                    process.ask(encode(files[0], 32))["cpu"],
                    process.ask(encode(files[1], 32))["cpu"],
                )
                for process in turn
            }
            if number:  # the first warms up
                packed, low = (cpu[id(process)] for process in running)
                for name, before, after in zip(ratios, packed, low, strict=True):
                    ratios[name].append(after / before)
    row: Row = {"variant": pair[0].name.partition(",")[0]}
    row |= {"start s": " -> ".join(f"{np.median(found):.2f}" for found in starts)}
    row |= {"own MB": " -> ".join(f"{size / 1e6:.0f}" for size in own)}
    return row | {
        f"{name}, time": f"{np.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"
        for name, found in ratios.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every folder's fp32 and int8, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--runs", type=int, default=5, help="of cold starts (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for folder in args.folders:
            for precision in ("fp32", "int8"):
                rows.append(measure(contenders(folder, precision, args.threads), args, Path(scratch)))
                print(rows[-1], file=sys.stderr, flush=True)
    note = (
        f"{cpu_name()}, {args.threads} threads, {now()}. Without -> with `low_memory=True`. Start: from the process's "
        f"first line to the first vector, {args.runs} runs. Own: memory that no file stands behind, after it. Time: "
        f"CPU time with it over that without, {args.rounds} rounds in turn: {CALLS} single texts of 15 tokens, {SHORT} "
        f"of them at once, {LONG} of 512 tokens."
    )
    table = Table("low-memory", "Low memory", note, rows)
    write([table], "Low memory", args.out, "low-memory")


if __name__ == "__main__":
    main()
