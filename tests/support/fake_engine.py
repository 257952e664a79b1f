"""An onnxruntime with a GPU that is not there: the real one's CPU provider does the work, the rest is told as ordered.

engine = FakeEngine(cuda="ok", gpus=2)
monkeypatch.setitem(sys.modules, "onnxruntime", engine)
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import onnxruntime as real
import pytest

from trivec._engine.session import Session

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT, OPENVINO = "TensorrtExecutionProvider", "OpenVINOExecutionProvider"
OOM = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running MatMul node. "
    "bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(...) Failed to allocate memory for requested "
    "buffer of size 8388608000"
)


@dataclass(eq=False)
class FakeEngine:
    """The module, and what a test says of its machine."""

    cuda: str = "ok"
    """ "ok", "silent" (the session has only the CPU), or the message that opening a session raises."""
    gpus: int = 1
    available: tuple[str, ...] = (CUDA, CPU)
    prints: str = ""
    """What preload_dlls prints."""
    places: Callable[[str], str] | None = None
    """Which provider gets a node of an operator; None: the first."""
    memory: int | None = None
    """Tokens that one run may hold; more is out of memory."""
    failures: int = 10**9
    """Runs that run out of memory at most."""
    cuda_version: str = "12.8"
    __version__: str = "1.31.1"
    opened: list[dict[str, dict[str, Any]]] = field(default_factory=list)
    """Options by provider, of each session."""
    runs: list[tuple[str, tuple[int, ...], str]] = field(default_factory=list)
    """Device of the bound input_ids ("" where nothing was bound), its shape and the gpu_graph_id of each run."""
    preloads: int = 0

    def __post_init__(self) -> None:
        self.SessionOptions, self.RunOptions = real.SessionOptions, real.RunOptions
        self.OrtValue = SimpleNamespace(ortvalue_from_shape_and_type=self._value)

    def get_available_providers(self) -> list[str]:
        return list(self.available)

    def get_all_providers(self) -> list[str]:
        return list(real.get_all_providers())

    def preload_dlls(self) -> None:
        self.preloads += 1
        if self.prints:
            print(self.prints)

    def InferenceSession(self, *args: Any, **named: Any) -> "FakeSession":  # noqa: N802 - the module's name
        return FakeSession(self, *args, **named)

    def _value(self, shape: Sequence[int], dtype: Any, device: str, index: int) -> Any:
        assert device == "cuda"
        assert index < self.gpus
        return real.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cpu", 0)

    def check(self, shape: Sequence[int]) -> None:
        """Out of memory, if the rows are too many."""
        if self.memory is not None and shape[0] * shape[1] > self.memory and self.failures:
            self.failures -= 1
            raise RuntimeError(OOM)


class FakeSession:
    """The real session on the CPU, by another name."""

    def __init__(
        self,
        engine: FakeEngine,
        graph: Any,
        options: Any = None,
        *,
        providers: Sequence[Any],
        disabled_optimizers: Any = None,
        enable_fallback: int = 1,
    ) -> None:
        assert enable_fallback == 0  # else onnxruntime goes on with the CPU by itself
        asked = {p: {} for p in providers if isinstance(p, str)} | {p[0]: dict(p[1]) for p in providers if len(p) == 2}
        engine.opened.append(asked)
        if CUDA in asked and engine.cuda not in ("ok", "silent"):
            raise RuntimeError(engine.cuda)
        index = int(asked.get(CUDA, {}).get("device_id", 0))
        if index >= engine.gpus:
            raise RuntimeError(
                f"Invalid device ID: {index}, must be between 0 (inclusive) and {engine.gpus} (exclusive)."
            )
        self.engine = engine
        self.names = [name for name in asked if name != CPU and not (name == CUDA and engine.cuda == "silent")] + [CPU]
        if options is not None and _alone(options):
            options = None  # what forbids the CPU's help would forbid the CPU that stands for the GPU
        self.real = real.InferenceSession(
            graph, options, providers=[CPU], disabled_optimizers=disabled_optimizers, enable_fallback=0
        )
        self.options = asked
        self.get_inputs, self.get_outputs = self.real.get_inputs, self.real.get_outputs

    def get_providers(self) -> list[str]:
        return self.names

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {name: {k: str(v) for k, v in options.items()} for name, options in self.options.items()}

    def get_provider_graph_assignment_info(self) -> list[Any]:
        place = self.engine.places or (lambda _: self.names[0])
        nodes = [node for graph in self.real.get_provider_graph_assignment_info() for node in graph.get_nodes()]
        return [SimpleNamespace(ep_name=place(n.op_type), get_nodes=lambda n=n: [n]) for n in nodes]

    def run(self, outputs: Any, feeds: dict[str, Any], options: Any = None) -> Any:
        if "input_ids" in feeds:
            self.engine.check(feeds["input_ids"].shape)
            self.engine.runs.append(("", feeds["input_ids"].shape, ""))
        return self.real.run(outputs, feeds, options)

    def io_binding(self) -> "FakeBinding":
        return FakeBinding(self.real.io_binding())

    def run_with_iobinding(self, binding: "FakeBinding", options: Any) -> None:
        self.engine.check(binding.shape)
        try:
            graph = options.get_run_config_entry("gpu_graph_id")
        except RuntimeError:
            graph = ""
        self.engine.runs.append((binding.device, binding.shape, graph))
        self.real.run_with_iobinding(binding.real, options)


def _alone(options: Any) -> bool:
    try:
        return bool(options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1")
    except RuntimeError:
        return False


class FakeBinding:
    """The real binding; device memory is the CPU's."""

    def __init__(self, binding: Any) -> None:
        self.real, self.device = binding, ""
        self.shape: tuple[int, ...] = ()
        self.clear_binding_outputs = binding.clear_binding_outputs
        self.copy_outputs_to_cpu = binding.copy_outputs_to_cpu

    def bind_input(self, name: str, device: str, index: int, dtype: Any, shape: Sequence[int], pointer: int) -> None:
        if name == "input_ids":
            self.device, self.shape = f"{device}:{index}", tuple(shape)
        self.real.bind_input(name, "cpu", 0, dtype, shape, pointer)

    def bind_output(self, name: str, device: str, index: int, *rest: Any) -> None:
        assert f"{device}:{index}" == self.device  # as the input
        self.real.bind_output(name, "cpu", 0, *rest)


def machine(monkeypatch: pytest.MonkeyPatch, **told: Any) -> FakeEngine:
    """Put a machine in this one's place, as trivec sees it."""
    engine = FakeEngine(**told)
    monkeypatch.setitem(sys.modules, "onnxruntime", engine)
    return engine


def session(encoder: Any) -> Session:
    """An encoder's open graph."""
    found = next(p.session for p in encoder._pipelines.values() if p.session is not None)
    assert isinstance(found, Session)
    return found
