"""REPORT.md: what a person wants to know of a model folder before trusting it."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from trivec._gate.checks import Check
from trivec._gate.figures import HEADS, Bounds
from trivec._model.manifest import Manifest
from trivec._system.threads import default_threads
from trivec_export._variants.int8.quantize import LayerReport
from trivec_export._variants.write import Written

FILE_NAME = "REPORT.md"


def render(
    manifest: Manifest,
    notes: Mapping[str, Sequence[str]],
    written: Mapping[str, Mapping[str, Written]],
    checks: Mapping[str, Mapping[str, Check]],
) -> str:
    """The report in Markdown.

    Args:
        manifest: of the folder.
        notes: by encoder, what its checkpoint has that the vectors do not use, or that the reference does not follow.
        written: by encoder, then precision: how each graph came about.
        checks: by precision, then encoder: how each fared against torch.
    """
    return "\n".join(_lines(manifest, notes, written, checks)) + "\n"


def _lines(
    manifest: Manifest,
    notes: Mapping[str, Sequence[str]],
    written: Mapping[str, Mapping[str, Written]],
    checks: Mapping[str, Mapping[str, Check]],
) -> Iterator[str]:
    source = manifest.source
    revision = f", revision {source['revision']}" if source.get("revision") else ""
    yield f"# {source.get('name')}{revision}"
    yield ""
    yield f"`{manifest.command}`"
    yield ""
    yield f"Exported with {', '.join(f'{name} {version}' for name, version in manifest.tools.items())}."
    yield f"Made on {datetime.now(UTC).date()}: {_machine()}. Equal exports differ in this line and in times alone."
    yield ""
    yield f"Reference: {source.get('reference')}, in float32, from the untouched checkpoint."
    yield ""
    if "pooling" in source:
        yield from (f"How token embeddings are pooled is {source['pooling']}.", "")
    yield "Every variant was run through trivec's runtime and compared with the reference on texts that never"
    yield "calibrate. fp16 was emulated on the CPU: a float32 graph that rounds every intermediate to half."
    if manifest.family != "dense":
        yield "The cosine of sparse rows is taken with one further term, equal for all: a tenth of the mean norm of the"
        yield "rows, so that texts of which the model knows next to nothing do not decide. Every table but the first is"
        yield "of the head that is furthest off."
    for encoder, found in notes.items():
        yield from ("", *(f"- {f'{encoder}: ' if len(notes) > 1 else ''}{note}" for note in found)) if found else ()
    for encoder, by_precision in written.items():
        title = "" if len(written) == 1 else f" ({encoder})"
        yield from _section(f"Variants{title}", _variants(encoder, by_precision, checks))
        yield from _section(f"Cosine to the reference by kind of text{title}", _kinds(encoder, checks))
        yield from _section(f"Texts that are furthest off{title}", _worst(encoder, checks))
        if "int8" in by_precision:
            yield from _section(f"int8, layer by layer{title}", _layers(by_precision["int8"].layers))
        if "fp16" in by_precision:
            yield from _section(f"fp16{title}", _half(by_precision["fp16"].kept))
            yield from _section(f"fp16 for CUDA{title}", _cuda(by_precision["fp16"], failed=_failed(encoder, checks)))


def _machine() -> str:
    """What an export ran on, as far as its figures may depend on it."""
    threads = default_threads().count
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {threads} threads"


def _section(title: str, body: Sequence[str]) -> Iterator[str]:
    yield from ("", f"## {title}", "", *body)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---", *("---:" for _ in header[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (header, marks, *rows)]


def _variants(encoder: str, written: Mapping[str, Written], checks: Mapping[str, Mapping[str, Check]]) -> list[str]:
    rows = []
    for precision, made in written.items():
        worst = checks[precision][encoder]
        size = f"{sum(ref.bytes or 0 for ref in made.variant.files) / 1e6:.1f}"
        several = len({(check.route, check.head) for check in (worst, *worst.others)}) > 1
        for check in (worst, *worst.others):
            figures = check.figures
            rows.append(
                [
                    f"{precision} {check.route} {check.head}" if several else precision,
                    size,
                    f"{figures.cosine_min:.6f}",
                    f"{figures.cosine_mean:.6f}",
                    f"{figures.top10_overlap:.4f}",
                    "" if figures.terms_overlap is None else f"{figures.terms_overlap:.4f}",
                    f"{figures.batch_diff:.1e}",
                    "" if precision == "fp16" else f"{check.ms_per_text:.2f}",  # another graph stood for it
                    _verdict(check, precision),
                    _asked(HEADS[check.head][precision]),
                ]
            )
    header = [
        "variant",
        "MB",
        "cosine min",
        "mean",
        "top-10 overlap",
        "top-32 terms",
        "alone vs batch",
        "ms a text",
        "gate",
        "asked",
    ]
    return _table(header, rows)


def _verdict(check: Check, precision: str) -> str:
    if check.failed:
        return "**failed**, not in the folder"
    return "emulated" if precision == "fp16" else "passed"


def _asked(bounds: Bounds) -> str:
    parts = [f"min {bounds.cosine_min}"]
    parts += [f"mean {bounds.cosine_mean}"] if bounds.cosine_mean is not None else []
    parts += [f"top-10 {bounds.top10_overlap}"] if bounds.top10_overlap is not None else []
    parts += [f"terms {bounds.terms_overlap}"] if bounds.terms_overlap is not None else []
    parts += [f"differences {bounds.max_diff}"] if bounds.max_diff is not None else []
    return ", ".join(parts)


def _kinds(encoder: str, checks: Mapping[str, Mapping[str, Check]]) -> list[str]:
    by_precision = {precision: by_encoder[encoder].figures.by_kind for precision, by_encoder in checks.items()}
    kinds = sorted({kind for by_kind in by_precision.values() for kind in by_kind})
    rows = [
        [kind, *(f"{by_kind[kind]['mean']:.4f} / {by_kind[kind]['min']:.4f}" for by_kind in by_precision.values())]
        for kind in kinds
    ]
    return ["Mean / least.", "", *_table(["kind", *by_precision], rows)]


def _worst(encoder: str, checks: Mapping[str, Mapping[str, Check]]) -> list[str]:
    rows = [
        [precision, f"{cosine:.6f}", _quote(text)]
        for precision, by_encoder in checks.items()
        for text, cosine in by_encoder[encoder].worst_texts
    ]
    return _table(["variant", "cosine", "text"], rows)


def _layers(layers: Sequence[LayerReport]) -> list[str]:
    by_row = [layer for layer in layers if layer.precision == "int8 by row"]
    floats = [layer for layer in layers if layer.precision == "fp32"]
    said = [f"{len(layers) - len(by_row) - len(floats)} of {len(layers)} linear layers are int8 with static ranges."]
    if by_row:
        said.append(
            f"{len(by_row)} have a scale for each row of their input: with static ranges for all, the cosines on "
            "calibration texts were below their bounds, and these layers gained most."
        )
    if floats:
        said.append(f"{len(floats)} stayed fp32: with all in int8 the cosines were below, and these raised them most.")
    rows = [
        [f"`{x.name}`", x.precision, f"{x.error:.4f}", f"{x.smoothing:.2f}", f"{x.clipped:.2%}", x.rounding]
        for x in sorted(layers, key=lambda x: -x.error)
    ]
    explained = (
        "Error: root mean square of |int8 - float32| / |float32| of the layer's output rows, on rows held out from "
        "calibration. Smoothing: SmoothQuant's alpha. Outside: held-out activations beyond the range of the other "
        "calibration texts (the range that is used holds both). Rounding: GPTQ, or nearest where that errs less."
    )
    return [
        " ".join(said),
        "",
        explained,
        "",
        *_table(["layer", "rung", "error", "smoothing", "outside", "rounding"], rows),
    ]


def _half(kept: Sequence[str]) -> list[str]:
    if not kept:
        return ["No value came near what half precision can hold; no node stayed fp32."]
    return [
        f"{len(kept)} nodes stayed fp32: on calibration texts one of their values exceeded a quarter of 65,504.",
        "",
        *(f"- `{name}`" for name in kept),
    ]


def cuda_line(written: Written) -> str:
    """The layout of the graph for CUDA, and why it is no better one."""
    if written.cuda is None:
        return f"none, for {written.why}"
    return written.cuda.layout + (f", not packed, for {written.why}" if written.why else "")


def _failed(encoder: str, checks: Mapping[str, Mapping[str, Check]]) -> bool:
    return bool(checks["fp16"][encoder].failed)


def _cuda(written: Written, *, failed: bool) -> list[str]:
    if failed:
        return ["None: the fp16 variant failed."]
    if written.cuda is None:
        return [f"None, for {written.why}. On CUDA the fp16 variant runs in batches of texts of one length."]
    return [
        f"Layout: {cuda_line(written)}. It is `{written.cuda.files[0].path}`, over the weights of the fp16 variant.",
        "On the CPU its arithmetic equals that of the fp16 variant. It has no gate, for no GPU has run it here:",
        "`trivec verify FOLDER --device cuda` runs it on yours, and `auto` takes it there once it has passed.",
    ]


def _quote(text: str) -> str:
    """A text in a table cell: one line, no pipes, not too long."""
    line = " ".join(text.split()).replace("|", "\\|").replace("`", "'")
    return f"`{line[:100]}{'...' if len(line) > 100 else ''}`" if line else "(empty)"
