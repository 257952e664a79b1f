"""Feed-forward layers in slices of the tokens: what is wide between two products exists for a part of a text alone.

A layer's feed-forward part is the same arithmetic for each token: states (B, S, H) -> product (B, S, N) -> activation
-> product (B, S, H). Of one text of 8,192 tokens an XLM-R-large has 134 MB there, two or three times. Here a Scan runs
it over at most 512 tokens at a time, whose products also stay in a processor's cache.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trivec_export._graph.run import skeleton

_TOKENS = 512  # of a slice, those of all texts of a run together
_LEAST_BYTES = 64 << 20  # of the widest product of the longest text; below, slices save nothing that shows
_PRODUCTS = ("MatMul", "MatMulIntegerToFloat")
_ELEMENTWISE = (
    *("Abs", "Add", "BiasGelu", "Cast", "Clip", "Div", "Erf", "FastGelu", "Gelu", "HardSigmoid", "HardSwish"),
    *("LeakyRelu", "Max", "Min", "Mul", "Neg", "Pow", "QuantizeLinear", "QuickGelu", "Relu", "Round", "Sigmoid"),
    *("Softplus", "Sqrt", "Sub", "Tanh"),
)
_ALONG_LAST = ("ReduceMax", "Slice", "Split")  # those over other axes mix tokens
_RANK = 3  # of states (B, S, H); a slice keeps it, so that axes mean the same


class _Region(NamedTuple):
    """One feed-forward part."""

    nodes: list[onnx.NodeProto]
    """In their order."""
    sources: list[str]
    """What it reads beside weights, each (B, S, any number)."""
    output: str
    """(B, S, H)."""


def slice_feed_forward(model: onnx.ModelProto, longest: int | None, tokens: int = _TOKENS) -> onnx.ModelProto:
    """The graph with its wide feed-forward parts in a Scan over slices of the tokens, or as it is without them.

    To be done behind what converts and quantizes graphs, which looks at the nodes of the main graph alone. A row of a
    product is computed as before, if not by the same kernel: float32 may differ in the last bits.

    Args:
        model: not changed. Its first input is (B, S).
        longest: tokens of the longest text that it reads; None: any number. Parts that stay small are left: 0, all.
        tokens: of a slice.
    """
    graph = _Graph(model.graph)
    least = 0 if longest is None else _LEAST_BYTES / 4 / max(1, longest)  # numbers of a token
    regions = [region for region in graph.regions() if longest != 0 and graph.widest(region) >= least]
    if not regions:
        return model
    result = skeleton(model)
    inside = {id(node) for region in regions for node in region.nodes}
    last = {id(region.nodes[-1]): number for number, region in enumerate(regions)}
    result.graph.node.extend(_shapes(model.graph.input[0].name))
    for node in model.graph.node:
        if id(node) not in inside:
            result.graph.node.append(node)
        elif id(node) in last:
            number = last[id(node)]
            result.graph.node.extend(_scan(regions[number], number, graph.is_bytes))
    result.graph.initializer.extend(model.graph.initializer)
    result.graph.initializer.extend(_constants(tokens))
    return result


class _Graph:
    """Who makes and who reads what in a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes = list(graph.node)
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._producer = {name: node for node in self._nodes for name in node.output}
        self._readers: dict[str, list[int]] = {}
        for node in self._nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(id(node))
        self._by_id: dict[int, onnx.NodeProto] = {id(node): node for node in self._nodes}
        self._outputs = {value.name for value in graph.output}

    def regions(self) -> Iterator[_Region]:
        """All feed-forward parts, in their order."""
        for node in self._nodes:
            size = self._product(node)
            if size is not None and size[0] > size[1]:
                found = self._region(node)
                if found is not None:
                    yield found

    def widest(self, region: _Region) -> int:
        """Numbers of a token in the widest product."""
        return max(size[1] for node in region.nodes if (size := self._product(node)) is not None)

    def is_bytes(self, name: str) -> bool:
        """Whether a tensor is of uint8, and not float32."""
        return name in self._producer and self._producer[name].op_type == "QuantizeLinear"

    def _product(self, node: onnx.NodeProto) -> tuple[int, int] | None:
        """(K, N) of a product with a weight."""
        weight = self._weights.get(node.input[1]) if node.op_type in _PRODUCTS else None
        return None if weight is None or len(weight.dims) != 2 else (weight.dims[0], weight.dims[1])

    def _region(self, narrowing: onnx.NodeProto) -> _Region | None:
        """What lies between products that widen and one that narrows again, and what scales it and adds its bias."""
        behind = self._behind(narrowing)
        kept: dict[int, onnx.NodeProto] = {}
        made: set[str] = set()
        for node in self._nodes:  # of what is behind the last product, that which depends on the first
            size = self._product(node)
            if id(node) in behind and (size is not None or made.intersection(node.input)):
                kept[id(node)] = node
                made.update(node.output)
        if not made.intersection(narrowing.input):
            return None
        node = narrowing
        while True:
            kept[id(node)] = node
            made.update(node.output)
            following = self._only_reader(node.output[0])
            if following is None or following.op_type not in ("Add", "Mul"):
                break
            others = [name for name in following.input if name != node.output[0]]
            if not all(name in made or self._is_row(name) for name in others):
                break
            node = following
        nodes = list(kept.values())
        inner = {name for each in nodes if each is not node for name in each.output}
        if inner & self._outputs or any(set(self._readers.get(name, ())) - set(kept) for name in inner):
            return None  # somebody else reads it, so that it must exist as a whole
        read = dict.fromkeys(name for each in nodes for name in each.input if name)
        sources = [name for name in read if name not in made and name not in self._weights]
        if not sources or any(name not in self._producer for name in sources):
            return None
        return _Region(nodes, sources, node.output[0])

    def _behind(self, narrowing: onnx.NodeProto) -> set[int]:
        """Nodes that the product's input comes from, through what treats each token by itself, up to other products."""
        found: set[int] = set()
        waiting = list(narrowing.input)
        while waiting:
            node = self._producer.get(waiting.pop())
            if node is None or id(node) in found:
                continue
            size = self._product(node)
            if size is not None and size[1] > size[0]:
                found.add(id(node))
            elif self._is_by_token(node):
                found.add(id(node))
                waiting.extend(node.input)
        return found

    def _only_reader(self, name: str) -> onnx.NodeProto | None:
        readers = self._readers.get(name, [])
        if len(readers) != 1 or name in self._outputs:
            return None
        return self._by_id[readers[0]]

    def _is_by_token(self, node: onnx.NodeProto) -> bool:
        """Whether a node computes each token from that token alone."""
        constants = [name for name in node.input if name in self._weights]
        if node.op_type in _ELEMENTWISE:
            return all(map(self._is_row, constants))
        if node.op_type not in _ALONG_LAST:
            return False
        if node.op_type == "Split":
            axes = [item.i for item in node.attribute if item.name == "axis"]
        else:
            place = 3 if node.op_type == "Slice" else 1
            named = node.input[place] if len(node.input) > place else ""
            axes = numpy_helper.to_array(self._weights[named]).tolist() if named in self._weights else []
            keeps = all(item.i for item in node.attribute if item.name == "keepdims")
            axes = axes if keeps else []
        return len(axes) == 1 and axes[0] in (-1, _RANK - 1)

    def _is_row(self, name: str) -> bool:
        """Whether a constant is one number, or one for each of a token's."""
        return name in self._weights and all(size == 1 for size in self._weights[name].dims[:-1])


_OWN = "feed_forward"


def _constants(tokens: int) -> list[onnx.TensorProto]:
    values = {
        "most": [tokens],
        "most_less_one": [tokens - 1],
        "zero": [0],
        "one": [1],
        "any": [-1],
        "before": [0, 0, 0, 0],
    }
    return [numpy_helper.from_array(np.array(value, np.int64), f"{_OWN}/{name}") for name, value in values.items()]


def _shapes(ids: str) -> list[onnx.NodeProto]:
    """How the tokens of a run are cut: N slices of R tokens, the last one filled up with zeros."""

    def make(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:  # noqa: ANN401 - as make_node
        names = [name if name == ids else f"{_OWN}/{name}" for name in inputs]
        return helper.make_node(op, names, [f"{_OWN}/{output}"], f"{_OWN}/{output}", **attributes)

    return [
        make("Shape", [ids], "rows"),  # (B, S)
        make("ReduceProd", ["rows"], "count", keepdims=1),
        make("Add", ["count", "most_less_one"], "rounded_up"),
        make("Div", ["rounded_up", "most"], "slices"),  # N
        make("Add", ["count", "slices"], "beyond"),
        make("Sub", ["beyond", "one"], "last"),
        make("Div", ["last", "slices"], "each"),  # R
        make("Mul", ["slices", "each"], "filled"),
        make("Sub", ["filled", "count"], "missing"),
        make("Concat", ["one", "count", "any"], "flat", axis=0),  # (1, B * S, any)
        make("Concat", ["before", "missing", "zero"], "pads", axis=0),
        make("Concat", ["slices", "one", "each", "any"], "cut", axis=0),  # (N, 1, R, any)
        make("Concat", ["one", "filled", "any"], "joined", axis=0),
        make("Concat", ["rows", "any"], "states", axis=0),  # (B, S, any)
    ]


def _scan(region: _Region, number: int, is_bytes: Callable[[str], bool]) -> list[onnx.NodeProto]:
    """A region as a Scan: (B, S, K) -> (1, B * S, K), filled up -> (N, 1, R, K) -> (N, 1, R, H) -> (B, S, H)."""

    def own(name: str) -> str:
        return f"{_OWN}/{number}/{name}"

    def shared(name: str) -> str:
        return f"{_OWN}/{name}"

    nodes, renamed = [], {}
    values = []
    for place, source in enumerate(region.sources):
        flat, filled, cut = own(f"flat{place}"), own(f"filled{place}"), own(f"cut{place}")
        nodes += [
            helper.make_node("Reshape", [source, shared("flat")], [flat], flat),
            helper.make_node("Pad", [flat, shared("pads")], [filled], filled),
            helper.make_node("Reshape", [filled, shared("cut")], [cut], cut),
        ]
        renamed[source] = own(f"slice{place}")
        kind = TensorProto.UINT8 if is_bytes(source) else TensorProto.FLOAT
        values.append(helper.make_tensor_value_info(renamed[source], kind, [1, None, None]))
    renamed |= {name: own(name) for node in region.nodes for name in node.output}
    body = []
    for node in region.nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [renamed.get(name, name) for name in node.input]
        copy.output[:] = [renamed[name] for name in node.output]
        body.append(copy)
    made = helper.make_tensor_value_info(renamed[region.output], TensorProto.FLOAT, [1, None, None])
    inner = helper.make_graph(body, own("slice"), values, [made])
    cuts = [own(f"cut{place}") for place in range(len(region.sources))]
    return [
        *nodes,
        helper.make_node("Scan", cuts, [own("made")], own("made"), body=inner, num_scan_inputs=len(cuts)),
        helper.make_node("Reshape", [own("made"), shared("joined")], [own("joined")], own("joined")),
        helper.make_node(
            "Slice", [own("joined"), shared("zero"), shared("count"), shared("one")], [own("kept")], own("kept")
        ),
        helper.make_node("Reshape", [own("kept"), shared("states")], [region.output], region.output),
    ]
