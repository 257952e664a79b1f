"""Files of texts in every encoding and kind that is read, against the strings that were written into them."""

import csv
import gzip
import io
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from numpy.testing import assert_allclose

from trivec import InputError
from trivec._cli.main import main
from trivec._system.text_files import open_texts, read_text

GUJARATI = "ગુજરાતી લખાણ, ઊંટ"  # of U+0A80 to U+0AFF: each letter has the byte of a line feed
TEXTS = ["a cat", "", GUJARATI, "東京 🚲 \u2028 \x85", "the old, \t 'dog'", "end"]
MARKED = {  # byte order marks as the standard has them
    "utf-8": b"\xef\xbb\xbf",
    "utf-16-le": b"\xff\xfe",
    "utf-16-be": b"\xfe\xff",
    "utf-32-le": b"\xff\xfe\0\0",
    "utf-32-be": b"\0\0\xfe\xff",
}


def as_lines(texts: list[str]) -> str:
    return "\r\n".join(texts)


def as_json_lines(texts: list[str]) -> str:
    return "".join(f"{json.dumps({'id': i, 'body': t}, ensure_ascii=False)}\n" for i, t in enumerate(texts))


def as_table(texts: list[str], dialect: str = "excel") -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, dialect).writerows([("id", "body"), *enumerate(texts)])
    return stream.getvalue()


KINDS: dict[str, Callable[[list[str]], str]] = {
    "txt": as_lines,
    "jsonl": as_json_lines,
    "ndjson": as_json_lines,
    "json": lambda texts: json.dumps([{"id": i, "body": text} for i, text in enumerate(texts)], indent=1),
    "csv": as_table,
    "tsv": lambda texts: as_table(texts, "excel-tab"),
}


def read(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    texts = open_texts(str(path), "body")
    found = list(texts.read())
    assert texts.total == len(found)
    return found


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_read_as_its_byte_order_mark_says(tmp_path: Path, kind: str, encoding: str) -> None:
    content = MARKED[encoding] + KINDS[kind](TEXTS).encode(encoding)
    assert read(tmp_path / f"in.{kind}", content) == TEXTS
    assert read(tmp_path / f"in.{kind}.GZ", gzip.compress(content)) == TEXTS


@pytest.mark.parametrize("kind", KINDS)
def test_gzip_is_unpacked_by_what_the_file_is(tmp_path: Path, kind: str) -> None:
    content = KINDS[kind](TEXTS).encode()
    half = len(content) // 2
    packed = gzip.compress(content[:half]) + gzip.compress(content[half:])  # as `cat a.gz b.gz` makes it
    assert read(tmp_path / f"in.{kind}.gz", packed) == TEXTS
    assert read(tmp_path / f"in.{kind}", packed) == TEXTS
    assert read(tmp_path / f"plain.{kind}.gz", content) == TEXTS  # a server has unpacked it on its way


def test_a_long_line_of_letters_with_the_byte_of_a_line_feed(tmp_path: Path) -> None:
    long = "ગ" * 200_000
    assert read(tmp_path / "in.txt", f"{long}\n{long}".encode("utf-16")) == [long, long]


@pytest.mark.parametrize(("content", "texts"), [(b"\xff\xfe", []), (b"\xef\xbb\xbf", []), (b"\xfe\xff\0\n", [""])])
def test_a_mark_is_no_text(tmp_path: Path, content: bytes, texts: list[str]) -> None:
    assert read(tmp_path / "in.txt", content) == texts


@pytest.mark.parametrize(
    "value",
    [
        ["a cat", "a dog"],
        [{"body": "a cat", "n": 1}, "a dog"],
        {"n": [1, 2], "body": ["a cat", "a dog"]},
    ],
)
def test_a_document_of_json(tmp_path: Path, value: Any) -> None:
    assert read(tmp_path / "in.json", json.dumps(value, indent=2).encode()) == ["a cat", "a dog"]


def test_json_of_one_value_a_line(tmp_path: Path) -> None:
    """datasets.Dataset.to_json and others write lines under the name .json."""
    assert read(tmp_path / "in.json", b'{"body": "a cat \xe2\x80\xa8"}\n\n{"body": "a dog"}\n') == [
        "a cat \u2028",
        "a dog",
    ]
    assert read(tmp_path / "in.json", b'{"body": "a cat"}') == ["a cat"]
    assert read(tmp_path / "in.json", b"[]") == []


BAD = {
    "cut": ("in.txt", "one\ntwo".encode("utf-16")[:-1], "line 2 is not UTF-16-LE, as its byte order mark says"),
    "half": ("in.txt", b"\xfe\xff\0a\0\n\xd8\0\0b", "line 2 is not UTF-16-BE, as its byte order mark says: illegal"),
    "no mark, le": ("in.txt", "one\ntwo".encode("utf-16-le"), "seems to be UTF-16 without a byte order mark"),
    "no mark, be": ("in.csv", "id,body".encode("utf-16-be"), "mark. Convert it: iconv -f UTF-16BE -t UTF-8"),
    "latin1": ("in.tsv", b"id\tbody\n1\tol\xe9\n", "line 2 is not UTF-8: byte 0xe9"),
    "cut gzip": ("in.txt.gz", gzip.compress(os.urandom(9999).hex().encode())[:-99], "is no whole gzip file"),
    "bad gzip": ("in.txt.gz", b"\x1f\x8b\x08" + 40 * b"x", "is no whole gzip file"),
    "list": ("in.json", b'["a",\n "b"', "is not valid JSON: Expecting ',' delimiter: line 2"),
    "line": ("in.json", b'{"body": "a"}\n{"body": ', "line 2 is not valid JSON"),
    "number": ("in.json", b'["a", 3]', "item 2: expected a string, got 3."),
    "column": ("in.json", b'[{"body": "a"}, {"text": "b"}]', "item 2 has no 'body'; it has: text."),
    "pandas": ("in.json", b'{"text": {"0": "a"}}', "item 1 has no 'body'; it has: text."),
    "tab": ("in.tsv", b"id\tbody\n1\ta\tb\n", "line 2 has 3 fields; the header has 2. A text with tabs"),
    "kind": ("in.gz", gzip.compress(b"a"), "is none of .txt, .jsonl, .ndjson, .json, .csv, .tsv, nor one"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_named(tmp_path: Path, case: str) -> None:
    name, content, message = BAD[case]
    with pytest.raises(InputError) as caught:
        read(tmp_path / name, content)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert message in str(caught.value)


def _write(writer: BinaryIO, content: bytes) -> None:
    writer.write(content)
    writer.close()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-be"])
def test_stdin_too(monkeypatch: pytest.MonkeyPatch, encoding: str, packed: bool) -> None:
    content = MARKED[encoding] + as_lines(TEXTS).encode(encoding)
    outlet, inlet = os.pipe()
    with os.fdopen(outlet, "rb") as stream, os.fdopen(inlet, "wb") as writer:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
        thread = threading.Thread(target=_write, args=(writer, gzip.compress(content) if packed else content))
        thread.start()
        assert list(open_texts("-", "").read()) == TEXTS
        thread.join()


def test_the_commands(tmp_path: Path, tiny_model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["a red boat", "the cat", "東京"]
    (tmp_path / "in.tsv.gz").write_bytes(gzip.compress(as_table(texts, "excel-tab").encode("utf-16")))
    command = ["encode", str(tiny_model.folder), str(tmp_path / "in.tsv.gz"), "--column", "body"]
    assert main([*command, "-o", str(tmp_path / "out.npy"), "--device", "cpu"]) == 0
    assert_allclose(np.load(tmp_path / "out.npy"), tiny_model.expected(texts), atol=1e-6)
    capsys.readouterr()
    (tmp_path / "a.txt").write_bytes("a red\r\nboat\r\n".encode("utf-16"))
    assert read_text(tmp_path / "a.txt") == "a red\nboat\n"
    assert main(["similarity", str(tiny_model.folder), f"@{tmp_path / 'a.txt'}", "the cat", "--device", "cpu"]) == 0
    a, b = tiny_model.expected(["a red\nboat", "the cat"])
    assert capsys.readouterr().out == f"{a @ b / np.linalg.norm(a) / np.linalg.norm(b):.4f}\n"
