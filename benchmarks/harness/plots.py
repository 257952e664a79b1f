"""Plots of a run, from its JSON lines: python plots.py NAME.jsonl writes NAME-throughput.png and others beside it.

Runs in an environment that has matplotlib, which nothing else here needs.
"""

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OURS = {"trivec fp32": "#1f6fb4", "trivec int8": "#e8710a"}
PEER = "#9aa0a6"
Rows = list[dict[str, Any]]


def tables(file: Path) -> dict[str, Rows]:
    """The rows of each table of a run, without those that only have a note."""
    found: dict[str, Rows] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if "table" in record and set(record) != {"table", "note"}:
            found.setdefault(record["table"], []).append(record)
    return found


def bars(axis: Any, rows: Rows, value: str, title: str, unit: str, name: str = "engine") -> None:  # noqa: ANN401
    """Horizontal bars, each with its figure; rows without a figure say so."""
    numbers = [row[value] if isinstance(row.get(value), (int, float)) else 0.0 for row in rows]
    colors = [_color(row[name]) for row in rows]
    axis.barh(range(len(rows)), numbers, color=colors)
    axis.set_yticks(range(len(rows)), [row[name] for row in rows])
    axis.invert_yaxis()
    for place, (number, row) in enumerate(zip(numbers, rows, strict=True)):
        text = _short(number) if isinstance(row.get(value), (int, float)) else "no figure"
        axis.text(number, place, f" {text}", va="center", fontsize=9)
    axis.set_xlim(0, max([*numbers, 1e-9]) * 1.25)
    axis.set_title(title, fontsize=11, loc="left")
    axis.set_xlabel(unit)
    axis.spines[["top", "right"]].set_visible(False)


def _color(engine: str) -> str:
    if not engine.startswith("trivec"):
        return PEER
    return OURS["trivec int8" if engine == "trivec" or "int8" in engine else "trivec fp32"]


def throughput(plt: Any, found: dict[str, Rows]) -> Any:  # noqa: ANN401
    """Texts a second of every engine, a panel for each set."""
    titles = {
        "dense short": "MiniLM, short texts",
        "dense long": "MiniLM, long texts",
        "dense mixed": "MiniLM, mixed texts",
        "splade": "SPLADE, mixed texts",
        "bge-m3": "BGE-M3's shape, mixed texts",
        "static": "static, short texts",
    }
    present = [key for key in titles if found.get(key)]
    return _panels(plt, [(found[key], "texts/s", titles[key], "texts a second") for key in present])


def latency(plt: Any, found: dict[str, Rows]) -> Any:  # noqa: ANN401
    """One short text: the median as a bar, 95th and 99th percentile as marks."""
    rows = found.get("latency", [])
    if not rows:
        return None
    figure, axis = plt.subplots(figsize=(8, 0.5 * len(rows) + 1.4), layout="constrained")
    bars(axis, rows, "p50 ms", "One short text: p50 (bar), p95 (|) and p99 (x)", "milliseconds")
    for place, row in enumerate(rows):
        for column, mark in (("p95 ms", "|"), ("p99 ms", "x")):
            if isinstance(row[column], (int, float)):
                axis.plot(row[column], place + 0.25, mark, color="black", markersize=7)
    ends = [row["p99 ms"] for row in rows if isinstance(row["p99 ms"], (int, float))]
    axis.set_xlim(0, max([*ends, 1e-9]) * 1.1)
    return figure


def footprint(plt: Any, found: dict[str, Rows]) -> Any:  # noqa: ANN401
    """What an engine costs before it is fast: start, memory, disk."""
    sizes = [{**row, "engine": row["environment"]} for row in found.get("install", [])]
    return _panels(
        plt,
        [
            (rows, value, title, unit)
            for rows, value, title, unit in (
                (found.get("cold start", []), "seconds", "Import to first vector", "seconds"),
                (found.get("memory", []), "peak RSS MB", "Peak memory, encoding SciFact", "MB"),
                (sizes, "MB", "Installed", "MB"),
            )
            if rows
        ],
    )


def operators(plt: Any, found: dict[str, Rows]) -> Any:  # noqa: ANN401
    """Milliseconds by kind of operator of a batch of long texts, fp32 beside int8."""
    key = next((name for name in found if name.startswith("profile")), "")
    rows = [row for row in found.get(key, []) if row["operator"] != "all"]
    rows = [row for row in rows if max(row["fp32 %"], row["int8 %"]) >= 0.5]
    if not rows:
        return None
    figure, axis = plt.subplots(figsize=(8, 0.5 * len(rows) + 1.4), layout="constrained")
    for shift, precision in ((-0.2, "fp32"), (0.2, "int8")):
        places = [place + shift for place in range(len(rows))]
        values = [row[f"{precision} ms"] for row in rows]
        axis.barh(places, values, height=0.38, color=OURS[f"trivec {precision}"], label=precision)
        for place, row in zip(places, rows, strict=True):
            if row[f"{precision} ms"]:
                text = f" {row[f'{precision} ms']:.1f} ms, {row[f'{precision} %']:.0f} %"
                axis.text(row[f"{precision} ms"], place, text, va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), [row["operator"] for row in rows])
    axis.invert_yaxis()
    axis.set_xlim(0, max(max(row["fp32 ms"], row["int8 ms"]) for row in rows) * 1.2)
    axis.set_xlabel("milliseconds")
    axis.set_title(f"Where the time of long texts goes: one batch of {key.removeprefix('profile ')} tokens", loc="left")
    axis.legend(frameon=False, loc="lower right")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _panels(plt: Any, panels: Sequence[tuple[Rows, str, str, str]]) -> Any:  # noqa: ANN401
    """Bars in up to two columns; None without panels."""
    if not panels:
        return None
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    most = max(len(rows) for rows, *_ in panels)
    figure, axes = plt.subplots(
        lines, columns, figsize=(6.5 * columns, lines * (0.36 * most + 1.3)), layout="constrained", squeeze=False
    )
    for axis, panel in zip(axes.flat, panels, strict=False):
        bars(axis, *panel)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    return figure


def _short(number: float) -> str:
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def main() -> None:
    """Draw what the run has measured."""
    file = Path(sys.argv[1])
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    found = tables(file)
    for draw in (throughput, latency, footprint, operators):
        target = file.with_name(f"{file.stem}-{draw.__name__}.png")
        target.unlink(missing_ok=True)
        figure = draw(plt, found)
        if figure is not None:
            figure.savefig(target, dpi=120)
            plt.close(figure)


if __name__ == "__main__":
    main()
