"""mGTE checkpoints in their published layout (model_type "new", remote code) as transformers' own `gte` model.

The layout is the one of configuration.py and modeling.py of Alibaba-NLP/new-impl (mGTE, arXiv:2407.19669), which
gte-multilingual-base, gte-base-en-v1.5 and gte-large-en-v1.5 are stored in. A value of their config.json that asks for
something that the native model does not compute is refused; keys that NewModel never reads, or that choose between
kernels for the same numbers (unpad_inputs, use_memory_efficient_attention, pack_qkv, auto_map), are left out.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers.activations import ACT2FN

from trivec._errors import ModelFormatError
from trivec_export._checkpoint.published.common import (
    check_parameters,
    is_number,
    native_shapes,
    read_config,
    refuse,
)
from trivec_export._checkpoint.weights import read_weights

_DEFAULTS: dict[str, Any] = {
    "vocab_size": 30528,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 2048,
    "type_vocab_size": 1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "classifier_dropout": None,
    "pad_token_id": None,
    "tie_word_embeddings": True,
}
"""Keys that both configs have, with what NewConfig takes where config.json leaves one out: GteConfig takes others."""
_GENERAL = ("bos_token_id", "eos_token_id", "id2label", "label2id", "num_labels", "dtype")
"""Keys of every config of transformers, copied where they are."""
_ROPE_THETA = 10000.0  # NewConfig's, where GteConfig has 160000
_ONLY = {"position_embedding_type": "rope", "layer_norm_type": "layer_norm"}
"""Keys with one value that the native model computes, which is NewConfig's default too."""
_CLASSES = {
    "NewModel": "GteModel",
    "NewForMaskedLM": "GteForMaskedLM",
    "NewForTokenClassification": "GteForTokenClassification",
    "NewForSequenceClassification": "GteForSequenceClassification",
}
_QKV = tuple(f"self_attn.{x}_proj" for x in "qkv")
_LAYER = {
    "attention.qkv_proj": _QKV,
    "attention.q_proj": _QKV[:1],
    "attention.k_proj": _QKV[1:2],
    "attention.v_proj": _QKV[2:],
    "attention.o_proj": ("self_attn.o_proj",),
    "attn_ln": ("post_attention_layernorm",),
    "mlp.up_gate_proj": ("mlp.up_proj", "mlp.gate_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
    "mlp_ln": ("post_mlp_layernorm",),
}
"""Modules of a layer, and the native ones that its rows are cut into, in this order."""
_BUFFERS = re.compile(r"embeddings\.(position_ids|rotary_emb\..*)")
"""What a checkpoint may hold besides parameters: both models compute it."""


class TokenHead(NamedTuple):
    """A linear layer from a token's state to its weight: relu(state @ weight.T + bias)."""

    weight: npt.NDArray[np.float32]  # (1, H)
    bias: npt.NDArray[np.float32]  # (1,)


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of the published layout, which transformers knows no class for."""
    return config.get("model_type") == "new"


# ---------------------------------------------------------------------------------------------------------- config
def native_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the native model that computes the same.

    Args:
        config: config.json with model_type "new".

    Returns:
        config.json with model_type "gte": every key of GteConfig that the numbers depend on is in it.

    Raises:
        ModelFormatError: it is of another model type, or asks for something that the native model does not compute.
    """
    if not is_original(config):
        raise ModelFormatError(f'model_type is {config.get("model_type")!r}, expected "new".')
    _check_values(config)
    native: dict[str, Any] = {"model_type": "gte"}
    native |= {key: config.get(key, default) for key, default in _DEFAULTS.items()}
    native |= {key: config[key] for key in _GENERAL if config.get(key) is not None}
    if config.get("torch_dtype") is not None:
        native.setdefault("dtype", config["torch_dtype"])
    native["architectures"] = _architectures(config)
    _check_sizes(native)
    _check_activation(native, native["architectures"])
    native["rope_parameters"] = _rope(config, native["hidden_size"] // native["num_attention_heads"])
    return native


def _refuse(key: str, value: object, expected: str) -> NoReturn:
    refuse("gte", key, value, expected)


def _check_values(config: Mapping[str, Any]) -> None:
    """Raise where a key asks for other arithmetic."""
    for key, value in _ONLY.items():
        if config.get(key, value) != value:
            _refuse(key, config[key], f'"{value}"')
    if config.get("logn_attention_scale"):
        _refuse("logn_attention_scale", config["logn_attention_scale"], "false")
    if config.get("quantization_config") is not None:
        _refuse("quantization_config", config["quantization_config"], "null: weights in float32, float16 or bfloat16")


def _check_sizes(native: Mapping[str, Any]) -> None:
    """Raise where a size is no number, or a head is not of an even number of values: RoPE turns pairs."""
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    for key, least in (*((size, 1) for size in sizes), ("max_position_embeddings", 1), ("type_vocab_size", 0)):
        if type(native[key]) is not int or native[key] < least:
            _refuse(key, native[key], f"an integer from {least}")
    pad = native["pad_token_id"]
    if pad is not None and (type(pad) is not int or not -native["vocab_size"] <= pad < native["vocab_size"]):
        _refuse("pad_token_id", pad, "null or a row of the vocabulary")
    if native["hidden_size"] % (2 * native["num_attention_heads"]):
        heads = native["num_attention_heads"]
        _refuse("hidden_size", native["hidden_size"], f"a multiple of {2 * heads}: {heads} heads of even size")


def _check_activation(native: Mapping[str, Any], classes: Collection[str]) -> None:
    """Raise where there is no such activation, or not in a class: the native language model head has gelu alone."""
    activation = native["hidden_act"]
    if not isinstance(activation, str) or activation not in ACT2FN:
        _refuse("hidden_act", activation, "the name of an activation of transformers")
    if "GteForMaskedLM" in classes and activation != "gelu":
        _refuse("hidden_act", activation, '"gelu", for there is a language model head')


def _architectures(config: Mapping[str, Any]) -> list[str]:
    names = config.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name in _CLASSES for name in names):
        _refuse("architectures", names, f"a list of {', '.join(_CLASSES)}")
    return [_CLASSES[name] for name in names]


def _rope(config: Mapping[str, Any], size: int) -> dict[str, Any]:
    """rope_parameters for heads of `size`.

    NewModel's NTK scaling by a factor s (https://kexue.fm/archives/9706, formula 6) has the inverse frequencies
    (theta s)^(-2i/size) / s^(2/size). It fills its cache for s * max_position_embeddings when it is made, so that these
    hold for every text, however short. Native "linear" scaling divides the frequencies of a theta by a factor: the
    same numbers, to the last bit.
    """
    theta, scaling = config.get("rope_theta", _ROPE_THETA), config.get("rope_scaling")
    if scaling is None and isinstance(config.get("rope_parameters"), Mapping):
        # Transformers 5 saves a NewConfig with both values under this key, and does not find them there again.
        scaling = config["rope_parameters"]
        theta = scaling.get("rope_theta", theta)
    if not is_number(theta) or theta <= 0:
        _refuse("rope_theta", theta, "a positive number")
    if scaling is None or scaling == {"rope_type": "default", "rope_theta": theta}:
        return {"rope_type": "default", "rope_theta": theta}
    kinds = [scaling[key] for key in ("type", "rope_type") if key in scaling] if isinstance(scaling, Mapping) else []
    if not kinds or any(kind != "ntk" for kind in kinds) or scaling.get("mixed_b") is not None:
        _refuse("rope_scaling", scaling, 'null or {"type": "ntk", "factor": ...} without mixed_b')
    factor = scaling.get("factor")
    if not is_number(factor) or factor < 1:
        _refuse("rope_scaling", scaling, "a factor from 1")
    if factor == 1:
        return {"rope_type": "default", "rope_theta": theta}
    return {"rope_type": "linear", "rope_theta": theta * factor, "factor": factor ** (2 / size)}


# --------------------------------------------------------------------------------------------------------- weights
def native_state(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights under the names that the native model has in memory, which from_pretrained takes as they are.

    Args:
        state: parameters by their published names, with or without the prefix `new.`.
        config: config.json with model_type "new".

    Returns:
        All parameters of the native model with the head that the checkpoint has: GteForTokenClassification,
        GteForMaskedLM, GteForSequenceClassification, or GteModel where it has none. Dtypes are as they were;
        packed ones are views of `state`.

    Raises:
        ModelFormatError: parameters are missing, left over or of another shape; the message has all names.
    """
    native = native_config(config)
    found: dict[str, Tensor] = {}
    left_over = []
    for name, tensor in state.items():
        bare = name.removeprefix("new.")
        if _BUFFERS.fullmatch(bare) or (bare.startswith("embeddings.token_type") and not native["type_vocab_size"]):
            continue
        pieces = _pieces(bare, tensor)
        if not pieces or pieces.keys() & found.keys():
            left_over.append(name)
        found |= pieces
    expected = _shapes(found, native)
    words = "gte.embeddings.word_embeddings.weight"
    if native["tie_word_embeddings"] and "lm_head.decoder.weight" in expected and words in found:
        found["lm_head.decoder.weight"] = found[words]
    check_parameters(found, expected, left_over)
    return found


def _pieces(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A published parameter, without the prefix, as native ones; none where NewModel has no such parameter."""
    module, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        return {}
    match = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", module)
    if match is None:
        return {f"{_outside(module)}.{kind}": tensor}
    targets = _LAYER.get(match[2], ())
    if not targets:
        return {}
    parts = torch.tensor_split(tensor, len(targets))
    return {f"gte.layers.{match[1]}.{target}.{kind}": part for target, part in zip(targets, parts, strict=True)}


def _outside(module: str) -> str:
    """The native name of a module outside the layers."""
    if module.startswith(("embeddings.", "pooler.")):
        return f"gte.{module}"
    return "lm_head.layer_norm" if module == "lm_head.norm" else module


def _shapes(found: dict[str, Tensor], native: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Shapes of the parameters of the native model that these weights belong to; drops their prefix for a bare one."""
    pooler = any(name.startswith("gte.pooler.") for name in found)
    options: dict[str, bool] = {}
    kept = dict(native)
    if "classifier.weight" in found:
        name = "GteForSequenceClassification" if pooler else "GteForTokenClassification"
        kept = _with_labels(kept, found["classifier.weight"])
    elif any(key.startswith("lm_head.") for key in found):
        name = "GteForMaskedLM"
        _check_activation(native, [name])
    else:
        name, options = "GteModel", {"add_pooling_layer": pooler}
        for key in list(found):
            found[key.removeprefix("gte.")] = found.pop(key)
    return native_shapes("gte", ("GteConfig", name), kept, **options)


def _with_labels(native: Mapping[str, Any], weight: Tensor) -> dict[str, Any]:
    """The config with the number of labels, which transformers takes for two where config.json has none."""
    named = native.get("id2label") is not None or native.get("num_labels") is not None
    return dict(native) if named else {**native, "num_labels": len(weight)}


# --------------------------------------------------------------------------------------------------------- folders
def native(
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    task: str | None = None,  # noqa: ARG001 - no adapters
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Weights and config.json to the native ones.

    Raises:
        ModelFormatError: the native model does not compute this, or the weights are not those of the config.
    """
    found = native_config(config)
    state = native_state(weights, config)
    if "classifier.weight" in state:
        found = _with_labels(found, state["classifier.weight"])
    if found["tie_word_embeddings"]:
        state.pop("lm_head.decoder.weight", None)
    return found, state


def token_weights_head(folder: Path) -> TokenHead | None:
    """The head that gives each token its sparse weight, of a gte checkpoint in either layout.

    Returns:
        The head, or None where the checkpoint is no gte, has no classifier, or one on top of a pooler: that is a
        reranker's.

    Raises:
        ModelNotFoundError: there is no config.json, or no weights.
        ModelFormatError: the head gives more than one number, or is for another hidden size.
    """
    config = read_config(folder)
    if not is_original(config) and config.get("model_type") != "gte":
        return None
    head = read_weights(folder, re.compile(r"classifier\..*|(\w+\.)?pooler\.dense\.bias").fullmatch)
    if not head or any("pooler" in name for name in head):
        return None
    size = config.get("hidden_size", _DEFAULTS["hidden_size"])  # GteConfig has the same default
    shapes = {name.removeprefix("classifier."): tuple(x.shape) for name, x in head.items()}
    if shapes != {"weight": (1, size), "bias": (1,)}:
        raise ModelFormatError(
            f"{folder}: the classifier has the shapes {shapes}, expected weight (1, {size}) and bias (1,): one weight "
            "for a token (num_labels = 1) from hidden_size values. This head does not give sparse weights; for dense "
            "vectors alone, add: --family dense"
        )
    weight, bias = (head[f"classifier.{name}"].float().numpy() for name in ("weight", "bias"))
    return TokenHead(weight, bias)
