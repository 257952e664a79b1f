"""Forwards for the two architectures without attention interface in transformers: MPNet and DeBERTa-v2 (and v3).

Each writes the attention node of `_attention` with its relative positions as the node's bias.
"""

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    ConvLayer,
    DebertaV2Embeddings,
    DebertaV2Encoder,
    DisentangledSelfAttention,
)
from transformers.models.mpnet.modeling_mpnet import MPNetSelfAttention

from trivec._errors import ModelFormatError
from trivec_export._temporary import Swaps
from trivec_export._trace.attention import Mask, multi_head_attention
from trivec_export._trace.positions import offset_table, offsets


def swap_attention(model: nn.Module, max_length: int | None, swaps: Swaps) -> None:
    """Swap the forwards of every module that needs it, until `swaps` ends."""
    for module in model.modules():
        if isinstance(module, MPNetSelfAttention):
            swaps.set(module, "forward", _mpnet_attention(module))
        elif isinstance(module, DisentangledSelfAttention):
            swaps.set(module, "forward", _deberta_attention(module))
        elif isinstance(module, DebertaV2Encoder):
            _swap_deberta_positions(module, max_length, swaps)
        elif isinstance(module, DebertaV2Embeddings):
            swaps.set(module, "forward", _deberta_embeddings(module))
        elif isinstance(module, ConvLayer):
            swaps.set(module, "forward", _deberta_convolution(module))


# ----------------------------------------------------------------------------------------------------------- MPNet
def _mpnet_attention(module: MPNetSelfAttention) -> Callable[..., tuple[Tensor]]:
    """MPNetSelfAttention.forward with position_bias (1, N, S, S)."""

    def forward(
        hidden_states: Tensor,
        attention_mask: Mask,
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        **kwargs: object,
    ) -> tuple[Tensor]:
        if attention_mask != Mask(None, causal=False, local=False) or output_attentions or kwargs:
            raise ModelFormatError(
                f"MPNet's attention got {attention_mask}, output_attentions={output_attentions} and {sorted(kwargs)}, "
                "expected full attention and nothing else: the exporter has no translation for it."
            )
        context = multi_head_attention(
            module.q(hidden_states),
            module.k(hidden_states),
            module.v(hidden_states),
            heads=module.num_attention_heads,
            scale=module.attention_head_size**-0.5,
            bias=position_bias,
        )  # (B, S, H)
        return (module.o(context),)

    return forward


# ------------------------------------------------------------------------------------------------------ DeBERTa-v2
class _Relative(NamedTuple):
    """Rows of the relative embedding for each pair of positions, computed once for all layers."""

    content_to_position: Tensor  # (S, S) int64
    position_to_content: Tensor  # (S, S) int64


def _swap_deberta_positions(module: DebertaV2Encoder, max_length: int | None, swaps: Swaps) -> None:
    """Replace DeBERTa's logarithmic buckets by tables over the offset, and its mask of ones by nothing."""
    swaps.set(module, "get_attention_mask", lambda attention_mask: attention_mask)
    if not module.relative_attention:
        return
    # Beyond max_relative_positions both directions are clipped to the ends of the embedding: the tables are exact at
    # any length, and need not be longer than the model's positions.
    reach = module.max_relative_positions if max_length is None else min(max_length, module.max_relative_positions)
    span = module.position_buckets if module.position_buckets > 0 else module.max_relative_positions
    bucket = offset_table(module.get_rel_pos(torch.zeros(1, reach + 1, 1)))[0]  # (2 R + 1,) of query - key
    swaps.buffer(module, "content_to_position", (bucket + span).clamp(0, 2 * span - 1))
    swaps.buffer(module, "position_to_content", (span - bucket).clamp(0, 2 * span - 1))

    def get_rel_pos(hidden_states: Tensor, *_: object) -> _Relative:
        length = hidden_states.shape[1]
        index = offsets(length, reach).flatten()  # (S * S,)
        c2p, p2c = (
            table.index_select(0, index).reshape(length, length)  # (S, S)
            for table in (module.content_to_position, module.position_to_content)
        )
        return _Relative(c2p, p2c)

    swaps.set(module, "get_rel_pos", get_rel_pos)


def _deberta_attention(module: DisentangledSelfAttention) -> Callable[..., tuple[Tensor, None]]:
    """DisentangledSelfAttention.forward (arXiv:2006.03654, equation 4): content and positions in one node."""
    parts = 1 + ("c2p" in module.pos_att_type) + ("p2c" in module.pos_att_type)
    scale = (module.attention_head_size * parts) ** -0.5

    def forward(
        hidden_states: Tensor,
        _mask: Tensor,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: _Relative | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        if query_states is not None or output_attentions:
            raise ModelFormatError(
                "DeBERTa's attention got query_states or output_attentions, expected neither: the exporter has no "
                "translation for them."
            )
        query, key = module.query_proj(hidden_states), module.key_proj(hidden_states)  # (B, S, N * D)
        bias = None
        if relative_pos is not None and rel_embeddings is not None and parts > 1:
            bias = _deberta_bias(module, query, key, relative_pos, rel_embeddings) * scale  # (B, N, S, S)
        value = module.value_proj(hidden_states)
        heads = module.num_attention_heads
        return multi_head_attention(query, key, value, heads=heads, scale=scale, bias=bias), None

    return forward


def _deberta_bias(
    module: DisentangledSelfAttention, query: Tensor, key: Tensor, relative: _Relative, embeddings: Tensor
) -> Tensor:
    """Content-to-position plus position-to-content scores, (B, N, S, S); query and key (B, S, N * D)."""
    batch, length, _ = query.shape
    heads = module.num_attention_heads
    embeddings = embeddings[: 2 * module.pos_ebd_size][None]  # (1, 2 P, H)
    shared = module.share_att_key

    def split(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)  # (B or 1, N, S or 2 P, D)

    def pick(rows: Tensor, index: Tensor) -> Tensor:  # (B, N, S, 2 P), (S, S) -> (B, N, S, S)
        return rows.gather(-1, index[None, None].expand(batch, heads, length, length))

    scores: list[Tensor] = []
    if "c2p" in module.pos_att_type:
        position_key = split((module.key_proj if shared else module.pos_key_proj)(embeddings))
        scores.append(pick(split(query) @ position_key.transpose(-1, -2), relative.content_to_position))
    if "p2c" in module.pos_att_type:
        position_query = split((module.query_proj if shared else module.pos_query_proj)(embeddings))
        transposed = pick(split(key) @ position_query.transpose(-1, -2), relative.position_to_content)
        scores.append(transposed.transpose(-1, -2))
    return reduce(torch.add, scores)


def _deberta_embeddings(module: DebertaV2Embeddings) -> Callable[..., Tensor]:
    """DebertaV2Embeddings.forward without the mask of ones that it multiplies with."""
    original = module.forward

    def forward(
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        mask: Tensor | None = None,  # noqa: ARG001  # left out
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        embeddings: Tensor = original(input_ids, token_type_ids, position_ids, None, inputs_embeds)
        return embeddings

    return forward


def _deberta_convolution(module: ConvLayer) -> Callable[..., Tensor]:
    """ConvLayer.forward without the mask of ones: nothing is padded."""
    activation = ACT2FN[module.conv_act]

    def forward(hidden_states: Tensor, residual_states: Tensor, _mask: Tensor) -> Tensor:
        out = module.conv(hidden_states.permute(0, 2, 1)).permute(0, 2, 1)  # (B, S, H)
        normed: Tensor = module.LayerNorm(residual_states + activation(out))
        return normed

    return forward
