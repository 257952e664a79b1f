"""What runs a graph, in words: equal names and an equal model give equal bits.

    onnxruntime 1.32.0, CPUExecutionProvider, rows, numpy 2.4.6, x86_64 fma avx2 avx512f avx512_vnni
    OpenVINO 2026.4.1, CPU bf16, rows, numpy 2.4.6, x86_64 fma avx2 avx512f avx512_vnni avx512_bf16

An engine's version decides which kernels there are, the processor which of them run, and they round differently. What
pools and finishes vectors is numpy, whose own kernels and BLAS go by version and processor as well. The number of
threads is not among it: rows of a product are shared out, and no sum is cut by it. `benchmarks/engine_drift.py` runs
each variant with 1 and 4, and finds the same bits.
"""

import json
from collections.abc import Sequence

import numpy as np

from trivec._engine.devices import CPU, Device, Provider
from trivec._system.cpu import this_kernel_class
from trivec._system.nvidia import cuda_name

_PLACES = ("device_id", "gpu_mem_limit", "arena_extend_strategy")
"""Options that say where a provider computes and with how much memory, and not how."""


def numpy_name() -> str:
    """The engine of what numpy computes alone, such as static models."""
    return f"numpy {np.__version__}, {this_kernel_class()}"


def openvino_name(version: str, arithmetic: str) -> str:
    """The engine of a graph in OpenVINO, which computes what is float32 in the graph in "f32" or "bf16"."""
    return f"OpenVINO {version}, CPU {arithmetic}, rows, {numpy_name()}"


def session_name(
    version: str, opened: Sequence[str], wanted: Sequence[Provider], device: Device, layout: str, cuda: str
) -> str:
    """The engine of a graph, and of what numpy makes of its outputs.

    Args:
        version: of onnxruntime.
        opened: names of the providers that run it, best first.
        wanted: providers with the options that they were opened with.
        device: where the first of them runs.
        layout: which texts share a run: "rows", "packed" or "padded"; and whether weights are not packed.
        cuda: the version that onnxruntime was built for; "" where it was for none.
    """
    options = {p.name: {k: str(v) for k, v in p.options.items() if k not in _PLACES} for p in wanted}
    said = {name: f" {json.dumps(of, sort_keys=True)}" for name, of in options.items() if of}
    providers = [name + said.get(name, "") for name in opened]
    parts = [f"onnxruntime {version}", *providers]
    if opened[0] != CPU:
        name = cuda_name(device.index or 0) if device.kind in ("cuda", "tensorrt") else None
        parts += [*([name] if name else []), *([f"CUDA {cuda}"] if cuda else [])]
    return ", ".join([*parts, layout, numpy_name()])
