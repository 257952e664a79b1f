"""Write the int8 graph: integers in the place of linear layers and embedding tables."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from trivec_export._graph.run import Floats, skeleton
from trivec_export._variants.int8.linears import Linear, View, scalable
from trivec_export._variants.int8.smooth import ROW_MAX, ROW_ZERO, TINY, Fit, IntegerLayer, Range, quantize_rows

_CONTRIB = "com.microsoft"
_TABLE_VALUES = 1 << 16  # smaller embedding tables stay float32


class Group(NamedTuple):
    """Linear layers that share a quantized input or a weight, and their integers."""

    members: list[Linear]
    emitters: list[Linear]  # the layers before, where they can give copies of channels
    fit: Fit

    def integers(self, linear: Linear) -> IntegerLayer:
        """The integers of one member."""
        return self.fit.layers[list(dict.fromkeys(member.weight for member in self.members)).index(linear.weight)]


def assemble(model: onnx.ModelProto, view: View, groups: list[Group], kept: set[str]) -> onnx.ModelProto:
    """The graph of `model` in int8, but for the linear layers whose outputs are in `kept`."""
    result = skeleton(model)
    if all(opset.domain != _CONTRIB for opset in result.opset_import):
        result.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
    writer = _Writer(view, groups, kept)
    writer.write()
    used = {name for node in writer.nodes for name in node.input}
    result.graph.node.extend(writer.nodes)
    result.graph.initializer.extend(tensor for name, tensor in view.weights.items() if name in used)
    result.graph.initializer.extend(writer.constants.values())
    return result


class _Quantized(NamedTuple):
    """A tensor in u8: names of its values, its scale and its zero point."""

    values: str
    scale: str
    zero: str
    rows: str = ""
    """What each row's product is to be multiplied by (B, S, 1), where it has a scale of its own; else ""."""


class _Writer:
    """Collects the nodes and constants of the int8 graph, in the order of the float graph."""

    def __init__(self, view: View, groups: list[Group], kept: set[str]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[bytes, TensorProto] = {}  # by content: layers that share weights go on sharing them
        self._view = view
        self._group_of = {linear.output: group for group in groups for linear in group.members}
        self._integer = set(self._group_of) - kept
        self._copies: dict[str, npt.NDArray[np.int64]] = {}  # linear output -> times that each column is emitted
        self._rows: dict[str, npt.NDArray[np.int64]] = {}  # source -> times that each channel comes in
        self._divisor: dict[str, Floats] = {}  # output of a linear layer or norm -> what to divide it by
        self._quantized: dict[str, _Quantized] = {}  # by source
        self._folded: set[str] = set()
        self._taken = {*view.weights, *view.producer}
        for group in groups:
            if self._integer.intersection(linear.output for linear in group.members):
                self._plan(group)

    def write(self) -> None:
        """Go through the float graph once."""
        products = {linear.product: linear for linear in self._view.linears.values()}
        rewritten = {linear.output for linear in self._view.linears.values() if self._changes(linear)}
        for node in self._view.nodes:
            linear = products.get(node.output[0])
            if linear is not None and linear.output in self._integer:
                self._integer_layer(linear)
            elif linear is not None and linear.output in rewritten:
                self._float_layer(linear)
            elif node.output[0] in rewritten:
                continue  # the Add of a bias that the layer now holds
            elif node.output[0] in self._divisor:
                self._norm(node)
            elif self._is_table(node):
                self._embedding(node)
            elif self._is_gelu_of_integers(node):
                self._add("FastGelu", [node.input[0]], node.output[0], name=node.name, domain=_CONTRIB)
            else:
                self.nodes.append(node)

    def _changes(self, linear: Linear) -> bool:
        touched = linear.output in self._copies or linear.output in self._divisor or linear.source in self._rows
        return linear.output in self._integer or touched

    def _plan(self, group: Group) -> None:
        """Note what the nodes before a group have to do for it."""
        copies = group.fit.copies
        if copies.max() > 1:
            self._copies.update({linear.output: copies for linear in group.emitters})
            self._rows.update({linear.source: copies for linear in group.members})
        products = [linear.product for linear in group.members if linear.output in self._integer]
        for source in {linear.source for linear in group.members}:
            if not self._view.only_read_by(source, products):
                continue
            found = scalable(self._view, source, len(copies))
            if found is not None:
                target = found.output if isinstance(found, Linear) else found.output[0]
                self._divisor[target] = np.repeat(group.fit.factor, copies)
                self._folded.add(source)

    def _integer_layer(self, linear: Linear) -> None:
        integers = self._group_of[linear.output].integers(linear)
        bias = self._view.array(linear.bias) + integers.bias if linear.bias else integers.bias  # (N,)
        columns, divisor = self._columns(linear, len(bias))
        x = self._input(linear)
        weight = self._constant(f"{linear.weight}.int8", np.ascontiguousarray(integers.weight[:, columns]))
        weight_scale = self._constant(f"{linear.output}.scale", integers.scale[columns] / divisor)
        bias_name = self._constant(f"{linear.output}.bias", bias[columns] / divisor)
        inputs = [x.values, weight, x.scale, weight_scale, x.zero]
        if not x.rows:
            self._add(
                "MatMulIntegerToFloat", [*inputs, "", bias_name], linear.output, name=linear.name, domain=_CONTRIB
            )
            return
        # With a scale for each row and a bias inside, the op is wrong in onnxruntime 1.31: both come after it.
        product, scaled = f"{linear.output}.product", f"{linear.output}.unbiased"
        self._add("MatMulIntegerToFloat", inputs, product, name=linear.name, domain=_CONTRIB)
        self._add("Mul", [product, x.rows], scaled)
        self._add("Add", [scaled, bias_name], linear.output)

    def _float_layer(self, linear: Linear) -> None:
        """A layer that stays float32, between neighbours that did not."""
        weight = self._view.matrix(linear)  # (K, N)
        if (copies := self._rows.get(linear.source)) is not None:
            weight = np.repeat(weight / copies[:, None].astype(np.float32), copies, axis=0)
        columns, divisor = self._columns(linear, weight.shape[1])
        name = self._constant(f"{linear.weight}.float32", weight[:, columns] / divisor)
        if not linear.bias:
            self._add("MatMul", [linear.source, name], linear.output, name=linear.name)
            return
        bias = self._constant(f"{linear.output}.bias", self._view.array(linear.bias)[columns] / divisor)
        product = f"{linear.output}.unbiased"
        self._add("MatMul", [linear.source, name], product, name=linear.name)
        self._add("Add", [product, bias], linear.output)

    def _columns(self, linear: Linear, size: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """Which columns of a layer to emit, and what to divide them by: (N',), (N',)."""
        columns = np.repeat(np.arange(size), self._copies.get(linear.output, 1))
        return columns, self._divisor.get(linear.output, np.ones(len(columns), np.float32))

    def _input(self, linear: Linear) -> _Quantized:
        """The quantized form of a layer's input, made at its first use."""
        source = linear.source
        if source not in self._quantized:
            fit = self._group_of[linear.output].fit
            smoothed = source
            if source not in self._folded and np.any(fit.factor != 1):
                factor = self._constant(f"{source}.factor", np.repeat(1 / fit.factor, fit.copies))
                smoothed = f"{source}.smoothed"
                self._add("Mul", [source, factor], smoothed)
            found = self._by_row(source, smoothed) if fit.range is None else self._by_range(source, smoothed, fit.range)
            self._quantized[source] = found
        return self._quantized[source]

    def _by_range(self, source: str, x: str, bounds: Range) -> _Quantized:
        """One scale and zero point for all rows."""
        scale = self._constant(f"{source}.scale", np.asarray(bounds.scale, np.float32))
        zero = self._constant(f"{source}.zero", np.asarray(bounds.zero, np.uint8))
        self._add("QuantizeLinear", [x, scale, zero], f"{source}.uint8")
        return _Quantized(f"{source}.uint8", scale, zero)

    def _by_row(self, source: str, x: str) -> _Quantized:
        """Each row divided by its largest value, which is multiplied in again behind the product."""
        one = self._constant(f"{source}.scale", np.asarray(1, np.float32))
        zero = self._constant(f"{source}.zero", np.asarray(ROW_ZERO, np.uint8))
        last = self._constant("last_axis", np.asarray([-1], np.int64))
        least = self._constant("tiny", np.asarray(TINY, np.float32))
        limit = self._constant("row_max", np.asarray(ROW_MAX, np.float32))
        self._add("Abs", [x], f"{source}.abs")
        self._add("ReduceMax", [f"{source}.abs", last], f"{source}.largest")
        self._add("Max", [f"{source}.largest", least], f"{source}.row_max")
        self._add("Div", [f"{source}.row_max", limit], f"{source}.row_scale")  # (B, S, 1)
        self._add("Div", [x, f"{source}.row_scale"], f"{source}.rows")
        self._add("QuantizeLinear", [f"{source}.rows", one, zero], f"{source}.uint8")
        return _Quantized(f"{source}.uint8", one, zero, f"{source}.row_scale")

    def _norm(self, node: onnx.NodeProto) -> None:
        """A norm whose scale and bias also divide for the layers after it."""
        divided = onnx.NodeProto()
        divided.CopyFrom(node)
        for i, name in enumerate(node.input[1:], 1):
            if name:
                value = self._view.array(name) / self._divisor[node.output[0]]
                divided.input[i] = self._constant(f"{name}.divided", value)
        self.nodes.append(divided)

    def _is_table(self, node: onnx.NodeProto) -> bool:
        """Whether a node looks up rows of a large float table that nobody reads in another way."""
        table = self._view.weights.get(node.input[0]) if node.input else None
        if node.op_type != "Gather" or table is None or len(table.dims) != 2:
            return False
        if table.data_type != TensorProto.FLOAT or np.prod(table.dims) < _TABLE_VALUES:
            return False
        # a decoder tied to the table has integers of its own
        integer = {self._view.linears[output].product for output in self._integer}
        return all(
            (reader.op_type == "Gather" and not any(item.name == "axis" and item.i for item in reader.attribute))
            or reader.output[0] in integer
            for reader in self._view.readers[table.name]
        )

    def _is_gelu_of_integers(self, node: onnx.NodeProto) -> bool:
        """Whether only integer layers read this Gelu.

        Its tanh form (Hendrycks and Gimpel 2016, section 2) is at most 5e-4 from the exact one, far less
        than the half step of 8 bits over the range of such an input, and onnxruntime runs it faster.
        """
        if node.op_type != "Gelu" or node.domain:
            return False
        integer = [self._view.linears[output].product for output in self._integer]
        return self._view.only_read_by(node.output[0], integer)

    def _embedding(self, node: onnx.NodeProto) -> None:
        """Rows of an int8 table times the scales of these rows."""
        table, ids = node.input
        rows, scales = quantize_rows(self._view.array(table))
        out = node.output[0]
        self._add("Gather", [self._constant(f"{table}.int8", rows), ids], f"{out}.rows")
        cast = self._add("Cast", [f"{out}.rows"], f"{out}.unscaled")
        cast.attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
        self._add("Gather", [self._constant(f"{table}.scale", scales), ids], f"{out}.row_scales")
        self._add("Mul", [f"{out}.unscaled", f"{out}.row_scales"], out)

    def _add(self, op: str, inputs: list[str], output: str, *, name: str = "", domain: str = "") -> onnx.NodeProto:
        node = helper.make_node(op, inputs, [output], name or f"{output}/{op}", domain=domain)
        self.nodes.append(node)
        return node

    def _constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """The name of an initializer of this value: `name`, or the one that has it already."""
        value = np.ascontiguousarray(value, np.float32) if value.dtype == np.float64 else value
        content = f"{value.dtype} {value.shape}".encode() + hashlib.sha256(value.tobytes()).digest()
        if content not in self.constants:
            while name in self._taken:
                name += "_"
            self._taken.add(name)
            self.constants[content] = numpy_helper.from_array(value, name)
        return self.constants[content].name
