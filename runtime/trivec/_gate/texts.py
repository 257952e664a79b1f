"""The verification texts: written for this package, in many scripts, and never used to calibrate."""

import json
from importlib.resources import files
from typing import NamedTuple


class Text(NamedTuple):
    """A text and what it stands for: a script ("greek"), a language group ("english") or a form ("code")."""

    kind: str
    text: str


def verification_texts() -> list[Text]:
    """The shipped verification texts, and the empty one."""
    return [*shipped("trivec._gate", "verification.jsonl"), Text("empty", "")]


def shipped(package: str, name: str) -> list[Text]:
    """The texts of a JSON-lines file in a package's `data` folder."""
    lines = files(package).joinpath("data", name).read_text(encoding="utf-8").split("\n")
    return [Text(**json.loads(line)) for line in lines if line]
