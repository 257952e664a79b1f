"""Shared by the tests of the exporter."""

import pytest

from trivec._texts import verification_texts


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Every seventh verification text: all kinds, 1 to over 512 tokens, and the empty one."""
    found = [text.text for text in verification_texts()][::7]
    return found if "" in found else [*found, ""]
