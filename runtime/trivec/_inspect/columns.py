"""Lines of at most 80 columns: what the texts of `trivec explain` are made of."""

import json
import unicodedata
from collections.abc import Iterator, Sequence

from trivec._inspect.explain import Token

WIDTH = 80
INDENT, LABEL = 2, 10  # columns before a line, and of its label
BODY = INDENT + LABEL
_FIRST, _LAST = 48, 12  # tokens that are shown of many
_TERM, _WEIGHT = 18, 9  # columns of a term and of its weight
_EIGHTHS = " ▏▎▍▌▋▊▉"


def ascii_lines(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield line.replace("█", "#").rstrip(_EIGHTHS).replace("…", "...").replace("·", "-")


def grid(tokens: Sequence[Token]) -> Iterator[str]:
    """Ids and tokens in columns, special ones with an asterisk; of very many the first and the last."""
    left_out = len(tokens) - _FIRST - _LAST
    parts = [tokens] if left_out <= 0 else [tokens[:_FIRST], tokens[-_LAST:]]
    digits = max((len(str(token.id)) for part in parts for token in part), default=0)
    cells = [[_cell(token, digits) for token in part] for part in parts]
    width = min(max((columns_of(cell) for part in cells for cell in part), default=1) + 2, WIDTH - BODY)
    count = (WIDTH - BODY) // width
    for number, part in enumerate(cells):
        if number:
            yield f"{' ' * BODY}… {left_out:,} more …"
        for start in range(0, len(part), count):
            row = "".join(padded(cut(cell, width - 1), width) for cell in part[start : start + count])
            yield " " * BODY + row.rstrip()


def _cell(token: Token, digits: int) -> str:
    return f"{token.id:>{digits}} {printable(token.token)}{'*' if token.special else ''}"


def bars(rows: Sequence[tuple[str, float, str]]) -> Iterator[str]:
    """Names with their numbers, as long as these are large, and a remark."""
    most = max((number for _, number, _ in rows), default=0.0)
    remarks = max((columns_of(remark) for *_, remark in rows), default=0)
    room = WIDTH - BODY - _TERM - _WEIGHT - 1 - (remarks + 1 if remarks else 0)
    for name, number, remark in rows:
        eighths = round(8 * room * max(number, 0.0) / most) if most > 0 else 0
        bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
        term = padded(cut(printable(name), _TERM - 1), _TERM)
        before = f"{padded(remark, remarks)} " if remarks else ""
        yield f"{' ' * BODY}{term}{before}{number:>{_WEIGHT}.4f} {bar}".rstrip()


def labelled(label: str, value: str) -> Iterator[str]:
    lines = list(wrapped(value, BODY, most=3))
    yield f"{' ' * INDENT}{label:<{LABEL}}{lines[0].strip()}"
    yield from lines[1:]


def wrapped(text: str, indent: int, most: int = 3) -> Iterator[str]:
    """A text in lines of up to 80 columns, broken between words where it can be; at most so many, then an ellipsis."""
    room = WIDTH - indent
    for number in range(1, most + 1):
        line = _prefix(text, room)
        rest = text[len(line) :]
        if rest and number == most:
            yield " " * indent + _prefix(text, room - 2).rstrip() + " …"
            return
        if rest and not rest.startswith(" ") and " " in line[room // 2 :].rstrip():
            line = line[: line.rstrip().rindex(" ") + 1]
        yield " " * indent + line.rstrip()
        text = text[len(line) :].lstrip(" ")
        if not text:
            return


def quoted(text: str) -> str:
    """On one line, as it is but for line breaks and the like."""
    return printable(json.dumps(text, ensure_ascii=False))


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def columns_of(text: str) -> int:
    """Columns of a terminal: two for wide letters, none for marks that combine."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _prefix(text: str, columns: int) -> str:
    """As much of a text's start as fits."""
    used = 0
    for place, letter in enumerate(text):
        used += columns_of(letter)
        if used > columns:
            return text[:place]
    return text


def cut(text: str, columns: int) -> str:
    return text if columns_of(text) <= columns else _prefix(text, columns - 1) + "…"


def padded(text: str, columns: int) -> str:
    return text + " " * (columns - columns_of(text))
