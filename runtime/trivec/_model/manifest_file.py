"""`trivec.json` read, checked and written: JSON to the classes of `manifest`, and back."""

import dataclasses
import functools
import json
import types
import typing
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trivec._errors import ModelFormatError
from trivec._model.families import FAMILIES, exported_families, scores_pairs
from trivec._model.json_files import leaves, parse, read_bytes
from trivec._model.manifest import (
    ACTIVATIONS,
    FILE_NAME,
    FORMAT,
    LAYOUTS,
    POOLING_MODES,
    PRECISIONS,
    SPARSE_ACTIVATIONS,
    SPARSE_KINDS,
    STEPS,
    EncoderSpec,
    Manifest,
    Multi,
    Route,
    Variant,
)

_BEYOND = 1 << 63  # no count, size or id; and neither numpy nor the libraries take it
_MOST_ENCODERS = 16  # each is a session and a tokenizer of its own, whatever its files are
_MOST_SHARING = 4  # encoders with one graph: other lengths of text
_MOST_ROUTES = 256
_LONGEST_EXPANSION = 1 << 13  # published models have up to 256
_MOST_NUMBERS = 1 << 24  # of a vector, or terms of a row: products of rows take a table of that length


def loads(text: str | bytes, where: str = FILE_NAME) -> Manifest:
    """Parse and check a manifest.

    Raises:
        ModelFormatError: it is no JSON object, comes from a later trivec, or a field is missing, of the wrong type or
            out of range; the message names the field.
    """
    data = parse(text, where, " Export the model again: trivec export")
    version = data.get("format") if isinstance(data, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise ModelFormatError(f"{where} has no integer field 'format', so it is not a trivec manifest.")
    if version > FORMAT:
        raise ModelFormatError(
            f"{where} has format {version}; this trivec reads up to {FORMAT}. Type: pip install -U trivec"
        )
    manifest = _build(Manifest, data, where)
    _check(manifest, where)
    return typing.cast("Manifest", manifest)


def dumps(manifest: Manifest) -> str:
    """The manifest as JSON: the format first, then the fields in the order of the classes."""
    fields = {"format": manifest.format} | dataclasses.asdict(manifest)
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def read(folder: Path) -> Manifest:
    """The manifest of a model folder."""
    path = folder / FILE_NAME
    return loads(read_bytes(path), str(path))


def check_types(manifest: Manifest, where: str) -> None:
    """Raise ModelFormatError where a field is not of its type, in a manifest that was made from the files of others."""
    _build(Manifest, manifest, where)


def _build(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401 - a type and a JSON value
    """A JSON value as an instance of a type annotation."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _build(next(a for a in args if a is not type(None)), value, where)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(typing.cast("type", kind), value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_build(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _build(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < _BEYOND:
        return float(value)
    beyond = isinstance(value, int | float) and not abs(value) < _BEYOND  # NaN as well
    if origin is None and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) and not beyond:
        return value
    raise ModelFormatError(f"{where}: expected {getattr(kind, '__name__', kind)}, got {json.dumps(value)[:80]}.")


_hints = functools.cache(typing.get_type_hints)


def _build_dataclass(kind: type, value: object, where: str) -> object:
    value = vars(value) if isinstance(value, kind) else value
    if not isinstance(value, dict):
        raise ModelFormatError(f"{where}: expected an object, got {json.dumps(value)[:80]}.")
    hints, given = _hints(kind), {}
    for spec in dataclasses.fields(kind):
        if spec.name in value:
            given[spec.name] = _build(hints[spec.name], value[spec.name], f"{where}.{spec.name}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ModelFormatError(f"{where}: the field '{spec.name}' is missing.")
    return kind(**given)


def _check_heads(manifest: Manifest, name: str, route: Route, require: Callable[[bool, str], None]) -> None:
    """What a route's heads must say for its family."""
    sparse, multi = route.sparse, route.multi
    heads = FAMILIES[manifest.family].heads
    given = {"sparse": sparse, "colbert": multi, "score": route.score}
    fits = all(head is None or kind in heads for kind, head in given.items())
    require(fits, f"routes.{name} has heads that a {manifest.family} model does not have.")
    if "score" in heads:
        _check_score(manifest, name, route, require)
    if sparse is not None:
        require(sparse.kind in SPARSE_KINDS, f"routes.{name}.sparse.kind {sparse.kind!r}; known: {SPARSE_KINDS}.")
    if "sparse" in heads:
        kinds = ("lexical",) if "dense" in heads else ("splade", "table")
        require(sparse is not None and sparse.kind in kinds, f"routes.{name}.sparse is missing or of another kind.")
    if heads == ("colbert",):
        require(multi is not None, f"routes.{name}.multi is missing.")
    if sparse is not None:
        require(sparse.activation in SPARSE_ACTIVATIONS, f"routes.{name}: unknown activation {sparse.activation!r}.")
        require(
            0 < sparse.dim <= _MOST_NUMBERS,
            f"routes.{name}.sparse.dim must be between 1 and {_MOST_NUMBERS:,}, got {sparse.dim}.",
        )
        source = sparse.array if sparse.kind == "table" else sparse.output
        require(bool(source), f"routes.{name}.sparse names no {'array' if sparse.kind == 'table' else 'output'}.")
    if multi is not None:
        require(
            bool(multi.output) and 0 < multi.dim <= _MOST_NUMBERS and multi.skip >= 0,
            f"routes.{name}.multi is out of range.",
        )
        _check_texts_of_tokens(name, multi, require)


def _check_texts_of_tokens(name: str, multi: Multi, require: Callable[[bool, str], None]) -> None:
    """What stands before a text, and behind it, are ids, and few of them."""
    expansion = multi.expansion
    ids = (*multi.prefix_ids, *multi.dropped_ids, *([] if expansion is None else [expansion.token_id]))
    require(all(i >= 0 for i in ids), f"routes.{name}.multi has ids below 0.")
    fits = expansion is None or len(multi.prefix_ids) < expansion.length <= _LONGEST_EXPANSION
    require(fits, f"routes.{name}.multi.expansion.length must be up to {_LONGEST_EXPANSION:,}.")


def _check_score(manifest: Manifest, name: str, route: Route, require: Callable[[bool, str], None]) -> None:
    """A route of pairs has its scores from the graph, and nothing else."""
    score = route.score
    require(score is not None, f"routes.{name}.score is missing.")
    if score is None:
        return
    require(bool(score.output), f"routes.{name}.score names no output.")
    require(
        len(score.labels) == manifest.dim,
        f"routes.{name}.score has {len(score.labels)} labels, and dim is {manifest.dim}.",
    )
    require(score.activation in ACTIVATIONS, f"routes.{name}: unknown activation {score.activation!r}.")
    require(route.pooling is None and not route.steps, f"routes.{name} pools, and scores of pairs are not pooled.")


def _check_layout(variant: Variant, where: str, allowed: tuple[str, ...], require: Callable[[bool, str], None]) -> None:
    """The layout is one that this trivec knows, and that belongs there."""
    require(
        variant.layout in LAYOUTS,
        f"{where}.layout {variant.layout!r} is none of {', '.join(LAYOUTS)}. Type: pip install -U trivec",
    )
    require(variant.layout in allowed, f"{where}.layout is {variant.layout!r}; expected {' or '.join(allowed)}.")


def _check_cuda(encoder: EncoderSpec, cuda: Variant, where: str, require: Callable[[bool, str], None]) -> None:
    """The graph for CUDA says what it reads, and stands beside the fp16 variant whose weights it has."""
    _check_layout(cuda, where, ("packed", "padded"), require)
    require(bool(cuda.files), f"{where}.files is empty.")
    require(bool(cuda.inputs), f"{where}.inputs is empty.")
    require(cuda.needs == ("cuda",), f"{where}.needs is {list(cuda.needs)}; expected ['cuda'].")
    require("fp16" in encoder.variants, f"{where} is there without the fp16 variant whose weights it reads.")


def _check(manifest: Manifest, where: str) -> None:
    """Cross-field rules, each with the field's name in its message."""

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise ModelFormatError(f"{where}: {message}")

    require(bool(manifest.routes), "routes is empty.")
    counts = len(manifest.encoders), len(manifest.routes)
    require(
        counts[0] <= _MOST_ENCODERS and counts[1] <= _MOST_ROUTES,
        f"there are {counts[0]} encoders and {counts[1]} routes; expected up to {_MOST_ENCODERS} and {_MOST_ROUTES}.",
    )
    require(
        manifest.dim is not None and 0 < manifest.dim <= _MOST_NUMBERS,
        f"dim must be between 1 and {_MOST_NUMBERS:,}, got {manifest.dim}.",
    )
    require(
        manifest.default_route is None or manifest.default_route in manifest.routes,
        f"default_route {manifest.default_route!r} is none of the routes {sorted(manifest.routes)}.",
    )
    require(
        manifest.default_prompt_name is None or manifest.default_prompt_name in manifest.prompts,
        f"default_prompt_name {manifest.default_prompt_name!r} is none of the prompts {sorted(manifest.prompts)}.",
    )
    require(
        manifest.truncate_dim is None or 1 <= manifest.truncate_dim <= (manifest.dim or 0),
        f"truncate_dim must be between 1 and dim, got {manifest.truncate_dim}.",
    )
    require(
        manifest.family in exported_families(),
        f"the family {manifest.family!r} is none of those that this trivec runs: {', '.join(exported_families())}. "
        "Type: "
        "pip install -U trivec",
    )
    known = FAMILIES[manifest.family].similarities
    require(manifest.similarity in known, f"similarity {manifest.similarity!r} is none of {', '.join(known)}.")
    require(
        manifest.max_active_dims is None or manifest.max_active_dims >= 1,
        f"max_active_dims must be at least 1 or null, got {manifest.max_active_dims}.",
    )
    for name, route in manifest.routes.items():
        require(
            route.max_seq_length is None or route.max_seq_length > 0,
            f"routes.{name}.max_seq_length must be positive or null, got {route.max_seq_length}.",
        )
        _check_heads(manifest, name, route, require)
        require(route.pooling is None or bool(route.pooling.modes), f"routes.{name}.pooling.modes is empty.")
        require(route.encoder in manifest.encoders, f"routes.{name}.encoder {route.encoder!r} is not in encoders.")
        for mode in route.pooling.modes if route.pooling else ():
            require(mode in POOLING_MODES, f"routes.{name}: unknown pooling mode {mode!r}; known: {POOLING_MODES}.")
        for step in route.steps:
            require(step.kind in STEPS, f"routes.{name}: unknown step {step.kind!r}; known: {STEPS}.")
            require(step.activation in ACTIVATIONS, f"routes.{name}: unknown activation {step.activation!r}.")
    for name, encoder in manifest.encoders.items():
        require(
            encoder.max_seq_length is None or encoder.max_seq_length > 0,
            f"encoders.{name}.max_seq_length must be positive or null, got {encoder.max_seq_length}.",
        )
        require(
            encoder.truncation_side in ("left", "right"),
            f"encoders.{name}.truncation_side {encoder.truncation_side!r} is neither left nor right.",
        )
        if encoder.template is not None:
            texts = 2 if scores_pairs(manifest.family) else 1
            sizes = len(encoder.template.text), len(encoder.template.prompted or (*encoder.template.text, ""))
            expected = texts + 1, texts + 2
            require(sizes == expected, f"encoders.{name}.template has {sizes} pieces, expected {expected}.")
        for precision, variant in encoder.variants.items():
            require(precision in PRECISIONS, f"encoders.{name}: unknown variant {precision!r}; known: {PRECISIONS}.")
            require(bool(variant.files), f"encoders.{name}.variants.{precision}.files is empty.")
            _check_layout(variant, f"encoders.{name}.variants.{precision}", ("rows",), require)
        if encoder.cuda is not None:
            _check_cuda(encoder, encoder.cuda, f"encoders.{name}.cuda", require)
    for precision in PRECISIONS:
        variants = [e.variants[precision] for e in manifest.encoders.values() if precision in e.variants]
        sharing = max(Counter(variant.files[0].path for variant in variants).values(), default=0)
        require(sharing <= _MOST_SHARING, f"{sharing} encoders have the same graph as {precision}.")
    for ref in manifest.every_file():
        require(ref.path != "", "a file path is empty.")
        require(not leaves(ref.path), f"the file path {ref.path!r} leaves the model folder.")
