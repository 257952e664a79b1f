"""What the machine is that a report is of: its CPU and what the CPU's products are like, its GPUs, its versions."""

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import onnxruntime
import tokenizers
from benchmarks.harness.tables import Row, Table

import trivec
from trivec._system.threads import available_threads

VECTORS = ("avx2", "avx512_vnni", "avx_vnni")  # the instruction sets that decide how fast an integer product is


def cpu_info() -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def cpu_name() -> str:
    """What the processor calls itself."""
    return cpu_info().get("model name", platform.machine())


def vectors() -> str:
    """Those of VECTORS that the processor has."""
    flags = set(cpu_info().get("flags", "").split())
    return ", ".join(name for name in VECTORS if name in flags) or "none"


def now() -> str:
    """The date of a report."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def integer_kernels() -> str:
    """Whether sums of u8 x s8 products are exact at full range here: measured, because CPU flags only promise it."""
    from onnx import TensorProto, helper, numpy_helper  # of the exporter's packages: most reports do without

    depth = 64
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "worst",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, depth])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
        [numpy_helper.from_array(np.full((depth, 32), 127, np.int8), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = int(session.run(None, {"x": np.full((8, depth), 255, np.uint8)})[0].max())
    if found == 255 * 127 * depth:
        return "exact at 255 x 127: the kernels of VNNI or Arm"
    return "saturate at 255 x 127: the kernels of AVX2 or AVX512 without VNNI"


def command_line(command: str, arguments: Sequence[str]) -> str:
    """A command without the folder that it writes to: that decides no figure, and is a path of this machine."""
    kept = list(arguments)
    if "--out" in kept:
        place = kept.index("--out")
        kept[place : place + 2] = []
    return f"{command} {shlex.join(kept)}".strip()


def machine(note: str, *, threads: int, command: str) -> Table:
    """CPU, cores, load, date and versions, for the head of a report."""
    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in (trivec, onnxruntime, tokenizers, np))
    rows: list[Row] = [
        {"what": "CPU", "is": cpu_name()},
        {"what": "cores this process may use", "is": available_threads().count},
        {"what": "threads used", "is": threads},
        {"what": "load average at the start", "is": f"{os.getloadavg()[0]:.2f}"},
        {"what": "date", "is": now()},
        {"what": "command", "is": command},
        {"what": "versions", "is": f"Python {platform.python_version()}, {versions}"},
    ]
    return Table("run", "The run", note, rows)


# ---- GPUs ----------------------------------------------------------------------------------------------------------


class Gpu(NamedTuple):
    """One line of nvidia-smi."""

    number: int
    name: str
    driver: str
    memory: float
    """MiB."""


def gpus() -> list[Gpu]:
    """The machine's NVIDIA GPUs; none where nvidia-smi is not there or fails."""
    lines = _smi("index,name,driver_version,memory.total")
    return [Gpu(int(i), name, driver, float(memory)) for i, name, driver, memory in lines]


def _smi(query: str, index: int | None = None) -> list[list[str]]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    command += [] if index is None else ["-i", str(index)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (
        [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()] if not done.returncode else []
    )


class PeakMemory:
    """The most device memory in use at a time while the context is open, in MiB, above what was in use before."""

    def __init__(self, index: int) -> None:
        self._index, self._stop = index, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before = self._now()
        self.mib = 0.0

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.mib = max(self.mib, self._now() - self._before)

    def _now(self) -> float:
        found = _smi("memory.used", self._index)
        return float(found[0][0]) if found else 0.0


def torch_peer(*, cuda: bool) -> str | None:
    """Why torch cannot be the peer; None where it has CUDA, or needs none."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("sentence_transformers") is None:
        return "torch and sentence-transformers are not installed here"
    # in a process of its own: its CUDA libraries stay out of this one
    code = "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    if done.returncode or not words:
        return "torch cannot be imported"
    return None if words[-1] == "True" or not cuda else f"torch {words[0]} has no CUDA here (built for {words[1]})"
