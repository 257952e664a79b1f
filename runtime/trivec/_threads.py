"""How many threads this process may really use, and who says so."""

import os
from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Threads:
    """A number of threads and where it comes from."""

    count: int
    source: str


def available_threads(cgroup: Path = _CGROUP) -> Threads:
    """The smaller of the CPUs this process may run on and its cgroup's CPU quota, at least 1.

    onnxruntime sizes its pool by the host's cores and knows nothing of a quota: a container with two CPUs on a
    64-core host would run 64 spinning threads.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(cgroup)
    if quota is not None and quota < affinity:
        return Threads(max(1, int(quota)), f"cgroup CPU quota of {quota:g}")
    return Threads(affinity, "CPU affinity of this process")


def _cgroup_quota(cgroup: Path) -> float | None:
    """CPUs that the cgroup (v2, else v1) grants, or None where it sets no quota."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max": no quota
        return None
    return cpus if cpus > 0 else None
