"""A loaded transformers model as one ONNX graph of fused onnxruntime ops.

No pattern is searched for in a finished graph: while torch.export runs, the model's attention, norms and positions
write the ops themselves (`_attention`, `_pointwise`, `_positions`, `_patches`). Everything that is set for that time on
transformers or on the model is put back afterwards.
"""

from collections import Counter
from typing import NamedTuple

import onnx
import torch
from optimum.utils import NormalizedConfigManager, NormalizedTextConfig
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from trivec._errors import ModelFormatError
from trivec_export._graph.vocabulary_slices import finish_pool, share_transposed
from trivec_export._reference.heads import Head, TokenEmbeddings
from trivec_export._temporary import Swaps, quiet
from trivec_export._trace.attention import ATTENTION, registered
from trivec_export._trace.patches import swap_attention
from trivec_export._trace.pointwise import swap_gelu, swap_norms
from trivec_export._trace.positions import swap_relative_bias, swap_rotary
from trivec_export._trace.tidy import tidy

OPSET = 21


FUSED, PLAIN = "fused", "plain"


class Traced(NamedTuple):
    """A graph, and how its attention is written."""

    graph: onnx.ModelProto
    attention: str
    """"fused", one node a layer, or "plain", as the model's own code computes it."""
    why: str = ""
    """Why it is not fused."""


def trace(source: PreTrainedModel | Head, *, max_length: int | None) -> Traced:
    """Trace a model into one graph without mask, opset 21 and com.microsoft 1.

    Attention becomes one fused node a layer where everything that the model passes to it has a translation. Where not,
    the model's own eager attention is traced: slower, and as right for batches of rows of one length.

    Args:
        source: an encoder, or a decoder that is used as one, in float32 and eval mode; or a Head around such a model,
            whose outputs the graph then has. It comes back unchanged.
        max_length: tokens that the model can be given, special ones included; None where there is no limit (T5).

    Returns:
        input_ids (B, S) int64 -> token_embeddings (B, S, H) float32, or what the Head says, for batches whose rows all
        have S tokens. Weights are held in memory, as raw data: a model beyond 2 GB must be saved with external data.

    Raises:
        ModelFormatError: the model cannot be traced in either way.
    """
    tokens = source if isinstance(source, Head) else TokenEmbeddings(source)
    _check(tokens.model)
    try:
        return Traced(trace_fused(tokens, max_length=max_length), FUSED)
    except Exception as fused:  # noqa: BLE001 - a model that computes with its mask fails in any way
        try:
            return Traced(_trace_plain(tokens, max_length), PLAIN, _first_line(fused))
        except Exception as plain:
            if not isinstance(fused, ModelFormatError):
                raise _untraceable(tokens.model, plain) from plain
            raise ModelFormatError(
                f"{fused} With its own attention it cannot be traced either: {_first_line(plain)}"
            ) from plain


def trace_fused(tokens: Head, *, max_length: int | None) -> onnx.ModelProto:
    """The graph with one attention node a layer.

    Raises:
        ModelFormatError: something in the model has no translation, and would be lost.
    """
    model = tokens.model
    with quiet(), torch.no_grad(), Swaps() as swaps, registered(max_length):
        swap_norms(model, swaps)
        swap_gelu(model, swaps)
        swap_rotary(model, tokens, max_length, swaps)
        swap_relative_bias(model, max_length, swaps)
        swap_attention(model, max_length, swaps)
        for config in _configs(model):
            swaps.set(config, "_attn_implementation_internal", ATTENTION)
        exported = _export(tokens, _example(tokens, max_length))
    _finish(exported)
    _check_graph(tokens, exported)
    return exported


def _trace_plain(tokens: Head, max_length: int | None) -> onnx.ModelProto:
    """The graph of the model's own eager attention."""
    model = tokens.model
    with quiet(), torch.no_grad(), Swaps() as swaps:
        swap_norms(model, swaps)
        swap_gelu(model, swaps)
        exported = _export(tokens, _example(tokens, max_length))
    _finish(exported)
    return exported


def _example(tokens: Head, max_length: int | None) -> tuple[Tensor, ...]:
    """Each input (2, S): torch.export would take a dimension of 1 for a constant."""
    length = max(2, min(16, max_length or 16))
    ids = torch.arange(2 * length).reshape(2, length) % tokens.vocabulary
    types = (torch.arange(length) >= length // 2).long().repeat(2, 1)
    return tuple({"input_ids": ids, "token_type_ids": types}[name] for name in tokens.inputs)


def _finish(exported: onnx.ModelProto) -> None:
    """What is done to every traced graph."""
    tidy(exported, prefix="model.")
    share_transposed(exported.graph)
    finish_pool(exported.graph)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _untraceable(model: PreTrainedModel, error: Exception) -> ModelFormatError:
    return ModelFormatError(
        f"{type(model).__name__} (model type {model.config.model_type!r}) cannot be traced: {_first_line(error)}. "
        "Models that branch on the tokens have no translation. Run it with sentence-transformers instead."
    )


def _export(tokens: Head, example: tuple[Tensor, ...]) -> onnx.ModelProto:
    """torch.export and torch.onnx.export with both dimensions of each input (B, S) dynamic."""
    dims = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        # By hand: torch.onnx.export would try again in other ways after an error of ours, and report the last one.
        program = torch.export.export(tokens, example, dynamic_shapes=(dims,) * len(example), strict=False)
    except (TypeError, AttributeError, RuntimeError) as error:
        raise _untraceable(tokens.model, error) from error
    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=list(tokens.inputs),
        output_names=list(tokens.outputs),
        verbose=False,
    )
    if exported is None:
        raise ModelFormatError("torch.onnx.export returned nothing, expected a program")
    return exported.model_proto


def _check(model: PreTrainedModel) -> None:
    """Raise where a model is not ready to be traced."""
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if model.training or dtypes != {torch.float32}:
        raise ModelFormatError(
            f"{type(model).__name__} came in {'training' if model.training else 'eval'} mode with parameters in "
            f"{sorted(map(str, dtypes))}, expected eval mode and torch.float32: load it with "
            "trivec_export._reference.torch_model.load."
        )


def _configs(model: PreTrainedModel) -> list[PretrainedConfig]:
    """Every config that a part of the model reads: parts may hold copies."""
    found = [
        module.config for module in model.modules() if isinstance(getattr(module, "config", None), PretrainedConfig)
    ]
    return list({id(config): config for config in found}.values())


def _check_graph(tokens: Head, proto: onnx.ModelProto) -> None:
    """Raise unless every layer's attention went through our function."""
    counts = Counter(node.op_type for node in proto.graph.node)
    model, layers = tokens.model, _layers(tokens.config)
    if counts["Softmax"] or counts["MultiHeadAttention"] < max(layers, 1):
        raise ModelFormatError(
            f"{type(model).__name__} (model type {model.config.model_type!r}) exported with "
            f"{counts['MultiHeadAttention']} MultiHeadAttention and {counts['Softmax']} Softmax nodes, expected "
            f"at least {max(layers, 1)} and 0: its attention does not use transformers' attention interface, so masks "
            "and biases would be lost. Run it with sentence-transformers instead."
        )


def _layers(config: PretrainedConfig) -> int:
    """Number of layers by whatever name the architecture gives it; 0 where it gives none."""
    try:
        normalized = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    except KeyError:  # optimum does not know the type: the usual names
        normalized = NormalizedTextConfig(config)
    return int(normalized.num_layers) if normalized.has_attribute("num_layers") else 0
