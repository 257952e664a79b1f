"""A test that is skipped without a word tests nothing: a run with such a skip fails. A plugin of pytest.

Where ../shared is there, only tests marked `gpu` may skip; where it is not, those that name it as their reason as well.
"""

from collections import Counter
from collections.abc import Generator

import pytest

_GPU = ("trivec", "gpu")  # among a report's properties: what tells a run of several processes about the marker


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the marker: the report goes where the test itself cannot."""
    report = yield
    if item.get_closest_marker("gpu") is not None:
        report.user_properties.append(_GPU)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what was skipped for another reason, and let the run fail."""
    excused = () if (config.rootpath.parent / "shared").is_dir() else ("../shared",)
    silent = Counter(
        _reason(report)
        for report in terminalreporter.stats.get("skipped", [])
        if _GPU not in map(tuple, getattr(report, "user_properties", ()))
        and not any(word in _reason(report) for word in excused)
    )
    if not silent:
        return
    allowed = " or ".join(["`@pytest.mark.gpu`", *(f'a reason that names "{word}"' for word in excused)])
    terminalreporter.section("skipped, and so not tested", red=True)
    terminalreporter.write_line(f"The run fails: only with {allowed} may a test skip here.", red=True)
    for reason, count in sorted(silent.items()):
        terminalreporter.write_line(f"{count} {'test' if count == 1 else 'tests'}: {reason}")
    session = terminalreporter._session
    assert session is not None
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why it was skipped: of file, line and reason the last."""
    said = report.longrepr
    return str(said[2] if isinstance(said, tuple | list) else said).removeprefix("Skipped: ")
