"""The thread count from CPU affinity and from cgroup files of both versions, which are written for the test."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from trivec._threads import Threads, available_threads


@pytest.fixture(autouse=True)
def sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


QUOTA, PERIOD = "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("400000 100000\n", Threads(4, "cgroup CPU quota of 4")),
        ("250000 100000\n", Threads(2, "cgroup CPU quota of 2.5")),
        ("50000 100000\n", Threads(1, "cgroup CPU quota of 0.5")),
        ("1600000 100000\n", Threads(16, "CPU affinity of this process")),
        ("6400000 100000\n", Threads(16, "CPU affinity of this process")),
        ("max 100000\n", Threads(16, "CPU affinity of this process")),
        ("garbage\n", Threads(16, "CPU affinity of this process")),
        ("100000 0\n", Threads(16, "CPU affinity of this process")),
        ("-1 100000\n", Threads(16, "CPU affinity of this process")),
        ("", Threads(16, "CPU affinity of this process")),
    ],
)
def test_version_2(tmp_path: Path, content: str, expected: Threads) -> None:
    assert available_threads(write(tmp_path, {"cpu.max": content})) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [
        ("300000\n", "100000\n", Threads(3, "cgroup CPU quota of 3")),
        ("-1\n", "100000\n", Threads(16, "CPU affinity of this process")),
        ("150000\n", "100000\n", Threads(1, "cgroup CPU quota of 1.5")),
        ("x\n", "100000\n", Threads(16, "CPU affinity of this process")),
    ],
)
def test_version_1(tmp_path: Path, quota: str, period: str, expected: Threads) -> None:
    folder = write(tmp_path, {QUOTA: quota, PERIOD: period})
    assert available_threads(folder) == expected


def test_version_2_wins(tmp_path: Path) -> None:
    files = {"cpu.max": "200000 100000", QUOTA: "500000", PERIOD: "100000"}
    assert available_threads(write(tmp_path, files)).count == 2


def test_half_a_version_1_folder(tmp_path: Path) -> None:
    assert available_threads(write(tmp_path, {QUOTA: "500000"})).count == 16


def test_no_cgroup(tmp_path: Path) -> None:
    assert available_threads(tmp_path / "absent") == Threads(16, "CPU affinity of this process")


def test_affinity_below_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert available_threads(write(tmp_path, {"cpu.max": "400000 100000"})) == Threads(
        1, "CPU affinity of this process"
    )


def test_a_system_without_affinity_counts_its_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_threads(tmp_path).count == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_threads(tmp_path).count == 1
