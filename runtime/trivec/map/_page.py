"""The HTML page of a map: a template, its script and its style, and the data, all in one text.

Data never meets the HTML parser as such: texts are compressed JSON in base64, points are numbers in base64, and what
stands in the header is escaped. The content security policy lets the page's own script and style run, by their sha256,
and nothing else, and forbids every request.
"""

import base64
import hashlib
import html
import json
import re
import zlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._version import __version__
from trivec.map._corpus import Corpus
from trivec.map._points import Plane


class Fact(NamedTuple):
    """A line of the header."""

    name: str
    value: str
    title: str | None = None
    """Shown by browsers that rest on it."""


def page(name: str, corpus: Corpus, plane: Plane) -> bytes:
    """The page, in UTF-8.

    Args:
        name: of the file, for the title.
        corpus: N rows.
        plane: where they are, (N, 2).
    """
    style, script = _source("page.css"), _source("page.js")
    cut = {i: int(length) for i, length in enumerate(corpus.lengths.tolist()) if length > len(corpus.texts[i])}
    note = ""
    if cut:
        longest = max(len(corpus.texts[i]) for i in cut)
        note = f" The page has the first {longest:,} letters of each text, and searches these."
    values = {
        "policy": _policy(style, script),
        "generator": f"trivec {__version__}",
        "name": _escaped(name),
        "count": f"{len(corpus.texts):,}",
        "facts": "\n".join(map(_fact, _facts(corpus, plane))),
        "note": note,
        "style": style,
        "script": script,
        "points": _base64(centered(plane.points).tobytes()),
        "rows": _base64(corpus.rows.astype("<u4").tobytes()),
        "texts": _base64(_packed({"texts": corpus.texts, "cut": cut})),
    }
    # One pass: what is put in is not looked at again.
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _source("page.html"))
    return text.encode("utf-8")


def centered(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """(N, 2) from -1 to 1, both axes by the same factor, around the middle of what there is; little-endian."""
    if len(points) == 0:
        return np.zeros((0, 2), dtype="<f4")
    low, high = points.min(0), points.max(0)  # (2,)
    extent = float((high / 2 - low / 2).max())
    moved = points - (low / 2 + high / 2)
    scaled: npt.NDArray[np.float32] = (moved / extent if extent > 0 else moved).astype("<f4")
    return scaled


def _facts(corpus: Corpus, plane: Plane) -> Sequence[Fact]:
    count = f"{len(corpus.texts):,}"
    if len(corpus.texts) < corpus.total:
        count += f" of {corpus.total:,} (a random sample)"
    dtype = getattr(corpus.vectors, "dtype", None)
    facts = [
        Fact("Texts", count),
        Fact("Vectors", f"{corpus.vectors.shape[1]:,} dimensions, {'sparse' if dtype is None else dtype}"),
        Fact("Projection", plane.description),
    ]
    if corpus.fingerprint:
        title = f"{corpus.fingerprint}: of the model and the options that made the vectors"
        facts.append(Fact("Fingerprint", corpus.fingerprint[:12], title))
    return facts


def _fact(fact: Fact) -> str:
    title = "" if fact.title is None else f' title="{_escaped(fact.title)}"'
    return f"<div><dt>{_escaped(fact.name)}</dt><dd{title}>{_escaped(fact.value)}</dd></div>"


def _escaped(text: str) -> str:
    """For HTML; what UTF-8 and HTML have no place for, such as half a surrogate pair of a file's name, as a sign."""
    sound = re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]", "\ufffd", text)
    return html.escape(sound)


def _policy(style: str, script: str) -> str:
    """A content security policy: nothing but these two may run, and nothing may be fetched."""
    sources = {"style-src": style, "script-src": script}
    hashes = [f"{name} 'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'" for name, text in sources.items()]
    return "; ".join(["default-src 'none'", *hashes, "img-src data:", "base-uri 'none'", "form-action 'none'"])


def _source(name: str) -> str:
    """A file beside this module, with line feeds, which the hashes of the policy are of."""
    return files("trivec.map").joinpath(name).read_text(encoding="utf-8")


def _packed(value: Any) -> bytes:  # noqa: ANN401 - JSON
    """JSON in ASCII, which can hold half a surrogate pair as well, compressed by zlib."""
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode("ascii"), 9)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
