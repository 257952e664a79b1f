"""Tiny random checkpoints in the layouts that Nomic and Jina v3 were published in, and torch forwards of them.

The forwards are written from the published code (the modules' names are its own), not from the converters.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers as hf
from safetensors.torch import save_file
from tests.support.architectures import BERT, ROBERTA, Special, _tokenizer
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
Floats = npt.NDArray[np.float32]
LENGTH = 96


@dataclass(frozen=True)
class Layout:
    """What the two published encoders differ in: both are post-norm BERTs with rotary positions (flash-attn's)."""

    mixer: str
    """Name of the attention in a layer."""
    heads: str
    """Key of config.json with the number of heads."""
    epsilon: str
    gated: bool


NOMIC = Layout("attn", "n_head", "layer_norm_epsilon", gated=True)
JINA = Layout("mixer", "num_attention_heads", "layer_norm_eps", gated=False)


@dataclass(frozen=True)
class Published:
    """nomic-bert-2048's NomicBertModel, or xlm-roberta-flash-implementation's XLMRobertaLoRA for one task."""

    layout: Layout
    state: Mapping[str, Tensor]
    """By the published names, without `roberta.`."""
    config: Mapping[str, Any]
    task: int | None = None

    def weight(self, module: str) -> Tensor:
        """LoRAParametrization.lora_forward: X + matmul(*swap((lora_B[task], lora_A[task]))) * alpha / rank."""
        if f"{module}.weight" in self.state:
            return self.state[f"{module}.weight"].float()
        weight = self.state[f"{module}.parametrizations.weight.original"].float()
        if self.task is None:
            return weight
        a, b = (self.state[f"{module}.parametrizations.weight.0.lora_{x}"][self.task].float() for x in "AB")
        pair = (a, b) if "embeddings" in module else (b, a)
        scale: float = self.config["lora_alpha"] / self.config["lora_rank"]
        return weight + torch.matmul(*pair).view(weight.shape) * scale

    def linear(self, module: str, x: Tensor) -> Tensor:
        bias = self.state.get(f"{module}.bias")
        return F.linear(x, self.weight(module), None if bias is None else bias.float())

    def norm(self, module: str, x: Tensor) -> Tensor:
        weight, bias = (self.state[f"{module}.{kind}"].float() for kind in ("weight", "bias"))
        return F.layer_norm(x, weight.shape, weight, bias, self.config[self.layout.epsilon])

    def rotate(self, x: Tensor) -> Tensor:
        """x (B, N, S, D) turned by its position: RotaryEmbedding, not interleaved."""
        size = x.shape[-1]
        inverse = 1.0 / self.config["rotary_emb_base"] ** (torch.arange(0, size, 2).float() / size)
        angles = torch.outer(torch.arange(x.shape[-2]).float(), inverse)  # (S, D / 2)
        cos, sin = (torch.cat([turn(angles)] * 2, -1) for turn in (torch.cos, torch.sin))  # (S, D)
        left, right = x.chunk(2, -1)
        return x * cos + torch.cat([-right, left], -1) * sin

    def attention(self, module: str, x: Tensor) -> Tensor:
        qkv = self.linear(f"{module}.Wqkv", x)  # (B, S, 3 H)
        qkv = qkv.reshape(*x.shape[:2], 3, self.config[self.layout.heads], -1)  # ... (three h d) -> ... three h d
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # (B, N, S, D)
        scores = self.rotate(q) @ self.rotate(k).mT / q.shape[-1] ** 0.5  # (B, N, S, S)
        return self.linear(f"{module}.out_proj", (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def mlp(self, module: str, x: Tensor) -> Tensor:
        if not self.layout.gated:
            return self.linear(f"{module}.fc2", F.gelu(self.linear(f"{module}.fc1", x)))
        up, gate = self.linear(f"{module}.fc11", x), self.linear(f"{module}.fc12", x)
        return self.linear(f"{module}.fc2", up * F.silu(gate))

    def states(self, ids: Tensor) -> Tensor:
        """Ids (B, S) to hidden states (B, S, H)."""
        x = self.weight("embeddings.word_embeddings")[ids] + self.weight("embeddings.token_type_embeddings")[0]
        x = self.norm("emb_ln", x)
        for i in range(self.config.get("n_layer", self.config.get("num_hidden_layers"))):
            layer = f"encoder.layers.{i}"
            x = self.norm(f"{layer}.norm1", self.attention(f"{layer}.{self.layout.mixer}", x) + x)
            x = self.norm(f"{layer}.norm2", self.mlp(f"{layer}.mlp", x) + x)
        return x

    def vectors(self, tokenizer: Any, texts: Sequence[str], length: int = LENGTH) -> Floats:
        """Mean over the tokens of each text, not normalized: (N, H)."""
        rows = []
        with torch.no_grad():
            for text in texts:
                ids = torch.tensor([tokenizer(text, truncation=True, max_length=length)["input_ids"]])  # (1, S)
                rows.append(self.states(ids)[0].mean(0))
        return torch.stack(rows).numpy()


def random_state(shapes: Mapping[str, tuple[int, ...]]) -> State:
    """Large random weights: attention is far from uniform, biases, norms and adapters are not neutral."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=generator)
        if "lora_" in name:
            state[name] = drawn * 0.5
        elif len(shape) == 2:
            state[name] = drawn if "embeddings" in name else drawn * 1.6 * shape[1] ** -0.5
        else:
            state[name] = drawn * 0.1 + float("norm" in name or "emb_ln" in name) * float(name.endswith("weight"))
    return state


def norm_shapes(modules: Sequence[str], size: int) -> dict[str, tuple[int, ...]]:
    return {f"{module}.{kind}": (size,) for module in modules for kind in ("weight", "bias")}


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    special: Special,
    *,
    modules: Sequence[str],
    settings: Mapping[str, Any],
) -> Path:
    """A sentence-transformers folder: `modules` are the types of modules.json, in order; Pooling takes the mean."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(dict(state), folder / "model.safetensors", {"format": "pt"})
    tokenizer(special).save_pretrained(folder)
    listed = []
    for i, kind in enumerate(modules):
        path = "" if i == 0 else f"{i}_{kind.rpartition('.')[2]}"
        listed.append({"idx": i, "name": str(i), "path": path, "type": kind})
    size = config.get("n_embd", config.get("hidden_size"))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": size, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LENGTH, "do_lower_case": False}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def tokenizer(special: Special) -> hf.PreTrainedTokenizerFast:
    """As every tiny checkpoint has it."""
    return _tokenizer(special, 512)


def unit(vectors: Floats) -> Floats:
    return F.normalize(torch.from_numpy(vectors), dim=1).numpy()


__all__ = ["BERT", "JINA", "LENGTH", "NOMIC", "ROBERTA", "Published", "norm_shapes", "random_state", "tokenizer"]
