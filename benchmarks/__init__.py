"""Benchmarks. Whatever of them imports onnxruntime, it sends no telemetry (a value that is set already stays)."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
