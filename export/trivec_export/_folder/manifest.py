"""The manifest of an export, and what stays of its variants."""

import dataclasses
import importlib.metadata
import types
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from trivec._errors import ModelFormatError
from trivec._model import manifest_file
from trivec._model.checkpoint import Checkpoint
from trivec._model.integrity import describe, sha256
from trivec._model.manifest import FILE_NAME, FORMAT, EncoderSpec, Manifest, Variant
from trivec._vectors.arrays import Floats
from trivec._vectors.multi import MultiVectors
from trivec_export._checkpoint.fetch import Fetched
from trivec_export._checkpoint.query_table import Table
from trivec_export._draft import Draft
from trivec_export._folder.origins import command, copy_card, origins
from trivec_export._gate.verify import record
from trivec_export._request import Request, Verdicts

_TOOLS = (
    *("trivec", "torch", "transformers", "sentence-transformers", "peft", "optimum"),
    *("onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy"),
)
_ARRAYS = "arrays.npz"


def manifest_of(
    request: Request,
    fetched: Fetched,
    checkpoint: Checkpoint,
    folder: Path,
    parts: Mapping[str, Draft],
    tables: Mapping[str, Table],
    arrays: Mapping[str, Floats],
    reference: str,
    assumed: str | None,
) -> Manifest:
    """The manifest, as yet without variants; writes arrays.npz, and the checkpoint's card."""
    stored = dict(arrays)
    for part in parts.values():
        for route, (raw, unit) in part.ranges.items():
            stored |= {f"{route}.ranges": raw, f"{route}.normalized_ranges": unit}
    np.savez(folder / _ARRAYS, **stored)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for one of them
    made = {name: route for part in parts.values() for name, route in part.routes.items()}
    routes = {name: made.get(name, route) for name, route in checkpoint.routes.items()}
    encoders = {name: part.encoder for name, part in parts.items()}
    return Manifest(
        family=checkpoint.family,
        dim=dim_of(parts),
        encoders=encoders | {name: table.encoder for name, table in tables.items()},
        routes=routes,
        default_route=checkpoint.default_route,
        prompts=next((part.prompts for part in parts.values() if part.prompts is not None), checkpoint.prompts),
        default_prompt_name=checkpoint.default_prompt_name,
        similarity=checkpoint.similarity,
        truncate_dim=checkpoint.truncate_dim,
        max_active_dims=checkpoint.max_active_dims,
        arrays=describe(folder, _ARRAYS),
        source={
            "name": fetched.name,
            "revision": fetched.revision,
            "weights": "safetensors" if _has_safetensors(fetched, checkpoint) else "pytorch_model.bin",
            "calibration_texts": len(next(iter(parts.values())).calibration.texts),
            "own_calibration": request.calibration is not None,
            **({} if request.calibration is None else {"calibration_sha256": sha256(request.calibration)}),
            "reference": reference,
            **({} if assumed is None else {"pooling": assumed}),
        },
        name=request.name,
        version=request.version,
        card=copy_card(fetched, folder),
        origins=origins(fetched, checkpoint, request.token),
        command=command(request, fetched),
        tools={name: version for name in _TOOLS if (version := _version(name))},
        format=FORMAT if any(part.encoder.template for part in parts.values()) else 1,
    )


def dim_of(parts: Mapping[str, Draft]) -> int:
    """Numbers of a dense vector, or of a token's, terms of a sparse row, or scores of a pair."""
    references = [vectors for part in parts.values() for vectors in part.reference.values()]
    dims = {int(v.dense.shape[1]) for v in references if v.dense is not None}
    dims = dims or {v.sparse.dim for v in references if v.sparse is not None}
    dims = dims or {v.colbert.dim for v in references if isinstance(v.colbert, MultiVectors)}
    if len(dims) != 1:
        raise ModelFormatError(f"the routes give vectors of different widths: {sorted(dims)}. Expected one.")
    return dims.pop()


def _has_safetensors(fetched: Fetched, checkpoint: Checkpoint) -> bool:
    return all(any((fetched.folder / spec.folder).glob("*.safetensors")) for spec in checkpoint.transformers.values())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def with_variants(
    manifest: Manifest,
    variants: Mapping[str, Mapping[str, Variant]],
    cuda: Mapping[str, Variant | None] = types.MappingProxyType({}),
) -> Manifest:
    encoders: dict[str, EncoderSpec] = {
        name: dataclasses.replace(encoder, variants=variants.get(name, {}), cuda=cuda.get(name))
        for name, encoder in manifest.encoders.items()
    }
    return dataclasses.replace(manifest, encoders=encoders)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / FILE_NAME).write_text(manifest_file.dumps(manifest), encoding="utf-8")


def keep(
    folder: Path,
    manifest: Manifest,
    variants: Mapping[str, Mapping[str, Variant]],
    cuda: Mapping[str, Variant | None],
    passed: Verdicts,
) -> Manifest:
    """Write the final manifest with gate figures, and delete the files of variants that failed.

    A graph for CUDA has no gate: nothing here has run it. It goes where its fp16 variant goes.
    """
    kept: dict[str, dict[str, Variant]] = {name: {} for name in variants}
    for name, have in variants.items():
        for precision, variant in have.items():
            if precision in passed:
                status = "emulated" if precision == "fp16" else "measured"
                gate = record(passed[precision][name], status)
                kept[name][precision] = dataclasses.replace(variant, gate=gate)
                continue
            graph = cuda.get(name) if precision == "fp16" else None
            for path in {ref.path for ref in (*variant.files, *(graph.files if graph else ()))}:
                (folder / path).unlink()
    final = with_variants(manifest, kept, cuda if "fp16" in passed else {})
    write_manifest(folder, final)
    return final
