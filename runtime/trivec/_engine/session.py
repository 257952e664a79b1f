"""A graph in onnxruntime, on one device. The only module that imports onnxruntime."""

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from trivec._engine.devices import CPU, CUDA, KINDS, Device, Engine, Provider, check_providers, providers_of, shares
from trivec._engine.engine_name import session_name
from trivec._engine.graph_session import GraphSession
from trivec._engine.io_binding import BoundSession
from trivec._engine.memory import Budget
from trivec._engine.open_session import Wanted, assigned_nodes, gives_back, open_session
from trivec._engine.provider_probe import probe
from trivec._engine.row_feeds import check_inputs, fixed_shape
from trivec._errors import MissingExtraError, ProviderError
from trivec._model.held_file import HeldFile
from trivec._model.manifest import ROWS
from trivec._system.background import Background
from trivec._system.forks import afresh_in_children, never_freed

INSTALL = 'pip install "trivec[cpu]"   (or "trivec[gpu]" on a machine with an NVIDIA GPU)'
TELEMETRY = "ORT_DISABLE_TELEMETRY"  # what onnxruntime reads where it is imported
_SMALL = 1 << 28
Floats = npt.NDArray[np.float32]


def available_devices() -> list[str]:
    """The kinds of device that the installed onnxruntime was built for, among "cuda" and "cpu"."""
    names = _onnxruntime().get_available_providers()
    return [kind for kind in ("cuda", "cpu") if KINDS[kind] in names]


def check_available(providers: Sequence[Provider]) -> None:
    """Refuse providers that the installed onnxruntime does not have.

    Raises:
        InputError, ProviderError: see `_devices.check_providers`.
        MissingExtraError: no onnxruntime is installed.
    """
    check_providers(providers, _onnxruntime())


def probe_providers() -> dict[str, str]:
    """What each provider of the installed onnxruntime does with a small graph; see `_probe.probe`.

    Raises:
        MissingExtraError: no onnxruntime is installed.
    """
    return probe(_onnxruntime())


class Session(GraphSession):
    """A graph that onnxruntime runs.

    A forked child opens the graph anew at its first run, from the same files: onnxruntime's threads stay behind.
    """

    name = "onnxruntime"

    def __init__(
        self,
        files: Sequence[Path | HeldFile],
        *,
        device: Device,
        threads: int,
        spin: bool = True,
        providers: Sequence[Provider] | None = None,
        layout: str = ROWS,
        bind: bool | None = None,
        budget: Budget | None = None,
        profile: Path | None = None,
        options: Callable[[Any], None] | None = None,
        low_memory: bool = False,
    ) -> None:
        """Open a graph.

        Args:
            files: the graph, then its external data files.
            device: where it must run; there is no falling back.
            threads: for the CPU's operators.
            spin: whether threads without work spin for a while, which is faster, or sleep at once.
            providers: given by hand, best first; the device is then that of the first.
            layout: what the graph reads: "rows" of equal length, or other feeds ("packed", "padded").
            bind: whether runs go through buffers on the device and one thread; None: on CUDA.
            budget: tokens that a run may hold, shared with other sessions; None: one of its own.
            profile: what the files of onnxruntime's profiles begin with, which `end_profiling` gives; None: none.
            options: changes onnxruntime's SessionOptions, after trivec has set them; None: they stay.
            low_memory: whether weights stay in the mapped file, unpacked.

        Raises:
            MissingExtraError: no onnxruntime is installed.
            ProviderError: the device cannot be had, or leaves heavy operators to the CPU.
            ModelFormatError: onnxruntime cannot read the graph.
        """
        given = None if providers is None else tuple(providers)
        self._session = cast("Any", None)
        self._bound: BoundSession | None = None
        self._narrow: Session | None = None
        self._wanted = Wanted(device, threads, spin, given, layout, profile, options, low_memory)
        self._files = [file if isinstance(file, HeldFile) else HeldFile(file) for file in files]
        self._binds = bound = device.kind == "cuda" if bind is None else bind
        self._open()
        small = sum(file.size for file in self._files) < _SMALL
        super().__init__(
            device, layout, budget, threads if device.kind == "cpu" and small and not bound else 1, bound=bound
        )
        self._lock = threading.Lock()
        self._worker = Background(1, "trivec-device")
        gives = gives_back(self._files, self._wanted)
        self._whole, self._partial = (_run_options(gives_back=gives, partial=partial) for partial in (False, True))
        self._dtypes = {i.name: _dtype(i.type) for i in self._session.get_inputs()}
        self.inputs = tuple(self._dtypes)
        self.outputs = {o.name: _width(o.shape) for o in self._session.get_outputs()}
        if layout == ROWS:
            check_inputs(self.inputs, self._files[0].path)
            self._fixed = fixed_shape({i.name: i.shape for i in self._session.get_inputs()}, self._files[0].path)
        afresh_in_children(self)

    def start_afresh(self) -> None:
        """In a forked child: forget what was opened in the parent."""
        never_freed(self._session, self._bound)
        self._session = self._bound = self._narrow = None
        self._lock = threading.Lock()

    def _open(self) -> None:
        """Open the graph."""
        ort, device = _onnxruntime(), self._wanted.device
        session, self._assigned = open_session(ort, self._files, self._wanted)
        if self._binds:
            graphs = str(session.get_provider_options().get(CUDA, {}).get("enable_cuda_graph", "0")) == "1"
            self._bound = BoundSession(ort, session, (device.kind, device.index or 0), graphs=graphs)
            self._device_lock = threading.Lock()
        self._session = session

    def _reopened(self) -> Any:  # noqa: ANN401 - onnxruntime has no types
        """The graph, opened in a forked child.

        Raises:
            ProviderError: it was on CUDA, which cannot be used again in a fork of a process that has used it.
            IntegrityError, ModelFormatError: as of a load.
        """
        if self.device.kind == "cuda":
            raise ProviderError(
                f"this encoder was opened on {self.device} before a fork, and CUDA does not work in forked children. "
                'Load it in the child, and nothing on CUDA in the parent; or start processes with "spawn": '
                'multiprocessing.get_context("spawn"), or encoder.encode(texts, device=["cuda:0"])'
            )
        with self._lock:
            if self._session is None:
                self._open()
            return self._session

    # ---- what it is --------------------------------------------------------------------------------------------------

    @property
    def providers(self) -> tuple[str, ...]:
        """Providers that onnxruntime really opened, best first."""
        return tuple((self._session or self._reopened()).get_providers())

    @property
    def engine(self) -> str:
        """What runs the graph, in words: see `engine_name`."""
        ort, wanted = _onnxruntime(), self._wanted
        providers = providers_of(wanted.device, wanted.providers, wanted.layout)
        cuda = getattr(ort, "cuda_version", "") or ""
        how = f"{wanted.layout}, weights as stored" if wanted.low_memory else wanted.layout
        return session_name(ort.__version__, self.providers, providers, wanted.device, how, cuda)

    @property
    def arithmetic(self) -> None:
        """Files say all that a fingerprint needs."""
        return

    @property
    def shares(self) -> dict[str, int]:
        """Nodes of the graph by the provider that runs them; empty where this onnxruntime does not tell."""
        return shares(self._assigned or assigned_nodes(self._session or self._reopened()))

    def end_profiling(self) -> list[Path]:
        """End the profiles that `profile` has begun, of this session and of its lanes; their files."""
        sessions = [self, *([] if self._narrow is None else [self._narrow])]
        return [Path(each._session.end_profiling()) for each in sessions if each._wanted.profile is not None]

    # ---- runs --------------------------------------------------------------------------------------------------------

    def _narrowed(self) -> "Session":
        with self._lock:
            if self._narrow is None:
                given = self._wanted
                narrow = partial(
                    Session,
                    self._files,
                    device=self.device,
                    threads=1,
                    providers=given.providers,
                    low_memory=given.low_memory,
                )
                # onnxruntime adds the second to a profile's name: one of the same beginning could be written over
                profile = None if given.profile is None else given.profile.with_name(f"{given.profile.name}-lanes")
                self._narrow = narrow(layout=self.layout, budget=self.budget, profile=profile, options=given.options)
            return self._narrow

    def run_feeds(self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]) -> list[Floats]:
        """See `GraphSession.run_feeds`."""
        session = self._session or self._reopened()
        typed = {name: feeds[name].astype(dtype, copy=False) for name, dtype in self._dtypes.items()}
        if self._bound is None:
            options = self._partial if len(outputs) < len(self.outputs) else self._whole
            arrays: list[npt.NDArray[Any]] = session.run(list(outputs), typed, options)
        else:
            arrays = self._worker.submit(self._run_bound, self._bound, typed, tuple(outputs)).result()
        return [array.astype(np.float32, copy=False) for array in arrays]

    def _run_bound(
        self, bound: BoundSession, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]
    ) -> list[npt.NDArray[Any]]:
        with self._device_lock:  # waits for nobody but at the interpreter's end, where callers run it themselves
            return bound.run(feeds, outputs)


def _onnxruntime() -> Engine:
    # Wheels since 1.31 send telemetry unless told otherwise before they are loaded. What a user has set stays.
    late = "onnxruntime" in sys.modules and TELEMETRY not in os.environ
    os.environ.setdefault(TELEMETRY, "1")
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
    if late:  # the program had imported it before; what it has sent by now is sent
        onnxruntime.disable_telemetry_events()
    return cast("Engine", onnxruntime)


def _run_options(*, gives_back: bool, partial: bool) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Of runs that give back what the arena holds, or compute a part of the outputs; None where they do neither."""
    if not gives_back and not partial:
        return None
    options = _onnxruntime().RunOptions()
    options.only_execute_path_to_fetches = partial
    if gives_back:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def cpu_engine() -> str:
    """What runs a graph on this machine's CPU, in words: see `engine_name`.

    Raises:
        MissingExtraError: no onnxruntime is installed.
    """
    return session_name(_onnxruntime().__version__, [CPU], [], Device("cpu"), ROWS, "")


def telemetry() -> str:
    """Whether onnxruntime, as trivec loads it, sends telemetry: "off", or "on" and why."""
    said = os.environ.get(TELEMETRY, "1")
    if said.strip().lower() in ("1", "true", "yes", "on"):  # the values that onnxruntime understands
        return "off"
    return f"on, because {TELEMETRY}={said!r} is set. To turn it off, unset it or set it to 1"


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


def _dtype(ort_type: str) -> npt.DTypeLike:
    known = {"int32": np.int32, "bool": np.bool_, "float": np.float32, "float16": np.float16}
    return known.get(ort_type.removeprefix("tensor(").removesuffix(")"), np.int64)


def _width(shape: Sequence[int | str | None]) -> int | None:
    """The last dimension, where the graph states it."""
    last = shape[-1] if shape else None
    return last if isinstance(last, int) else None
