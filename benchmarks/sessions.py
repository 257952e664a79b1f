"""What each setting of the onnxruntime session and the planner costs or saves: time, memory, load, latency, CPU time.

    python -m benchmarks.sessions FOLDER [--precision int8] [--rounds 3] [--data FOLDER]

Each variant differs from what trivec does in one setting. It runs in processes of its own, right after one of trivec
as it is, round after round; ratios are of such neighbours, their median is shown.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from benchmarks.harness.engines import Engine, Options
from benchmarks.harness.machine import machine
from benchmarks.harness.profile import opening
from benchmarks.harness.scifact import even_sample, read, split_sentences
from benchmarks.harness.tables import Row, Table, write
from benchmarks.harness.venvs import ROOT, SHARED
from benchmarks.harness.worker import Contender, Process, encode, latency

import trivec
from trivec._engine.open_session import DISABLED_OPTIMIZERS
from trivec._engine.session import Session

AS_IT_IS, SHRUNK, ONE_RUN = "as trivec does", "arena shrunk after each run", "one run at a time"
CALLS = 100  # of one text


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
    "with SkipLayerNormFusion": _entry(DISABLED_OPTIMIZERS, "BiasGeluFusion"),
    "with BiasGeluFusion": _entry(DISABLED_OPTIMIZERS, "SkipLayerNormFusion"),
    "with memory patterns": _set("enable_mem_pattern", True),
    "without arena": _set("enable_cpu_mem_arena", False),
    "arena of kSameAsRequested": _same_as_requested,
    SHRUNK: lambda _: None,  # not of the session: see engine
    "without spinning": _entry("session.intra_op.allow_spinning", "0"),
    "spinning for 500 us": _entry("session.intra_op.spin_duration_us", "500"),
    "weights packed in parallel": _entry("session.prepack.enable_parallel", "1"),
    "finer blocks (dynamic_block_base 4)": _entry("session.dynamic_block_base", "4"),
    ONE_RUN: lambda _: None,  # likewise
    **{f"batch_size {size}": lambda _: None for size in (8, 16, 64, 128)},  # of the call
}


def engine(options: Options) -> Engine:
    """Trivec with one setting of its sessions changed."""
    variant = str(options["variant"])

    def make(*files: Sequence[Path], **given: Any) -> Session:  # noqa: ANN401 - whatever the loader says
        session = Session(*files, **given, options=VARIANTS[variant])
        if variant == ONE_RUN:
            session.lanes = 1
        return session

    if variant == SHRUNK:  # of each run, which no option of a session says
        run, shrink = ort.InferenceSession.run, ort.RunOptions()
        shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        ort.InferenceSession.run = lambda self, outputs, feeds, _=None: run(self, outputs, feeds, shrink)
    with opening(make):
        encoder = trivec.load(
            options["folder"], precision=options["precision"], device="cpu", threads=options["threads"]
        )
    return Engine(
        lambda texts, batch: encoder.encode(texts, batch_size=batch or 32),
        encoder.encode,
        lambda found: {"dense": found},
    )


def measured(variant: str, args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Seconds and megabytes of one variant, in a process of its own."""
    options = {"folder": str(args.folder), "precision": args.precision, "threads": args.threads, "variant": variant}
    contender = Contender(variant, "benchmarks.sessions:engine", "", options)
    batch = int(variant.split()[1]) if variant.startswith("batch_size") else 32
    with Process(contender, Path(sys.executable), args.threads, folder / "engine.log") as process:
        loaded = process.load().seconds
        process.ask(encode(folder / "first.json", batch))
        many = process.ask(encode(folder / "texts.json", batch, folder / "vectors.npz"))
        # calls come one by one: threads that spin go on spinning meanwhile
        one = process.ask(latency(folder / "one.json", CALLS, pause=0.01))
        peak = process.ask({"do": "peak"})["bytes"]
    with np.load(folder / "vectors.npz") as saved:
        found = {"sum": float(np.abs(saved["dense"]).sum())}
    found |= {"load": loaded, "seconds": many["seconds"], "cpu": many["cpu"]}
    found |= {"rss": many["resident"] / 2**20, "peak": peak / 2**20}
    return found | {"one": statistics.median(one["seconds"]), "one cpu": one["cpu"] / CALLS}


def main() -> None:
    """Run the variants in turn, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=SHARED / "data/scifact")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--variants", help="some of them, with commas between (default: all)")
    args = parser.parse_args()
    command = f"python -m benchmarks.sessions --precision {args.precision}"
    head = machine("Processes one after the other.", threads=args.threads, command=command)
    corpus = read(args.data)
    sentences = [part for text in corpus.abstracts.values() for part in split_sentences(text)]
    texts = even_sample(sentences, 450) + even_sample(list(corpus.documents.values()), 150)
    random.Random(0).shuffle(texts)

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, listed in (("first", texts[:50]), ("texts", texts), ("one", ["How do I reset my password?"])):
            (folder / f"{name}.json").write_text(json.dumps(listed), encoding="utf-8")
        for variant in args.variants.split(",") if args.variants else VARIANTS:
            pairs = [[measured(v, args, folder) for v in (AS_IT_IS, variant)] for _ in range(args.rounds)]
            rows.append(_row(variant, pairs))
            print(rows[-1], file=sys.stderr)
    note = (
        "450 sentences and 150 documents of SciFact in one call; the columns with x are ratios to trivec as it is in "
        "the process before (below 1 is better), the medians of the rounds. One text: p50 of 100 calls with a pause of "
        "10 ms after each; its CPU time includes what spinning threads burn in the pauses."
    )
    digits = {"RSS MB": 0, "peak MB": 0, "load ms": 0}
    write([head, Table("sessions", "Settings", note, rows, digits)], "Session settings", args.out, "sessions")


def _row(variant: str, pairs: list[list[dict[str, float]]]) -> Row:
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
