"""A graph in OpenVINO, on the CPU. The only module that imports openvino."""

import queue
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trivec._engine.devices import Device
from trivec._engine.engine_name import openvino_name
from trivec._engine.graph_session import Floats, GraphSession
from trivec._engine.memory import Budget
from trivec._engine.row_feeds import check_inputs, fixed_shape
from trivec._errors import MissingExtraError, ModelFormatError, ProviderError
from trivec._model.held_file import HeldFile
from trivec._model.manifest import ROWS
from trivec._system.cpu import read_cpu
from trivec._system.forks import afresh_in_children, never_freed
from trivec._system.native_text import native_path

INSTALL = 'pip install "trivec[openvino]"'
_TELEMETRY = "openvino_telemetry"
_SMALL = 1 << 28
_KERNELS = 200
"""Kernels of shapes that are kept: with OpenVINO's own 5,000 a MiniLM in int8 grows by 1.4 MB a shape."""
_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""What /proc/cpuinfo calls processors that multiply bf16: on x86, and on Arm."""


def openvino_version() -> str | None:
    """The installed OpenVINO, which is not loaded for it; None where there is none."""
    import importlib.metadata  # brings the email package: 15 ms

    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return None


def has_bf16() -> bool:
    """Whether this processor has bf16 products; where the system does not tell its features, OpenVINO is asked.

    Raises:
        MissingExtraError: OpenVINO has to be asked, and is not installed.
    """
    features = read_cpu().features
    if features is not None:
        return bool(features & _BF16)
    return "BF16" in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def check_bf16() -> None:
    """Raise ProviderError where bf16 would be computed as something else."""
    if not has_bf16():
        raise ProviderError(
            f'precision="bf16" needs a CPU with avx512_bf16 or AMX, and this one ({read_cpu().model}) has neither: it '
            'would compute in float32. Load precision="fp32" or "int8".'
        )


class OpenVinoSession(GraphSession):
    """A graph that OpenVINO runs.

    Its threads do not survive a fork: a forked child is refused. The graph is read once and compiled for one text at a
    time with all threads, and at the first bulk call once more for as many runs of one thread each.
    """

    name = "OpenVINO"

    def __init__(
        self,
        files: Sequence[Path | HeldFile],
        *,
        bf16: bool,
        threads: int,
        budget: Budget | None = None,
        wide: "OpenVinoSession | None" = None,
    ) -> None:
        """Open a graph.

        Args:
            files: the graph, then its external data files.
            bf16: whether what is float32 in the graph is computed in bf16; else in float32.
            threads: of the CPU.
            budget: tokens that a run may hold, shared with other sessions; None: one of its own.
            wide: the session of the same graph whose lanes this one is to be: one run a thread.

        Raises:
            MissingExtraError: OpenVINO is not installed.
            ModelFormatError: OpenVINO cannot read the graph.
            IntegrityError: a file was written over since it was loaded.
        """
        self._files = [file if isinstance(file, HeldFile) else HeldFile(file) for file in files]
        self._bf16, self._threads = bf16, threads
        self._graph: Any = _read(self._files) if wide is None else wide._graph
        streams = 1 if wide is None else threads
        self._compiled = _compile(self._graph, self._files[0].path, bf16=bf16, threads=threads, streams=streams)
        small = sum(file.size for file in self._files) < _SMALL
        super().__init__(Device("cpu"), ROWS, budget, threads if small and wide is None else 1)
        self._narrow: OpenVinoSession | None = None
        self._lock = threading.Lock()
        self._free: queue.LifoQueue[Any] = queue.LifoQueue()  # as many runs at a time as there are streams
        for _ in range(streams):
            self._free.put(self._compiled.create_infer_request())
        self._dtypes = {port.any_name: port.element_type.to_dtype() for port in self._compiled.inputs}
        self.inputs = tuple(self._dtypes)
        self.outputs = {port.any_name: _size(port.partial_shape[-1]) for port in self._compiled.outputs}
        check_inputs(self.inputs, self._files[0].path)
        shapes = {port.any_name: [_size(size) for size in port.partial_shape] for port in self._compiled.inputs}
        self._fixed = fixed_shape(shapes, self._files[0].path)
        self._forked = False
        afresh_in_children(self)

    def start_afresh(self) -> None:
        """In a forked child: OpenVINO's threads are not there, and a run would wait for them for ever."""
        never_freed(self._compiled, self._graph, self._free)
        self._forked = True

    # ---- what it is --------------------------------------------------------------------------------------------------

    @property
    def engine(self) -> str:
        """What runs the graph, in words: see `openvino_name`."""
        return openvino_name(str(openvino_version()), self._hint)

    @property
    def arithmetic(self) -> str:
        """OpenVINO rounds otherwise than onnxruntime, and bf16 otherwise than f32."""
        return f"openvino {self._hint}"

    @property
    def providers(self) -> tuple[str, ...]:
        """OpenVINO calls them devices, and this is the one that is used."""
        return ("OpenVINO's CPU",)

    @property
    def shares(self) -> dict[str, int]:
        """OpenVINO fuses nodes across the graph's own: there is nothing to count."""
        return {}

    @property
    def _hint(self) -> str:
        return "bf16" if self._bf16 else "f32"

    # ---- runs --------------------------------------------------------------------------------------------------------

    def _narrowed(self) -> "OpenVinoSession":
        with self._lock:
            if self._narrow is None:
                self._narrow = OpenVinoSession(
                    self._files, bf16=self._bf16, threads=self._threads, budget=self.budget, wide=self
                )
            return self._narrow

    def run_feeds(self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]) -> list[Floats]:
        """See `GraphSession.run_feeds`. OpenVINO computes all outputs, whichever are wanted."""
        if self._forked:
            raise ProviderError(
                "this encoder was opened with OpenVINO before a fork, and OpenVINO's threads are not in the child. "
                'Load it in the child; or start processes with "spawn": multiprocessing.get_context("spawn")'
            )
        request = self._free.get()
        try:
            request.infer({name: feeds[name].astype(dtype, copy=False) for name, dtype in self._dtypes.items()})
            return [np.array(request.get_tensor(name).data, dtype=np.float32) for name in outputs]
        finally:
            self._free.put(request)


# ---- OpenVINO --------------------------------------------------------------------------------------------------------


def _openvino() -> Any:  # noqa: ANN401 - loaded at the first need: importing it takes longer than a small model
    # Importing it tells a collector so, by a package of its own that it does without: its modules have a stub for it.
    hidden = _TELEMETRY not in sys.modules and "openvino" not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError(f"OpenVINO is not installed. Type: {INSTALL}") from error
    finally:
        if hidden:
            del sys.modules[_TELEMETRY]
    return openvino


def _read(files: Sequence[HeldFile]) -> Any:  # noqa: ANN401
    """A graph whose weights are mapped, and stay so where its folder goes."""
    core = _openvino().Core()
    for file in files:
        file.is_in_place()  # raises where it was written over
    path = files[0].path
    try:
        return core.read_model(native_path(path))
    except Exception as error:
        raise ModelFormatError(_cannot("read", path, error)) from error


def _compile(graph: Any, path: Path, *, bf16: bool, threads: int, streams: int) -> Any:  # noqa: ANN401
    core = _openvino().Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",  # its own choice is bf16 wherever the CPU has it
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,  # several processes, and the host's own threads, share the cores
        "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS,
    }
    try:
        return core.compile_model(graph, "CPU", settings)
    except Exception as error:
        raise ModelFormatError(_cannot("compile", path, error)) from error


def _cannot(what: str, path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return f'OpenVINO {openvino_version()} cannot {what} {path}: {reason} Load it with engine="onnxruntime".'


def _size(dimension: Any) -> int | None:  # noqa: ANN401
    """A dimension, where the graph states it."""
    return int(dimension.get_length()) if dimension.is_static else None
