"""A graph of one repository with the tokenizer of another, as one folder."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from trivec._errors import ModelNotFoundError
from trivec._model.find import find
from trivec._model.graph_file import read_weights
from trivec._model.json_files import join
from trivec._model.source import Source
from trivec._system.home import home

_GRAPHS = ("model.onnx", "onnx/model.onnx")
_POOLING = '{"pooling_mode": "mean"}'  # pymilvus.model's rule for them, whatever the model was trained with
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json")


def pair(model: str | os.PathLike[str], tokenizer: str | os.PathLike[str], options: Mapping[str, Any]) -> Path:
    """A folder under `TRIVEC_HOME` with the graph of one and the tokenizer of the other, as hard links where it can.

    Args:
        model: folder or Hub name of the graph.
        tokenizer: folder or Hub name of tokenizer.json and config.json.
        options: of these revision (of the model's repository), cache_dir, cache_folder, token and local_files_only.

    Raises:
        ModelNotFoundError: one of them is not there, or lacks its files.
    """
    reach: dict[str, Any] = {key: options[key] for key in ("token", "local_files_only") if key in options}
    reach["cache_dir"] = options.get("cache_dir", options.get("cache_folder"))
    graphs, words = find(model, revision=options.get("revision"), **reach), find(tokenizer, **reach)
    graph = next((name for name in _GRAPHS if graphs.file(name)), None)
    if graph is None:
        raise ModelNotFoundError(f"{graphs.name} has none of {', '.join(_GRAPHS)}.")
    if words.file("tokenizer.json") is None:
        raise ModelNotFoundError(
            f"{words.name} has no tokenizer.json; trivec reads fast tokenizers only. Name another with tokenizer_name=."
        )
    parts = {name: _there(graphs, name) for name in [graph, *_data(graphs, graph)]}
    beside = [join(str(PurePosixPath(graph).parent), name) for name in read_weights(parts[graph]).locations]
    parts |= {name: _there(graphs, name) for name in beside}
    parts |= {name: path for name in _TOKENIZER if (path := words.file(name)) is not None}
    state = _POOLING + repr(
        [(name, str(path.absolute()), path.stat().st_mtime_ns) for name, path in sorted(parts.items())]
    )
    folder = home() / "linked" / hashlib.sha256(state.encode()).hexdigest()[:16]
    if not folder.exists():
        _assemble(folder, parts)
    return folder


def _data(source: Source, graph: str) -> list[str]:
    """The files of the graph's weights."""
    near = PurePosixPath(graph)
    return [name for name in source.names() if name != graph and PurePosixPath(name).match(f"{near}*")]


def _there(source: Source, name: str) -> Path:
    path = source.file(name)
    if path is None:
        raise ModelNotFoundError(f"{source.name} has no {name}.")
    return path


def _assemble(folder: Path, parts: Mapping[str, Path]) -> None:
    """Make the folder whole, or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, path in parts.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path.resolve(), made / name)
            except OSError:  # another disk
                shutil.copyfile(path, made / name)
        (made / "1_Pooling").mkdir()
        (made / "1_Pooling" / "config.json").write_text(_POOLING, encoding="utf-8")
        made.rename(folder)
    except OSError:
        if not folder.exists():  # another process was faster
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
