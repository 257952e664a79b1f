"""`trivec serve` under load, beside the encoder in process and beside other servers, in one run.

    python -m benchmarks.serve FOLDER [--rounds 5] [--seconds 6] [--long 60] [--only throughput,peers,...] [--quick]

FOLDER is all-MiniLM-L6-v2 as `scripts/demo` exports it. Each measure takes its ways in turns, round after round, and
ratios are taken within a round. The load comes from this process, over raw streams (benchmarks/harness/load.py), so it
takes its share of the cores; the report has it. Peers are infinity on torch, and sentence-transformers and FastEmbed
behind starlette, as people write it; each in an environment of its own (build/bench/NAME, made at the first run). Linux
only. Prints Markdown and writes serve.md and .jsonl.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.harness import models
from benchmarks.harness.load import Connection, closed, post
from benchmarks.harness.machine import machine
from benchmarks.harness.peer_servers import peers
from benchmarks.harness.serving import PATH, Run, Way, embeddings, go, goal, met
from benchmarks.harness.stats import spread
from benchmarks.harness.tables import Row, Table, write
from benchmarks.harness.under_load import drain, fairness, hangups, latency, overload, slow, soak
from benchmarks.harness.venvs import ROOT, SHARED, checkout

from trivec._concurrency.batcher import Batcher

_LOADED = """import sys, trivec
trivec.load(sys.argv[1], precision="int8", device="cpu")
"""


def start(run: Run) -> Table:
    """From a process's first line to its answers, and what it does when nobody asks."""
    command = [sys.executable, "-c", _LOADED, str(run.args.folder)]

    def loaded() -> float:
        before = time.perf_counter()
        subprocess.run(command, env=checkout("runtime"), check=True, capture_output=True)
        return time.perf_counter() - before

    live, ready = [], []
    loads = []
    for _ in range(run.args.rounds):
        loads.append(loaded())
        with run.serve() as server:
            live.append(server.live)
            ready.append(server.ready)
    with run.serve() as server:
        time.sleep(1)
        before = server.cpu()
        time.sleep(run.args.seconds)
        idle = 100 * (server.cpu() - before) / run.args.seconds
        memory = server.memory()
    rows: list[Row] = [
        {"what": "process to live, s", "median": spread(live).median, "goal": "<= 0.4"},
        {"what": "process to ready, s", "median": spread(ready).median, "goal": f"<= {spread(loads).median + 0.5:.2f}"},
        {"what": "a process that loads and ends, s", "median": spread(loads).median, "goal": ""},
        {"what": "CPU when idle, %", "median": idle, "goal": "< 0.2"},
        {"what": "memory when ready, MB", "median": memory, "goal": ""},
    ]
    return Table("start", "Start", f"int8, {run.args.rounds} starts. Ready: `trivec.load` + 0.5 s.", rows)


def throughput(run: Run) -> Table:
    """Texts a second through HTTP, beside the encoder in this process."""
    rows: list[Row] = [row for precision in ("int8", "fp32") for row in _throughput(run, precision)]
    run.saturation = next(float(row["texts/s"]) for row in rows if row["way"] == "HTTP, 64 x 1 text")
    note = (
        f"{run.args.rounds} rounds of {run.args.seconds:g} s in turns, {run.args.threads} threads. Ratios are medians "
        "of those within a round. The load comes from this process, on the same cores."
    )
    return Table("throughput", "Throughput", note, rows, {"texts/s": 2})


def _throughput(run: Run, precision: str) -> list[Row]:
    seconds, every = run.args.seconds, [text for batch in run.batches for text in batch]
    base64 = [embeddings(batch) for batch in run.batches]
    floats = [embeddings(batch, "float") for batch in run.batches]
    single = [embeddings(text) for text in run.short]
    with run.load(precision) as encoder, run.serve(precision) as server:
        ways: dict[str, Way] = {
            "encode, 1,024 texts": lambda: _encoded(encoder, every, seconds),
            "HTTP, 4 x 32 texts, base64": lambda: go(closed(server.url, base64, 4, seconds)).rate(32),
            "HTTP, 4 x 32 texts, float": lambda: go(closed(server.url, floats, 4, seconds)).rate(32),
            "encode, one after the other": lambda: _encoded(encoder, run.short, seconds, alone=True),
            "Batcher, 64 coroutines": lambda: _batched(encoder, run.short, 64, seconds),
            "HTTP, 64 x 1 text": lambda: go(closed(server.url, single, 64, seconds)).rate(),
        }
        for way in ways.values():
            way()
        found = run.rounds(ways)
    rows: list[Row] = []
    for name, all_ in found.items():
        rows.append({"precision": precision, "way": name, "texts/s": spread(all_).median, "goal": "", "met": ""})
    for name, of, least in (
        ("HTTP, 4 x 32 texts, base64", "encode, 1,024 texts", 0.92),
        ("HTTP, 4 x 32 texts, float", "HTTP, 4 x 32 texts, base64", 0.9),
        ("HTTP, 64 x 1 text", "Batcher, 64 coroutines", 0.75),
        ("HTTP, 64 x 1 text", "encode, one after the other", 1.4),
    ):
        ratio = spread([a / b for a, b in zip(found[name], found[of], strict=True)]).median
        row: Row = {"precision": precision, "way": f"{name} / {of}", "texts/s": ratio}
        rows.append(row | goal(ratio, least))
    return rows


def _encoded(encoder: Any, texts: list[str], seconds: float, *, alone: bool = False) -> float:  # noqa: ANN401
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        if alone:
            encoder.encode(texts[done % len(texts)])
            done += 1
        else:
            encoder.encode(texts)
            done += len(texts)
    return done / (time.perf_counter() - begin)


def _batched(encoder: Any, texts: list[str], callers: int, seconds: float) -> float:  # noqa: ANN401
    async def everyone() -> float:
        done, begin = 0, time.perf_counter()

        async def caller(first: int) -> None:
            nonlocal done
            number = first
            while time.perf_counter() - begin < seconds:
                await batcher.aencode(texts[number % len(texts)])
                number, done = number + callers, done + 1

        await asyncio.gather(*(caller(first) for first in range(callers)))
        return done / (time.perf_counter() - begin)

    with Batcher(encoder) as batcher:
        return asyncio.run(everyone())


def hybrid(run: Run) -> Table:
    """Dense, sparse and ColBERT of a text in one answer, beside `encode` with all three."""
    _, folder = models.bge_folders(run.args.tokenizer, ROOT / "build/bench/models")
    batches, every = [run.short[i : i + 16] for i in range(0, 256, 16)], run.short[:256]
    asked = {"model": "minilm", "encoding_format": "base64", "outputs": ["dense", "sparse", "colbert"]}
    requests = [post(PATH, {**asked, "input": batch}) for batch in batches]
    with run.load(folder=folder) as encoder, run.serve(folder=folder) as server:

        def direct() -> float:
            before = time.perf_counter()
            encoder.encode(every, return_dense=True, return_sparse=True, return_colbert_vecs=True)
            return len(every) / (time.perf_counter() - before)

        ways: dict[str, Way] = {
            "encode, 256 texts": direct,
            "HTTP, 4 x 16 texts": lambda: go(closed(server.url, requests, 4, run.args.seconds)).rate(16),
        }
        for way in ways.values():
            way()
        found = run.rounds(ways)
    rows: list[Row] = [
        {"way": name, "texts/s": spread(all_).median, "goal": "", "met": ""} for name, all_ in found.items()
    ]
    pairs = zip(found["HTTP, 4 x 16 texts"], found["encode, 256 texts"], strict=True)
    ratio = spread([a / b for a, b in pairs]).median
    quotient: Row = {"way": "HTTP / encode", "texts/s": ratio}
    rows.append(quotient | goal(ratio, 0.85))
    note = (
        f"int8, BGE-M3's shape with random weights and {models.BGE_LAYERS} of its 24 layers, base64; short texts, "
        f"{run.args.rounds} rounds in turns."
    )
    return Table("hybrid", "Three kinds of vectors", note, rows)


def overhead(run: Run) -> Table:
    """What HTTP adds to one short text on an idle server."""
    rows: list[Row] = []
    with run.load() as encoder, run.serve() as server:
        ask = [embeddings(text) for text in run.short]

        def direct() -> float:
            found = []
            for text in run.short[:400]:
                before = time.perf_counter()
                encoder.encode(text)
                found.append(time.perf_counter() - before)
            return 1e6 * float(np.median(found))

        async def over_http() -> float:
            found = []
            async with Connection(server.url) as connection:
                for request in ask[:400]:
                    before = time.perf_counter()
                    await connection.ask(request)
                    found.append(time.perf_counter() - before)
            return 1e6 * float(np.median(found))

        ways: dict[str, Way] = {"encode": direct, "HTTP": lambda: asyncio.run(over_http())}
        for way in ways.values():
            way()
        found = run.rounds(ways)
        beyond = spread([a - b for a, b in zip(found["HTTP"], found["encode"], strict=True)]).median
    rows += [{"way": name, "us p50": spread(all_).median, "goal": "", "met": ""} for name, all_ in found.items()]
    rows.append({"way": "HTTP less encode", "us p50": beyond, "goal": "<= 450", "met": met(beyond <= 450)})
    run.idle = spread(found["HTTP"]).median / 1000
    note = f"int8, short texts one at a time, 400 a round, {run.args.rounds} rounds in turns."
    return Table("overhead", "One text, idle", note, rows, {"us p50": 0})


MEASURES: dict[str, Callable[[Run], Table]] = {
    measure.__name__: measure
    for measure in (start, throughput, hybrid, overhead, latency, fairness, overload, drain, slow, hangups, soak, peers)
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of one turn")
    parser.add_argument("--long", type=float, default=60.0, help="seconds of a load whose tail counts")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--tokenizer", type=Path, default=SHARED / "models/xlm-roberta-tokenizer", help="of the hybrid model"
    )
    parser.add_argument("--drains", type=int, default=20)
    parser.add_argument("--slow", type=int, default=500)
    parser.add_argument("--hangups", type=int, default=1000)
    parser.add_argument("--soak", type=int, default=100_000, help="requests")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(MEASURES))
    parser.add_argument("--quick", action="store_true", help="whether it runs, no figures")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.long = 1, 0.5, 1.0
        args.drains, args.slow, args.hangups, args.soak = 2, 20, 20, 200
    if unknown := set(args.only) - set(MEASURES):
        parser.error(f"--only {', '.join(sorted(unknown))}: expected some of {', '.join(MEASURES)}")
    run = Run(args)
    said = "The load, the server and, in turns, the encoder in process share these cores."
    tables = [machine(said, threads=args.threads, command=f"python -m benchmarks.serve FOLDER --rounds {args.rounds}")]
    for name in (name for name in MEASURES if name in args.only):
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        tables.append(MEASURES[name](run))
    write(tables, "The server", args.out, "serve")


if __name__ == "__main__":
    main()
