"""A comparison as text for a terminal, and as Markdown."""

from collections.abc import Iterator, Sequence

from trivec.compare._comparison import Comparison, Differing, Hit, Mean, Row
from trivec.compare._entrants import Planned

_NONE = "-"
_QUALITY = (
    "encoder",
    "nDCG@10 [95 %]",
    "less the first [95 %]",
    "recall@100",
    "MRR@10",
    "same top 10",
    "RBO",
    "cosine",
)
_TAKES = ("encoder", "runs", "documents/s", "query ms p50 / p95", "dims", "bytes a vector", "tokens", "cost")
_PLAN = ("encoder", "texts", "requests", "tokens", "cost")


def render(found: Comparison) -> str:
    """Two tables: how right each is, and what it takes."""
    head = f"{found.folder}, {found.split}: {found.documents:,} documents, {found.queries:,} queries"
    tables = ((_QUALITY, [_quality(row) for row in found.rows]), (_TAKES, [_takes(row) for row in found.rows]))
    return "\n\n".join([head, *(_aligned([columns, *rows]) for columns, rows in tables), *_notes(found)])


def render_plan(plans: Sequence[Planned]) -> str:
    """What would be asked for."""
    rows = [_planned(found) for found in plans]
    total = sum(found.cost or 0.0 for found in plans)
    return "\n\n".join([_aligned([_PLAN, *rows]), f"about {total:.2f} in all; nothing was sent"])


def markdown(found: Comparison) -> str:
    """The tables, and the queries on which two differ most side by side."""
    return "\n".join(_markdown(found))


def _markdown(found: Comparison) -> Iterator[str]:
    yield f"# {found.folder}, {found.split}\n"
    yield f"{found.documents:,} documents, {found.queries:,} queries.\n"
    for columns, cells in ((_QUALITY, _quality), (_TAKES, _takes)):
        yield _bars(columns)
        yield _bars(["---", *["---:"] * (len(columns) - 1)])
        yield from (_bars(cells(row)) for row in found.rows)
        yield ""
    yield from (f"{note}\n" for note in _notes(found))
    for name, listed in found.differing.items():
        first = found.rows[0].name
        yield f"## Where {_cell(first)} and {_cell(name)} differ most\n"
        if not listed:
            yield "Nowhere: nDCG@10 of every query is the same.\n"
        for one in listed:
            yield from _side_by_side(one, (first, name))


def _side_by_side(one: Differing, names: tuple[str, str]) -> Iterator[str]:
    yield f"**{_cell(one.text)}** ({_cell(one.id)})\n"
    yield _bars([f"{name}: nDCG@10 {100 * value:.1f}" for name, value in zip(names, one.ndcg, strict=True)])
    yield _bars(["---", "---"])
    for rank in range(max(map(len, one.hits))):
        yield _bars([_hit(side[rank]) if rank < len(side) else "" for side in one.hits])
    yield ""


def _hit(hit: Hit) -> str:
    mark = f"**relevant ({hit.relevance})** " if hit.relevance > 0 else ""
    return f"{mark}{hit.id}: {hit.text[:100]}"


def _notes(found: Comparison) -> Iterator[str]:
    yield (
        f"nDCG, recall and MRR in percent. Less the first, same top 10, RBO (p = 0.9) and cosine (min / mean, of a "
        f"document's vectors where dimensions are equal): to {found.rows[0].name}."
    )
    if any(row.hosted for row in found.rows):
        yield "Times of hosted models are of requests, network included."


def _quality(row: Row) -> list[str]:
    cosine = _NONE if row.cosine_min is None else f"{row.cosine_min:.4f} / {row.cosine_mean:.4f}"
    return [
        row.name,
        _mean(row.ndcg),
        _NONE if row.to_first is None else _mean(row.to_first, "+"),
        f"{100 * row.recall:.2f}",
        f"{100 * row.mrr:.2f}",
        _NONE if row.same_top10 is None else f"{row.same_top10:.1%}",
        _NONE if row.rbo is None else f"{row.rbo:.3f}",
        cosine,
    ]


def _takes(row: Row) -> list[str]:
    return [
        row.name,
        row.what,
        _NONE if row.documents_per_second is None else f"{row.documents_per_second:,.1f}",
        _NONE if row.query_ms is None else " / ".join(f"{ms:.2f}" for ms in row.query_ms),
        f"{row.dims:,}",
        f"{row.bytes_per_vector:,.0f}",
        _NONE if row.tokens is None else f"{row.tokens:,}",
        _NONE if row.cost is None else f"{row.cost:.4f}",
    ]


def _planned(found: Planned) -> list[str]:
    if not found.hosted:
        return [found.name, f"{found.texts:,}", _NONE, _NONE, _NONE]
    cost = "no price" if found.cost is None else f"{found.cost:.4f}"
    return [found.name, f"{found.texts:,}", f"{found.requests:,}", f"{found.tokens:,}", cost]


def _mean(mean: Mean, sign: str = "") -> str:
    value, low, high = (f"{100 * value:{sign}.2f}" for value in mean)
    return f"{value} [{low}, {high}]"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _bars(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """On one line, and nothing of it a bar or markup."""
    line = " ".join(text.split())
    for letter in "|<":
        line = line.replace(letter, f"\\{letter}")
    return line
