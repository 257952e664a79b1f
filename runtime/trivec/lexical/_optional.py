"""Packages that only some analyzers need."""

from importlib import import_module
from typing import Any

from trivec._errors import MissingExtraError


def require(module: str, what: str, requirement: str) -> Any:  # noqa: ANN401 - a module, most of them without types
    """A module that an extra brings.

    Raises:
        MissingExtraError: it is not installed; the message has the line that installs `requirement`.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        message = f"{what} needs {package}, which is not installed. Type: pip install {requirement}"
        raise MissingExtraError(message) from error
