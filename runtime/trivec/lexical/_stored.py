"""The JSON file of a fitted BM25: the very one that pymilvus.model writes and reads."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from trivec._errors import InputError, ModelFormatError, ModelNotFoundError
from trivec._model.json_files import parse
from trivec.lexical._weights import Parameters, Statistics

VERSION = "v1"
_KEYS = ("version", "corpus_size", "avgdl", "idf_word", "idf_value", "k1", "b", "epsilon")
_AGAIN = "Write it again: bm25.fit(corpus).save(path)"


def write(path: str | Path, known: Statistics, parameters: Parameters) -> None:
    """Write the file; it takes its name when it is complete, so that no reader meets half of one."""
    stored: dict[str, Any] = {
        "version": VERSION,
        "corpus_size": known.corpus_size,
        "avgdl": known.avgdl,
        "idf_word": list(known.terms),
        "idf_value": known.idf.tolist(),
        **parameters._asdict(),
    }
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(stored), encoding="utf-8")
        part.replace(target)
    except BaseException:  # Ctrl-C as well
        part.unlink(missing_ok=True)
        raise


def read(path: str | Path) -> tuple[Statistics, Parameters]:
    """Read and check the file.

    Raises:
        ModelNotFoundError: no such file.
        ModelFormatError: it is no whole file of this form and version; what is wrong is named.
    """
    try:
        is_file = Path(path).is_file()  # a pipe might never end
        stored = parse(Path(path).read_bytes(), str(path), f" {_AGAIN}") if is_file else None
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not is_file:
        raise ModelNotFoundError(f"there is no file {str(path)!r} of BM25 parameters. {_AGAIN}")
    if not isinstance(stored, dict) or (missing := [key for key in _KEYS if key not in stored]):
        lacks = f"lacks {', '.join(missing)}" if isinstance(stored, dict) else "holds no JSON object"
        raise ModelFormatError(f"{path} {lacks}; BM25 parameters are {', '.join(_KEYS)}. {_AGAIN}")
    if stored["version"] != VERSION:
        raise ModelFormatError(
            f"{path} has the version {stored['version']!r}, expected {VERSION!r}. {_AGAIN}, or update trivec."
        )
    try:
        return _statistics(stored), check_parameters(*(stored[key] for key in Parameters._fields))
    except InputError as error:
        raise ModelFormatError(f"{path}: {error} {_AGAIN}") from error


def check_parameters(k1: Any, b: Any, epsilon: Any) -> Parameters:  # noqa: ANN401 - a user's, or a file's
    """The parameters as floats.

    Raises:
        InputError: one of them is no finite number, or out of its range.
    """
    highest = {"k1": math.inf, "b": 1.0, "epsilon": math.inf}
    for (name, most), value in zip(highest.items(), (k1, b, epsilon), strict=True):
        if not _is_number(value) or not 0 <= value <= most or math.isinf(value):
            wanted = "a finite number from 0" if math.isinf(most) else "a number from 0 to 1"
            raise InputError(f"{name} must be {wanted}, got {value!r}.")
    return Parameters(float(k1), float(b), float(epsilon))


def _is_number(value: Any) -> bool:  # noqa: ANN401 - anything
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 1 << 63  # beyond, it may be no float either
    return isinstance(value, float | np.integer | np.floating)


def _statistics(stored: dict[str, Any]) -> Statistics:
    size, avgdl, words, values = (stored[key] for key in _KEYS[1:5])
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InputError(f"corpus_size must be a whole number from 1, got {size!r}.")
    if not _is_number(avgdl) or not 0 < avgdl < math.inf:
        raise InputError(f"avgdl must be a finite number above 0, got {avgdl!r}.")
    if not isinstance(words, list) or not isinstance(values, list) or len(words) != len(values) or not words:
        counts = [len(part) if isinstance(part, list) else type(part).__name__ for part in (words, values)]
        raise InputError(
            f"idf_word and idf_value must be lists of one length above 0, got {counts[0]} and {counts[1]}."
        )
    terms = {word: i for i, word in enumerate(words) if isinstance(word, str)}
    if len(terms) != len(words):
        wrong = next(word for i, word in enumerate(words) if not isinstance(word, str) or terms[word] != i)
        raise InputError(f"idf_word must hold different strings, got {wrong!r}{' twice' * isinstance(wrong, str)}.")
    broken = [i for i, value in enumerate(values) if not _is_number(value) or not math.isfinite(value)]
    if broken:
        raise InputError(f"idf_value must hold finite numbers, got {values[broken[0]]!r} for {words[broken[0]]!r}.")
    return Statistics(size, float(avgdl), terms, np.asarray(values, dtype=np.float64))
