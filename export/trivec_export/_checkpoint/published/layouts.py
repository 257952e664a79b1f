"""The published layouts that are turned into transformers' own: one row each, and what reads them all."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trivec._errors import InputError, ModelFormatError
from trivec_export._checkpoint.published import gte, jina, jina_bert, nomic
from trivec_export._checkpoint.published.common import read_config, write_native
from trivec_export._checkpoint.weights import read_weights

Config = Mapping[str, Any]
Weights = Mapping[str, Tensor]


class Published(NamedTuple):
    """A layout that a checkpoint was published in, for remote code."""

    is_original: Callable[[Config], bool]
    """Whether a config.json is of it."""
    native: Callable[[Weights, Config, str | None], tuple[dict[str, Any], dict[str, Tensor]]]
    """Weights, config.json and the task whose adapter is merged (None: none) to what transformers' own class reads.

    Raises ModelFormatError where the native model does not compute this, or the weights are not those of the config."""


LAYOUTS = (
    Published(gte.is_original, gte.native),
    Published(nomic.is_original, nomic.native),
    Published(jina.is_original, jina.native),
    Published(jina_bert.is_original, jina_bert.native),
)


def is_published(config: Config) -> bool:
    """Whether a checkpoint with this config.json has to be converted before transformers can load it."""
    return any(layout.is_original(config) for layout in LAYOUTS)


def convert(folder: Path, out: Path, task: str | None = None) -> None:
    """Write config.json and model.safetensors of the native layout: AutoModel.from_pretrained(out) then loads it.

    Args:
        folder: config.json of a published layout, and weights that hold nothing but tensors.
        out: another folder, made where it is not there.
        task: whose adapters are merged; None: none.

    Raises:
        InputError: both are one folder, or there is no such task.
        ModelNotFoundError: there is no config.json, or no weights.
        ModelFormatError: the native model does not compute this, or the weights are not those of the config.
    """
    if out.resolve() == folder.resolve():
        raise InputError(f"{out} is the folder of the checkpoint itself, expected another one to write to.")
    config = read_config(folder)
    layout = next((layout for layout in LAYOUTS if layout.is_original(config)), None)
    if layout is None:
        raise ModelFormatError(f"{folder} is in none of the published layouts that are known; nothing to convert.")
    try:
        with torch.no_grad():
            native, state = layout.native(read_weights(folder), config, task)
    except ModelFormatError as error:
        raise ModelFormatError(f"{folder}: {error}") from error
    write_native(out, native, state)
