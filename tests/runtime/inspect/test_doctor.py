"""What `trivec doctor` finds, on this machine and on machines that are put together for it."""

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
from trivec._inspect.doctor import Cpu, double_install, read_cpu
from trivec._system.threads import available_threads


def test_doctor_on_this_machine(trivec_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    threads = available_threads()
    assert f"numpy {np.__version__}" in lines
    assert "CPUExecutionProvider started" in lines
    assert f"{threads.count} from: {threads.source}" in lines
    assert f"TRIVEC_HOME {trivec_home} (not there yet; can be made)" in lines
    assert not trivec_home.exists()  # looking changes nothing
    assert lines[-1].startswith("ready")


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


def test_cpu_of_an_x86_and_of_an_arm_machine(tmp_path: Path) -> None:
    x86, arm = tmp_path / "x86", tmp_path / "arm"
    x86.write_text(
        "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t\t: fpu fma avx2 avx512_vnni\n\n"
        "processor\t: 1\nmodel name\t: Another\nflags\t\t: fpu\n",
        encoding="utf-8",
    )
    arm.write_text("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp i8mm\n", encoding="utf-8")
    assert read_cpu(x86) == Cpu("Some CPU @ 2.0GHz", frozenset({"fpu", "fma", "avx2", "avx512_vnni"}))
    assert read_cpu(arm).features == frozenset({"fp", "asimd", "asimddp", "i8mm"})
    assert read_cpu(tmp_path / "absent").features is None


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
