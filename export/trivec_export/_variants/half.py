"""Half precision: a float32 graph to float16, except where float16 overflows.

onnxruntime's CPU provider computes a float16 graph in float32 through casts, so a run on the CPU shows no overflow.
:func:`convert_half` therefore looks for large values in the float32 graph, and :func:`emulate_half` gives a graph that
rounds on the CPU where a GPU would.

The converter of onnxruntime.transformers is not used: with nodes to leave out it writes the same Cast several times,
and it has to be told which they are.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from trivec._errors import InputError, NonFiniteError
from trivec_export._graph.run import Example, Ids, examples_of, open_session, random_texts, skeleton, tensor_types

LIMIT = 65504 / 4
"""What a value may reach on the calibration texts and still be half: a quarter of what half can hold."""
_MASK, _HALF_MASK = -1e30, -1e4  # what stands for minus infinity in an attention bias, before and after
_SMALLEST = 6e-8  # the smallest positive half: an epsilon must not become zero
_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
# These hand values on unchanged: rounded before, they need no rounding after.
_COPIES = ("Reshape", "Transpose", "Gather", "Identity", "Slice", "Concat", "Split", "Squeeze", "Unsqueeze", "Expand")


class Half(NamedTuple):
    """A float16 graph, and the names of the nodes that stay float32 because they would overflow."""

    model: onnx.ModelProto
    kept: list[str]


def convert_half(model: onnx.ModelProto, calibration: Sequence[Ids | Example]) -> Half:
    """Convert `model` to float16, with float32 islands where a value over the calibration texts exceeds `LIMIT`.

    A node stays float32 when one of its float inputs, outputs or weights exceeds the limit, when ONNX does not define
    it for float16, or when it computes with positions only. Neighbours that stay float32 hand their values on without a
    cast. A weight that fits half is stored as half even where a float32 node reads it.

    Args:
        model: float32 graph of opset 21, an input (B, S) of int64 ids, and one of token types where it scores pairs.
            Not changed.
        calibration: ids of texts, or pairs, as the model will see them, each (S,) or (B, S) without padding. Rows of
            random ids are added.

    Returns:
        The graph with the inputs and outputs of `model`, types included, and the names of the nodes that overflow.

    Raises:
        InputError: no calibration texts.
        NonFiniteError: a tensor is NaN on a calibration text.
    """
    if not calibration:
        raise InputError("no calibration texts: expected at least one array of token ids (B, S); 400 texts are a start")
    examples = examples_of(calibration)
    masked = _finite_masks(model)
    floats = {name for name, kind in tensor_types(masked).items() if kind == "tensor(float)"}
    large = _large(masked, floats, [*examples, *random_texts(model, examples)])
    overflowing = [node for node in masked.graph.node if large.intersection((*node.input, *node.output))]
    single = {node.output[0] for node in overflowing}
    single |= {node.output[0] for node in masked.graph.node if not _defined_for_half(node, model)}
    of_positions = _index_arithmetic(masked, floats)
    single |= of_positions
    exact = large | {name for node in masked.graph.node if node.output[0] in of_positions for name in node.input}
    writer = _Converter(masked, floats, exact, single)
    return Half(writer.convert(), [node.name or node.output[0] for node in overflowing])


def emulate_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that computes what `model` computes where float16 is real.

    Every float16 value is rounded to half after the node that makes it, infinities included, by a Cast to float16 and a
    Cast back. onnxruntime 1.31 keeps such a pair at every optimization level, because it loses precision; it needs no
    session option. (What it drops are pairs that go from half to float and back.)

    Args:
        model: a graph from :func:`convert_half`. Not changed.
    """
    halves = {name for name, kind in tensor_types(model).items() if kind == "tensor(float16)"}
    result = skeleton(model)
    for tensor in model.graph.initializer:
        result.graph.initializer.append(_cast(tensor, _FLOAT) if tensor.data_type == _HALF else tensor)
    for node in model.graph.node:
        _emulate(node, halves, result.graph)
    return result


def _emulate(node: onnx.NodeProto, halves: set[str], graph: onnx.GraphProto) -> None:
    """Append `node` in float32 to `graph`, with its float16 outputs rounded."""
    copy = graph.node.add()
    copy.CopyFrom(node)
    set_type(copy, _FLOAT)
    if node.op_type in _COPIES:
        return
    for i, name in enumerate(node.output):
        if name in halves:
            copy.output[i] = f"{name}/exact"
            graph.node.append(helper.make_node("Cast", [copy.output[i]], [f"{name}/half"], to=_HALF))
            graph.node.append(helper.make_node("Cast", [f"{name}/half"], [name], to=_FLOAT))


class _Converter:
    """Writes the float16 graph, node by node, with each cast made once."""

    def __init__(self, model: onnx.ModelProto, floats: set[str], exact: set[str], single: set[str]) -> None:
        self._model = model
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._floats = floats | {name for name, tensor in self._weights.items() if tensor.data_type == _FLOAT}
        self._floats |= {x.name for x in model.graph.input if x.type.tensor_type.elem_type == _FLOAT}
        self._exact = exact  # weights among these stay float32
        self._single = single  # first outputs of the nodes that stay float32
        self._made_single = {name for node in model.graph.node if node.output[0] in single for name in node.output}
        self._made_single |= {x.name for x in model.graph.input} | (exact & set(self._weights))
        self._outputs = {value.name for value in model.graph.output}
        self._nodes: list[onnx.NodeProto] = []
        self._casts: dict[tuple[str, int], str] = {}

    def convert(self) -> onnx.ModelProto:
        """The whole model."""
        for node in self._model.graph.node:
            self._node(node)
        result = skeleton(self._model)
        result.graph.node.extend(self._nodes)
        result.graph.value_info.extend(self._shapes())
        for name, tensor in self._weights.items():
            half = tensor.data_type == _FLOAT and name not in self._exact
            result.graph.initializer.append(_cast(tensor, _HALF) if half else tensor)
        return result

    def _shapes(self) -> Iterator[onnx.ValueInfoProto]:
        """The shapes that are stated, with the types of today; without them onnxruntime fuses no Add with a norm."""
        for value in self._model.graph.value_info:
            copy = onnx.ValueInfoProto()
            copy.CopyFrom(value)
            if value.name in self._floats:
                copy.type.tensor_type.elem_type = _FLOAT if value.name in self._made_single else _HALF
            yield copy

    def _node(self, node: onnx.NodeProto) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        kind = _FLOAT if node.output[0] in self._single else _HALF
        for i, name in enumerate(node.input):
            if name in self._floats:
                copy.input[i] = self._typed(name, kind)
        if kind == _HALF:
            set_type(copy, _HALF)
        renamed = [i for i, name in enumerate(node.output) if name in self._outputs & self._floats and kind == _HALF]
        for i in renamed:
            copy.output[i] = f"{node.output[i]}/half"
        self._nodes.append(copy)
        for i in renamed:
            self._nodes.append(helper.make_node("Cast", [copy.output[i]], [node.output[i]], to=_FLOAT))
            self._made_single.add(node.output[i])
            self._casts[node.output[i], _HALF] = copy.output[i]

    def _typed(self, name: str, kind: int) -> str:
        """The name under which a float tensor has type `kind`, cast at its first use where it has the other."""
        if (name in self._made_single) == (kind == _FLOAT):
            return name
        if (name, kind) not in self._casts:
            cast = f"{name}/{'half' if kind == _HALF else 'float'}"
            self._nodes.append(helper.make_node("Cast", [name], [cast], name=f"{cast}/Cast", to=kind))
            self._casts[name, kind] = cast
        return self._casts[name, kind]


def _finite_masks(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with -1e4 for each constant that stands for minus infinity in an attention bias.

    Half cannot hold float32's minimum, and exp(-1e4) is as much zero.
    """
    result = skeleton(model)
    result.graph.node.extend(model.graph.node)
    result.graph.value_info.extend(model.graph.value_info)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor) if tensor.data_type == _FLOAT else np.zeros(0)
        if value.min(initial=0) > _MASK:
            result.graph.initializer.append(tensor)
            continue
        finite = np.where(value <= _MASK, np.float32(_HALF_MASK), value)
        result.graph.initializer.append(numpy_helper.from_array(finite, tensor.name))
    return result


def _large(model: onnx.ModelProto, floats: set[str], texts: Iterable[Example]) -> set[str]:
    """Names of the float tensors and weights that exceed the limit, found with three numbers a tensor and text.

    `model` has nodes for them while the session opens: a copy would hold the weights twice.
    """
    names = sorted(floats)
    size = len(model.graph.node)
    wanted = []
    for name in names:
        # The sum of magnitudes is there for NaN, which the two others may pass over.
        for op in ("ReduceMin", "ReduceMax", "ReduceL1"):
            model.graph.node.append(helper.make_node(op, [name], [f"{name}/{op}"], keepdims=0))
            wanted.append(f"{name}/{op}")
    session = open_session(model, wanted)
    del model.graph.node[size:]
    maker = {name: node.name or node.output[0] for node in model.graph.node for name in node.output}
    peaks = np.zeros(len(names), np.float32)
    inputs = [value.name for value in model.graph.input]
    for number, example in enumerate(texts):
        found = np.array(session.run(wanted, example.feeds(inputs)), np.float32).reshape(-1, 3)  # (T, 3)
        for row in np.flatnonzero(np.isnan(found).any(1)):
            raise NonFiniteError(
                f"the output {names[row]!r} of node {maker[names[row]]!r} is NaN on calibration text {number} in "
                "float32 already: check the fp32 graph on this text first"
            )
        peaks = np.maximum(peaks, np.abs(found[:, :2]).max(1))
    large = {name for name, peak in zip(names, peaks, strict=True) if peak > LIMIT}
    for tensor in model.graph.initializer:
        if tensor.data_type == _FLOAT and np.abs(numpy_helper.to_array(tensor)).max(initial=0) > LIMIT:
            large.add(tensor.name)
    return large


def _defined_for_half(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    """Whether ONNX allows float16 wherever this node has a choice of types (it does not for Range)."""
    version = next((opset.version for opset in model.opset_import if opset.domain == node.domain), 0)
    if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, version, node.domain):
        return True
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    used = (*zip(schema.inputs, node.input, strict=False), *zip(schema.outputs, node.output, strict=False))
    choices = [allowed.get(item.type_str, [item.type_str]) for item, name in used if name]
    return all("tensor(float16)" in kinds for kinds in choices if "tensor(float)" in kinds)


def _index_arithmetic(model: onnx.ModelProto, floats: set[str]) -> set[str]:
    """First outputs of the nodes that make floats from integers and constants alone, such as the angles of positions.

    Half holds no odd integer above 2,048, so they and the constants that they read stay float32, until they meet what
    the texts say.
    """
    constant = {tensor.name for tensor in model.graph.initializer} | {""}
    found: set[str] = set()
    for node in model.graph.node:
        inputs = [name for name in node.input if name not in constant]
        lookup = node.op_type == "Gather" and node.input[0] in constant
        if node.output[0] in floats and inputs and not lookup and all(x not in floats or x in found for x in inputs):
            found.update(node.output)
    return found


def set_type(node: onnx.NodeProto, kind: int) -> None:
    """Turn the float type in the attributes of a Cast, Constant or ConstantOfShape into `kind`."""
    other = _FLOAT if kind == _HALF else _HALF
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == other:
            attribute.i = kind
        elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == other:
            attribute.t.CopyFrom(_cast(attribute.t, kind))


def _cast(tensor: TensorProto, kind: int) -> TensorProto:
    """A float tensor in another precision; a single number other than zero does not become zero."""
    value: npt.NDArray[Any] = numpy_helper.to_array(tensor)
    if kind == _HALF and value.size == 1 and 0 < abs(float(value.item())) < _SMALLEST:
        value = np.where(value > 0, _SMALLEST, -_SMALLEST).astype(np.float32)
    return numpy_helper.from_array(value.astype(np.float16 if kind == _HALF else np.float32), tensor.name)
