"""Figures as tables, in Markdown and as JSON lines: losing rows and rows of engines that could not run among them."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from benchmarks.harness.contest import OURS, Field, Outcome
from benchmarks.harness.stats import percentiles, ratios, spread
from benchmarks.harness.worker import Contender

NONE = "-"
_CPU = {ours: f"{ours.removeprefix('trivec ')} CPU x" for ours in OURS}
Row = dict[str, str | int | float]


@dataclass(frozen=True)
class Table:
    """Figures of one kind: a heading, what they are, and rows that share their columns."""

    key: str
    title: str
    note: str
    rows: list[Row]
    digits: Mapping[str, int] = field(default_factory=dict)
    """Decimals of a column; 2 where it is not named."""

    def markdown(self) -> str:
        """Heading, note and table."""
        lines = [f"## {self.title}", "", self.note, ""]
        if self.rows:
            lines += [_bars(list(self.rows[0])), _bars(["---"] * len(self.rows[0]))]
            lines += [_bars([self._cell(column, value) for column, value in row.items()]) for row in self.rows]
        return "\n".join(lines) + "\n"

    def records(self) -> list[dict[str, object]]:
        """The note, then the rows, unrounded; each with the table's key."""
        notes: Row = {"note": self.note}
        return [{"table": self.key, **row} for row in (notes, *self.rows)]

    def _cell(self, column: str, value: str | int | float) -> str:
        return f"{value:.{self.digits.get(column, 2)}f}" if isinstance(value, float) else str(value)


def _bars(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write(tables: Sequence[Table], title: str, folder: Path, name: str) -> None:
    """Print a report, and write it as Markdown and as JSON lines."""
    text = "\n".join([f"# {title}\n", *(table.markdown() for table in tables)])
    print(text)
    save(text, [record for table in tables for record in table.records()], folder, name)


def save(text: str, records: Sequence[Mapping[str, object]], folder: Path, name: str) -> None:
    """Write NAME.md, and NAME.jsonl with a record a line."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


# ---- goals ---------------------------------------------------------------------------------------------------------


class Goal(NamedTuple):
    """A figure that a run is meant to reach: one of its figures, or the quotient of two."""

    what: str
    figure: str
    over: str
    sign: str
    value: float

    def found(self, figures: Mapping[str, float]) -> float | None:
        """The figure; None where it was not measured."""
        if self.figure not in figures or (self.over and self.over not in figures):
            return None
        return figures[self.figure] / (figures[self.over] if self.over else 1)

    def met(self, found: float) -> bool:
        """Whether it is reached."""
        return found >= self.value if self.sign == ">=" else found <= self.value


def goals(figures: Mapping[str, float], wanted: Sequence[Goal]) -> Table:
    """What the run was meant to reach, and what it reached."""
    rows: list[Row] = []
    for goal in wanted:
        found = goal.found(figures)
        row: Row = {"what": goal.what, "goal": f"{goal.sign} {goal.value:.3g}"}
        row |= {"measured": "-" if found is None else found}
        rows.append(row | {"met": "not measured" if found is None else ("yes" if goal.met(found) else "NO")})
    note = "Medians of this run; the tables below have the ranges."
    return Table("goals", "Against the goals", note, rows, {"measured": 3})


# ---- of a contest --------------------------------------------------------------------------------------------------


def throughput(key: str, outcome: Outcome, contenders: Sequence[Contender], place: Field, note: str = "") -> Table:
    """Texts a second, the share of the ceiling, and how many times as fast trivec is."""
    rows: list[Row] = []
    for contender in contenders:
        if contender.name not in outcome.seconds:
            columns = ["batch", "texts/s", "share of ceiling %", *_against(), *_CPU.values()]
            rows.append(_empty(contender, place, columns))
            continue
        seconds = outcome.seconds[contender.name]
        share = spread(outcome.shares(contender)).median
        row: Row = {"engine": contender.name, "batch": outcome.batches[contender.name] or "own"}
        row |= {"texts/s": outcome.texts.size / spread(seconds).median}
        row |= {"share of ceiling %": NONE if np.isnan(share) else share}
        for ours in OURS:
            other = outcome.seconds.get(ours)
            row |= _ratio(ours, ratios(other, seconds) if other and ours != contender.name else None)
        for ours, column in _CPU.items():
            other, used = outcome.cpu.get(ours), outcome.cpu.get(contender.name)
            row[column] = ratios(other, used).median if other and used and ours != contender.name else NONE
        rows.append(row | {"note": _tried(outcome.tried.get(contender.name, {}))})
    texts = outcome.texts
    note = (
        f"{texts.size:,} texts, {texts.tokens / texts.size:.1f} tokens each on average. {note} `x` is how many times "
        "as fast trivec is as the row's engine: the median of the ratios within each round, and their range; below 1 "
        "trivec loses. `CPU x`: the same of the time of all threads together."
    )
    return Table(key, f"Throughput: {texts.name}", note, rows, {"texts/s": 1, "share of ceiling %": 1})


def latency(
    blocks: Mapping[str, Sequence[Sequence[float]]], contenders: Sequence[Contender], place: Field, model: str = ""
) -> Table:
    """Milliseconds of one text; of MiniLM, where no model is named."""
    middles = {name: [float(np.median(block)) for block in found] for name, found in blocks.items()}
    rows: list[Row] = []
    for contender in contenders:
        if contender.name not in blocks:
            rows.append(_empty(contender, place, ["p50 ms", "p95 ms", "p99 ms", *_against()]))
            continue
        p50, p95, p99 = (1000 * p for p in percentiles(np.concatenate(blocks[contender.name])))
        row: Row = {"engine": contender.name, "p50 ms": p50, "p95 ms": p95, "p99 ms": p99}
        for ours in OURS:
            other = middles.get(ours)
            row |= _ratio(ours, ratios(other, middles[contender.name]) if other and ours != contender.name else None)
        rows.append(row | {"note": ""})
    calls = sum(map(len, next(iter(blocks.values()), [])))
    note = (
        f"{calls} calls of each engine with one sentence of 10 to 14 words, in blocks that take turns; the first calls "
        "of a block do not count. `x`: of neighbouring blocks' medians, how many times as fast trivec is."
    )
    title = f"Latency of one short text{model and ': '}{model}"
    return Table(f"latency {model}".strip(), title, note, rows)


def cold_start(
    seconds: Mapping[str, Sequence[float]], contenders: Sequence[Contender], place: Field, model: str = ""
) -> Table:
    """Seconds from import to the first vector; of MiniLM, where no model is named."""
    rows: list[Row] = []
    for contender in contenders:
        if contender.name not in seconds:
            rows.append(_empty(contender, place, ["seconds", "from", "to", *_against()]))
            continue
        found = spread(seconds[contender.name])
        row: Row = {"engine": contender.name, "seconds": found.median, "from": found.low, "to": found.high}
        for ours in OURS:
            other = seconds.get(ours)
            row |= _ratio(ours, ratios(other, seconds[contender.name]) if other and ours != contender.name else None)
        rows.append(row | {"note": ""})
    runs = len(next(iter(seconds.values()), []))
    note = (
        f"Import, load and one vector, in a fresh process each time; {runs} runs in turn, after one that does not "
        "count (the file cache is warm). The interpreter's own start is not in it."
    )
    title = f"Cold start{model and ': '}{model}"
    return Table(f"cold start {model}".strip(), title, note, rows)


def memory(
    found: Mapping[str, Mapping[str, float]], contenders: Sequence[Contender], place: Field, count: int
) -> Table:
    """Peak memory of a process that encodes the corpus."""
    rows: list[Row] = []
    for contender in contenders:
        if contender.name not in found:
            columns = ["peak RSS MB", "after load MB", "seconds", *(f"{ours} / it" for ours in OURS)]
            rows.append(_empty(contender, place, columns))
            continue
        it = found[contender.name]
        row: Row = {"engine": contender.name, "peak RSS MB": round(it["peak"] / 1e6)}
        row |= {"after load MB": round(it["loaded"] / 1e6), "seconds": round(it["seconds"], 1)}
        for ours in OURS:
            row[f"{ours} / it"] = found[ours]["peak"] / it["peak"] if ours in found else NONE
        rows.append(row | {"note": ""})
    note = (
        f"One process each that encodes {count:,} documents of SciFact (title and abstract, cut at the limit) in one "
        "call and holds the vectors. Seconds are of that call, one engine after the other, not interleaved."
    )
    return Table("memory", "Peak memory", note, rows)


def by_class(
    found: Mapping[tuple[str, str], Mapping[str, Sequence[float]]],
    contenders: Sequence[Contender],
    inexact: Mapping[str, Collection[str]],
    cpu: Mapping[tuple[str, str], Mapping[str, Sequence[float]]],
) -> Table:
    """The best of trivec beside the best peer, row by row, among those that are as exact.

    Args:
        found: by model and row ("short", "one text", ...), then engine: seconds or bytes of each round, of which less
            is better.
        contenders: who took part; those whose precision is "int8" are a class, all others are another one.
        inexact: by model, engines that are not int8 and too far from the reference for the other class.
        cpu: as `found`, seconds of all threads together, where they were measured.
    """
    rows: list[Row] = []
    peers = {c.name for c in contenders if c.engine != "trivec"}  # not what is trivec, on a provider of another package
    for called, integer in (("float", False), ("int8", True)):
        names = [c.name for c in contenders if (c.precision == "int8") is integer]
        for (model, what), values in found.items():
            out = () if integer else inexact.get(model, ())
            medians = {name: spread(values[name]).median for name in names if name in values and name not in out}
            ours = min((n for n in medians if n.startswith("trivec")), key=lambda n: medians[n], default=None)
            peer = min((n for n in medians if n in peers), key=lambda n: medians[n], default=None)
            row: Row = {"class": called, "model": model, "row": what, "trivec": ours or NONE, "best peer": peer or NONE}
            ratio = None if ours is None or peer is None else ratios(values[ours], values[peer])
            row |= _ratio("trivec", ratio)
            used = cpu.get((model, what), {})
            mine, theirs = used.get(ours or ""), used.get(peer or "")
            row["CPU x"] = ratios(mine, theirs).median if mine and theirs else NONE
            rows.append(row | {"lost": "**yes**" if ratio is not None and ratio[0] < 1 else ""})
    floats = {c.name for c in contenders if c.precision != "int8"}
    left = [f"{name} ({model})" for model, names in inexact.items() for name in sorted(floats.intersection(names))]
    note = (
        "float: fp32 and bf16, each row's cosine to sentence-transformers' at least 0.9999"
        + (f"; not so near, and so in no class: {', '.join(left)}" if left else "")
        + ". `x`: how many times as fast, or as small, the best of trivec is as the best peer: the median of the "
        "ratios within each round, and their range. Which engine is best is decided by the medians. Memory is the "
        "process's peak over all texts of its model's rows. `CPU x`: the same pair's time of all threads together."
    )
    return Table("classes", "By class: the best of trivec and the best peer", note, rows)


def products(outcomes: Sequence[Outcome]) -> Table:
    """The ceiling, shape by shape."""
    rows: list[Row] = []
    every = [found for outcome in outcomes for found in outcome.products]
    for name in sorted({name for found in every for name in found}):
        kind, tokens, depth, width = name.split("-")
        found = spread([each[name] / 1e9 for each in every if name in each])
        row: Row = {"kind": kind, "tokens x K x N": f"{tokens} x {depth} x {width}", "G/s": found.median}
        rows.append(row | {"from": found.low, "to": found.high})
    note = (
        "Matrix products alone through onnxruntime, with the models' shapes, once before every round above: float32 "
        "MatMul (GFLOP/s), and u8 x s8 MatMulIntegerToFloat (GOP/s). A round's ceiling is its fastest shape. A share "
        "of the ceiling counts the products of the layers and of attention, of the tokens that the texts have (not of "
        "padding); int8 is held against the integer ceiling although its attention runs in float32."
    )
    return Table("ceiling", "The ceiling", note, rows, {"G/s": 1, "from": 1, "to": 1})


def failures(place: Field) -> Table:
    """What could not run, and why."""
    rows: list[Row] = [
        {"section": section, "what": name, "command": f"`{error.command}`", "what it said": error.said}
        for (section, name), error in place.failures.items()
    ]
    note = "The command that failed, and the last line of its error." if rows else "Everything ran."
    return Table("failures", "What could not run", note, rows)


def _against() -> list[str]:
    return [column for ours in OURS for column in (f"{ours} x", "range of " + ours.removeprefix("trivec "))]


def _ratio(ours: str, found: tuple[float, float, float] | None) -> Row:
    name, reach = f"{ours} x", "range of " + ours.removeprefix("trivec ") if ours != "trivec" else "range"
    if found is None:
        return {name: NONE, reach: NONE}
    return {name: found[0], reach: f"{found[1]:.2f} to {found[2]:.2f}"}


def _empty(contender: Contender, place: Field, columns: Sequence[str]) -> Row:
    error = place.failed(contender)
    reason = f"could not run: {error.said}" if error else "not measured"
    row: Row = {"engine": contender.name}
    return row | dict.fromkeys(columns, NONE) | {"note": reason}


def _tried(seconds: Mapping[int, float]) -> str:
    best = min(seconds.values(), default=0.0)
    return ", ".join(f"batch {batch}: {s / best:.2f} x its best time" for batch, s in seconds.items() if s > best)
