"""The tiny model folder of tests/support/tiny_model.py, for engines to open; notes and exports go nowhere else."""

from pathlib import Path

import pytest
from tests.support.tiny_model import write_tiny_model


@pytest.fixture(autouse=True)
def trivec_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test's notes and exports out of the user's cache."""
    monkeypatch.setenv("TRIVEC_HOME", str(tmp_path / "trivec-home"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder: copy it before changing it."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model").folder
