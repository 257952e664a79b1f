"""JSON of a model folder, which somebody else may have written: read within bounds, and checked."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from trivec._errors import ModelFormatError, TrivecError
from trivec._model.source import Source

MOST_BYTES = 8 << 20
"""Of a JSON file that describes a model; the largest that are known have 2 MB. Objects take 27 times their text."""
_DEEPEST = 64  # levels; the deepest that are known have 8
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
_MOST_MODULES = 256


def leaves(path: str) -> bool:
    """Whether a path, on any system, may lead out of the folder that it is relative to, or can be no path at all."""
    pure = PurePosixPath(path)
    return pure.is_absolute() or ".." in pure.parts or not {"\\", ":", "\0"}.isdisjoint(path)


def join(folder: str, name: str) -> str:
    """The path of a file in a module's folder, which must not leave the checkpoint."""
    path = (PurePosixPath(folder) / name).as_posix()
    if leaves(path):
        raise ModelFormatError(f"the module path {folder!r} leaves the model folder ({name!r} in it).")
    return path


def read_object(source: Source, path: str) -> dict[str, Any]:
    """A JSON object, or an empty one where the file does not exist."""
    value = parse_file(source, path)
    if not isinstance(value, dict | None):
        raise ModelFormatError(f"{source.name}: {path} holds no JSON object.")
    return value or {}


def read_list(source: Source, path: str) -> list[dict[str, Any]]:
    """A list of modules, or an empty one where the file does not exist."""
    value = parse_file(source, path)
    if value is None:
        return []
    if not isinstance(value, list) or not all(_is_module(entry) for entry in value):
        raise ModelFormatError(f"{source.name}: {path} holds no list of modules.")
    if len(value) > _MOST_MODULES:
        raise ModelFormatError(f"{source.name}: {path} lists {len(value)} modules; expected up to {_MOST_MODULES}.")
    return value


def _is_module(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("type"), str) and isinstance(entry.get("path"), str)


def parse_file(source: Source, path: str) -> Any:  # noqa: ANN401 - a JSON value
    """What a JSON file holds, or None where it does not exist."""
    file = source.file(path)
    return None if file is None else parse(read_bytes(file), f"{source.name}: {path}")


def read_bytes(path: Path) -> bytes:
    """A file that describes a model.

    Raises:
        ModelFormatError: it is too large for that, or cannot be read.
    """
    with opened(path) as stream:
        data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ModelFormatError(
            f"{path} has over {MOST_BYTES >> 20} MB, and a description of a model has a few KB. It is another file, or "
            "damaged."
        )
    return data


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file of a model, open to be read; ModelFormatError where the system does not let us."""
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror or error}.") from error


@contextlib.contextmanager
def understood(source: Source) -> Iterator[None]:
    """Raise ModelFormatError for whatever reading the files of others raises: no list of what they hold is whole."""
    try:
        yield
    except (TrivecError, MemoryError):
        raise
    except Exception as error:
        raise ModelFormatError(
            f"{source.name}: its JSON files hold something of another kind than expected there "
            f"({type(error).__name__}: {error}). Fetch the whole model again, or export it: trivec export"
        ) from error


def parse(data: str | bytes, where: str, advice: str = "") -> Any:  # noqa: ANN401 - a JSON value
    """The value of a JSON text.

    Args:
        data: the text, in UTF-8.
        where: the file, for messages.
        advice: what to do, for messages.

    Raises:
        ModelFormatError: it is no JSON, nested too deep, says two things under one key, or has a string that is no
            Unicode.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_object)
        _check_depth(value)
        if _HALF_PAIR.search(raw):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise ModelFormatError(f"{where} is not valid JSON ({reason}).{advice}") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; which of two values under one key counts would be the reader's choice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if found[key] != value:
                raise ValueError(f"{key!r} comes twice, with different values")
    return found


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        level = [part for item in level if isinstance(item, dict | list) for part in _parts(item)]
        if not level:
            return
    raise RecursionError


def _parts(item: dict[str, Any] | list[Any]) -> Any:  # noqa: ANN401 - JSON values
    return item.values() if isinstance(item, dict) else item
