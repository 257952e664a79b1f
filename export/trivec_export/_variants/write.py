"""The graphs of each precision, as files."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from onnx import TensorProto

from trivec._engine.row_feeds import SEEN
from trivec._model.derived import NEEDS
from trivec._model.integrity import describe
from trivec._model.manifest import Variant
from trivec._pooling.dense import pool
from trivec._vectors.arrays import Floats
from trivec_export._draft import Draft
from trivec_export._graph.head_groups import group_heads
from trivec_export._graph.row_slices import slice_feed_forward
from trivec_export._graph.run import skeleton
from trivec_export._graph.save import save_graph
from trivec_export._graph.vocabulary_slices import chunk_pool
from trivec_export._trace.trace import OPSET, PLAIN
from trivec_export._variants.cuda.check import difference
from trivec_export._variants.cuda.graph import CudaGraph, NoCudaGraph, cuda_graph
from trivec_export._variants.faithful import is_faithful
from trivec_export._variants.half import convert_half, emulate_half
from trivec_export._variants.int8.quantize import LayerReport, quantize

_SUFFIX = {"fp32": "", "fp16": "_fp16", "int8": "_int8"}
EMULATED = "emulated"
_MOST_FP32_BYTES = 24 << 20
"""Weights that int8 may leave in float32: an FFN matrix of an XLM-R-large, two of a bert-base, of a MiniLM as many as
the share of the layers allows. More, and a file that exists to be small is not."""


class Written(NamedTuple):
    """A variant, and how its graph came about."""

    variant: Variant
    layers: list[LayerReport]
    """int8: what became of each linear layer."""
    kept: list[str]
    """fp16: the nodes that stay float32 because they would overflow."""
    cuda: Variant | None = None
    """fp16: the graph for CUDA over the same weights."""
    why: str = ""
    """fp16: why that graph is not packed, or why there is none."""

    def worst(self) -> LayerReport | None:
        """The integer layer that is furthest from float32."""
        integer = [layer for layer in self.layers if layer.precision != "fp32"]
        return max(integer, key=lambda layer: layer.error, default=None)


def write_variant(folder: Path, part: Draft, precision: str, arrays: Mapping[str, Floats]) -> Written:
    """Convert a part's graph to a precision and write it, weights beside it, below `folder`.

    `arrays` are the weights of the steps after pooling: what int8 is measured by has passed them. A model that scores
    pairs has no graph for CUDA as yet: there its rows graph runs.

    For fp16 a float32 graph that rounds as fp16 does is written below `folder / EMULATED`, for verification, and a
    graph for CUDA beside the fp16 one, where one can be made.
    """
    path = "onnx/model.onnx" if part.name == "main" else f"{part.name}/onnx/model.onnx"
    path = path.replace("model.onnx", f"model{_SUFFIX[precision]}.onnx")
    if precision == "fp32":
        return Written(_write(folder, path, part, part.graph, precision), [], [])
    calibration = part.calibration.examples  # each (1, S)
    if precision == "int8":
        kinds = [text.kind for text in part.calibration.texts]
        pooling = next((route.pooling for route in part.routes.values() if route.pooling is not None), None)
        pooled = None if pooling is None else partial(pool, pooling=pooling)
        accept = partial(is_faithful, part=part, arrays=arrays, precision=precision)
        quantized = quantize(
            part.graph, calibration, kinds, max_fp32_bytes=_MOST_FP32_BYTES, pool=pooled, accept=accept
        )
        variant = _write(folder, path, part, quantized.model, precision)
        return Written(dataclasses.replace(variant, rungs=_rungs(quantized.layers)), quantized.layers, [])
    half = convert_half(part.graph, calibration)
    _write(folder / EMULATED, path, part, emulate_half(half.model), precision)
    variant = _write(folder, path, part, half.model, precision)
    return Written(variant, [], half.kept, *_write_cuda(folder, part, half.model, variant))


def _rungs(layers: Sequence[LayerReport]) -> dict[str, Any]:
    """How far each layer went up the ladder, for the manifest."""
    names = {rung: [layer.name for layer in layers if layer.precision == rung] for rung in ("int8 by row", "fp32")}
    static = len(layers) - sum(map(len, names.values()))
    return {"static": static, "by_row": names["int8 by row"], "fp32": names["fp32"]}


def _write_cuda(folder: Path, part: Draft, half: onnx.ModelProto, variant: Variant) -> tuple[Variant | None, str]:
    """Write the graph for CUDA over the weights of a written fp16 variant; None, and why, where there is none."""
    if part.encoder.attention == PLAIN:
        return None, "its attention is plain"
    if any(read.is_pairs for read in part.verification.values()):
        return None, "it scores pairs"
    if SEEN in variant.inputs:
        return None, "its queries have tokens that nobody attends to"
    written = folder / variant.files[0].path
    outside = skeleton(half)  # the graph before its pooling was put into a loop, with the weights where they are
    outside.graph.node.extend(half.graph.node)
    outside.graph.value_info.extend(half.graph.value_info)
    outside.graph.initializer.extend(onnx.load(written, load_external_data=False).graph.initializer)
    made = cuda_graph(outside, written.parent)
    if isinstance(made, NoCudaGraph):
        return None, made.why
    off = difference(made, written, part.calibration.ids)
    if off:
        return None, off
    target = written.with_name(written.name.replace(".onnx", "_cuda.onnx"))
    save_graph(made.model, target)
    data = variant.files[1:] if _has_data(made) else ()
    return (
        Variant(
            files=(describe(folder, target.relative_to(folder).as_posix()), *data),
            inputs=tuple(value.name for value in made.model.graph.input),
            output=variant.output,
            opset=OPSET,
            needs=NEEDS["fp16"],
            layout=made.layout,
        ),
        made.why,
    )


def _has_data(made: CudaGraph) -> bool:
    """Whether the graph reads weights from a file."""
    return any(tensor.data_location == TensorProto.EXTERNAL for tensor in made.model.graph.initializer)


def _longest(part: Draft) -> int | None:
    """Tokens of the longest text; None: any number."""
    limits = [n for n in (part.encoder.max_seq_length, part.encoder.max_positions) if n is not None]
    return min(limits, default=None)


def _write(folder: Path, path: str, part: Draft, graph: onnx.ModelProto, precision: str) -> Variant:
    """Write a graph of a part; with slices of its tokens where a text may have many, but for CUDA (fp16)."""
    model, longest = part.finished(graph), 0 if precision == "fp16" else _longest(part)
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    files = save_graph(chunk_pool(slice_feed_forward(group_heads(model, longest), longest)), target)
    return Variant(
        files=tuple(describe(folder, file.relative_to(folder).as_posix()) for file in files),
        inputs=tuple(value.name for value in model.graph.input),
        output=model.graph.output[0].name,
        opset=OPSET,
        needs=NEEDS[precision],
    )
