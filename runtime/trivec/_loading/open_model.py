"""From a model's files to an open encoder: no names, no export."""

import dataclasses
import importlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trivec._encoders.load_options import LoadOptions
from trivec._encoders.pipeline import Pipeline, check_arrays
from trivec._encoders.row_model import RowModel
from trivec._engine.devices import BF16, OPENVINO, Device, IdleProviderError
from trivec._engine.graph_session import GraphSession
from trivec._engine.openvino_session import OpenVinoSession, has_bf16
from trivec._engine.row_feeds import SEEN
from trivec._engine.session import Session, available_devices
from trivec._errors import InputError, ModelFormatError, ProviderError
from trivec._loading.choice import (
    candidates,
    check_arguments,
    check_layout,
    graph_for,
    threads_for,
    wanted,
    warn_once,
    with_bf16,
)
from trivec._loading.open_static import open_static
from trivec._model import manifest_file
from trivec._model.array_file import known_shapes, read_arrays
from trivec._model.derived import (
    SENTENCE_OUTPUT,
    check_pooling,
    choose_output,
    derive,
    other_graphs,
    read_step_arrays,
    with_external_data,
)
from trivec._model.families import FAMILIES
from trivec._model.held_file import HeldFile
from trivec._model.manifest import FILE_NAME, ROWS, EncoderSpec, Manifest, Route, Score
from trivec._model.pin import check_digests, read_pinned, unverified_files
from trivec._model.pooling_hints import ASSUMED, BY_ARGUMENT
from trivec._model.scores import choose_scores
from trivec._model.source import Source
from trivec._model.static_model import STATIC
from trivec._system.threads import Threads
from trivec._tokens.late_tokenizer import LateTokenizer, late_encoder
from trivec._tokens.pair_tokenizer import PairTokenizer
from trivec._tokens.tokenizer import TextTokenizer
from trivec._vectors.arrays import Floats

logger = logging.getLogger("trivec")
NO_GRAPH = "fp32"
"""The precision of a table of weights, which no graph stands behind."""


def open_model(source: Source, options: LoadOptions, manifest: Manifest | None = None) -> RowModel[Any]:
    """Open the encoder, or reranker, of a model whose files are at hand.

    Args:
        source: the model.
        options: of `load`; the name in them is for messages.
        manifest: what `read_manifest` has said of it; None: read it.

    Raises:
        ModelNotFoundError, ModelFormatError, IntegrityError, ProviderError, MissingExtraError, InputError: see `load`.
    """
    device = wanted(options)
    manifest = read_manifest(source, options) if manifest is None else manifest
    options = dataclasses.replace(options, reopen=reopen)
    if manifest.family == STATIC:
        return open_static(source, manifest, device, options)
    if options.engine == OPENVINO:
        manifest, available = with_bf16(manifest), ["cpu"]
    else:
        available = available_devices()
    if not any(encoder.variants for encoder in manifest.encoders.values()):
        return _open(source, manifest, Device("cpu"), NO_GRAPH, options)
    have, others = manifest.precisions(), other_graphs(source, manifest)
    attempts = candidates(device, options.precision, have, available, source.name, others)
    listed = ", ".join(f"{variant} on {target}" for target, variant in attempts)
    logger.debug("%s has %s; onnxruntime has %s; to be tried in turn: %s", source.name, have, available, listed)
    for attempt, (target, variant) in enumerate(attempts):
        try:
            return _open(source, manifest, target, variant, options)
        except ProviderError as error:
            if isinstance(error, IdleProviderError) and (rest := (options.providers or ())[1:]):
                # get_available_providers(), which many programs hand on, has Azure's first, which runs no local graph
                idle, following = (options.providers or ())[0].name, rest[0].name
                warn_once(idle, f"{idle} opens, but runs nothing of {source.name}; {following} is taken instead.")
                return open_model(source, dataclasses.replace(options, providers=rest), manifest)
            if attempt + 1 == len(attempts):
                raise
            warn_once(str(target), f"{target} is not used: {error}")
    raise AssertionError("unreachable: candidates gives at least one")


def warn_of_guess(encoder: RowModel[Any]) -> None:
    """Say once how token embeddings are pooled where no file of the model tells."""
    source, pooling = encoder.manifest.source, next(iter(encoder.routes.values())).pooling
    said = str(source.get("pooling", ""))
    if pooling is None or not said.startswith(ASSUMED) or encoder.manifest.dim is not None:
        return
    name, mode = str(source["name"]), "+".join(pooling.modes)
    other = "mean" if mode == "cls" else "cls"
    warn_once(
        f"pooling of {name}",
        f"{name} has no modules.json, and {mode} pooling is {said}. Where it was trained with another, its vectors are "
        f"wrong. Settle it: trivec.load({name!r}, pooling={other!r}), or {mode!r} where that is right.",
    )


def warn_of_unverified(encoder: RowModel[Any]) -> None:
    """Say once what of a manifest's files nothing can be said."""
    missing = unverified_files(encoder.manifest) if encoder.manifest.dim is not None else []
    if missing and encoder.manifest.family != STATIC:
        warn_once(
            f"digests of {encoder.name}",
            f"{encoder.name} is unverified: its {FILE_NAME} has no sha256 of {', '.join(missing)}.",
        )


def reopen(options: LoadOptions, settings: Mapping[str, Any], lengths: Mapping[str, int | None]) -> RowModel[Any]:
    """An encoder from its pickle: the same folder or commit, device, settings and max_seq_length of each route."""
    known = {field.name for field in dataclasses.fields(LoadOptions)}
    given = {name: value for name, value in settings.items() if name in known}
    rest = {name: value for name, value in settings.items() if name not in known}
    options = dataclasses.replace(options, **given)
    check_arguments(options.precision, options.threads, options.similarity_fn_name, options.layout, options.pooling)
    encoder = open_model(options.find(options.name), options)
    encoder.restore(lengths, **rest)
    return encoder


def read_manifest(source: Source, options: LoadOptions) -> Manifest:
    """What a model says of itself, with one route alone where a task is given.

    Raises:
        ModelNotFoundError: there are only torch weights, or nothing at all, or several graphs to choose from.
        InputError: task is no route of it, or file_name or pooling are given where the model itself says them.
        IntegrityError: its manifest is not the expected one.
        ModelFormatError: the manifest cannot be understood, or has no digests.
    """
    stated = read_pinned(source, options.expect)
    if stated is None:
        found = derive(source, file_name=options.file_name, pooling=options.pooling, cache_dir=options.cache_dir)
        return _only(found, options.task, source.name)
    if options.file_name is not None:
        raise InputError(
            f"file_name={options.file_name!r} is for models without a {FILE_NAME}, which names the graphs of "
            f"{source.name}. Choose one by precision= and layout=."
        )
    found = manifest_file.loads(stated.text, stated.where)
    check_digests(found, options.expect, stated.where)
    check_pooling(source, found.routes, options.pooling)
    return _only(found, options.task, source.name)


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


def _class_of(family: str) -> type[RowModel[Any]]:
    module, _, name = FAMILIES[family].encoder.partition(":")
    found: type[RowModel[Any]] = getattr(importlib.import_module(f"trivec._encoders.{module}"), name)
    return found


def _open(source: Source, manifest: Manifest, device: Device, precision: str, options: LoadOptions) -> RowModel[Any]:
    """Fetch and check the variant's files, then open one session an encoder."""
    check_layout(manifest, precision, device, options)
    threads = threads_for(options.threads)
    found = {ref.path: source.checked(ref) for ref in manifest.files(precision)}
    if manifest.dim is None:
        manifest, found = with_external_data(source, manifest, precision, found)
    digests = {ref.path: ref.sha256 for ref in manifest.files(precision)}
    files = {path: HeldFile(place, digests.get(path)) for path, place in found.items()}
    logger.debug(
        "%s is opened from %s, %d threads", source.name, [str(file.path) for file in files.values()], threads.count
    )
    stored = read_arrays(files[manifest.arrays.path].path, known_shapes(manifest)) if manifest.arrays else {}
    opened: dict[str, tuple[EncoderSpec, GraphSession | None]] = {}
    tokenizers: dict[tuple[str, str], TextTokenizer] = {}
    pipelines = {}
    for name, route in manifest.routes.items():
        if route.encoder not in opened:
            encoder = graph_for(manifest.encoders[route.encoder], precision, device, options.layout)
            graph = [files[ref.path] for ref in encoder.variants[precision].files] if encoder.variants else []
            layout = encoder.variants[precision].layout if graph else ROWS
            session = _session(graph, layout, device, precision, threads, options) if graph else None
            if session is not None and session.tokens is not None:
                encoder = _limited(encoder, session.tokens)
            opened[route.encoder] = (encoder, session)
        encoder, session = opened[route.encoder]
        reader = route.encoder, name if route.interacts_late else ""  # whose sides read by rules of their own
        if reader not in tokenizers:
            tokenizers[reader] = _tokenizer(files[encoder.tokenizer.path].path, encoder, route, session)
        arrays = stored if manifest.dim else read_step_arrays(source, route.steps)
        pipelines[name] = _pipeline(manifest, route, encoder, tokenizers[reader], session, arrays, precision)
        width = _width(source.name, pipelines[name])
        if manifest.dim and width != manifest.dim:
            raise ModelFormatError(f"{source.name}: route {name} gives {width} numbers, not {manifest.dim}.")
    mixed = any(session is not None and session.layout != ROWS for _, session in opened.values())
    layout = "mixed" if mixed else "rows"
    return _class_of(manifest.family)(manifest, pipelines, options.opened(source, precision, layout, files))


def _session(
    files: Sequence[HeldFile], layout: str, device: Device, precision: str, threads: Threads, options: LoadOptions
) -> GraphSession:
    """One graph, in the engine that was asked for."""
    if options.engine == OPENVINO:
        # What int8 leaves in float32, such as attention, is bf16 in OpenVINO wherever the CPU has it, unless told.
        bf16 = precision == BF16 or (precision == "int8" and has_bf16())
        return OpenVinoSession(files, bf16=bf16, threads=threads.count)
    return Session(
        files,
        device=device,
        threads=threads.count,
        spin=threads.quota is None,
        providers=options.providers,
        layout=layout,
        low_memory=options.low_memory,
    )


def _tokenizer(path: Path, encoder: EncoderSpec, route: Route, session: GraphSession | None) -> TextTokenizer:
    """Of texts, of one side of a late interaction, or of pairs where these are scored."""
    if route.interacts_late and route.multi is not None:
        return LateTokenizer(path, late_encoder(encoder, route), route.multi)
    if route.score is None:
        return TextTokenizer(path, encoder)
    return PairTokenizer(path, encoder, types=session is not None and "token_type_ids" in session.inputs)


def _limited(encoder: EncoderSpec, tokens: int) -> EncoderSpec:
    """The same for a graph that reads no more than so many tokens."""
    lengths = (n for n in (encoder.max_seq_length, tokens) if n is not None)
    return dataclasses.replace(encoder, max_seq_length=min(lengths), max_positions=tokens)


def _width(name: str, pipeline: Pipeline) -> int:
    """Numbers of a dense vector, or terms of a sparse row where there are no dense vectors, or scores of a pair."""
    if pipeline.score is not None:
        stated = None if pipeline.session is None else pipeline.session.outputs.get(pipeline.score.output)
        return len(pipeline.score.labels) if stated is None else stated
    head = pipeline.sparse
    if pipeline.multi is not None and pipeline.pooling is None and head is None:
        stated = None if pipeline.session is None else pipeline.session.outputs.get(pipeline.multi.output)
        return pipeline.multi.dim if stated is None else stated
    if head is None or head.kind == "lexical":
        try:
            return pipeline.dim
        except (ValueError, IndexError) as error:  # numpy's, over shapes
            raise ModelFormatError(f"{name}: what follows the graph does not fit its output: {error}") from error
    if head.kind == "table":
        return len(pipeline.arrays.get(head.array, ()))
    stated = None if pipeline.session is None else pipeline.session.outputs.get(head.output)
    return head.dim if stated is None else stated


def _scoring(
    manifest: Manifest, score: Score, encoder: EncoderSpec, tokenizer: TextTokenizer, session: GraphSession
) -> Pipeline:
    """A route that scores pairs; of a graph without a manifest, the output is told by its name."""
    if manifest.dim is None:
        score = dataclasses.replace(score, output=choose_scores(session.outputs, score.output))
        width = session.outputs[score.output]
        if width not in (None, len(score.labels)):
            raise ModelFormatError(
                f"{manifest.source['name']}: the graph gives {width} numbers of a pair, and config.json has the labels "
                f"{', '.join(score.labels)}. Export the checkpoint with: trivec export"
            )
    return Pipeline(encoder, tokenizer, session, score.output, None, (), {}, score=score)


def _pipeline(
    manifest: Manifest,
    route: Route,
    encoder: EncoderSpec,
    tokenizer: TextTokenizer,
    session: GraphSession | None,
    arrays: Mapping[str, Floats],
    precision: str,
) -> Pipeline:
    check_arrays(route.steps, arrays)
    if session is None:
        return Pipeline(encoder, tokenizer, None, "", None, (), arrays, route.sparse)
    if route.score is not None:
        return _scoring(manifest, route.score, encoder, tokenizer, session)
    if route.interacts_late and route.multi is not None:
        return Pipeline(encoder, tokenizer, session, route.multi.output, None, (), arrays, multi=route.multi)
    if SEEN in session.inputs:
        raise ModelFormatError(f"the graph has the input {SEEN!r}, which is of late interaction alone.")
    said = str(manifest.source.get("pooling", ""))
    output = encoder.variants[precision].output or choose_output(
        tuple(session.outputs), has_modules=bool(manifest.source.get("has_modules")) or said == BY_ARGUMENT
    )
    pooling, steps = route.pooling, route.steps
    if output == SENTENCE_OUTPUT:
        if said == BY_ARGUMENT:
            raise InputError("pooling= is given, and the graph gives sentence embeddings alone. Leave it out.")
        pooling = None
        if not encoder.variants[precision].output:  # no manifest: the graph also does what follows pooling
            steps = ()
    return Pipeline(encoder, tokenizer, session, output, pooling, steps, arrays, route.sparse, route.multi)
