"""Late interaction: trivec and its peers on one ColBERT checkpoint, in one run.

    python -m benchmarks.late [--quick] [--checkpoint FOLDER] [--only documents,query,...] [--threads 2]

Without --checkpoint it is a stand-in of MiniLM's weights, made here (benchmarks/harness/late_models.py). Each engine
runs in its own virtual environment (build/bench/NAME, made at the first run) and its own process; they take turns, and
ratios are taken within a round. Seven minutes, without what is made at the first run. Writes
benchmarks/results/late.jsonl (one measurement a line, then the tables) and late.md. --quick runs everything on few
texts, and writes late-quick.*: a check, not a result. An engine that cannot be installed or run gets a row that says
why.
"""

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from benchmarks.harness import ceiling, report, tables, venvs
from benchmarks.harness.contest import OURS, Contest, Field, Outcome, TextSet, token_lengths
from benchmarks.harness.late_models import (
    DOCUMENT_LENGTH,
    ENGINES,
    FASTEMBED,
    PYLATE,
    TORCH,
    Late,
    contenders,
    late_model,
)
from benchmarks.harness.report import faster, less
from benchmarks.harness.scifact import Doubles, SciFact, even_sample, ndcg, read
from benchmarks.harness.stats import operations, ratios, spread, turns
from benchmarks.harness.tables import Goal, Row, Table, save
from benchmarks.harness.venvs import ROOT, SHARED, Failed
from benchmarks.harness.worker import Contender, encode

from trivec import MultiVectors

LIMITS = (DOCUMENT_LENGTH, 300)  # tokens of a document
SECTIONS = ("documents", "query", "cold", "corpus", "maxsim")
NAMED = (*OURS, TORCH)  # of the sections that take minutes an engine
_PRECISIONS = ("float32", "float16", "int8")


class Sizes(NamedTuple):
    """How much a run takes."""

    documents: int
    rounds: int
    blocks: int
    """Of single queries, 20 calls each."""
    cold_runs: int
    corpus: int
    """Documents of SciFact, those that are relevant to a query first."""
    queries: int
    maxsim_rounds: int


FULL = Sizes(96, 3, 8, 3, 1500, 10**9, 2)
QUICK = Sizes(12, 2, 1, 1, 40, 6, 1)
GOALS = (
    *(
        faster(f"documents at {n} tokens", f"documents {n}", "fp32", peer, 1.5)
        for n in LIMITS
        for peer in (TORCH, PYLATE)
    ),
    *(faster(f"documents at {n} tokens", f"documents {n}", "fp32", FASTEMBED, 1.3) for n in LIMITS),
    *(faster(f"documents at {n} tokens", f"documents {n}", "int8", TORCH, 3.5) for n in LIMITS),
    less("one query, p50", "query", "fp32", TORCH, 0.35),
    less("one query, p50", "query", "fp32", FASTEMBED, 0.8),
    less("import to first query", "cold", "fp32", TORCH, 1 / 12),
    less("peak RSS over SciFact", "memory", "fp32", TORCH, 0.4),
    Goal(
        "MaxSim of SciFact: trivec / sentence-transformers", "maxsim / trivec float32", "maxsim / " + TORCH, "<=", 0.6
    ),
    Goal("nDCG@10 x 100 that fp32 differs by", "quality / differs / trivec fp32", "", "<=", 0.1),
    Goal("nDCG@10 x 100 that int8 costs", "quality / costs / trivec int8", "", "<=", 0.5),
)


class Comparison:
    """One run: what it compares, and what it has found."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Read the texts; nothing is installed or run yet."""
        self.args, self.work = args, ROOT / "build/bench"
        self.sizes = QUICK if args.quick else FULL
        self.data: SciFact = read(args.data)
        self.place = Field(venvs.Environments(self.work), self.work, args.threads)
        self.tables: list[Table] = []
        self.outcomes: list[Outcome] = []
        self.figures: dict[str, float] = {}
        """What the goals are compared with, by "section / engine"."""
        self.folders: list[Path] = []

    def run(self) -> None:
        """Every section that is wanted."""
        late = late_model(self.args.checkpoint, self.work / "models")
        self.folders.append(late.folder)
        wanted = self.args.only
        for limit in LIMITS if "documents" in wanted else (LIMITS[0],):
            if {"documents", "query"} & set(wanted):
                self._contest(late, limit, wanted)
        everybody = contenders(late, self.place, DOCUMENT_LENGTH, self.args.engines)
        if "cold" in wanted:
            self.place.section = "cold"
            self.cold(everybody)
        if {"corpus", "maxsim"} & set(wanted):
            self.place.section = "corpus"
            saved = self.corpus([c for c in everybody if c.name in NAMED])
            if "maxsim" in wanted and OURS[0] in saved:
                self.place.section = "maxsim"
                self.maxsim(*saved[OURS[0]])
        if self.outcomes:
            self.tables.append(tables.products(self.outcomes))

    # ---- sections

    def _contest(self, late: Late, limit: int, wanted: Sequence[str]) -> None:
        """Documents a second with this cut; once one query at a time."""
        self.place.section = f"documents {limit}"
        everybody = contenders(late, self.place, limit, self.args.engines)
        products = self.work / f"ceiling/{late.shape.hidden}"
        ceiling.write(products, late.shape.hidden, late.shape.inner)
        with Contest(self.place, everybody, products, 0.02 if self.args.quick else 0.15) as contest:
            if "documents" in wanted:
                self.documents(contest, late, limit)
            if "query" in wanted and limit == LIMITS[0]:
                self.query(contest)

    def documents(self, contest: Contest, late: Late, limit: int) -> None:
        """Documents a second, and how far vectors are from sentence-transformers'."""
        texts = even_sample(list(self.data.documents.values()), self.sizes.documents)
        lengths = token_lengths(texts, late.checkpoint / "tokenizer.json", limit - 1) + 1  # and the mark
        files = [self._written(f"documents-{limit}{end}", some) for end, some in (("", texts), ("-warm", texts[::16]))]
        work = operations(lengths, late.shape)
        outcome = contest.throughput(
            TextSet(f"documents-{limit}", files[0], files[1], len(texts), int(lengths.sum()), work), self.sizes.rounds
        )
        self.outcomes.append(outcome)
        key = f"documents {limit}"
        table = tables.throughput(key, outcome, contest.contenders, self.place)
        rows: list[Row] = [{"documents/s" if k == "texts/s" else k: v for k, v in row.items()} for row in table.rows]
        note = (
            f"{len(texts)} documents of SciFact, cut at {limit} tokens, {lengths.mean():.0f} on average, "
            f"{self.args.threads} threads. FastEmbed runs the graph that sentence-transformers exports; of its batch "
            "sizes the fastest. `x` is how many times as fast trivec is: the median of the ratios within each round, "
            "and their range."
        )
        digits = {"documents/s": 1, "share of ceiling %": 1}
        self.tables.append(Table(key, f"Documents cut at {limit} tokens", note, rows, digits))
        for ours in OURS:
            for name, seconds in outcome.seconds.items():
                if ours in outcome.seconds:
                    self.figures[f"{key} / {ours} / {name}"] = ratios(outcome.seconds[ours], seconds).median
        self.tables.append(self._agreement(contest, outcome.texts, key))

    def _agreement(self, contest: Contest, texts: TextSet, key: str) -> Table:
        """How far vectors of documents are from those of torch."""
        found = {c.name: contest.saved(c, texts) for c in contest.running}
        rows: list[Row] = []
        for name, file in found.items():
            if TORCH in found:
                rows.append({"engine": name, **apart(found[TORCH], file)})
        note = (
            "Vectors of tokens beside sentence-transformers' in float32, of the documents that have as many of them: "
            "the largest difference of a number, the mean and the least cosine of a token."
        )
        return Table(f"{key} agreement", f"Agreement at {key.split()[1]} tokens", note, rows, {"largest": 7, "mean": 6})

    def query(self, contest: Contest) -> None:
        """Milliseconds of one query."""
        self.place.section = "query"
        file = self._written("queries", even_sample(list(self.data.queries.values()), 200))
        blocks = contest.latency(TextSet("queries", file, file, 200, 0, 0.0), self.sizes.blocks)
        table = tables.latency(blocks, contest.contenders, self.place)
        note = (
            f"{20 * self.sizes.blocks} claims of SciFact, filled up as the model has it, one at a time; engines take "
            "turns every 20 calls. `x`: of neighbouring blocks' medians, how many times as fast trivec is."
        )
        self.tables.append(replace(table, key="query", title="One query, milliseconds", note=note))
        for engine, calls in blocks.items():
            self.figures[f"query / {engine}"] = float(np.median(np.concatenate(calls)))

    def cold(self, everybody: Sequence[Contender]) -> None:
        """Import to the first vectors of a query."""
        seconds = self.place.cold_starts(everybody, self.sizes.cold_runs)
        table = tables.cold_start(seconds, everybody, self.place)
        note = f"Import, load and one query, in a fresh process each time; {self.sizes.cold_runs} runs in turn."
        self.tables.append(replace(table, key="cold", title="Import to the first query", note=note))
        self.figures |= {f"cold / {name}": float(np.median(found)) for name, found in seconds.items()}

    def corpus(self, named: Sequence[Contender]) -> dict[str, tuple[Path, Path]]:
        """SciFact with each engine: memory, and what retrieval is worth; where vectors of queries and documents are."""
        listed, queries, gains = self._corpus()
        texts = self._written("corpus", listed), self._written("corpus-queries", [[query] for query in queries])
        saved: dict[str, tuple[Path, Path]] = {}
        memory: dict[str, dict[str, float]] = {}
        for contender in named:
            name = contender.name.replace(" ", "-")
            files = tuple(self.work / f"vectors/late-{side}-{name}.npz" for side in ("documents", "queries"))
            try:
                with self.place.process(contender) as process:
                    loaded = float(process.ask({"do": "peak"})["bytes"])
                    answer = process.ask(encode(texts[0], save=files[0]))
                    process.ask(encode(texts[1], save=files[1]))
            except Failed as error:
                self.place.fail(contender, error)
                continue
            it = {"peak": float(answer["peak"]), "loaded": loaded, "seconds": float(answer["seconds"])}
            self.place.raw.append({"measured": "memory", "engine": contender.name, **it})
            self.place.say(f"{contender.name}: {len(listed)} documents in {it['seconds']:.0f} s")
            memory[contender.name], saved[contender.name] = it, (files[1], files[0])
        self.figures |= {f"memory / {name}": it["peak"] for name, it in memory.items()}
        table = tables.memory(memory, named, self.place, len(listed))
        note = (
            f"One process each that encodes {len(listed):,} documents of SciFact, cut at {DOCUMENT_LENGTH} tokens, in "
            "one call with its default batch size, and holds their vectors in float32. Seconds are of that call, one "
            "engine after the other, not interleaved."
        )
        self.tables.append(replace(table, key="memory", note=note))
        self._quality(saved, gains)
        return saved

    def _corpus(self) -> tuple[list[str], list[str], npt.NDArray[np.int64]]:
        """Documents, queries and gains (Q, N)."""
        every, queries = self.data.gains(), list(self.data.queries.values())[: self.sizes.queries]
        every = every[: len(queries)]
        order = np.argsort(~(every > 0).any(0), kind="stable")[: self.sizes.corpus]  # (N,)
        documents = list(self.data.documents.values())
        return [documents[row] for row in order], queries, every[:, order]

    def _quality(self, saved: dict[str, tuple[Path, Path]], gains: npt.NDArray[np.int64]) -> None:
        """nDCG@10, with documents in fewer bytes too."""
        found: dict[str, Doubles] = {}
        for name, files in saved.items():
            queries, documents = (MultiVectors.load(file) for file in files)
            for precision in _PRECISIONS if name == OURS[0] else _PRECISIONS[:1]:
                kept = documents.quantize(precision)
                label = name if precision == "float32" else f"{name}, documents in {precision}"
                found[label] = ndcg(queries.maxsim(kept, "sum"), gains)
        rows: list[Row] = []
        for name, values in found.items():
            row: Row = {"engine": name, "nDCG@10 x 100": 100 * float(values.mean())}
            row["minus sentence-transformers"] = tables.NONE
            if TORCH in found and name != TORCH:
                less = 100 * float((values - found[TORCH]).mean())
                row["minus sentence-transformers"] = less
                self.figures |= {f"quality / differs / {name}": abs(less), f"quality / costs / {name}": -less}
            rows.append(row)
        note = (
            f"SciFact, {len(gains)} test queries, {gains.shape[1]:,} documents, exact MaxSim over all of them. With "
            "the stand-in it says whether engines agree, not how good a trained ColBERT is."
        )
        self.tables.append(Table("quality", "Retrieval", note, rows))

    def maxsim(self, queries: Path, documents: Path) -> None:
        """All queries against all documents: seconds and memory."""
        options = {"queries": str(queries), "documents": str(documents), "threads": self.args.threads}
        everybody = [
            *(
                Contender(f"trivec {p}", f"{ENGINES}:trivec_maxsim", "trivec", options | {"precision": p})
                for p in _PRECISIONS
            ),
            Contender(TORCH, f"{ENGINES}:sentence_transformers_maxsim", TORCH, options),
        ]
        with np.load(queries) as a, np.load(documents) as b:
            count, size = len(a["offsets"]) - 1, len(b["offsets"]) - 1
        seconds: dict[str, list[float]] = {}
        peaks: dict[str, float] = {}
        with ExitStack() as stack:
            running = {}
            for contender in everybody:
                try:
                    running[contender.name] = stack.enter_context(self.place.process(contender))
                except Failed as error:
                    self.place.fail(contender, error)
            for name in turns(list(running), self.sizes.maxsim_rounds + 1):
                answer = running[name].ask(encode(None))
                peaks[name] = float(answer["peak"])
                seconds.setdefault(name, []).append(float(answer["seconds"]))
                self.place.raw.append({"measured": "maxsim", "engine": name, "seconds": answer["seconds"]})
        seconds = {name: found[1:] for name, found in seconds.items()}  # the first warms up
        first = seconds.get("trivec float32")
        rows: list[Row] = []
        for name, found in seconds.items():
            it = spread(found)
            row: Row = {"engine": name, "seconds": it.median, "from": it.low, "to": it.high}
            row["peak RSS MB"] = round(peaks[name] / 1e6)
            row["trivec float32 x"] = ratios(first, found).median if first else tables.NONE
            rows.append(row)
            self.figures[f"maxsim / {name}"] = it.median
        note = (
            f"{count} queries x {size:,} documents of SciFact, the same vectors for everybody, {self.args.threads} "
            f"threads, {self.sizes.maxsim_rounds} rounds in turn after one that warms up. Peak memory is of the whole "
            "process, vectors and imports included. `x`: how many times as fast trivec's float32 is."
        )
        self.tables.append(Table("maxsim", "MaxSim", note, rows))

    # ---- helpers

    def _written(self, name: str, items: Iterable[Any]) -> Path:
        folder = self.work / "texts"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"late-{name}.json"
        file.write_text(json.dumps(list(items)), encoding="utf-8")
        return file


def apart(reference: Path, other: Path) -> Row:
    """Of saved vectors of tokens, how far the others are from the reference, of the texts that have as many."""
    with np.load(reference) as a, np.load(other) as b:
        x, y = (np.split(saved["vectors"], saved["offsets"][1:-1]) for saved in (a, b))  # (t, D) each
    same = [(mine, theirs) for mine, theirs in zip(x, y, strict=True) if mine.shape == theirs.shape]
    row: Row = {"documents as long": f"{len(same)} of {len(x)}"}
    if not same:
        return row | {"largest": tables.NONE, "mean": tables.NONE, "least": tables.NONE}
    mine, theirs = (np.concatenate(side).astype(np.float64) for side in zip(*same, strict=True))  # (T, D)
    norms = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)  # (T,)
    cosines = (mine * theirs).sum(1) / np.maximum(norms, 1e-12)  # (T,)
    far = {"largest": float(np.abs(mine - theirs).max())}
    return row | far | {"mean": float(cosines.mean()), "least": float(cosines.min())}


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data/scifact", help="SciFact in BEIR's layout")
    parser.add_argument("--checkpoint", type=Path, help="a ColBERT in PyLate's layout (default: the stand-in)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", type=_listed, default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--engines", type=_listed, default=[], help="parts of the names of peers that take part")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args(arguments)
    if unknown := [name for name in args.only if name not in SECTIONS]:
        parser.error(f"--only does not know {', '.join(unknown)}: it takes some of {', '.join(SECTIONS)}")
    if not (args.data / "corpus.jsonl").is_file():
        parser.error(f"{args.data} has no corpus.jsonl. Pass --data with the folder of BEIR's SciFact.")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the report; what was measured so far also where it is stopped."""
    args = _arguments(arguments)
    load, run = os.getloadavg()[0], Comparison(args)
    name = "late-quick" if args.quick else "late"
    try:
        run.run()
    finally:
        found = [
            report.run_table(args, load, run.work, "python -m benchmarks.late"),
            tables.goals(run.figures, GOALS),
            *run.tables,
            tables.failures(run.place),
            Table("files", "The files", "trivec's graphs.", report.file_rows(run.folders)),
        ]
        title = "# Late interaction" + (" (--quick: a check, not a result)" if args.quick else "")
        text = "\n".join([f"{title}\n", *(table.markdown() for table in found)])
        records = [record for table in found for record in table.records()]
        save(text, [*run.place.raw, *records], args.out, name)
    print(json.dumps({"written": str(args.out / f"{name}.md"), "failures": len(run.place.failures)}))


if __name__ == "__main__":
    main()
