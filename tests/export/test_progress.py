"""What the exporter says goes to stderr or nowhere, and never stops the work."""

import io
import sys

import pytest

from trivec_export._progress import Progress


class Full(io.TextIOBase):
    """A stream whose disk is full."""

    def write(self, text: str, /) -> int:
        raise OSError(28, "No space left on device", text)


@pytest.mark.parametrize("stream", [None, Full()])
def test_steps_without_a_stderr(
    stream: io.TextIOBase | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    progress, done = Progress(quiet=False), []
    with progress.step("a step"):
        done.append(1)
    progress.say("a line")
    assert done == [1]
    assert capsys.readouterr().out == ""  # `print` to a stderr that is missing goes to stdout
