"""Graphs opened in onnxruntime on the CPU, and texts to run through them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from trivec._engine.row_feeds import feed
from trivec._model.manifest import ROWS

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
# Add + LayerNormalization is several times faster than the kernel that this optimizer would fuse them into.
DISABLED_OPTIMIZERS = ["SkipLayerNormFusion"]
_INLINE_BYTES = 1024  # weights up to this size stay in the graph, where shape inference can read them


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
    # what is done with the outputs is not done by its threads, which would spin meanwhile: half of the CPU's time
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_external_initializers(list(large), list(large.values()))
    return ort.InferenceSession(
        light.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED_OPTIMIZERS
    )


class Example(NamedTuple):
    """Rows of one length, as a graph reads them."""

    ids: Ids
    """(B, S)."""
    second: Ids | None = None
    """(B,) of pairs: where their token types change."""

    def feeds(self, inputs: Iterable[str]) -> dict[str, Ids]:
        """What a graph with these inputs is given."""
        return {name: feed(name, self.ids, self.second) for name in inputs}

    def cut(self, most: int) -> "Example":
        """Their first tokens."""
        return self._replace(ids=self.ids[:, :most])


def examples_of(rows: Iterable[Ids | Example]) -> list[Example]:
    """Arrays of ids (S,) or (B, S), and examples, as examples."""
    return [row if isinstance(row, Example) else Example(np.atleast_2d(row)) for row in rows]


class GraphSession:
    """A graph in the place of a session of the runtime, before it is a file."""

    layout = ROWS

    def __init__(self, graph: onnx.ModelProto) -> None:
        self._session = open_session(graph)

    def run_all(self, ids: Ids, outputs: Sequence[str], second: Ids | None = None) -> list[Floats]:
        """Rows of equal length (B, S) to some of the graph's outputs, float32; `second` as of the runtime's session."""
        feeds = Example(ids, second).feeds(value.name for value in self._session.get_inputs())
        made: list[Floats] = self._session.run(list(outputs), feeds)
        return made


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


def random_texts(model: onnx.ModelProto, calibration: Sequence[Ids | Example]) -> list[Example]:
    """Random ids of the vocabulary between the first and the last token of a calibration text, one row for each 16.

    The vocabulary is as large as the embedding table that the input looks up; no table, no texts. Where the calibration
    texts are pairs with token types, so are these.

    Returns:
        Examples (1, S) with S up to 64 or the longest calibration text.
    """
    examples = examples_of(calibration)
    name = model.graph.input[0].name
    sizes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    lookups = [node.input[0] for node in model.graph.node if node.op_type == "Gather" and node.input[1] == name]
    vocabulary = next((sizes[table][0] for table in lookups if table in sizes), 0)
    if not vocabulary:
        return []
    rng = np.random.default_rng(0)
    longest = max(example.ids.shape[1] for example in examples)
    texts = []
    for _ in range(max(4, len(examples) // 16)):
        size = int(rng.integers(min(4, longest), min(64, longest) + 1))
        ids = rng.integers(0, vocabulary, (1, size))
        ids[0, 0], ids[0, -1] = examples[0].ids[0, 0], examples[0].ids[0, -1]
        second = None if examples[0].second is None else rng.integers(1, size + 1, 1)
        texts.append(Example(ids, second))
    return texts


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
