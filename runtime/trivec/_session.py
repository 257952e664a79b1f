"""One open ONNX graph on one device. The only module that imports onnxruntime."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError, MissingExtraError, ModelFormatError, ProviderError

INSTALL = 'pip install "trivec[cpu]"   (or "trivec[gpu]" on a machine with an NVIDIA GPU)'
_LARGE = 1 << 30
_SMALL = 1 << 28
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
Item = TypeVar("Item")
Result = TypeVar("Result")
# What a text graph may ask for beside input_ids; a row has no padding and one segment.
_EXTRA_INPUTS = ("attention_mask", "token_type_ids", "position_ids")


@dataclass(frozen=True)
class Device:
    """An execution provider and the index of its device."""

    kind: str
    index: int = 0

    def __str__(self) -> str:
        """As `device=` takes it: "cpu", "cuda:0"."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


def parse_device(device: str) -> Device | None:
    """Read "cpu", "cuda" or "cuda:1" as a Device; None for "auto".

    Raises:
        InputError: it is none of these.
    """
    if device == "auto":
        return None
    kind, _, index = str(device).partition(":")
    if kind not in _PROVIDERS or (index and (kind == "cpu" or not index.isdecimal())):
        raise InputError(f"device {device!r} is not known. Expected 'auto', 'cpu', 'cuda' or 'cuda:N'.")
    return Device(kind, int(index or 0))


def available_devices() -> list[str]:
    """The kinds of device that the installed onnxruntime was built for, among "cuda" and "cpu"."""
    names = _onnxruntime().get_available_providers()
    return [kind for kind in ("cuda", "cpu") if _PROVIDERS[kind] in names]


class Session:
    """An open graph: token ids in, one float32 array out."""

    def __init__(self, files: Sequence[Path], *, device: Device, threads: int, spin: bool = True) -> None:
        """Open a graph.

        Args:
            files: the graph, then its external data files.
            device: where it must run; there is no falling back.
            threads: for the CPU's operators.
            spin: whether threads without work spin for a while, which is faster, or sleep at once.

        Raises:
            MissingExtraError: no onnxruntime is installed.
            ProviderError: the device cannot be had.
            ModelFormatError: onnxruntime cannot read the graph.
        """
        self._session, self.device = _open(_onnxruntime(), files, device, threads, spin), device
        small = sum(file.stat().st_size for file in files) < _SMALL
        self.lanes = threads if device.kind == "cpu" and small else 1
        """Runs that are worth having side by side, each with one thread, in place of one run with all of them."""
        self._files, self._lock = files, threading.Lock()
        self._narrow: Session | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._partial = _onnxruntime().RunOptions()
        self._partial.only_execute_path_to_fetches = True
        self._dtypes = {i.name: _dtype(i.type) for i in self._session.get_inputs()}
        self.inputs = tuple(self._dtypes)
        self.outputs = {o.name: _width(o.shape) for o in self._session.get_outputs()}
        unknown = [name for name in self.inputs if name != "input_ids" and name not in _EXTRA_INPUTS]
        if unknown or "input_ids" not in self.inputs:
            raise ModelFormatError(
                f"{files[0]} has the inputs {list(self.inputs)}; a text encoder has input_ids and at most "
                f"{', '.join(_EXTRA_INPUTS)}. Export the model with: trivec export"
            )

    def side_by_side(self, work: Callable[["Session", Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`work(session, item)` of each item, in order, as many at a time as there are lanes.

        Threads that share the operators of one run wait for each other at the end of each operator, 60 times a layer;
        runs of one thread each do not. They take a session of their own, opened at the first need, since a session has
        one number of threads for all its runs; it shares what is mapped of the weights, not what onnxruntime packs.
        """
        with self._lock:
            if self._narrow is None or self._executor is None:
                self._narrow = Session(self._files, device=self.device, threads=1)
                self._executor = ThreadPoolExecutor(self.lanes, thread_name_prefix="trivec-lane")
        return self._executor.map(partial(work, self._narrow), items)

    def run(self, ids: npt.NDArray[np.int64], output: str) -> npt.NDArray[np.float32]:
        """Run rows of equal length: ids (B, S) to the output (B, S, H) or (B, D), float32."""
        return self.run_all(ids, (output,))[0]

    def run_all(self, ids: npt.NDArray[np.int64], outputs: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """Run rows of equal length (B, S) once, to several outputs; what only other outputs need is not computed."""
        feeds = {name: _feed(name, ids).astype(dtype, copy=False) for name, dtype in self._dtypes.items()}
        options = self._partial if len(outputs) < len(self.outputs) else None
        try:
            arrays: list[npt.NDArray[Any]] = self._session.run(list(outputs), feeds, options)
        except Exception as error:
            raise ProviderError(
                f"onnxruntime cannot run {len(ids)} texts of {ids.shape[1]} tokens: {' '.join(str(error).split())}. "
                "Where memory is short, pass a smaller batch_size; where the model has fewer positions, a smaller "
                "max_seq_length."
            ) from error
        return [array.astype(np.float32, copy=False) for array in arrays]


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"onnxruntime is not installed, and nothing runs without it. Type: {INSTALL}"
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingExtraError(
            "onnxruntime is half removed (onnxruntime and onnxruntime-gpu share their files, and one was uninstalled). "
            f"Type: pip uninstall -y onnxruntime onnxruntime-gpu && {INSTALL}"
        )
    return cast("ModuleType", onnxruntime)


def engine_versions() -> dict[str, str]:
    """Installed onnxruntime distributions and their versions; more than one overwrite each other's files."""
    import importlib.metadata  # brings the email package: 15 ms that only the doctor needs

    found = {}
    for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def probe_providers() -> dict[str, str]:
    """What each provider of the installed onnxruntime does with a graph of one Add.

    A provider that is merely available says nothing: it may fail to find its libraries, or open and leave the work to
    the CPU. So each is asked to run the graph alone, with the CPU forbidden as a substitute.

    Returns:
        Provider name to "started", "falls back to <provider>", "opens, but runs nothing of a plain graph" or
        "error: <its message>".

    Raises:
        MissingExtraError: no onnxruntime is installed.
    """
    ort = _onnxruntime()
    if "CUDAExecutionProvider" in ort.get_available_providers() and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    return {name: _probe(ort, name) for name in ort.get_available_providers()}


def _probe(ort: ModuleType, provider: str) -> str:
    alone = ort.SessionOptions()
    alone.log_severity_level = 4  # a refusal is a finding here, and onnxruntime prints it in red
    if provider != "CPUExecutionProvider":
        alone.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(_add_graph(), alone, providers=[provider], enable_fallback=0)
        if session.get_providers()[0] == provider:
            result = session.run(None, {"x": np.array([1.5], dtype=np.float32)})[0].tolist()
            return "started" if result == [3.0] else f"error: 1.5 + 1.5 came out as {result}"
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
        reason = f"error: {' '.join(str(error).split())}"
    else:
        return f"falls back to {session.get_providers()[0]}"
    try:  # with the CPU as a substitute: does it open at all?
        session = ort.InferenceSession(_add_graph(), providers=[provider], enable_fallback=0)
    except Exception:  # noqa: BLE001 - the first error is the one to report
        return reason
    first = session.get_providers()[0]
    return "opens, but runs nothing of a plain graph" if first == provider else f"falls back to {first}"


def _add_graph() -> bytes:
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


def _open(ort: ModuleType, files: Sequence[Path], device: Device, threads: int, spin: bool) -> Any:  # noqa: ANN401
    """An InferenceSession that runs on the device, or an error."""
    provider = _PROVIDERS[device.kind]
    if provider not in ort.get_available_providers():
        raise ProviderError(
            f"device {str(device)!r} needs {provider}, which the installed onnxruntime {ort.__version__} lacks (it has "
            f"{', '.join(ort.get_available_providers())}). Type: "
            'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "trivec[gpu]"; or load with device="cpu".'
        )
    if device.kind == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA and cuDNN where pip has put them
    options, keep_alive = _options(ort, files, threads, spin)
    try:
        session = ort.InferenceSession(
            str(files[0]),
            options,
            providers=[(provider, _provider_options(device))],
            # On a CPU, ORT's SkipLayerNormalization is several times slower than Add + LayerNormalization, and BiasGelu
            # is slower than Add + Gelu.
            disabled_optimizers=["SkipLayerNormFusion", "BiasGeluFusion"] if device.kind == "cpu" else None,
        )
    except Exception as error:
        if device.kind == "cpu":
            raise ModelFormatError(f"onnxruntime {ort.__version__} cannot read {files[0]}: {error}") from error
        raise ProviderError(f"{provider} does not start: {error}") from error
    del keep_alive
    if session.get_providers()[0] != provider:
        raise ProviderError(
            f"device {str(device)!r} was asked for, but onnxruntime fell back to {session.get_providers()[0]}. "
            "See what is missing with: trivec doctor"
        )
    return session


def _options(
    ort: ModuleType, files: Sequence[Path], threads: int, spin: bool
) -> tuple[Any, list[npt.NDArray[np.uint8]]]:
    """Session options, and buffers that must live until the session is made."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # its cache grows with every new shape and is never evicted
    # An arena keeps what the longest text took, and rounds it up: 0.13 GB of 2.3 for 8,192 tokens of an XLM-R-large. It
    # saves 7 % of a MiniLM's time and nothing that can be measured of a model this large.
    options.enable_cpu_mem_arena = sum(file.stat().st_size for file in files) < _LARGE
    options.log_severity_level = 4  # errors are raised; the same text on stderr helps nobody
    graph = files[0].resolve()
    scattered = [f for f in files[1:] if f.resolve().parent != graph.parent]
    if not scattered:
        return options, []
    # onnxruntime refuses external data that resolves outside the graph's folder: hand it over in memory, mapped
    buffers = [np.memmap(f, dtype=np.uint8, mode="r") for f in files[1:]]
    options.add_external_initializers_from_files_in_memory(
        [f.name for f in files[1:]], buffers, [len(b) for b in buffers]
    )
    return options, list(buffers)


def _provider_options(device: Device) -> dict[str, str]:
    if device.kind == "cpu":
        return {}
    return {"device_id": str(device.index), "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}


def _feed(name: str, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """One graph input (B, S) for rows without padding."""
    if name == "input_ids":
        return ids
    if name == "position_ids":
        return np.broadcast_to(np.arange(ids.shape[1], dtype=np.int64), ids.shape).copy()
    return np.full_like(ids, 1 if name == "attention_mask" else 0)


def _dtype(ort_type: str) -> npt.DTypeLike:
    return np.int32 if ort_type == "tensor(int32)" else np.int64


def _width(shape: Sequence[int | str | None]) -> int | None:
    """The last dimension, where the graph states it."""
    last = shape[-1] if shape else None
    return last if isinstance(last, int) else None
