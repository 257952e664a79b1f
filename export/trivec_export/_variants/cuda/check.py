"""The graph for CUDA against the rows graph that it was made of, on the CPU: text by text, and all in one batch.

Both run in float32 with the weights of fp16, so that what differs is not rounding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from trivec._engine.mixed_feeds import POOLED, every_feed
from trivec._tokens.batch import Batch
from trivec_export._reference.heads import TOKEN_EMBEDDINGS
from trivec_export._variants.cuda.cpu_twin import unpacked_twin
from trivec_export._variants.cuda.graph import CudaGraph
from trivec_export._variants.half import set_type

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
LENGTHS = (33, 1, 7, 2, 16)
"""Tokens of the texts of a check."""
_CLOSE = 1e-3
"""Relative error of a token's vector that float32 explains; a token that sees another text's is far beyond it."""
_SMALL = 1e-3  # of the largest: what is smaller is compared with that
_FOLDER = "session.model_external_initializers_file_folder_path"


def difference(graph: CudaGraph, rows_graph: Path, texts: Sequence[Ids]) -> str:
    """What of a graph for CUDA is not what the rows graph gives, "" where all is.

    Args:
        graph: its weights are outside, beside the rows graph, or inside.
        rows_graph: the file.
        texts: ids (S_b,) of real texts, each with a token at least; they are cut to `LENGTHS`.
    """
    long = sorted(texts, key=len)[::-1][: len(LENGTHS)]
    cut = [long[i % len(long)][:length] for i, length in enumerate(LENGTHS)]
    weights = [_weights(len(row)) for row in cut]
    wanted = _text_by_text(rows_graph, cut)
    session = _open(unpacked_twin(graph.model), rows_graph.parent)
    given = {value.name for value in session.get_inputs()}
    feed = {key: value for key, value in inputs(graph.layout, cut, weights).items() if key in given}
    names = [value.name for value in session.get_outputs()]
    made = dict(zip(names, session.run(names, feed), strict=True))
    errors = {
        name: _error(of_texts(made[name], graph.layout, [len(value) for value in values]), values)
        for name, values in wanted.items()
    }
    if POOLED in made:
        states = wanted[TOKEN_EMBEDDINGS]
        sums = [np.asarray(a @ b, np.float32) for a, b in zip(weights, states, strict=True)]  # (K, H) each
        errors[POOLED] = _error(list(made[POOLED].swapaxes(0, 1)), sums)
    worst = max(errors, key=lambda name: errors[name])
    if errors[worst] <= _CLOSE:
        return ""
    return f"its output {worst!r} is {errors[worst]:.2%} off that of the fp16 graph on the CPU"


def _text_by_text(rows_graph: Path, texts: Sequence[Ids]) -> dict[str, list[Floats]]:
    """Each output of the rows graph for each text alone; the session is gone when this returns."""
    session = _open(onnx.load(rows_graph, load_external_data=False), rows_graph.parent)
    found: dict[str, list[Floats]] = {value.name: [] for value in session.get_outputs()}
    for ids in texts:
        for name, value in zip(found, session.run(list(found), {"input_ids": ids[None]}), strict=True):
            found[name].append(value[0])
    return found


def of_texts(output: Floats, layout: str, sizes: Sequence[int]) -> list[Floats]:
    """An output by text, each of so many rows: of (1, T, ..), (B, S, ..), or pooled (B, V)."""
    if layout == "packed":
        return np.split(output[0], np.cumsum(sizes)[:-1])
    return [row[:size] for row, size in zip(output, sizes, strict=True)]


def _error(made: Sequence[Floats], wanted: Sequence[Floats]) -> float:
    """The largest relative error of a row of the last axis; infinity where one is not finite."""
    norms = [np.linalg.norm(value, axis=-1) for value in wanted]
    floor = max(_SMALL * max(float(norm.max()) for norm in norms), float(np.finfo(np.float32).tiny))
    worst = 0.0
    for a, b, norm in zip(made, wanted, norms, strict=True):
        off = float((np.linalg.norm(a - b, axis=-1) / np.maximum(norm, floor)).max())
        worst = max(worst, off if np.isfinite(off) else np.inf)
    return worst


def _in_single(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float32: half weights are cast, once, when the session opens."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    half = [tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16]
    _widen(graph, {name: f"{name}/single" for name in half})
    casts = [helper.make_node("Cast", [name], [f"{name}/single"], to=TensorProto.FLOAT) for name in half]
    nodes = [*casts, *graph.node]
    del graph.value_info[:]  # of half types
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def _widen(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Let nodes read `names` and make float32, in the bodies of loops too."""
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        set_type(node, TensorProto.FLOAT)
        for attribute in node.attribute:
            if attribute.type == attribute.GRAPH:
                _widen(attribute.g, names)


def _weights(count: int) -> Floats:
    """Two different ways to pool so many tokens, (2, count)."""
    found: Floats = np.linspace(1, 2, 2 * count, dtype=np.float32).reshape(2, -1) / np.float32(count)
    return found


def _open(model: onnx.ModelProto, folder: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    options.add_session_config_entry(_FOLDER, str(folder))
    return ort.InferenceSession(_in_single(model).SerializeToString(), options, providers=["CPUExecutionProvider"])


def inputs(layout: str, texts: Sequence[Ids], weights: Sequence[Floats]) -> dict[str, npt.NDArray[Any]]:
    """What the runtime gives a graph of this layout for texts of ids (S_b,), pooled with weights (K, S_b) each."""
    lengths = np.array([len(row) for row in texts])  # (B,)
    batch = Batch(np.concatenate(texts), np.concatenate([[0], np.cumsum(lengths)]))
    return every_feed(layout, batch, np.concatenate(weights, axis=1), int(lengths.max()))
