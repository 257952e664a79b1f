"""What goes wrong ends in one clear error, and leaves nothing behind."""

import importlib.metadata
import json
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.architectures import make

import trivec
from trivec_export import _export, _request
from trivec_export._checkpoint.fetch import fetch
from trivec_export._variants import write
from trivec_export._variants.int8.quantize import Quantized


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return make("bert", tmp_path / "bert")


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != "bert")


def test_an_output_folder_that_exists(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(trivec.InputError, match=r"out exists already\. Choose another folder, or delete it: rm -r"):
        trivec.export(bert, tmp_path / "out")


def test_an_output_folder_that_cannot_be_written(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(trivec.InputError, match="cannot be written"):
        trivec.export(bert, tmp_path / "file" / "out")


def test_a_checkpoint_whose_name_the_locale_cannot_read(bert: Path, tmp_path: Path) -> None:
    """Python keeps such a name's bytes as surrogates, which no file in UTF-8 can hold."""
    bert.rename(tmp_path / "检索")
    unread = tmp_path / "检索".encode().decode("ascii", "surrogateescape")
    assert fetch(str(unread), revision=None, token=None, with_code=False).name == "检索"


def test_a_disk_that_fills_up(bert: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for a full disk: the write itself fails."""
    code = (
        "import resource, signal, sys, trivec\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import trivec_export._export\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    trivec.export(sys.argv[1], sys.argv[2], precision=['fp32'], max_texts=64, quiet=True)\n"
        "except trivec.InputError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(bert), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "is full" in done.stdout
    assert leftovers(tmp_path) == []


def test_ctrl_c_in_the_middle_leaves_no_half_folder(bert: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trivec", "export", str(bert), str(tmp_path / "out"), "--max-texts", "64"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    while not any(tmp_path.glob(".out.*.partial")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    assert any(tmp_path.glob(".out.*.partial"))
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=600)
    # where the interrupt crosses an exec() of torch's, CPython ends by the signal itself: a shell says 130 to both
    assert process.returncode in (130, -signal.SIGINT)
    assert stderr.splitlines()[-1] == "trivec: interrupted"
    assert leftovers(tmp_path) == []


def test_a_pickle_that_weights_only_refuses(bert: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    (bert / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": torch.zeros(2), "x": Evil()}, bert / "pytorch_model.bin")
    with pytest.raises(trivec.ModelFormatError, match=r"pytorch_model\.bin holds more than tensors"):
        trivec.export(bert, tmp_path / "out", quiet=True)
    assert leftovers(tmp_path) == []


def test_nan_in_the_weights_names_a_text(bert: Path, tmp_path: Path) -> None:
    weights = load_file(bert / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"][3, 5] = float("nan")
    save_file(weights, bert / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(trivec.NonFiniteError, match="torch itself gives NaN or infinity for the text '"):
        trivec.export(bert, tmp_path / "out", quiet=True)
    assert leftovers(tmp_path) == []


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(trivec.ModelNotFoundError, match="there is no folder '/nowhere'"):
        trivec.export("/nowhere", tmp_path / "out", quiet=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(trivec.ModelNotFoundError, match="holds no weights"):
        trivec.export(tmp_path / "empty", tmp_path / "out", quiet=True)


def test_arguments_out_of_range(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(trivec.InputError, match="family 'colbert' is not one of auto, dense"):
        trivec.export(bert, tmp_path / "out", family="colbert")
    with pytest.raises(trivec.InputError, match="precision 'int4': expected some of fp32,fp16,int8"):
        trivec.export(bert, tmp_path / "out", precision=["int4"])
    with pytest.raises(trivec.InputError, match="max_texts must be at least 64, got 3"):
        trivec.export(bert, tmp_path / "out", max_texts=3)


def test_a_masked_language_model_is_not_taken_for_a_dense_one(bert: Path, tmp_path: Path) -> None:
    config = json.loads((bert / "config.json").read_text()) | {"architectures": ["BertForMaskedLM"]}
    (bert / "config.json").write_text(json.dumps(config))
    with pytest.raises(trivec.ModelFormatError, match=r"without its masked-language-model head.*--family dense"):
        trivec.export(bert, tmp_path / "out", quiet=True)


def test_an_unfaithful_int8_is_refused_and_the_others_are_left(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quantizer is made bad on purpose: the gate must see it in the vectors."""
    real = vars(write)["quantize"]

    def bad(*args: object, **options: object) -> Quantized:
        result: Quantized = real(*args, **options)
        for tensor in result.model.graph.initializer:
            if tensor.data_type == 3:  # int8 weights
                values = np.frombuffer(tensor.raw_data, np.int8).copy()
                values[::2] = 0
                tensor.raw_data = values.tobytes()
        return result

    monkeypatch.setattr(write, "quantize", bad)
    with pytest.raises(
        trivec.GateError, match=r"int8 is not faithful to torch: .*worst for the text '.*written with fp32"
    ):
        _export.run(
            _request.Request(str(bert), tmp_path / "out", "auto", ("fp32", "int8"), None, None, False, None, 64),
            quiet=True,
        )
    manifest = json.loads((tmp_path / "out" / "trivec.json").read_text())
    assert list(manifest["encoders"]["main"]["variants"]) == ["fp32"]
    assert sorted(p.name for p in (tmp_path / "out" / "onnx").iterdir()) == ["model.onnx", "model.onnx.data"]
    report = (tmp_path / "out" / "REPORT.md").read_text()
    assert "**failed**, not in the folder" in report
    with trivec.load(tmp_path / "out") as encoder:
        assert encoder.encode("still here").shape == (64,)


def test_export_once_into_the_cache(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVEC_HOME", str(tmp_path / "home"))
    calls = []
    real = trivec.export

    def counted(model: str, out: Path, *, revision: str | None) -> Path:
        calls.append(model)
        return real(model, out, precision=["fp32"], max_texts=64, quiet=True, revision=revision)

    monkeypatch.setattr(sys.modules["trivec._export"], "export", counted)
    with pytest.raises(trivec.ModelNotFoundError, match=r"Type: trivec export .*bert OUT"):
        trivec.load(bert)
    first = trivec.load(bert, export=True).encode("once")
    second = trivec.load(bert, export=True).encode("once")
    np.testing.assert_array_equal(first, second)
    assert len(calls) == 1
    encoder = trivec.load(bert, export=True)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(encoder)).encode("once"), first)


def test_packages_that_are_newer_than_what_was_tested(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.metadata.version
    newer = {"transformers": "5.99.1.dev0", "torch": "2.13.7+cpu"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: newer.get(name) or real(name))
    monkeypatch.setattr(_export, "fetch", lambda *_, **__: pytest.fail("far enough"))
    with pytest.raises(pytest.fail.Exception, match="far enough"):
        trivec.export(bert, tmp_path / "out")
    said = capsys.readouterr().err
    tested = ".".join(map(str, _export._TESTED["transformers"]))
    assert f"transformers 5.99.1.dev0 is newer than {tested}, which this was tested with: the gates decide" in said
    assert "torch" not in said


def test_what_is_pinned_is_within_what_was_tested() -> None:
    pins = (Path(__file__).parents[2] / "scripts/constraints.txt").read_text(encoding="utf-8")
    for name, tested in _export._TESTED.items():
        pinned = re.search(rf"^{name}==(\d+)\.(\d+)", pins, flags=re.MULTILINE)
        assert pinned is not None
        assert tuple(map(int, pinned.groups())) <= tested
