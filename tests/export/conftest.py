"""Exports that several test files read; each is made once a session."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import trivec
from trivec_export._texts import verification_texts

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="session")
def minilm(minilm_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """all-MiniLM-L6-v2 in three variants."""
    return trivec.export(minilm_checkpoint, tmp_path_factory.mktemp("minilm") / "model", quiet=True)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Every seventh verification text: all kinds, 1 to over 512 tokens, and the empty one."""
    found = [text.text for text in verification_texts()][::7]
    return found if "" in found else [*found, ""]
