"""Texts padded on the right to the longest of a batch, with their lengths: the graph where packing is not possible.

The rows graph stays as it is but for two things. Attention gets the lengths as a mask of one number a text (B,), the
form that keeps onnxruntime's fused kernels for CUDA open (contrib_ops/cuda/bert/multihead_attention.cc; a mask (B, S)
closes them); causal attention needs none, for padding comes last. And a pooling over tokens, which SPLADE has, leaves
the padding out. Whatever else mixes tokens makes a graph unsuitable.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trivec_export._graph.vocabulary_slices import find_pool
from trivec_export._variants.cuda.axes import TOKENS, Rules, integer, where
from trivec_export._variants.cuda.view import Sized, UnsuitableError, View

_OWN = "padded/"


def pad(view: View, sized: dict[str, Sized]) -> onnx.GraphProto:
    """The padded form of a rows graph, without the outputs that are pooled.

    Returns:
        A graph with the inputs `input_ids` (B, S) and `lengths` (B,), and the outputs of the rows graph, in which
        places of padding hold anything.

    Raises:
        UnsuitableError: why padding would change what real tokens give.
    """
    writer = _Padder(view, sized)
    writer.write()
    graph = onnx.GraphProto(name=view.model.graph.name)
    graph.input.extend(view.model.graph.input)
    graph.input.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]))
    graph.node.extend(writer.nodes)
    graph.initializer.extend(writer.constants)
    graph.output.extend(view.model.graph.output)
    for value in graph.output:
        if writer.rules.axes(value.name)[:1] != ("B",):
            raise UnsuitableError(f"the output {value.name!r} is not one of each text")
    return graph


class _Padder:
    """Writes the padded graph, node by node."""

    def __init__(self, view: View, sized: dict[str, Sized]) -> None:
        self.rules = Rules(view, sized)
        self.nodes: list[onnx.NodeProto] = []
        self._view = view
        self._pool = find_pool(view.model.graph) or []
        self._states = self._pool[0].input[0] if self._pool else None
        numbers = {"zero": 0, "step": 1, "first": [0], "one": [1], "last": [-1]}
        self.constants = [
            numpy_helper.from_array(np.array(value, np.int64), _OWN + name) for name, value in numbers.items()
        ]

    def write(self) -> None:
        """Go through the rows graph once."""
        self.nodes += _prelude(self._view.ids)
        for node in self._view.model.graph.node:
            if (self._view.sized | self._view.constant).issuperset(node.output):
                self.nodes.append(node)
                continue
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [f"{_OWN}states" if name == self._states else name for name in node.input]
            if node.op_type == "MultiHeadAttention" and not integer(node, "unidirectional", 0):
                self._masked(copy)
            if self._pools(node):
                self._without_padding(node, copy)
            else:
                self.rules.follow(node)
            self.nodes.append(copy)
            if self._states is not None and self._states in node.output:
                self._repeat_first(self._states)

    def _masked(self, node: onnx.NodeProto) -> None:
        """Give attention the lengths as its mask."""
        node.input.extend([""] * (5 - len(node.input)))
        node.input[4] = "lengths"

    def _pools(self, node: onnx.NodeProto) -> bool:
        """Whether a node reduces the tokens of the states that are pooled, or of what was made of them."""
        if not self._pool or node.op_type not in ("ReduceMax", "ReduceSum"):
            return False
        return node.output[0] == self._pool[-1].output[0] or self._is_probe(node)

    def _is_probe(self, node: onnx.NodeProto) -> bool:
        """Whether a node adds up the states times zero, which says whether they are finite."""
        made = self._view.producer.get(node.input[0])
        if made is None or made.op_type != "Mul" or self._states not in made.input:
            return False
        factor = next(name for name in made.input if name != self._states)
        return factor in self._view.weights and not self._view.array(factor).any()

    def _without_padding(self, node: onnx.NodeProto, copy: onnx.NodeProto) -> None:
        """A sum leaves padding out by a factor; a maximum does already, for padding repeats the first token."""
        axes = self.rules.axes(node.input[0])
        if axes[:2] != TOKENS or integer(node, "keepdims", 1):
            raise UnsuitableError(f"{where(node)} pools over tokens in a way that is not known")
        if node.op_type == "ReduceSum" and not self._is_probe(node):
            kind = self._view.element_type(node.input[0])
            name = f"{_OWN}{node.output[0]}"
            self.nodes.append(helper.make_node("Cast", [f"{_OWN}real"], [f"{name}/factor"], to=kind))
            self.nodes.append(helper.make_node("Mul", [node.input[0], f"{name}/factor"], [f"{name}/kept"]))
            copy.input[0] = f"{name}/kept"
        gone = [i % len(axes) for i in self._view.integers(node.input[1]) or []]
        self.rules.note(node, tuple(role for i, role in enumerate(axes) if i not in gone))

    def _repeat_first(self, states: str) -> None:
        """The states (B, S, H) with the first token's in every place of padding: no maximum over them changes."""
        first, second = f"{_OWN}first", f"{_OWN}one"
        self.nodes += [
            helper.make_node("Slice", [states, first, second, second], [f"{_OWN}state"]),  # (B, 1, H)
            helper.make_node("Where", [f"{_OWN}real", states, f"{_OWN}state"], [f"{_OWN}states"]),  # (B, S, H)
        ]


def _prelude(ids: str) -> list[onnx.NodeProto]:
    """`real` (B, S, 1): whether a place holds a token of its text. Pruned where nothing reads it."""
    make = helper.make_node
    return [
        make("Shape", [ids], [f"{_OWN}size"], start=1, end=2),
        make("Squeeze", [f"{_OWN}size"], [f"{_OWN}S"]),
        make("Range", [f"{_OWN}zero", f"{_OWN}S", f"{_OWN}step"], [f"{_OWN}places"]),  # (S,)
        make("Cast", ["lengths"], [f"{_OWN}lengths"], to=TensorProto.INT64),
        make("Unsqueeze", [f"{_OWN}lengths", f"{_OWN}one"], [f"{_OWN}column"]),  # (B, 1)
        make("Less", [f"{_OWN}places", f"{_OWN}column"], [f"{_OWN}within"]),  # (B, S)
        make("Unsqueeze", [f"{_OWN}within", f"{_OWN}last"], [f"{_OWN}real"]),
    ]
