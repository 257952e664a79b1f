"""trivec.util against sentence_transformers.util on torch: semantic_search, both on the same cores, in turn.

    python -m benchmarks.semantic_search [--threads 2] [--rounds 5] [--rows 100000] [--dim 384]

Each engine is in a process of its own that may use so many cores and no more. Vectors are random and the same for
both, the corpus as an array in memory for trivec and as a tensor for sentence-transformers. The engines take turns
within each round; before the first round each has answered once. Memory is the greatest resident size of the process
less that before the first search, with all libraries and vectors loaded; each case has processes of its own.
"""

import argparse
import importlib
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmarks.harness.engines import Engine, Options
from benchmarks.harness.machine import machine
from benchmarks.harness.stats import ratios, spread, turns
from benchmarks.harness.tables import Goal, Row, Table, goals, write
from benchmarks.harness.venvs import ROOT
from benchmarks.harness.worker import Contender, Process, encode

ENGINES = {"trivec": "ours", "sentence-transformers": "theirs"}
"""Names, and the functions here that open them."""
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


def ours(options: Options) -> Engine:
    """The vectors of a case as arrays, and trivec.util to search them."""
    return _engine(importlib.import_module("trivec.util"), options, lambda vectors: vectors)


def theirs(options: Options) -> Engine:
    """The vectors of a case as tensors, and sentence_transformers.util to search them."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(options["threads"])
    return _engine(importlib.import_module("sentence_transformers.util"), options, torch.from_numpy)


def _engine(util: Any, options: Options, given: Callable[[Any], Any]) -> Engine:  # noqa: ANN401 - a module
    """Searches the corpus for the queries, whatever texts it is handed."""
    folder, case = Path(options["folder"]), Case(*options["case"])
    queries = given(np.load(folder / "queries.npy")[: case.queries])
    corpus = given(np.load(folder / f"corpus-{case.dtype}.npy"))
    function = getattr(util, case.score)

    def search(*_: object) -> Any:  # noqa: ANN401
        return util.semantic_search(queries, corpus, top_k=case.top_k, score_function=function)

    def arrays(hits: Any) -> dict[str, Any]:  # noqa: ANN401
        return {
            name: np.array([[hit[key] for hit in found] for found in hits])  # (N, K)
            for name, key in (("ids", "corpus_id"), ("scores", "score"))
        }

    return Engine(search, search, arrays)


def measure(case: Case, folder: Path, rounds: int, threads: int) -> Row:
    """Both engines on one case, and how far their results differ."""
    seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    above: dict[str, float] = {}
    with ExitStack() as stack:
        running, before = {}, {}
        for engine, opener in ENGINES.items():
            options = {"folder": str(folder), "case": case, "threads": threads}
            contender = Contender(engine, f"benchmarks.semantic_search:{opener}", "", options)
            process = Process(contender, Path(sys.executable), threads, folder / f"{engine}.log", pinned=True)
            running[engine] = stack.enter_context(process)
            before[engine] = running[engine].load().resident
        for engine in ENGINES:
            running[engine].ask(encode(None))
        for engine in turns(list(ENGINES), rounds):
            found = running[engine].ask(encode(None, save=folder / f"{engine}.npz"))
            seconds[engine].append(found["seconds"])
            above[engine] = (found["peak"] - before[engine]) / 2**20
    name, peer = ENGINES
    a, b = (np.load(folder / f"{engine}.npz") for engine in ENGINES)
    ratio = statistics.median(seconds[peer]) / statistics.median(seconds[name])
    within = ratios(seconds[name], seconds[peer])
    row: Row = {"score": case.score, "corpus": case.dtype, "queries": case.queries, "top_k": case.top_k}
    row |= {f"{engine} ms": 1e3 * spread(seconds[engine]).median for engine in ENGINES}
    row |= {"x": ratio, "range": f"{within.low:.2f} to {within.high:.2f}"}
    row |= {f"{engine} MB": above[engine] for engine in ENGINES}
    row |= {"same ids": f"{100 * np.mean(a['ids'] == b['ids']):.1f}%"}
    return row | {"score differs by": f"{np.abs(a['scores'] - b['scores']).max():.1e}"}


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
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args()
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
