"""The report of trivec and its peers: what the run was on, what it was meant to reach, its files and plots."""

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import VECTORS, command_line, cpu_name, integer_kernels, now, vectors
from benchmarks.harness.models import checkpoint
from benchmarks.harness.tables import Goal, Row, Table, save
from benchmarks.harness.venvs import PEERS, ROOT, Failed, tidy, versions

import trivec
from trivec._model.integrity import sha256
from trivec._system.threads import available_threads

PLOTS = ("throughput", "latency", "footprint", "operators")
_SHOWN = (
    "numpy",
    "onnxruntime",
    "tokenizers",
    "torch",
    "transformers",
    "sentence-transformers",
    "fastembed",
    "optimum",
    "optimum-onnx",
    "flagembedding",
    "model2vec",
    "openvino",
    "nncf",
    "ctranslate2",
)


def faster(what: str, key: str, ours: str, peer: str, least: float) -> Goal:
    """How many times as fast a variant of trivec is as a peer, at least."""
    return Goal(f"{what}: trivec {ours} over {peer}", f"{key} / trivec {ours} / {peer}", "", ">=", least)


def less(what: str, key: str, ours: str, peer: str, most: float) -> Goal:
    """What part of a peer's figure a variant of trivec has, at most."""
    return Goal(f"{what}: trivec {ours} / {peer}", f"{key} / trivec {ours}", f"{key} / {peer}", "<=", most)


GOALS = (
    faster("mixed", "dense mixed", "fp32", "sentence-transformers", 1.4),
    faster("mixed", "dense mixed", "fp32", "FastEmbed", 2.0),
    faster("mixed", "dense mixed", "int8", "sentence-transformers", 2.1),
    faster("mixed", "dense mixed", "int8", "FastEmbed", 3.0),
    faster("short", "dense short", "int8", "sentence-transformers", 2.8),
    less("one text, p50", "latency", "int8", "sentence-transformers", 1 / 5),
    less("one text, p50", "latency", "int8", "FastEmbed", 0.7),
    less("one text, p50", "latency", "fp32", "FastEmbed", 1.0),
    *(
        less(f"one text of {model}, p50", f"latency {model}", "fp32", "FastEmbed", 1.0)
        for model in ("mpnet", "e5-small")
    ),
    less("first vector", "cold", "fp32", "sentence-transformers", 1 / 12),
    less("first vector", "cold", "int8", "sentence-transformers", 1 / 12),
    less("peak RSS", "memory", "int8", "sentence-transformers", 1 / 3),
    Goal("long: share of the ceiling, trivec fp32, %", "dense long / share / trivec fp32", "", ">=", 80),
    Goal("long: share of the ceiling, trivec int8, %", "dense long / share / trivec int8", "", ">=", 62),
    *(
        faster(f"{model}{name}", f"dense {model}{name}", "int8 by either engine", "OpenVINO int8", 1.0)
        for model in ("", "mpnet ", "e5-small ")
        for name in ("short", "long", "mixed")
    ),
    *(
        Goal(
            f"{name}: time of trivec bf16 / fp32",
            f"dense {name} / trivec fp32 / trivec bf16, OpenVINO",
            "",
            "<=",
            1 / x,
        )
        for name, x in (("short", 1.55), ("long", 1.75), ("mixed", 1.75))
    ),
    faster("SPLADE", "splade", "fp32", "SparseEncoder", 1.3),
    faster("SPLADE", "splade", "int8", "SparseEncoder", 2.0),
    faster("BGE-M3's shape", "bge-m3", "fp32", "FlagEmbedding", 1.3),
    faster("BGE-M3's shape", "bge-m3", "int8", "FlagEmbedding", 2.0),
)


def run_table(
    args: argparse.Namespace, load: float, venvs: Path, command: str = "python -m benchmarks.compare"
) -> Table:
    """The machine, the versions, the command."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found: dict[str, Any] = {
        "CPU": cpu_name(),
        f"of {', '.join(VECTORS)} it has": vectors(),
        "u8 x s8 products of onnxruntime": integer_kernels(),
        "cores, memory": f"{available_threads().count} that this process may use, {memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "threads of every engine": args.threads,
        "load average": f"{load:.2f} at the start, {os.getloadavg()[0]:.2f} at the end (the run's own work is in it)",
        "date": now(),
        "command": tidy(command_line(command, sys.argv[1:])),
        "trivec": trivec.__version__ + _commit(),
    }
    for name in ("trivec", *sorted(p.stem for p in PEERS.glob("*.txt"))):
        installed = versions(venvs / name) if (venvs / name).is_dir() else {}
        listed = ", ".join(f"{package} {installed[package]}" for package in _SHOWN if package in installed)
        if listed and name != "plots":
            found[f"environment {name}"] = listed
    note = (
        "Each engine in its own process and environment; they take turns, one at a time. Ratios are taken within a "
        "round: believe them before the absolute figures."
    )
    return Table("run", "The run", note, [{"what": what, "is": value} for what, value in found.items()])


def _commit() -> str:
    """The commit, and whether files differ from it; nothing outside a repository."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=, with changes"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return f", commit {done.stdout.strip()}" if done.returncode == 0 else ""


def file_rows(folders: Sequence[Path]) -> list[Row]:
    """Name, size and sha256 of the graphs and weights in folders."""
    kinds = (".onnx", ".data", ".safetensors", ".pt")
    rows: list[Row] = []
    for folder in folders:
        files = sorted(f for f in folder.rglob("*") if f.is_file() and f.suffix in kinds)
        rows += [{"file": tidy(str(f)), "bytes": f.stat().st_size, "sha256": sha256(f)} for f in files]
    return rows


def file_table(folder: Path, models: Path, before: list[Row]) -> Table:
    """The files that were measured, hashed again: whether trivec's are still those of the start."""
    after = file_rows([folder])
    others = file_rows([checkpoint(), *([models] if models.is_dir() else [])])
    note = "trivec's were hashed before and after the run, with the same result."
    if after != before:
        note = "**trivec's files CHANGED during the run: its figures are of no one set of files. Run again.**"
        print(note, file=sys.stderr)
    return Table("files", "The files", note, [*after, *others])


def write(tables: Sequence[Table], raw: Sequence[dict[str, Any]], out: Path, name: str, *, quick: bool) -> None:
    """Write NAME.md, and NAME.jsonl: a measurement a line, then a table row a line."""
    title = "# trivec and its peers" + (" (--quick: a check, not a result)" if quick else "")
    pictures = [f"![{plot}]({name}-{plot}.png)" for plot in PLOTS]
    head, *rest = [table.markdown() for table in tables]
    text = "\n".join([f"{title}\n", head, "\n\n".join(pictures) + "\n", *rest])
    save(text, [*raw, *(record for table in tables for record in table.records())], out, name)


def plot(python: Path, out: Path, name: str) -> None:
    """Draw the plots of NAME.jsonl with an environment that has matplotlib; drop those of the report that are not made.

    Raises:
        Failed: it cannot draw.
    """
    command = [str(python), "-P", str(Path(__file__).with_name("plots.py")), str(out / f"{name}.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = out / f"{name}.md"
    kept = report.read_text(encoding="utf-8")
    for picture in PLOTS:
        if not (out / f"{name}-{picture}.png").is_file():
            kept = kept.replace(f"![{picture}]({name}-{picture}.png)\n\n", "").replace(
                f"![{picture}]({name}-{picture}.png)\n", ""
            )
    report.write_text(kept, encoding="utf-8")
    if done.returncode:
        raise Failed(" ".join(command), (done.stderr.strip().splitlines() or ["nothing was said"])[-1])
