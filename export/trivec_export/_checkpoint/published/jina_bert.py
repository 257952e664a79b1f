"""Jina's embeddings of the second generation (JinaBert: ALiBi and gated layers), which transformers has no class for.

The published layout is that of modeling_bert.py of jinaai/jina-bert-implementation (jina-embeddings-v2-base-en and its
kin, arXiv:2310.19923), stored under the model type "bert": transformers' own BERT would take positions that are not
there. The model here computes the same, over transformers' attention interface, so that it is traced as any other.
jina-embeddings-v2-base-code is of another layout (norms of queries and keys) and is refused by its weights' names.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, BertConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trivec_export._checkpoint.published.common import check_only, check_parameters, check_sizes, refuse

MODEL = "trivec_jina_bert"
_ACTIVATIONS = {"geglu": "gelu", "reglu": "relu"}
_ONLY: dict[str, tuple[Any, Any]] = {"is_decoder": (False, False), "add_cross_attention": (False, False)}
_COPIED = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id"),
)
_IGNORED = re.compile(r"cls\..*|pooler\..*|embeddings\.(position_ids|token_type_ids)")


class JinaBertConfig(BertConfig):  # type: ignore[misc]  # untyped
    """BERT's config, and `gate`, the activation of the gated half."""

    model_type = MODEL


class _Embeddings(nn.Module):
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, S) to (B, S, H); all tokens are of type 0."""
        out: Tensor = self.LayerNorm(self.word_embeddings(input_ids) + self.token_type_embeddings.weight[0])
        return out


class _SelfAttention(nn.Module):
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.config = config
        self.heads = config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(3))

    def forward(self, states: Tensor, mask: Any, bias: Tensor) -> Tensor:  # noqa: ANN401 - the implementation's own
        """(B, S, H) and the bias of distances (1, N, S, S) to (B, S, H)."""
        q, k, v = (
            layer(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, N, S, D)
            for layer in (self.query, self.key, self.value)
        )
        scale = q.shape[-1] ** -0.5
        attend = ALL_ATTENTION_FUNCTIONS.get(self.config._attn_implementation)
        if attend is not None:
            context, _ = attend(self, q, k, v, mask, scaling=scale, position_bias=bias)  # (B, S, N, D)
            return context.flatten(2)  # type: ignore[no-any-return]
        scores = q @ k.transpose(-1, -2) * scale + bias  # (B, N, S, S)
        scores = scores if mask is None else scores + mask
        out: Tensor = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)  # (B, S, N * D)
        return out


class _Output(nn.Module):
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class _Attention(nn.Module):
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.self, self.output = _SelfAttention(config), _Output(config)

    def forward(self, states: Tensor, mask: Any, bias: Tensor) -> Tensor:  # noqa: ANN401
        """(B, S, H) to (B, S, H)."""
        out: Tensor = self.output.LayerNorm(self.output.dense(self.self(states, mask, bias)) + states)
        return out


class _Gated(nn.Module):
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.gated_layers = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.act = ACT2FN[config.gate]
        self.wo = nn.Linear(config.intermediate_size, config.hidden_size)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: Tensor) -> Tensor:
        """(B, S, H) to (B, S, H): the first half of the wide layer is the gate."""
        gate, up = self.gated_layers(states).chunk(2, dim=-1)  # (B, S, I) each
        out: Tensor = self.layernorm(self.wo(self.act(gate) * up) + states)
        return out


class _Layer(nn.Module):
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.attention, self.mlp = _Attention(config), _Gated(config)

    def forward(self, states: Tensor, mask: Any, bias: Tensor) -> Tensor:  # noqa: ANN401
        """(B, S, H) to (B, S, H)."""
        out: Tensor = self.mlp(self.attention(states, mask, bias))
        return out


class _Encoder(nn.Module):
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))


class JinaBertModel(PreTrainedModel):  # type: ignore[misc]  # untyped
    """Token ids to hidden states."""

    config_class = JinaBertConfig
    base_model_prefix = "bert"
    _supports_attention_backend = True

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__(config)
        self.embeddings, self.encoder = _Embeddings(config), _Encoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The table of tokens."""
        return self.embeddings.word_embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: object) -> BaseModelOutput:
        """(B, S) int64 to (B, S, H)."""
        states = self.embeddings(input_ids)  # (B, S, H)
        mask = create_bidirectional_mask(self.config, states, attention_mask)
        place = torch.arange(input_ids.shape[1], device=states.device)
        distance = (place[None, :] - place[:, None]).abs().to(states.dtype)  # (S, S)
        slopes = torch.tensor(alibi_slopes(self.config.num_attention_heads), device=states.device)  # (N,)
        bias = -slopes[None, :, None, None] * distance  # (1, N, S, S)
        for layer in self.encoder.layer:
            states = layer(states, mask, bias)
        return BaseModelOutput(last_hidden_state=states)


AutoConfig.register(MODEL, JinaBertConfig, exist_ok=True)
AutoModel.register(JinaBertConfig, JinaBertModel, exist_ok=True)


def alibi_slopes(heads: int) -> list[float]:
    """The slope of each head (ALiBi, arXiv:2108.12409, section 3), for counts that are no power of 2 as its authors do.

    2 ** (-8 i / n) for i from 1 to n; of the next larger power of 2 every other one for the heads that are left.
    """
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    return slopes + alibi_slopes(2 * power)[0::2][: heads - power] if power < heads else slopes


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of the published layout."""
    return config.get("model_type") == "bert" and config.get("position_embedding_type") == "alibi"


def native(
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    task: str | None = None,  # noqa: ARG001 - no adapters
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Weights and config.json to those of the model above.

    Raises:
        ModelFormatError: it does not compute this, or the weights are not those of the config.
    """
    check_only(MODEL, config, _ONLY)
    kind = config.get("feed_forward_type", "original")
    if kind not in _ACTIVATIONS:
        refuse(MODEL, "feed_forward_type", kind, " or ".join(_ACTIVATIONS))
    made = {"model_type": MODEL, "architectures": ["JinaBertModel"], "gate": _ACTIVATIONS[kind]}
    made |= {key: config[key] if key in config else getattr(BertConfig(), key) for key in _COPIED}
    check_sizes(MODEL, made, {})
    bare = {name.removeprefix("bert."): tensor for name, tensor in weights.items()}
    found = {name: tensor for name, tensor in bare.items() if not _IGNORED.fullmatch(name)}
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in JinaBertModel(JinaBertConfig(**made)).state_dict().items()}
    check_parameters(found, shapes)
    return made, found
