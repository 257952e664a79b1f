"""What may skip, in small runs of their own, by one process and by several."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ALWAYS = "def test_that_passes():\n    pass\n"
SKIPS = {
    "a reason that speaks of a GPU": "def test_a():\n    pytest.skip('there is no GPU')\n",
    "a function called gpu": "@pytest.mark.skipif(True, reason='here')\ndef test_gpu():\n    pass\n",
    "a module of a missing package": "pytest.importorskip('no_such_package')\n",
    "a fixture": "@pytest.fixture\ndef a():\n    pytest.skip('no browser')\n\ndef test_a(a):\n    pass\n",
    "../shared": "def test_a():\n    pytest.skip('../shared is not beside this checkout')\n",
    "gpu": "@pytest.mark.gpu\ndef test_a():\n    pytest.skip('no CUDA device')\n",
    "a class marked gpu": (
        "@pytest.mark.gpu\nclass TestA:\n    @pytest.mark.skipif(True, reason='here')\n"
        "    def test_a(self):\n        pass\n"
    ),
}
FINE = {"gpu", "a class marked gpu"}


def run(folder: Path, code: str, *options: str, shared: bool) -> tuple[int, str]:
    """Exit status and output of pytest on one file, in a checkout with or without ../shared."""
    checkout = folder / "checkout"
    checkout.mkdir()
    if shared:
        (folder / "shared").mkdir()
    (checkout / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["gpu"]\n')
    (checkout / "test_one.py").write_text(f"import pytest\n\n{code}")
    (checkout / "test_two.py").write_text(ALWAYS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.support.skips",
        "--strict-markers",
        "-p",
        "no:cacheprovider",
        *options,
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        command,
        cwd=checkout,
        env={**kept, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("shared", [True, False], ids=["with ../shared", "without"])
@pytest.mark.parametrize("name", SKIPS)
def test_only_what_is_marked_may_skip(name: str, shared: bool, tmp_path: Path) -> None:
    status, said = run(tmp_path, SKIPS[name], shared=shared)
    fine = name in FINE or (name == "../shared" and not shared)
    assert ("1 skipped" in said, "skipped, and so not tested" in said) == (True, not fine), said
    assert status == (pytest.ExitCode.OK if fine else pytest.ExitCode.TESTS_FAILED), said
    assert ('a reason that names "../shared"' in said) == (not fine and not shared)


@pytest.mark.parametrize("name", ["gpu", "a fixture", "a module of a missing package"])
def test_in_several_processes(name: str, tmp_path: Path) -> None:
    status, said = run(tmp_path, SKIPS[name], "-p", "xdist", "-n", "2", shared=True)
    assert "1 skipped" in said
    assert status == (pytest.ExitCode.OK if name in FINE else pytest.ExitCode.TESTS_FAILED), said


def test_a_file_that_skips_as_a_whole_fails_where_nothing_else_runs(tmp_path: Path) -> None:
    status, said = run(tmp_path, SKIPS["a module of a missing package"], "test_one.py", shared=True)
    assert status == pytest.ExitCode.TESTS_FAILED, said
    assert "1 test: could not import 'no_such_package'" in said


def test_no_skip_no_word(tmp_path: Path) -> None:
    status, said = run(tmp_path, "def test_a():\n    pass\n", shared=True)
    assert (status, "not tested" in said) == (pytest.ExitCode.OK, False), said


def test_a_run_that_fails_anyway_keeps_its_status(tmp_path: Path) -> None:
    status, said = run(tmp_path, f"{SKIPS['gpu']}\ndef test_b():\n    raise KeyboardInterrupt\n", shared=True)
    assert status == pytest.ExitCode.INTERRUPTED, said
