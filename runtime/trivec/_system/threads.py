"""How many threads this process may really use, how many it runs where nobody names a number, and who says so."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

_VARIABLES = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What torch and numpy go by, and whoever starts many processes sets: loky, Ray, a batch system's script."""


@dataclass(frozen=True)
class Threads:
    """A number of threads and where it comes from."""

    count: int
    source: str
    quota: float | None = None
    """CPUs that a cgroup grants; None: no quota. Under one, a thread that spins while it waits eats granted time."""


def available_threads(root: Path = Path("/")) -> Threads:
    """The smaller of the CPUs this process may run on and the CPU quota of its cgroups, at least 1.

    onnxruntime sizes its pool by the host's cores and knows nothing of a quota: a container with two CPUs on a
    64-core host would run 64 spinning threads. A quota counts wherever it is set between the process's own cgroup and
    the root that it can see: systemd and Kubernetes set it on a parent.

    Args:
        root: where proc and sys are mounted.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(_quotas(root), default=None)
    if quota is not None and quota < affinity:
        return Threads(max(1, int(quota)), f"cgroup CPU quota of {quota:g}", quota)
    return Threads(affinity, "CPU affinity of this process", quota)


def default_threads(root: Path = Path("/")) -> Threads:
    """The threads of an encoder whose caller names none: `available_threads`, or fewer where a variable says so."""
    return bounded(available_threads(root))


def bounded(available: Threads) -> Threads:
    """So many threads, or fewer where a variable says so.

    Of several the least counts; of a list, one number for each level of nesting, the first. What is no number above 0
    is none, as for OpenMP.
    """
    count, variable = min(_bounds(), key=lambda bound: bound[0], default=(available.count, ""))
    if count >= available.count:
        return available
    source = f"{variable}={os.environ[variable]} ({available.source}: {available.count})"
    return replace(available, count=count, source=source)


def _bounds() -> Iterator[tuple[int, str]]:
    """The number in each variable that bounds the threads of a process, and its name."""
    for name in _VARIABLES:
        text = os.environ.get(name, "").partition(",")[0].strip()
        if text.isdecimal() and int(text) > 0:
            yield int(text), name


def _quotas(root: Path) -> Iterator[float]:
    """CPUs that each cgroup of this process grants, v2 and v1, as far as they are visible and set a quota."""
    mount = root / "sys/fs/cgroup"
    for controllers, path in _memberships(root):
        if controllers == "":  # v2
            for folder in _upwards(mount, path):
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                yield from _cpus(quota, period)
        elif "cpu" in controllers.split(","):  # v1; the mount is named after all controllers it carries, or "cpu"
            for name in {controllers, "cpu"}:
                for folder in _upwards(mount / name, path):
                    yield from _cpus(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _memberships(root: Path) -> list[tuple[str, str]]:
    """(controllers, path) of the cgroups of this process; the mounts' roots where the system does not say."""
    lines = [line.split(":", 2) for line in _read(root / "proc/self/cgroup").splitlines()]
    return [(parts[1], parts[2]) for parts in lines if len(parts) == 3] or [("", "/"), ("cpu", "/")]


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The folder of a cgroup and of its parents up to the mount; in a container the path may exist on the host only."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return (mount.joinpath(*parts[:count]) for count in range(len(parts), -1, -1))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _cpus(quota: str, period: str) -> Iterator[float]:
    """CPUs from microseconds of a period; none for "max", -1 and what cannot be read."""
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return
    if cpus > 0:
        yield cpus
