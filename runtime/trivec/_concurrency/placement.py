"""Where the processes of a pool run: devices, and core sets of their own."""

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

from trivec._engine.devices import Device, parse_device
from trivec._errors import InputError
from trivec._system.nvidia import cuda_count
from trivec._system.threads import available_threads, bounded

_MOST_ON_CPU = 4  # processes where none are named, as in sentence-transformers
_TOPOLOGY = ("physical_package_id", "core_id")


@dataclass(frozen=True)
class Place:
    """A device, and what of the CPU goes with it."""

    device: Device
    threads: int
    cores: tuple[int, ...] = ()
    """CPU numbers to stay on; empty: any."""

    @contextlib.contextmanager
    def inherited(self) -> Iterator[None]:
        """Processes that this thread starts meanwhile stay on these cores, and Ctrl-C does not reach them.

        Both are inherited, so they hold from the first instruction: before numpy, tokenizers and onnxruntime size
        their pools, and while a Ctrl-C would still print a traceback of the worker's imports.
        """
        before = os.sched_getaffinity(0) if self.cores else set()
        blocks = hasattr(signal, "pthread_sigmask")
        if blocks:
            resource_tracker.ensure_running()  # else the first start does, and unblocks the signal while at it
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            if self.cores:
                os.sched_setaffinity(0, self.cores)
            yield
        finally:
            if self.cores:
                os.sched_setaffinity(0, before)
            if blocks:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def places_of(own: str, target_devices: Sequence[object] | None, *, fixed: Device | None = None) -> list[Place]:
    """A place for each worker.

    Args:
        own: the device of the encoder that they copy.
        target_devices: as the user gave them; None: as many as make sense.
        fixed: where the encoder's providers were given by hand, the device of the first: workers get the same.
    """
    if fixed is not None:
        devices = _fixed(fixed, target_devices)
    else:
        devices = _default_devices(own) if target_devices is None else _parsed(target_devices)
    available, cores = available_threads(), _cores()
    granted, most = available.count, bounded(available).count  # of all processes; of each
    count = sum(device.kind == "cpu" for device in devices)
    sets = iter(_shares(cores, count))
    shares = iter(_shares(range(granted), count))
    return [
        Place(device, min(len(next(shares)), most), tuple(next(sets)))
        if device.kind == "cpu"
        else Place(device, max(1, min(granted // len(devices), most)))
        for device in devices
    ]


def _parsed(target_devices: Sequence[object]) -> list[Device]:
    if isinstance(target_devices, str) or not isinstance(target_devices, Sequence) or not target_devices:
        raise InputError(
            f"target_devices must be a list with a device for each process, got {target_devices!r}. "
            'Type: ["cpu", "cpu"] or ["cuda:0", "cuda:1"]'
        )
    devices = [parse_device(str(device)) for device in target_devices]
    if None in devices:
        raise InputError("target_devices names each process's device: 'cpu' or 'cuda:N', not 'auto'.")
    return [device for device in devices if device is not None]


def _fixed(own: Device, target_devices: Sequence[object] | None) -> list[Device]:
    """The encoder's own device, once or as often as it is named."""
    if target_devices is None:
        return [own]
    if not isinstance(target_devices, list | tuple) or not target_devices or {*map(str, target_devices)} != {str(own)}:
        raise InputError(
            f"this encoder was loaded with providers=, so its workers get the same ones: target_devices may name "
            f"{str(own)!r} once or several times, got {target_devices!r}. For other devices, load it without providers."
        )
    return [own] * len(target_devices)


def _default_devices(own: str) -> list[Device]:
    """Every CUDA device for an encoder on CUDA; else processes on the CPU, at most as many as sentence-transformers."""
    device = parse_device(own)
    if device is None or device.kind == "cpu":
        return [Device("cpu")] * min(_MOST_ON_CPU, available_threads().count)
    return [Device("cuda", index) for index in range(_cuda_count())] or [device]


def _cuda_count() -> int:
    """CUDA devices that this process sees; 0 where no one can say."""
    return cuda_count() or 0


def _cores() -> list[int]:
    """CPUs that this process may run on, the hardware threads of one core side by side; none where no one can say."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0), key=lambda cpu: (*(_topology(cpu, name) for name in _TOPOLOGY), cpu))


def _topology(cpu: int, name: str) -> int:
    try:
        return int(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/{name}").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _shares(items: Sequence[int], count: int) -> list[Sequence[int]]:
    """The items in `count` even runs; one each, over and over, where there are fewer items than runs."""
    if 0 < len(items) < count:
        return [[items[index % len(items)]] for index in range(count)]
    return [items[len(items) * index // count : len(items) * (index + 1) // count] for index in range(count)]
