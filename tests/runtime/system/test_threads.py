"""The thread count from CPU affinity, from variables, and from cgroup files of both versions, written for the test."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import trivec
from trivec._concurrency import placement
from trivec._engine.session import Session
from trivec._loading import choice, open_model
from trivec._system.threads import Threads, available_threads, default_threads

AFFINITY = "CPU affinity of this process"
V2, V1 = "0::/\n", "5:memory:/\n4:cpu,cpuacct:/\n"


@pytest.fixture(autouse=True)
def sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def write(root: Path, cgroup: str, files: Mapping[str, str]) -> Path:
    """A root with /proc/self/cgroup and files below /sys/fs/cgroup."""
    for name, text in {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("400000 100000\n", Threads(4, "cgroup CPU quota of 4", 4)),
        ("250000 100000\n", Threads(2, "cgroup CPU quota of 2.5", 2.5)),
        ("50000 100000\n", Threads(1, "cgroup CPU quota of 0.5", 0.5)),
        ("1600000 100000\n", Threads(16, AFFINITY, 16)),
        ("6400000 100000\n", Threads(16, AFFINITY, 64)),
        ("max 100000\n", Threads(16, AFFINITY)),
        ("garbage\n", Threads(16, AFFINITY)),
        ("100000 0\n", Threads(16, AFFINITY)),
        ("-1 100000\n", Threads(16, AFFINITY)),
        ("", Threads(16, AFFINITY)),
    ],
)
def test_version_2(tmp_path: Path, content: str, expected: Threads) -> None:
    assert available_threads(write(tmp_path, V2, {"cpu.max": content})) == expected


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [
        ("300000\n", "100000\n", Threads(3, "cgroup CPU quota of 3", 3)),
        ("-1\n", "100000\n", Threads(16, AFFINITY)),
        ("150000\n", "100000\n", Threads(1, "cgroup CPU quota of 1.5", 1.5)),
        ("x\n", "100000\n", Threads(16, AFFINITY)),
    ],
)
def test_version_1(tmp_path: Path, mount: str, quota: str, period: str, expected: Threads) -> None:
    files = {f"{mount}/cpu.cfs_quota_us": quota, f"{mount}/cpu.cfs_period_us": period}
    assert available_threads(write(tmp_path, V1, files)) == expected


@pytest.mark.parametrize(
    ("at", "count"),
    [("a.slice/b.service", 3), ("a.slice", 3), (".", 3), ("a.slice/c.service", 16), ("elsewhere", 16)],
)
def test_a_quota_counts_on_the_way_up_from_the_own_cgroup(tmp_path: Path, at: str, count: int) -> None:
    root = write(tmp_path, "0::/a.slice/b.service\n", {f"{at}/cpu.max": "300000 100000"})
    assert available_threads(root).count == count


def test_the_smallest_quota_on_the_way_decides(tmp_path: Path) -> None:
    quotas = {"cpu.max": "max 100000", "a/cpu.max": "200000 100000", "a/b/cpu.max": "900000 100000"}
    assert available_threads(write(tmp_path, "0::/a/b\n", quotas)) == Threads(2, "cgroup CPU quota of 2", 2)


@pytest.mark.parametrize("cgroup", ["0::/docker/1a2b\n", "0::/../../host\n", "4:cpu,cpuacct:/docker/1a2b\n"])
def test_a_container_that_sees_the_path_of_its_host(tmp_path: Path, cgroup: str) -> None:
    """The container's own cgroup is what is mounted; its path leads nowhere inside."""
    files = {"cpu.max": "200000 100000", "cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}
    assert available_threads(write(tmp_path, cgroup, files)).count == 2


def test_both_versions_at_once(tmp_path: Path) -> None:
    files = {"cpu.max": "500000 100000", "cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}
    assert available_threads(write(tmp_path, V2 + V1, files)).count == 2


def test_half_a_version_1_folder(tmp_path: Path) -> None:
    assert available_threads(write(tmp_path, V1, {"cpu/cpu.cfs_quota_us": "500000"})).count == 16


def test_without_proc_the_mounts_roots_are_read(tmp_path: Path) -> None:
    root = write(tmp_path, "", {"cpu.max": "400000 100000"})
    (root / "proc/self/cgroup").unlink()
    assert available_threads(root).count == 4


def test_no_cgroup(tmp_path: Path) -> None:
    assert available_threads(tmp_path / "absent") == Threads(16, AFFINITY)


def test_affinity_below_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert available_threads(write(tmp_path, V2, {"cpu.max": "400000 100000"})) == Threads(1, AFFINITY, 4)


def test_a_system_without_affinity_counts_its_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_threads(tmp_path).count == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_threads(tmp_path).count == 1


@pytest.mark.parametrize(
    ("variables", "count", "source"),
    [
        ({"OMP_NUM_THREADS": "5"}, 5, "OMP_NUM_THREADS=5 (CPU affinity of this process: 16)"),
        ({"OMP_NUM_THREADS": " 3,2 "}, 3, "OMP_NUM_THREADS= 3,2  (CPU affinity of this process: 16)"),
        ({"OMP_NUM_THREADS": "9", "MKL_NUM_THREADS": "7"}, 7, "MKL_NUM_THREADS=7 (CPU affinity of this process: 16)"),
        ({"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}, 1, "OMP_NUM_THREADS=1 (CPU affinity of this process: 16)"),
        ({"OMP_THREAD_LIMIT": "2"}, 2, "OMP_THREAD_LIMIT=2 (CPU affinity of this process: 16)"),
        ({"OMP_NUM_THREADS": "64"}, 16, AFFINITY),
        *(({"OMP_NUM_THREADS": text}, 16, AFFINITY) for text in ("", "0", "-4", "many", "2.5")),
    ],
)
def test_a_variable_lowers_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], count: int, source: str
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert default_threads(tmp_path) == Threads(count, source)
    assert available_threads(tmp_path).count == 16


def test_a_variable_above_the_quota_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    root = write(tmp_path, V2, {"cpu.max": "400000 100000"})
    assert default_threads(root) == Threads(4, "cgroup CPU quota of 4", 4)


def test_sessions_run_so_many_threads_and_one_line_says_so(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[int] = []
    monkeypatch.setattr(choice, "available_threads", lambda: Threads(16, AFFINITY))
    monkeypatch.setattr(choice, "_warned", set())

    class Counted(Session):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            opened.append(options["threads"])
            super().__init__(*arguments, **options)

    monkeypatch.setattr(open_model, "Session", Counted)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with caplog.at_level(logging.WARNING, logger="trivec"):
        for threads in (5, None, None, 7):
            trivec.load(tiny_folder, device="cpu", threads=threads).close()
    assert opened == [5, 3, 3, 7]
    said = "threads=3, from OMP_NUM_THREADS=3 (CPU affinity of this process: 16); threads= in the call wins over it."
    assert [record.getMessage() for record in caplog.records] == [said]


def test_each_process_of_a_pool_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "available_threads", lambda: Threads(16, AFFINITY))
    monkeypatch.setattr(placement, "_cores", lambda: list(range(16)))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [place.threads for place in placement.places_of("cpu", ["cpu", "cpu"])] == [3, 3]
    assert [place.threads for place in placement.places_of("cpu", ["cpu"] * 8)] == [2] * 8
    assert [place.threads for place in placement.places_of("cpu", ["cuda:0"])] == [3]
