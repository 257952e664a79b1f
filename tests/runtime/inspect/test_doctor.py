"""What `trivec doctor` finds, on this machine and on machines that are put together for it."""

import json
import os
import platform
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import trivec_export
from trivec._cli.main import main
from trivec._engine import provider_probe, session
from trivec._inspect import doctor
from trivec._inspect.doctor import double_install
from trivec._system import threads
from trivec._system.cpu import Cpu


def test_doctor_on_this_machine(trivec_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    found = threads.default_threads()
    assert f"numpy {np.__version__}" in lines
    assert "CPUExecutionProvider started" in lines
    assert f"count {found.count}" in lines
    assert f"from {found.source}" in lines
    assert f"TRIVEC_HOME {trivec_home} (not there yet; can be made)" in lines
    assert not trivec_home.exists()  # looking changes nothing
    assert lines[-1].startswith("ready")


def test_doctor_names_the_variable_that_lowers_the_threads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(threads, "_quotas", lambda _: iter(()))
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    assert main(["doctor"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "count 3" in lines
    assert "from MKL_NUM_THREADS=3 (CPU affinity of this process: 6)" in lines


def test_doctor_for_programs(
    trivec_home: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    monkeypatch.setattr(threads, "_quotas", lambda _: iter(()))
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert main(["doctor", str(tiny_folder), "--device", "cpu", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["versions"]["python"].startswith(platform.python_version())
    assert told["providers"]["CPUExecutionProvider"] == "started"
    assert (told["threads"]["count"], told["threads"]["from"].partition(" ")[0]) == (4, "OMP_NUM_THREADS=4")
    assert told["network"]["telemetry of onnxruntime"] == "off"
    assert told["network"]["Hub"].startswith("asked for what is no folder and not in its cache")
    assert told["folders"]["TRIVEC_HOME"].startswith(str(trivec_home))
    assert (told["model"]["device"], told["model"]["variant"]) == ("cpu", "fp32")
    assert main(["doctor", "no/such/folder", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert "model" not in told
    assert told["problems"][-1].startswith("no/such/folder is not opened: there is no folder 'no/such/folder'")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setenv("TRIVEC_OFFLINE", "1")
    assert main(["doctor", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["providers"], told["verdict"]) == ({}, "nothing can run here")
    assert told["network"]["Hub"] == "never asked: TRIVEC_OFFLINE"


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (None, "telemetry of onnxruntime off"),
        ("True", "telemetry of onnxruntime off"),
        ("0", "telemetry of onnxruntime on, because ORT_DISABLE_TELEMETRY='0' is set. To turn it off, unset it or"),
    ],
)
def test_doctor_tells_of_telemetry(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str | None, line: str
) -> None:
    if value is None:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "")  # so that it is put back
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    else:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", value)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert any(" ".join(each.split()).startswith(line) for each in out.splitlines()), out


def test_probe_graph_is_valid_onnx_and_adds() -> None:
    model = onnx.load_from_string(provider_probe.add_graph())
    onnx.checker.check_model(model, full_check=True)
    x = np.array([1.25], dtype=np.float32)
    outputs: Any = ReferenceEvaluator(model).run(None, {"x": x})
    assert outputs[0].tolist() == [2.5]


class FakeSession:
    """onnxruntime's session on a machine where only the CPU works, and the others fail each in its own way."""

    def __init__(self, _: bytes, options: Any = None, *, providers: list[str], enable_fallback: int) -> None:
        alone = options is not None and options.entries.get("session.disable_cpu_ep_fallback") == "1"
        self._provider = providers[0]
        if self._provider == "BrokenExecutionProvider":
            raise RuntimeError("no such\nlibrary")
        if self._provider in ("IdleExecutionProvider", "AbsentExecutionProvider") and alone:
            raise RuntimeError("nodes are assigned to the CPU")
        assert enable_fallback == 0

    def get_providers(self) -> list[str]:
        away = ("AbsentExecutionProvider", "AwayExecutionProvider")
        return ["CPUExecutionProvider"] if self._provider in away else [self._provider, "CPUExecutionProvider"]

    def run(self, _: None, feeds: dict[str, Any]) -> list[Any]:
        factor = 3 if self._provider == "WrongExecutionProvider" else 2
        return [feeds["x"] * factor]


class FakeOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


def test_probe_tells_how_each_provider_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        "BrokenExecutionProvider": "error: no such library",
        "AbsentExecutionProvider": "falls back to CPUExecutionProvider",
        "AwayExecutionProvider": "falls back to CPUExecutionProvider",
        "IdleExecutionProvider": "opens, but runs nothing of a plain graph",
        "WrongExecutionProvider": "error: 1.5 + 1.5 came out as [4.5]",
        "CPUExecutionProvider": "started",
    }
    engine = SimpleNamespace(
        InferenceSession=FakeSession, SessionOptions=FakeOptions, get_available_providers=lambda: list(expected)
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", engine)
    assert session.probe_providers() == expected


@pytest.mark.parametrize(
    ("engine", "problem"),
    [
        (None, 'problem: onnxruntime is not installed, and nothing runs without it. Type: pip install "trivec[cpu]"'),
        (ModuleType("onnxruntime"), "problem: onnxruntime is half removed"),
    ],
)
def test_without_an_engine_doctor_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], engine: ModuleType | None, problem: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", engine)  # None: cannot be imported
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert problem in out
    assert out.endswith("\nnothing can run here\n")


def test_an_engine_that_runs_nothing_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "probe_providers", lambda: {"CPUExecutionProvider": "error: broken"})
    assert main(["doctor"]) == 1
    assert "problem: no provider of onnxruntime runs a graph." in capsys.readouterr().out


def test_two_engines_are_found_by_their_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        metadata = tmp_path / f"{name.replace('-', '_')}-1.24.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.24.0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "problem: onnxruntime and onnxruntime-gpu are installed together" in out
    assert 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "trivec[gpu]"' in out
    assert out.endswith("\nready: but see above\n")


def test_one_engine_is_no_problem() -> None:
    assert double_install({}) is None
    assert double_install({"onnxruntime-gpu": "1.24.0"}) is None


@pytest.mark.parametrize(
    ("machine", "rows"),
    [
        ("x86_64", {"fma": "no", "avx2": "yes", "avx512_vnni": "no", "amx_int8": "no"}),
        ("aarch64", {"asimddp": "yes", "i8mm": "no", "sve": "no"}),
    ],
)
def test_features_are_those_of_the_machine(monkeypatch: pytest.MonkeyPatch, machine: str, rows: dict[str, str]) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(doctor, "read_cpu", lambda: Cpu("a cpu", frozenset({"avx2", "asimddp"})))
    found = doctor._cpu()
    assert found["model"] == "a cpu"
    assert {name: found[name] for name in rows} == rows


def test_folders_that_cannot_be_written_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("TRIVEC_HOME", str(tmp_path / "file" / "home"))
    main(["doctor"])
    assert f"{tmp_path / 'file' / 'home'} (NOT writable)" in capsys.readouterr().out
    monkeypatch.setenv("TRIVEC_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    main(["doctor"])
    assert f"{tmp_path} (NOT writable)" in capsys.readouterr().out


def test_missing_export_packages_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(trivec_export, "_PACKAGES", ("numpy", "absent_one", "absent_two"))
    main(["doctor"])
    assert 'export  lacks absent_one, absent_two. Type: pip install "trivec[export]"' in capsys.readouterr().out
