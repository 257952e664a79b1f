"""Whether memory stays flat: 100,000 different texts of varied lengths through `encode_iter`, in one process.

    python -m benchmarks.soak FOLDER [--texts 100000] [--precision int8] [--data FOLDER]

A text is a run of consecutive words of the corpus, from a random place, of a length between 1 and 250 words whose
logarithm is uniform: most are short, all lengths occur, and each window brings new shapes to the session. The process's
RAM is read after every 5,000 texts.
"""

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness.machine import machine
from benchmarks.harness.scifact import read
from benchmarks.harness.serve import memory
from benchmarks.harness.tables import Row, Table, write
from benchmarks.harness.venvs import ROOT, SHARED

import trivec

_EVERY = 5_000
_LONGEST = 250


def texts(words: list[str], count: int) -> Iterator[str]:
    """`count` runs of words."""
    random_ = random.Random(0)
    for number in range(count):
        length = int(_LONGEST ** random_.random())
        start = random_.randrange(len(words) - length)
        yield f"{number} {' '.join(words[start : start + length])}"


def main() -> None:
    """Encode, watch, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=SHARED / "data/scifact")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args()
    head = machine("One process.", threads=args.threads, command=f"python -m benchmarks.soak --texts {args.texts}")
    words = " ".join(read(args.data).documents.values()).split()
    with trivec.load(args.folder, precision=args.precision, device="cpu", threads=args.threads) as encoder:
        start, done = time.perf_counter(), 0
        rows: list[Row] = []
        for block in encoder.encode_iter(texts(words, args.texts), window=1000):
            done += len(block)
            if done % _EVERY == 0 or done == args.texts:
                rows.append({"texts": done, "RSS MB": memory() / 2**20, "seconds": time.perf_counter() - start})
    settled = [float(row["RSS MB"]) for row in rows if int(row["texts"]) * 5 >= args.texts]
    peak = memory("peak") / 2**20
    note = (
        f"{args.texts:,} texts of 1 to {_LONGEST} words, {args.precision}, windows of 1,000. After the first fifth of "
        f"them RSS lies between {min(settled):.0f} and {max(settled):.0f} MB; the peak is {peak:.0f} MB."
    )
    write([head, Table("rss", "Memory over time", note, rows, {"RSS MB": 1, "seconds": 0})], "Soak", args.out, "soak")


if __name__ == "__main__":
    main()
