"""How far the vectors of one model are apart where engines differ: onnxruntime's version, numpy's, the kernels.

    python -m benchmarks.engine_drift FOLDER [FOLDER ...] [--versions 1.24.4,1.32.0] [--kernels native,avx2]

Each version of onnxruntime runs in an environment of its own, on the processor as it is ("native") and with features
hidden from it (harness/hide_cpu_features.c), so that the kernels of lesser processors run. Every eighth verification
text and two long ones are encoded, with one thread and with four, in every variant. What is done is kept in
build/engine-drift, and every run goes on from there; the report is of all that it holds: each engine with each other.

Writes benchmarks/results/engine-drift.md and .jsonl, and the figures that trivec states, to
runtime/trivec/_engine/data/engine_drift.json.
"""

import argparse
import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from benchmarks.harness.machine import machine
from benchmarks.harness.tables import Row, Table, write
from benchmarks.harness.venvs import ROOT, checkout

from trivec._gate.figures import cosine, top_overlap
from trivec._system.cpu import this_kernel_class

VERSIONS = "1.24.4,1.25.1,1.26.0,1.27.0,1.28.0,1.29.0,1.30.0,1.31.1,1.32.0"
KERNELS = "native,avx512_vnni,avx512,avx_vnni,avx2"
_WORK = ROOT / "build/engine-drift"
_DATA = ROOT / "runtime/trivec/_engine/data/engine_drift.json"
_WORKER = ROOT / "benchmarks/harness/drift_worker.py"
_HIDE = ROOT / "benchmarks/harness/hide_cpu_features.c"
Vectors = npt.NDArray[np.float32]


class Output(NamedTuple):
    """What one engine made of the texts."""

    model: str
    version: str
    kernels: str
    vectors: dict[str, Vectors]
    """(N, D) by "precision head"; sparse rows are made dense."""
    threads_differ: bool
    """Whether one thread and four gave other bits."""


class Pair(NamedTuple):
    """Two engines compared."""

    max_diff: float
    cosine_min: float
    cosine_mean: float
    top10_overlap: float


def environment(version: str) -> Path:
    """The Python of an environment with that onnxruntime; made where it is not there."""
    venv = _WORK / "venvs" / version
    python = venv / "bin/python"
    marker = venv / ".ready"
    if not marker.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        needs = [f"onnxruntime=={version}", f"numpy=={np.__version__}", "tokenizers", "huggingface_hub", "safetensors"]
        constraints = ROOT / "scripts/constraints.txt"
        lines = [
            line for line in constraints.read_text(encoding="utf-8").splitlines() if not line.startswith("onnxruntime")
        ]
        (venv / "constraints.txt").write_text("\n".join(lines), encoding="utf-8")
        command = [str(python), "-m", "pip", "install", "--quiet", "-c", str(venv / "constraints.txt"), *needs]
        subprocess.run(command, check=True)
        marker.touch()
    return python


def run(folder: Path, version: str, kernels: str) -> None:
    """One engine's output, unless it is there."""
    out = _WORK / f"{folder.name} {version} {kernels}.npz"
    if out.is_file():
        return
    variables = {**checkout("runtime"), "TRIVEC_HOME": str(_WORK / "home")}
    if kernels != "native":
        hide = _WORK / "hide.so"
        if not hide.is_file():
            subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(hide), str(_HIDE)], check=True)
        variables |= {"CPU_CLASS": kernels, "LD_PRELOAD": str(hide)}
    subprocess.run([str(environment(version)), str(_WORKER), str(folder), str(out)], env=variables, check=True)


def name_of(kernels: str) -> str:
    """What kernels go by outside this benchmark: "native" is the last feature of this machine's."""
    return this_kernel_class().split()[-1] if kernels == "native" else kernels


def outputs() -> list[Output]:
    """Everything that is there."""
    found = []
    for path in sorted(_WORK.glob("*.npz")):
        model, version, kernels = path.stem.split(" ")
        with np.load(path) as stored:
            named = {key: stored[key] for key in stored.files}
        one = {key.removesuffix(" 1"): value for key, value in named.items() if key.endswith(" 1")}
        differ = any(not np.array_equal(value, named[f"{key} 4"]) for key, value in one.items())
        found.append(Output(model, version, kernels, one, differ))
    return found


def compared(a: Vectors, b: Vectors) -> Pair:
    """Vectors (N, D) of two engines."""
    cosines = cosine(a, b)
    return Pair(float(np.abs(a - b).max()), float(cosines.min()), float(cosines.mean()), top_overlap(a, b))


def pairs(found: list[Output]) -> dict[tuple[str, str], list[tuple[Output, Output, Pair]]]:
    """Each engine with each other, by model and kind of vectors."""
    result: dict[tuple[str, str], list[tuple[Output, Output, Pair]]] = {}
    for a, b in combinations(found, 2):
        if a.model == b.model:
            for key in a.vectors.keys() & b.vectors.keys():
                row = a, b, compared(a.vectors[key], b.vectors[key])
                result.setdefault((a.model, key), []).append(row)
    return dict(sorted(result.items()))


def worst(rows: list[tuple[Output, Output, Pair]]) -> dict[str, float]:
    """What trivec states: the most that any two engines differ, rounded away from equal."""
    each = [pair for _, _, pair in rows]
    return {
        "max_diff": float(f"{max(p.max_diff for p in each) * 1.005:.2e}"),
        "cosine_min": np.floor(min(p.cosine_min for p in each) * 1e6) / 1e6,
        "top10_overlap": np.floor(min(p.top10_overlap for p in each) * 1e4) / 1e4,
    }


def stated(found: list[Output], every: dict[tuple[str, str], list[tuple[Output, Output, Pair]]]) -> dict[str, Any]:
    """The contents of engine_drift.json: by precision and head, the worst over models.

    Engines that do not agree with themselves where the number of threads is another one are named, and not counted.
    """
    drift: dict[str, dict[str, list[tuple[Output, Output, Pair]]]] = {}
    for (_, key), rows in every.items():
        precision, head = key.split(" ")
        steady = [row for row in rows if not (row[0].threads_differ or row[1].threads_differ)]
        drift.setdefault(precision, {}).setdefault(head, []).extend(steady)
    versions = sorted({o.version for o in found}, key=lambda v: [int(part) for part in v.split(".")])
    return {
        "source": "benchmarks/results/engine-drift.md",
        "onnxruntime": versions,
        "processors": sorted({name_of(o.kernels) for o in found}),
        "unsteady": sorted(f"{o.version} {name_of(o.kernels)}" for o in found if o.threads_differ),
        "models": sorted({o.model for o in found}),
        "drift": {p: {head: worst(rows) for head, rows in heads.items()} for p, heads in drift.items()},
    }


def tables(found: list[Output], every: dict[tuple[str, str], list[tuple[Output, Output, Pair]]]) -> list[Table]:
    """The report."""
    summary: list[Row] = []
    for (model, key), rows in every.items():
        a, b, pair = max(rows, key=lambda row: row[2].max_diff)
        equal = sum(row[2].max_diff == 0 for row in rows)
        names = f"{a.version} {a.kernels} / {b.version} {b.kernels}"
        row: Row = {"model": model, "vectors": key, "pairs": len(rows), "equal": equal, **worst(rows)}
        summary.append({**row, "furthest": names})
    last = max((o.version for o in found), key=lambda v: [int(part) for part in v.split(".")])
    each: list[Row] = []
    for (model, key), rows in every.items():
        for a, b, pair in rows:
            for one, other in ((a, b), (b, a)):
                if (one.version, one.kernels) == (last, "avx512_vnni"):
                    engine = f"{other.version} {other.kernels}"
                    each.append({"model": model, "vectors": key, "engine": engine, **pair._asdict()})
    differ = [f"{o.model} {o.version} {o.kernels}" for o in found if o.threads_differ]
    note = f"One thread and four gave other bits: {', '.join(differ) or 'never'}, of {len(found)} engines and models."
    digits = {"max_diff": 8, "cosine_min": 6, "cosine_mean": 6, "top10_overlap": 4}
    return [
        Table("worst", "The most that any two engines differ", note, summary, digits),
        Table("each", f"Each engine and onnxruntime {last} with AVX512-VNNI", "", each, digits),
    ]


def main() -> None:
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--versions", default=VERSIONS)
    parser.add_argument("--kernels", default=KERNELS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args()
    _WORK.mkdir(parents=True, exist_ok=True)
    for folder in args.folders:
        for version in args.versions.split(","):
            for kernels in args.kernels.split(","):
                print(folder.name, version, kernels, file=sys.stderr, flush=True)
                run(folder, version, kernels)
    found = outputs()
    every = pairs(found)
    _DATA.write_text(json.dumps(stated(found, every), indent=2) + os.linesep, encoding="utf-8")
    head = machine(
        "Kernels other than native: features hidden by harness/hide_cpu_features.c.",
        threads=1,
        command="python -m benchmarks.engine_drift",
    )
    write([head, *tables(found, every)], "Engines apart", args.out, "engine-drift")


if __name__ == "__main__":
    main()
