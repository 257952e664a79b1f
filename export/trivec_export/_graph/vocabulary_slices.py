"""Pooled logits without the logits: (tokens x vocabulary) numbers exist only a slice of the tokens at a time.

A SPLADE graph ends in hidden states (B, S, H) -> MatMul -> (B, S, V) -> a maximum or a sum over S -> (B, V). For 512
tokens and a vocabulary of 30,522, what lies between takes 62 MB a text, of which nothing is wanted.
"""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trivec_export._graph.run import skeleton, tensor_types

_TOKENS = 512  # rows of the vocabulary product that exist at once; 62 MB of float32 at 30,522 terms
_PRODUCTS = ("MatMul", "FusedMatMul", "MatMulIntegerToFloat")
_BETWEEN = ("Add", "Relu", "Log", "Cast")  # what a sum of activations has between the two
_MATRIX = 2
_POOLS = {"ReduceMax": "Max", "ReduceSum": "Add"}


def finish_pool(graph: onnx.GraphProto) -> None:
    """Finish a maximum over tokens: the bias after it, and NaN not lost in it.

    - ReduceMax(x + bias) becomes ReduceMax(x) + bias: a pass over (B, S, V) less, and the same bits, for rounding is
      monotone: the largest of the rounded sums is the rounded sum of the largest.
    - onnxruntime's ReduceMax on a CPU skips a NaN that does not come first. So the states' sum times zero is added to
      each row: 0, or NaN where one of them is not finite.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    for pool in [node for node in graph.node if node.op_type == "ReduceMax" and _over_tokens(node, weights)]:
        last = producer.get(pool.input[0])
        bias = _bias(graph, last, weights) if last is not None and last.op_type == "Add" else ""
        product = producer.get(_other(last, bias)) if last is not None and bias else last
        if product is None or product.op_type not in _PRODUCTS:
            continue
        name = pool.output[0]
        new = [] if not bias else [helper.make_node("Add", [f"{name}/pooled", bias], [f"{name}/raw"])]
        new += _probe(product.input[0], f"{name}/raw" if bias else f"{name}/pooled", name)
        graph.initializer.extend(_probe_constants(name))
        if last is not None and bias:
            pool.input[0] = _other(last, bias)
            graph.node.remove(last)
        pool.output[0] = f"{name}/pooled"
        place = 1 + list(graph.node).index(pool)
        for offset, node in enumerate(new):
            graph.node.insert(place + offset, node)


def _bias(graph: onnx.GraphProto, add: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> str:
    """The constant row (V,) that an Add of one reader adds, or ""."""
    if sum(add.output[0] in node.input for node in graph.node) > 1:
        return ""
    return next((name for name in add.input if name in weights and len(weights[name].dims) == 1), "")


def _other(add: onnx.NodeProto, name: str) -> str:
    """The input of an Add beside `name`."""
    return str(add.input[1] if add.input[0] == name else add.input[0])


def _probe(states: str, rows: str, out: str) -> list[onnx.NodeProto]:
    """`rows` (B, V) as `out`, NaN where `states` (B, S, H) are not finite."""
    make = helper.make_node
    return [
        make("Mul", [states, f"{out}/nothing"], [f"{out}/zeros"]),  # first: a sum of states could overflow in float16
        make("ReduceSum", [f"{out}/zeros", f"{out}/axes"], [f"{out}/probe"], keepdims=0),  # (B,)
        make("Unsqueeze", [f"{out}/probe", f"{out}/last_axis"], [f"{out}/column"]),  # (B, 1)
        make("Add", [rows, f"{out}/column"], [out]),
    ]


def _probe_constants(out: str) -> list[onnx.TensorProto]:
    return [
        numpy_helper.from_array(np.array(0, np.float32), f"{out}/nothing"),
        numpy_helper.from_array(np.array([1, 2], np.int64), f"{out}/axes"),
        numpy_helper.from_array(np.array([1], np.int64), f"{out}/last_axis"),
    ]


def share_transposed(graph: onnx.GraphProto) -> None:
    """MatMul with a transposed weight becomes FusedMatMul: a decoder tied to the embedding table stays one table."""
    weights = {tensor.name for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        flip = producer.get(node.input[1]) if node.op_type == "MatMul" else None
        if flip is None or flip.op_type != "Transpose" or flip.input[0] not in weights:
            continue
        node.op_type, node.domain = "FusedMatMul", "com.microsoft"
        node.input[1] = flip.input[0]
        node.attribute.append(helper.make_attribute("transB", 1))
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for node in [node for node in graph.node if node.op_type == "Transpose" and node.output[0] not in used]:
        graph.node.remove(node)


def chunk_pool(model: onnx.ModelProto, tokens: int | None = None, kind: int | None = None) -> onnx.ModelProto:
    """The graph with its vocabulary product and pooling in a Loop over slices of the tokens, or as it is without them.

    To be done last: what converts and quantizes graphs looks at the nodes of the main graph alone.

    Args:
        model: not changed.
        tokens: of a slice, those of all texts together; None: as many as suit a CPU.
        kind: element type of the pooled logits; None: onnxruntime is asked, which needs the weights in memory.
    """
    region = find_pool(model.graph)
    if region is None:
        return model
    result = skeleton(model)
    graph = result.graph
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    inside = {node.output[0] for node in region}
    outside = [node for node in model.graph.node if node.output[0] not in inside]
    source = region[0].input[0]
    after = 1 + max((i for i, node in enumerate(outside) if source in node.output), default=-1)
    graph.node.extend(outside[:after])
    graph.initializer.extend(model.graph.initializer)
    kind = _kind(model, region[-1].output[0]) if kind is None else kind
    product = region[0]
    transposed = any(item.name == "transB" and item.i for item in product.attribute)
    nodes, constants = _loop(
        region, int(weights[product.input[1]].dims[0 if transposed else 1]), kind, tokens or _TOKENS
    )
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    graph.node.extend(outside[after:])
    return result


def find_pool(graph: onnx.GraphProto) -> list[onnx.NodeProto] | None:
    """The nodes from the vocabulary product to the pooling over tokens, in order."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    for pool in graph.node:
        if pool.op_type not in _POOLS or not _over_tokens(pool, weights):
            continue
        region = [pool]
        while (node := producer.get(region[-1].input[_data(region[-1], weights)])) is not None:
            region.append(node)
            if node.op_type in _PRODUCTS:
                matrix = weights.get(node.input[1])
                return region[::-1] if matrix is not None and len(matrix.dims) == _MATRIX else None
            if node.op_type not in _BETWEEN:
                break
    return None


def _data(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> int:
    """Which input of a node is no constant."""
    return next((i for i, name in enumerate(node.input) if name and name not in weights), 0)


def _over_tokens(pool: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    """Whether a reduction takes axis 1 alone, and drops it."""
    axes = weights.get(pool.input[1]) if len(pool.input) > 1 else None
    keeps = next((item.i for item in pool.attribute if item.name == "keepdims"), 1)
    return axes is not None and numpy_helper.to_array(axes).tolist() == [1] and not keeps


def _kind(model: onnx.ModelProto, tensor: str) -> int:
    """Element type of a tensor."""
    return TensorProto.FLOAT16 if tensor_types(model).get(tensor) == "tensor(float16)" else TensorProto.FLOAT


def _loop(
    region: list[onnx.NodeProto], columns: int, kind: int, tokens: int
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants that give what `region` gave: (B, columns) of element type `kind`."""
    source, pool = region[0].input[0], region[-1]
    name = pool.output[0]

    def own(what: str) -> str:
        return f"{name}/{what}"

    numbers = {"zero": 0, "one": 1, "rows": tokens}
    constants = [numpy_helper.from_array(np.array(value, np.int64), own(key)) for key, value in numbers.items()]
    constants += [
        numpy_helper.from_array(np.array([value], np.int64), own(key))
        for key, value in {"axis": 1, "V": columns}.items()
    ]
    start = -np.inf if pool.op_type == "ReduceMax" else 0.0
    first = numpy_helper.from_array(np.array([start], helper.tensor_dtype_to_np_dtype(kind)))
    make = helper.make_node
    before = [
        make("Shape", [source], [own("shape")]),
        make("Gather", [own("shape"), own("zero")], [own("B")]),
        make("Gather", [own("shape"), own("one")], [own("S")]),
        make("Div", [own("rows"), own("B")], [own("share")]),
        make("Max", [own("share"), own("one")], [own("step")]),  # tokens of each text in a slice
        make("Add", [own("S"), own("step")], [own("beyond")]),
        make("Sub", [own("beyond"), own("one")], [own("last")]),
        make("Div", [own("last"), own("step")], [own("trips")]),
        make("Unsqueeze", [own("B"), own("zero_axis")], [own("B1")]),
        make("Concat", [own("B1"), own("V")], [own("pooled_shape")], axis=0),
        make("ConstantOfShape", [own("pooled_shape")], [own("initial")], value=first),
    ]
    constants.append(numpy_helper.from_array(np.array([0], np.int64), own("zero_axis")))
    body = _body(region, own, kind, columns)
    loop = make("Loop", [own("trips"), "", own("initial")], [name], name=own("slices"), body=body)
    return [*before, loop], constants


def _body(region: list[onnx.NodeProto], own: Callable[[str], str], kind: int, columns: int) -> onnx.GraphProto:
    """One slice: its pooled logits, joined to what the slices before gave."""
    source = region[0].input[0]
    renamed = {source: own("slice")} | {node.output[0]: own(f"part{i}") for i, node in enumerate(region)}
    make = helper.make_node
    nodes = [
        make("Identity", [own("go")], [own("on")]),
        make("Mul", [own("i"), own("step")], [own("from")]),
        make("Add", [own("from"), own("step")], [own("to")]),
        make("Reshape", [own("from"), own("axis")], [own("from1")]),
        make("Reshape", [own("to"), own("axis")], [own("to1")]),
        make("Slice", [source, own("from1"), own("to1"), own("axis")], [own("slice")]),
    ]
    for node in region:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [renamed.get(item, item) for item in node.input]
        copy.output[0] = renamed[node.output[0]]
        nodes.append(copy)
    nodes.append(make(_POOLS[region[-1].op_type], [own("so_far"), nodes[-1].output[0]], [own("joined")]))
    value = helper.make_tensor_value_info
    return helper.make_graph(
        nodes,
        own("slice_graph"),
        [
            value(own("i"), TensorProto.INT64, []),
            value(own("go"), TensorProto.BOOL, []),
            value(own("so_far"), kind, [None, columns]),
        ],
        [value(own("on"), TensorProto.BOOL, []), value(own("joined"), kind, [None, columns])],
    )
