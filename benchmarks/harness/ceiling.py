"""Graphs of one matrix product each, of a model's shapes: what the machine can reach at most."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnx import ModelProto

TOKENS = (512, 2048)


class Ceiling(NamedTuple):
    """Operations a second of the fastest of the shapes, in each round."""

    fp32: list[float]
    int8: list[float]
    fp16: list[float] = []  # noqa: RUF012 - never changed

    def of(self, precision: str) -> list[float]:
        """Of "int8", "fp16", or of everything else."""
        return {"int8": self.int8, "fp16": self.fp16}.get(precision, self.fp32)


def write(
    folder: Path, hidden: int, inner: int, kinds: Sequence[str] = ("fp32", "int8"), tokens: Sequence[int] = TOKENS
) -> None:
    """Write KIND-M-K-N.onnx for products of (M, K) by (K, N): of floats, and u8 by s8 with a float32 result."""
    from onnx import save

    folder.mkdir(parents=True, exist_ok=True)
    for rows in tokens:
        for depth, width in ((hidden, inner), (inner, hidden), (hidden, hidden)):
            for kind in kinds:
                save(_product(kind, depth, width), str(folder / f"{kind}-{rows}-{depth}-{width}.onnx"))


def best(rounds: Sequence[Mapping[str, float]]) -> Ceiling:
    """Of each round's operations a second by graph, the most of each kind."""
    return Ceiling(
        *(
            [max((v for k, v in found.items() if k.startswith(p)), default=float("nan")) for found in rounds]
            for p in Ceiling._fields
        )
    )


def _product(kind: str, depth: int, width: int) -> "ModelProto":
    """Rows x (M, K) by a constant (K, N) to y (M, N) float32, as trivec's graphs have it: a weight's scale a column."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    result = TensorProto.FLOAT16 if kind == "fp16" else TensorProto.FLOAT
    if kind != "int8":
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        weight = rng.standard_normal((depth, width), dtype=np.float32)
        constants: dict[str, npt.NDArray[Any]] = {"w": weight.astype(np.float16) if kind == "fp16" else weight}
        dtype = result
    else:
        inputs = ["x", "w", "x_scale", "w_scale", "x_zero", "w_zero"]
        node = helper.make_node("MatMulIntegerToFloat", inputs, ["y"], domain="com.microsoft")
        constants = {
            "w": rng.integers(-64, 65, (depth, width), dtype=np.int8),  # 7 bits, as trivec's weights
            "x_scale": np.array(0.02, dtype=np.float32),
            "w_scale": np.full(width, 0.01, dtype=np.float32),
            "x_zero": np.array(128, dtype=np.uint8),
            "w_zero": np.zeros(width, dtype=np.int8),
        }
        dtype = TensorProto.UINT8
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", dtype, [None, depth])],
        [helper.make_tensor_value_info("y", result, [None, width])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
