"""What the converters of published layouts share: config.json, the names of parameters, the native model's shapes.

Some checkpoints were published for remote code, with names of their own for what transformers has a class for since.
A converter gives the native config.json and the native names; here is what all of them need for that.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeGuard

import numpy as np
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from torch import Tensor

from trivec._errors import ModelFormatError, ModelNotFoundError

SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


# ---------------------------------------------------------------------------------------------------------- config
def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint.

    Raises:
        ModelNotFoundError: there is none.
        ModelFormatError: it is no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelNotFoundError(f"{folder} has no config.json, expected a transformers checkpoint: check the path")
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelFormatError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelFormatError(f"{path} holds {type(config).__name__}, expected an object.")
    return config


def refuse(model: str, key: str, value: object, expected: str) -> NoReturn:
    """Raise ModelFormatError for a value of config.json that asks for something that the native model cannot do."""
    raise ModelFormatError(
        f"config.json has {key} = {json.dumps(value, default=repr)}, expected {expected}. transformers' own {model} "
        "model does not compute what this checkpoint asks for, and trivec runs no remote code unless asked."
    )


def check_only(model: str, config: Mapping[str, Any], only: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise where a key has another value than the one that the native model computes.

    Args:
        model: the native model's type, for the message.
        config: config.json.
        only: by key, the value, and what the published config takes where the key is left out.
    """
    for key, (value, default) in only.items():
        given = config.get(key, default)
        if given != value and (given or value):  # false, null and 0 all say no
            refuse(model, key, given, json.dumps(value))
    if config.get("quantization_config") is not None:
        refuse(model, "quantization_config", config["quantization_config"], "null: weights in float32 or half")


def check_sizes(model: str, native: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Raise where a size is no number, or a head is not of an even number of values: RoPE turns pairs.

    Args:
        model: the native model's type, for the message.
        native: the native config.
        names: the published names of native keys, where they differ.
    """
    least = {**dict.fromkeys(SIZES, 1), "max_position_embeddings": 1, "type_vocab_size": 1}
    for key, from_ in least.items():
        if type(native[key]) is not int or native[key] < from_:
            refuse(model, names.get(key, key), native[key], f"an integer from {from_}")
    hidden, heads = native["hidden_size"], native["num_attention_heads"]
    if hidden % (2 * heads):
        refuse(model, names.get("hidden_size", "hidden_size"), hidden, f"a multiple of {2 * heads}, for {heads} heads")


def positive(model: str, key: str, value: object) -> float:
    """A number above zero.

    Raises:
        ModelFormatError: it is something else.
    """
    if not is_number(value) or value <= 0:
        refuse(model, key, value, "a positive number")
    return value


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a JSON value is a finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


# --------------------------------------------------------------------------------------------------------- weights
class Names(NamedTuple):
    """How a published layout calls the parameters of an encoder."""

    prefix: str
    """Before every name, or not."""
    outside: Mapping[str, str]
    """Modules outside the layers, and the native ones."""
    layer: Mapping[str, tuple[str, ...]]
    """Modules of a layer, and the native ones that their rows are cut into, in this order."""
    ignored: re.Pattern[str]
    """Names without the prefix of what the vectors do not depend on: buffers, heads of other tasks."""


def renamed(state: Mapping[str, Tensor], names: Names) -> tuple[dict[str, Tensor], list[str]]:
    """Parameters under their native names, and the published names of those that have none.

    Packed parameters become views of their rows.
    """
    found: dict[str, Tensor] = {}
    left_over = []
    for name, tensor in state.items():
        bare = name.removeprefix(names.prefix)
        if names.ignored.fullmatch(bare):
            continue
        module, _, kind = bare.rpartition(".")
        inside = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", module)
        if inside is None:
            targets = [names.outside[module]] if module in names.outside else []
        else:
            targets = [f"layers.{inside[1]}.{target}" for target in names.layer.get(inside[2], ())]
        new = [f"{target}.{kind}" for target in targets]
        if not new or kind not in ("weight", "bias") or not found.keys().isdisjoint(new):
            left_over.append(name)
            continue
        found |= zip(new, torch.tensor_split(tensor, len(new)), strict=True)
    return found, left_over


def native_class(name: str, model: str) -> Callable[..., Any]:
    """A class of transformers.

    Raises:
        ModelFormatError: this version has none of that name.
    """
    found: Callable[..., Any] | None = getattr(transformers, name, None)
    if found is None:
        raise ModelFormatError(
            f"transformers {transformers.__version__} has no {name}, expected a version that knows {model}. "
            "Type: pip install -U transformers"
        )
    return found


def native_shapes(model: str, names: tuple[str, str], native: Mapping[str, Any], **options: bool) -> dict[str, Any]:
    """Shapes of the parameters of a native model.

    Args:
        model: its type, for messages.
        names: its config's class and its own.
        native: the native config.
        options: what the model's class takes besides the config.

    Raises:
        ModelFormatError: transformers does not know the model, or refuses the config.
    """
    kept = {key: value for key, value in native.items() if key not in ("model_type", "architectures", "dtype")}
    try:
        config = native_class(names[0], model)(**kept)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ModelFormatError(f"config.json has a value that transformers refuses: {error}") from error
    with torch.device("meta"):  # no memory, no random numbers
        made = native_class(names[1], model)(config, **options)
    return {key: value.shape for key, value in made.state_dict().items()}


def check_parameters(
    found: Mapping[str, Tensor], expected: Mapping[str, torch.Size], left_over: Sequence[str] = ()
) -> None:
    """Raise ModelFormatError with every name that is too many, missing, or of another shape."""
    wrong = {
        "left over": [*left_over, *sorted(found.keys() - expected.keys())],
        "missing": sorted(expected.keys() - found.keys()),
        "of another shape": [
            f"{name} {tuple(found[name].shape)}, expected {tuple(shape)}"
            for name, shape in expected.items()
            if name in found and found[name].shape != shape
        ],
    }
    if any(wrong.values()):
        listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in wrong.items() if names)
        raise ModelFormatError(
            f"the weights are not those that config.json describes, by their native names: {listed}. "
            "Check that config.json belongs to these weights."
        )


# --------------------------------------------------------------------------------------------------------- folders
def write_native(out: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write config.json and model.safetensors: AutoModel.from_pretrained(out) then loads them."""
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: x.contiguous() for name, x in state.items()}, out / "model.safetensors", {"format": "pt"})
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
