"""A small encoder written by hand: every weight of it can be set, and it is ready in milliseconds."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

VOCAB, HIDDEN, HEADS, INNER = 2100, 32, 4, 96
Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


class Builder:
    """Nodes and weights in order; a node is named after its output."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def weight(self, name: str, value: NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def random(self, name: str, *shape: int, scale: float = 1.0) -> str:
        return self.weight(name, (self.rng.normal(size=shape) * scale).astype(np.float32))

    def add(self, op: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def linear(self, x: str, name: str, size: int, columns: int) -> str:
        weight = self.random(f"{name}.weight", size, columns, scale=0.7 * size**-0.5)
        product = self.add("MatMul", [x, weight], f"{name}.product")
        return self.add("Add", [product, self.random(f"{name}.bias", columns, scale=0.1)], name)

    def norm(self, x: str, name: str) -> str:
        scale = np.exp(self.rng.normal(size=HIDDEN) / 2).astype(
            np.float32
        )  # some channels are outliers, as in real models
        inputs = [x, self.weight(f"{name}.scale", scale), self.random(f"{name}.shift", HIDDEN, scale=0.2)]
        return self.add("LayerNormalization", inputs, name, axis=-1, epsilon=1e-6)

    def layer(self, x: str, name: str, *, before: bool) -> str:
        """A transformer layer with its norms before (pre-norm) or after what they norm."""
        read = self.norm(x, f"{name}.norm1") if before else x
        qkv = [self.linear(read, f"{name}.{part}", HIDDEN, HIDDEN) for part in "qkv"]
        mixed = self.add("MultiHeadAttention", qkv, f"{name}.attention", "com.microsoft", num_heads=HEADS)
        x = self.add("Add", [x, self.linear(mixed, f"{name}.out", HIDDEN, HIDDEN)], f"{name}.sum1")
        x = x if before else self.norm(x, f"{name}.norm1")
        read = self.norm(x, f"{name}.norm2") if before else x
        inner = self.add("Gelu", [self.linear(read, f"{name}.up", HIDDEN, INNER)], f"{name}.gelu")
        x = self.add("Add", [x, self.linear(inner, f"{name}.down", INNER, HIDDEN)], f"{name}.sum2")
        return x if before else self.norm(x, f"{name}.norm2")

    def model(self, output: str) -> onnx.ModelProto:
        self.add("Identity", [output], "token_embeddings")
        graph = helper.make_graph(
            self.nodes,
            "small",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
            [helper.make_tensor_value_info("token_embeddings", TensorProto.FLOAT, ["batch", "sequence", None])],
            self.weights,
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def encoder(*, before: bool = False, layers: int = 2, seed: int = 0) -> onnx.ModelProto:
    """Embeddings, a norm and some layers, with norms before or after."""
    builder = Builder(seed)
    x = builder.add("Gather", [builder.random("table", VOCAB, HIDDEN), "input_ids"], "embedded")
    x = builder.norm(x, "norm")
    for i in range(layers):
        x = builder.layer(x, f"layer{i}", before=before)
    return builder.model(builder.norm(x, "last") if before else x)


def texts(count: int = 40, seed: int = 1) -> list[Ids]:
    """Rows of 1 to 40 random ids, each (1, S)."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCAB, (1, int(rng.integers(1, 41)))) for _ in range(count)]


def array(model: onnx.ModelProto, name: str) -> NDArray[Any]:
    """An initializer's values."""
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def set_array(model: onnx.ModelProto, name: str, value: NDArray[Any]) -> None:
    """Replace an initializer's values."""
    next(x for x in model.graph.initializer if x.name == name).CopyFrom(numpy_helper.from_array(value, name))


def cosine(a: Floats, b: Floats) -> NDArray[np.float64]:
    """Cosine of each row of a (N, H) with that of b (N, H): (N,)."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    return np.asarray((a64 * b64).sum(-1) / np.linalg.norm(a64, axis=-1) / np.linalg.norm(b64, axis=-1))
