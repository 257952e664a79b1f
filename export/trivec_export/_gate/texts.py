"""The texts that calibrate: those that ship with the exporter, none of which verifies, and a user's own."""

from pathlib import Path

from trivec._errors import InputError
from trivec._gate.texts import Text, shipped, verification_texts
from trivec._system.text_files import open_texts


def calibration_texts(path: Path | None = None) -> list[Text]:
    """The shipped calibration texts, and those of a .txt, .jsonl, .json, .csv or .tsv file (column "text").

    A text of the file that is a verification text as well is left out: it would prove nothing there.

    Raises:
        InputError: the file cannot be read, holds no text, or a line of it is no text (its number is named).
    """
    texts = shipped("trivec_export._gate", "calibration.jsonl")
    if path is None:
        return texts
    held_out = {text.text for text in verification_texts()}
    own = [Text("user", text) for text in open_texts(str(path), "text").read() if text.strip()]
    if not own:
        raise InputError(
            f"the calibration file {path} holds no text. Expected a text a line, or JSON lines with 'text'."
        )
    return texts + [text for text in own if text.text not in held_out]


def sample(texts: list[Text], most: int | None) -> list[Text]:
    """At most so many texts, spread evenly so that every kind keeps its share."""
    if most is None or most >= len(texts):
        return texts
    return [texts[i * len(texts) // most] for i in range(most)]
