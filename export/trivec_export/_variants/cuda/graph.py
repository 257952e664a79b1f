"""The fp16 graph in the form that suits CUDA: texts packed end to end, or padded with a mask that costs nothing.

The rows graph wants batches of one length, of which short texts of many lengths make small ones. The graph made here
takes any texts together and reads the same weights: it differs from the rows graph in a few nodes, and is stored beside
it over the same data. What onnxruntime does with it on CUDA is known from its source alone until it has run on a GPU;
`trivec verify --device cuda` says so of a machine.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import TensorProto, helper

from trivec._engine.mixed_feeds import POOLED
from trivec_export._graph.run import skeleton
from trivec_export._graph.vocabulary_slices import chunk_pool, find_pool
from trivec_export._reference.heads import TOKEN_EMBEDDINGS
from trivec_export._variants.cuda.packed import pack
from trivec_export._variants.cuda.padded import pad
from trivec_export._variants.cuda.view import UnsuitableError, View, classify, with_constant_rows

_CONTRIB = "com.microsoft"
_STATES = 3  # dimensions of the states of tokens
_LOGIT_BYTES, _LEAST_TOKENS = 1 << 28, 512  # of a slice of the vocabulary product: a GPU wants larger ones than a CPU


class CudaGraph(NamedTuple):
    """A graph for CUDA."""

    model: onnx.ModelProto
    layout: str
    """"packed" or "padded", as in the manifest."""
    why: str = ""
    """Why a padded graph is not packed."""


class NoCudaGraph(NamedTuple):
    """There is none for this model."""

    why: str


def cuda_graph(model: onnx.ModelProto, folder: Path | None = None) -> CudaGraph | NoCudaGraph:
    """Rewrite a rows graph for CUDA: packed where every node allows it, else padded, else not at all.

    Args:
        model: one input (B, S) of ids of rows of one length, of any float type; without :func:`chunk_pool`'s Loop. Its
            weights may be outside: the result refers to the same places. Not changed.
        folder: where the files of such weights are.

    Returns:
        A graph with these inputs, and the outputs of `model` followed by `pooled` where there are token embeddings.

        packed, T tokens of B texts, the longest of Smax:
            input_ids (1, T) int64, position_ids (1, T) int64 from 0 in each text, token_offset (B, Smax) int32 and
            cumulative_sequence_length (B + 1,) int32 as PackedMultiHeadAttention has them, token_row (T,) int64 the
            text of each token, pool_weight (K, T) float32. Outputs (B, S, ..) come as (1, T, ..).
        padded:
            input_ids (B, S) int64, lengths (B,) int32, pool_weight (K, B, S) float32.
        pooled (K, B, H) float32:
            for each k and text the sum over its tokens of pool_weight times token_embeddings.
    """
    view = View(model, folder)
    fewer = with_constant_rows(view)
    view = view if fewer is None else View(fewer, folder)
    try:
        sized = classify(view)
        try:
            return CudaGraph(_finish(view, pack(view, sized), "packed"), "packed")
        except UnsuitableError as error:
            why = str(error)
        return CudaGraph(_finish(view, pad(view, sized), "padded"), "padded", why)
    except UnsuitableError as error:
        return NoCudaGraph(str(error))


def _finish(view: View, graph: onnx.GraphProto, layout: str) -> onnx.ModelProto:
    """The model around a rewritten graph, pooled, with the weights that it still reads."""
    if any(value.name == TOKEN_EMBEDDINGS for value in graph.output):
        (_pool_packed if layout == "packed" else _pool_padded)(graph)
    needed = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    result = skeleton(view.model)
    result.graph.CopyFrom(onnx.GraphProto(name=graph.name, input=graph.input, output=graph.output))
    result.graph.node.extend(reversed(nodes))
    weights = (*view.model.graph.initializer, *graph.initializer)
    result.graph.initializer.extend(tensor for tensor in weights if tensor.name in needed)
    result.graph.value_info.extend(_shapes(view.model.graph, result.graph))
    if all(opset.domain != _CONTRIB for opset in result.opset_import):
        result.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
    return _in_slices(view, result)


def _shapes(rows: onnx.GraphProto, graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    """What is known of (B, S, H) in the rows graph, for the same tensors here: onnxruntime fuses by it.

    It infers no shapes behind its own attention, and joins an Add to the norm after it where both shapes are equal.
    """
    texts, here = rows.input[0].type.tensor_type.shape.dim, graph.input[0].type.tensor_type.shape.dim
    made = {name for node in graph.node for name in node.output} - {value.name for value in graph.output}
    for value in rows.value_info:
        dims = value.type.tensor_type.shape.dim
        if value.name in made and len(dims) == _STATES and list(dims[:2]) == list(texts):
            copy = onnx.ValueInfoProto()
            copy.CopyFrom(value)
            for dim, other in zip(copy.type.tensor_type.shape.dim, here, strict=False):
                dim.CopyFrom(other)
            yield copy


def _in_slices(view: View, model: onnx.ModelProto) -> onnx.ModelProto:
    """SPLADE's vocabulary product a slice at a time, where its pooling can be."""
    region = find_pool(model.graph)
    if region is None:
        return model
    vocabulary = max(view.weights[region[0].input[1]].dims)
    kind = view.element_type(region[-1].output[0])
    size = 2 if kind == TensorProto.FLOAT16 else 4
    return chunk_pool(model, max(_LEAST_TOKENS, _LOGIT_BYTES // (size * vocabulary)), kind)


def _pool_packed(graph: onnx.GraphProto) -> None:
    """The product (texts == token_row) @ (pool_weight * token_embeddings), in float32: one for all texts."""
    make, own = helper.make_node, f"{POOLED}/"
    graph.input.append(helper.make_tensor_value_info("token_row", TensorProto.INT64, ["tokens"]))
    graph.input.append(helper.make_tensor_value_info("pool_weight", TensorProto.FLOAT, ["modes", "tokens"]))
    graph.node.extend(
        [
            make("Constant", [], [f"{own}last"], value_ints=[-1]),
            make("Constant", [], [f"{own}marks"], value_floats=[0.0, 1.0]),
            make("Shape", ["token_offset"], [f"{own}B"], start=0, end=1),
            make("OneHot", ["token_row", f"{own}B", f"{own}marks"], [f"{own}texts"], axis=0),  # (B, T)
            make("Unsqueeze", ["pool_weight", f"{own}last"], [f"{own}weights"]),  # (K, T, 1)
            make("Mul", [TOKEN_EMBEDDINGS, f"{own}weights"], [f"{own}states"]),  # (K, T, H)
            make("MatMul", [f"{own}texts", f"{own}states"], [POOLED], name=POOLED),  # (K, B, H)
        ]
    )
    _declare(graph, "texts")


def _pool_padded(graph: onnx.GraphProto) -> None:
    """The product pool_weight @ token_embeddings of each text, in float32."""
    make, own = helper.make_node, f"{POOLED}/"
    dims = ["modes", "batch", "sequence"]
    graph.input.append(helper.make_tensor_value_info("pool_weight", TensorProto.FLOAT, dims))
    graph.node.extend(
        [
            make("Transpose", ["pool_weight"], [f"{own}weights"], perm=[1, 0, 2]),  # (B, K, S)
            make("MatMul", [f"{own}weights", TOKEN_EMBEDDINGS], [f"{own}rows"], name=POOLED),  # (B, K, H)
            make("Transpose", [f"{own}rows"], [POOLED], perm=[1, 0, 2]),  # (K, B, H)
        ]
    )
    _declare(graph, "batch")


def _declare(graph: onnx.GraphProto, texts: str) -> None:
    """`pooled` as an output, after the others."""
    states = next(value for value in graph.output if value.name == TOKEN_EMBEDDINGS)
    width = states.type.tensor_type.shape.dim[2].dim_value or None
    graph.output.append(helper.make_tensor_value_info(POOLED, TensorProto.FLOAT, ["modes", texts, width]))
