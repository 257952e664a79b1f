"""Jina v3 checkpoints in their published layout (remote code) as transformers' own `jina_embeddings_v3` model.

The layout is the one of configuration_xlm_roberta.py, modeling_xlm_roberta.py and modeling_lora.py of
jinaai/xlm-roberta-flash-implementation (jina-embeddings-v3, arXiv:2409.10173): config.json calls itself xlm-roberta,
with rotary positions, and each linear layer and embedding table holds a low-rank adapter for every task, stacked:

    linear     W (N, K), A (T, R, K), B (T, N, R):  W + B[t] A[t] alpha / R
    embedding  W (V, D), A (T, V, R), B (T, R, D):  W + A[t] B[t] alpha / R

A converted checkpoint is the model of one task, with its adapters merged into the weights, in float32.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from trivec._errors import InputError, ModelFormatError
from trivec_export._checkpoint.published.common import (
    Names,
    check_only,
    check_parameters,
    check_sizes,
    native_shapes,
    positive,
    refuse,
    renamed,
)

MODEL = "jina_embeddings_v3"
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
"""Keys that both configs have, with what XLMRobertaFlashConfig takes where config.json leaves one out."""
_ONLY: dict[str, tuple[Any, Any]] = {"position_embedding_type": ("rotary", "absolute")}
_THETA = 10000.0  # rotary_emb_base of XLMRobertaFlashConfig, where the native one has 20000
_ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")
_NAMES = Names(
    prefix="roberta.",
    outside={
        "embeddings.word_embeddings": "embeddings.word_embeddings",
        "embeddings.token_type_embeddings": "embeddings.token_type_embeddings",
        "emb_ln": "embeddings.LayerNorm",
        "pooler.dense": "pooler.dense",
    },
    layer={
        "mixer.Wqkv": tuple(f"self_attn.{x}_proj" for x in "qkv"),
        "mixer.out_proj": ("self_attn.o_proj",),
        "mlp.fc1": ("mlp.fc1",),
        "mlp.fc2": ("mlp.fc2",),
        "norm1": ("post_attention_layernorm",),
        "norm2": ("post_mlp_layernorm",),
    },
    ignored=re.compile(r".*rotary_emb\..*|embeddings\.position_ids|lm_head\..*"),
)
_PARAMETRIZED = re.compile(r"(.+)\.parametrizations\.weight\.(original|0\.lora_A|0\.lora_B)")


class Lora(NamedTuple):
    """What config.json says of the adapters."""

    tasks: tuple[str, ...]
    """In the order in which they are stacked."""
    rank: int
    scale: float
    """alpha / rank."""


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of the published layout: transformers' own XLM-RoBERTa knows neither key."""
    rotary = config.get("position_embedding_type") == "rotary"
    return config.get("model_type") == "xlm-roberta" and (rotary or "lora_adaptations" in config)


def read_lora(config: Mapping[str, Any]) -> Lora | None:
    """What a published config.json says of its adapters; None where it has none.

    Raises:
        ModelFormatError: a value is of another type or out of range.
    """
    tasks = config.get("lora_adaptations")
    if not tasks:
        return None
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks) or len(set(tasks)) < len(tasks):
        refuse(MODEL, "lora_adaptations", tasks, "a list of different names")
    rank = config.get("lora_rank", 4)
    if type(rank) is not int or rank < 1:
        refuse(MODEL, "lora_rank", rank, "an integer from 1")
    return Lora(tuple(tasks), rank, positive(MODEL, "lora_alpha", config.get("lora_alpha", 1)) / rank)


# ---------------------------------------------------------------------------------------------------------- config
def native_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the native model that computes the same, without adapters.

    Raises:
        ModelFormatError: it asks for something that the native model does not compute.
    """
    check_only(MODEL, config, _ONLY)
    native: dict[str, Any] = {"model_type": MODEL, "architectures": ["JinaEmbeddingsV3Model"]}
    native |= {key: config.get(key, default) for key, default in _DEFAULTS.items()}
    check_sizes(MODEL, native, {})
    if native["hidden_act"] not in _ACTIVATIONS:
        refuse(MODEL, "hidden_act", native["hidden_act"], f"one of {', '.join(_ACTIVATIONS)}")
    theta = positive(MODEL, "rotary_emb_base", config.get("rotary_emb_base", _THETA))
    native["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    return native


# --------------------------------------------------------------------------------------------------------- weights
def native_state(state: Mapping[str, Tensor], config: Mapping[str, Any], task: str | None) -> dict[str, Tensor]:
    """The weights of one task, adapters merged, under the names that the native model has in memory.

    Args:
        state: parameters by their published names, with or without the prefix `roberta.`.
        config: config.json of the published layout.
        task: one of its lora_adaptations; None: without adapters.

    Raises:
        InputError: the config has no such task.
        ModelFormatError: parameters are missing, left over or of another shape; the message has all names.
    """
    found, left_over = renamed(merged(state, read_lora(config), task), _NAMES)
    pooler = any(name.startswith("pooler.") for name in found)
    names = ("JinaEmbeddingsV3Config", "JinaEmbeddingsV3Model")
    expected = native_shapes(MODEL, names, native_config(config), add_pooling_layer=pooler)
    check_parameters(found, expected, left_over)
    return found


def merged(state: Mapping[str, Tensor], lora: Lora | None, task: str | None) -> dict[str, Tensor]:
    """Plain weights under their published names: a task's adapters added in float32, those of the others left out.

    Raises:
        InputError: there is no such task.
        ModelFormatError: the weights have no adapters though the config names some, or the other way round, or they
            do not fit.
    """
    if task is not None and (lora is None or task not in lora.tasks):
        known = ", ".join(lora.tasks) if lora else "none"
        raise InputError(f"task {task!r} is none of this checkpoint's adapters: {known}.")
    plain: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        match = _PARAMETRIZED.fullmatch(name)
        if match is None:
            plain[name] = tensor
        else:
            parts.setdefault(match[1], {})[match[2].removeprefix("0.lora_")] = tensor
    if lora is not None and not parts:
        raise ModelFormatError(
            f"config.json names the adapters {', '.join(lora.tasks)} (lora_adaptations), but the weights hold none: no "
            "name ends in parametrizations.weight.0.lora_A. Fetch the checkpoint again."
        )
    if lora is None and parts:
        raise ModelFormatError(
            f"the weights hold adapters, such as {min(parts)}.parametrizations.weight.0.lora_A, but config.json has no "
            "lora_adaptations that name them. Fetch the checkpoint again."
        )
    _check_parts(parts, lora)
    for module, part in parts.items():
        weight = part["original"]
        if task is not None and lora is not None:
            t = lora.tasks.index(task)
            a, b = part["A"][t].float(), part["B"][t].float()
            weight = weight.float() + (a @ b if _is_table(module) else b @ a) * lora.scale
        plain[f"{module}.weight"] = weight
    return plain


def _is_table(module: str) -> bool:
    """Whether a module is an embedding table, by its name."""
    return module.endswith("_embeddings")


def _check_parts(parts: Mapping[str, Mapping[str, Tensor]], lora: Lora | None) -> None:
    """Raise with the names of all adapters that do not fit their weights, the rank and the number of tasks."""
    wrong = []
    for module, part in parts.items():
        missing = {"original", "A", "B"} - part.keys()
        if missing:
            wrong.append(f"{module} lacks {', '.join(sorted(missing))}")
            continue
        if lora is None or part["original"].dim() != 2:
            wrong.append(f"{module} has a weight {tuple(part['original'].shape)}")
            continue
        rows, columns = part["original"].shape
        count = len(lora.tasks)
        a, b = (count, lora.rank, columns), (count, rows, lora.rank)
        if _is_table(module):
            a, b = (count, rows, lora.rank), (count, lora.rank, columns)
        for kind, shape in (("A", a), ("B", b)):
            if tuple(part[kind].shape) != shape:
                wrong.append(f"{module} has lora_{kind} {tuple(part[kind].shape)}, expected {shape}")
    if wrong:
        tasks = "" if lora is None else f" {len(lora.tasks)} tasks (lora_adaptations), rank {lora.rank} (lora_rank)"
        raise ModelFormatError(f"the adapters are not those that config.json describes,{tasks}: {'; '.join(wrong)}.")


# --------------------------------------------------------------------------------------------------------- folders
def native(
    weights: Mapping[str, Tensor], config: Mapping[str, Any], task: str | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Weights, with the adapters of a task merged, and config.json to the native ones.

    Raises:
        InputError: there is no such task.
        ModelFormatError: the native model does not compute this, or the weights are not those of the config.
    """
    return native_config(config), native_state(weights, config, task)
