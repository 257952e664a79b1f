"""Real models, from checkpoints to figures: what an export takes, what its gates say, how fast and good it is.

    python -m benchmarks.models [NAME ...] [--models build/models] [--data ../shared/data/scifact] [--quick]

The checkpoints are those of `scripts/models`. Each is exported by `trivec export` in a process of its own (seconds, the
seconds of all its threads, peak memory), its variants are timed against sentence-transformers in turn, and retrieval on
BEIR's SciFact is judged for each variant by nDCG@10. Prints Markdown and writes it to benchmarks/results/models.md.
--quick takes few texts and documents and writes models-quick.*: a check, not a result.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from benchmarks.harness.machine import command_line, cpu_name, integer_kernels, now, vectors
from benchmarks.harness.profile import main_encoder
from benchmarks.harness.scifact import SciFact, cosine_ndcg, even_sample, mixed_texts, read, short_texts
from benchmarks.harness.stats import ratios, spread, turns
from benchmarks.harness.tables import Row, Table, write
from benchmarks.harness.venvs import ROOT, SHARED, checkout, size_of
from benchmarks.harness.worker import Contender, Process, encode

import trivec
from trivec._loading.load_keywords import Precision
from trivec._model import manifest_file
from trivec.compare._metrics import interval

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
THEIRS = "sentence-transformers fp32"


class Size(NamedTuple):
    """How much of everything a run takes."""

    short: int
    mixed: tuple[int, int]
    documents: int
    rounds: int


FULL = Size(short=256, mixed=(96, 32), documents=10**9, rounds=5)  # 10**9: all documents
QUICK = Size(short=32, mixed=(12, 4), documents=200, rounds=2)


class Exported(NamedTuple):
    """A model folder, and what making it took."""

    name: str
    checkpoint: Path
    folder: Path
    seconds: float
    cpu: float
    peak: int
    """Bytes."""


def export(checkpoint: Path, folder: Path) -> Exported:
    """Run `trivec export` with all variants."""
    command = [sys.executable, "-m", "trivec", "export", str(checkpoint), str(folder), "--quiet"]
    environment = checkout("runtime", "export") | {"HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # wait4 is what tells of the use, Popen is to know as well
    if process.returncode:
        raise SystemExit(f"{' '.join(command[1:])} ended with {process.returncode}.")
    seconds = time.perf_counter() - start
    return Exported(checkpoint.name, checkpoint, folder, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


# ---- tables --------------------------------------------------------------------------------------------------------


def run_table(arguments: Sequence[str], threads: int) -> Table:
    """The machine, the versions and the command."""
    rows: list[Row] = [
        {"what": "CPU", "is": cpu_name()},
        {"what": "of its instruction sets", "is": vectors()},
        {"what": "u8 x s8 products of onnxruntime", "is": integer_kernels()},
        {"what": "threads", "is": threads},
        {"what": "date", "is": now()},
        {"what": "command", "is": command_line("python -m benchmarks.models", arguments)},
        {"what": "trivec", "is": trivec.__version__},
    ]
    return Table("run", "The run", "Ratios are taken within a round: believe them before the absolute figures.", rows)


def export_table(found: Sequence[Exported]) -> Table:
    """What each export took."""
    rows: list[Row] = [
        {
            "model": made.name,
            "seconds": made.seconds,
            "CPU seconds": made.cpu,
            "peak GB": made.peak / 1e9,
            "checkpoint MB": size_of(made.checkpoint) / 1e6,
        }
        for made in found
    ]
    note = "`trivec export` with fp32, fp16 and int8, gates included, in a process of its own."
    return Table("export", "Export", note, rows, {"seconds": 1, "CPU seconds": 1, "checkpoint MB": 1})


def gate_table(found: Sequence[Exported]) -> Table:
    """What the gates say, as the manifests have it."""
    rows: list[Row] = []
    for made in found:
        manifest = manifest_file.read(made.folder)
        for precision, variant in main_encoder(manifest).variants.items():
            gate, rungs = variant.gate or {}, variant.rungs or {}
            row: Row = {"model": made.name, "variant": precision}
            row |= {"MB": sum(ref.bytes or 0 for ref in variant.files) / 1e6}
            row |= {"cosine min": float(gate["cosine_min"]), "mean": float(gate["cosine_mean"])}
            row |= {"top-10": float(gate["top10_overlap"]), "reference": str(manifest.source.get("reference"))}
            by_row, floats = len(rungs.get("by_row", ())), len(rungs.get("fp32", ()))
            rows.append(row | {"layers": f"{rungs['static']} static, {by_row} by row, {floats} fp32" if rungs else "-"})
    note = "Quoted from the manifests: cosine to the reference on texts that never calibrate. fp16 was emulated."
    return Table("gates", "Gates", note, rows, {"MB": 1, "cosine min": 5, "mean": 5, "top-10": 4})


def speed_table(found: Sequence[Exported], data: SciFact, size: Size, threads: int) -> Table:
    """Each variant against sentence-transformers, round after round."""
    sets = {"short": even_sample(short_texts(data), size.short), "mixed": mixed_texts(data, size.mixed)}
    rows: list[Row] = []
    for made in found:
        with tempfile.TemporaryDirectory() as scratch:
            for name, texts in sets.items():
                file = Path(scratch) / f"{name}.json"
                file.write_text(json.dumps(texts), encoding="utf-8")
                seconds = timed(made, file, size.rounds, threads, Path(scratch))
                for engine, times in seconds.items():
                    row: Row = {"model": made.name, "texts": name, "engine": engine}
                    row |= {"texts/s": len(texts) / spread(times).median}
                    faster = ratios(times, seconds[THEIRS])
                    row |= {"times as fast": faster.median, "from": faster.low, "to": faster.high}
                    rows.append(row)
    note = (
        f"Medians of {size.rounds} rounds in turn with {threads} threads each; short: sentences of 10 to 14 words; "
        "mixed: three of them to an abstract. sentence-transformers in batches of 32, its default."
    )
    return Table("speed", "Speed", note, rows, {"texts/s": 1})


def timed(made: Exported, texts: Path, rounds: int, threads: int, scratch: Path) -> dict[str, list[float]]:
    """Seconds of each engine, round after round."""
    limit = main_encoder(manifest_file.read(made.folder)).max_seq_length
    theirs = {"folder": str(made.checkpoint), "threads": threads, "tokens": limit}
    contenders = {THEIRS: Contender(THEIRS, "sentence-transformers", "", theirs)}
    for precision in PRECISIONS:
        ours = {"folder": str(made.folder), "precision": precision, "threads": threads}
        contenders[f"trivec {precision}"] = Contender(f"trivec {precision}", "trivec", "", ours)
    python = Path(sys.executable)
    processes = {
        name: Process(c, python, threads, scratch / f"{i}.log") for i, (name, c) in enumerate(contenders.items())
    }
    try:
        for process in processes.values():
            process.load()
            process.ask(encode(texts))  # not counted
        seconds: dict[str, list[float]] = {name: [] for name in processes}
        for name in turns(list(processes), rounds):
            seconds[name].append(float(processes[name].ask(encode(texts))["seconds"]))
    finally:
        for process in processes.values():
            process.close()
    return seconds


def quality_table(found: Sequence[Exported], data: SciFact, size: Size, threads: int) -> Table:
    """nDCG@10 of each variant on SciFact, and how far int8 is from fp32, query by query."""
    documents = list(data.documents.values())[: size.documents]
    gains = data.gains()[:, : len(documents)]
    rows: list[Row] = []
    for made in found:
        scores = {}
        for precision in PRECISIONS:
            print(f"{made.name} {precision}: {len(documents)} documents", file=sys.stderr, flush=True)
            with trivec.load(made.folder, precision=precision, device="cpu", threads=threads) as encoder:
                queries = encoder.encode_query(list(data.queries.values()))
                scores[precision] = cosine_ndcg(queries, encoder.encode_document(documents), gains)
        for precision, judged in scores.items():
            low, high = interval(judged - scores["fp32"])
            row: Row = {"model": made.name, "variant": precision, "nDCG@10": 100 * float(judged.mean())}
            rows.append(
                row | {"to fp32": 100 * float((judged - scores["fp32"]).mean()), "from": 100 * low, "to": 100 * high}
            )
    note = (
        f"SciFact: {len(data.queries)} queries, {len(documents)} documents, with the models' own prompts; nDCG x 100. "
        "The interval is that of the mean difference over resampled queries (95 %)."
    )
    return Table("quality", "Retrieval", note, rows, {"nDCG@10": 2, "to fp32": 2})


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--models", type=Path, default=ROOT / "build/models")
    parser.add_argument("--data", type=Path, default=SHARED / "data/scifact")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    size = size._replace(rounds=given.rounds or size.rounds)
    names = given.names or sorted(path.name for path in given.models.glob("*") if (path / "modules.json").is_file())
    if not names:
        raise SystemExit(f"{given.models} holds no checkpoint. Type: scripts/models")
    data = read(given.data)
    with tempfile.TemporaryDirectory(prefix="trivec-models") as scratch:
        found = []
        for name in names:
            print(f"export {name}", file=sys.stderr, flush=True)
            found.append(export(given.models / name, Path(scratch) / name))
        tables = [
            run_table(sys.argv[1:], given.threads),
            export_table(found),
            gate_table(found),
            speed_table(found, data, size, given.threads),
            quality_table(found, data, size, given.threads),
        ]
    write(tables, "Real models", given.out, "models-quick" if given.quick else "models")


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
