"""A folder's graph for CUDA, run on the CPU: its attention taken apart into nodes that have a kernel there."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

import trivec
from trivec._loading import choice
from trivec._model import manifest as manifest_module
from trivec._model import manifest_file
from trivec._model.integrity import describe
from trivec_export._variants.cuda.cpu_twin import unpacked_twin


def mixed_on_cpu(folder: Path, work: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """The encoder of a copy of the folder below `work`, with layout="mixed" on the CPU, which `load` refuses else."""
    copy = work / "mixed"
    shutil.copytree(folder, copy)
    manifest = manifest_file.read(copy)
    encoders = {}
    for name, encoder in manifest.encoders.items():
        assert encoder.cuda is not None
        path = encoder.cuda.files[0].path
        graph = onnx.load(copy / path, load_external_data=False)
        onnx.save(unpacked_twin(graph), copy / path)
        files = (describe(copy, path), *encoder.cuda.files[1:])
        encoders[name] = dataclasses.replace(encoder, cuda=dataclasses.replace(encoder.cuda, files=files))
    text = manifest_file.dumps(dataclasses.replace(manifest, encoders=encoders))
    (copy / manifest_module.FILE_NAME).write_text(text, encoding="utf-8")
    monkeypatch.setattr(choice, "_REFUSALS", {})
    return trivec.load(copy, device="cpu", threads=1, precision="fp16", layout="mixed", **options)
