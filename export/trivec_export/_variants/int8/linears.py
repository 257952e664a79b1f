"""Find the linear layers of a graph, and what may be changed before them for free."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trivec_export._graph.run import Floats

_SMALLEST = 8  # a matrix with fewer rows or columns (a head with one output) is not worth a quantized input
# Ops that treat each channel alone, so that a channel copied before them is a channel copied after them.
_ELEMENTWISE = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Identity"),
        *("Erf", "Tanh", "Sigmoid", "Relu", "Gelu", "FastGelu", "QuickGelu", "Swish"),
    }
)
_NORMS = ("LayerNormalization", "SimplifiedLayerNormalization")


class Linear(NamedTuple):
    """output = source @ weight + bias."""

    name: str  # of the MatMul or Gemm node
    source: str  # tensor (..., K)
    weight: str  # initializer (K, N), or (N, K) where transposed
    transposed: bool
    bias: str  # initializer (N,), or ""
    product: str  # tensor (..., N), before the bias
    output: str  # tensor (..., N), after the bias


class View:
    """Lookups over a graph: who makes a tensor, who reads it, which weights there are."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.readers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)
        self.linears = {linear.output: linear for linear in self._find()}

    def array(self, name: str) -> Floats:
        """The values of a weight."""
        return np.asarray(numpy_helper.to_array(self.weights[name]), dtype=np.float32)

    def matrix(self, linear: Linear) -> Floats:
        """The weight of a linear layer as (K, N)."""
        array = self.array(linear.weight)
        return array.T if linear.transposed else array

    def only_read_by(self, tensor: str, outputs: Iterable[str]) -> bool:
        """Whether everything that depends on `tensor` directly makes one of `outputs`."""
        allowed = set(outputs)
        return tensor not in self.outputs and all(node.output[0] in allowed for node in self.readers[tensor])

    def _find(self) -> Iterable[Linear]:
        for node in self.nodes:
            if node.op_type not in ("MatMul", "FusedMatMul", "Gemm") or node.input[1] not in self.weights:
                continue
            weight = self.weights[node.input[1]]
            large = len(weight.dims) == 2 and min(weight.dims) >= _SMALLEST
            if large and weight.data_type == onnx.TensorProto.FLOAT and node.input[0] not in self.weights:
                linear = self._from_gemm(node) if node.op_type == "Gemm" else self._from_matmul(node)
                if linear is not None:
                    yield linear

    def _from_matmul(self, node: onnx.NodeProto) -> Linear | None:
        """The layer of a MatMul, with the bias that an Add puts on it and on nothing else."""
        source, weight = node.input
        name, output = node.name or node.output[0], node.output[0]
        given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        flip = bool(given.pop("transB", 0))
        if given.pop("alpha", 1.0) != 1 or any(given.values()):
            return None  # a FusedMatMul that does more
        columns = self.weights[weight].dims[0 if flip else 1]
        readers = self.readers[output]
        if len(readers) == 1 and readers[0].op_type == "Add" and output not in self.outputs:
            other = readers[0].input[0] if readers[0].input[1] == output else readers[0].input[1]
            if other in self.weights and list(self.weights[other].dims) == [columns]:
                return Linear(name, source, weight, flip, other, output, readers[0].output[0])
        return Linear(name, source, weight, flip, "", output, output)

    def _from_gemm(self, node: onnx.NodeProto) -> Linear | None:
        """The layer of a Gemm, unless it scales, transposes its input or adds something that is not a bias."""
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1 or attributes.get("beta", 1.0) != 1:
            return None
        transposed = bool(attributes.get("transB", 0))
        columns = self.weights[node.input[1]].dims[0 if transposed else 1]
        bias = node.input[2] if len(node.input) > 2 else ""
        if bias and (bias not in self.weights or list(self.weights[bias].dims) != [columns]):
            return None
        name, output = node.name or node.output[0], node.output[0]
        return Linear(name, node.input[0], node.input[1], transposed, bias, output, output)


def groups(view: View) -> list[list[Linear]]:
    """The linear layers by what they must share: those that read one tensor, and those that share one weight."""
    group_of: dict[str, list[Linear]] = {}  # by tensor and by weight
    for linear in view.linears.values():
        merged = [linear]
        for key in (linear.source, linear.weight):
            if (other := group_of.get(key)) is not None and other is not merged:
                merged = other + [item for item in merged if item not in other]
        for item in merged:
            group_of[item.source] = group_of[item.weight] = merged
    return list({id(group): group for group in group_of.values()}.values())


def emitters(view: View, group: list[Linear]) -> list[Linear]:
    """The linear layers that could give each source of `group` copies of its channels, or [].

    Between them and the group there may be activations and gates only: each tensor on the way is read by nobody else.
    """
    found: dict[str, Linear] = {}
    for source in {linear.source for linear in group}:
        region, heads = _region(view, source)
        makes = region | {linear.product for linear in group}
        if not heads or not all(view.only_read_by(tensor, makes) for tensor in region):
            return []
        found.update({linear.output: linear for linear in heads})
    return list(found.values())


def scalable(view: View, source: str, size: int) -> Linear | onnx.NodeProto | None:
    """What can divide the channels of the tensor `source` (..., size) at no cost: the linear layer or norm behind it.

    The caller has made sure that everybody who reads `source` wants the division. Passed on the way are reshapes, the
    values of an attention node (its output is their weighted mean, channel by channel) and the factors of a product.
    """
    if source in view.linears:
        linear = view.linears[source]
        return linear if view.matrix(linear).shape[1] == size else None
    node = view.producer.get(source)
    if node is None:
        return None
    if node.op_type in _NORMS and source == node.output[0]:
        return node if all(view.weights[name].dims[:] == [size] for name in node.input[1:] if name) else None
    for name in _carriers(node):
        if name not in view.weights and view.only_read_by(name, [source]):
            found = scalable(view, name, size)
            if found is not None:
                return found
    return None


def _carriers(node: onnx.NodeProto) -> list[str]:
    """The inputs of `node` that may be divided, one of them, in place of its output."""
    if node.op_type in ("Reshape", "Identity"):
        return [node.input[0]]
    if node.op_type == "MultiHeadAttention" and len(node.input) > 2 and not any(node.input[3:4]):
        return [node.input[2]]
    return list(node.input) if node.op_type == "Mul" and node.input[0] != node.input[1] else []


def _region(view: View, source: str) -> tuple[set[str], list[Linear]]:
    """The tensors between `source` and the linear layers behind it, both ends included; no layers if others feed it."""
    region: set[str] = set()
    heads: list[Linear] = []
    stack = [source]
    while stack:
        tensor = stack.pop()
        if tensor in region:
            continue
        region.add(tensor)
        if tensor in view.linears:
            heads.append(view.linears[tensor])
            continue
        node = view.producer.get(tensor)
        if node is None or node.op_type not in _ELEMENTWISE:
            return region, []
        constants = [name for name in node.input if name in view.weights]
        if any(np.prod(view.weights[name].dims) != 1 for name in constants):
            return region, []
        stack.extend(name for name in node.input if name and name not in view.weights)
    return region, heads
