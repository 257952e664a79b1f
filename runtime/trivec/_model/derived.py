"""A manifest for a folder that has ONNX graphs but none: what sentence-transformers, Optimum and the Hub hold.

It has no gate on record, and its graphs run as they are, masks and all. A static model's table runs as it is too.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError, ModelFormatError, ModelNotFoundError
from trivec._model.checkpoint import Checkpoint, graph_family, read_checkpoint
from trivec._model.families import scores_pairs
from trivec._model.graph_file import read_weights
from trivec._model.hub import Repository
from trivec._model.json_files import join, understood
from trivec._model.manifest import PRECISIONS, EncoderSpec, FileRef, Manifest, Pooling, Route, Step, Variant
from trivec._model.manifest_file import check_types
from trivec._model.modules import TransformerSpec
from trivec._model.pooling_hints import BY_ARGUMENT, find_pooling
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


def derive(
    source: Source,
    *,
    file_name: str | None = None,
    pooling: str | None = None,
    cache_dir: str | None = None,
    fetch: bool = True,
) -> Manifest:
    """Describe a folder or repository from its JSON files and the names of its graphs.

    Args:
        source: the model.
        file_name: the graph, by its path in the model or in its folder `onnx`; None: by the usual names, else the only
            one.
        pooling: of a model whose files do not say it in a modules.json; None: what its other files tell, else a guess,
            and `source["pooling"]` says which.
        cache_dir: the Hub's cache folder, where its base model may be; None: its default.
        fetch: whether a graph of another name, whose precision only its weights tell, may be fetched; else its name
            has to do.

    Raises:
        ModelNotFoundError: it has no ONNX graph and is no static model; the message has the line that makes one. Or it
            has several, and none of a usual name or of the one asked for.
        ModelFormatError: its modules are not ones that trivec runs.
        InputError: pooling is given, and the model says another one.
    """
    with understood(source):
        manifest = _derived(source, file_name, pooling, cache_dir, fetch=fetch)
        check_types(manifest, f"{source.name}: what its JSON files say")
        return manifest


def _derived(
    source: Source, file_name: str | None, pooling: str | None, cache_dir: str | None, *, fetch: bool
) -> Manifest:
    names = source.names()
    static = static_spec(source)  # asked first: some have a graph as well, which their table makes needless
    if static is not None:
        manifest = static_manifest(source, static)
        check_pooling(source, manifest.routes, pooling)
        if file_name is not None:
            raise InputError(
                f"file_name={file_name!r}: {source.name} is a static model, which runs no graph. Leave it out."
            )
        return manifest
    is_model = not {"config.json", "modules.json", "tokenizer.json"}.isdisjoint(names)
    if not is_model or not any(name.endswith(".onnx") for name in names):
        raise ModelNotFoundError(_no_graph(source, names, is_model=is_model))
    checkpoint = read_checkpoint(source, graph_family(source))
    encoders = {}
    for key, spec in checkpoint.transformers.items():
        graphs = _graphs(source, PurePosixPath(spec.folder), names, file_name, fetch=fetch)
        encoders[key] = _encoder(source, spec, names, graphs)
    routes, said = _routes(source, checkpoint, pooling, cache_dir)
    revision = source.revision if isinstance(source, Repository) else None
    return Manifest(
        family=checkpoint.family,
        dim=None,
        encoders=encoders,
        routes=routes,
        default_route=checkpoint.default_route,
        prompts=checkpoint.prompts,
        default_prompt_name=checkpoint.default_prompt_name,
        similarity=checkpoint.similarity,
        truncate_dim=checkpoint.truncate_dim,
        source={"name": source.name, "revision": revision, "has_modules": checkpoint.has_modules, **said},
    )


def check_pooling(source: Source, routes: Mapping[str, Route], pooling: str | None) -> None:
    """Raise InputError where a pooling is asked for that is not the one that the model itself says."""
    said = ["+".join(route.pooling.modes) if route.pooling is not None else "none" for route in routes.values()]
    if pooling is not None and set(said) != {pooling}:
        raise InputError(
            f"pooling={pooling!r}: {source.name} is pooled by {', '.join(dict.fromkeys(said))}, and pooling= is for "
            "graphs without manifest and modules.json. Leave it out."
        )


def _routes(
    source: Source, checkpoint: Checkpoint, pooling: str | None, cache_dir: str | None
) -> tuple[Mapping[str, Route], dict[str, str]]:
    """The routes, and what said how they pool where that is not modules.json."""
    if scores_pairs(checkpoint.family):
        if pooling is not None:
            raise InputError(f"pooling={pooling!r}: {source.name} scores pairs of texts. Leave it out.")
        return checkpoint.routes, {}
    if not checkpoint.assumes_pooling:
        check_pooling(source, checkpoint.routes, pooling)
        return checkpoint.routes, {}
    route = checkpoint.routes["default"]
    if pooling is not None:
        return {"default": replace(route, pooling=Pooling((pooling,)))}, {"pooling": BY_ARGUMENT}
    hint = find_pooling(source, route, cache_dir=cache_dir)
    return {"default": hint.route}, {"pooling": hint.by}


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


def other_graphs(source: Source, manifest: Manifest) -> list[str]:
    """The graphs of a model without a manifest that no variant stands for."""
    if manifest.dim is not None:
        return []
    used = {ref.path for precision in manifest.precisions() for ref in manifest.files(precision)}
    return [name for name in source.names() if name.endswith(".onnx") and name not in used]


def with_external_data(
    source: Source, manifest: Manifest, precision: str, files: Mapping[str, Path]
) -> tuple[Manifest, dict[str, Path]]:
    """A derived manifest with every file that its graphs say their weights are in, and where all the files lie.

    Args:
        source: the model.
        manifest: as `derive` gives it: it knows the files that are named after a graph.
        precision: the variant.
        files: where those lie.

    Raises:
        ModelFormatError: a graph names a file that is not in the model.
    """
    found, encoders = dict(files), dict(manifest.encoders)
    for key, encoder in encoders.items():
        variant = encoder.variants[precision]
        known, graph = {ref.path for ref in variant.files}, variant.files[0].path
        beside = (join(str(PurePosixPath(graph).parent), name) for name in read_weights(files[graph]).locations)
        more = [path for path in beside if path not in known]
        for path in more:
            place = source.file(path)
            if place is None:
                where = f" in {source.where()}" if isinstance(source, Repository) else ""
                raise ModelFormatError(f"{source.name}: {graph} has weights in {path}, which is not there{where}.")
            found[path] = place
        files_of = (*variant.files, *map(FileRef, more))
        encoders[key] = replace(encoder, variants={**encoder.variants, precision: replace(variant, files=files_of)})
    return replace(manifest, encoders=encoders), found


def _encoder(source: Source, spec: TransformerSpec, names: list[str], graphs: Mapping[str, str]) -> EncoderSpec:
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
        graph = graphs.get(precision)
        if graph is not None:
            data = [name for name in names if name.startswith(graph) and name != graph]
            variants[precision] = Variant(tuple(FileRef(name) for name in (graph, *data)), needs=NEEDS[precision])
    return EncoderSpec(
        FileRef(tokenizer), spec.max_seq_length, spec.max_positions, variants, spec.truncation_side, spec.lower_case
    )


def _graphs(
    source: Source, folder: PurePosixPath, names: list[str], file_name: str | None, *, fetch: bool
) -> dict[str, str]:
    """The graph of each precision: those of usual names, else the only one; or the one that was asked for."""
    usual = {p: graph for p in PRECISIONS if (graph := _find_graph(names, folder, p)) is not None}
    listed = [name for name in names if name.endswith(".onnx") and PurePosixPath(name).is_relative_to(folder)]
    if file_name is None and usual:
        return usual
    asked = [join(place, file_name) for place in (folder.as_posix(), f"{folder}/onnx")] if file_name else listed
    found = [name for name in asked if name in listed]
    if not listed:
        raise ModelNotFoundError(
            f"{source.name} has graphs, and none in {folder} or {folder}/onnx, where one has to be."
        )
    if not found or (file_name is None and len(found) > 1):
        what = "none of the usual names" if file_name is None else f"none of the name {file_name!r}"
        raise ModelNotFoundError(
            f"{source.name} has graphs, and {what}: {', '.join(listed)}. Type: trivec.load({source.name!r}, "
            f"file_name={listed[0]!r})"
        )
    graph = found[0]
    path = source.file(graph) if fetch else None
    return {_named_precision(graph) if path is None else read_weights(path).precision: graph}


def _named_precision(graph: str) -> str:
    """What a graph's name says of it, for those who may not look into it."""
    name = PurePosixPath(graph).name
    if re.search("int8|q4|q8|bnb4|quant", name):
        return "int8"
    return "fp16" if re.search("fp16|O4", name) else "fp32"


def _find_graph(names: list[str], folder: PurePosixPath, precision: str) -> str | None:
    for place in (folder / "onnx", folder):
        for pattern in _GRAPHS[precision]:
            found = [n for n in names if PurePosixPath(n).parent == place and PurePosixPath(n).match(pattern)]
            if found:
                return found[0]
    return None


def _no_graph(source: Source, names: list[str], *, is_model: bool) -> str:
    if is_model and isinstance(source, Repository) and source.is_offline and not source.is_listed:
        return (
            f"{source.name} has no ONNX graph in {source.where()}; whether it has one on the Hub is not known. Load it "
            f"once where the Hub may be asked, or type: trivec export {source.name} OUT"
        )
    if is_model and any(name.endswith((".safetensors", ".bin")) for name in names):
        return (
            f"{source.name} is a checkpoint without ONNX graphs. Type: trivec export {source.name} OUT   "
            "(or load(..., export=True) where trivec[export] is installed)"
        )
    return (
        f"{source.name} is no model: it has neither a trivec.json nor a config.json with onnx/model.onnx. Expected a "
        "folder written by `trivec export`, or one with modules.json and onnx/model.onnx."
    )
