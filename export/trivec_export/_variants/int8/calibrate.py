"""Run a graph over calibration texts and keep bounded statistics of what flows through it."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from trivec._errors import NonFiniteError

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

# Add + LayerNormalization is several times faster than the kernel that this optimizer would fuse them into.
DISABLED_OPTIMIZERS = ["SkipLayerNormFusion"]

_TOKEN_AXES = 3  # of token embeddings (B, S, H)
_INLINE_BYTES = 1024  # weights up to this size stay in the graph, where shape inference can read them


class Channels(NamedTuple):
    """What passed through one tensor of K channels: its extremes over every row, and some of its rows."""

    low: Floats  # (K,)
    high: Floats  # (K,)
    fitted_low: Floats  # (K,): without the held-out texts
    fitted_high: Floats  # (K,)
    sample: Floats  # (R, K)
    held_out: Floats  # (R', K)


class _Tracker:
    """Extremes and sample rows of one tensor, for fitted texts [0] and for held-out texts [1]."""

    def __init__(self) -> None:
        self._low: list[list[Floats]] = [[], []]
        self._high: list[list[Floats]] = [[], []]
        self._rows: list[list[Floats]] = [[], []]

    def add(self, x: Floats, chosen: npt.NDArray[np.int64], *, held_out: bool) -> bool:
        """Count every row of x (R, K), keep those in `chosen`; False where a value is not finite."""
        low, high = x.min(0), x.max(0)  # (K,), (K,)
        self._low[held_out] = [np.minimum.reduce([*self._low[held_out], low])]
        self._high[held_out] = [np.maximum.reduce([*self._high[held_out], high])]
        self._rows[held_out].append(x[chosen % len(x)])  # a table of positions has other rows than the text
        return bool(np.isfinite(low).all() and np.isfinite(high).all())

    def channels(self) -> Channels:
        """What was seen. With a single text, it is held-out text as well."""
        rows = [np.concatenate(part) for part in self._rows if part]
        low, high = self._low[0] + self._low[1], self._high[0] + self._high[1]
        return Channels(np.minimum.reduce(low), np.maximum.reduce(high), low[0], high[0], rows[0], rows[-1])


def open_session(
    model: onnx.ModelProto, outputs: Iterable[str] = (), *, optimize: bool = True, threads: int = 2
) -> ort.InferenceSession:
    """Open `model` on the CPU, with the tensors named in `outputs` as further graph outputs.

    The weights are handed over beside the graph and not copied into a message: protobuf messages end at 2 GB.
    """
    light = skeleton(model)
    light.graph.node.extend(model.graph.node)
    light.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    large: dict[str, ort.OrtValue] = {}
    read = {name for node in model.graph.node for name in node.input}
    for tensor in model.graph.initializer:
        if tensor.name not in read:
            continue  # onnxruntime drops it, and would then not know whose values these are
        if len(tensor.raw_data) <= _INLINE_BYTES:
            light.graph.initializer.append(tensor)
            continue
        large[tensor.name] = ort.OrtValue.ortvalue_from_numpy(numpy_helper.to_array(tensor))
        light.graph.initializer.append(_placeholder(tensor))
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_external_initializers(list(large), list(large.values()))
    return ort.InferenceSession(
        light.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED_OPTIMIZERS
    )


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy `model` without its nodes and weights: inputs, outputs, versions and metadata."""
    graph = onnx.GraphProto(name=model.graph.name, input=model.graph.input, output=model.graph.output)
    return onnx.ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        metadata_props=model.metadata_props,
        functions=model.functions,
        graph=graph,
    )


def tensor_types(model: onnx.ModelProto) -> dict[str, str]:
    """Type of everything that a node makes, such as "tensor(float)", as onnxruntime infers it for its own ops too."""
    given = {value.name for value in model.graph.output}
    made = [name for node in model.graph.node for name in node.output if name and name not in given]
    return {value.name: value.type for value in open_session(model, made, optimize=False).get_outputs()}


def random_texts(model: onnx.ModelProto, calibration: Sequence[Ids]) -> list[Ids]:
    """Random ids of the vocabulary between the first and the last token of a calibration text, one row for each 16.

    The vocabulary is as large as the embedding table that the input looks up; no table, no texts.

    Returns:
        Arrays (1, S) with S up to 64 or the longest calibration text.
    """
    name = model.graph.input[0].name
    sizes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    lookups = [node.input[0] for node in model.graph.node if node.op_type == "Gather" and node.input[1] == name]
    vocabulary = next((sizes[table][0] for table in lookups if table in sizes), 0)
    if not vocabulary:
        return []
    rng = np.random.default_rng(0)
    longest = max(ids.shape[1] for ids in calibration)
    texts = []
    for _ in range(max(4, len(calibration) // 16)):
        size = int(rng.integers(min(4, longest), min(64, longest) + 1))
        ids = rng.integers(0, vocabulary, (1, size))
        ids[0, 0], ids[0, -1] = calibration[0][0, 0], calibration[0][0, -1]
        texts.append(ids)
    return texts


def observe(
    model: onnx.ModelProto, tensors: dict[str, str], texts: Sequence[Ids], rows: int, held_out: Collection[int]
) -> dict[str, Channels]:
    """Statistics of each of `tensors` over `texts`, in one pass and in memory bounded by `rows`.

    Every token of every text counts for the extremes. The sampled rows are as many from a short text as from a long
    one, because pooling gives every text the same weight.

    Args:
        model: the float32 graph.
        tensors: name of a tensor (..., K) -> name of the node that reads it, for error messages.
        texts: token ids, each (B, S).
        rows: number of rows to sample over all texts.
        held_out: numbers of the texts whose rows measure what the others fitted; not all of them.

    Raises:
        NonFiniteError: one of the tensors held NaN or infinity.
    """
    if not tensors:
        return {}
    session = open_session(model, tensors)
    name = session.get_inputs()[0].name
    keep = max(1, rows // max(1, sum(len(ids) for ids in texts)))
    rng = np.random.default_rng(0)
    trackers = {tensor: _Tracker() for tensor in tensors}
    for number, ids in enumerate(texts):
        chosen = rng.permutation(ids.size)[: keep * len(ids)]
        for tensor, x in zip(tensors, session.run(list(tensors), {name: ids}), strict=True):
            rows_seen = x.reshape(-1, x.shape[-1])  # (B * S, K)
            if not trackers[tensor].add(rows_seen, chosen, held_out=number in held_out):
                raise NonFiniteError(
                    f"the input {tensor!r} of node {tensors[tensor]!r} holds NaN or infinity on calibration text "
                    f"{number}; int8 needs finite activations: check the fp32 graph on this text first"
                )
    return {tensor: tracker.channels() for tensor, tracker in trackers.items()}


def pooled(model: onnx.ModelProto, texts: Sequence[Ids]) -> Floats:
    """What a user sees of the first output of `model` for each row of `texts`, normalized: (sum of B, H).

    Of token embeddings (B, S, H) their mean, of pooled logits (B, V) the weights log(1 + relu(x)) of a SPLADE model.
    """
    session = open_session(model)
    name, first = session.get_inputs()[0].name, [session.get_outputs()[0].name]
    outputs = [session.run(first, {name: ids})[0] for ids in texts]  # (B, S, H) or (B, V) each
    vectors = np.concatenate([x.mean(1) if x.ndim == _TOKEN_AXES else np.log1p(np.maximum(x, 0)) for x in outputs])
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def _placeholder(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """`tensor` without its data, marked as kept elsewhere."""
    place = onnx.StringStringEntryProto(key="location", value="memory")
    return onnx.TensorProto(
        name=tensor.name,
        dims=tensor.dims,
        data_type=tensor.data_type,
        data_location=onnx.TensorProto.EXTERNAL,
        external_data=[place],
    )
