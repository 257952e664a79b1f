"""What type checkers and editors know of `load` and of what it returns."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RIGHT = """
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import trivec

texts = ["one", "two"]
dense = trivec.load("a", kind="dense", precision="int8", device="cuda:1", threads=2, prompts={"query": "q: "})
assert_type(dense, trivec.DenseEncoder)
splade = trivec.load("b", kind="sparse", max_active_dims=64)
assert_type(splade, trivec.SparseEncoder)
assert_type(splade.encode_document(texts), trivec.SparseVectors)
assert_type(splade.encode_query("one", threshold=0.1), trivec.SparseVector)
assert_type(splade.encode(texts, convert_to_tensor=True), Any)
assert_type(trivec.load("c", kind="hybrid", layout="rows").encode(texts), trivec.HybridVectors)
assert_type(trivec.load("d", kind="static", device="cpu"), trivec.StaticEncoder)
assert_type(dense.encode(texts), npt.NDArray[np.float32])
assert_type(dense.encode("one", normalize_embeddings=True, truncate_dim=8), npt.NDArray[np.float32])
assert_type(dense.encode_query("one"), npt.NDArray[np.float32])
assert_type(dense.encode_document(texts, batch_size=8), npt.NDArray[np.float32])
assert_type(dense.encode(texts, precision="int8"), Any)
assert_type(dense.encode_query(texts, output_value="token_embeddings"), Any)
with trivec.load("a", kind="dense", pooling="cls", backend="onnx") as encoder:
    assert_type(encoder, trivec.DenseEncoder)
trivec.load("a").whatever_it_is


async def later() -> None:
    assert_type(await dense.aencode(texts), npt.NDArray[np.float32])
"""
MISTAKES = """
import trivec

dense = trivec.load("a", kind="dense")
trivec.load("a", precison="int8")  # planted: the name of an argument
trivec.load("a", kind="dense", precision="int4")  # planted: the value of one
dense.encode_query("one", truncate_dims=64)  # planted: the name of an argument of what came
"""
CHECKERS = {
    "mypy": ["mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), "--no-incremental"],
    "pyright": ["pyright", "--pythonpath", sys.executable],  # beside the programs, pyrightconfig.json
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_client_program_is_checked(checker: str, tmp_path: Path) -> None:
    """Three planted mistakes are found, each in its line, and nothing is said of a program without any."""
    for name, code in {"right": RIGHT, "mistakes": MISTAKES}.items():
        (tmp_path / f"{name}.py").write_text(code.lstrip(), encoding="utf-8")
    settings = {"extraPaths": [str(ROOT / "runtime")], "reportUnusedExpression": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", *CHECKERS[checker], "right.py", "mistakes.py"]
    environment = {**os.environ, "MYPYPATH": str(ROOT / "runtime")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.findall(r"(\w+\.py):(\d+):.*\berror: ", done.stdout)
    planted = [number for number, line in enumerate(MISTAKES.strip().splitlines(), 1) if "# planted" in line]
    assert {(file, int(line)) for file, line in found} == {("mistakes.py", line) for line in planted}
