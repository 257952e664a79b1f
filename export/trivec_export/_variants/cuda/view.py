"""A graph and what is known of it without its weights: shapes, constants, and what follows from sizes alone."""

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from trivec_export._graph.run import open_session, skeleton
from trivec_export._graph.save import INLINE

Array = npt.NDArray[Any]
Dims = tuple[int | str | None, ...]
_FEW, _MORE, _MANY = 2, 3, 33  # rows, rows and tokens of the probes; tokens of the first are _TOKENS
_TOKENS = 5
_LARGEST_IDS = 1 << 20  # numbers of a table of indices, such as the token types of all positions


class UnsuitableError(Exception):
    """Why a graph cannot be rewritten, as a clause: "attention is causal"."""


class View:
    """A model with one input `input_ids` (B, S) and lookups over it."""

    def __init__(self, model: onnx.ModelProto, folder: Path | None) -> None:
        self.model = model
        self.ids = model.graph.input[0].name
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producer = {name: node for node in model.graph.node for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self.readers[name].append(node)
        self._folder = "" if folder is None else str(folder)
        self._types, self._dims = _infer(model)
        self.constant, self.sized = _without_values(model, self.ids)

    def array(self, name: str) -> Array:
        """A weight, read from its file where it is outside."""
        return numpy_helper.to_array(self.weights[name], base_dir=self._folder)

    def integers(self, name: str) -> list[int] | None:
        """A constant of whole numbers as a list; None where it is something else."""
        if name not in self.weights:
            return None
        value = self.array(name)
        return [int(x) for x in value.ravel()] if value.dtype.kind == "i" else None

    def dims(self, name: str) -> Dims:
        """Dimensions as numbers, names or None.

        Raises:
            UnsuitableError: the rank is not known.
        """
        if name in self.weights:
            return tuple(self.weights[name].dims)
        found = self._dims.get(name, ())
        if not found and name not in self.constant:  # onnxruntime gives () for "unknown", too
            raise UnsuitableError(f"the shape of {name!r} is not known")
        return found

    def element_type(self, name: str) -> int:
        """TensorProto's number of a tensor's type."""
        return TensorProto.FLOAT16 if self._types.get(name) == "tensor(float16)" else TensorProto.FLOAT


def with_constant_rows(view: View) -> onnx.ModelProto | None:
    """The model with one row for each lookup of many equal ones, such as the token types of single texts.

    None where there is no such lookup. A lookup (B, S) -> (B, S, H) of a single index becomes (1, 1) -> (1, 1, H),
    which broadcasts to the same sums.
    """
    found: dict[str, int] = {}
    outputs = {value.name for value in view.model.graph.output}
    for node in view.model.graph.node:
        value = _only_value(view, node.input[1]) if node.op_type == "Gather" and node.input[0] in view.weights else None
        added = all(reader.op_type == "Add" for reader in view.readers[node.output[0]])
        if value is not None and node.input[1] not in view.weights and added and node.output[0] not in outputs:
            found[node.output[0]] = value
    if not found:
        return None
    result = skeleton(view.model)
    result.graph.value_info.extend(view.model.graph.value_info)
    for node in view.model.graph.node:
        result.graph.node.append(node)
        if node.output[0] in found:
            result.graph.node[-1].input[1] = f"{node.output[0]}/index"
            index = numpy_helper.from_array(np.full((1, 1), found[node.output[0]], np.int64), f"{node.output[0]}/index")
            result.graph.initializer.append(index)
    result.graph.initializer.extend(view.model.graph.initializer)
    return result


def _only_value(view: View, name: str) -> int | None:
    """The whole number that a tensor holds everywhere; None where that is not known."""
    while name not in view.weights:
        node = view.producer.get(name)
        if node is None or node.op_type not in ("Expand", "Gather", "GatherElements", "Reshape", "Slice", "Unsqueeze"):
            return None
        name = node.input[0]  # all of these hand on what they are given
    values = view.array(name) if np.prod(view.weights[name].dims) <= _LARGEST_IDS else np.zeros(0)
    return (
        int(values.flat[0]) if values.dtype.kind == "i" and values.size and (values == values.flat[0]).all() else None
    )


class Sized(NamedTuple):
    """A tensor that depends on the sizes (B, S) of the ids alone."""

    kind: str
    """"shape": numbers made of B and S. "fixed": the same for all. "position": along one axis, what stands at a place
    depends on the place alone. "pair": the same along two. "other": anything else."""
    shape: tuple[int, ...]
    """With a row and a token: 1 along the axes below."""
    batch: tuple[int, ...] = ()
    """Axes as long as the batch; what stands there is repeated."""
    places: tuple[int, ...] = ()
    """Axes as long as the rows."""
    values: tuple[tuple[int, int, list[int]], ...] = ()
    """Of "shape": B, S and the numbers, a few times."""


def classify(view: View) -> dict[str, Sized]:
    """What each tensor is that depends on sizes alone and that something else reads.

    It is found by running that part of the graph at a few sizes, and comparing.
    """
    made = view.sized | view.constant
    frontier = sorted(
        name
        for name in view.sized
        if any(not made.issuperset(node.output) for node in view.readers[name])
        or name in {value.name for value in view.model.graph.output}
    )
    if not frontier:
        return {}
    session = _session_of(view, frontier)
    sizes = ((_FEW, _TOKENS), (_MORE, _TOKENS), (_FEW, _MANY))
    try:
        runs = [session.run(frontier, {view.ids: np.zeros(size, np.int64)}) for size in sizes]
    except InvalidArgument as error:  # an index beyond a table
        raise UnsuitableError(f"the model does not take {_MANY} tokens") from error
    return {name: _classify(*values) for name, *values in zip(frontier, *runs, strict=True)}


def _classify(base: Array, more: Array, longer: Array) -> Sized:
    """From the values at (2, 5), (3, 5) and (2, 33)."""
    if not base.ndim == more.ndim == longer.ndim:
        return Sized("other", base.shape)
    batch, places = [], []
    for axis in range(base.ndim):
        sizes = (base.shape[axis], more.shape[axis], longer.shape[axis])
        if sizes == (_FEW, _MORE, _FEW):
            batch.append(axis)
        elif sizes == (_TOKENS, _TOKENS, _MANY):
            places.append(axis)
        elif len(set(sizes)) > 1:
            return Sized("other", base.shape)
    shape = tuple(1 if axis in (*batch, *places) else size for axis, size in enumerate(base.shape))
    if not batch and not places and base.dtype.kind == "i" and base.ndim <= 1:
        runs = ((_FEW, _TOKENS, base), (_MORE, _TOKENS, more), (_FEW, _MANY, longer))
        listed = tuple((b, s, [int(x) for x in value.ravel()]) for b, s, value in runs)
        return Sized("fixed" if listed[0][2] == listed[1][2] == listed[2][2] else "shape", shape, values=listed)
    first = _head(base, batch, places)
    if not all(np.array_equal(_head(x, batch, places), first, equal_nan=x.dtype.kind == "f") for x in (more, longer)):
        return Sized("other", shape)
    if any(not _repeated(x, batch) for x in (base, more, longer)):
        return Sized("other", shape)
    kind = ("fixed", "position", "pair", "other")[min(len(places), 3)]
    return Sized(kind, shape, tuple(batch), tuple(places))


def _head(x: Array, batch: list[int], places: list[int]) -> Array:
    """The first row, and the places that the shortest probe has."""
    ends = dict.fromkeys(batch, 1) | dict.fromkeys(places, _TOKENS)
    return x[tuple(slice(ends.get(axis)) for axis in range(x.ndim))]


def _repeated(x: Array, batch: list[int]) -> bool:
    """Whether all rows are equal."""
    first = x[tuple(slice(1 if axis in batch else None) for axis in range(x.ndim))]
    return np.array_equal(x, np.broadcast_to(first, x.shape), equal_nan=x.dtype.kind == "f")


def _session_of(view: View, wanted: list[str]) -> ort.InferenceSession:
    """The part of the graph that makes the tensors `wanted` from sizes, with the few weights that it reads."""
    needed, nodes = set(wanted), []
    for node in reversed(view.model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    part = skeleton(view.model)
    del part.graph.output[:]
    part.graph.node.extend(reversed(nodes))
    read = sorted(needed & view.weights.keys())
    part.graph.initializer.extend(numpy_helper.from_array(view.array(name), name) for name in read)
    return open_session(part, wanted, threads=1)


def _without_values(model: onnx.ModelProto, ids: str) -> tuple[set[str], set[str]]:
    """Names of constants, and of what depends on the sizes of `ids` but not on the ids; "" is a constant."""
    constant = {tensor.name for tensor in model.graph.initializer} | {""}
    sized: set[str] = set()
    for node in model.graph.node:
        if constant.issuperset(node.input):
            constant.update(node.output)
        elif (node.op_type == "Shape" and node.input[0] == ids) or (constant | sized).issuperset(node.input):
            sized.update(node.output)
    return constant, sized


def _infer(model: onnx.ModelProto) -> tuple[dict[str, str], dict[str, Dims]]:
    """Types and dimensions of everything that a node makes, as onnxruntime infers them for its own ops too.

    Large weights are inputs here: only their shapes are needed.
    """
    light = skeleton(model)
    light.graph.node.extend(model.graph.node)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < INLINE and tensor.data_location != TensorProto.EXTERNAL:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    given = {value.name for value in model.graph.output}
    made = [name for node in model.graph.node for name in node.output if name and name not in given]
    found = open_session(light, made, optimize=False, threads=1).get_outputs()
    return {value.name: value.type for value in found}, {value.name: tuple(value.shape) for value in found}
