"""LoRA adapters as PEFT stores them, merged into a loaded model: adapter_config.json and adapter_model.safetensors.

As `peft.tuners.lora.layer` computes it (LoRA, arXiv:2106.09685), with s = alpha / R, or alpha / sqrt(R) for use_rslora:

    linear     W (N, K), lora_A (R, K), lora_B (N, R):                     W + s B A
    embedding  W (V, D), lora_embedding_A (R, V), lora_embedding_B (D, R): W + s (B A)^T

PEFT itself is not needed. What else it can store (DoRA, biases, ranks by module, ...) is refused by its key.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from trivec._errors import ModelFormatError, ModelNotFoundError
from trivec._model.source import Folder
from trivec_export._checkpoint.fetch import Fetched, fetch
from trivec_export._checkpoint.published.common import is_number
from trivec_export._checkpoint.weights import read_pickle

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
_NAME = re.compile(r"(.+)\.(lora_[AB]\.weight|lora_embedding_[AB])")
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "init_lora_weights": (True, False, None, "gaussian"),  # pissa, olora, ... change the weights of the model as well
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "use_qalora": (False, None),
    "use_bdlora": (False, None),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, []),
    "alora_invocation_tokens": (None, []),
    "monteclora_config": (None,),
    "arrow_config": (None,),
    "kasa_config": (None,),
}
"""Keys that change the arithmetic, with the values at which they do not."""


def adapter_folders(folder: Path) -> dict[str, Path]:
    """The adapters below a checkpoint, by the names of their folders, in alphabetical order.

    Raises:
        ModelFormatError: two of them have one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(p for pattern in ("*", "*/*") for p in folder.glob(f"{pattern}/{CONFIG}")):
        if path.parent.name in found:
            raise ModelFormatError(
                f"{folder} has two adapters of the name {path.parent.name!r}: {found[path.parent.name]} and "
                f"{path.parent}. Delete or rename one."
            )
        found[path.parent.name] = path.parent
    return dict(sorted(found.items()))


class AdapterFolder(Folder):
    """A checkpoint's folder; where it is an adapter alone, with the config.json of the model that it was made for."""

    def __init__(self, root: Path, token: str | bool | None = None) -> None:
        super().__init__(root)
        self._token = token

    def file(self, path: str) -> Path | None:
        """The file, or None."""
        found = super().file(path)
        place = (self.root / path).parent
        if found is None and Path(path).name == "config.json" and (place / CONFIG).is_file():
            return Folder(base_of(place, token=self._token).folder).file("config.json")
        return found


def base_of(folder: Path, *, token: str | bool | None = None) -> Fetched:
    """The model that an adapter was made for: what adapter_config.json names, as PEFT finds it.

    Raises:
        ModelFormatError: adapter_config.json names none.
        ModelNotFoundError: it cannot be found.
    """
    name = read_config(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ModelFormatError(
            f"{folder / CONFIG} names no base_model_name_or_path, expected the model it is made for."
        )
    try:
        found = fetch(name, revision=None, token=token, with_code=False)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"{folder} is an adapter for {name!r}, which cannot be found: {error} Fetch that model, or write the path "
            f"of its folder into {CONFIG} (base_model_name_or_path)."
        ) from error
    if found.folder.resolve() == folder.resolve():
        raise ModelFormatError(
            f"{folder / CONFIG} names its own folder as base_model_name_or_path. Put the base weights into a folder of "
            "their own, and name that."
        )
    return found


def merge(model: PreTrainedModel, adapter: Path) -> None:
    """Add an adapter to the weights of a model in float32, in place.

    Args:
        model: the model that the adapter was made for.
        adapter: its folder.

    Raises:
        ModelFormatError: the adapter is damaged, of another kind, or does not fit the model; the message has all names.
    """
    rank, scale = _rank_and_scale(adapter / CONFIG)
    weights = {name: p for name, p in model.named_parameters() if name.endswith(".weight")}
    pairs, wrong = _pairs(_read_weights(adapter), weights, model.base_model_prefix)
    changes: dict[str, Tensor] = {}
    for module, (a, b, is_table) in pairs.items():
        rows, columns = weights[f"{module}.weight"].shape
        shapes = ((rank, rows), (columns, rank)) if is_table else ((rank, columns), (rows, rank))
        if (tuple(a.shape), tuple(b.shape)) != shapes:
            wrong.append(f"{module} has A {tuple(a.shape)} and B {tuple(b.shape)}, expected {shapes[0]}, {shapes[1]}")
            continue
        change = b.float() @ a.float() * scale
        changes[f"{module}.weight"] = change.T if is_table else change
    if wrong or not changes:
        raise ModelFormatError(
            f"{adapter} does not fit {type(model).__name__}: {'; '.join(wrong) or 'it has no weights'}. Check that it "
            "was made for this checkpoint, and that r in adapter_config.json is its rank."
        )
    with torch.no_grad():
        for name, change in changes.items():
            weights[name] += change


def read_config(path: Path) -> dict[str, Any]:
    """An adapter_config.json.

    Raises:
        ModelFormatError: it is no JSON object.
    """
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelFormatError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelFormatError(f"{path} holds {type(config).__name__}, expected an object.")
    return config


def _rank_and_scale(path: Path) -> tuple[int, float]:
    """Rank, and what B A is multiplied by."""
    config = read_config(path)
    for key, allowed in _NEUTRAL.items():
        value = config.get(key, allowed[0] if key != "peft_type" else None)
        if value not in allowed:
            raise ModelFormatError(
                f"{path} has {key} = {json.dumps(value)}, expected {json.dumps(allowed[0])}: trivec merges plain LoRA "
                "adapters alone. Merge this one with PEFT (merge_and_unload), save the model, and export that."
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not is_number(alpha) or alpha <= 0:
        raise ModelFormatError(f"{path} has r = {rank!r} and lora_alpha = {alpha!r}, expected numbers above 0.")
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _read_weights(adapter: Path) -> dict[str, Tensor]:
    path = next((adapter / name for name in _WEIGHTS if (adapter / name).is_file()), None)
    if path is None:
        raise ModelFormatError(f"{adapter} has {CONFIG} but neither {' nor '.join(_WEIGHTS)}: fetch it again.")
    if path.suffix == ".bin":
        return read_pickle(path)
    try:
        found: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ModelFormatError(f"{path} is no safetensors file: {error}. Fetch it again.") from error
    return found


def _pairs(
    state: Mapping[str, Tensor], weights: Mapping[str, Tensor], prefix: str
) -> tuple[dict[str, tuple[Tensor, Tensor, bool]], list[str]]:
    """By module of the model: A, B and whether they are an embedding table's; and what is wrong with the others."""
    parts: dict[str, dict[str, Tensor]] = {}
    wrong = []
    for name, tensor in state.items():
        match = _NAME.fullmatch(name.removeprefix(_PREFIX))
        if match is None:
            wrong.append(f"{name} is no part of a LoRA adapter")
            continue
        parts.setdefault(match[1], {})[match[2].removesuffix(".weight")] = tensor
    pairs: dict[str, tuple[Tensor, Tensor, bool]] = {}
    for name, part in parts.items():
        module = name if f"{name}.weight" in weights else name.removeprefix(f"{prefix}.")
        is_table = "lora_embedding_A" in part
        kinds = ("lora_embedding_A", "lora_embedding_B") if is_table else ("lora_A", "lora_B")
        if f"{module}.weight" not in weights:
            wrong.append(f"there is no {name}")
        elif module in pairs or part.keys() != set(kinds):
            wrong.append(f"{name} has {', '.join(sorted(part))}, expected A and B once")
        else:
            pairs[module] = (part[kinds[0]], part[kinds[1]], is_table)
    return pairs, wrong
