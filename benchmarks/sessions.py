"""What each setting of the onnxruntime session and the planner costs or saves: time, memory, load, latency, CPU time.

    python -m benchmarks.sessions FOLDER [--precision int8] [--rounds 3] [--data FOLDER]

Each variant differs from what trivec does in one setting. It runs in processes of its own, right after one of trivec
as it is, round after round; ratios are of such neighbours, their median is shown.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from benchmarks._process import machine, resident, write
from benchmarks._scifact import even_sample, read, split_sentences
from benchmarks._table import Row, Table

AS_IT_IS = "as trivec does"


def _entry(key: str, value: str) -> Callable[[ort.SessionOptions], None]:
    return lambda options: options.add_session_config_entry(key, value)


def _set(name: str, value: object) -> Callable[[ort.SessionOptions], None]:
    return lambda options: setattr(options, name, value)


def _same_as_requested(options: ort.SessionOptions) -> None:
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(info, ort.OrtArenaCfg({"arena_extend_strategy": 1}))
    options.add_session_config_entry("session.use_env_allocators", "1")


VARIANTS: dict[str, Callable[[ort.SessionOptions], None]] = {
    AS_IT_IS: lambda _: None,
    "with SkipLayerNormFusion": lambda _: None,  # an argument of the session: see _patch
    "with BiasGeluFusion": lambda _: None,  # likewise
    "with memory patterns": _set("enable_mem_pattern", True),
    "without arena": _set("enable_cpu_mem_arena", False),
    "arena of kSameAsRequested": _same_as_requested,
    "arena shrunk after each run": lambda _: None,  # an option of the run: see _patch
    "without spinning": _entry("session.intra_op.allow_spinning", "0"),
    "spinning for 500 us": _entry("session.intra_op.spin_duration_us", "500"),
    "weights packed in parallel": _entry("session.prepack.enable_parallel", "1"),
    "finer blocks (dynamic_block_base 4)": _entry("session.dynamic_block_base", "4"),
    "one run at a time": lambda _: None,  # of the encoder: see worker
    **{f"batch_size {size}": lambda _: None for size in (8, 16, 64, 128)},
}


def _patch(variant: str) -> None:
    """Make trivec's sessions differ in one setting."""
    from trivec._engine import open_session

    made, session_of = open_session._options, ort.InferenceSession

    def options_of(*arguments: Any) -> Any:  # noqa: ANN401 - onnxruntime has no types
        options, buffers = made(*arguments)
        VARIANTS[variant](options)
        return options, buffers

    def session(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        if variant.startswith("with ") and variant.endswith("Fusion"):
            fusion = variant.removeprefix("with ")
            named["disabled_optimizers"] = [name for name in named["disabled_optimizers"] if name != fusion]
        return session_of(*arguments, **named)

    setattr(open_session, "_options", options_of)  # noqa: B010 - a type of its own
    ort.InferenceSession = session
    if variant == "arena shrunk after each run":
        run = session_of.run
        shrink = ort.RunOptions()
        shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        session_of.run = lambda self, outputs, feeds, _=None: run(self, outputs, feeds, shrink)


def worker(variant: str, folder: str, precision: str, threads: int, texts: list[str]) -> None:
    """Measure one variant in this process; prints a JSON object."""
    _patch(variant)
    import trivec

    start = time.perf_counter()
    encoder = trivec.load(folder, precision=precision, device="cpu", threads=threads)
    loaded = time.perf_counter() - start
    if variant == "one run at a time":
        for pipeline in encoder._pipelines.values():
            pipeline.session.lanes = 1
    size = int(variant.split()[1]) if variant.startswith("batch_size") else 32
    encoder.encode(texts[:50], batch_size=size)
    before = time.process_time()
    start = time.perf_counter()
    vectors = encoder.encode(texts, batch_size=size)
    seconds, cpu = time.perf_counter() - start, time.process_time() - before
    resting = resident()
    before = time.process_time()
    calls = []
    for _ in range(100):
        start = time.perf_counter()
        encoder.encode("How do I reset my password?")
        calls.append(time.perf_counter() - start)
        time.sleep(0.01)  # calls come one by one: threads that spin go on spinning meanwhile
    found = {"load": loaded, "seconds": seconds, "cpu": cpu, "rss": resting, "peak": resident(peak=True)}
    found |= {"one": statistics.median(calls), "one cpu": (time.process_time() - before) / len(calls)}
    print(json.dumps(found | {"sum": float(np.abs(vectors).sum())}))


def main() -> None:
    """Run the variants in turn, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[1]
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=root.parent / "shared/data/scifact")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        worker(args.variant, str(args.folder), args.precision, args.threads, json.load(sys.stdin))
        return
    command = f"python -m benchmarks.sessions --precision {args.precision}"
    head = machine("Processes one after the other.", threads=args.threads, command=command)
    corpus = read(args.data)
    sentences = [part for text in corpus.abstracts.values() for part in split_sentences(text)]
    texts = even_sample(sentences, 450) + even_sample(list(corpus.documents.values()), 150)
    random.Random(0).shuffle(texts)

    def measured(variant: str) -> dict[str, float]:
        line = [sys.executable, "-m", "benchmarks.sessions", str(args.folder), "--variant", variant]
        line += ["--precision", args.precision, "--threads", str(args.threads)]
        done = subprocess.run(line, input=json.dumps(texts), capture_output=True, text=True, check=True, env=os.environ)
        found: dict[str, float] = json.loads(done.stdout)
        return found

    rows: list[Row] = []
    for variant in VARIANTS:
        pairs = [(measured(AS_IT_IS), measured(variant)) for _ in range(args.rounds)]
        rows.append(_row(variant, pairs))
        print(rows[-1], file=sys.stderr)
    note = (
        "450 sentences and 150 documents of SciFact in one call; the columns with x are ratios to trivec as it is in "
        "the process before (below 1 is better), the medians of the rounds. One text: p50 of 100 calls with a pause of "
        "10 ms after each; its CPU time includes what spinning threads burn in the pauses."
    )
    digits = {"RSS MB": 0, "peak MB": 0, "load ms": 0}
    write([head, Table("sessions", "Settings", note, rows, digits)], "Session settings", args.out, "sessions")


def _row(variant: str, pairs: list[tuple[dict[str, float], dict[str, float]]]) -> Row:
    def ratio(key: str) -> float:
        return statistics.median(b[key] / a[key] for a, b in pairs)

    def value(key: str) -> float:
        return statistics.median(b[key] for _, b in pairs)

    row: Row = {"setting": variant, "time x": ratio("seconds"), "CPU time x": ratio("cpu")}
    row |= {"one text ms": value("one") * 1e3, "one text x": ratio("one"), "its CPU ms": value("one cpu") * 1e3}
    row |= {"RSS MB": value("rss"), "peak MB": value("peak"), "load ms": value("load") * 1e3}
    return row | {"sum x": ratio("sum")}


if __name__ == "__main__":
    main()
