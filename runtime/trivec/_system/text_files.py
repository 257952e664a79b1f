"""Texts from files: .txt, .jsonl, .csv, or stdin, one by one, with the line named where a row cannot be used."""

import codecs
import csv
import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from trivec._errors import InputError

TextGenerator = Generator[str, None, None]


class Texts(NamedTuple):
    """Texts that can be read one by one."""

    read: Callable[[], TextGenerator]
    total: int | None
    """How many there are; None for a stream, which can be read once only."""


def open_texts(name: str, column: str) -> Texts:
    """The texts of a .txt, .jsonl or .csv file, or of stdin's lines ("-").

    Raises:
        InputError: there is no such file, it is of another kind, or one of its rows cannot be used; the message names
            the line.
    """
    if name == "-":
        return Texts(lambda: _lines(sys.stdin.buffer, "stdin", column), None)
    path = Path(name)
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise InputError(f"{name} is none of {', '.join(_PARSERS)}. For one text a line on stdin, type: - < {name}")
    if not path.exists():
        raise InputError(f"there is no file {name!r}.")

    def read() -> TextGenerator:
        with path.open("rb") as stream:
            yield from parse(stream, name, column)

    total = sum(1 for _ in read()) if path.is_file() else None  # a named pipe can be read once only
    return Texts(read, total)


def _lines(stream: Iterable[bytes], name: str, _: str) -> TextGenerator:
    """Every line is a text, empty ones too."""
    for line in decode_lines(stream, name):
        yield line.removesuffix("\n").removesuffix("\r")


def _json_lines(stream: Iterable[bytes], name: str, column: str) -> TextGenerator:
    """Strings, or objects whose `column` is one; blank lines are no rows."""
    for number, line in enumerate(decode_lines(stream, name), 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is not valid JSON: {error}") from error
        if isinstance(value, dict):
            if column not in value:
                raise InputError(
                    f"{where} has no {column!r}; it has: {', '.join(value) or 'nothing'}. Type: --column NAME"
                )
            value = value[column]
        if not isinstance(value, str):
            raise InputError(f"{where}: expected a string, got {json.dumps(value)[:60]}.")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"{where} holds a lone surrogate (half of a \\u pair), which is no valid text.") from error
        yield value


def _csv_rows(stream: Iterable[bytes], name: str, column: str) -> TextGenerator:
    """The `column` of a .csv file with a header; blank lines between rows are no rows.

    Strict: an open quote or a row of another width raises, where csv's default would swallow or cut text silently.
    """
    csv.field_size_limit(2**31 - 1)  # the default refuses texts of more than 131,072 characters
    rows = csv.reader(decode_lines(stream, name), strict=True)
    try:
        header = next(rows, None)
        if header is None:
            raise InputError(f"{name} is empty; expected a header line with the columns' names.")
        if column not in header:
            raise InputError(f"{name} has no column {column!r}; it has: {', '.join(header)}. Type: --column NAME")
        index, start = header.index(column), rows.line_num + 1
        for row in rows:
            if row and len(row) != len(header):
                raise InputError(
                    f"{name}, line {start} has {len(row)} fields; the header has {len(header)}. "
                    "A text with commas or line breaks must stand in double quotes."
                )
            start = rows.line_num + 1
            if row:
                yield row[index]
    except csv.Error as error:
        raise InputError(f"{name}, line {rows.line_num} is not valid CSV: {error}") from error


def decode_lines(stream: Iterable[bytes], name: str) -> Iterator[str]:
    """Lines of UTF-8, ended by a line feed only; a byte order mark is no text."""
    for number, line in enumerate(stream, 1):
        try:
            yield (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}, line {number} is not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start} "
                f"({error.reason}). Convert it: iconv -f LATIN1 -t UTF-8"
            ) from error


_PARSERS: dict[str, Callable[[Iterable[bytes], str, str], TextGenerator]] = {
    ".txt": _lines,
    ".jsonl": _json_lines,
    ".csv": _csv_rows,
}
