"""What `trivec explain` prints: an Explanation in at most 80 columns."""

import json
import unicodedata
from collections.abc import Iterator, Sequence

from trivec._inspect.explain import Explained, Explanation, SharedTerm, Similarities, Term, Token

_WIDTH = 80
_INDENT, _LABEL = 2, 10  # columns before a line, and of its label
_BODY = _INDENT + _LABEL
_FIRST, _LAST = 48, 12  # tokens that are shown of many
_NUMBERS = 7  # that are shown of a dense vector
_TERM, _WEIGHT = 18, 9  # columns of a term and of its weight
_EIGHTHS = " ▏▎▍▌▋▊▉"


def render(explanation: Explanation, *, top: int = 15, ascii_only: bool = False) -> str:
    """Lines of text, the last one ended too.

    Args:
        explanation: of one or two texts.
        top: terms that are shown at most.
        ascii_only: draw bars with # and not with blocks.
    """
    lines = list(_lines(explanation, top))
    return "\n".join(_ascii(lines) if ascii_only else lines) + "\n"


def _ascii(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield line.replace("█", "#").rstrip(_EIGHTHS).replace("…", "...").replace("·", "-")


def _lines(explanation: Explanation, top: int) -> Iterator[str]:
    limit = explanation.max_seq_length
    reads = "texts of any length" if limit is None else f"up to {limit:,} tokens"
    yield from _wrapped(f"{explanation.model} ({explanation.kind}) reads {reads}", 0)
    yield f"fingerprint {explanation.fingerprint[:12]}"
    names = ("A", "B") if len(explanation.texts) > 1 else ("text",)
    for name, text in zip(names, explanation.texts, strict=True):
        yield ""
        yield from _text(name, text, top)
    if explanation.similarity is not None:
        yield ""
        yield "A and B"
        yield from _similarities(explanation.similarity, top)


# ---- a text ----------------------------------------------------------------------------------------------------------


def _text(name: str, text: Explained, top: int) -> Iterator[str]:
    yield from _wrapped(f"{name}: {_quoted(text.text)}", 0, most=3)
    if text.prompt:
        yield from _labelled("prompt", _quoted(text.prompt))
    special = sum(token.special for token in text.tokens)
    yield from _labelled("tokens", f"{len(text.tokens):,}" + (f", {special} of them special (*)" if special else ""))
    yield from _grid(text.tokens)
    if text.cut:
        listed = " ".join(_printable(token.token) for token in text.cut[:200])
        yield from _labelled("cut off", f"{len(text.cut):,} more tokens, which the model does not read:")
        yield from _wrapped(listed, _BODY, most=2)
    if text.dense is not None:
        more = " …" if len(text.dense.values) > _NUMBERS else ""
        yield from _labelled("vector", f"{len(text.dense.values):,} numbers, norm {text.dense.norm:.4f}:")
        yield " " * _BODY + " ".join(f"{x:.4f}" for x in text.dense.values[:_NUMBERS]) + more
    if text.terms is not None:
        yield from _terms(text.terms, text.sparse_dim or 0, top)
    if text.colbert is not None:
        yield from _labelled("colbert", f"{text.colbert[0]:,} vectors of {text.colbert[1]:,} numbers, one a token")


def _grid(tokens: Sequence[Token]) -> Iterator[str]:
    """Ids and tokens in columns, special ones with an asterisk; of very many the first and the last."""
    left_out = len(tokens) - _FIRST - _LAST
    parts = [tokens] if left_out <= 0 else [tokens[:_FIRST], tokens[-_LAST:]]
    digits = max((len(str(token.id)) for part in parts for token in part), default=0)
    cells = [[_cell(token, digits) for token in part] for part in parts]
    width = min(max((_columns(cell) for part in cells for cell in part), default=1) + 2, _WIDTH - _BODY)
    count = (_WIDTH - _BODY) // width
    for number, part in enumerate(cells):
        if number:
            yield f"{' ' * _BODY}… {left_out:,} more …"
        for start in range(0, len(part), count):
            row = "".join(_padded(_cut(cell, width - 1), width) for cell in part[start : start + count])
            yield " " * _BODY + row.rstrip()


def _cell(token: Token, digits: int) -> str:
    return f"{token.id:>{digits}} {_printable(token.token)}{'*' if token.special else ''}"


def _terms(terms: Sequence[Term], dim: int, top: int) -> Iterator[str]:
    shown = min(top, len(terms))
    which = f", the {shown} heaviest:" if shown < len(terms) else ":" if terms else ""
    yield from _labelled("terms", f"{len(terms):,} of {dim:,}{which}")
    yield from _bars([(term.token, term.weight, "") for term in terms[:top]])


def _bars(rows: Sequence[tuple[str, float, str]]) -> Iterator[str]:
    """Names with their numbers, as long as these are large, and a remark."""
    most = max((number for _, number, _ in rows), default=0.0)
    remarks = max((_columns(remark) for *_, remark in rows), default=0)
    room = _WIDTH - _BODY - _TERM - _WEIGHT - 1 - (remarks + 1 if remarks else 0)
    for name, number, remark in rows:
        eighths = round(8 * room * max(number, 0.0) / most) if most > 0 else 0
        bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
        term = _padded(_cut(_printable(name), _TERM - 1), _TERM)
        before = f"{_padded(remark, remarks)} " if remarks else ""
        yield f"{' ' * _BODY}{term}{before}{number:>{_WEIGHT}.4f} {bar}".rstrip()


# ---- two texts -------------------------------------------------------------------------------------------------------


def _similarities(found: Similarities, top: int) -> Iterator[str]:
    if found.dense is not None:
        yield from _labelled("dense", _functions(found.dense))
    if found.sparse is not None and found.shared is not None:
        shown = min(top, len(found.shared))
        which = f", the {shown} heaviest" if shown < len(found.shared) else ""
        total = f"; {len(found.shared):,} shared terms{which}" if found.shared else "; no shared terms"
        yield from _labelled("sparse", f"{_functions(found.sparse)}{total}")
        yield from _bars([_product(term) for term in found.shared[:top]])
    if found.colbert is not None:
        yield from _labelled("colbert", f"{found.colbert + 0.0:.4f}, the mean of each token of A's best match in B")


def _functions(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {round(value, 4) + 0.0:.4f}" for name, value in values.items())


def _product(term: SharedTerm) -> tuple[str, float, str]:
    return term.token, term.product, f"{term.a:.3f} x {term.b:.3f} ="


# ---- columns ---------------------------------------------------------------------------------------------------------


def _labelled(label: str, value: str) -> Iterator[str]:
    lines = list(_wrapped(value, _BODY, most=3))
    yield f"{' ' * _INDENT}{label:<{_LABEL}}{lines[0].strip()}"
    yield from lines[1:]


def _wrapped(text: str, indent: int, most: int = 3) -> Iterator[str]:
    """A text in lines of up to 80 columns, broken between words where it can be; at most so many, then an ellipsis."""
    room = _WIDTH - indent
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


def _quoted(text: str) -> str:
    """On one line, as it is but for line breaks and the like."""
    return _printable(json.dumps(text, ensure_ascii=False))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _columns(text: str) -> int:
    """Columns of a terminal: two for wide letters, none for marks that combine."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _prefix(text: str, columns: int) -> str:
    """As much of a text's start as fits."""
    used = 0
    for place, letter in enumerate(text):
        used += _columns(letter)
        if used > columns:
            return text[:place]
    return text


def _cut(text: str, columns: int) -> str:
    return text if _columns(text) <= columns else _prefix(text, columns - 1) + "…"


def _padded(text: str, columns: int) -> str:
    return text + " " * (columns - _columns(text))
