"""The options of a call for many texts: `encode`, `encode_query` or `encode_document`, in terms of `encode_iter`."""

import inspect
from collections.abc import Mapping
from typing import Any, Literal

from trivec._encoders.base import BaseEncoder
from trivec._errors import InputError

Method = Literal["encode", "encode_query", "encode_document"]
METHODS: Mapping[str | None, Method] = {None: "encode", "query": "encode_query", "document": "encode_document"}
"""By the task that the command line names."""
_TASKS = {method: task for task, method in METHODS.items()}


def spelled_out(encoder: BaseEncoder, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with which `encode` does what the method does.

    Raises:
        InputError: there is no such method, or that is no encoder.
    """
    if not isinstance(encoder, BaseEncoder):
        raise InputError(
            f"expected an encoder, got {type(encoder).__name__} {encoder!r:.60}. Type: trivec.load(folder_or_name)"
        )
    if method not in _TASKS:
        raise InputError(f"method {method!r} is not one of {', '.join(_TASKS)}.")
    found = dict(options)
    if method != "encode":
        found.setdefault("task", _TASKS[method])
        name = encoder._query_prompt if method == "encode_query" else encoder._document_prompt
        found["prompt_name"] = name(found.get("prompt"), found.get("prompt_name"))
    return found


def fingerprint_of_call(encoder: BaseEncoder, options: Mapping[str, Any]) -> str:
    """sha256 of everything that decides the vectors of `encode(**options)`; other options decide none."""
    names = inspect.signature(encoder.fingerprint_of).parameters
    return encoder.fingerprint_of(**{name: value for name, value in options.items() if name in names})
