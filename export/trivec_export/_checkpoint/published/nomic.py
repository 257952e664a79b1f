"""Nomic checkpoints in their published layout (remote code) as transformers' own `nomic_bert` model.

The layout is the one of configuration_hf_nomic_bert.py and modeling_hf_nomic_bert.py of nomic-ai/nomic-bert-2048 (Nomic
Embed, arXiv:2402.01613), which nomic-embed-text-v1 and v1.5 are stored in. Its config.json has the model type of
transformers' own class but GPT-2's keys (n_embd, n_layer, ...), which that class does not read: it would take its
defaults for all of them, whatever the checkpoint says. A value that asks for something that the native model does not
compute is refused: biases, RMS norms, other activations, experts (nomic-embed-text-v2-moe).
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

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

_MODEL = "nomic_bert"
_KEYS = {
    "vocab_size": ("vocab_size", 50257),
    "hidden_size": ("n_embd", 768),
    "num_hidden_layers": ("n_layer", 12),
    "num_attention_heads": ("n_head", 12),
    "max_position_embeddings": ("n_positions", 1024),
    "layer_norm_eps": ("layer_norm_epsilon", 1e-5),
    "type_vocab_size": ("type_vocab_size", 2),
    "initializer_range": ("initializer_range", 0.02),
    "pad_token_id": ("pad_token_id", 0),
}
"""Native keys, by which key the published config has them, and what it takes where it leaves one out: GPT2Config's."""
_ONLY: dict[str, tuple[Any, Any]] = {
    "activation_function": ("swiglu", "gelu_new"),
    "rotary_emb_fraction": (1.0, 0.0),
    "rotary_emb_interleaved": (False, False),
    "rotary_emb_scale_base": (None, None),
    "prenorm": (False, False),
    "parallel_block": (False, False),
    "causal": (False, False),
    "use_rms_norm": (False, False),
    "qkv_proj_bias": (False, True),
    "mlp_fc1_bias": (False, True),
    "mlp_fc2_bias": (False, True),
    "scale_attn_weights": (True, True),
    "scale_attn_by_inverse_layer_idx": (False, False),
    "num_experts": (None, None),
    "moe_every_n_layers": (None, None),
}
"""Keys with one value that the native model computes, and the published config's default."""
_THETA = 10000.0  # of the published config, where the native one has 1000
_TRAINED = 2048  # max_trained_positions, likewise
_MULTIPLE = 256  # the published MLP rounds its width up to a multiple
_NAMES = Names(
    prefix="bert.",
    outside={
        "embeddings.word_embeddings": "embeddings.word_embeddings",
        "embeddings.token_type_embeddings": "embeddings.token_type_embeddings",
        "emb_ln": "embeddings.LayerNorm",
    },
    layer={
        "attn.Wqkv": tuple(f"self_attn.{x}_proj" for x in "qkv"),
        "attn.out_proj": ("self_attn.o_proj",),
        "mlp.fc11": ("mlp.up_proj",),
        "mlp.fc12": ("mlp.gate_proj",),
        "mlp.fc2": ("mlp.down_proj",),
        "norm1": ("post_attention_layernorm",),
        "norm2": ("post_mlp_layernorm",),
    },
    ignored=re.compile(r".*rotary_emb\..*|embeddings\.position_ids|cls\..*|pooler\..*"),
)


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of the published layout."""
    return config.get("model_type") == _MODEL and not config.keys().isdisjoint(("n_embd", "n_layer", "n_head"))


def native_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the native model that computes the same.

    Beyond max_trained_positions the published code changes the rotary angles with the length of the longest text of a
    batch (rotary_scaling_factor, dynamic NTK), so that a vector depends on its neighbours: such a model is converted
    for texts of up to that length, which the factor does not touch.

    Args:
        config: config.json with model_type "nomic_bert" and GPT-2's keys.

    Raises:
        ModelFormatError: it asks for something that the native model does not compute.
    """
    check_only(_MODEL, config, _ONLY)
    native: dict[str, Any] = {"model_type": _MODEL, "architectures": ["NomicBertModel"], "hidden_act": "silu"}
    native |= {key: config.get(name, default) for key, (name, default) in _KEYS.items()}
    inner = config.get("n_inner")
    native["intermediate_size"] = 4 * native["hidden_size"] if inner is None else inner
    check_sizes(_MODEL, native, {key: name for key, (name, _) in _KEYS.items()} | {"intermediate_size": "n_inner"})
    for key, multiple in (("intermediate_size", _MULTIPLE), ("vocab_size", config.get("pad_vocab_size_multiple", 1))):
        if type(multiple) is not int or multiple < 1:
            refuse(_MODEL, "pad_vocab_size_multiple", multiple, "an integer from 1")
        native[key] = -(-native[key] // multiple) * multiple
    if config.get("rotary_scaling_factor"):
        positive(_MODEL, "rotary_scaling_factor", config["rotary_scaling_factor"])
        trained = config.get("max_trained_positions", _TRAINED)
        if type(trained) is not int or trained < 1:
            refuse(_MODEL, "max_trained_positions", trained, "an integer from 1")
        native["max_position_embeddings"] = min(native["max_position_embeddings"], trained)
    theta = positive(_MODEL, "rotary_emb_base", config.get("rotary_emb_base", _THETA))
    native["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    return native


def native_state(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of the encoder under the names that the native model has in memory.

    Args:
        state: parameters by their published names, with or without the prefix `bert.`.
        config: config.json of the published layout.

    Raises:
        ModelFormatError: parameters are missing, left over or of another shape; the message has all names.
    """
    found, left_over = renamed(state, _NAMES)
    expected = native_shapes(_MODEL, ("NomicBertConfig", "NomicBertModel"), native_config(config))
    check_parameters(found, expected, left_over)
    return found


def native(
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    task: str | None = None,  # noqa: ARG001 - no adapters
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Weights and config.json to the native ones.

    Raises:
        ModelFormatError: the native model does not compute this, or the weights are not those of the config.
    """
    return native_config(config), native_state(weights, config)
