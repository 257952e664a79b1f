"""Numbers from what a service answered, after a look whether it is what was asked for."""

import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trivec._errors import ServiceError
from trivec.hosted._key import Key
from trivec.hosted._provider import Answer, Ask, Provider

PACKED: Final = ("binary", "ubinary")
_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "float32": np.dtype("<f4"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "binary": np.dtype("i1"),
    "ubinary": np.dtype("u1"),
}


def dtype_of(name: str) -> np.dtype[Any]:
    """The type of the numbers that come."""
    return _DTYPES[name]


def vectors_of(
    found: Any,  # noqa: ANN401 - JSON
    row: Provider,
    ask: Ask,
    count: int,
    key: Key,
) -> tuple[npt.NDArray[Any], int | None]:
    """An answer's JSON to (count, W) vectors in the texts' order, and the tokens that the service counts.

    Numbers may be NaN: only who has the texts can say whose.

    Raises:
        ServiceError: another shape than the service's, another number of vectors, or vectors of several widths.
    """
    dtype = dtype_of(ask.dtype)
    try:
        answer: Answer = row.answer(found, ask)
        rows = _rows(answer.vectors, dtype)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = f"{type(error).__name__}: {error}"
    else:
        if isinstance(rows, np.ndarray) and len(rows) == count:
            return rows, answer.tokens
        raise _misshapen([len(each) for each in rows], row, count)
    raise ServiceError(
        f"{row.name} answered with something else than vectors ({key.hidden_in(why)[:200]}): "
        f"{key.hidden_in(str(found))[:200]}",
        provider=row.name,
        status=200,
    )


def check_width(width: int, expected: int | None, row: Provider) -> None:
    """ServiceError where vectors have another width than was asked for, or than those before them."""
    if expected is not None and width != expected:
        raise ServiceError(
            f"{row.name} answered with vectors of {width} numbers, and {expected} were expected: as dimensions= asks, "
            "or as those before, and in cache=. Has the model behind this name changed? Then name another cache file.",
            provider=row.name,
            status=200,
        )


def _misshapen(widths: Sequence[int], row: Provider, count: int) -> ServiceError:
    return ServiceError(
        f"{row.name} answered with {len(widths)} vectors of {sorted(set(widths))} numbers to {count} texts; expected "
        "one vector a text, all of one width. Nothing of it is kept.",
        provider=row.name,
        status=200,
    )


def _rows(vectors: Sequence[Any], dtype: np.dtype[Any]) -> Any:  # noqa: ANN401
    """Vectors (N, W); where their widths differ, or there is none, a list of them."""
    if vectors and all(type(vector) is str for vector in vectors):
        parts = [binascii.a2b_base64(vector, strict_mode=True) for vector in vectors]
        if len(set(map(len, parts))) == 1 and parts[0]:
            return np.frombuffer(b"".join(parts), dtype=dtype).reshape(len(parts), -1).astype(dtype.newbyteorder("="))
    rows = [_row(vector, dtype) for vector in vectors]
    return np.stack(rows) if len(set(map(len, rows))) == 1 and len(rows[0]) else rows


def _row(vector: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:  # noqa: ANN401
    """A vector (W,), from numbers or from base64 of them."""
    if isinstance(vector, str):
        found = np.frombuffer(binascii.a2b_base64(vector, strict_mode=True), dtype=dtype)
        return found.astype(dtype.newbyteorder("="))
    if not isinstance(vector, list):
        raise TypeError(f"a vector is a list of numbers or base64, got {type(vector).__name__}")
    found = np.asarray(vector)
    if found.ndim != 1 or found.dtype.kind not in "iuf":
        raise TypeError(f"a vector is a flat list of numbers, got an array of {found.dtype} of shape {found.shape}")
    if dtype.kind != "f" and (found != found.astype(dtype)).any():
        raise TypeError(f"numbers of {dtype.name} were asked for")
    with np.errstate(over="ignore"):
        return found.astype(dtype.newbyteorder("="))
