"""What the processor says of itself, and what kernels it stands for."""

import platform
from pathlib import Path

import pytest

from trivec._system.cpu import Cpu, kernel_class, read_cpu


def test_cpu_of_an_x86_and_of_an_arm_machine(tmp_path: Path) -> None:
    x86, arm = tmp_path / "x86", tmp_path / "arm"
    x86.write_text(
        "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t\t: fpu fma avx2 avx512_vnni\n\n"
        "processor\t: 1\nmodel name\t: Another\nflags\t\t: fpu\n",
        encoding="utf-8",
    )
    arm.write_text("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp i8mm\n", encoding="utf-8")
    assert read_cpu(x86) == Cpu("Some CPU @ 2.0GHz", frozenset({"fpu", "fma", "avx2", "avx512_vnni"}))
    assert read_cpu(arm).features == frozenset({"fp", "asimd", "asimddp", "i8mm"})
    assert read_cpu(tmp_path / "absent").features is None


@pytest.mark.parametrize(
    ("machine", "cpu", "expected"),
    [
        ("x86_64", Cpu("a", frozenset({"avx512_vnni", "avx2", "fpu", "fma"})), "x86_64 fma avx2 avx512_vnni"),
        ("x86_64", Cpu("another", frozenset({"fma", "sse", "avx2", "avx512_vnni"})), "x86_64 fma avx2 avx512_vnni"),
        ("aarch64", Cpu("a", frozenset({"asimd", "i8mm", "asimddp"})), "aarch64 asimddp i8mm"),
        ("arm64", Cpu("Apple M2", None), "arm64 Apple M2"),  # a Mac tells its name alone
    ],
)
def test_kernels_are_named_by_features_in_one_order(
    monkeypatch: pytest.MonkeyPatch, machine: str, cpu: Cpu, expected: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert kernel_class(cpu) == expected
