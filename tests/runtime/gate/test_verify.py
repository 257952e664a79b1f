"""`trivec verify`: a machine's own check of a folder, without torch."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.support.tiny_model import TinyModel

import trivec
from trivec._cli.main import main
from trivec._gate.checks import Check
from trivec._gate.figures import Figures
from trivec._gate.texts import Text
from trivec._gate.verify import _record, report, verify
from trivec._model import manifest_file
from trivec._model.integrity import describe
from trivec._model.manifest import Variant

RUNTIME = Path(trivec.__file__).parent


@pytest.fixture
def folder(tiny_model: "TinyModel", tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(tiny_model.folder, tmp_path / "model"))


def rewrite(folder: Path) -> None:
    """Make the manifest agree with the files as they are now."""
    manifest = manifest_file.read(folder)
    encoder = manifest.encoders["main"]
    variants = {
        name: dataclasses.replace(v, files=tuple(describe(folder, ref.path) for ref in v.files))
        for name, v in encoder.variants.items()
    }
    encoders = {"main": dataclasses.replace(encoder, variants=variants)}
    (folder / "trivec.json").write_text(manifest_file.dumps(dataclasses.replace(manifest, encoders=encoders)))


def test_a_good_folder_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "trivec.json").read_bytes()
    assert main(["verify", str(folder), "--device", "cpu", "--threads", "1"]) == 0
    *lines, engine, tolerance = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["variant", "fp32", "int8"]
    assert all(line.endswith("passed") for line in lines[1:])
    with trivec.load(folder, device="cpu") as encoder:
        assert engine == f"engine: {encoder.engine_fingerprint}"
    stated = json.loads((RUNTIME / "_engine/data/engine_drift.json").read_text())
    first, last = stated["onnxruntime"][0], stated["onnxruntime"][-1]
    assert f"with onnxruntime {first} to {last} and {len(stated['processors'])} kinds of kernels" in tolerance
    assert f"int8 dense by up to {stated['drift']['int8']['dense']['max_diff']:.1e}" in tolerance
    assert lines[1].split()[5] == "1.000000"  # fp32 against itself
    assert (folder / "trivec.json").read_bytes() == before


def test_a_damaged_variant_fails_with_its_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The weights of int8 are replaced by noise and the manifest made to agree: only the vectors can tell."""
    data = folder / "onnx" / "model_int8.onnx.data"
    values = np.frombuffer(data.read_bytes(), np.float32)
    data.write_bytes(np.random.default_rng(0).normal(size=values.shape).astype(np.float32).tobytes())
    rewrite(folder)
    assert main(["verify", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "int8 on cpu: cosine min" in out
    assert "worst for the text '" in out
    assert [check.precision for check in verify(folder) if check.failed] == ["int8"]


def test_files_are_hashed_even_where_a_note_says_they_were(folder: Path) -> None:
    import os

    trivec.load(folder, precision="int8").close()
    data = folder / "onnx" / "model_int8.onnx.data"
    stat = data.stat()
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(trivec.IntegrityError, match="was altered"):
        verify(folder)


def test_own_texts(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.jsonl").write_text("\n".join(json.dumps({"body": f"text {i}"}) for i in range(5)))
    assert main(["verify", str(folder), "--texts", str(tmp_path / "own.jsonl"), "--column", "body"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[4] == "5"
    (tmp_path / "one.txt").write_text("alone\n")
    assert main(["verify", str(folder), "--texts", str(tmp_path / "one.txt")]) == 1
    assert "expected at least two, got 1" in capsys.readouterr().err


def test_what_cannot_be_verified(folder: Path, tmp_path: Path) -> None:
    manifest = json.loads((folder / "trivec.json").read_text())
    del manifest["encoders"]["main"]["variants"]["fp32"]
    (folder / "trivec.json").write_text(json.dumps(manifest))
    with pytest.raises(trivec.ModelNotFoundError, match="no fp32 variant to compare with; it has: int8"):
        verify(folder)
    (folder / "trivec.json").unlink()
    with pytest.raises(trivec.ModelFormatError, match=r"has no trivec\.json"):
        verify(folder)
    with pytest.raises(trivec.ModelNotFoundError):
        verify(tmp_path / "nowhere")


def test_no_torch_is_loaded(folder: Path) -> None:
    import subprocess

    code = (
        "import sys\n"
        "from trivec._cli.main import main\n"
        f"assert main(['verify', {str(folder)!r}]) == 0\n"
        "assert not {'torch', 'transformers', 'trivec_export', 'scipy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def fp16_check(device: str, *, failed: list[str]) -> Check:
    return Check("fp16", device, "default", Figures(0.9999, 0.99995, 1.0, 0.0, {}, 0), failed, "worst", 630, 0.1)


def test_a_gpu_run_turns_emulated_into_measured(folder: Path) -> None:
    manifest = manifest_file.read(folder)
    encoder = manifest.encoders["main"]
    fp16: Variant = dataclasses.replace(encoder.variants["fp32"], needs=("cuda",), gate={"status": "emulated"})
    encoders = {"main": dataclasses.replace(encoder, variants={**encoder.variants, "fp16": fp16})}
    manifest = dataclasses.replace(manifest, encoders=encoders)
    before = (folder / "trivec.json").read_bytes()
    _record(folder, manifest, [fp16_check("cuda:0", failed=["cosine min 0.1 < 0.9995"])])
    _record(folder, manifest, [fp16_check("cpu", failed=[])])
    assert (folder / "trivec.json").read_bytes() == before
    _record(folder, manifest, [fp16_check("cuda:0", failed=[])])
    gate = manifest_file.read(folder).encoders["main"].variants["fp16"].gate
    assert gate is not None
    assert (gate["status"], gate["device"], gate["cosine_min"]) == ("measured", "cuda:0", 0.9999)
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == []


def test_the_table_names_what_failed() -> None:
    table = report([fp16_check("cuda:0", failed=["cosine min 0.1 < 0.9995"])])
    assert table.splitlines()[-1] == "fp16 on cuda:0: cosine min 0.1 < 0.9995; worst for the text 'worst'"


def test_kinds_are_kept_apart(folder: Path) -> None:
    checks = verify(folder, texts=[Text("a", "one two"), Text("b", "three"), Text("a", "four five")])
    assert set(checks[0].figures.by_kind) == {"a", "b"}
