"""How long until the first vector, and in what memory: a fresh process each time, to `import trivec` and to a vector.

    python -m benchmarks.cold_start FOLDER [--runs 15] [--threads 2]

Prints a line each, with the median and the extremes: seconds of import trivec, of import, load and encode of one text,
from the process's first line, and MB that it then had at most. The operating system's file cache is warm after the
first run, which is not counted.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime

CHILD = """
import resource, time
start = time.perf_counter()
import trivec
imported = time.perf_counter() - start
with trivec.load({folder!r}, precision={precision!r}, threads={threads}, device="cpu") as encoder:
    vector = encoder.encode("how long until the first vector?")
    total = time.perf_counter() - start
print([imported, total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3])
"""
UNITS = {"import": "s", "first vector": "s", "peak memory": "MB"}


def measure(folder: Path, precision: str, runs: int, threads: int) -> dict[str, list[float]]:
    """Seconds to the import and to the first vector and MB at most, of each counted run."""
    code = CHILD.format(folder=str(folder), precision=precision, threads=threads)
    found: dict[str, list[float]] = {name: [] for name in UNITS}
    for run in range(runs + 1):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        if run:
            for figures, figure in zip(found.values(), json.loads(done.stdout), strict=True):
                figures.append(figure)
    return found


def main() -> None:
    """Measure the variants in turn, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"onnxruntime {onnxruntime.__version__}, {args.threads} threads, {args.runs} runs"
    )
    for precision in ("fp32", "int8"):
        for name, figures in measure(args.folder, precision, args.runs, args.threads).items():
            print(
                f"{precision}  {name:12}  median {statistics.median(figures):.3f} {UNITS[name]:2}  "
                f"min {min(figures):.3f}  max {max(figures):.3f}"
            )


if __name__ == "__main__":
    main()
