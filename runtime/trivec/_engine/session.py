"""One open ONNX graph on one device. The only module that imports onnxruntime."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from trivec._engine.devices import CUDA, KINDS, Device, Engine, Provider, check_providers, shares
from trivec._engine.io_binding import BoundSession
from trivec._engine.memory import Budget, is_memory_error, within
from trivec._engine.open_session import Wanted, assigned_nodes, open_session
from trivec._engine.provider_probe import probe
from trivec._errors import MissingExtraError, ModelFormatError, ProviderError
from trivec._model.manifest import ROWS

INSTALL = 'pip install "trivec[cpu]"   (or "trivec[gpu]" on a machine with an NVIDIA GPU)'
_SMALL = 1 << 28
_BATCHES_AHEAD = 2  # batches that the host prepares or finishes while the device runs
Item = TypeVar("Item")
Result = TypeVar("Result")
Floats = npt.NDArray[np.float32]
# What a text graph may ask for beside input_ids; a row has no padding and one segment.
_EXTRA_INPUTS = ("attention_mask", "token_type_ids", "position_ids")


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


class Session:
    """An open graph: token ids in, float32 arrays out. Any number of threads may run it."""

    def __init__(
        self,
        files: Sequence[Path],
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

        Raises:
            MissingExtraError: no onnxruntime is installed.
            ProviderError: the device cannot be had, or leaves heavy operators to the CPU.
            ModelFormatError: onnxruntime cannot read the graph.
        """
        ort = _onnxruntime()
        given = None if providers is None else tuple(providers)
        wanted = Wanted(device, threads, spin, given, layout, profile, options)
        self._session, self._assigned = open_session(ort, files, wanted)
        self.device, self.layout = device, layout
        small = sum(file.stat().st_size for file in files) < _SMALL
        bound = device.kind == "cuda" if bind is None else bind
        self.lanes = threads if device.kind == "cpu" and small and not bound else 1
        """Runs that are worth having side by side, each with one thread, in place of one run with all of them."""
        self.ahead = _BATCHES_AHEAD if bound else 1
        """Batches that are worth having under way: while the device runs one, the host works on another."""
        self.budget = budget or Budget()
        """Tokens that a run may hold, once memory has run out."""
        self._files, self._lock, self._given = files, threading.Lock(), given
        self._profile, self._options = profile, options
        self._narrow: Session | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._partial = ort.RunOptions()
        self._partial.only_execute_path_to_fetches = True
        self._dtypes = {i.name: _dtype(i.type) for i in self._session.get_inputs()}
        self.inputs = tuple(self._dtypes)
        self.outputs = {o.name: _width(o.shape) for o in self._session.get_outputs()}
        if layout == ROWS:
            _check_inputs(self.inputs, files[0])
        self._bound, self._worker = None, None
        if bound:
            graphs = str(self._session.get_provider_options().get(CUDA, {}).get("enable_cuda_graph", "0")) == "1"
            self._bound = BoundSession(ort, self._session, (device.kind, device.index or 0), graphs=graphs)
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="trivec-device")

    # ---- what it is --------------------------------------------------------------------------------------------------

    @property
    def providers(self) -> tuple[str, ...]:
        """Providers that onnxruntime really opened, best first."""
        return tuple(self._session.get_providers())

    @property
    def shares(self) -> dict[str, int]:
        """Nodes of the graph by the provider that runs them; empty where this onnxruntime does not tell."""
        return shares(self._assigned or assigned_nodes(self._session))

    def end_profiling(self) -> list[Path]:
        """End the profiles that `profile` has begun, of this session and of its lanes; their files."""
        sessions = [self, *([] if self._narrow is None else [self._narrow])]
        return [Path(each._session.end_profiling()) for each in sessions if each._profile is not None]

    # ---- several batches ---------------------------------------------------------------------------------------------

    def side_by_side(self, work: Callable[["Session", Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`work(session, item)` of each item, in order, as many at a time as there are lanes.

        Threads that share the operators of one run wait for each other at the end of each operator, 60 times a layer;
        runs of one thread each do not. They take a session of their own, opened at the first need, since a session has
        one number of threads for all its runs; it shares what is mapped of the weights, not what onnxruntime packs.
        """
        with self._lock:
            if self._narrow is None or self._executor is None:
                narrow = partial(Session, self._files, device=self.device, threads=1, providers=self._given)
                # onnxruntime adds the second to a profile's name: one of the same beginning could be written over
                profile = None if self._profile is None else self._profile.with_name(f"{self._profile.name}-lanes")
                self._narrow = narrow(layout=self.layout, budget=self.budget, profile=profile, options=self._options)
                self._executor = ThreadPoolExecutor(self.lanes, thread_name_prefix="trivec-lane")
        return self._executor.map(partial(work, self._narrow), items)

    def overlapped(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """`work(item)` of each item, in order; while one is on the device, the next is made ready.

        On the device itself there is one at a time (`run_feeds` has one thread), so its memory is that of one run.
        """
        with self._lock:  # never the lanes' threads: a session has lanes, or runs ahead
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self.ahead, thread_name_prefix="trivec-host")
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(self._executor.submit(work, item))
                if len(waiting) > self.ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    # ---- runs --------------------------------------------------------------------------------------------------------

    def run(self, ids: npt.NDArray[np.int64], output: str) -> Floats:
        """Run rows of equal length: ids (B, S) to the output (B, S, H) or (B, D), float32."""
        return self.run_all(ids, (output,))[0]

    def run_all(self, ids: npt.NDArray[np.int64], outputs: Sequence[str]) -> list[Floats]:
        """Run rows of equal length (B, S), to several outputs; what only other outputs need is not computed.

        Where memory runs out, the rows run in two, and this session's runs are smaller from then on.

        Raises:
            ProviderError: onnxruntime cannot run them, or not even half of them.
        """
        if len(ids) == 1:  # one text cannot be cut
            try:
                return self.run_feeds({name: _feed(name, ids) for name in self.inputs}, outputs)
            except Exception as error:
                raise run_error(error, 1, ids.shape[1], self.device) from error

        def run(rows: slice) -> list[Floats]:
            return self.run_feeds({name: _feed(name, ids[rows]) for name in self.inputs}, outputs)

        def failure(error: Exception, rows: slice) -> ProviderError:
            return run_error(error, rows.stop - rows.start, ids.shape[1], self.device)

        return within(self.budget, [ids.shape[1]] * len(ids), run, failure)

    def run_feeds(self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]) -> list[Floats]:
        """Run a graph of any layout once, in float32 out; onnxruntime's errors come as they are (see `run_error`).

        Args:
            feeds: every input of the graph, by name.
            outputs: names; what only other outputs need is not computed.
        """
        typed = {name: feeds[name].astype(dtype, copy=False) for name, dtype in self._dtypes.items()}
        if self._bound is None or self._worker is None:
            options = self._partial if len(outputs) < len(self.outputs) else None
            arrays: list[npt.NDArray[Any]] = self._session.run(list(outputs), typed, options)
        else:
            arrays = self._worker.submit(self._bound.run, typed, tuple(outputs)).result()
        return [array.astype(np.float32, copy=False) for array in arrays]


def run_error(error: Exception, texts: int, tokens: int, device: Device) -> ProviderError:
    """What to raise where a run of so many texts, the longest of so many tokens, failed."""
    place = "" if device.kind == "cpu" else f" on {device}"
    reason = " ".join(str(error).split()).rstrip(".")
    failed = f"onnxruntime cannot run {texts} texts of {tokens} tokens{place}: {reason}."
    if not is_memory_error(error):
        return ProviderError(f"{failed} Where the model has fewer positions, pass a smaller max_seq_length.")
    ways = ["pass a smaller batch_size to encode"] if texts > 1 else []
    ways.append(f"set encoder.max_seq_length below {tokens}")
    if device.kind == "cuda":
        ways.append(
            "free what other processes hold (nvidia-smi shows them), or raise gpu_mem_limit where you gave one: "
            f'load(..., providers=[("{CUDA}", {{"gpu_mem_limit": BYTES}})])'
        )
    return ProviderError(f"{failed} Memory ran out, and these are as few texts as are tried. {'; or '.join(ways)}.")


def _onnxruntime() -> Engine:
    # Wheels since 1.31 send telemetry unless told otherwise before they are loaded. What a user has set stays.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
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
    return cast("Engine", onnxruntime)


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


def _check_inputs(inputs: Sequence[str], graph: Path) -> None:
    unknown = [name for name in inputs if name != "input_ids" and name not in _EXTRA_INPUTS]
    if unknown or "input_ids" not in inputs:
        raise ModelFormatError(
            f"{graph} has the inputs {list(inputs)}; a text encoder has input_ids and at most "
            f"{', '.join(_EXTRA_INPUTS)}. Export the model with: trivec export"
        )


def _feed(name: str, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """One graph input (B, S) for rows without padding."""
    if name == "input_ids":
        return ids
    if name == "position_ids":
        return np.broadcast_to(np.arange(ids.shape[1], dtype=np.int64), ids.shape).copy()
    return np.full_like(ids, 1 if name == "attention_mask" else 0)


def _dtype(ort_type: str) -> npt.DTypeLike:
    return {"tensor(int32)": np.int32, "tensor(float)": np.float32, "tensor(float16)": np.float16}.get(
        ort_type, np.int64
    )


def _width(shape: Sequence[int | str | None]) -> int | None:
    """The last dimension, where the graph states it."""
    last = shape[-1] if shape else None
    return last if isinstance(last, int) else None
