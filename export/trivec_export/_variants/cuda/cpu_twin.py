"""A packed graph in nodes that onnxruntime's CPU provider has, so that its arithmetic can be run anywhere."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trivec_export._graph.run import skeleton
from trivec_export._variants.cuda.packed import padding_index

_OWN = "twin/"
_PACKED = "PackedMultiHeadAttention"


def unpacked_twin(model: onnx.ModelProto) -> onnx.ModelProto:
    """The packed graph with each PackedMultiHeadAttention taken apart.

    Queries, keys and values go to (B, Smax, H) by `token_offset`, attend to the first tokens of their text by
    `cumulative_sequence_length`, and come back: what the operator's documentation says that it computes. A graph
    without that operator comes back as it is.
    """
    if all(node.op_type != _PACKED for node in model.graph.node):
        return model
    twin, make = skeleton(model), helper.make_node
    twin.graph.value_info.extend(model.graph.value_info)
    numbers = {"zero": [0], "one": [1], "flat": [-1], "beyond": [1 << 31]}
    twin.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), _OWN + name) for name, value in numbers.items()
    )
    twin.graph.initializer.extend(model.graph.initializer)
    zero, one, flat, beyond = (_OWN + name for name in numbers)
    sums = "cumulative_sequence_length"
    twin.graph.node.extend(padding_index(model.graph.input[0].name, _OWN, {"zero": zero, "flat": flat}))
    twin.graph.node.extend(
        [
            make("Slice", [sums, one, beyond, zero], [f"{_OWN}ends"]),
            make("Slice", [sums, zero, flat, zero], [f"{_OWN}starts"]),
            make("Sub", [f"{_OWN}ends", f"{_OWN}starts"], [f"{_OWN}lengths"]),  # (B,)
            make("Shape", ["token_offset"], [f"{_OWN}sizes"]),
            make("Concat", [f"{_OWN}sizes", flat], [f"{_OWN}apart"], axis=0),  # B, Smax, -1
            make("Concat", [f"{_OWN}room", flat], [f"{_OWN}together"], axis=0),  # B * Smax, -1
        ]
    )
    for node in model.graph.node:
        twin.graph.node.extend(_taken_apart(node) if node.op_type == _PACKED else [node])
    return twin


def _taken_apart(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """What one PackedMultiHeadAttention computes of (T, H) each."""
    make, own = helper.make_node, _OWN + node.output[0]
    nodes = []
    for name, part in zip(node.input[:3], ("query", "key", "value"), strict=True):
        nodes.append(make("Gather", [name, f"{_OWN}inverse"], [f"{own}/{part}/flat"]))  # (B * Smax, H)
        nodes.append(make("Reshape", [f"{own}/{part}/flat", f"{_OWN}apart"], [f"{own}/{part}"]))  # (B, Smax, H)
    inputs = [*(f"{own}/{part}" for part in ("query", "key", "value")), "", f"{_OWN}lengths"]
    attention = make("MultiHeadAttention", inputs, [f"{own}/out"], name=node.name, domain="com.microsoft")
    attention.attribute.extend(node.attribute)
    return [
        *nodes,
        attention,
        make("Reshape", [f"{own}/out", f"{_OWN}together"], [f"{own}/flat"]),
        make("Gather", [f"{own}/flat", f"{_OWN}offsets"], [node.output[0]]),  # (T, H)
    ]
