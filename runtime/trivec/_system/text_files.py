"""Texts from files or stdin, one by one, with the line named where a row cannot be used.

Files are what they begin with: packed by gzip or not, UTF-8, or what a byte order mark says.
"""

import codecs
import csv
import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from trivec._errors import InputError

TextGenerator = Generator[str, None, None]
_GZIP = b"\x1f\x8b"
_MARKS = (  # the first two bytes of UTF-32's are UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)


class Texts(NamedTuple):
    """Texts that can be read one by one."""

    read: Callable[[], TextGenerator]
    total: int | None
    """How many there are; None for a stream, which can be read once only."""


def open_texts(name: str, column: str) -> Texts:
    """The texts of a .txt, .jsonl, .ndjson, .json, .csv or .tsv file, with .gz behind it or not, or of stdin ("-").

    Raises:
        InputError: there is no such file, it is of another kind, or one of its rows cannot be used; the message names
            the line.
    """
    if name == "-":
        if sys.stdin is None:
            raise InputError("stdin is closed, so that no texts come from there. Name a file: .txt, .jsonl or .csv")
        return Texts(lambda: _lines(_unpacked(sys.stdin.buffer, "stdin"), "stdin", column), None)
    path = Path(name)
    kind = Path(path.stem) if path.suffix.lower() == ".gz" else path
    parse = _PARSERS.get(kind.suffix.lower())
    if parse is None:
        known = f"{', '.join(_PARSERS)}, nor one of them with .gz behind it"
        raise InputError(f"{name} is none of {known}. For one text a line on stdin, type: - < {name}")
    if not path.exists():
        raise InputError(f"there is no file {name!r}.")

    def read() -> TextGenerator:
        with path.open("rb") as stream:
            yield from parse(_unpacked(stream, name), name, column)

    total = sum(1 for _ in read()) if path.is_file() else None  # a named pipe can be read once only
    return Texts(read, total)


class JsonRows(NamedTuple):
    """Values of JSON lines, each with where it stands, for messages."""

    read: Callable[[], Generator[tuple[str, Any], None, None]]
    read_once: bool
    """Whether it is a stream."""


def open_json_rows(name: str) -> JsonRows:
    """The values of a .jsonl or .ndjson file, with .gz behind it or not, or of stdin ("-"); blank lines are no rows.

    Raises:
        InputError: there is no such file, or it is of another kind; as a line is read, it is not valid JSON.
    """
    if name == "-":
        if sys.stdin is None:
            raise InputError("stdin is closed, so that nothing comes from there. Name a .jsonl file.")
        return JsonRows(
            lambda: _json_values(decode_lines(_unpacked(sys.stdin.buffer, "stdin"), "stdin"), "stdin"), True
        )
    path = Path(name)
    kind = Path(path.stem) if path.suffix.lower() == ".gz" else path
    if kind.suffix.lower() not in (".jsonl", ".ndjson"):
        raise InputError(f"{name} is neither .jsonl nor .ndjson, nor one of them with .gz behind it.")
    if not path.exists():
        raise InputError(f"there is no file {name!r}.")

    def read() -> Generator[tuple[str, Any], None, None]:
        with path.open("rb") as stream:
            yield from _json_values(decode_lines(_unpacked(stream, name), name), name)

    return JsonRows(read, not path.is_file())  # a named pipe can be read once only


def read_text(path: Path) -> str:
    """A whole file as one text, its line breaks as line feeds.

    Raises:
        InputError: it is not of the encoding that it seems to be of.
    """
    with path.open("rb") as stream:
        text = "".join(decode_lines(_unpacked(stream, str(path)), str(path)))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _lines(stream: Iterable[bytes], name: str, _: str) -> TextGenerator:
    """Every line is a text, empty ones too."""
    for line in decode_lines(stream, name):
        yield line.removesuffix("\n").removesuffix("\r")


def _json_lines(stream: Iterable[bytes], name: str, column: str) -> TextGenerator:
    """Strings, or objects whose `column` is one; blank lines are no rows."""
    return _json_rows(decode_lines(stream, name), name, column)


def _json_document(stream: Iterable[bytes], name: str, column: str) -> TextGenerator:
    """One list of strings or objects, or an object whose `column` is a list; or else a value a line."""
    text = "".join(decode_lines(stream, name))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("["):
            raise InputError(f"{name} is not valid JSON: {error}") from error
        yield from _json_rows(text.split("\n"), name, column)
        return
    if isinstance(found, dict) and isinstance(found.get(column), list):
        found = found[column]
    for number, value in enumerate(found if isinstance(found, list) else [found], 1):
        yield _text_of(value, f"{name}, item {number}", column)


def _json_rows(lines: Iterable[str], name: str, column: str) -> TextGenerator:
    for where, value in _json_values(lines, name):
        yield _text_of(value, where, column)


def _json_values(lines: Iterable[str], name: str) -> Generator[tuple[str, Any], None, None]:
    """The value of each line that is not blank, and where it is."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is not valid JSON: {error}") from error
        yield where, value


def _text_of(value: object, where: str, column: str) -> str:
    """A JSON value as a text: a string, or an object whose `column` is one."""
    if isinstance(value, dict):
        if column not in value:
            raise InputError(f"{where} has no {column!r}; it has: {', '.join(value) or 'nothing'}. Type: --column NAME")
        value = value[column]
    if not isinstance(value, str):
        raise InputError(f"{where}: expected a string, got {json.dumps(value)[:60]}.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{where} holds a lone surrogate (half of a \\u pair), which is no valid text.") from error
    return value


def _csv_rows(stream: Iterable[bytes], name: str, column: str, delimiter: str = ",") -> TextGenerator:
    """The `column` of a .csv or .tsv file with a header; blank lines between rows are no rows.

    Strict: an open quote or a row of another width raises, where csv's default would swallow or cut text silently.
    """
    csv.field_size_limit(2**31 - 1)  # the default refuses texts of more than 131,072 characters
    rows = csv.reader(decode_lines(stream, name), delimiter=delimiter, strict=True)
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
                    f"A text with {'tabs' if delimiter != ',' else 'commas'} or line breaks must stand in double "
                    "quotes."
                )
            start = rows.line_num + 1
            if row:
                yield row[index]
    except csv.Error as error:
        raise InputError(
            f"{name}, line {rows.line_num} is not valid {'CSV' if delimiter == ',' else 'TSV'}: {error}"
        ) from error


def decode_lines(stream: Iterable[bytes], name: str) -> Iterator[str]:
    """Lines of UTF-8, or of what a byte order mark says; ended by a line feed only. The mark is no text."""
    pieces = iter(stream)
    first = next(pieces, b"")
    mark, encoding = next(((mark, name) for mark, name in _MARKS if first.startswith(mark)), (b"", "utf-8"))
    lines = chain([first.removeprefix(mark)], pieces)
    if encoding != "utf-8":
        yield from _wide_lines(lines, name, encoding)
        return
    if first[1:4:2] == b"\0\0" or first[:3:2] == b"\0\0":  # letters of two bytes each, which are valid UTF-8 as well
        order = "LE" if first[1] == 0 else "BE"
        raise InputError(
            f"{name} seems to be UTF-16 without a byte order mark. Convert it: iconv -f UTF-16{order} -t UTF-8"
        )
    for number, line in enumerate(lines, 1):
        try:
            if line:  # else there is nothing, or only a mark
                yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}, line {number} is not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start} "
                f"({error.reason}). Convert it: iconv -f LATIN1 -t UTF-8"
            ) from error


def _wide_lines(pieces: Iterable[bytes], name: str, encoding: str) -> Iterator[str]:
    """The lines of UTF-16 or UTF-32, whose pieces end wherever a byte is that of a line feed."""
    decoder = codecs.getincrementaldecoder(encoding)()
    number, parts = 1, [""]  # parts of the line that has begun
    try:
        for piece in chain(pieces, [b""]):
            begun, *further = decoder.decode(piece, final=not piece).split("\n")
            parts.append(begun)
            for text in further:
                yield "".join([*parts, "\n"])
                number, parts = number + 1, [text]
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}, line {number} is not {encoding.upper()}, as its byte order mark says: {error.reason}."
        ) from error
    if last := "".join(parts):
        yield last


def _unpacked(stream: BinaryIO, name: str) -> Iterable[bytes]:
    """The lines of a file, unpacked where gzip has packed it."""
    peek = getattr(stream, "peek", None)
    return _gunzipped(stream, name) if peek is not None and peek(2)[:2] == _GZIP else stream


def _gunzipped(stream: BinaryIO, name: str) -> Iterator[bytes]:
    import gzip
    import zlib

    try:
        yield from gzip.GzipFile(fileobj=stream)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{name} is no whole gzip file: {error}. Fetch or pack it again.") from error


_PARSERS: dict[str, Callable[[Iterable[bytes], str, str], TextGenerator]] = {
    ".txt": _lines,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_document,
    ".csv": _csv_rows,
    ".tsv": partial(_csv_rows, delimiter="\t"),
}
