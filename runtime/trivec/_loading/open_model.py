"""From a model's files to an open encoder: no names, no export."""

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trivec._encoders.load_options import LoadOptions
from trivec._encoders.pipeline import Pipeline, check_arrays
from trivec._encoders.text_encoder import TextEncoder
from trivec._engine.devices import Device
from trivec._engine.session import Session, available_devices
from trivec._errors import InputError, ModelFormatError, ProviderError
from trivec._loading.choice import candidates, check_arguments, check_layout, graph_for, wanted, warn_once
from trivec._loading.open_static import open_static
from trivec._model import manifest_file
from trivec._model.derived import SENTENCE_OUTPUT, choose_output, derive, read_step_arrays
from trivec._model.families import FAMILIES
from trivec._model.manifest import FILE_NAME, ROWS, EncoderSpec, Manifest, Route
from trivec._model.source import Source
from trivec._model.static_model import STATIC
from trivec._system.threads import available_threads
from trivec._tokens.tokenizer import TextTokenizer
from trivec._vectors.arrays import Floats

NO_GRAPH = "fp32"
"""The precision of a table of weights, which no graph stands behind."""


def open_model(source: Source, options: LoadOptions, manifest: Manifest | None = None) -> TextEncoder[Any]:
    """Open the encoder of a model whose files are at hand.

    Args:
        source: the model.
        options: of `load`; the name in them is for messages.
        manifest: what `read_manifest` has said of it; None: read it.

    Raises:
        ModelNotFoundError, ModelFormatError, IntegrityError, ProviderError, MissingExtraError, InputError: see `load`.
    """
    device = wanted(options)
    manifest = read_manifest(source, options.task) if manifest is None else manifest
    options = dataclasses.replace(options, reopen=reopen)
    if manifest.family == STATIC:
        return open_static(source, manifest, device, options)
    available = available_devices()
    if not any(encoder.variants for encoder in manifest.encoders.values()):
        return _open(source, manifest, Device("cpu"), NO_GRAPH, options)
    attempts = candidates(device, options.precision, manifest.precisions(), available, source.name)
    for attempt, (target, variant) in enumerate(attempts):
        try:
            return _open(source, manifest, target, variant, options)
        except ProviderError as error:
            if attempt + 1 == len(attempts):
                raise
            warn_once(str(target), f"{target} is not used: {error}")
    raise AssertionError("unreachable: candidates gives at least one")


def reopen(options: LoadOptions, settings: Mapping[str, Any], lengths: Mapping[str, int | None]) -> TextEncoder[Any]:
    """An encoder from its pickle: the same folder or commit, device, settings and max_seq_length of each route."""
    known = {field.name for field in dataclasses.fields(LoadOptions)}
    given = {name: value for name, value in settings.items() if name in known}
    rest = {name: value for name, value in settings.items() if name not in known}
    options = dataclasses.replace(options, files=None, **given)
    check_arguments(options.precision, options.threads, options.similarity_fn_name, options.layout)
    encoder = open_model(options.find(options.name), options)
    encoder.restore(lengths, **rest)
    return encoder


def read_manifest(source: Source, task: str | None) -> Manifest:
    """What a model says of itself, with one route alone where a task is given.

    Raises:
        ModelNotFoundError: there are only torch weights, or nothing at all.
        InputError: task is no route of it.
    """
    path = source.file(FILE_NAME)
    found = derive(source) if path is None else manifest_file.loads(path.read_bytes(), str(path))
    return _only(found, task, source.name)


def _only(manifest: Manifest, task: str | None, name: str) -> Manifest:
    """The manifest with one route alone, and the encoder that it needs."""
    if task is None:
        return manifest
    if list(manifest.routes) == ["default"]:  # a model without a Router reads every task alike
        return manifest
    if task not in manifest.routes:
        raise InputError(f"task {task!r} is no route of {name}. Expected one of {sorted(manifest.routes)}.")
    route = manifest.routes[task]
    encoders = {route.encoder: manifest.encoders[route.encoder]}
    return dataclasses.replace(manifest, encoders=encoders, routes={task: route}, default_route=task)


def _class_of(family: str) -> type[TextEncoder[Any]]:
    module, _, name = FAMILIES[family].encoder.partition(":")
    found: type[TextEncoder[Any]] = getattr(importlib.import_module(f"trivec._encoders.{module}"), name)
    return found


def _open(source: Source, manifest: Manifest, device: Device, precision: str, options: LoadOptions) -> TextEncoder[Any]:
    """Fetch and check the variant's files, then open one session an encoder."""
    check_layout(manifest, precision, device, options)
    available = available_threads()
    threads, spin = options.threads or available.count, available.quota is None
    files = {ref.path: source.checked(ref) for ref in manifest.files(precision)}
    stored = _read_arrays(files[manifest.arrays.path]) if manifest.arrays else {}
    opened: dict[str, tuple[TextTokenizer, Session | None]] = {}
    pipelines = {}
    for name, route in manifest.routes.items():
        encoder = graph_for(manifest.encoders[route.encoder], precision, device, options.layout)
        if route.encoder not in opened:
            graph = [files[ref.path] for ref in encoder.variants[precision].files] if encoder.variants else []
            tokenizer = TextTokenizer(files[encoder.tokenizer.path], encoder)
            opened[route.encoder] = (
                tokenizer,
                Session(
                    graph,
                    device=device,
                    threads=threads,
                    spin=spin,
                    providers=options.providers,
                    layout=encoder.variants[precision].layout,
                )
                if graph
                else None,
            )
        arrays = stored if manifest.dim else read_step_arrays(source, route.steps)
        pipelines[name] = _pipeline(manifest, route, encoder, *opened[route.encoder], arrays, precision)
        if manifest.dim and (width := _width(pipelines[name])) != manifest.dim:
            raise ModelFormatError(f"{source.name}: route {name} gives {width} numbers, not {manifest.dim}.")
    mixed = any(session is not None and session.layout != ROWS for _, session in opened.values())
    layout = "mixed" if mixed else "rows"
    return _class_of(manifest.family)(manifest, pipelines, options.opened(source, precision, layout, files))


def _width(pipeline: Pipeline) -> int:
    """Numbers of a dense vector, or terms of a sparse row where there are no dense vectors."""
    head = pipeline.sparse
    if head is None or head.kind == "lexical":
        return pipeline.dim
    if head.kind == "table":
        return len(pipeline.arrays.get(head.array, ()))
    stated = None if pipeline.session is None else pipeline.session.outputs.get(head.output)
    return head.dim if stated is None else stated


def _pipeline(
    manifest: Manifest,
    route: Route,
    encoder: EncoderSpec,
    tokenizer: TextTokenizer,
    session: Session | None,
    arrays: Mapping[str, Floats],
    precision: str,
) -> Pipeline:
    check_arrays(route.steps, arrays)
    if session is None:
        return Pipeline(encoder, tokenizer, None, "", None, (), arrays, route.sparse)
    output = encoder.variants[precision].output or choose_output(
        tuple(session.outputs), has_modules=bool(manifest.source.get("has_modules"))
    )
    pooling, steps = route.pooling, route.steps
    if output == SENTENCE_OUTPUT:
        pooling = None
        if not encoder.variants[precision].output:  # no manifest: the graph also does what follows pooling
            steps = ()
    return Pipeline(encoder, tokenizer, session, output, pooling, steps, arrays, route.sparse, route.multi)


def _read_arrays(path: Path) -> dict[str, Floats]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (ValueError, OSError, EOFError) as error:
        raise ModelFormatError(f"{path} is no readable .npz file: {error}") from error
