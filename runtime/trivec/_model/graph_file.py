"""What an ONNX graph's file says of its weights, read from protobuf's wire format without the onnx package.

Field numbers and number types are those of onnx.proto. Weights that lie in the file itself are skipped, not read.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from trivec._errors import ModelFormatError
from trivec._model.json_files import opened

_PARTS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "sparse tensor": {1: "tensor"},
}
"""Where tensors lie in the messages: by the field, what it holds."""
_HALF = {10, 16}  # float16, bfloat16
_QUANTIZED = {2, 3, 21, 22, 25, 26}  # uint8, int8, uint4, int4, uint2, int2
_MOST_FIELDS = 3_000_000  # 2 seconds; graphs of large models have 100,000
_MOST_DIMS = 640  # bytes: 64 dimensions
Value = int | memoryview


class Weights(NamedTuple):
    """What a graph is made of."""

    precision: str
    """"int8" where a matrix is quantized, to whatever width; "fp16" where one is of half width; else "fp32"."""
    locations: tuple[str, ...]
    """Files of external data, relative to the graph's folder, each once."""


def read_weights(path: Path) -> Weights:
    """Read a graph's file; what is no graph has no weights, and onnxruntime says why.

    Raises:
        ModelFormatError: it has more fields than any graph.
    """
    import mmap  # few loads need it

    types: set[int] = set()
    locations: dict[str, None] = {}
    with opened(path) as stream:
        empty = path.stat().st_size == 0
        data = memoryview(b"" if empty else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    reader = _Reader()
    with contextlib.suppress(IndexError, ValueError, RecursionError):
        for tensor in reader.tensors(data, "model"):
            kind, dims, location = reader.describe(tensor)
            if dims > 1:
                types.add(kind)
            if location:
                locations[location] = None
    if reader.is_over:
        raise ModelFormatError(f"{path} is no graph that trivec reads: it has over {_MOST_FIELDS:,} fields.")
    precision = "int8" if types & _QUANTIZED else "fp16" if types & _HALF else "fp32"
    return Weights(precision, tuple(locations))


class _Reader:
    """Reads messages, and stops where there are more fields than any graph has."""

    def __init__(self) -> None:
        self._left = _MOST_FIELDS

    @property
    def is_over(self) -> bool:
        """Whether it has stopped for that."""
        return self._left < 0

    def tensors(self, data: memoryview, kind: str) -> Iterator[memoryview]:
        """Every TensorProto below a message."""
        parts = _PARTS[kind]
        for field, value in self._fields(data):
            part = parts.get(field)
            if part is None or isinstance(value, int):
                continue
            if part == "tensor":
                yield value
            else:
                yield from self.tensors(value, part)

    def describe(self, tensor: memoryview) -> tuple[int, int, str]:
        """Number type, number of dimensions, and the file of external data ("": none) of a TensorProto."""
        kind, dims, location = 0, 0, ""
        for field, value in self._fields(tensor):
            if field == 1:  # packed into one field, or one field each
                dims += 1 if isinstance(value, int) else sum(byte < 0x80 for byte in value[:_MOST_DIMS])
            elif field == 2 and isinstance(value, int):
                kind = value
            elif field == 13 and not isinstance(value, int):
                entry = {key: bytes(text) for key, text in self._fields(value) if not isinstance(text, int)}
                if entry.get(1) == b"location":
                    location = entry.get(2, b"").decode("utf-8")
        return kind, dims, location

    def _fields(self, data: memoryview) -> Iterator[tuple[int, Value]]:
        """The fields of a message: numbers, and what has a length as a view of it."""
        at = 0
        while at < len(data):
            self._left -= 1
            if self._left < 0:
                raise ValueError("too many fields")
            key, at = _varint(data, at)
            wire = key & 7
            if wire == 0:
                number, at = _varint(data, at)
                yield key >> 3, number
                continue
            if wire == 2:
                size, at = _varint(data, at)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise ValueError(f"wire type {wire}")
            if at + size > len(data):
                raise ValueError("a field ends behind its message")
            yield key >> 3, data[at : at + size]
            at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    number, shift = 0, 0
    while shift < 70:  # 64 bits, 7 in a byte
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
    raise ValueError("a number goes on and on")
