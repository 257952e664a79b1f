"""The export, top to bottom: checkpoint, reference, trace, variants, manifest, verification, folder."""

import dataclasses
import importlib.metadata
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.version import Version

from trivec._errors import GateError, InputError
from trivec._gate.texts import pairs_of, verification_texts
from trivec._model.checkpoint import Checkpoint, leaves_prompt_out, read_checkpoint
from trivec._model.derived import rename_step_arrays
from trivec._model.families import scores_pairs
from trivec._model.integrity import describe
from trivec._model.json_files import read_object
from trivec._model.manifest import PRECISIONS, Manifest, Route, Variant
from trivec._vectors.arrays import Floats
from trivec_export._checkpoint.adapters import AdapterFolder
from trivec_export._checkpoint.fetch import Fetched, fetch
from trivec_export._checkpoint.kinds import refuse_other_kinds
from trivec_export._checkpoint.pooling import assumed_pooling, pooling_line
from trivec_export._checkpoint.published.layouts import is_published
from trivec_export._checkpoint.query_table import Table, make_table
from trivec_export._checkpoint.tasks import split_tasks
from trivec_export._checkpoint.weights import read_weights
from trivec_export._draft import Draft, make_draft
from trivec_export._folder.card import FILE_NAME as CARD
from trivec_export._folder.card import render as render_card
from trivec_export._folder.manifest import dim_of, keep, manifest_of, with_variants, write_manifest
from trivec_export._folder.new_folder import check_new, new_folder
from trivec_export._folder.report import FILE_NAME as REPORT
from trivec_export._folder.report import cuda_line, render
from trivec_export._gate.texts import calibration_texts, sample
from trivec_export._gate.verify import check_tables, verify
from trivec_export._progress import Progress
from trivec_export._reference.library import Library, reference_name
from trivec_export._request import FAMILIES, LONGEST, MIN_TEXTS, Request, Verdicts
from trivec_export._variants.write import EMULATED, Written, write_variant

_TESTED = {"torch": (2, 13), "transformers": (5, 24)}
"""The last releases that the exporter, which leans on their inside, was tested with."""


def run(request: Request, *, quiet: bool) -> Path:
    """Export as asked; see `trivec_export.export`."""
    progress = Progress(quiet=quiet)
    _check(request)
    check_new(request.out)
    for line in _untested():
        progress.say(line)
    calibration = sample(calibration_texts(request.calibration), request.max_texts)
    verification = sample(verification_texts(), request.max_texts)
    with progress.step(f"fetch {request.model}"):
        fetched = fetch(
            request.model, revision=request.revision, token=request.token, with_code=request.trust_remote_code
        )
        source = AdapterFolder(fetched.folder, request.token)
        refuse_other_kinds(source)
        own_code = request.trust_remote_code or is_published(read_object(source, "config.json"))
        checkpoint = read_checkpoint(source, request.family, name=fetched.name, own_code=own_code)
        checkpoint, adapters = split_tasks(checkpoint, fetched.folder, request.tasks)
    progress.say(f"family: {checkpoint.family}, {checkpoint.why}")
    items: Any = (calibration, verification)
    if scores_pairs(checkpoint.family):
        items = pairs_of(calibration), pairs_of(verification)
    assumed = assumed_pooling(source, checkpoint)
    if assumed is not None:
        progress.say(pooling_line(checkpoint, assumed))
    library = _library(fetched, checkpoint, adapters, request)
    progress.say(f"reference: {reference_name(checkpoint, library)}")
    arrays = _step_arrays(fetched.folder, checkpoint.routes.values())
    with new_folder(request.out) as folder:
        parts: dict[str, Draft] = {}
        written: dict[str, dict[str, Written]] = {}
        for name, spec in checkpoint.transformers.items():
            of = f", {adapters[name]}" if name in adapters else ""
            with progress.step(f"reference and trace of {spec.config.get('model_type', 'model')}{of}"):
                part = make_draft(
                    name,
                    fetched.folder,
                    checkpoint,
                    arrays,
                    folder,
                    items,
                    trust_remote_code=request.trust_remote_code,
                    adapter=adapters.get(name),
                    library=library,
                )
            for note in part.notes:
                progress.say(note)
            written[name] = {}
            for precision in request.precisions:
                with progress.step(f"write {precision}{of}"):
                    written[name][precision] = write_variant(folder, part, precision, arrays)
                if precision == "fp16":
                    progress.say(f"graph for CUDA{of}: {cuda_line(written[name][precision])}")
            parts[name] = part = part.without_graph()
        tables = _tables(fetched.folder, checkpoint, parts, folder)
        arrays |= {f"{name}.weights": table.weights for name, table in tables.items()}
        variants = {name: {p: w.variant for p, w in have.items()} for name, have in written.items()}
        named = reference_name(checkpoint, library)
        manifest = manifest_of(request, fetched, checkpoint, folder, parts, tables, arrays, named, assumed)
        verdicts = _verify_all(folder, manifest, parts, variants, progress)
        if library is not None and checkpoint.has_modules:
            check_tables(folder, manifest, tables, library, verification)
        failed = {p: v for p, v in verdicts.items() if any(verdict.failed for verdict in v.values())}
        _show(progress, variants, verdicts)
        if "fp32" in failed or len(failed) == len(verdicts):
            raise GateError(f"{_complaint(failed, written)} Nothing was written.")
        cuda = {name: have["fp16"].cuda for name, have in written.items() if "fp16" in have}
        passed = {p: v for p, v in verdicts.items() if p not in failed}
        final = keep(folder, manifest, variants, cuda, passed)
        (folder / CARD).write_text(render_card(final, passed, fetched.folder), encoding="utf-8")
        notes = {name: part.notes for name, part in parts.items()}
        (folder / REPORT).write_text(render(manifest, notes, written, verdicts), encoding="utf-8")
    progress.say(f"wrote {request.out}")
    if failed:
        kept = ", ".join(p for p in verdicts if p not in failed)
        raise GateError(f"{_complaint(failed, written)} {request.out} was written with {kept} only.")
    return request.out


def _library(fetched: Fetched, checkpoint: Checkpoint, adapters: Mapping[str, str], request: Request) -> Library | None:
    """sentence-transformers on the checkpoint; None where it has no such model, and the reference is our own reading.

    It cannot load layouts that were published for remote code, merges no adapter of a task, knows no token classifier
    of mGTE, and pools a BGE-M3 without modules.json by another rule than FlagEmbedding.
    """
    published = any(is_published(spec.config) for spec in checkpoint.transformers.values())
    bare = checkpoint.family == "bge-m3" and not checkpoint.has_modules
    if adapters or published or bare or checkpoint.family == "mgte":
        return None
    weights = next((table.weights for table in checkpoint.tables.values() if table.weights), "")
    return Library(
        fetched.folder,
        run_in=(fetched.folder / weights).parent if weights else fetched.folder,
        sparse=checkpoint.family == "splade",
        pairs=scores_pairs(checkpoint.family),
        late=checkpoint.late is not None,
        trust_remote_code=request.trust_remote_code,
        prompt_left_out=leaves_prompt_out(fetched.name),
    )


def _check(request: Request) -> None:
    if request.family not in FAMILIES:
        raise InputError(f"family {request.family!r} is not one of {', '.join(FAMILIES)}.")
    if request.max_texts is not None and request.max_texts < MIN_TEXTS:
        raise InputError(f"max_texts must be at least {MIN_TEXTS}, got {request.max_texts}: fewer prove nothing.")
    for what, value in {"name": request.name, "version": request.version}.items():
        if value is not None and not (isinstance(value, str) and value.isprintable() and 0 < len(value) <= LONGEST):
            raise InputError(f"{what} {value!r}: expected 1 to {LONGEST} letters, digits and signs in one line.")
    unknown = [p for p in request.precisions if p not in PRECISIONS]
    if unknown or not request.precisions:
        raise InputError(f"precision {','.join(request.precisions)!r}: expected some of {','.join(PRECISIONS)}.")


def _untested() -> list[str]:
    """What is said of packages that are newer than what the exporter was tested with."""
    lines = []
    for name, tested in _TESTED.items():
        version = importlib.metadata.version(name)
        if Version(version).release[:2] > tested:
            last = ".".join(map(str, tested))
            lines.append(f"{name} {version} is newer than {last}, which this was tested with: the gates decide")
    return lines


def _step_arrays(folder: Path, routes: Iterable[Route]) -> dict[str, Floats]:
    """Weights of Dense and LayerNorm modules, float32, by the names that the runtime looks up."""
    arrays: dict[str, Floats] = {}
    for step in [step for route in routes for step in route.steps if step.arrays]:
        weights = read_weights(folder / step.arrays)
        arrays.update(rename_step_arrays(step, {key: value.float().numpy() for key, value in weights.items()}))
    return arrays


def _tables(folder: Path, checkpoint: Checkpoint, parts: Mapping[str, Draft], out: Path) -> dict[str, Table]:
    """The query sides that need no graph."""
    return {name: make_table(name, folder, spec, dim_of(parts), out) for name, spec in checkpoint.tables.items()}


def _verify_all(
    folder: Path,
    manifest: Manifest,
    parts: Mapping[str, Draft],
    variants: Mapping[str, Mapping[str, Variant]],
    progress: Progress,
) -> Verdicts:
    """Every precision through the runtime; fp16 through the float32 graph that rounds as it does."""
    verdicts = {}
    write_manifest(folder, with_variants(manifest, variants))
    for number, precision in enumerate(next(iter(variants.values()))):
        with progress.step(f"verify {precision}"):
            if precision != "fp16":
                verdicts[precision] = verify(folder, parts, precision, stored_as=precision, with_prompts=number == 0)
                continue
            emulated = folder / EMULATED
            for ref in manifest.files("fp32"):  # tokenizers and arrays: the manifest has no variants yet
                (emulated / ref.path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / ref.path, emulated / ref.path)
            stand_in = {name: {"fp32": _emulated_variant(emulated, have[precision])} for name, have in variants.items()}
            write_manifest(emulated, with_variants(manifest, stand_in))
            verdicts[precision] = verify(emulated, parts, precision, stored_as="fp32", with_prompts=number == 0)
            shutil.rmtree(emulated)
    return verdicts


def _emulated_variant(folder: Path, variant: Variant) -> Variant:
    """The fp16 variant's entry for the float32 graph of the same file names."""
    return dataclasses.replace(variant, files=tuple(describe(folder, ref.path) for ref in variant.files), needs=())


def _complaint(failed: Verdicts, written: Mapping[str, Mapping[str, Written]]) -> str:
    """Which variant failed what, on which text it was worst, and which layer of int8 is furthest from float32."""
    found = []
    for precision, verdicts in failed.items():
        for name, verdict in verdicts.items():
            if verdict.failed:
                worst = written[name][precision].worst()
                layer = "" if worst is None else f"; largest layer error: {worst.name} {worst.error:.2f}"
                found.append(
                    f"{precision} is not faithful to torch: {'; '.join(verdict.failed)}; worst for the text "
                    f"{verdict.worst_text[:80]!r}{layer}."
                )
    return " ".join(found)


def _show(progress: Progress, variants: Mapping[str, Mapping[str, Variant]], verdicts: Verdicts) -> None:
    rows, cells = [], dict[str, str]()
    for precision, by_encoder in verdicts.items():
        files = [ref for have in variants.values() for ref in have[precision].files]
        failed = any(verdict.failed for verdict in by_encoder.values())
        cells = max((verdict.figures for verdict in by_encoder.values()), key=lambda f: f.badness).cells()
        rows.append(
            [
                precision,
                f"{sum(ref.bytes or 0 for ref in files) / 1e6:.1f}",
                *cells.values(),
                "-" if precision == "fp16" else f"{sum(v.ms_per_text for v in by_encoder.values()):.2f}",
                "FAILED" if failed else "emulated" if precision == "fp16" else "passed",
            ]
        )
    progress.table(["variant", "MB", *cells, "ms a text", "gate"], rows)
