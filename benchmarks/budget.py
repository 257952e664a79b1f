"""How many tokens a run on a CPU should hold: time of whole calls and memory, by `batch_size`.

    python -m benchmarks.budget FOLDER ... [--precision fp32,int8] [--sizes 8,16,32,64] [--rounds 9]

All runs that are under way hold 32 tokens for each of `batch_size`. Each size is a process of its own; they take turns,
and ratios to the default of 32 are taken within a round. Prints Markdown and writes benchmarks/results/budget.*.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.contest import Contest, Field, text_set
from benchmarks.harness.machine import machine
from benchmarks.harness.scifact import even_sample, mixed_texts, read, short_texts
from benchmarks.harness.stats import Shape, ratios
from benchmarks.harness.tables import Row, Table, write
from benchmarks.harness.venvs import ROOT, SHARED
from benchmarks.harness.worker import Contender

DEFAULT = 32
LIMIT = 256
"""Tokens of a text."""


def rows(folder: Path, precision: str, sets: dict[str, list[str]], args: argparse.Namespace) -> list[Row]:
    """A row for each set of texts of one variant, and one of memory."""
    common = {"folder": str(folder), "precision": precision, "threads": args.threads, "tokens": LIMIT}
    sizes = {f"batch_size {size}": size for size in args.sizes}
    contenders = [Contender(name, "trivec", "", common, (size,), precision) for name, size in sizes.items()]
    place = Field(lambda _: Path(sys.executable), ROOT / "build/bench", args.threads)
    found: list[Row] = []
    with Contest(place, contenders, None, 0) as contest:
        for name, texts in sets.items():
            made = text_set(name, texts, folder / "tokenizer.json", LIMIT, Shape(0, 0, 0), place.work / "texts")
            seconds = contest.throughput(made, args.rounds).seconds
            row: Row = {"variant": f"{folder.name} {precision}", "row": f"{name}, time"}
            for each in sizes:
                ratio = ratios(seconds[f"batch_size {DEFAULT}"], seconds[each])
                row[each] = f"{ratio.median:.3f} ({ratio.low:.2f} to {ratio.high:.2f})"
            found.append(row)
        peaks = contest.peaks()
        row = {"variant": f"{folder.name} {precision}", "row": "peak MB"}
        found.append(row | {each: f"{peaks[each][0] / 1e6:.0f}" for each in sizes})
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every folder, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--precision", default="fp32,int8")
    parser.add_argument("--sizes", default="8,16,32,64")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--texts", type=int, default=300, help="short ones; of others as much work")
    parser.add_argument("--data", type=Path, default=SHARED / "data/scifact")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args(arguments)
    args.sizes = sorted({DEFAULT, *map(int, args.sizes.split(","))})
    data, count = read(args.data), args.texts
    sets = {
        "short": even_sample(short_texts(data), count),
        "long": even_sample(list(data.abstracts.values()), max(8, count // 12)),
        "mixed": mixed_texts(data, (max(8, count // 4), max(4, count // 12))),
    }
    found = [
        row
        for folder in args.folders
        for precision in args.precision.split(",")
        for row in rows(folder, precision, sets, args)
    ]
    note = (
        f"Whole calls of `encode`, at most {LIMIT} tokens a text: time over that of the default, batch_size {DEFAULT}, "
        f"the median and range of {args.rounds} rounds in turn, and the most memory that each process held."
    )
    head = machine("Processes in turn.", threads=args.threads, command="python -m benchmarks.budget")
    write([head, Table("budget", "Tokens of a run", note, found)], "Tokens of a run", args.out, "budget")


if __name__ == "__main__":
    main()
