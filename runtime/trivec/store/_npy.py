""".npy: dense vectors (N, D), as numpy.save writes them."""

import json
import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from trivec._errors import InputError
from trivec._vectors.arrays import Array
from trivec._vectors.heads import HybridVectors
from trivec.store._checksum import Checksum
from trivec.store._schema import Block, Blocks, Contents, Head, Layout, origin_of

_TRAILER = b"%s\ntrivec crc32 %s\n"
"""Behind the array, where numpy.load does not look."""
_PREFIX = np.lib.format.MAGIC_LEN + 2  # and the header's length, u16
_MARK = 192
"""Spaces that a header has beyond what numpy.save gives it: the checksum has to follow, even where it is all lost."""
_SAID = re.compile(rb"(?:\ntrivec (\{[^\n]*\}))?\ntrivec crc32 ([0-9a-f]{8})\n\Z")
_MOST = 1 << 18  # bytes of what is said behind an array


class _Said(NamedTuple):
    """What a file says behind its array."""

    origin: dict[str, str]
    checksum: str | None


def header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What comes before the numbers, as numpy.save has it."""
    stream = BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def _marked(plain: bytes) -> bytes:
    """A header that tells of the checksum: longer by spaces, which readers of the format pass over."""
    size = len(plain) - _PREFIX + _MARK
    return plain[: _PREFIX - 2] + size.to_bytes(2, "little") + plain[_PREFIX:-1] + b" " * _MARK + b"\n"


def write_npy(stream: IO[bytes], head: Head, blocks: Blocks) -> None:
    """Write the dense vectors of all blocks."""
    dtype, checksum = np.dtype(head.layout.dense_dtype), Checksum(head)
    stream.write(_marked(header(dtype, (head.rows or 0, head.layout.dense_dim or 0))))
    for block in blocks():
        checksum.add(block)
        if block.parts.dense is not None:
            stream.write(np.ascontiguousarray(block.parts.dense).data)
    origin = b"\ntrivec " + json.dumps(head.origin).encode() if head.origin else b""
    stream.write(_TRAILER % (origin, checksum.digest().encode()))


def open_npy(path: Path) -> Contents:
    """Look into a file, whoever wrote it.

    Raises:
        InputError: it is no array (N, D) of numbers.
    """
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu":
        what = f"shape {array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else "several arrays"
        raise InputError(f"{path} holds {what}, expected the vectors of N texts: (N, D) numbers.")
    layout = Layout("dense", int(array.shape[1]), array.dtype.name)
    start = array.offset if isinstance(array, np.memmap) else 0
    said = _said(path, start + array.nbytes)
    if said.checksum is None and array.flags.c_contiguous and start == len(header(array.dtype, array.shape)) + _MARK:
        raise InputError(f"{path} is no readable .npy file: the checksum that its header tells of is lost; damaged.")
    head = Head(layout, rows=len(array), checksum=said.checksum, **said.origin)
    if array.flags.c_contiguous:
        dtype, shape = array.dtype, array.shape
        return Contents(head, lambda window: _blocks(path, start, dtype, shape, window))
    return Contents(head, lambda window: _slices(array, window))


def _said(path: Path, end: int) -> _Said:
    """What the file says behind its array, which ends there."""
    with path.open("rb") as file:
        total = file.seek(0, os.SEEK_END)
        file.seek(max(0, total - _MOST))
        found = _SAID.search(file.read())
    if total != end + (0 if found is None else len(found[0])):  # where numbers were lost, it may be within the array
        raise InputError(f"{path} is no readable .npy file: it goes on behind its array; damaged, or several arrays.")
    if found is None:
        return _Said({}, None)
    try:
        return _Said({} if found[1] is None else origin_of(json.loads(found[1])), found[2].decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no readable .npy file: what it says behind its array is damaged.") from error


def _blocks(path: Path, start: int, dtype: np.dtype[Any], shape: tuple[int, ...], window: int) -> Iterator[Block]:
    """Rows that are read one after the other: pages of a map would stay in memory."""
    with path.open("rb") as file:
        file.seek(start)
        for row in range(0, shape[0], window):
            rows = min(window, shape[0] - row)
            read = np.fromfile(file, dtype, rows * shape[1]).astype(dtype.newbyteorder("="), copy=False)
            yield Block(None, HybridVectors(read.reshape(rows, shape[1]), None, None))


def _slices(array: Array, window: int) -> Iterator[Block]:
    for start in range(0, len(array), window):
        rows = np.array(array[start : start + window], dtype=array.dtype.newbyteorder("="))  # (B, D)
        yield Block(None, HybridVectors(rows, None, None))
