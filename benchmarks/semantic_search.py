"""trivec.util against sentence_transformers.util on torch: semantic_search, both on the same cores, in turn.

    python -m benchmarks.semantic_search [--threads 2] [--rounds 5] [--rows 100000] [--dim 384]

Each engine is in a process of its own that may use so many cores and no more. Vectors are random and the same for
both, the corpus as an array in memory for trivec and as a tensor for sentence-transformers. The engines take turns
within each round; before the first round each has answered once. Memory is the greatest resident size of the process
less that before the first search, with all libraries and vectors loaded; each case has processes of its own.
"""

import argparse
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmarks import _process
from benchmarks._process import Ask, machine, resident, write
from benchmarks._report import Goal, goals
from benchmarks._stats import ratios, spread
from benchmarks._table import Row, Table

ENGINES = ("trivec", "sentence-transformers")
GOALS = (
    *(
        Goal(
            f"cos_sim, {queries} queries: trivec over sentence-transformers",
            f"cos_sim float32 {queries} 10",
            "",
            ">=",
            1,
        )
        for queries in (1, 100, 1000)
    ),
    Goal("every search: MB above its inputs", "MB", "", "<=", 300),
)


class Case(NamedTuple):
    """One kind of search."""

    score: str
    queries: int
    top_k: int
    dtype: str = "float32"


CASES = (
    Case("cos_sim", 1, 10),
    Case("cos_sim", 100, 10),
    Case("cos_sim", 1000, 10),
    Case("cos_sim", 100, 100),
    Case("cos_sim", 100, 10, "float16"),
    Case("dot_score", 1, 10),
    Case("dot_score", 100, 10),
    Case("euclidean_sim", 100, 10),
    Case("manhattan_sim", 10, 10),
)


def worker(engine: str, folder: Path, case: Case, threads: int) -> None:
    """Load the vectors, then search whenever a line comes; answers as JSON lines on stdout."""
    queries, corpus = np.load(folder / "queries.npy")[: case.queries], np.load(folder / f"corpus-{case.dtype}.npy")
    given: Any = (queries, corpus)
    util: Any = importlib.import_module("trivec.util" if engine == "trivec" else "sentence_transformers.util")
    if engine != "trivec":
        import torch

        torch.set_num_threads(threads)
        given = tuple(torch.from_numpy(vectors) for vectors in given)
    function = getattr(util, case.score)
    before = resident()
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        hits = util.semantic_search(*given, top_k=case.top_k, score_function=function)
        seconds = time.perf_counter() - start
        ids = np.array([[hit["corpus_id"] for hit in found] for found in hits])  # (N, K)
        np.savez(
            folder / f"{engine}.npz", ids=ids, scores=np.array([[hit["score"] for hit in found] for found in hits])
        )
        print(json.dumps({"seconds": seconds, "above": resident(peak=True) - before}), flush=True)


@contextmanager
def process(engine: str, folder: Path, case: Case, threads: int) -> Iterator[Ask]:
    """A worker on `threads` cores, that has its vectors and waits."""
    variables = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    line = [sys.executable, "-m", "benchmarks.semantic_search", "--threads", str(threads)]
    line += ["--worker", engine, str(folder), json.dumps(case)]
    with _process.worker(line, variables, threads) as (_, ask):
        yield ask


def measure(case: Case, folder: Path, rounds: int, threads: int) -> Row:
    """Both engines on one case, and how far their results differ."""
    seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    above: dict[str, float] = {}
    with ExitStack() as stack:
        asks = {engine: stack.enter_context(process(engine, folder, case, threads)) for engine in ENGINES}
        for engine in ENGINES:
            asks[engine]("search")
        for number in range(rounds):
            for engine in ENGINES if number % 2 == 0 else ENGINES[::-1]:
                found = asks[engine]("search")
                seconds[engine].append(found["seconds"])
                above[engine] = found["above"]
    ours, theirs = (np.load(folder / f"{engine}.npz") for engine in ENGINES)
    ratio = statistics.median(seconds[ENGINES[1]]) / statistics.median(seconds[ENGINES[0]])
    within = ratios(seconds[ENGINES[0]], seconds[ENGINES[1]])
    row: Row = {"score": case.score, "corpus": case.dtype, "queries": case.queries, "top_k": case.top_k}
    row |= {f"{engine} ms": 1e3 * spread(seconds[engine]).median for engine in ENGINES}
    row |= {"x": ratio, "range": f"{within.low:.2f} to {within.high:.2f}"}
    row |= {f"{engine} MB": above[engine] for engine in ENGINES}
    row |= {"same ids": f"{100 * np.mean(ours['ids'] == theirs['ids']):.1f}%"}
    return row | {"score differs by": f"{np.abs(ours['scores'] - theirs['scores']).max():.1e}"}


def vectors(folder: Path, rows: int, dim: int) -> None:
    """Random vectors of several lengths, written block by block."""
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((max(case.queries for case in CASES), dim), dtype=np.float32)
    corpus = rng.standard_normal((rows, dim), dtype=np.float32)
    corpus *= rng.uniform(0.05, 0.1, size=(rows, 1)).astype(np.float32)
    np.save(folder / "queries.npy", queries)
    for dtype in {case.dtype for case in CASES}:
        np.save(folder / f"corpus-{dtype}.npy", corpus.astype(dtype))


def main() -> None:
    """Measure every case, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        engine, folder, case = args.worker
        worker(engine, Path(folder), Case(*json.loads(case)), args.threads)
        return
    command = f"python -m benchmarks.semantic_search --threads {args.threads} --rounds {args.rounds}"
    command += f" --rows {args.rows} --dim {args.dim}"
    head = machine("Two processes on the same cores, one at work at a time.", threads=args.threads, command=command)
    head.rows.append({"what": "against", "is": _peer()})
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        vectors(Path(temporary), args.rows, args.dim)
        for case in CASES:
            rows.append(measure(case, Path(temporary), args.rounds, args.threads))
            print(rows[-1], file=sys.stderr)
    note = (
        f"{args.rows:,} x {args.dim} random numbers, {args.rounds} rounds. `x` is how many times as fast trivec is: "
        "the ratio of the medians, beside the range of the ratios within each round; below 1 trivec loses. MB: the "
        "most that the process took above what it had with all vectors loaded. Scores differ where the peer rounds in "
        "float32; ids differ where that changes an order."
    )
    digits = {f"{engine} {unit}": 1 for engine in ENGINES for unit in ("ms", "MB")}
    table = Table("search", "semantic_search", note, rows, digits)
    write([goals(_figures(rows), GOALS), head, table], "Semantic search", args.out, "semantic-search")


def _peer() -> str:
    from importlib.metadata import version

    return f"sentence-transformers {version('sentence-transformers')}, torch {version('torch')}"


def _figures(rows: list[Row]) -> dict[str, float]:
    """What the goals are about."""
    figures = {f"{row['score']} {row['corpus']} {row['queries']} {row['top_k']}": float(row["x"]) for row in rows}
    return figures | {"MB": max(float(row["trivec MB"]) for row in rows)}


if __name__ == "__main__":
    main()
