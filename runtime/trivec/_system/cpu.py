"""The processor: its name, and the features by which onnxruntime and numpy choose their kernels."""

import platform
from functools import cache
from pathlib import Path
from typing import NamedTuple

# What onnxruntime's int8 and float kernels choose by, and numpy's BLAS (avx512_bf16), in the names of /proc/cpuinfo.
FEATURES = {
    "x86": ("fma", "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8"),
    "arm": ("asimddp", "i8mm", "sve"),
}
_CPUINFO = Path("/proc/cpuinfo")


class Cpu(NamedTuple):
    """A CPU's name and its features; None where the system does not say."""

    model: str
    features: frozenset[str] | None


def read_cpu(path: Path = _CPUINFO) -> Cpu:
    """The CPU as Linux describes it; elsewhere its name only."""
    fallback = platform.processor() or platform.machine() or "unknown"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Cpu(fallback, None)
    fields: dict[str, str] = {}
    for line in lines:  # the first core's values
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip().lower(), value.strip())
    flags = fields.get("flags", fields.get("features"))
    return Cpu(fields.get("model name") or fallback, None if flags is None else frozenset(flags.split()))


def features() -> tuple[str, ...]:
    """Those of FEATURES that a machine of this kind may have."""
    return FEATURES["arm" if platform.machine().lower().startswith(("arm", "aarch")) else "x86"]


def kernel_class(cpu: Cpu) -> str:
    """What stands for the kernels that run on a CPU: "x86_64 fma avx2 avx512f".

    Where the system does not tell the features it is the CPU's name, which two machines with the same kernels need not
    have in common, and two with other kernels do not.
    """
    found = [cpu.model] if cpu.features is None else [name for name in features() if name in cpu.features]
    return " ".join([platform.machine() or "unknown", *found])


@cache
def this_kernel_class() -> str:
    """That of this machine, read once: /proc/cpuinfo has a page for each core."""
    return kernel_class(read_cpu())
