"""Attention in groups of heads: queries, keys and values of a long text exist for a quarter of the heads at a time.

Heads know nothing of each other. MultiHeadAttention transposes what it reads, so that six copies of a text's states
exist beside them: of 8,192 tokens of an XLM-R-large 200 MB. The products before it are cut by columns, whose sums stay
what they were.
"""

from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trivec_export._graph.run import skeleton

_GROUPS = 4
_LEAST_BYTES = 16 << 20  # of the queries of the longest text; below, groups save nothing that shows
_BY_COLUMN = {"MatMul": (1,), "Add": (0, 1), "MatMulIntegerToFloat": (1, 3, 5, 6)}
"""Inputs of a product and of its bias that have something for each column."""
_INPUTS = 3  # queries, keys, values; more are masks and caches


class _Attention(NamedTuple):
    node: onnx.NodeProto
    heads: int
    chains: list[list[onnx.NodeProto]]
    """What makes queries, keys and values: a product, and the addition of its bias."""


def group_heads(model: onnx.ModelProto, longest: int | None, groups: int = _GROUPS) -> onnx.ModelProto:
    """The graph with each wide attention in groups of its heads, or as it is without one that can be cut.

    Args:
        model: not changed.
        longest: tokens of the longest text that it reads; None: any number. What stays small is left; 0: all.
        groups: how many; attention whose heads they do not share out evenly is left.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for value in model.graph.output:
        readers[value.name] = readers.get(value.name, 0) + 1
    found = {}
    for node in model.graph.node:
        attention = _attention(node, weights, producer, readers) if node.op_type == "MultiHeadAttention" else None
        if attention is None or attention.heads % groups:
            continue
        width = weights[attention.chains[0][0].input[1]].dims[1]
        if longest is None or 0 < _LEAST_BYTES <= 4 * width * longest:
            found[id(node)] = attention
    if not found:
        return model
    result = skeleton(model)
    cut: dict[str, onnx.TensorProto] = {}
    inside = {id(node) for attention in found.values() for chain in attention.chains for node in chain}
    for node in model.graph.node:
        if id(node) in found:
            result.graph.node.extend(_in_groups(found[id(node)], groups, weights, cut))
        elif id(node) not in inside:
            result.graph.node.append(node)
    kept = {name for node in result.graph.node for name in node.input}
    result.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in kept)
    result.graph.initializer.extend(cut.values())
    return result


def _attention(
    node: onnx.NodeProto,
    weights: dict[str, onnx.TensorProto],
    producer: dict[str, onnx.NodeProto],
    readers: dict[str, int],
) -> _Attention | None:
    """One whose queries, keys and values come from products with weights, and go nowhere else."""
    if len([name for name in node.input if name]) != _INPUTS or len(node.output) != 1:
        return None
    chains = []
    for source in node.input[:_INPUTS]:
        chain: list[onnx.NodeProto] = []
        name = source
        while not chain or chain[0].op_type == "Add":
            made = producer.get(name)
            if made is None or made.op_type not in _BY_COLUMN or readers[name] != 1:
                return None
            chain.insert(0, made)
            name = next((other for other in made.input if other not in weights), "")
        weight = weights.get(chain[0].input[1])
        if weight is None or len(weight.dims) != 2 or len(chain) > 2:
            return None
        if len(chain) == 2 and sum(other in weights for other in chain[1].input) != 1:
            return None
        chains.append(chain)
    heads = next(item.i for item in node.attribute if item.name == "num_heads")
    return _Attention(node, heads, chains)


def _in_groups(
    attention: _Attention, groups: int, weights: dict[str, onnx.TensorProto], cut: dict[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """The nodes of each group, and what joins them; the weights that they read go to `cut`."""
    nodes, joined = [], []
    for group in range(groups):
        inputs = []
        for chain in attention.chains:
            for node in chain:
                copy = _renamed(node, group, {name for other in chain for name in other.output})
                for place in _BY_COLUMN[node.op_type]:
                    if place < len(copy.input) and copy.input[place] in weights:
                        copy.input[place] = _columns(weights[copy.input[place]], group, groups, cut)
                nodes.append(copy)
            inputs.append(nodes[-1].output[0])
        copy = _renamed(attention.node, group, set())
        copy.input[:_INPUTS] = inputs
        for item in copy.attribute:
            if item.name == "num_heads":
                item.i = attention.heads // groups
        nodes.append(copy)
        joined.append(copy.output[0])
    output = attention.node.output[0]
    return [*nodes, helper.make_node("Concat", joined, [output], f"{output}/joined", axis=2)]


def _renamed(node: onnx.NodeProto, group: int, own: set[str]) -> onnx.NodeProto:
    """A copy for a group, which makes and reads what is the group's own."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = f"{node.output[0]}/{group}"
    copy.input[:] = [f"{name}/{group}" if name in own else name for name in node.input]
    copy.output[:] = [f"{name}/{group}" for name in node.output]
    return copy


def _columns(tensor: onnx.TensorProto, group: int, groups: int, cut: dict[str, onnx.TensorProto]) -> str:
    """The name of a group's columns of a weight, or of what has one number for all of them."""
    size = tensor.dims[-1] if tensor.dims else 1
    if size == 1:
        return str(tensor.name)
    name = f"{tensor.name}/{group}"
    if name not in cut:
        share = size // groups
        values = numpy_helper.to_array(tensor)[..., group * share : (group + 1) * share]
        cut[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
    return name
