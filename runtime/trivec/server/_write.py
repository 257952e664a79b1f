"""Answers as bytes: numbers in the shortest text that reads back to the same float32, or base64 of their bytes."""

import asyncio
import binascii
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors

PIECE = 32
"""Items written at a time: 2,048 of 1,024 numbers would hold the interpreter for 125 ms."""


def dumps(value: object) -> bytes:
    """JSON, numpy's arrays included."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def base64(array: npt.NDArray[Any]) -> str:
    """The bytes of an array, little-endian, in the standard alphabet with padding."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return binascii.b2a_base64(little.tobytes(), newline=False).decode("ascii")


async def listed(count: int, item: Callable[[int], object]) -> list[bytes]:
    """A JSON list of `item(0)` to `item(count - 1)`, in pieces; other requests get their turn between them."""
    pieces = [b"["]
    for start in range(0, count, PIECE):
        if start:
            await asyncio.sleep(0)
            pieces.append(b",")
        pieces.append(dumps([item(row) for row in range(start, min(start + PIECE, count))])[1:-1])
    return [*pieces, b"]"]


def sparse_row(rows: SparseVectors, row: int, tokens: Callable[[int], str] | None, *, as_base64: bool) -> object:
    """A row's indices and values, and the tokens of its indices where they are wanted."""
    found = rows[row]
    indices, values = found.indices.astype(np.int32), found.values
    made: dict[str, object] = {
        "indices": base64(indices) if as_base64 else np.ascontiguousarray(indices),
        "values": base64(values) if as_base64 else np.ascontiguousarray(values),
    }
    if tokens is not None:
        made["tokens"] = [tokens(int(index)) for index in indices]
    return made


def index_values(rows: SparseVectors, row: int) -> Sequence[object]:
    """A row as TEI writes it."""
    found = rows[row]
    return [{"index": i, "value": v} for i, v in zip(found.indices.tolist(), _shortest(found.values), strict=True)]


def multi_row(vectors: MultiVectors, row: int) -> npt.NDArray[np.float32]:
    """The vectors (T, D) of a text."""
    return np.ascontiguousarray(vectors[row], dtype=np.float32)


def _shortest(values: npt.NDArray[np.float32]) -> list[np.float32]:
    """Numbers that orjson writes as float32."""
    return list(values)
