"""Weights of a checkpoint, as tensors by their names."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trivec._errors import ModelFormatError, ModelNotFoundError


def read_weights(folder: Path, wanted: Callable[[str], object] = bool) -> dict[str, Tensor]:
    """The weights of a folder whose names are wanted: safetensors first, else pickles, in one piece or in shards.

    Raises:
        ModelNotFoundError: the folder has no weights, or lacks a shard.
        ModelFormatError: a file is damaged, or holds more than tensors.
    """
    found: dict[str, Tensor] = {}
    for path in _files(folder):
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt") as file:
                    found |= {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # noqa: SIM118
            except SafetensorError as error:
                raise ModelFormatError(f"{path} is no safetensors file: {error}. Fetch it again.") from error
        else:
            found |= {name: tensor for name, tensor in read_pickle(path).items() if wanted(name)}
    return found


def _files(folder: Path) -> list[Path]:
    """The files of the weights: safetensors first, else pickles, in one piece or in shards."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            shards = _shards(index)
            missing = [shard for shard in shards if not (folder / shard).is_file()]
            if missing:
                raise ModelNotFoundError(f"{folder} lacks {', '.join(missing)}, which {index.name} names: fetch it.")
            return [folder / shard for shard in shards]
    raise ModelNotFoundError(f"{folder} has no model.safetensors and no pytorch_model.bin: check the path")


def _shards(index: Path) -> list[str]:
    """Names of the files that an index gives; none of them leads out of the folder."""
    try:
        shards = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFormatError(f"{index} is no index of weights: it has no weight_map of names.") from error
    if not all(isinstance(shard, str) and Path(shard).name == shard for shard in shards):
        raise ModelFormatError(f"{index} names {shards}, expected files of the same folder.")
    return shards


def read_pickle(path: Path) -> dict[str, Tensor]:
    """A state dict that holds nothing but tensors; a pickle that could run code is not opened.

    Raises:
        ModelNotFoundError: there is no such file.
        ModelFormatError: it is damaged, or holds anything else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"there is no {path}: check the path") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelFormatError(
            f"{path} holds more than tensors, or is damaged. A pickle can run any code when it is opened, so it was "
            "not. Convert it to safetensors, or ask its author."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelFormatError(f"{path} is no state dict, expected tensors by their names.")
    return state
