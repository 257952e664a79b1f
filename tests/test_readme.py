"""Every snippet of the README runs as it stands, in one folder, top to bottom."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REPOSITORY = "models--sentence-transformers--all-MiniLM-L6-v2"


@pytest.fixture
def offline_hub(minilm_checkpoint: Path, tmp_path: Path) -> Path:
    """A Hub cache that has all-MiniLM-L6-v2, as if it had been downloaded before."""
    commit = "a" * 40
    repository = tmp_path / "hub" / REPOSITORY
    shutil.copytree(minilm_checkpoint, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return tmp_path / "hub"


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"```(bash|python)\n(.*?)```", README, flags=re.DOTALL)


def test_every_snippet_runs(offline_hub: Path, minilm_checkpoint: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "minilm-checkpoint").symlink_to(minilm_checkpoint)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HF_HUB_CACHE": str(offline_hub), "HF_HUB_OFFLINE": "1"}
    assert len(blocks()) >= 6
    for language, code in blocks():
        if language == "bash":  # installing is not for a test; the extras are checked below
            lines = [line for line in code.splitlines() if not line.startswith("pip ")]
            command = ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]
        else:
            command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    assert (work / "vectors.npy").exists()


def test_the_extras_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {extra for group in re.findall(r"trivec\[([a-z,]+)\]", README) for extra in group.split(",")}
    assert named <= set(project["optional-dependencies"])


def test_the_errors_are_the_ones_there_are() -> None:
    import builtins

    import trivec

    for name, builtin in re.findall(r"`(\w+Error)\((\w+)\)`", README):
        assert issubclass(getattr(trivec, name), getattr(builtins, builtin))


def test_the_scripts_exist() -> None:
    for name in set(re.findall(r"`scripts/([\w-]+)`", README)):
        assert os.access(ROOT / "scripts" / name, os.X_OK), name
