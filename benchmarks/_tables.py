"""What was measured, as tables: losing rows and rows of engines that could not run among them."""

from collections.abc import Mapping, Sequence

import numpy as np
from benchmarks._contest import OURS, Field, Outcome
from benchmarks._stats import percentiles, ratios, spread
from benchmarks._table import Row, Table
from benchmarks._worker import Contender

NONE = "-"


def throughput(key: str, outcome: Outcome, contenders: Sequence[Contender], place: Field, note: str = "") -> Table:
    """Texts a second, the share of the ceiling, and how many times as fast trivec is."""
    rows: list[Row] = []
    for contender in contenders:
        if contender.name not in outcome.seconds:
            rows.append(_empty(contender, place, ["batch", "texts/s", "share of ceiling %", *_against()]))
            continue
        seconds = outcome.seconds[contender.name]
        share = spread(outcome.shares(contender)).median
        row: Row = {"engine": contender.name, "batch": outcome.batches[contender.name] or "own"}
        row |= {"texts/s": outcome.texts.size / spread(seconds).median}
        row |= {"share of ceiling %": NONE if np.isnan(share) else share}
        for ours in OURS:
            other = outcome.seconds.get(ours)
            row |= _ratio(ours, ratios(other, seconds) if other and ours != contender.name else None)
        rows.append(row | {"note": _tried(outcome.tried.get(contender.name, {}))})
    texts = outcome.texts
    note = (
        f"{texts.size:,} texts, {texts.tokens / texts.size:.1f} tokens each on average. {note} `x` is how many times "
        "as fast trivec is as the row's engine: the median of the ratios within each round, and their range; below 1 "
        "trivec loses."
    )
    return Table(key, f"Throughput: {texts.name}", note, rows, {"texts/s": 1, "share of ceiling %": 1})


def latency(blocks: Mapping[str, Sequence[Sequence[float]]], contenders: Sequence[Contender], place: Field) -> Table:
    """Milliseconds of one text."""
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
    return Table("latency", "Latency of one short text", note, rows)


def cold_start(seconds: Mapping[str, Sequence[float]], contenders: Sequence[Contender], place: Field) -> Table:
    """Seconds from import to the first vector."""
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
    return Table("cold start", "Cold start", note, rows)


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
    name, reach = f"{ours} x", "range of " + ours.removeprefix("trivec ")
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
