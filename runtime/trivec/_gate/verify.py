"""`trivec verify`: is every variant on this machine as faithful to the fp32 variant as its gate asks? Without torch."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from trivec._encoders.base import BaseEncoder
from trivec._encoders.dense import DenseEncoder
from trivec._encoders.hybrid import HybridEncoder, HybridVectors
from trivec._encoders.load_options import LoadOptions
from trivec._encoders.sparse import SparseEncoder
from trivec._engine.approvals import approve
from trivec._engine.devices import Device, parse_device
from trivec._engine.session import available_devices
from trivec._errors import InputError, IntegrityError, ModelFormatError, ModelNotFoundError
from trivec._gate.figures import HEADS, Bounds, Figures, compare, compare_multi, compare_sparse, failures
from trivec._gate.texts import Text, verification_texts
from trivec._loading.open_model import open_model
from trivec._model import manifest as manifest_module
from trivec._model.integrity import sha256
from trivec._model.manifest import PRECISIONS, Manifest
from trivec._model.source import Folder, Source, find
from trivec._model.static_model import static_spec
from trivec._pooling.dense import Floats
from trivec._system.atomic import write_at_once
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors

ALONE = 48  # texts that are also encoded each in a call of its own


@dataclass(frozen=True)
class Check:
    """One variant of one route on one device."""

    precision: str
    device: str
    route: str
    figures: Figures
    failed: list[str]
    worst_text: str
    texts: int
    ms_per_text: float
    worst_texts: tuple[tuple[str, float], ...] = ()
    """The texts that are furthest off with their cosines, worst first."""
    head: str = "dense"
    """ "dense", "sparse" or "colbert": which of a route's representations."""
    others: tuple["Check", ...] = ()
    """An export's checks of the other routes and heads of the encoder, of which this is the worst."""
    layout: str = "rows"
    """"rows", or "mixed": the graph that CUDA has for texts of different lengths."""

    def record(self, status: str) -> dict[str, Any]:
        """The manifest's gate entry: `measured`, or `emulated` where another graph stood for the variant."""
        given = dataclasses.asdict(self.figures).items()
        figures = {k: v for k, v in given if k not in ("worst", "lowest") and v is not None}
        rounded = {key: round(value, 8) if isinstance(value, float) else value for key, value in figures.items()}
        return {
            "status": status,
            "device": self.device,
            "route": self.route,
            "head": self.head,
            "texts": self.texts,
            **rounded,
            # a graph that emulates another says nothing of its time
            **({"ms_per_text": round(self.ms_per_text, 3)} if status == "measured" else {}),
            "worst_text": self.worst_text[:200],
        }


def verify(
    name_or_folder: str | os.PathLike[str],
    *,
    device: str = "auto",
    texts: Sequence[Text] | None = None,
    threads: int | None = None,
    record: bool = True,
) -> list[Check]:
    """Compare every variant that the device runs with the fp32 variant on the CPU, over the verification texts.

    Every file is hashed first. Where a GPU run of fp16 passes whose gate so far is `emulated`, the manifest of a local
    folder is rewritten: `measured`, with this machine's figures.

    Args:
        name_or_folder: a model folder, or a repository on the Hub; it needs its fp32 variant.
        device: "auto", "cpu", "cuda", "cuda:1".
        texts: other texts than the shipped ones.
        threads: CPU threads.
        record: whether the manifest may be rewritten.

    Returns:
        A check for each variant, route and head; `failed` is empty where it passed.

    Raises:
        ModelNotFoundError: there is no such model, or it has no fp32 variant.
        ModelFormatError: it has no manifest.
        IntegrityError: a file is not the one that the manifest describes.
        InputError: there are fewer than two texts.
    """
    texts = list(verification_texts() if texts is None else texts)
    if len(texts) < 2:  # one text has no neighbours
        raise InputError(f"verify compares texts with their neighbours: expected at least two, got {len(texts)}.")
    source = find(name_or_folder)
    manifest = _read(source)
    _check_files(source, manifest)
    listed = [text.text for text in texts]
    graphs = [name for name, route in manifest.routes.items() if manifest.encoders[route.encoder].variants]
    routes = [None if name == "default" else name for name in graphs]
    options = LoadOptions(name=source.name, device="cpu", precision="fp32", threads=threads)
    with open_model(source, options) as encoder:
        reference = {route: vectors_of(encoder, listed, route, None) for route in routes}
    checks = []
    for precision, place, layout in _runs(manifest, device):
        run = dataclasses.replace(options, device=place, precision=precision, layout=layout)
        with open_model(source, run) as encoder:
            for route in routes:
                found = check_route(encoder, texts, route, reference[route], _bounds(encoder))
                checks += [dataclasses.replace(check, layout=layout) for check in found]
            if record and layout == "mixed" and not any(check.failed for check in checks if check.layout == layout):
                _approve(manifest, parse_device(encoder.device), checks)
    if record and isinstance(source, Folder):
        _record(source.root, manifest, checks)
    return checks


def _approve(manifest: Manifest, device: Device | None, checks: Sequence[Check]) -> None:
    """Note that the graphs for CUDA may be used on this device, from now on, by `load`."""
    figures = [check.record("measured") for check in checks if check.layout == "mixed"]
    for encoder in manifest.encoders.values():
        digests = [ref.sha256 for ref in encoder.cuda.files if ref.sha256] if encoder.cuda is not None else []
        if device is not None and encoder.cuda is not None and len(digests) == len(encoder.cuda.files):
            approve(digests, device, {"checks": figures})


def _read(source: Source) -> Manifest:
    path = source.file(manifest_module.FILE_NAME)
    if path is None and static_spec(source) is not None:
        raise ModelFormatError(
            f"{source.name} is a static model: its table is read as it was published, and there are no variants to "
            "compare."
        )
    if path is None:
        raise ModelFormatError(
            f"{source.name} has no trivec.json, so nothing says what its files should be. Export the checkpoint: "
            "trivec export"
        )
    manifest = manifest_module.loads(path.read_bytes(), str(path))
    if "fp32" not in manifest.precisions():
        raise ModelNotFoundError(
            f"{source.name} has no fp32 variant to compare with; it has: {', '.join(manifest.precisions())}. Export it "
            "with: trivec export MODEL OUT --precision fp32,..."
        )
    return manifest


def _check_files(source: Source, manifest: Manifest) -> None:
    """Hash every file, whatever was noted before."""
    for ref in {ref.path: ref for p in manifest.precisions() for ref in manifest.files(p)}.values():
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
        needs = {kind for encoder in manifest.encoders.values() for kind in encoder.variants[precision].needs}
        if wanted is not None and needs and wanted.kind not in needs:
            continue
        if wanted is None and needs == {"cuda"} and "cuda" not in available_devices():
            continue
        found.append((precision, "cpu" if wanted is None and "cpu" in needs else device, "rows"))
        if precision == "fp16" and any(encoder.cuda is not None for encoder in manifest.encoders.values()):
            found.append((precision, device, "mixed"))
    return found


def check_route(
    encoder: BaseEncoder,
    texts: Sequence[Text],
    route: str | None,
    reference: HybridVectors,
    bounds: Mapping[str, Bounds],
) -> list[Check]:
    """Encode all texts in one call and some in calls of their own, and compare each head with the reference."""
    listed = [text.text for text in texts]
    kinds = [text.kind for text in texts]
    width = None if reference.dense is None else reference.dense.shape[1]  # a model's truncate_dim must not cut it
    start = time.perf_counter()
    vectors = vectors_of(encoder, listed, route, width)
    seconds = time.perf_counter() - start
    stride = max(1, len(listed) // ALONE)
    alone = [vectors_of(encoder, [text], route, width) for text in listed[::stride]]
    found: dict[str, Figures] = {}
    if reference.dense is not None:
        one = np.concatenate([item.dense for item in alone if item.dense is not None])  # (M, D)
        found["dense"] = compare(cast("Floats", vectors.dense), one, stride, reference.dense, kinds)
    if isinstance(reference.sparse, SparseVectors):
        rows = SparseVectors.concatenate([cast("SparseVectors", item.sparse) for item in alone])
        mine = cast("SparseVectors", vectors.sparse)
        found["sparse"] = compare_sparse(mine, rows, stride, reference.sparse, kinds)
    if isinstance(reference.colbert, MultiVectors):
        several = MultiVectors.concatenate([cast("MultiVectors", item.colbert) for item in alone])
        found["colbert"] = compare_multi(
            cast("MultiVectors", vectors.colbert), several, stride, reference.colbert, kinds
        )
    return [
        Check(
            encoder.precision,
            encoder.device,
            route or "default",
            figures,
            failures(figures, bounds[head]),
            listed[figures.worst],
            len(listed),
            seconds / len(listed) * 1000,
            tuple((listed[index], value) for index, value in figures.lowest),
            head,
        )
        for head, figures in found.items()
    ]


def vectors_of(encoder: BaseEncoder, texts: list[str], route: str | None, width: int | None) -> HybridVectors:
    """Everything that a model says of texts, without prompts and whole: no terms or numbers are cut off."""
    if isinstance(encoder, DenseEncoder):
        return HybridVectors(encoder.encode(texts, prompt="", task=route, truncate_dim=width), None, None)
    terms = encoder.manifest.routes[route or "default"].sparse
    every = None if terms is None else terms.dim
    if isinstance(encoder, SparseEncoder):
        return HybridVectors(None, encoder.encode(texts, prompt="", task=route, max_active_dims=every), None)
    if isinstance(encoder, HybridEncoder):
        colbert = encoder.manifest.routes[route or "default"].multi is not None
        return encoder.encode(texts, prompt="", task=route, return_colbert_vecs=colbert, max_active_dims=every)
    raise AssertionError(f"unknown encoder {type(encoder).__name__}")


def _bounds(encoder: BaseEncoder) -> dict[str, Bounds]:
    """The variant's gate, by head; GPU kernels are chosen by shape, so there a batch may round another way."""
    bounds = {head: by_precision[encoder.precision] for head, by_precision in HEADS.items()}
    if encoder.device == "cpu":
        return bounds
    diff = 1e-3 if encoder.precision == "fp16" else 1e-4
    return {head: dataclasses.replace(bound, batch_diff=diff) for head, bound in bounds.items()}


def _record(folder: Path, manifest: Manifest, checks: Sequence[Check]) -> None:
    """Note a GPU's figures of fp16 in place of the emulated ones, where every route has passed."""
    fp16 = [c for c in checks if c.precision == "fp16" and c.layout == "rows" and c.device.startswith("cuda")]
    if not fp16 or any(check.failed for check in fp16):
        return
    worst = min(fp16, key=lambda check: check.figures.cosine_min)
    gate = {**worst.record("measured"), "against": "the fp32 variant"}
    encoders = {}
    for name, encoder in manifest.encoders.items():
        variants = {**encoder.variants, "fp16": dataclasses.replace(encoder.variants["fp16"], gate=gate)}
        encoders[name] = dataclasses.replace(encoder, variants=variants)
    text = manifest_module.dumps(dataclasses.replace(manifest, encoders=encoders))
    with contextlib.suppress(OSError):  # a folder that may only be read keeps its emulated gate
        write_at_once(folder / manifest_module.FILE_NAME, text.encode())


def _variant(check: Check) -> str:
    return check.precision if check.layout == "rows" else f"{check.precision} {check.layout}"


def report(checks: Sequence[Check]) -> str:
    """The checks as an aligned table."""
    header = [
        "variant",
        "device",
        "route",
        "head",
        "texts",
        "cosine min",
        "mean",
        "top-10",
        "alone/batch",
        "ms a text",
        "gate",
    ]
    rows = [
        [
            _variant(check),
            check.device,
            check.route,
            check.head,
            str(check.texts),
            f"{check.figures.cosine_min:.6f}",
            f"{check.figures.cosine_mean:.6f}",
            f"{check.figures.top10_overlap:.4f}",
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
