"""Paths and arguments where the process's own encoding is not UTF-8: Python keeps their bytes as surrogates then."""

import contextlib
import os
from pathlib import Path

from trivec._errors import InputError


def native_path(path: Path) -> str:
    """A path as libraries in C++ and Rust open it: as UTF-8, whatever this process calls the encoding of file names.

    Raises:
        InputError: its bytes are no UTF-8.
    """
    try:
        return os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"the path {os.fspath(path)!a} is not UTF-8, and onnxruntime and tokenizers open no others. Rename the "
            "folder."
        ) from error


def argument_text(argument: str) -> str:
    """An argument or a file's name as a text: of one that the locale's encoding could not read, what it is in UTF-8."""
    if not any("\ud800" <= character <= "\udfff" for character in argument):
        return argument
    with contextlib.suppress(UnicodeEncodeError):  # half of a pair that no locale has made
        return os.fsencode(argument).decode("utf-8", "surrogateescape")
    return argument
