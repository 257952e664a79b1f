"""Many callers, each asking for one short text at a time: `encode` from all of them against one Batcher.

    python -m benchmarks.concurrency FOLDER [--precision int8] [--callers 1,8,64] [--seconds 3] [--rounds 5]

Callers are threads (`encoder.encode` against `Batcher.encode`) or coroutines of one event loop (`encoder.aencode`,
which hands each call to a thread, against `Batcher.aencode`). Each asks again as soon as it has its answer. The two
ways take turns, round by round, and their ratio is that of each round. Prints Markdown and writes
concurrency-PRECISION.md and .jsonl.
"""

import argparse
import asyncio
import os
import platform
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime
from benchmarks.harness.machine import cpu_name, now
from benchmarks.harness.stats import turns
from benchmarks.harness.tables import Row, Table, write
from benchmarks.harness.venvs import ROOT

import trivec
from trivec._concurrency.batcher import Batcher
from trivec._model import manifest_file

# fmt: off
WORDS = ("how", "where", "what", "reset", "password", "train", "ticket", "invoice", "late", "refund", "order", "ship",
         "city", "weather", "tomorrow", "kitchen", "table", "blue", "small", "engine", "protein", "cell", "virus",
         "market", "price", "bank", "river", "mountain", "school", "child", "doctor", "music", "paper", "light", "open")
# fmt: on
Seconds = npt.NDArray[np.float64]


class Round(NamedTuple):
    """What one way gave in one round."""

    rate: float
    """Texts a second."""
    latencies: Seconds
    """(N,) from question to answer."""


def short_texts(number: int) -> list[str]:
    """Questions of 3 to 12 words."""
    rng = np.random.default_rng(11)
    return [" ".join(rng.choice(WORDS, size=rng.integers(3, 13))) for _ in range(number)]


def from_threads(ask: Callable[[str], Any], texts: Sequence[str], callers: int, seconds: float) -> Round:
    """`callers` threads ask until the time is over."""
    numbers = count()  # next() of it is one step of the interpreter: no text is taken twice
    start = threading.Barrier(callers + 1)
    found: list[list[float]] = [[] for _ in range(callers)]
    end = 0.0

    def caller(latencies: list[float]) -> None:
        start.wait()
        while (before := time.perf_counter()) < end:
            ask(texts[next(numbers) % len(texts)])
            latencies.append(time.perf_counter() - before)

    threads = [threading.Thread(target=caller, args=(latencies,)) for latencies in found]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    end = began + seconds
    start.wait()
    for thread in threads:
        thread.join()
    return _round(found, time.perf_counter() - began)


def from_coroutines(ask: Callable[[str], Awaitable[Any]], texts: Sequence[str], callers: int, seconds: float) -> Round:
    """`callers` coroutines of one event loop ask until the time is over."""
    numbers = count()
    found: list[list[float]] = [[] for _ in range(callers)]

    async def caller(latencies: list[float], end: float) -> None:
        while (before := time.perf_counter()) < end:
            await ask(texts[next(numbers) % len(texts)])
            latencies.append(time.perf_counter() - before)

    async def everyone() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(caller(latencies, began + seconds) for latencies in found))
        return time.perf_counter() - began

    return _round(found, asyncio.run(everyone()))


def _round(found: Sequence[Sequence[float]], seconds: float) -> Round:
    latencies = np.concatenate([np.asarray(part, dtype=np.float64) for part in found])
    return Round(len(latencies) / seconds, latencies)


def measure(encoder: Any, callers: int, args: argparse.Namespace, texts: Sequence[str]) -> list[Row]:  # noqa: ANN401
    """Rows for a number of callers: the two ways, from threads and from coroutines."""
    rows: list[Row] = []
    with Batcher(encoder, max_texts=args.max_texts) as batcher:
        ways: dict[str, dict[str, Callable[[float], Round]]] = {
            "threads": {
                "encoder.encode": lambda s: from_threads(encoder.encode, texts, callers, s),
                "Batcher.encode": lambda s: from_threads(batcher.encode, texts, callers, s),
            },
            "coroutines": {
                "encoder.aencode": lambda s: from_coroutines(encoder.aencode, texts, callers, s),
                "Batcher.aencode": lambda s: from_coroutines(batcher.aencode, texts, callers, s),
            },
        }
        for kind, pair in ways.items():
            rounds: dict[str, list[Round]] = {name: [] for name in pair}
            for way in pair.values():  # warm up
                way(min(args.seconds, 0.3))
            for name in turns(list(pair), args.rounds):
                rounds[name].append(pair[name](args.seconds))
            plain = next(iter(rounds.values()))
            rows += [_row(callers, kind, name, found, plain) for name, found in rounds.items()]
    return rows


def _row(callers: int, kind: str, name: str, found: Sequence[Round], plain: Sequence[Round]) -> Row:
    latencies = np.concatenate([r.latencies for r in found]) * 1e3
    ratios = [a.rate / b.rate for a, b in zip(found, plain, strict=True)]
    return {
        "callers": callers,
        "kind": kind,
        "call": name,
        "texts/s": statistics.median(r.rate for r in found),
        "x plain": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "p50 ms": float(np.percentile(latencies, 50)),
        "p99 ms": float(np.percentile(latencies, 99)),
    }


def _machine(args: argparse.Namespace, load: float) -> Table:
    files = manifest_file.read(args.folder).files(args.precision)
    rows: list[Row] = [
        {"what": "CPU", "is": f"{cpu_name()}, {os.cpu_count()} logical, {args.threads} threads"},
        {"what": "date", "is": now()},
        {
            "what": "versions",
            "is": f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, "
            f"trivec {trivec.__version__}",
        },
    ]
    rows += [{"what": ref.path, "is": f"sha256 {ref.sha256}"} for ref in files]
    return Table("run", "The run", f"Load average of the machine before the run: {load:.2f}.", rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--callers", default="1,8,64")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-texts", type=int, default=64)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    texts = short_texts(4096)
    rows: list[Row] = []
    with trivec.load(args.folder, precision=args.precision, device="cpu", threads=args.threads) as encoder:
        tokens = [len(ids) for ids in encoder.tokenize(texts)]
        for callers in map(int, args.callers.split(",")):
            rows += measure(encoder, callers, args, texts)
    note = (
        f"{args.precision}, texts of {min(tokens)} to {max(tokens)} tokens, {args.rounds} rounds of {args.seconds:g} s "
        f"each way in turn; a Batcher's run holds {args.max_texts} texts at most. texts/s: the median round. x plain: "
        "the median of the rounds' ratios, with the least and the most. Latencies of all rounds together."
    )
    tables = [_machine(args, load), Table("concurrency", "Callers of one text", note, rows, {"texts/s": 0})]
    write(tables, "Many callers of one encoder", args.out, f"concurrency-{args.precision}")


if __name__ == "__main__":
    main()
