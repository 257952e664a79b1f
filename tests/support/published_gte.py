"""mGTE as published: a reference written from its modeling.py, and checkpoints with random weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers.activations import ACT2FN

State = dict[str, Tensor]


Config = dict[str, Any]


# config.json of gte-multilingual-base, gte-base-en-v1.5 and gte-large-en-v1.5 as published, without auto_map.
_PUBLISHED: Config = {
    "architectures": ["NewModel"],
    "attention_probs_dropout_prob": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "max_position_embeddings": 8192,
    "model_type": "new",
    "pack_qkv": True,
    "position_embedding_type": "rope",
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
}


_BASE_SIZE: Config = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072}


PUBLISHED: dict[str, Config] = {
    "gte-multilingual-base": {
        **_PUBLISHED,
        **_BASE_SIZE,
        "architectures": ["NewModel", "NewForTokenClassification"],
        "classifier_dropout": 0.0,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "logn_attention_clip1": False,
        "logn_attention_scale": False,
        "pad_token_id": 1,
        "rope_scaling": {"factor": 8.0, "type": "ntk"},
        "rope_theta": 20000,
        "torch_dtype": "float16",
        "transformers_version": "4.39.1",
        "type_vocab_size": 1,
        "vocab_size": 250048,
    },
    "gte-base-en-v1.5": {
        **_PUBLISHED,
        **_BASE_SIZE,
        "pad_token_id": 0,
        "rope_scaling": {"factor": 2.0, "type": "ntk"},
        "rope_theta": 500000,
        "torch_dtype": "float32",
        "transformers_version": "4.39.1",
        "type_vocab_size": 0,
        "vocab_size": 30528,
    },
    "gte-large-en-v1.5": {
        **_PUBLISHED,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "intermediate_size": 4096,
        "pad_token_id": 0,
        "rope_scaling": {"factor": 2.0, "type": "ntk"},
        "rope_theta": 160000,
        "torch_dtype": "float32",
        "transformers_version": "4.39.1",
        "type_vocab_size": 2,
        "vocab_size": 30528,
    },
}


_TINY: Config = {
    "hidden_size": 48,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "intermediate_size": 72,
    "max_position_embeddings": 32,
    "vocab_size": 97,
}


_LEFT_OUT = ("rope_theta", "rope_scaling", "type_vocab_size", "layer_norm_eps", "layer_norm_type", "hidden_act")


_DEFAULT = ("position_embedding_type", "pack_qkv", "architectures", "pad_token_id", "initializer_range")


MODELS: dict[str, Config] = {
    **{name: {**config, **_TINY} for name, config in PUBLISHED.items()},
    "plain": {**PUBLISHED["gte-large-en-v1.5"], **_TINY, "rope_scaling": None, "layer_norm_eps": 0.3},
    "unpacked": {**PUBLISHED["gte-base-en-v1.5"], **_TINY, "pack_qkv": False, "hidden_act": "silu"},
    "defaults": {
        key: value
        for key, value in {**PUBLISHED["gte-large-en-v1.5"], **_TINY}.items()
        if key not in (*_LEFT_OUT, *_DEFAULT)
    },
}


MULTILINGUAL = MODELS["gte-multilingual-base"]


@dataclass(frozen=True)
class Published:
    """The forward of NewModel and its heads: Alibaba-NLP/new-impl, modeling.py, eager attention, no dropout."""

    state: State
    """By the published names, without `new.`"""
    config: Config

    def get(self, key: str) -> Any:
        """A value of the config, or NewConfig's default."""
        defaults = {
            "hidden_act": "gelu",
            "rope_theta": 10000.0,
            "rope_scaling": None,
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-12,
            "pack_qkv": True,
        }
        return self.config[key] if key in self.config else defaults[key]

    def linear(self, name: str, x: Tensor) -> Tensor:
        out: Tensor = F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))
        return out

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        out: Tensor = F.layer_norm(x, weight.shape, weight, bias, self.get("layer_norm_eps"))
        return out

    def frequencies(self, length: int) -> Tensor:
        """RotaryEmbedding and NTKScalingRotaryEmbedding as to what is in their cache for a text of this length."""
        size = self.get("hidden_size") // self.get("num_attention_heads")
        scaling, longest = self.get("rope_scaling"), self.get("max_position_embeddings")
        theta, exponents = float(self.get("rope_theta")), torch.arange(0, size, 2).float() / size  # (D / 2,)
        factor = 1 if scaling is None else scaling["factor"]
        cached = max(length, longest * factor)  # __init__ fills it for the scaled length at once
        if scaling is None or cached <= longest:
            return torch.pow(theta, exponents).reciprocal()
        scaled: Tensor = torch.pow(theta * factor, exponents).reciprocal() / factor ** (2 / size)
        return scaled

    def rotate(self, x: Tensor) -> Tensor:
        """x (B, S, N, D) turned by its position."""
        length = x.shape[1]
        angles = torch.outer(torch.arange(length, dtype=torch.float32), self.frequencies(length))  # (S, D / 2)
        cos, sin = (torch.cat([f(angles)] * 2, -1)[:, None] for f in (torch.cos, torch.sin))  # (S, 1, D)
        left, right = x.chunk(2, -1)
        return x * cos + torch.cat([-right, left], -1) * sin

    def attention(self, name: str, x: Tensor, bias: Tensor) -> Tensor:
        heads = self.get("num_attention_heads")
        if self.get("pack_qkv"):
            packed = self.linear(f"{name}.qkv_proj", x).chunk(3, -1)
        else:
            packed = tuple(self.linear(f"{name}.{part}_proj", x) for part in "qkv")
        q, k, v = (t.reshape(*t.shape[:2], heads, -1) for t in packed)  # (B, S, N, D)
        q, k, v = (t.transpose(1, 2) for t in (self.rotate(q), self.rotate(k), v))  # (B, N, S, D)
        scores = q @ k.mT / q.shape[-1] ** 0.5 + bias  # (B, N, S, S)
        return self.linear(f"{name}.o_proj", (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def mlp(self, name: str, x: Tensor) -> Tensor:
        up, gate = self.linear(f"{name}.up_gate_proj", x).chunk(2, -1)
        return self.linear(f"{name}.down_proj", ACT2FN[self.get("hidden_act")](gate) * up)

    def states(self, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Tensor:
        """last_hidden_state (B, S, H) of ids (B, S)."""
        x = self.state["embeddings.word_embeddings.weight"][ids]
        if self.get("type_vocab_size"):
            x = x + self.state["embeddings.token_type_embeddings.weight"][ids * 0 if types is None else types]
        x = self.norm("embeddings.LayerNorm", x)
        bias = (1.0 - mask[:, None, None].float()) * torch.finfo(torch.float32).min  # (B, 1, 1, S)
        for i in range(self.get("num_hidden_layers")):
            layer = f"encoder.layer.{i}"
            x = self.norm(f"{layer}.attn_ln", x + self.attention(f"{layer}.attention", x, bias))
            x = self.norm(f"{layer}.mlp_ln", x + self.mlp(f"{layer}.mlp", x))
        return x

    def token_logits(self, states: Tensor) -> Tensor:
        return self.linear("classifier", states)

    def language_logits(self, states: Tensor) -> Tensor:
        x = ACT2FN[self.get("hidden_act")](self.linear("lm_head.dense", states))
        return self.linear("lm_head.decoder", self.norm("lm_head.norm", x))


def draw(config: Config, *heads: str) -> State:
    """Random weights by their published names, large enough that every part of the model matters."""
    generator = torch.Generator().manual_seed(0)
    size, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    state: State = {}

    def normal(name: str, *shape: int, scale: float = 0.25, mean: float = 0.0) -> None:
        state[name] = torch.randn(shape, generator=generator) * scale + mean

    def linear(name: str, rows: int, columns: int, bias: bool = True) -> None:
        normal(f"{name}.weight", rows, columns)
        if bias:
            normal(f"{name}.bias", rows)

    def norm(name: str) -> None:
        normal(f"{name}.weight", size, mean=1.0)
        normal(f"{name}.bias", size)

    normal("embeddings.word_embeddings.weight", vocab, size, scale=1.0)
    if config.get("type_vocab_size", 1):
        normal("embeddings.token_type_embeddings.weight", config.get("type_vocab_size", 1), size, scale=1.0)
    norm("embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        if config.get("pack_qkv", True):
            linear(f"{layer}.attention.qkv_proj", 3 * size, size)
        else:
            for part in "qkv":
                linear(f"{layer}.attention.{part}_proj", size, size)
        linear(f"{layer}.attention.o_proj", size, size)
        linear(f"{layer}.mlp.up_gate_proj", 2 * inner, size, bias=False)
        linear(f"{layer}.mlp.down_proj", size, inner)
        norm(f"{layer}.attn_ln")
        norm(f"{layer}.mlp_ln")
    if "pooler" in heads:
        linear("pooler.dense", size, size)
    if "classifier" in heads:
        linear("classifier", len(config.get("id2label", "0")), size)
    if "lm_head" in heads:
        linear("lm_head.dense", size, size)
        norm("lm_head.norm")
        linear("lm_head.decoder", vocab, size)
    return state


def write(folder: Path, config: Config, state: State, prefix: str = "new.") -> Path:
    """A checkpoint in the published layout: the base model's parameters have the prefix, heads have none."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(prefixed(state, prefix), folder / "model.safetensors", {"format": "pt"})
    return folder


def prefixed(state: State, prefix: str = "new.") -> State:
    return {k if k.startswith(("classifier", "lm_head")) else prefix + k: v for k, v in state.items()}


def batch(rows: int, length: int, vocab: int = 97) -> tuple[Tensor, Tensor]:
    """Ids (B, S) and their mask: every row but the first ends in padding."""
    ids = torch.randint(2, vocab, (rows, length), generator=torch.Generator().manual_seed(length))
    mask = (torch.arange(length) < torch.linspace(length, 1, rows).round()[:, None]).long()
    return ids * mask + (1 - mask), mask


def native(auto: Any, folder: Path, may_be_left: tuple[str, ...] = ()) -> Any:
    """The native model of a converted folder, which has all its weights and no other."""
    model, info = auto.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    assert all(key.startswith(may_be_left) for key in info["unexpected_keys"]) if may_be_left else True
    assert bool(info["unexpected_keys"]) == bool(may_be_left)
    return model.eval()


def close(got: Tensor, expected: Tensor, mask: Tensor, atol: float = 1e-5) -> None:
    """The same numbers wherever there is a token, and large ones."""
    kept = mask.bool()
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    assert expected[kept].abs().max() > 1
    np.testing.assert_allclose(got[kept].numpy(), expected[kept].numpy(), rtol=0, atol=atol)


# 32 positions are known; a cache is made for 32 * factor (64 or 256) of them.
SIZES = [(1, 1), (1, 2), (3, 16), (2, 33), (1, 71), (1, 300)]
