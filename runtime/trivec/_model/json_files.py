"""JSON files of a checkpoint, checked."""

import json
from pathlib import PurePosixPath
from typing import Any

from trivec._errors import ModelFormatError
from trivec._model.source import Source


def join(folder: str, name: str) -> str:
    """The path of a file in a module's folder, which must not leave the checkpoint."""
    path = PurePosixPath(folder) / name
    if path.is_absolute() or ".." in path.parts:
        raise ModelFormatError(f"the module path {folder!r} leaves the model folder.")
    return path.as_posix()


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
    if not isinstance(value, list) or not all(isinstance(m, dict) and {"type", "path"} <= m.keys() for m in value):
        raise ModelFormatError(f"{source.name}: {path} holds no list of modules.")
    return value


def parse_file(source: Source, path: str) -> Any:  # noqa: ANN401 - a JSON value
    """What a JSON file holds, or None where it does not exist."""
    file = source.file(path)
    if file is None:
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFormatError(f"{source.name}: {path} is not valid JSON ({error}).") from error
