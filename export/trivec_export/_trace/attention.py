"""Attention of transformers 5 as one `com.microsoft::MultiHeadAttention` node per layer.

transformers lets a caller register an attention function and a mask function under one name, and calls them from every
model that has an attention interface. While `registered` is active, the mask function states what a layer may see and
the attention function writes the node. Batches hold rows of equal length, so nothing is padded and a bidirectional
layer needs no mask at all, which is what lets onnxruntime's CPU kernel take its flash path.

Whatever cannot be expressed raises: an argument that is dropped here is a model that is silently wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trivec._errors import ModelFormatError

ATTENTION = "trivec"
"""The name that both functions are registered under (transformers' `attn_implementation`)."""
# What models hand to every attention function though eager attention, our reference, does not read it.
HARMLESS = frozenset(
    {
        "position_ids",  # flash kernels find packed rows with it; positions are already in query and key
        "is_causal",  # SDPA reads it where there is no mask; ours always states causality
        "deterministic",  # picks a backward kernel
        "use_cache",  # about the caller's cache: a forward pass over a whole text has none
        "cache_position",
    }
)
_PROBE = 1024  # positions on which a mask rule is evaluated where a model has no limit
_ROWS = 257  # query positions on which it is evaluated: all of them for short models, spread out for long ones


class Mask(NamedTuple):
    """What a layer may see; goes untouched from the mask function through the model to the attention function."""

    bias: Tensor | None
    """(1, 1, S, S) float32, 0 where a key is seen, the dtype's minimum where not; None where every key is seen."""
    causal: bool
    """Keys after the query are hidden, by the node's `unidirectional`, not by `bias`."""
    local: bool
    """The model asked for a window (it may be wider than the model's positions, then `bias` is None)."""


class Span(NamedTuple):
    """Offsets key - query that are seen: low..high, both included; None is unbounded."""

    low: int | None
    high: int | None


def multi_head_attention(
    query: Tensor, key: Tensor, value: Tensor, *, heads: int, scale: float, bias: Tensor | None, causal: bool = False
) -> Tensor:
    """One attention node, without key padding mask.

    Args:
        query: (B, S, heads * D) float32.
        key: (B, S, heads * D).
        value: (B, S, heads * V).
        heads: number of heads, equal for query and key.
        scale: factor of the scores.
        bias: (1 or B, 1 or heads, S, S), added to the scaled scores.
        causal: hide the keys after each query.

    Returns:
        (B, S, heads * V) float32.
    """
    attributes: dict[str, int | float] = {"num_heads": heads, "scale": float(scale)}
    if causal:
        attributes["unidirectional"] = 1
    inputs = [query, key, value] if bias is None else [query, key, value, None, None, bias]
    return torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        inputs,
        attributes,  # type: ignore[arg-type]  # torch declares an invariant dict
        dtype=query.dtype,
        shape=(*query.shape[:-1], value.shape[-1]),
        version=1,
    )


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Mask,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """The registered attention function: query (B, N, S, D), key and value (B, N or fewer, S, D) -> (B, S, N, D).

    Raises:
        ModelFormatError: the model passes something that the node does not express.
    """
    _check(module, attention_mask, dropout=dropout, sliding_window=sliding_window, rest=kwargs)
    heads = query.shape[1]
    bias = attention_mask.bias
    if position_bias is not None:
        bias = position_bias if bias is None else position_bias + bias  # (1, N, S, S)
    out = multi_head_attention(
        _merge(query, heads),
        _merge(key, heads),
        _merge(value, heads),
        heads=heads,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        bias=bias,
        causal=attention_mask.causal,
    )  # (B, S, N * D)
    return out.reshape(*out.shape[:2], heads, value.shape[-1]), None  # (B, S, N, D)


def _merge(x: Tensor, heads: int) -> Tensor:
    """(B, K, S, D) -> (B, S, N * D), the layout of the node, which has no grouped heads: each is repeated in place."""
    x = x.transpose(1, 2)  # (B, S, K, D)
    if x.shape[2] != heads:
        x = x.unsqueeze(3).expand(-1, -1, -1, heads // x.shape[2], -1)  # (B, S, K, N / K, D)
    return x.flatten(2)


def _check(
    module: nn.Module, mask: object, *, dropout: float, sliding_window: int | None, rest: dict[str, object]
) -> None:
    """Raise on any argument of an attention function that would be lost."""
    if not isinstance(mask, Mask):
        came = "none" if mask is None else f"a {type(mask).__name__}"
        raise _untranslated(module, "attention_mask", f"{came} that transformers' mask functions did not build")
    if dropout:
        raise _untranslated(module, "dropout", f"{dropout}, expected 0: call model.eval() first")
    if sliding_window is not None and not mask.local:
        raise _untranslated(module, "sliding_window", f"{sliding_window}, but the layer's mask has no window")
    for name, value in rest.items():
        # None and False ask for nothing.
        if name not in HARMLESS and value is not None and value is not False:
            raise _untranslated(module, name, repr(value) if isinstance(value, int | float | str) else "set")


def _untranslated(module: nn.Module, argument: str, came: str) -> ModelFormatError:
    """The error for an attention argument that would be dropped."""
    config = getattr(module, "config", None)
    model_type = getattr(config, "model_type", "unknown")
    return ModelFormatError(
        f"{type(module).__name__} (model type {model_type!r}) passes {argument!r} to its attention: {came}. "
        "The exporter has no translation for it, and leaving it out would change the vectors. "
        "Run this model with sentence-transformers, or export it with optimum-cli and load that folder."
    )


def mask(
    batch_size: int,  # noqa: ARG001  # transformers calls by keyword
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Tensor] = causal_mask_function,
    attention_mask: Tensor | None = None,  # noqa: ARG001
    local_size: int | None = None,
    dtype: torch.dtype = torch.float32,
    config: object = None,
    limit: int | None = None,
    **kwargs: object,  # noqa: ARG001
) -> Mask:
    """The registered mask function: transformers' rule for one kind of layer as a `Mask`.

    `attention_mask` is not read: every token of every row counts, by the contract of equal lengths. The other arguments
    that are not named (device, use_vmap, allow_*_skip) are about how a dense mask would be built. `limit` is the number
    of positions on which the rule has to hold.

    Raises:
        ModelFormatError: the rule is not "everything", "nothing after the query" or a window around it.
    """
    limit = limit or max(_PROBE, 4 * (local_size or 0))
    span = _span(mask_function, limit)
    if span is None or q_offset or kv_offset:
        raise ModelFormatError(
            f"Model type {getattr(config, 'model_type', 'unknown')!r} uses an attention mask that is neither full, nor "
            "causal, nor a sliding window (chunked or blockwise, for example): the exporter has no translation for "
            "'mask_function'. Run this model with sentence-transformers instead."
        )
    local = local_size is not None
    if span == Span(None, None):
        return Mask(None, causal=False, local=local)
    if span == Span(None, 0):
        return Mask(None, causal=True, local=local)
    return Mask(_window(span, q_length, kv_length, dtype), causal=False, local=local)


def _window(span: Span, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """(1, 1, S, S): 0 inside the span of offsets, the dtype's minimum outside."""
    offset = torch.arange(keys)[None, :] - torch.arange(queries)[:, None]  # (S, S)
    before = [] if span.low is None else [offset < span.low]
    after = [] if span.high is None else [offset > span.high]
    hidden = reduce(torch.logical_or, before + after)  # (S, S)
    return torch.where(hidden, torch.finfo(dtype).min, 0.0).to(dtype)[None, None]


def _span(rule: Callable[..., Tensor], limit: int) -> Span | None:
    """The offsets key - query that a mask rule keeps on `limit` positions; None where it is not a rule of that kind.

    The rule is evaluated on numbers, outside the trace, because transformers composes rules from closures: full
    attention can come as the union of a causal rule and one that is always true.
    """
    with _disable_current_modes():
        rows = torch.linspace(0, limit - 1, min(limit, _ROWS), dtype=torch.float64).round().long()  # (R,)
        keys = torch.arange(limit)  # (limit,)
        zero = torch.zeros(1, 1, 1, 1, dtype=torch.long)
        kept = rule(zero, zero, rows[None, None, :, None], keys[None, None, None, :])
        if isinstance(kept, FakeTensor) or (kept.dim() == 4 and kept.shape[:2] != (1, 1)):
            return None  # it reads the batch
        kept = kept.expand(1, 1, len(rows), limit)[0, 0]  # (R, limit)
        offset = keys[None, :] - rows[:, None]  # (R, limit)
        seen = offset[kept]
        if not len(seen):
            return None
        low, high = int(seen.min()), int(seen.max())
        if not torch.equal(kept, (offset >= low) & (offset <= high)):
            return None
    return Span(None if low <= 1 - limit else low, None if high >= limit - 1 else high)


@contextmanager
def registered(max_length: int | None) -> Iterator[None]:
    """Register the two functions with transformers for the time of a trace.

    Args:
        max_length: positions that the model will be used with; a window that is wider is no window.
    """
    attentions, masks = ALL_ATTENTION_FUNCTIONS._global_mapping, ALL_MASK_ATTENTION_FUNCTIONS._global_mapping
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, partial(mask, limit=max_length))
    try:
        yield
    finally:
        attentions.pop(ATTENTION, None)
        masks.pop(ATTENTION, None)
