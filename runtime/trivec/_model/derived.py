"""A manifest for a folder that has ONNX graphs but none: what sentence-transformers, Optimum and the Hub hold.

It has no gate on record, and its graphs run as they are, masks and all. A static model's table runs as it is too.
"""

from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from trivec._errors import ModelFormatError, ModelNotFoundError
from trivec._model.checkpoint import read_checkpoint
from trivec._model.hub import Repository
from trivec._model.manifest import PRECISIONS, EncoderSpec, FileRef, Manifest, Step, Variant
from trivec._model.modules import TransformerSpec
from trivec._model.settings import TOKENIZER, check_settings
from trivec._model.source import Source
from trivec._model.static_model import EXTRA, static_manifest, static_spec
from trivec._model.tensor_files import read_tensors

TOKEN_OUTPUTS = ("token_embeddings", "last_hidden_state")
SENTENCE_OUTPUT = "sentence_embedding"
NEEDS = {"fp32": (), "fp16": ("cuda",), "int8": ("cpu",)}
# File names by which a graph's precision is known, best first; a trailing * stands for a CPU's name.
_GRAPHS = {
    "fp32": ("model.onnx",),
    "fp16": ("model_fp16.onnx",),
    "int8": ("model_int8.onnx", "model_quantized.onnx", "model_quint8_*.onnx", "model_qint8_*.onnx"),
}


def derive(source: Source) -> Manifest:
    """Describe a folder or repository from its JSON files and the names of its graphs.

    Raises:
        ModelNotFoundError: it has no ONNX graph and is no static model; the message has the line that makes one.
        ModelFormatError: its modules are not ones that trivec runs.
    """
    names = source.names()
    static = static_spec(source)  # asked first: some have a graph as well, which their table makes needless
    if static is not None:
        return static_manifest(source, static)
    is_model = not {"config.json", "modules.json", "tokenizer.json"}.isdisjoint(names)
    if not is_model or not any(name.endswith(".onnx") for name in names):
        raise ModelNotFoundError(_no_graph(source, names, is_model=is_model))
    checkpoint = read_checkpoint(source, "dense")  # sparse and multi-vector heads need graphs of our own
    encoders = {key: _encoder(source, spec, names) for key, spec in checkpoint.transformers.items()}
    revision = source.revision if isinstance(source, Repository) else None
    return Manifest(
        family="dense",
        dim=None,
        encoders=encoders,
        routes=checkpoint.routes,
        default_route=checkpoint.default_route,
        prompts=checkpoint.prompts,
        default_prompt_name=checkpoint.default_prompt_name,
        similarity=checkpoint.similarity,
        truncate_dim=checkpoint.truncate_dim,
        source={"name": source.name, "revision": revision, "has_modules": checkpoint.has_modules},
    )


def choose_output(outputs: tuple[str, ...], *, has_modules: bool) -> str:
    """Token embeddings where modules.json says how to pool them, else the graph's own sentence embedding.

    Raises:
        ModelFormatError: the graph has neither.
    """
    tokens = next((name for name in TOKEN_OUTPUTS if name in outputs), None)
    sentence = SENTENCE_OUTPUT if SENTENCE_OUTPUT in outputs else None
    chosen = (tokens or sentence) if has_modules else (sentence or tokens)
    if chosen is None:
        raise ModelFormatError(
            f"the graph has the outputs {', '.join(outputs)}; expected one of {', '.join(TOKEN_OUTPUTS)} or "
            f"{SENTENCE_OUTPUT}. Export the checkpoint with: trivec export"
        )
    return chosen


def read_step_arrays(source: Source, steps: tuple[Step, ...]) -> dict[str, npt.NDArray[np.float32]]:
    """The weights of Dense and LayerNorm modules, from their model.safetensors, float32.

    Raises:
        MissingExtraError: safetensors is not installed.
        ModelFormatError: a module has no model.safetensors.
    """
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for step in steps:
        if not step.arrays:
            continue
        path = source.file(f"{step.arrays}/model.safetensors")
        if path is None:
            raise ModelFormatError(
                f"{source.name}: {step.arrays} has no model.safetensors. Export the checkpoint instead: "
                f"trivec export {source.name} OUT"
            )
        why = f"{source.name} has a {step.kind} layer in safetensors"
        weights = read_tensors(path, extra=EXTRA, why=why)
        arrays.update(rename_step_arrays(step, weights))
    return arrays


def rename_step_arrays(step: Step, weights: dict[str, npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[np.float32]]:
    """A module's weights under the names that `apply_steps` reads: <arrays>.weight, .bias, .residual."""
    known = {
        "linear.weight": "weight",
        "linear.bias": "bias",
        "norm.weight": "weight",
        "norm.bias": "bias",
        "residual.weight": "residual",
    }
    unknown = sorted(weights.keys() - known.keys())
    if unknown:
        raise ModelFormatError(
            f"{step.arrays} has the weights {', '.join(unknown)}, which a {step.kind} layer does not read: the vectors "
            "would be others without them."
        )
    return {f"{step.arrays}.{known[key]}": value.astype(np.float32) for key, value in weights.items()}


def _encoder(source: Source, spec: TransformerSpec, names: list[str]) -> EncoderSpec:
    folder = PurePosixPath(spec.folder)
    tokenizer = (folder / "tokenizer.json").as_posix()
    if tokenizer not in names:
        raise ModelFormatError(
            f"{source.name} has no {tokenizer}; trivec reads fast tokenizers only. Export the checkpoint with: "
            f"trivec export {source.name} OUT"
        )
    check_settings(source, "the Transformer's processor_kwargs", spec.tokenizer_kwargs, TOKENIZER)
    if spec.message is not None:
        raise ModelFormatError(
            f"{source.name}: its texts go through a chat template, which only an export writes down. Type: "
            f"trivec export {source.name} OUT"
        )
    variants = {}
    for precision in PRECISIONS:
        graph = _find_graph(names, folder, precision)
        if graph is not None:
            data = [name for name in names if name.startswith(graph) and name != graph]
            variants[precision] = Variant(tuple(FileRef(name) for name in (graph, *data)), needs=NEEDS[precision])
    return EncoderSpec(
        FileRef(tokenizer), spec.max_seq_length, spec.max_positions, variants, spec.truncation_side, spec.lower_case
    )


def _find_graph(names: list[str], folder: PurePosixPath, precision: str) -> str | None:
    for place in (folder / "onnx", folder):
        for pattern in _GRAPHS[precision]:
            found = [n for n in names if PurePosixPath(n).parent == place and PurePosixPath(n).match(pattern)]
            if found:
                return found[0]
    return None


def _no_graph(source: Source, names: list[str], *, is_model: bool) -> str:
    if is_model and any(name.endswith((".safetensors", ".bin")) for name in names):
        return (
            f"{source.name} is a checkpoint without ONNX graphs. Type: trivec export {source.name} OUT   "
            "(or load(..., export=True) where trivec[export] is installed)"
        )
    return (
        f"{source.name} is no model: it has neither a trivec.json nor a config.json with onnx/model.onnx. Expected a "
        "folder written by `trivec export`, or one with modules.json and onnx/model.onnx."
    )
