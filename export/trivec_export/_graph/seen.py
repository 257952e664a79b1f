"""Tokens that nobody attends to: a finished graph that reads which positions its attention may look at.

A query of late interaction may be filled up with tokens that get vectors and that no token sees, not even they
themselves. trivec's graphs have no mask; but those tokens are always the last ones, and rows that run together have
equally many of them. So it is enough that each attention node is given the first keys and values only: their number is
a second input, `seen`, the positions 0 ... n - 1. Attention keeps its flash kernel, which a mask would take from it.
"""

import onnx
from onnx import TensorProto, helper

from trivec._engine.row_feeds import SEEN
from trivec._errors import ModelFormatError

_ATTENTION, _DOMAIN = "MultiHeadAttention", "com.microsoft"
_KEY, _VALUE, _BIAS = 1, 2, 5  # inputs of the node: (B, S, H) twice, and (B, N, S, S) that is added to its scores
_LEAST = 3


def with_seen(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph whose attention reads the keys and values at the positions `seen` (n,) int64 alone.

    Raises:
        ModelFormatError: attention that is not one node a layer, or whose mask is of positions before a token.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph, nodes, narrowed = made.graph, list(made.graph.node), dict[tuple[str, int], str]()
    del graph.node[:]
    count = 0
    for node in nodes:
        if node.op_type == _ATTENTION and node.domain == _DOMAIN:
            _check(node)
            count += 1
            for place, axis in ((_KEY, 1), (_VALUE, 1), (_BIAS, 3)):
                name = node.input[place] if place < len(node.input) else ""
                if not name:
                    continue
                if (name, axis) not in narrowed:
                    narrowed[name, axis] = f"{name}/{SEEN}"
                    gathered = helper.make_node("Gather", [name, SEEN], [narrowed[name, axis]], axis=axis)
                    graph.node.append(gathered)
                node.input[place] = narrowed[name, axis]
        graph.node.append(node)
    if not count or any(node.op_type == "Softmax" for node in nodes):
        raise ModelFormatError(
            "its attention is not one node a layer, so that tokens which nobody attends to cannot be left out of it. "
            "Use sentence-transformers for this model."
        )
    graph.input.append(helper.make_tensor_value_info(SEEN, TensorProto.INT64, [SEEN]))
    return made


def _check(node: onnx.NodeProto) -> None:
    """Raise where a node is not of queries, keys and values that all tokens may see."""
    causal = any(attribute.name == "unidirectional" and attribute.i for attribute in node.attribute)
    masked = any(node.input[place] for place in range(_LEAST, len(node.input)) if place not in (_LEAST, _BIAS))
    if causal or masked or len(node.input) < _LEAST or not all(node.input[:_LEAST]):
        raise ModelFormatError(
            f"the attention of {node.name!r} sees {'what is before a token' if causal else 'keys of another kind'}, so "
            "that tokens which nobody attends to cannot be left out of it. Use sentence-transformers for this model."
        )
