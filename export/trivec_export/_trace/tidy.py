"""What torch.onnx leaves in a graph and nobody needs: traces of this machine, copies, dead ends, chains of reshapes.

Everything works in place on a ModelProto and keeps the numbers bit for bit.
"""

import ast
from collections import Counter

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

AXES = ("batch", "sequence")
"""Names of the two dynamic dimensions of input_ids."""
_SCOPES = "pkg.torch.onnx.name_scopes"  # where torch.onnx writes the module path of a node
Dims = list[int | str]


def tidy(model: ModelProto, prefix: str) -> None:
    """Clean a freshly exported model.

    Args:
        model: changed in place; inputs (B, S), no subgraphs or functions.
        prefix: start of every module path that says nothing, such as "model.".
    """
    graph = model.graph
    _share_initializers(graph)
    _cancel_transposes(graph)
    _simplify_reshapes(graph)
    _prune(graph)
    _rename(graph, _names(graph, prefix))
    _name_axes(graph)
    _strip(model)


def _share_initializers(graph: GraphProto) -> None:
    """Keep one of several equal initializers: layers that share weights, and small constants."""
    kept: dict[tuple[int, tuple[int, ...], bytes], list[TensorProto]] = {}
    same: dict[str, str] = {}
    for tensor in graph.initializer:
        raw = tensor.raw_data
        candidates = kept.setdefault((tensor.data_type, tuple(tensor.dims), raw[:256]), [])
        twin = next((other for other in candidates if other.raw_data == raw), None)
        if twin is None:
            candidates.append(tensor)
        else:
            same[tensor.name] = twin.name
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = same.get(name, name)


def _cancel_transposes(graph: GraphProto) -> None:
    """Take a norm out from between two transpositions that undo each other (Gemma's norm of each head)."""
    producer = {name: node for node in graph.node for name in node.output}
    users = Counter(name for node in graph.node for name in node.input)
    for last in graph.node:
        norm = producer.get(last.input[0]) if last.op_type == "Transpose" else None
        if norm is None or norm.op_type != "SimplifiedLayerNormalization":
            continue
        first = producer.get(norm.input[0])
        if first is None or first.op_type != "Transpose" or users[norm.output[0]] > 1:
            continue
        there, back = _permutation(first), _permutation(last)
        if [there[i] for i in back] == sorted(there) and there[-1] == len(there) - 1:
            norm.input[0] = first.input[0]
            # The norm now makes what the last transposition made, under its name.
            norm.output[0], last.output[0] = last.output[0], norm.output[0]


def _permutation(node: NodeProto) -> list[int]:
    """Axes of a Transpose."""
    return list(helper.get_node_attr_value(node, "perm"))


def _simplify_reshapes(graph: GraphProto) -> None:
    """Make Reshape(Reshape(x)) one node or none, and give it a constant shape where it keeps the dynamic axes.

    torch traces (B, S, N * D) -> (B, S, N, D) -> (B, S, N * D) around every attention node, with shapes computed at run
    time from those of the input.
    """
    dims = _dims(graph)
    producer = {name: node for node in graph.node for name in node.output}
    outputs = {value.name for value in graph.output}
    alias: dict[str, str] = {}
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = alias.get(name, name)
        if node.op_type != "Reshape":
            continue
        before = producer.get(node.input[0])
        if before is not None and before.op_type == "Reshape":
            node.input[0] = before.input[0]
        source, target = dims.get(node.input[0]), dims.get(node.output[0])
        if source is None or target is None:
            continue
        if source == target and node.output[0] not in outputs:
            alias[node.output[0]] = node.input[0]
        elif (shape := _constant_shape(source, target)) is not None:
            node.input[1] = _constant(graph, shape)
            del node.attribute[:]  # allowzero: a 0 now copies the dimension


def _dims(graph: GraphProto) -> dict[str, Dims]:
    """Shape of every value whose shape is known: numbers, or the names of symbolic dimensions."""
    known: dict[str, Dims] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shape = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_param") or dim.HasField("dim_value") for dim in shape):
            known[value.name] = [dim.dim_param if dim.HasField("dim_param") else dim.dim_value for dim in shape]
    return known


def _constant_shape(source: Dims, target: Dims) -> tuple[int, ...] | None:
    """Target as numbers: 0 copies the source's dimension, one -1 is inferred; None where that is not enough."""
    shape = []
    for i, dim in enumerate(target):
        if isinstance(dim, int):
            shape.append(dim)
        else:
            shape.append(0 if i < len(source) and source[i] == dim else -1)
    return tuple(shape) if shape.count(-1) <= 1 else None


def _constant(graph: GraphProto, values: tuple[int, ...]) -> str:
    """Name of an int64 initializer with these values, added where there is none."""
    name = "shape_" + "_".join(str(value).replace("-", "minus") for value in values)
    if all(tensor.name != name for tensor in graph.initializer):
        raw = b"".join(value.to_bytes(8, "little", signed=True) for value in values)
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], raw, raw=True))
    return name


def _prune(graph: GraphProto) -> None:
    """Drop nodes, initializers and shape notes that the output does not depend on."""
    needed = {value.name for value in graph.output}
    nodes: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    nodes.reverse()
    del graph.node[:]
    graph.node.extend(nodes)
    made = {name for node in nodes for name in node.output} - {value.name for value in graph.output}
    # One by one, without copying what stays: it may be gigabytes.
    for field, names in ((graph.initializer, needed), (graph.value_info, made)):
        for i in reversed(range(len(field))):
            if field[i].name not in names:
                del field[i]


def _names(graph: GraphProto, prefix: str) -> dict[str, str]:
    """A readable name for every value and initializer, and for every node on the way.

    Nodes are named MODULE.PATH.Op, values after the node that makes them, weights after their module.
    """
    counts: Counter[str] = Counter()

    def unique(name: str) -> str:
        counts[name] += 1
        return name if counts[name] == 1 else f"{name}_{counts[name]}"

    fixed = {value.name for value in (*graph.input, *graph.output)}
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    names = {name: name for name in fixed}
    for name in sizes:
        if "." in name or name.startswith("shape_"):  # a path that torch gave
            names[name] = unique(name.removeprefix(prefix))
    for node in graph.node:
        path = _path(node, prefix)
        for name in node.input:
            if name in sizes and name not in names:
                # torch folds the transposition of a Linear's weight and forgets its name
                weight = node.op_type == "MatMul" and len(sizes[name]) == 2 and path
                names[name] = unique(f"{path}.weight" if weight else "constant")
        node.name = unique(f"{path}.{node.op_type}" if path else node.op_type)
        for i, name in enumerate(node.output):
            if name and name not in fixed:
                names[name] = node.name if len(node.output) == 1 else f"{node.name}.{i}"
    return names


def _path(node: NodeProto, prefix: str) -> str:
    """Path of the module whose forward made a node, empty where torch noted none."""
    for prop in node.metadata_props:
        if prop.key == _SCOPES:
            scopes = ast.literal_eval(prop.value)  # ['', 'model', 'model.encoder', ..., 'linear']
            path = f"{scopes[-2]}." if len(scopes) > 1 else ""
            # What starts with an underscore is a hook of torch's, not a module.
            return "" if path.startswith("_") else path.removeprefix(prefix).removesuffix(".")
    return ""


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    """Give every value its new name, wherever it is mentioned."""
    for node in graph.node:
        for field in (node.input, node.output):
            for i, name in enumerate(field):
                field[i] = names.get(name, name)
    for item in (*graph.initializer, *graph.value_info):
        item.name = names.get(item.name, item.name)


def _name_axes(graph: GraphProto) -> None:
    """Call the two dynamic dimensions of the inputs by their names, everywhere; forget what is computed from them.

    Inputs have the same two; where the tracer has given one symbols of its own, they are the same names all the same.
    """
    shapes = [value.type.tensor_type.shape.dim for value in graph.input]
    axes = {dim.dim_param: name for shape in shapes for dim, name in zip(shape, AXES, strict=True)}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in axes:
                dim.dim_param = axes[dim.dim_param]
            elif dim.HasField("dim_param"):
                dim.ClearField("dim_param")


def _strip(model: ModelProto) -> None:
    """Delete stack traces, local paths and other notes of the tracer."""
    graph = model.graph
    holders = (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output)
    for holder in (*holders, *model.functions):
        del holder.metadata_props[:]
        holder.doc_string = ""
