"""The options of a call for many texts: `encode`, `encode_query` or `encode_document`, in terms of `encode_iter`."""

import inspect
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from trivec._encoders.calls import Side
from trivec._encoders.protocol import Encoder, is_encoder
from trivec._errors import InputError

Method = Literal["encode", "encode_query", "encode_document"]
METHODS: Mapping[str | None, Method] = {None: "encode", "query": "encode_query", "document": "encode_document"}
"""By the task that the command line names."""
_SIDES: Mapping[str, Side] = {"encode_query": "query", "encode_document": "document"}


def spelled_out(encoder: Encoder, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with which `encode` does what the method does.

    Raises:
        InputError: there is no such method, or that is no encoder.
    """
    if not is_encoder(encoder):
        raise InputError(
            f"expected an encoder, got {type(encoder).__name__} {encoder!r:.60}. Type: trivec.load(folder_or_name)"
        )
    if method not in METHODS.values():
        raise InputError(f"method {method!r} is not one of {', '.join(METHODS.values())}.")
    found = dict(options)
    if method != "encode":
        side = _SIDES[method]
        found.setdefault("task", side)
        if found.get("prompt") is None and found.get("prompt_name") is None:
            found["prompt_name"] = encoder.prompt_name_of(side)
    return found


def fingerprint_of_call(encoder: Encoder, options: Mapping[str, Any]) -> str:
    """sha256 of everything that decides the vectors of `encode(**options)`; other options decide none."""
    names = inspect.signature(encoder.fingerprint_of).parameters
    return encoder.fingerprint_of(**{name: value for name, value in options.items() if name in names})


class _Fingerprinted(Protocol):
    @property
    def fingerprint(self) -> str: ...


def fingerprint_of_plain_call(encoder: _Fingerprinted) -> str | None:
    """The fingerprint of `encode(texts)` or `predict(pairs)`; None of a Router that has no route for such a call."""
    try:
        return encoder.fingerprint
    except InputError:
        return None
