"""Pages of maps: texts that try to break out of them, and what is found on one."""

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HOSTILE = [
    "</script><script>globalThis.executed = 1</script>",
    "<!-- <script> --><img src=x onerror='globalThis.executed = 2'>",
    "line\u2028separator\u2029paragraph \"quotes\" 'single' `back` ${1} {{points}} &lt;b&gt;",
    "مرحبا بالعالم \u202eevil\u202c",
    "emoji 👩‍👩‍👧 and nul \x00 and bell \x07",
    "half \ud83d of a pair",
    "x" * (1 << 20),
    "",
    "ISTANBUL İstanbul straße e\u0301",
]


class Seen(NamedTuple):
    """What a page holds."""

    html: str
    points: Any
    """(N, 2) float32"""
    rows: list[int]
    texts: list[str]
    cut: dict[str, int]
    facts: dict[str, str]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags:
            self.data.setdefault(str(self.tags[-1][1].get("id") or self.tags[-1][0]), data)


def seen(path: Path) -> Seen:
    text = path.read_text(encoding="utf-8")
    parser = _Parser()
    parser.feed(text)
    assert [tag for tag, _ in parser.tags].count("script") == 4  # the three of data and the page's own
    assert not [a for _, a in parser.tags if "src" in a or a.get("href", "data:,") != "data:,"]
    points = np.frombuffer(base64.b64decode(parser.data.get("data-points", "")), "<f4").reshape(-1, 2)
    rows = np.frombuffer(base64.b64decode(parser.data.get("data-rows", "")), "<u4").tolist()
    packed = json.loads(zlib.decompress(base64.b64decode(parser.data["data-texts"])))
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd.*?>(.*?)</dd>", text))
    return Seen(text, points, rows, packed["texts"], packed["cut"], facts)


def npy(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path
