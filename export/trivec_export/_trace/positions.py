"""Positions as single onnxruntime ops and tables.

Rotary angles and relative-position buckets are computed once, in float32, by the model's own code, and stored as
tables: no Cos, Sin or Log is left in the graph, and a half-precision copy of it keeps their accuracy. Nothing is
recognised by name. A module is replaced only where a probe shows that the single op gives the numbers of the module's
own forward; otherwise it is traced as it stands, which is slower and as right.
"""

import copy
import inspect
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder
from transformers.models.t5.modeling_t5 import T5Attention

from trivec._errors import ModelFormatError
from trivec_export._temporary import Swaps

_PROBE = 5  # positions of a probing batch


# ---------------------------------------------------------------------------------------------------------- rotary
class Tables(NamedTuple):
    """Half of the angles of a rotary embedding: the other half repeats them."""

    cos: Tensor  # (L, D / 2)
    sin: Tensor  # (L, D / 2)


def swap_rotary(
    model: PreTrainedModel, forward: Callable[[Tensor], Tensor], max_length: int | None, swaps: Swaps
) -> None:
    """Give rotary embeddings (arXiv:2104.09864) tables of `max_length` positions and the node RotaryEmbedding.

    Args:
        model: the model.
        forward: token ids (B, S) through the model, to see which positions it counts.
        max_length: positions of a table; None takes the config's max_position_embeddings.
        swaps: undoes everything.

    Raises:
        ModelFormatError: the angles of a position depend on the length of the text, within max_length.
    """
    length = max_length or getattr(model.config, "max_position_embeddings", None)
    modules = [module for module in model.modules() if _is_rotary(module)]
    if not isinstance(length, int) or not modules or not _count_from_zero(modules, forward):
        return
    tables = [{kind: _rotary_tables(module, kind, length) for kind in _layer_kinds(module)} for module in modules]
    files = {type(module).__module__: sys.modules[type(module).__module__] for module in modules}
    rotations = [getattr(file, "apply_rotary_pos_emb", None) for file in files.values()]
    if not all(_rotates_halves(rotate, table) for rotate in rotations for kinds in tables for table in kinds.values()):
        return
    for module, kinds in zip(modules, tables, strict=True):
        for kind, table in kinds.items():
            if table is not None:
                swaps.buffer(module, _table_name(kind, "cos"), table.cos)
                swaps.buffer(module, _table_name(kind, "sin"), table.sin)
        swaps.set(module, "forward", _rotary_forward(module))
    for file in files.values():
        swaps.set(file, "apply_rotary_pos_emb", _rotate)


def _is_rotary(module: nn.Module) -> bool:
    """A module that turns positions into angles with stored inverse frequencies."""
    frequencies = any(name.endswith("inv_freq") for name, _ in module.named_buffers(recurse=False))
    return frequencies and "position_ids" in inspect.signature(module.forward).parameters


def _layer_kinds(module: nn.Module) -> list[str | None]:
    """The layer types that a rotary module keeps frequencies for; [None] where all layers share one."""
    names = [name for name, _ in module.named_buffers(recurse=False)]
    kinds = [name.removesuffix("_inv_freq") for name in names if name.endswith("_inv_freq")]
    return [kind for kind in kinds if not kind.endswith("original")] if "inv_freq" not in names else [None]


def _table_name(kind: str | None, part: str) -> str:
    """Buffer name of a table: cos, or sliding_attention_cos."""
    return part if kind is None else f"{kind}_{part}"


def _count_from_zero(modules: list[nn.Module], forward: Callable[[Tensor], Tensor]) -> bool:
    """Whether the model asks its rotary modules for positions 0, 1, 2, ..., whatever the tokens are."""
    seen: list[Tensor] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(inspect.signature(module.forward).bind(*args, **kwargs).arguments["position_ids"])

    handles = [module.register_forward_pre_hook(record, with_kwargs=True) for module in modules]
    try:
        forward(torch.arange(_PROBE)[None])  # (1, P) any tokens: ids 0 to 4 are the special ones of most vocabularies
    finally:
        for handle in handles:
            handle.remove()
    return bool(seen) and all(torch.equal(ids.reshape(-1), torch.arange(_PROBE)) for ids in seen)


def _rotary_tables(module: nn.Module, kind: str | None, length: int) -> Tables | None:
    """The module's own angles at positions 0..length - 1; None where they are not cos and sin, each half twice."""
    angles = _angles(module, kind, length)
    if angles is None:
        return None
    for shorter in sorted({1, length // 2, length - 1} - {0}):
        again = _angles(module, kind, shorter)
        if again is None or not all(torch.equal(a[:, :shorter], b) for a, b in zip(angles, again, strict=True)):
            raise ModelFormatError(
                f"{type(module).__name__}: the rotary angles of a position depend on the length of the text (dynamic "
                f"or long rope) below {length} positions, expected one table for all lengths. Export with a smaller "
                "max_length: the model's original_max_position_embeddings."
            )
    half = angles[0].shape[-1] // 2
    if any(not torch.equal(x[..., :half], x[..., half:]) for x in angles):
        return None
    cos, sin = (x[0, :, :half].contiguous() for x in angles)  # (L, D / 2)
    return Tables(cos, sin)


def _angles(module: nn.Module, kind: str | None, length: int) -> tuple[Tensor, ...] | None:
    """Cosines and sines (1, L, D) of the first `length` positions, None where the module returns something else."""
    # A copy: some kinds of rotary scaling write the longest length that they have seen into the module.
    args = [torch.zeros(1, 1), torch.arange(length)[None], *([] if kind is None else [kind])]
    out = copy.deepcopy(module)(*args)
    if isinstance(out, tuple) and len(out) == 2 and all(x.dim() == 3 and x.shape[:2] == (1, length) for x in out):
        return out
    return None


def _rotates_halves(rotate: object, table: Tables | None) -> bool:
    """Whether a modelling file's function is the node's rotation: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin)."""
    if table is None or not callable(rotate):
        return False
    cos, sin = (x[:_PROBE] for x in table)  # (P, D / 2)
    seed = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, n, len(cos), 2 * cos.shape[1], generator=seed) for n in (4, 2))  # (2, N, P, D)
    came = rotate(query, key, torch.cat([cos, cos], -1)[None], torch.cat([sin, sin], -1)[None])
    for x, y in zip((query, key), came, strict=True):
        first, second = x.chunk(2, -1)  # (2, N, P, D / 2)
        expected = torch.cat([first * cos - second * sin, second * cos + first * sin], -1)  # (2, N, P, D)
        if y.shape != expected.shape or not torch.allclose(y, expected, rtol=1e-5, atol=1e-6):
            return False
    return True


def _rotary_forward(module: nn.Module) -> Callable[..., Tables]:
    """A forward that returns the stored tables; positions are counted by the node."""

    def forward(
        x: Tensor,  # noqa: ARG001  # models pass these two by position or by name
        position_ids: Tensor,  # noqa: ARG001
        layer_type: str | None = None,
    ) -> Tables:
        return Tables(getattr(module, _table_name(layer_type, "cos")), getattr(module, _table_name(layer_type, "sin")))

    return forward


def _rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
    """In place of a modelling file's apply_rotary_pos_emb: query and key (B, N, S, D), tables (L, D / 2)."""
    if unsqueeze_dim != 1 or query.shape[-1] != 2 * cos.shape[-1]:
        raise ModelFormatError(
            f"apply_rotary_pos_emb: came unsqueeze_dim={unsqueeze_dim} and heads of {query.shape[-1]} with "
            f"{2 * cos.shape[-1]} rotated, expected 1 and all of the head. The exporter has no translation for it: "
            "run this model with sentence-transformers instead."
        )
    start = torch.zeros(1, dtype=torch.int64)

    def one(x: Tensor) -> Tensor:
        heads, size = x.shape[1], x.shape[3]
        flat = x.transpose(1, 2).flatten(2)  # (B, S, N * D)
        turned = torch.onnx.ops.symbolic(
            "com.microsoft::RotaryEmbedding",
            [flat, start, cos, sin],
            {"num_heads": heads},
            dtype=x.dtype,
            shape=flat.shape,
            version=1,
        )
        return turned.reshape(*flat.shape[:2], heads, size).transpose(1, 2)  # (B, N, S, D)

    return one(query), one(key)


# -------------------------------------------------------------------------------------------- relative position bias
def swap_relative_bias(model: nn.Module, max_length: int | None, swaps: Swaps) -> None:
    """Give relative position biases (T5, arXiv:1910.10683, and MPNet's copy of it) one table indexed by key - query.

    T5's buckets saturate at relative_attention_max_distance, so its table is exact at any length; MPNet's is as long as
    its positions.
    """
    for module in model.modules():
        if hasattr(module, "compute_bias") and hasattr(module, "relative_attention_max_distance"):
            if getattr(module, "has_relative_attention_bias", True):
                _swap_t5_bias(module, swaps)
        elif isinstance(module, MPNetEncoder):
            _swap_mpnet_bias(module, max_length, swaps)


def _swap_t5_bias(module: T5Attention, swaps: Swaps) -> None:
    """Replace T5's compute_bias by its table."""
    reach = module.relative_attention_max_distance
    with torch.no_grad():
        table = offset_table(module.compute_bias(reach + 1, reach + 1)[0])  # (N, 2 R + 1)
        far = module.compute_bias(4 * reach, 4 * reach)  # (1, N, 4 R, 4 R)
    if not torch.equal(far, _bias(table, 4 * reach)):
        raise ModelFormatError(
            f"{type(module).__name__}: the position bias beyond {reach} tokens is not that of {reach} tokens, expected "
            "buckets that saturate at relative_attention_max_distance. Run this model with sentence-transformers."
        )
    swaps.buffer(module, "position_bias_table", table)

    def compute_bias(_queries: int, keys: int, *, past_seen_tokens: int = 0, **_: object) -> Tensor:
        if past_seen_tokens:
            raise ModelFormatError("a position bias with a cache was asked for, expected a whole text at once")
        return _bias(module.position_bias_table, keys)

    swaps.set(module, "compute_bias", compute_bias)


def _swap_mpnet_bias(module: MPNetEncoder, max_length: int | None, swaps: Swaps) -> None:
    """Replace MPNet's compute_position_bias by its table: (1, N, S, S) for all rows, not a copy for each."""
    length = max_length or module.config.max_position_embeddings
    with torch.no_grad():
        table = offset_table(module.compute_position_bias(torch.zeros(1, length, 1))[0])  # (N, 2 L - 1)
    swaps.buffer(module, "position_bias_table", table)

    def compute_position_bias(x: Tensor) -> Tensor:
        return _bias(module.position_bias_table, x.shape[1])

    swaps.set(module, "compute_position_bias", compute_position_bias)


def offset_table(bias: Tensor) -> Tensor:
    """(N, L, L) that depends on key - query only -> (N, 2 L - 1), offsets -(L - 1) to L - 1."""
    return torch.cat([bias[:, 1:, 0].flip(1), bias[:, 0, :]], dim=1).contiguous()


def offsets(length: int, reach: int) -> Tensor:
    """(S, S) key - query, clipped to -reach..reach and shifted to start at 0: the index into a table."""
    position = torch.arange(length)  # (S,)
    return (position[None, :] - position[:, None]).clamp(-reach, reach) + reach  # (S, S)


def _bias(table: Tensor, length: int) -> Tensor:
    """(N, 2 R + 1) -> (1, N, S, S)."""
    index = offsets(length, (table.shape[1] - 1) // 2)  # (S, S)
    return table.index_select(1, index.flatten()).reshape(1, table.shape[0], length, length)  # (1, N, S, S)
