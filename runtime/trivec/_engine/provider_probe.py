"""What each provider of an onnxruntime does with a graph of one Add: the doctor's look at an engine."""

from typing import Any

import numpy as np

from trivec._engine.cuda_libraries import preload
from trivec._engine.devices import CPU, CUDA, Engine
from trivec._engine.open_session import why_not


def probe(ort: Engine) -> dict[str, str]:
    """Try every provider.

    A provider that is merely available says nothing: it may fail to find its libraries, or open and leave the work to
    the CPU. So each is asked to run the graph alone, with the CPU forbidden as a substitute.

    Returns:
        Provider name to "started", "falls back to <provider>", "opens, but runs nothing of a plain graph" or
        "error: <its message>"; behind CUDA's what is missing and what to type, where that is known.
    """
    messages = preload(ort)
    found = {name: _probe(ort, name) for name in ort.get_available_providers()}
    if found.get(CUDA, "started") != "started":
        error = found[CUDA] if found[CUDA].startswith("error") else ""
        found[CUDA] = ". ".join(part for part in (found[CUDA].rstrip("."), why_not(ort, f"{error} {messages}")) if part)
    return found


def _probe(ort: Engine, provider: str) -> str:
    alone = ort.SessionOptions()
    alone.log_severity_level = 4  # a refusal is a finding here, and onnxruntime prints it in red
    if provider != CPU:
        alone.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(add_graph(), alone, providers=[provider], enable_fallback=0)
        if session.get_providers()[0] == provider:
            result = session.run(None, {"x": np.array([1.5], dtype=np.float32)})[0].tolist()
            return "started" if result == [3.0] else f"error: 1.5 + 1.5 came out as {result}"
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
        reason = f"error: {' '.join(str(error).split())}"
    else:
        return f"falls back to {session.get_providers()[0]}"
    try:  # with the CPU as a substitute: does it open at all?
        session = ort.InferenceSession(add_graph(), providers=[provider], enable_fallback=0)
    except Exception:  # noqa: BLE001 - the first error is the one to report
        return reason
    first: Any = session.get_providers()[0]
    return "opens, but runs nothing of a plain graph" if first == provider else f"falls back to {first}"


def add_graph() -> bytes:
    """An ONNX model of one node, y = x + x with x float32 (1,), in protobuf's wire format, without the onnx package.

    Field numbers are those of onnx.proto: ModelProto ir_version 1, graph 7, opset_import 8; OperatorSetIdProto
    version 2; GraphProto node 1, name 2, input 11, output 12; NodeProto input 1, output 2, op_type 4; ValueInfoProto
    name 1, type 2; TypeProto tensor_type 1; Tensor elem_type 1, shape 2; TensorShapeProto dim 1; Dimension
    dim_value 1.
    """

    def number(field: int, value: int) -> bytes:  # wire type 0; all fields and values here fit one byte
        return bytes([field << 3, value])

    def nested(field: int, *parts: bytes) -> bytes:  # wire type 2: length, then content
        content = b"".join(parts)
        return bytes([field << 3 | 2, len(content)]) + content

    vector = nested(1, number(1, 1), nested(2, nested(1, number(1, 1))))  # a float tensor of shape (1,)
    graph = nested(
        7,
        nested(1, nested(1, b"x"), nested(1, b"x"), nested(2, b"y"), nested(4, b"Add")),
        nested(2, b"probe"),
        nested(11, nested(1, b"x"), nested(2, vector)),
        nested(12, nested(1, b"y"), nested(2, vector)),
    )
    return number(1, 8) + graph + nested(8, number(2, 13))
