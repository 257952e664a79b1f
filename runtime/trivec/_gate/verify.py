"""`trivec verify`: is every variant on this machine as faithful to the fp32 variant as its gate asks? Without torch."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trivec._encoders.load_options import LoadOptions
from trivec._encoders.row_model import RowModel
from trivec._engine.approvals import approve
from trivec._engine.devices import BF16, OPENVINO, Device, parse_device
from trivec._engine.engine_drift import tolerance
from trivec._engine.openvino_session import has_bf16
from trivec._engine.session import available_devices
from trivec._errors import InputError, IntegrityError, ModelFormatError, ModelNotFoundError
from trivec._gate.checks import DOCUMENT, QUERY, AnyBounds, Check, bounds_of, check_route
from trivec._gate.texts import Pair, Text, pairs_of, verification_texts
from trivec._loading.choice import wanted, with_bf16
from trivec._loading.open_model import open_model
from trivec._model import manifest_file
from trivec._model.families import scores_pairs
from trivec._model.find import find
from trivec._model.integrity import sha256
from trivec._model.manifest import FILE_NAME, PRECISIONS, Manifest
from trivec._model.pin import UNVERIFIED, check_digests, check_expect, digest_of, read_pinned
from trivec._model.source import Folder, Source
from trivec._model.static_model import static_spec
from trivec._system.atomic import write_at_once

logger = logging.getLogger("trivec")
_STEP = 0.05
"""What a text's numbers may move by in company in OpenVINO's bf16 and int8."""


def verify(
    name_or_folder: str | os.PathLike[str],
    *,
    device: str = "auto",
    engine: str = "auto",
    texts: Sequence[Text] | None = None,
    threads: int | None = None,
    expect: str | None = None,
    record: bool = True,
) -> list[Check]:
    """Compare every variant that the device runs with the fp32 variant on the CPU, over the verification texts.

    Every file is hashed first. Where a GPU run of fp16 passes whose gate so far is `emulated`, the manifest of a local
    folder is rewritten: `measured`, with this machine's figures. That gives it another digest, which the log tells; a
    manifest that `expect` pins stays as it is.

    Args:
        name_or_folder: a model folder, or a repository on the Hub; it needs its fp32 variant.
        device: "auto", "cpu", "cuda", "cuda:1".
        engine: as in `load`. With "openvino" its fp32, bf16 (where the CPU has it) and int8 are compared with
            onnxruntime's fp32.
        texts: other texts than the shipped ones.
        threads: CPU threads.
        expect: as in `load`.
        record: whether the manifest may be rewritten.

    Returns:
        A check for each variant, route and head; `failed` is empty where it passed.

    Raises:
        ModelNotFoundError: there is no such model, or it has no fp32 variant.
        ModelFormatError: it has no manifest, or one without digests.
        IntegrityError: a file is not the one that the manifest describes, or the manifest not the one of `expect`.
        InputError: there are fewer than two texts, or the engine does not run on the device.
        MissingExtraError: the engine is not installed.
    """
    texts = list(verification_texts() if texts is None else texts)
    if len(texts) < 2:  # one text has no neighbours
        raise InputError(f"verify compares texts with their neighbours: expected at least two, got {len(texts)}.")
    check_expect(expect)
    options = LoadOptions(name=os.fspath(name_or_folder), device=device, threads=threads, expect=expect, engine=engine)
    wanted(options)
    source = find(name_or_folder)
    manifest = _read(source, expect)
    _check_files(source, manifest)
    items: list[Text] | list[Pair] = pairs_of(texts) if scores_pairs(manifest.family) else texts
    listed: list[Any] = [item.text for item in items]
    graphs = [name for name, route in manifest.routes.items() if manifest.encoders[route.encoder].variants]
    routes = [None if name == "default" else name for name in graphs]
    runs = _runs_of_openvino(manifest) if engine == OPENVINO else _runs(manifest, device)
    options = dataclasses.replace(options, name=source.name, device="cpu", precision="fp32")
    with open_model(source, dataclasses.replace(options, engine="auto")) as opened:
        model: Any = opened
        reference = {route: model.represent(listed, prompt="", task=route, whole=True) for route in routes}
    checks = []
    for precision, place, layout in runs:
        run = dataclasses.replace(options, device=place, precision=precision, layout=layout, engine=engine)
        with open_model(source, run) as opened:
            encoder: Any = opened
            late = encoder.heads == ("colbert",)
            for route in routes:
                documents = reference.get(DOCUMENT) if late and route == QUERY else None
                found = check_route(encoder, items, route, reference[route], _bounds(opened), documents)
                checks += [dataclasses.replace(check, layout=layout) for check in found]
            if record and layout == "mixed" and not any(check.failed for check in checks if check.layout == layout):
                _approve(manifest, parse_device(encoder.device), checks)
    if record and isinstance(source, Folder) and expect in (None, UNVERIFIED):
        _record(source.root, manifest, checks)
    return checks


def _approve(manifest: Manifest, device: Device | None, checks: Sequence[Check]) -> None:
    """Note that the graphs for CUDA may be used on this device, from now on, by `load`."""
    figures = [check.record("measured") for check in checks if check.layout == "mixed"]
    for encoder in manifest.encoders.values():
        digests = [ref.sha256 for ref in encoder.cuda.files if ref.sha256] if encoder.cuda is not None else []
        if device is not None and encoder.cuda is not None and len(digests) == len(encoder.cuda.files):
            approve(digests, device, {"checks": figures})


def _read(source: Source, expect: str | None) -> Manifest:
    stated = read_pinned(source, expect)
    if stated is None and static_spec(source) is not None:
        raise ModelFormatError(
            f"{source.name} is a static model: its table is read as it was published, and there are no variants to "
            "compare."
        )
    if stated is None:
        raise ModelFormatError(
            f"{source.name} has no trivec.json, so nothing says what its files should be. Export the checkpoint: "
            "trivec export"
        )
    manifest = manifest_file.loads(stated.text, stated.where)
    check_digests(manifest, expect, stated.where)
    if "fp32" not in manifest.precisions():
        raise ModelNotFoundError(
            f"{source.name} has no fp32 variant to compare with; it has: {', '.join(manifest.precisions())}. Export it "
            "with: trivec export MODEL OUT --precision fp32,..."
        )
    return manifest


def _check_files(source: Source, manifest: Manifest) -> None:
    """Hash every file, whatever was noted before."""
    for ref in manifest.every_file():
        path = source.checked(ref)
        if ref.sha256 is not None and sha256(path) != ref.sha256:
            raise IntegrityError(f"{path} was altered since it was first checked. Copy the folder again.")


def _runs(manifest: Manifest, device: str) -> list[tuple[str, str, str]]:
    """Variants, the devices they are to run on, by what each variant needs, and the layouts."""
    wanted = parse_device(device)
    found = []
    for precision in PRECISIONS:
        if precision not in manifest.precisions():
            continue
        graphs = [encoder.variants[precision] for encoder in manifest.encoders.values() if encoder.variants]
        needs = {kind for graph in graphs for kind in graph.needs}
        if wanted is not None and needs and wanted.kind not in needs:
            continue
        if wanted is None and needs == {"cuda"} and "cuda" not in available_devices():
            continue
        found.append((precision, "cpu" if wanted is None and "cpu" in needs else device, "rows"))
        if precision == "fp16" and any(encoder.cuda is not None for encoder in manifest.encoders.values()):
            found.append((precision, device, "mixed"))
    return found


def _runs_of_openvino(manifest: Manifest) -> list[tuple[str, str, str]]:
    """The same for OpenVINO; the log says where bf16 is left out."""
    found = [p for p in with_bf16(manifest).precisions() if p != "fp16"]
    if BF16 in found and not has_bf16():
        logger.warning("bf16 is left out: this CPU has neither avx512_bf16 nor AMX.")
        found.remove(BF16)
    return [(precision, "cpu", "rows") for precision in found]


def _bounds(encoder: RowModel[Any]) -> dict[str, AnyBounds]:
    """The variant's gate, by head. Kernels of GPUs and of OpenVINO are chosen by shape: a batch may round another way.

    Where that moves a number that is rounded to int8 or bf16 afterwards, it moves by a step; the report has the figure.
    """
    bounds = bounds_of(encoder.precision)
    if encoder.device == "cpu" and encoder.engine != OPENVINO:
        return bounds
    diff = {"fp16": 1e-3, "fp32": 1e-4}.get(encoder.precision, _STEP if encoder.engine == OPENVINO else 1e-4)
    return {head: dataclasses.replace(bound, batch_diff=diff) for head, bound in bounds.items()}


def _record(folder: Path, manifest: Manifest, checks: Sequence[Check]) -> None:
    """Note a GPU's figures of fp16 in place of the emulated ones, where every route has passed."""
    fp16 = [c for c in checks if c.precision == "fp16" and c.layout == "rows" and c.device.startswith("cuda")]
    if not fp16 or any(check.failed for check in fp16):
        return
    worst = max(fp16, key=lambda check: check.figures.badness)
    gate = {**worst.record("measured"), "against": "the fp32 variant"}
    encoders = {}
    for name, encoder in manifest.encoders.items():
        variants = {**encoder.variants, "fp16": dataclasses.replace(encoder.variants["fp16"], gate=gate)}
        encoders[name] = dataclasses.replace(encoder, variants=variants)
    text = manifest_file.dumps(dataclasses.replace(manifest, encoders=encoders)).encode()
    with contextlib.suppress(OSError):  # a folder that may only be read keeps its emulated gate
        write_at_once(folder / FILE_NAME, text)
        logger.warning("%s has measured figures of fp16 now, and so another digest: %s", folder, digest_of(text))


def _variant(check: Check) -> str:
    engine = OPENVINO if check.engine.lower().startswith(OPENVINO) else ""
    return " ".join(filter(None, (check.precision, "" if check.layout == "rows" else check.layout, engine)))


def engines(checks: Sequence[Check]) -> str:
    """What ran the checks, and what another engine may change: a line for each, and one."""
    lines = [f"engine: {engine}" for engine in dict.fromkeys(check.engine for check in checks)]
    lines += [
        f"{_variant(check)} {check.head}: a text alone and among others differs by up to "
        f"{check.figures.batch_diff:.1e}: not equal to the bit."
        for check in checks
        if check.engine.lower().startswith(OPENVINO) and check.figures.batch_diff
    ]
    return "\n".join([*lines, f"The same engine gives the same bits. {tolerance()}"])


def report(checks: Sequence[Check]) -> str:
    """The checks as an aligned table."""
    columns = checks[0].figures.cells() if checks else {}
    header = ["variant", "device", "route", "head", "texts", *columns, "alone/batch", "ms a text", "gate"]
    rows = [
        [
            _variant(check),
            check.device,
            check.route,
            check.head,
            str(check.texts),
            *check.figures.cells().values(),
            f"{check.figures.batch_diff:.1e}",
            f"{check.ms_per_text:.2f}",
            "FAILED" if check.failed else "passed",
        ]
        for check in checks
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]]
    lines += [
        f"{_variant(check)} on {check.device}: {'; '.join(check.failed)}; worst for the text {check.worst_text[:80]!r}"
        for check in checks
        if check.failed
    ]
    return "\n".join(lines)
