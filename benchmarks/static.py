"""Static models: StaticEncoder against model2vec, both on the same cores, in turn.

    python -m benchmarks.static [FOLDER ...] [--threads 2] [--rounds 5] [--data FOLDER] [--wide 256]

Each engine is in a process of its own that may use so many cores and no more, and both take every round of texts one
after the other. No round has a text of another one, so that what is remembered of texts is what other texts share with
them; the first round is the one after a single warm-up text, and is shown for itself.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.harness.machine import machine
from benchmarks.harness.scifact import read, split_sentences
from benchmarks.harness.stats import percentiles, ratios
from benchmarks.harness.tables import Row, Table, write
from benchmarks.harness.venvs import ROOT, SHARED
from benchmarks.harness.worker import Contender, Process, encode, latency

ENGINES = ("trivec", "model2vec")
CALLS = 200  # single texts of a round


@contextmanager
def process(engine: str, folder: Path, threads: int, work: Path) -> Iterator[tuple[float, Process]]:
    """An engine's process on `threads` cores, and seconds until its first vector."""
    first = work / "first.json"
    first.write_text(json.dumps(["one text"]), encoding="utf-8")
    contender = Contender(engine, engine, "", {"folder": str(folder)})
    log = work / f"{engine}.log"
    with Process(contender, Path(sys.executable), threads, log, pinned=True) as running:
        seconds = running.load().seconds + float(running.ask(encode(first))["seconds"])
        yield seconds, running


def text_sets(data: Path, rounds: int) -> dict[str, list[list[str]]]:
    """By name, for each round texts of its own: sentences, documents, and both in any order."""
    corpus = read(data)
    rng = random.Random(0)
    documents = list(corpus.documents.values())
    sentences = [part for text in corpus.abstracts.values() for part in split_sentences(text)]
    rng.shuffle(documents)
    rng.shuffle(sentences)
    d, s = len(documents) // (2 * rounds), len(sentences) // (2 * rounds)
    sets: dict[str, list[list[str]]] = {"sentences": [], "documents": [], "mixed": []}
    for number in range(rounds):
        sets["sentences"].append(sentences[number * s : (number + 1) * s])
        sets["documents"].append(documents[number * d : (number + 1) * d])
        first = rounds + number
        mixed = sentences[first * s : first * s + s // 2] + documents[first * d : first * d + d // 4]
        rng.shuffle(mixed)
        sets["mixed"].append(mixed)
    return sets


def wide_models(folder: Path, like: Path, dim: int) -> list[Path]:
    """Models with the tokenizer of another one and random vectors, in three number types."""
    from safetensors.numpy import load_file, save_file

    rows = len(load_file(like / "model.safetensors")["embeddings"])
    numbers = np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)
    made = []
    for dtype, table in (("float32", numbers), ("float16", numbers), ("int8", np.clip(numbers * 40, -127, 127))):
        place = folder / f"random-{dim}-{dtype}"
        place.mkdir()
        save_file({"embeddings": table.astype(dtype)}, place / "model.safetensors")
        (place / "tokenizer.json").write_bytes((like / "tokenizer.json").read_bytes())
        (place / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}))
        made.append(place)
    return made


def measure(folder: Path, sets: dict[str, list[list[str]]], work: Path, threads: int) -> tuple[list[Row], list[Row]]:
    """The rows of throughput and of everything else for one model."""
    throughput, others = [], []
    for name, rounds in sets.items():
        found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
        loads, furthest = {}, 0.0
        with ExitStack() as stack:
            asked = {}
            for engine in ENGINES:
                loads[engine], asked[engine] = stack.enter_context(process(engine, folder, threads, work))
            for number, texts in enumerate(rounds):
                files = _write(work / f"{name}-{number}", texts)
                for engine in ENGINES if number % 2 == 0 else ENGINES[::-1]:
                    found[engine].append(_round(asked[engine], files, work / f"{engine}.npz"))
                a, b = (np.load(work / f"{engine}.npz")["dense"] for engine in ENGINES)
                furthest = max(furthest, float(np.abs(a - b).max()))
        row = _throughput(folder.name, name, rounds, found)
        throughput.append(row)
        print(row, file=sys.stderr)
        others.append(_others(folder.name, name, loads, found, furthest))
    return throughput, others


def _write(stem: Path, texts: list[str]) -> tuple[Path, Path, int]:
    """Files of a round's texts and of those that are encoded alone, and how many these are."""
    single = texts[:: max(1, len(texts) // CALLS)][:CALLS]
    files = stem.with_suffix(".json"), stem.with_suffix(".single.json")
    for file, listed in zip(files, (texts, single), strict=True):
        file.write_text(json.dumps(listed), encoding="utf-8")
    return *files, len(single)


def _round(asked: Process, files: tuple[Path, Path, int], save: Path) -> dict[str, Any]:
    """What a round took: seconds and CPU time of all texts, seconds of each single one, and the peak in MB."""
    many = asked.ask(encode(files[0], save=save))
    single = asked.ask(latency(files[1], files[2]))
    peak = asked.ask({"do": "peak"})["bytes"] / 2**20
    return {"seconds": many["seconds"], "cpu": many["cpu"], "single": single["seconds"], "peak": peak}


def _throughput(model: str, name: str, rounds: Sequence[Sequence[str]], found: dict[str, list[dict[str, Any]]]) -> Row:
    seconds = {engine: [each["seconds"] for each in found[engine]] for engine in ENGINES}
    row: Row = {"model": model, "texts": name, "a round": len(rounds[0])}
    for engine in ENGINES:
        rate = [len(texts) / s for texts, s in zip(rounds, seconds[engine], strict=True)]
        row[f"{engine} texts/s"] = statistics.median(rate)
    median, low, high = ratios(*(seconds[engine] for engine in ENGINES))
    row |= {
        "x": median,
        "range": f"{low:.2f} to {high:.2f}",
        "first round x": seconds["model2vec"][0] / seconds["trivec"][0],
    }
    cpu = [statistics.median(each["cpu"] for each in found[engine]) for engine in ENGINES]
    return row | {"CPU time x": cpu[1] / cpu[0]}


def _others(
    model: str, name: str, loads: dict[str, float], found: dict[str, list[dict[str, Any]]], furthest: float
) -> Row:
    row: Row = {"model": model, "texts": name, "largest difference": f"{furthest:.1e}"}
    for engine in ENGINES:
        single = [1e6 * s for each in found[engine] for s in each["single"]]
        row[f"{engine} p50 us"], row[f"{engine} p95 us"], _ = percentiles(single)
    for engine in ENGINES:
        row[f"{engine} load ms"] = 1e3 * loads[engine]
    for engine in ENGINES:
        row[f"{engine} peak MB"] = found[engine][-1]["peak"]
    return row


def main() -> None:
    """Measure every model, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    published = [SHARED / "models/potion-base-2M", SHARED / "models/model2vec-fixtures/test-model-vocab-quantized"]
    parser.add_argument("folders", type=Path, nargs="*", default=published)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wide", type=int, default=256, help="numbers in the vectors of the random models; 0: none")
    parser.add_argument("--data", type=Path, default=SHARED / "data/scifact")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args()
    command = f"python -m benchmarks.static --threads {args.threads} --rounds {args.rounds}"
    head = machine("Two processes on the same cores, one at work at a time.", threads=args.threads, command=command)
    sets = text_sets(args.data, args.rounds)
    throughput: list[Row] = []
    others: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        wide = wide_models(work, args.folders[0], args.wide) if args.wide else []
        for folder in [*args.folders, *wide]:
            found = measure(folder, sets, work, args.threads)
            throughput += found[0]
            others += found[1]
    fast = (
        "SciFact, each round with texts of its own; model2vec at its defaults. `x` is how many times as fast trivec "
        "is: the median of the ratios within each round, and their range; below 1 trivec loses. The first round meets "
        "words that trivec has not seen yet. `CPU time x`: likewise, of the medians of the CPU time of all threads."
    )
    rest = (
        "The largest difference of any number of any vector. Single texts: every so-many-th of the round's, encoded "
        "alone right after the round. Load: import, open, first vector. Peak RSS of the process."
    )
    digits = dict.fromkeys(("trivec texts/s", "model2vec texts/s"), 0)
    digits |= {f"{engine} {what}": 0 for engine in ENGINES for what in ("p50 us", "p95 us", "load ms", "peak MB")}
    tables = [head, Table("throughput", "Throughput", fast, throughput, digits)]
    tables.append(Table("others", "Exactness, one text, load, memory", rest, others, digits))
    write(tables, "Static models", args.out, "static")


if __name__ == "__main__":
    main()
