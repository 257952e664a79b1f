"""Rerankers: trivec and its peers on the same cross-encoders, in one run.

    python -m benchmarks.rerank [--quick] [--models minilm,xlm-r-base] [--only throughput,rank,...] [--threads 2]

minilm is the trained cross-encoder of --reranker, xlm-r-base one of that shape with random weights (made here). Each
engine runs in its own virtual environment (build/bench/NAME, made at the first run) and its own process; they take
turns, and ratios are taken within a round. Writes benchmarks/results/rerank.jsonl (one measurement a line, then the
tables) and rerank.md. --quick runs everything on few pairs, and writes rerank-quick.*: a check, not a result. An engine
that cannot be installed or run gets a row that says why.
"""

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from benchmarks.harness import ceiling, report, tables, venvs
from benchmarks.harness.contest import OURS, Contest, Field, Outcome, TextSet
from benchmarks.harness.cross_encoders import LIMIT, TORCH, Subject, contenders, pair_lengths, subjects
from benchmarks.harness.report import faster, less
from benchmarks.harness.scifact import SciFact, even_sample, mixed_texts, read, short_texts
from benchmarks.harness.stats import operations
from benchmarks.harness.tables import Goal, Row, Table, save
from benchmarks.harness.venvs import ROOT, SHARED, Failed
from benchmarks.harness.worker import Contender, encode

from trivec import lexical
from trivec.compare._metrics import interval, ndcg

DOCUMENTS = 100  # of a query
SECTIONS = ("throughput", "rank", "pair", "cold", "memory", "quality")
NAMED = (*OURS, TORCH, "FastEmbed")  # of cold start and memory
Pairs = list[tuple[str, str]]


class Sizes(NamedTuple):
    """How much a run takes of a model."""

    pairs: tuple[int, int, int]
    """Mixed ones of one query, short ones, long ones."""
    rounds: int
    queries: int
    """That are ranked one by one."""
    blocks: int
    """Of single pairs, 20 calls each."""
    cold_runs: int
    judged: tuple[tuple[int, int], ...]
    """How many of BM25's first documents are scored again, of how many queries of SciFact."""


FULL = {
    "minilm": Sizes((DOCUMENTS, 200, 30), 4, 12, 10, 3, ((20, 10**9), (DOCUMENTS, 30))),
    "xlm-r-base": Sizes((24, 40, 6), 3, 2, 4, 2, ()),
}
QUICK = dict.fromkeys(FULL, Sizes((12, 12, 4), 2, 2, 1, 1, ((20, 2),)))


def goals(key: str) -> list[Goal]:
    """What is wanted of each model."""
    found = [
        faster(f"{key}, mixed documents", f"{key} mixed", "fp32", TORCH, 1.8),
        faster(f"{key}, mixed documents", f"{key} mixed", "fp32", "FastEmbed", 1.5),
        faster(f"{key}, mixed documents", f"{key} mixed", "int8", TORCH, 3.5),
        *(less(f"{key}, one pair, p50", f"{key} pair", precision, TORCH, 0.3) for precision in ("fp32", "int8")),
        *(less(f"{key}, peak RSS, 100 x 512", f"{key} memory", p, TORCH, 0.5) for p in ("fp32", "int8")),
    ]
    if key == "minilm":
        found += [
            Goal(f"minilm, nDCG@10 x 100 that int8 costs, top {n}", f"minilm quality, top {n} / lost", "", "<=", 0.5)
            for n in (20, DOCUMENTS)
        ]
    return found


class Comparison:
    """One run: what it compares, and what it has found."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Read the texts; nothing is installed or run yet."""
        self.args, self.work = args, ROOT / "build/bench"
        self.data: SciFact = read(args.data)
        self.place = Field(venvs.Environments(self.work), self.work, args.threads)
        self.tables: list[Table] = []
        self.outcomes: list[Outcome] = []
        self.figures: dict[str, float] = {}
        """What the goals are compared with, by "model section / engine"."""
        self.folders: list[Path] = []

    def run(self) -> None:
        """Every section that is wanted, of every model."""
        for subject in subjects(self.args.reranker, self.args.tokenizer, self.work / "models"):
            if subject.key in self.args.models:
                self.place.section = subject.key
                try:
                    checkpoint, folder = subject.make()
                except Failed as error:
                    self.place.failures[subject.key, "the model"] = error
                    continue
                self.folders.append(folder)
                Match(self, subject, checkpoint, folder).run()
        if self.outcomes:
            self.tables.append(tables.products(self.outcomes))


class Match:
    """All engines on one model."""

    def __init__(self, run: Comparison, subject: Subject, checkpoint: Path, folder: Path) -> None:
        self.run_of, self.subject, self.folder = run, subject, folder
        self.place, self.args, self.data = run.place, run.args, run.data
        self.sizes = (QUICK if run.args.quick else FULL)[subject.key]
        self.contenders = contenders(subject, checkpoint, folder, run.place, run.args.engines)

    def run(self) -> None:
        """The sections that are wanted."""
        key, wanted = self.subject.key, self.args.only
        if {"throughput", "rank", "pair"} & set(wanted):
            products = self.run_of.work / f"ceiling/{self.subject.shape.hidden}"
            ceiling.write(products, self.subject.shape.hidden, self.subject.shape.inner)
            with Contest(self.place, self.contenders, products, 0.02 if self.args.quick else 0.15) as contest:
                if "throughput" in wanted:
                    self.throughput(contest)
                if "rank" in wanted:
                    what = f"that rank {self.sizes.pairs[0]} mixed documents for one query, each call another query's"
                    self.latency(contest, "rank", self.ranked(), self.sizes.queries, 1, what)
                if "pair" in wanted:
                    short = even_sample(short_texts(self.data), 200)
                    items = [[query, [text]] for query, text in zip(self._queries(200), short, strict=False)]
                    self.latency(contest, "pair", items, self.sizes.blocks, 20, "that rank one sentence for a query")
        if "cold" in wanted:
            self.cold()
        if "memory" in wanted:
            self.memory()
        if "quality" in wanted and key == "minilm":
            for depth, count in self.sizes.judged:
                self.quality(depth, count)

    # ---- sections

    def throughput(self, contest: Contest) -> None:
        """Pairs a second: mixed, short and long ones."""
        mixed, short, long = self.sizes.pairs
        queries = self._queries(short)
        sentences = even_sample(short_texts(self.data), short)
        abstracts = [" ".join(pair) for pair in zip(self._longest(long), reversed(self._longest(long)), strict=True)]
        sets: dict[str, Pairs] = {
            "mixed": [(queries[0], text) for text in self._mixed(mixed)],
            "short": list(zip(queries, sentences, strict=False)),
            "long": [(queries[row % len(queries)], text) for row, text in enumerate(abstracts)],
        }
        for name, pairs in sets.items():
            texts = self._set(name, pairs)
            outcome = contest.throughput(texts, self.sizes.rounds)
            self.run_of.outcomes.append(outcome)
            self.run_of.tables.append(self._throughput(name, outcome))
            for contender in contest.running:
                for ours in OURS:
                    if contender.name in outcome.seconds and ours in outcome.seconds:
                        ratio = float(np.median(np.divide(outcome.seconds[contender.name], outcome.seconds[ours])))
                        self.run_of.figures[f"{self.subject.key} {name} / {ours} / {contender.name}"] = ratio
            if name == "mixed":
                self.run_of.tables.append(self._agreement(contest, texts))

    def _throughput(self, name: str, outcome: Outcome) -> Table:
        what = {"mixed": "one query's mixed documents", "short": "short pairs", "long": f"pairs cut at {LIMIT} tokens"}
        table = tables.throughput(f"{self.subject.key} {name}", outcome, self.contenders, self.place)
        rows: list[Row] = [{"pairs/s" if k == "texts/s" else k: v for k, v in row.items()} for row in table.rows]
        note = (
            f"{self.subject.what}, {self.args.threads} threads: {outcome.texts.size} pairs of "
            f"{outcome.texts.tokens / outcome.texts.size:.0f} tokens on average. The peers on onnxruntime share one "
            "graph, as sentence-transformers' ONNX backend exports it; of batch sizes the fastest. `x` is how many "
            "times as fast trivec is: the median of the ratios within each round, and their range."
        )
        title = f"{self.subject.key}: {what[name]}"
        return Table(table.key, title, note, rows, {"pairs/s": 1, "share of ceiling %": 1})

    def _agreement(self, contest: Contest, texts: TextSet) -> Table:
        """How far logits are from those of torch."""
        logits = {c.name: scores_in(contest.saved(c, texts)) for c in contest.running}  # (N,) each
        reference, rows = logits.get(TORCH, np.full(texts.size, np.nan, np.float32)), list[Row]()
        for name, found in logits.items():
            far = np.abs(found - reference)
            rows.append({"engine": name, "max": float(far.max()), "rms": float(np.sqrt((far**2).mean()))})
        note = (
            "Difference of the logits of the mixed pairs to sentence-transformers' in float32, whose standard "
            f"deviation is {reference.std():.3g}. FlagEmbedding cuts long pairs elsewhere."
        )
        title = f"{self.subject.key}: agreement with sentence-transformers"
        return Table(f"{self.subject.key} agreement", title, note, rows, {"max": 6, "rms": 6})

    def latency(self, contest: Contest, name: str, items: Sequence[Any], blocks: int, calls: int, what: str) -> None:
        """Milliseconds of single calls of `one`."""
        key = f"{self.subject.key} {name}"
        file = self._written(key.replace(" ", "-"), items)
        texts = TextSet(key, file, file, len(items), 0, 0.0)
        blocks_of = contest.latency(texts, blocks, calls, skip=0 if calls == 1 else 5)
        table = tables.latency(blocks_of, self.contenders, self.place)
        count = blocks * calls
        note = (
            f"{count} calls {what}, with each engine's default batch size; engines take turns every {calls} call(s). "
            "`x`: of neighbouring blocks' medians, how many times as fast trivec is."
        )
        self.run_of.tables.append(replace(table, key=key, title=f"{self.subject.key}: {name}, milliseconds", note=note))
        for engine, found in blocks_of.items():
            self.run_of.figures[f"{key} / {engine}"] = float(np.median(np.concatenate(found)))

    def cold(self) -> None:
        """Import to first rank."""
        seconds = self.place.cold_starts(self._named(), self.sizes.cold_runs)
        key = f"{self.subject.key} cold"
        table = tables.cold_start(seconds, [c for c in self.contenders if c.name in NAMED], self.place)
        note = f"Import, load and one rank, in a fresh process each time; {self.sizes.cold_runs} runs in turn."
        title = f"{self.subject.key}: import to first rank"
        self.run_of.tables.append(replace(table, key=key, title=title, note=note))

    def memory(self) -> None:
        """Peak memory of a process that scores 100 pairs of 512 tokens."""
        count = 8 if self.args.quick else DOCUMENTS
        pairs = [(f"query {row}", f"{row} {'word ' * (LIMIT + 8)}") for row in range(count)]  # no two alike
        file = self._written(f"{self.subject.key}-memory", pairs)
        found: dict[str, dict[str, float]] = {}
        for contender in self._named():
            try:
                with self.place.process(contender) as process:
                    loaded = float(process.ask({"do": "peak"})["bytes"])
                    answer = process.ask(encode(file))
            except Failed as error:
                self.place.fail(contender, error)
                continue
            it = {"peak": float(answer["peak"]), "loaded": loaded, "seconds": float(answer["seconds"])}
            self.place.raw.append({"measured": "memory", "engine": contender.name, **it})
            found[contender.name] = it
        key = f"{self.subject.key} memory"
        self.run_of.figures |= {f"{key} / {name}": it["peak"] for name, it in found.items()}
        table = tables.memory(found, [c for c in self.contenders if c.name in NAMED], self.place, count)
        note = (
            f"One process each that scores {count} pairs of {LIMIT} tokens in one call, with its default batch size. "
            "Seconds are of that call, one engine after the other, not interleaved."
        )
        self.run_of.tables.append(replace(table, key=key, title=f"{self.subject.key}: peak memory", note=note))

    def quality(self, depth: int, count: int) -> None:
        """nDCG@10 of BM25's first documents, scored again by each variant."""
        judged, key = self.data, f"minilm quality, top {depth}"
        queries = dict(list(judged.queries.items())[:count])
        hits = bm25_hits(judged, list(queries.values()), depth)  # (Q, K)
        texts, gains = list(judged.documents.values()), judged.gains()[: len(queries)]  # (Q, N)
        reached = np.take_along_axis(gains, hits, axis=1)  # (Q, K)
        found = {"BM25": ndcg(reached, gains)}
        for contender in self.contenders[:2]:
            try:
                scores = self._scores(contender, list(queries.values()), hits, texts)
            except Failed as error:
                self.place.fail(contender, error)
                continue
            order = np.argsort(-scores, axis=1, kind="stable")  # (Q, K)
            found[contender.name] = ndcg(np.take_along_axis(reached, order, axis=1), gains)
        rows: list[Row] = []
        for name, values in found.items():
            row: Row = {"engine": name, "nDCG@10 x 100": 100 * float(values.mean())}
            if name == OURS[1] and OURS[0] in found:
                low, high = interval(values - found[OURS[0]])
                lost = 100 * float((found[OURS[0]] - values).mean())
                self.run_of.figures[f"{key} / lost"] = lost
                row |= {"minus fp32": -lost, "95%": f"{100 * low:+.2f} to {100 * high:+.2f}"}
            else:
                row |= {"minus fp32": tables.NONE, "95%": tables.NONE}
            rows.append(row)
        note = (
            f"BEIR SciFact, {len(queries)} test queries, BM25's first {depth} documents scored again, pairs cut at "
            f"{LIMIT} tokens. The interval is of the difference, from 10,000 resamples of the queries."
        )
        self.run_of.tables.append(Table(key, f"minilm: retrieval, top {depth}", note, rows))

    def _scores(
        self, contender: Contender, queries: Sequence[str], hits: npt.NDArray[np.int64], texts: Sequence[str]
    ) -> npt.NDArray[np.float32]:
        """Logits (Q, K), thirty queries at a time."""
        found = []
        with self.place.process(contender) as process:
            for start in range(0, len(queries), 30):
                some = range(start, min(start + 30, len(queries)))
                pairs = [(queries[row], texts[document]) for row in some for document in hits[row]]
                save = self.run_of.work / "vectors/rerank-quality.npz"
                save.parent.mkdir(parents=True, exist_ok=True)
                process.ask(encode(self._written("minilm-quality", pairs), save=save))
                found.append(scores_in(save).reshape(len(some), -1))
                self.place.say(f"{contender.name}: {some.stop} of {len(queries)} queries")
        return np.concatenate(found)

    # ---- who, and what

    def _named(self) -> list[Contender]:
        return [c for c in self.contenders if c.name in NAMED and not self.place.failed(c)]

    def _queries(self, count: int) -> list[str]:
        """Claims, over again where more are wanted than there are."""
        listed = list(self.data.queries.values())
        return [listed[row % len(listed)] for row in range(count)]

    def _mixed(self, count: int) -> list[str]:
        return mixed_texts(self.data, (count - count // 4, count // 4))

    def _longest(self, count: int) -> list[str]:
        return sorted(self.data.abstracts.values(), key=len)[-count:]

    def ranked(self) -> list[list[Any]]:
        """Queries with documents of their own: sentences, and a quarter of abstracts."""
        every = self._mixed(self.sizes.pairs[0] * self.sizes.queries)
        step = self.sizes.queries
        return [[query, every[row::step]] for row, query in enumerate(self._queries(step))]

    def _written(self, name: str, items: Iterable[Any]) -> Path:
        folder = self.run_of.work / "texts"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"rerank-{name}.json"
        file.write_text(json.dumps(list(items)), encoding="utf-8")
        return file

    def _set(self, name: str, pairs: Pairs) -> TextSet:
        key = f"{self.subject.key}-{name}"
        warm = self._written(f"{key}-warm", pairs[:: max(1, len(pairs) // 8)])
        lengths = pair_lengths(pairs, self.folder / "tokenizer.json", LIMIT)
        work = operations(lengths, self.subject.shape)
        return TextSet(key, self._written(key, pairs), warm, len(pairs), int(lengths.sum()), work)


def bm25_hits(data: SciFact, queries: Sequence[str], count: int) -> npt.NDArray[np.int64]:
    """(Q, K) rows of the documents that BM25 finds first; of equal scores the earlier document."""
    documents = list(data.documents.values())
    model = lexical.BM25().fit(documents)
    scores = model.encode_queries(list(queries)).dot(model.encode_documents(documents))  # (Q, N)
    found: npt.NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return found


def scores_in(file: Path) -> npt.NDArray[np.float32]:
    """(N,) of a file that an engine has saved."""
    with np.load(file) as saved:
        found: npt.NDArray[np.float32] = saved["scores"]
        return found


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data/scifact", help="SciFact in BEIR's layout")
    parser.add_argument("--reranker", type=Path, default=SHARED / "models/reranker-minilm", help="its checkpoint")
    parser.add_argument("--tokenizer", type=Path, default=SHARED / "models/xlm-roberta-tokenizer", help="of XLM-R")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", type=_listed, default=list(FULL), help=f"some of {','.join(FULL)}")
    parser.add_argument("--only", type=_listed, default=list(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--engines", type=_listed, default=[], help="parts of the names of peers that take part")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args(arguments)
    for option, known in (("models", tuple(FULL)), ("only", SECTIONS)):
        if unknown := [name for name in getattr(args, option) if name not in known]:
            parser.error(f"--{option} does not know {', '.join(unknown)}: it takes some of {', '.join(known)}")
    if not (args.data / "corpus.jsonl").is_file():
        parser.error(f"{args.data} has no corpus.jsonl. Pass --data with the folder of BEIR's SciFact.")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the report; what was measured so far also where it is stopped."""
    args = _arguments(arguments)
    load, run = os.getloadavg()[0], Comparison(args)
    name = "rerank-quick" if args.quick else "rerank"
    try:
        run.run()
    finally:
        found = [
            report.run_table(args, load, run.work, "python -m benchmarks.rerank"),
            tables.goals(run.figures, [goal for key in args.models for goal in goals(key)]),
            *run.tables,
            tables.failures(run.place),
            Table("files", "The files", "trivec's graphs.", report.file_rows(run.folders)),
        ]
        title = "# Rerankers" + (" (--quick: a check, not a result)" if args.quick else "")
        text = "\n".join([f"{title}\n", *(table.markdown() for table in found)])
        records = [record for table in found for record in table.records()]
        save(text, [*run.place.raw, *records], args.out, name)
    print(json.dumps({"written": str(args.out / f"{name}.md"), "failures": len(run.place.failures)}))


if __name__ == "__main__":
    main()
