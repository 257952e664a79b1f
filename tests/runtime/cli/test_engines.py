"""What commands say of the engine, and what `encode --strict` refuses."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.support.tiny_model import TinyModel

import trivec
from trivec import store
from trivec._cli.main import main
from trivec._engine import engine_name

TEXTS = ["a cat", "the dog", "mat", "a red boat"]


@pytest.fixture
def encoder(tiny_model: TinyModel) -> trivec.DenseEncoder:
    return trivec.load(tiny_model.folder, device="cpu", threads=1, kind="dense")


def test_info_and_doctor_name_both_fingerprints(
    tiny_model: TinyModel, encoder: trivec.DenseEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tiny_model.folder)
    assert main(["info", folder, "--fingerprints"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for said in (encoder.fingerprint, encoder.engine_fingerprint):
        assert any(line.endswith(f"fp32: {said}") for line in lines)
    assert main(["info", folder, "--fingerprints", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["fingerprints"]["fp32"]
    assert found == {"fingerprint": encoder.fingerprint, "engine": encoder.engine_fingerprint}
    assert main(["info", folder, "--json"]) == 0
    assert "fingerprints" not in json.loads(capsys.readouterr().out)
    main(["doctor", folder, "--json"])
    rows = json.loads(capsys.readouterr().out)["model"]
    assert (rows["fingerprint"], rows["engine"]) == (encoder.fingerprint, encoder.engine_fingerprint)


def test_an_interrupted_run_goes_on_with_another_engine_unless_strict(
    tiny_model: TinyModel,
    encoder: trivec.DenseEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out = tmp_path / "texts.txt", tmp_path / "out.npy"
    source.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    whole = encoder.encode(TEXTS)

    def half() -> Iterator[str]:
        yield from TEXTS[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write(out, encoder, half(), window=1)
    monkeypatch.setattr(engine_name, "this_kernel_class", lambda: "x86_64 as nobody has it")
    command = ["encode", str(tiny_model.folder), str(source), "-o", str(out), "--device", "cpu", "--threads", "1"]
    assert main([*command, "--strict"]) == 1
    said = capsys.readouterr().err
    assert "computed by another engine" in said
    assert "--force" in said
    assert not out.exists()
    assert main(command) == 0
    np.testing.assert_array_equal(np.load(out), whole)
    engines = store.read(out).engine
    assert engines is not None
    assert engines.count("onnxruntime") == 2
