"""gpu-check on a machine without a GPU, or with one that CUDA does not start on; and how it reads a profile."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import gpu_check
from benchmarks.harness import machine, profile
from benchmarks.harness.models import MINILM, Model, checked_models
from benchmarks.harness.scifact import texts_of
from benchmarks.harness.venvs import ROOT, Failed

import trivec

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
SMI = """#!/bin/sh
case "$1" in
  *memory.used*) n=$(cat {count}); echo $((n + 700)) > {count}; echo "$n" ;;
  *) echo "0, NVIDIA Test GPU, 580.65.06, 81559" ;;
esac
"""


def run(out: Path, folder: Path, *arguments: str, path: Path | None = None) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("runtime", "export", ""))}
    if path is not None:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--quick", "--folder", str(folder), "--out", str(out)]
    command += ["--work", str(out / "work"), "--data", str(out / "none"), "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600, check=False)


def steps(out: Path) -> dict[str, tuple[str, str]]:
    lines = [json.loads(line) for line in (out / "gpu-check-quick.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        line["step"]: (line["result"], line["what"]) for line in lines if line["table"] == "steps" and "step" in line
    }


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A folder with an nvidia-smi that shows a GPU, on which each look finds 700 MiB more in use."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "count").write_text("1000")
    (folder / "nvidia-smi").write_text(SMI.format(count=folder / "count"))
    (folder / "nvidia-smi").chmod(0o755)
    return folder


# ---- machines --------------------------------------------------------------------------------------------------------


def test_without_a_gpu_it_runs_to_the_end_and_says_what_it_skips(tiny_folder: Path, tmp_path: Path) -> None:
    done = run(tmp_path, tiny_folder)
    assert done.returncode == 0, done.stderr
    found = steps(tmp_path)
    assert found["MiniLM: profile on the CPU"] == ("passed", "cpu fp32")
    for what in ("bert-base", "BGE-M3", "MiniLM: verify on CUDA", "MiniLM: parity on CUDA"):
        result, why = found[what]
        assert result == "skipped"
        assert why == f"{CUDA} is not built into this onnxruntime; nvidia-smi shows 0 GPUs"
    report = (tmp_path / "gpu-check-quick.md").read_text(encoding="utf-8")
    assert report == done.stdout.removesuffix("\n")
    assert f"| MatMul | {CPU} |" in report
    assert "| GPU | none |" in report
    assert str(tiny_folder) not in report


def test_a_gpu_that_cuda_does_not_start_on_is_a_failure(tiny_folder: Path, tmp_path: Path, card: Path) -> None:
    done = run(tmp_path, tiny_folder, path=card)
    assert done.returncode == 1
    assert steps(tmp_path)["providers"][0] == "FAILED"
    assert "there is a GPU, but CUDAExecutionProvider is not built into" in steps(tmp_path)["providers"][1]
    assert "NVIDIA Test GPU, driver 580.65.06, 81559 MiB" in done.stdout
    assert run(tmp_path, tiny_folder, "--allow-cpu", path=card).returncode == 0


def test_a_folder_that_is_not_there_is_skipped_with_what_to_type(tmp_path: Path) -> None:
    done = run(tmp_path, tmp_path / "nothing")
    assert done.returncode == 0
    assert steps(tmp_path)["MiniLM"][1].endswith("has no trivec.json. Type: scripts/demo")


def test_peak_memory_is_above_what_was_in_use(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{card}{os.pathsep}{os.environ['PATH']}")
    assert [gpu.name for gpu in machine.gpus()] == ["NVIDIA Test GPU"]
    with machine.PeakMemory(0) as peak:
        while peak.mib < 1400:
            pass
    assert peak.mib % 700 == 0


# ---- profiles --------------------------------------------------------------------------------------------------------


def test_a_real_profile(tiny_folder: Path, tmp_path: Path) -> None:
    """Of the CPU: a Gather, a MatMul and a Tanh, each as often as there are runs."""
    load = lambda: trivec.load(tiny_folder, device="cpu", threads=1)  # noqa: E731
    what, found = profile.profile(load, ["a cat", "the dog ran", "a boat"], tmp_path / "run")
    assert what == "cpu fp32"
    assert {(k.op, k.provider, k.runs) for k in found["default"]} == {
        ("Gather", CPU, 2),
        ("MatMul", CPU, 2),
        ("Tanh", CPU, 2),
    }
    assert profile.strays(found["default"]) == ["2 x MatMul"]
    assert not list(tmp_path.glob("run*"))
    with trivec.load(tiny_folder, device="cpu", threads=2) as encoder:  # nothing is profiled any more
        encoder.encode("a cat")
    assert not list(Path.cwd().glob("onnxruntime_profile*"))


def test_a_profile_of_several_threads_is_whole(tiny_folder: Path, tmp_path: Path) -> None:
    load = lambda: trivec.load(tiny_folder, device="cpu", threads=2)  # noqa: E731
    found = profile.profile(load, ["a cat", "the dog ran", "a boat"], tmp_path / "run")[1]["default"]
    assert {k.runs for k in found} == {2}


def event(op: str, provider: str, microseconds: int = 10, **other: Any) -> dict[str, Any]:
    about = {"op_name": op, "provider": provider}
    return {"cat": "Node", "name": f"/layer/{op}_kernel_time", "dur": microseconds, "args": about} | other


def test_a_doctored_profile() -> None:
    events = [
        event("MultiHeadAttention", CUDA, 40),
        event("MatMul", CUDA, 30),
        event("MatMul", CUDA, 30),
        event("Shape", CPU, 1),
        event("Gather", CPU, 2),
        event("MatMul", CPU, 500, name="/layer/MatMul_fence_before"),  # no run of a node
        {"cat": "Session", "name": "model_run", "dur": 900},
    ]
    found = profile.kernels(events)
    assert [(k.op, k.provider, k.runs) for k in found] == [
        ("MatMul", CUDA, 2),
        ("MultiHeadAttention", CUDA, 1),
        ("Gather", CPU, 1),
        ("Shape", CPU, 1),
    ]
    assert found[0].seconds == pytest.approx(60e-6)
    assert profile.strays(found) == []
    for op in ("LayerNormalization", "MatMul", "PackedMultiHeadAttention", "SkipLayerNormalization", "Gemm"):
        assert profile.strays(profile.kernels([*events, event(op, CPU), event(op, CPU)])) == [f"2 x {op}"]
    text = profile.operators("key", "Title", found).markdown()
    assert f"| MatMul | {CUDA} | 2 | 0.060 | 58.3 |" in text
    assert "Heavy operators on the CPU: none." in text


def test_a_profile_without_nodes_says_nothing() -> None:
    with pytest.raises(ValueError, match="no node that ran"):
        profile.kernels([{"cat": "Session", "name": "model_run", "dur": 900}])


# ---- steps -----------------------------------------------------------------------------------------------------------


def check(tmp_path: Path, **settings: Any) -> gpu_check.Check:
    args = {"work": tmp_path / "work", "threads": 1, "device": "cuda:0", "quick": True, "allow_cpu": False}
    return gpu_check.Check(Namespace(**args | settings))


def test_a_stray_fails_the_check_and_not_the_rehearsal(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"default": profile.kernels([event("MatMul", CUDA), event("LayerNormalization", CPU)])}
    monkeypatch.setattr(profile, "profile", lambda *_: ("cuda:0 fp16", found))
    run, model = check(tmp_path), Model("MiniLM", tiny_folder, None, MINILM, 16)
    assert run.profile(model, lambda: None, [], False) == "cuda:0 fp16"
    with pytest.raises(Failed, match="on the CPU: 1 x LayerNormalization"):
        run.profile(model, lambda: None, [], True)
    assert [table.title for table in run.tables] == ["Operators: MiniLM, cuda:0 fp16"] * 2


@pytest.mark.parametrize(("off", "fails"), [(0.01, False), (0.1, True), (float("nan"), True)])
def test_parity_has_a_least_cosine(tiny_folder: Path, tmp_path: Path, off: float, fails: bool) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    other = vectors.copy()
    aside = np.roll(vectors[7], 1)
    other[7] += off * (aside - (aside @ vectors[7]) * vectors[7])  # its cosine becomes about 1 - off ** 2 / 2
    np.savez(tmp_path / "torch.npz", dense=vectors)
    np.savez(tmp_path / "ours.npz", dense=other)
    run, model = check(tmp_path), Model("MiniLM", tiny_folder, None, MINILM, 16)
    saved = {"sentence-transformers fp32": tmp_path / "torch.npz", "trivec fp16": tmp_path / "ours.npz"}
    if fails:
        with pytest.raises(Failed, match=r"below 0\.9995: trivec fp16"):
            run.parity(model, saved, tmp_path)
    else:
        assert run.parity(model, saved, tmp_path).startswith("cosines to sentence-transformers fp32 of 0.9999")


def test_a_contest_on_the_cpu(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that happens on a GPU but the GPU: engines in processes of their own, in turn, then compared."""
    monkeypatch.setattr(gpu_check, "PRODUCTS", (64,))
    run, model = check(tmp_path, device="cpu"), Model("MiniLM", tiny_folder, None, MINILM, 16)
    assert not run.has_cuda_graph(model)
    contenders = run.contenders(
        model,
        "no torch",
    )
    assert [c.name for c in contenders] == ["trivec fp16 rows", "trivec fp32"]
    texts = {
        "short": ["a cat", "the dog"],
        "long": ["find the small bird " * 3] * 2,
        "mixed": ["a boat", "old house ran"],
    }
    assert run.contest(model, contenders, texts) == "cosines to trivec fp32 on the CPU of 1.000000 at least"
    tables = {table.key: table for table in run.tables}
    assert set(tables) == {"MiniLM short", "MiniLM long", "MiniLM mixed", "latency MiniLM", "parity MiniLM"}
    for kind in texts:
        rows = tables[f"MiniLM {kind}"].rows
        assert [row["engine"] for row in rows] == ["trivec fp16 rows", "trivec fp32"]
        assert rows[0]["trivec fp16 rows x"] == "1.00 (1.00 to 1.00)"
        assert all(float(row["texts/s"]) > 0 and float(row["share of ceiling %"]) > 0 for row in rows)
    assert run.figures["MiniLM latency / trivec fp32"] > 0
    assert run.memory(model, contenders, texts["mixed"]) == "measured"
    assert [row["what"] for row in run.report()[0].rows][-2:] == ["GPU", "packages"]


def test_a_step_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    run = check(tmp_path)

    def broken() -> str:
        raise trivec.ProviderError("no memory")

    assert not run.step("one", broken)
    assert run.step("two", lambda: "fine")
    run.skip("three", "no GPU")
    assert [(row["step"], row["result"]) for row in run.steps] == [
        ("one", "FAILED"),
        ("two", "passed"),
        ("three", "skipped"),
    ]


def test_texts_without_scifact() -> None:
    found = texts_of(None, (70, 9, 41))
    assert {name: len(texts) for name, texts in found.items()} == {"short": 70, "long": 9, "mixed": 41}
    assert len(set(found["short"])) == 70
    assert max(len(text.split()) for text in found["short"]) <= 17
    assert min(len(text.split()) for text in found["long"]) > 30


def test_models_that_cannot_be_made_say_why(tmp_path: Path) -> None:
    (made,) = checked_models(["bert-base"], tmp_path, tmp_path / "work", 2, (tmp_path, tmp_path))
    assert isinstance(made, Failed)
    assert "has no tokenizer.json" in made.said or "not installed" in made.said
