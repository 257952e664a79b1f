"""REPORT.md: what a person wants to know of a model folder before trusting it."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from trivec._gate.checks import Check
from trivec._gate.figures import Figures
from trivec._model.families import scores_pairs
from trivec._model.manifest import Manifest
from trivec._system.threads import default_threads
from trivec_export._variants.int8.quantize import LayerReport
from trivec_export._variants.write import Written

FILE_NAME = "REPORT.md"
_COLUMNS = ["cosine min", "mean", "top-10 overlap", "top-32 terms"]


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
    pairs = scores_pairs(manifest.family)
    items = "pairs" if pairs else "texts"
    yield f"Every variant was run through trivec's runtime and compared with the reference on {items} that never"
    yield "calibrate. fp16 was emulated on the CPU: a float32 graph that rounds every intermediate to half."
    if pairs:
        yield "Differences are of logits, in standard deviations of the reference's logits (sigma). Reordered: of the"
        yield "scores further than a quarter sigma apart, the share that come in another order."
    elif manifest.family != "dense":
        yield "The cosine of sparse rows is taken with one further term, equal for all: a tenth of the mean norm of the"
        yield "rows, so that texts of which the model knows next to nothing do not decide. Every table but the first is"
        yield "of the head that is furthest off."
    for encoder, found in notes.items():
        yield from ("", *(f"- {f'{encoder}: ' if len(notes) > 1 else ''}{note}" for note in found)) if found else ()
    for encoder, by_precision in written.items():
        title = "" if len(written) == 1 else f" ({encoder})"
        yield from _section(f"Variants{title}", _variants(encoder, by_precision, checks))
        what = "Difference from" if pairs else "Cosine to"
        yield from _section(f"{what} the reference by kind of text{title}", _kinds(encoder, checks, pairs=pairs))
        yield from _section(f"Texts that are furthest off{title}", _worst(encoder, checks, pairs=pairs))
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
    rows, columns = [], list[str]()
    for precision, made in written.items():
        worst = checks[precision][encoder]
        size = f"{sum(ref.bytes or 0 for ref in made.variant.files) / 1e6:.1f}"
        several = len({(check.route, check.head) for check in (worst, *worst.others)}) > 1
        for check in (worst, *worst.others):
            figures = check.figures
            columns = [*figures.cells()]
            terms = None
            if isinstance(figures, Figures):
                columns, terms = _COLUMNS, "" if figures.terms_overlap is None else f"{figures.terms_overlap:.4f}"
            rows.append(
                [
                    f"{precision} {check.route} {check.head}" if several else precision,
                    size,
                    *figures.cells().values(),
                    *([] if terms is None else [terms]),
                    f"{figures.batch_diff:.1e}",
                    "" if precision == "fp16" else f"{check.ms_per_text:.2f}",  # another graph stood for it
                    _verdict(check, precision),
                    check.asked,
                ]
            )
    return _table(["variant", "MB", *columns, "alone vs batch", "ms a text", "gate", "asked"], rows)


def _verdict(check: Check, precision: str) -> str:
    if check.failed:
        return "**failed**, not in the folder"
    return "emulated" if precision == "fp16" else "passed"


def _kinds(encoder: str, checks: Mapping[str, Mapping[str, Check]], *, pairs: bool) -> list[str]:
    figures = {precision: by_encoder[encoder].figures for precision, by_encoder in checks.items()}
    kinds = sorted({kind for found in figures.values() for kind in found.by_kind})
    rows = [[kind, *(found.of_kind(kind) for found in figures.values())] for kind in kinds]
    return ["Rms / largest." if pairs else "Mean / least.", "", *_table(["kind", *figures], rows)]


def _worst(encoder: str, checks: Mapping[str, Mapping[str, Check]], *, pairs: bool) -> list[str]:
    rows = [
        [precision, f"{figure:.6f}", _quote(text)]
        for precision, by_encoder in checks.items()
        for text, figure in by_encoder[encoder].worst_texts
    ]
    return _table(["variant", "sigmas" if pairs else "cosine", "text"], rows)


def _layers(layers: Sequence[LayerReport]) -> list[str]:
    by_row = [layer for layer in layers if layer.precision == "int8 by row"]
    floats = [layer for layer in layers if layer.precision == "fp32"]
    said = [f"{len(layers) - len(by_row) - len(floats)} of {len(layers)} linear layers are int8 with static ranges."]
    if by_row:
        said.append(
            f"{len(by_row)} have a scale for each row of their input: with static ranges for all, the figures on "
            "calibration texts missed their bounds, and these layers gained most."
        )
    if floats:
        said.append(f"{len(floats)} stayed fp32: with all in int8 the figures missed them, and these gained most.")
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
