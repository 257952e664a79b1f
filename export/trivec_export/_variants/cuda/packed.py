"""Texts end to end in one row, without padding: the graph for onnxruntime's PackedMultiHeadAttention.

The rows graph is read with B = 1 and S = T, all tokens of a batch. That is right where a node treats every token by
itself. Three kinds of nodes do not, and are rewritten: attention stays within a text by `cumulative_sequence_length`;
what depends on a token's place is computed for the longest text and looked up by `position_ids`; a cumulative sum runs
over each text by itself. Any other node that mixes tokens makes a graph unsuitable.

PackedMultiHeadAttention (com.microsoft; ContribOperators.md of onnxruntime) has kernels for CUDA alone. Its source
(contrib_ops/cuda/bert/packed_multihead_attention.cc) takes query, key and value of two dimensions without copying them
where there is no bias input, so a projection's bias stays in the node before it.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trivec_export._variants.cuda.axes import TOKENS, Rules, integer, where
from trivec_export._variants.cuda.view import Sized, UnsuitableError, View

_CONTRIB = "com.microsoft"
_OWN = "packed/"  # before the names of everything that is added
_TABLE = "packed/table/"  # before the names of copies that are as long as the longest text


def pack(view: View, sized: dict[str, Sized]) -> onnx.GraphProto:
    """The packed form of a rows graph, without the outputs that are pooled.

    Returns:
        A graph with the inputs `input_ids`, `position_ids` (1, T), `token_offset` and `cumulative_sequence_length`, and
        the outputs of the rows graph with (B, S, ..) read as (1, T, ..). Nodes that nothing needs are still in it.

    Raises:
        UnsuitableError: why it cannot be packed.
    """
    writer = _Packer(view, sized)
    writer.write()
    tokens = helper.make_tensor_value_info
    graph = onnx.GraphProto(name=view.model.graph.name)
    graph.input.append(tokens(view.ids, TensorProto.INT64, [1, "tokens"]))
    graph.input.append(tokens("position_ids", TensorProto.INT64, [1, "tokens"]))
    graph.input.append(tokens("token_offset", TensorProto.INT32, ["texts", "longest"]))
    graph.input.append(tokens("cumulative_sequence_length", TensorProto.INT32, ["texts_and_one"]))
    graph.node.extend(writer.nodes)
    graph.initializer.extend(writer.constants.values())
    for value in view.model.graph.output:
        if writer.rules.axes(value.name)[:2] != TOKENS:
            raise UnsuitableError(f"the output {value.name!r} is not one of each token")
        dims = [1, "tokens", *(size if isinstance(size, int) else None for size in view.dims(value.name)[2:])]
        graph.output.append(tokens(value.name, value.type.tensor_type.elem_type, dims))
    return graph


class _Packer:
    """Writes the packed graph, node by node."""

    def __init__(self, view: View, sized: dict[str, Sized]) -> None:
        self.rules = Rules(view, sized)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._view, self._sized = view, sized
        self._placed: dict[str, str] = {}  # tensor of places -> the same by token

    def write(self) -> None:
        """Go through the rows graph once."""
        self._prelude()
        for node in self._view.model.graph.node:
            if (self._view.sized | self._view.constant).issuperset(node.output):
                self._of_sizes(node)
                continue
            self._refuse(node)
            axes = self.rules.follow(node)
            if axes.count("S") != 1 or axes.count("B") != 1:
                raise UnsuitableError(f"{where(node)} has a number for each pair of tokens")
            if node.op_type == "MultiHeadAttention":
                self._attention(node)
            elif node.op_type == "CumSum":
                self._cumulated(node)
            else:
                self._token_wise(node, axes)

    def _refuse(self, node: onnx.NodeProto) -> None:
        """Name the usual reasons as such."""
        if node.op_type == "MultiHeadAttention":
            if integer(node, "unidirectional", 0):
                raise UnsuitableError("attention is causal, which PackedMultiHeadAttention is not")
            if any(node.input[3:]):
                raise UnsuitableError("attention has a bias or mask for pairs of tokens (relative positions, windows)")
        elif node.op_type.startswith("Reduce"):
            try:
                self.rules.follow(node)
            except UnsuitableError as error:
                raise UnsuitableError(f"the graph pools over tokens ({where(node)})") from error

    def _prelude(self) -> None:
        """Tensors that rewritten nodes read; those that none reads are pruned afterwards."""
        zero, one, flat = self._constant("zero", [0]), self._constant("one", [1]), self._constant("flat", [-1])
        self.nodes += [
            helper.make_node("Slice", ["token_offset", zero, one, zero], [f"{_OWN}row"]),  # (1, Smax): for its shape
            helper.make_node("Reshape", ["position_ids", flat], [f"{_OWN}places"]),  # (T,)
            helper.make_node("Shape", ["token_offset"], [f"{_OWN}padded_shape"]),
        ]
        self.nodes += padding_index(self._view.ids, _OWN, {"zero": zero, "flat": flat})

    def _of_sizes(self, node: onnx.NodeProto) -> None:
        """A node that depends on sizes alone: once at (1, T), for shapes, and once at (1, Smax), for tables."""
        self.nodes.append(node)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        made = self._view.sized
        copy.input[:] = [f"{_OWN}row" if x == self._view.ids else _TABLE + x if x in made else x for x in node.input]
        copy.output[:] = [_TABLE + x if x else x for x in node.output]
        copy.name = _TABLE + node.name
        if made.issuperset(x for x in node.output if x):
            self.nodes.append(copy)

    def _token_wise(self, node: onnx.NodeProto, axes: Sequence[str]) -> None:
        """A node that is right as it stands, once what it reads of places is looked up."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for i, name in enumerate(node.input):
            found = self._sized.get(name)
            if found is None or found.kind == "shape" or (i > 0 and found.values and node.op_type != "GatherElements"):
                continue
            if found.kind == "fixed":
                copy.input[i] = _TABLE + name
            elif found.kind == "position":
                copy.input[i] = self._by_token(node, name, found, axes)
            else:
                raise UnsuitableError(f"{where(node)} reads a number for each pair of tokens")
        if node.op_type == "RotaryEmbedding":
            if node.input[1] in self._view.constant:
                copy.input[1] = "position_ids"
            # Else more tokens than the tables have rows are refused, though no position lies beyond them.
            copy.attribute.append(helper.make_attribute("is_packed_batching", 1))
        self.nodes.append(copy)

    def _by_token(self, node: onnx.NodeProto, name: str, found: Sized, axes: Sequence[str]) -> str:
        """A tensor of places (1, Smax, ..) or (Smax, ..) as one of tokens (1, T, ..)."""
        place, rank = found.places[0], len(found.shape)
        if place + len(axes) - rank != 1 or axes[:2] != TOKENS or any(size != 1 for size in found.shape[:place]):
            raise UnsuitableError(f"{where(node)} reads positions along another axis than its tokens'")
        if name not in self._placed:
            index = "position_ids" if place == 0 else f"{_OWN}places"
            self._placed[name] = f"{_TABLE}{name}/by_token"
            self.nodes.append(helper.make_node("Gather", [_TABLE + name, index], [self._placed[name]], axis=place))
        return self._placed[name]

    def _attention(self, node: onnx.NodeProto) -> None:
        """PackedMultiHeadAttention on (T, H), where query, key and value come as (1, T, H)."""
        sizes = {self._view.dims(name)[-1] for name in node.input[:3]}
        if len(sizes) > 1 or not all(isinstance(size, int) for size in sizes):
            raise UnsuitableError(f"{where(node)} has values of another size than its keys")
        own, first = f"{_OWN}{node.output[0]}", self._constant("zero", [0])
        flat = [f"{own}/{part}" for part in ("query", "key", "value")]
        for name, target in zip(node.input[:3], flat, strict=True):
            self.nodes.append(helper.make_node("Squeeze", [name, first], [target], name=target))
        kept = [item for item in node.attribute if item.name in ("num_heads", "scale", "mask_filter_value")]
        inputs = [*flat, "", "token_offset", "cumulative_sequence_length"]
        packed = helper.make_node("PackedMultiHeadAttention", inputs, [f"{own}/out"], name=node.name, domain=_CONTRIB)
        packed.attribute.extend(kept)
        self.nodes.append(packed)
        self.nodes.append(helper.make_node("Unsqueeze", [f"{own}/out", first], [node.output[0]], name=f"{own}/out"))

    def _cumulated(self, node: onnx.NodeProto) -> None:
        """A sum along each text, on the padded layout: its kernel for CUDA takes time quadratic in a row's length."""
        own, make = f"{_OWN}{node.output[0]}", helper.make_node
        flat, whole = self._constant("flat", [-1]), self._constant("whole", [1, -1])
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[0], copy.output[0] = f"{own}/padded", f"{own}/sums"
        self.nodes += [
            make("Reshape", [node.input[0], flat], [f"{own}/flat"]),
            make("Gather", [f"{own}/flat", f"{_OWN}inverse"], [f"{own}/spread"]),  # padding holds any token: it is last
            make("Reshape", [f"{own}/spread", f"{_OWN}padded_shape"], [f"{own}/padded"]),
            copy,
            make("Reshape", [f"{own}/sums", flat], [f"{own}/flat_sums"]),
            make("Gather", [f"{own}/flat_sums", f"{_OWN}offsets"], [f"{own}/packed"]),
            make("Reshape", [f"{own}/packed", whole], [node.output[0]]),
        ]

    def _constant(self, name: str, values: list[int]) -> str:
        self.constants[name] = numpy_helper.from_array(np.array(values, np.int64), _OWN + name)
        return _OWN + name


def padding_index(ids: str, own: str, constants: dict[str, str]) -> list[onnx.NodeProto]:
    """Nodes that make `offsets` (T,), where each token stands among (B * Smax,), and `inverse` (B * Smax,) of it.

    The names begin with `own`; `inverse` has token 0 where there is padding.
    """
    make = helper.make_node
    return [
        make("Reshape", ["token_offset", constants["flat"]], [f"{own}all"]),  # (B * Smax,)
        make("Shape", [ids], [f"{own}T"], start=1, end=2),
        make("Slice", [f"{own}all", constants["zero"], f"{own}T", constants["zero"]], [f"{own}first"]),
        make("Cast", [f"{own}first"], [f"{own}offsets"], to=TensorProto.INT64),
        make("Shape", [f"{own}all"], [f"{own}room"]),
        make("ConstantOfShape", [f"{own}room"], [f"{own}nowhere"], value=_single(0)),
        make("Squeeze", [f"{own}T"], [f"{own}count"]),
        make("Constant", [], [f"{own}start"], value_int=0),
        make("Constant", [], [f"{own}step"], value_int=1),
        make("Range", [f"{own}start", f"{own}count", f"{own}step"], [f"{own}tokens"]),
        make("ScatterElements", [f"{own}nowhere", f"{own}offsets", f"{own}tokens"], [f"{own}inverse"], axis=0),
    ]


def _single(value: int) -> TensorProto:
    return numpy_helper.from_array(np.array([value], np.int64))
