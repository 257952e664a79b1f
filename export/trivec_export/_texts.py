"""The texts that calibrate and verify: written for this package, in many scripts, none of them in both sets."""

import json
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from trivec._errors import InputError


class Text(NamedTuple):
    """A text and what it stands for: a script ("greek"), a language group ("english") or a form ("code")."""

    kind: str
    text: str


def calibration_texts(path: Path | None = None) -> list[Text]:
    """The shipped calibration texts, and those of a file; none that is a verification text as well.

    Raises:
        InputError: the file cannot be read, holds no text, or a line of it is no text (its number is named).
    """
    texts = _shipped("calibration.jsonl")
    if path is not None:
        held_out = {text.text for text in verification_texts()}
        texts += [text for text in _read(path) if text.text not in held_out]
    return texts


def verification_texts() -> list[Text]:
    """The shipped verification texts, and the empty one."""
    return [*_shipped("verification.jsonl"), Text("empty", "")]


def sample(texts: list[Text], most: int | None) -> list[Text]:
    """At most so many texts, spread evenly so that every kind keeps its share."""
    if most is None or most >= len(texts):
        return texts
    return [texts[i * len(texts) // most] for i in range(most)]


def _shipped(name: str) -> list[Text]:
    lines = files("trivec_export").joinpath("texts", name).read_text(encoding="utf-8").split("\n")
    return [Text(**json.loads(line)) for line in lines if line]


def _read(path: Path) -> list[Text]:
    """A user's file: a text a line, or JSON objects with "text"."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the calibration file {path} cannot be read: {error}") from error
    texts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        texts.append(Text("user", _parse(path, number, line) if path.suffix == ".jsonl" else line.strip()))
    if not texts:
        raise InputError(
            f"the calibration file {path} holds no text. Expected a text a line, or JSON lines with 'text'."
        )
    return texts


def _parse(path: Path, number: int, line: str) -> str:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"{path}, line {number}: not valid JSON ({error}).") from error
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise InputError(
            f"{path}, line {number}: expected a string or an object with a string 'text', got {line[:60]!r}."
        )
    return text
