"""Shared by the tests of the exporter."""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from torch.onnx._internal.exporter import _registration

from trivec._gate.texts import verification_texts


@pytest.fixture(scope="session", autouse=True)
def one_table_of_ops() -> Iterator[None]:
    """What torch.onnx makes anew for each export, in a seventh of a tiny one's time, is made once."""
    made = functools.cache(_registration.ONNXRegistry.from_torchlib)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_registration.ONNXRegistry, "from_torchlib", staticmethod(made))
        yield


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Every seventh verification text: all kinds, 1 to over 512 tokens, and the empty one."""
    found = [text.text for text in verification_texts()][::7]
    return found if "" in found else [*found, ""]


@pytest.fixture(scope="session")
def twins() -> Any:
    """pymilvus.model, which installs packages by itself where one is missing: here that fails."""
    from pymilvus.model import utils
    from pymilvus.model.utils import dependency_control

    def refuse(package: str, *_: object) -> None:
        raise AssertionError(f"pymilvus.model wants to install {package}")

    utils.prompt_install = dependency_control.prompt_install = refuse
    import pymilvus.model

    return pymilvus.model
