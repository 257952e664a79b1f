"""The verification texts: written for this package, in many scripts, and never used to calibrate; and pairs of them."""

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

_SENTENCE_END = re.compile(r"(?<=[.!?؟।])\s+|(?<=[。！？])|\n+")


class Text(NamedTuple):
    """A text and what it stands for: a script ("greek"), a language group ("english") or a form ("code")."""

    kind: str
    text: str


class Pair(NamedTuple):
    """A pair of texts, and the kind of both."""

    kind: str
    text: tuple[str, str]


def pairs_of(texts: Sequence[Text]) -> list[Pair]:
    """The first sentence of each text with the rest of it, and with that of the next text of its kind; each once."""
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for text in texts:
        by_kind.setdefault(text.kind, []).append(_first_and_rest(text.text))
    found: dict[Pair, None] = {}
    for kind, parts in by_kind.items():
        for (first, rest), (_, other) in zip(parts, [*parts[1:], parts[0]], strict=True):
            found |= {Pair(kind, (first, rest)): None, Pair(kind, (first, other)): None}
    return list(found)


def _first_and_rest(text: str) -> tuple[str, str]:
    """A text in two: behind its first sentence, else behind half of its words, or of its letters where it has one."""
    first, *rest = _SENTENCE_END.split(text, maxsplit=1)
    if rest and rest[0]:
        return first, rest[0]
    words = text.split()
    if len(words) > 1:
        return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
    return text[: (len(text) + 1) // 2], text[(len(text) + 1) // 2 :]


def verification_texts() -> list[Text]:
    """The shipped verification texts, and the empty one."""
    return [*shipped("trivec._gate", "verification.jsonl"), Text("empty", "")]


def shipped(package: str, name: str) -> list[Text]:
    """The texts of a JSON-lines file in a package's `data` folder."""
    lines = files(package).joinpath("data", name).read_text(encoding="utf-8").split("\n")
    return [Text(**json.loads(line)) for line in lines if line]
