"""A tiny model folder, made without torch, and what it must give, computed in numpy.

    tiny_model     the folder with everything that a test needs to compute expected vectors by itself
    tiny_folder    only its path

Both are shared by the whole run: copy the folder (`shutil.copytree`) before changing it.
"""

from pathlib import Path

import pytest
from tests.support.tiny_model import TinyModel, write_tiny_model


@pytest.fixture(autouse=True)
def trivec_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every test's notes and exports out of the user's cache."""
    home = tmp_path / "trivec-home"
    monkeypatch.setenv("TRIVEC_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """The tiny model and its weights."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def tiny_folder(tiny_model: TinyModel) -> Path:
    """The tiny model's folder."""
    return tiny_model.folder
