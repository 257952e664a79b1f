"""`trivec info`: a model's manifest, readably. Opens no graph."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from trivec._encoders.named_call import fingerprint_of_plain_call
from trivec._engine.devices import OPENVINO
from trivec._errors import ProviderError
from trivec._model import manifest_file
from trivec._model.derived import derive
from trivec._model.find import find
from trivec._model.manifest import EncoderSpec, Manifest, Origin, Pooling, Route, Step, Variant
from trivec._model.pin import UNVERIFIED, check_expect, digest_of, read_pinned, unverified_files
from trivec._model.source import Folder, Source
from trivec._model.static_model import described

_LABEL = 12  # width of the first column


def info(
    name_or_folder: str,
    *,
    revision: str | None = None,
    file_name: str | None = None,
    pooling: str | None = None,
    expect: str | None = None,
    engine: str = "auto",
    fingerprints: bool = False,
    as_json: bool = False,
) -> str:
    """Describe a model.

    Args:
        name_or_folder: a model folder, or a repository on the Hub, of which only JSON files are fetched.
        revision: branch, tag or commit on the Hub.
        file_name: as in `load`.
        pooling: as in `load`.
        expect: as in `load`; without digests a model is described all the same, but its variants are not opened.
        engine: of the fingerprints, as in `load`.
        fingerprints: open every variant that runs here, and tell those of its plain `encode` and of its engine.
        as_json: the manifest's own text instead; where the fingerprints are wanted, with these beside the rest.

    Returns:
        Lines of text, the last one ended too.

    Raises:
        ModelNotFoundError: there is no such model, or it has no ONNX graph.
        ModelFormatError: its description cannot be understood.
        IntegrityError: its manifest is not the one of `expect`.
        Whatever `trivec.load` raises, where the fingerprints are wanted.
    """
    check_expect(expect)
    source = find(name_or_folder, revision=revision)
    stated = read_pinned(source, expect)
    if stated is None:
        manifest = described(
            source, derive(source, file_name=file_name, pooling=pooling, fetch=isinstance(source, Folder))
        )
        text = manifest_file.dumps(manifest).encode()
    else:
        text = stated.text
        manifest = manifest_file.loads(text, stated.where)
    opened = {"engine": engine, "revision": revision, "file_name": file_name, "pooling": pooling, "expect": expect}
    found = _fingerprints(name_or_folder, manifest, opened) if fingerprints else {}
    if as_json and fingerprints:
        return json.dumps({**json.loads(text), "fingerprints": found}, indent=2) + "\n"
    if as_json:
        return text.decode()
    lines = [*_describe(source, manifest, None if stated is None else digest_of(stated.text))]
    for variant, named in found.items():
        lines += [_line(name, f"{variant}: {value}") for name, value in named.items()]
    return "\n".join(lines) + "\n"


def _fingerprints(name: str, manifest: Manifest, options: dict[str, Any]) -> dict[str, dict[str, str | None]]:
    """Of every variant that runs here: of the model, in a plain call of `encode`, and of the engine."""
    from trivec._load import load
    from trivec._loading.choice import with_bf16

    found: dict[str, dict[str, str | None]] = {}
    stated = with_bf16(manifest) if options["engine"] == OPENVINO else manifest
    precisions: list[Any] = [*stated.precisions()] or ["auto"]
    for precision in precisions:
        try:
            encoder = load(name, precision=precision, **options)
        except ProviderError:  # fp16 or bf16 on a CPU, say
            continue
        with encoder:
            model = fingerprint_of_plain_call(encoder)
            found[encoder.precision] = {"fingerprint": model, "engine": encoder.engine_fingerprint}
    return found


def _describe(source: Source, manifest: Manifest, digest: str | None) -> Iterable[str]:
    yield _line("model", source.name)
    yield from _identity(manifest, digest)
    yield _line("family", manifest.family)
    yield from _mapping("source", manifest.source)
    for origin in manifest.origins:
        yield from _origin(origin)
    yield _line("dim", "stated by the weights only" if manifest.dim is None else str(manifest.dim))
    if manifest.max_active_dims is not None:
        yield _line("max_active_dims", str(manifest.max_active_dims))
    if manifest.truncate_dim is not None:
        yield _line("truncate_dim", str(manifest.truncate_dim))
    yield _line("similarity", manifest.similarity)
    for name, prompt in manifest.prompts.items():
        default = "   (default)" if name == manifest.default_prompt_name else ""
        yield _line("prompt", f"{name}: {json.dumps(prompt, ensure_ascii=False)}{default}")
    for name, route in manifest.routes.items():
        default = "   (default)" if name == manifest.default_route and len(manifest.routes) > 1 else ""
        yield _line("route", f"{name}: {_route(route)}{default}")
    for name, encoder in manifest.encoders.items():
        yield _line("encoder", f"{name}: {_encoder(encoder)}")
        for precision, variant in encoder.variants.items():
            yield _line("  " + precision, _variant(source, variant))
        if encoder.cuda is not None:
            proof = "proven on a machine by: trivec verify --device cuda"
            yield _line("  fp16 CUDA", f"{_size(source, encoder.cuda)}, {encoder.cuda.layout}; {proof}")
    if manifest.arrays is not None:
        yield _line("arrays", manifest.arrays.path)
    if manifest.command is not None:
        yield _line("command", manifest.command)
    yield from _mapping("tools", manifest.tools)


def _identity(manifest: Manifest, digest: str | None) -> Iterable[str]:
    """Which model it is, and what its maker calls it."""
    if digest is None:
        yield _line("manifest", "none: derived from the folder's JSON files; no variant has a gate on record")
    else:
        yield _line("digest", digest)
        if missing := unverified_files(manifest):
            yield _line("UNVERIFIED", f"no sha256 of {', '.join(missing)}; opens only with expect={UNVERIFIED!r}")
    yield from _mapping("called", {"name": manifest.name, "version": manifest.version})


def _origin(origin: Origin) -> Iterable[str]:
    """Where a checkpoint came from, whose it is, and its files, a line each as sha256sum writes them."""
    yield _line("origin", f"{origin.name}, {origin.revision or 'a local folder'}")
    yield _line("license", origin.license or "not stated by its card")
    if origin.base_model:
        yield _line("base model", ", ".join(origin.base_model))
    for path, digest in origin.files.items():
        yield _line("  sha256", f"{digest}  {path}")


def _route(route: Route) -> str:
    """The way of a text: "main -> mean -> normalize"; or of a pair."""
    if route.score is not None:
        labels = ", ".join(route.score.labels) if len(route.score.labels) > 1 else "a relevance"
        return f"{route.encoder} -> {labels} -> {route.score.activation}"
    dense = [_pooling(route.pooling), *(_step(step) for step in route.steps)]
    heads = [" -> ".join(dense)] if route.pooling is not None or route.sparse is None else []
    if route.sparse is not None:
        heads.append(f"{route.sparse.kind} of {route.sparse.dim:,} terms")
    if route.multi is not None:
        heads.append(f"a vector of {route.multi.dim} a token")
    return f"{route.encoder} -> {'; '.join(heads)}"


def _pooling(pooling: Pooling | None) -> str:
    if pooling is None:
        return "pooled by the graph"
    return "+".join(pooling.modes) + ("" if pooling.include_prompt else " (without the prompt)")


def _step(step: Step) -> str:
    if step.kind != "dense":
        return step.kind
    return f"dense ({step.activation}{', residual' if step.residual else ''})"


def _encoder(encoder: EncoderSpec) -> str:
    limit = "no limit" if encoder.max_seq_length is None else f"{encoder.max_seq_length} tokens"
    parts = [f"max_seq_length {limit}"]
    if encoder.max_positions is not None:
        parts.append(f"positions {encoder.max_positions}")
    if encoder.truncation_side != "right":
        parts.append(f"cut on the {encoder.truncation_side}")
    if encoder.lower_case:
        parts.append("lower-cased")
    return ", ".join([*parts, encoder.tokenizer.path])


def _variant(source: Source, variant: Variant) -> str:
    parts = [_size(source, variant)]
    if variant.opset is not None:
        parts.append(f"opset {variant.opset}")
    if variant.needs:
        parts.append(f"for {' or '.join(variant.needs)}")
    return f"{', '.join(parts)}; {_gate(variant.gate)}"


def _size(source: Source, variant: Variant) -> str:
    """Megabytes of graph and weights, and what of them is not there."""
    sizes = [ref.bytes for ref in variant.files]
    missing: list[str] = []
    if isinstance(source, Folder):  # a file of a repository is downloaded when asked for
        files = [source.file(ref.path) for ref in variant.files]
        missing = [ref.path for ref, file in zip(variant.files, files, strict=True) if file is None]
        sizes = [file.stat().st_size if file else ref.bytes for ref, file in zip(variant.files, files, strict=True)]
    known = [size for size in sizes if size is not None]
    text = f"{sum(known) / 1e6:,.1f} MB" if len(known) == len(sizes) else "size unknown"
    return f"{text}, MISSING: {', '.join(missing)}" if missing else text


def _gate(gate: Mapping[str, Any] | None) -> str:
    """Status, then every figure by its own name."""
    if gate is None:
        return "no gate on record"
    figures = [
        f"{key} {value:,}" if isinstance(value, int) else f"{key} {value:.6g}"
        for key, value in gate.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return " ".join([f"gate {gate.get('status', 'unknown')}:", ", ".join(figures) or "no figures"])


def _mapping(label: str, values: Mapping[str, Any]) -> Iterable[str]:
    """Name and revision of a source, versions of tools: what there is."""
    shown = [f"{key} {value}" for key, value in values.items() if value is not None]
    if shown:
        yield _line(label, ", ".join(shown))


def _line(label: str, value: str) -> str:
    """A line, and one alone: what somebody's file says cannot start another, nor color it."""
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    return f"{label:<{_LABEL}} {printable}"
