""".npy: dense vectors (N, D), as numpy.save writes them."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from trivec._errors import InputError
from trivec._vectors.arrays import Array
from trivec._vectors.heads import HybridVectors
from trivec.store._schema import Block, Blocks, Contents, Head, Layout


def header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What comes before the numbers, as numpy.save has it."""
    stream = BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def write_npy(stream: IO[bytes], head: Head, blocks: Blocks) -> None:
    """Write the dense vectors of all blocks."""
    dtype = np.dtype(head.layout.dense_dtype)
    stream.write(header(dtype, (head.rows or 0, head.layout.dense_dim or 0)))
    for block in blocks():
        if block.parts.dense is not None:
            stream.write(np.ascontiguousarray(block.parts.dense).data)


def open_npy(path: Path) -> Contents:
    """Look into a file, whoever wrote it.

    Raises:
        InputError: it is no array (N, D) of numbers.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is no readable .npy file: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu":
        what = f"shape {array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else "several arrays"
        raise InputError(f"{path} holds {what}, expected the vectors of N texts: (N, D) numbers.")
    layout = Layout("dense", int(array.shape[1]), array.dtype.name)
    head, start = Head(layout, None, len(array)), array.offset if isinstance(array, np.memmap) else 0
    if array.flags.c_contiguous and isinstance(array, np.memmap):
        dtype, shape = array.dtype, array.shape
        return Contents(head, lambda window: _blocks(path, start, dtype, shape, window))
    return Contents(head, lambda window: _slices(array, window))


def _blocks(path: Path, start: int, dtype: np.dtype[Any], shape: tuple[int, ...], window: int) -> Iterator[Block]:
    """Rows that are read one after the other: pages of a map would stay in memory."""
    with path.open("rb") as file:
        file.seek(start)
        for row in range(0, shape[0], window):
            rows = min(window, shape[0] - row)
            read = np.fromfile(file, dtype, rows * shape[1])
            yield Block(None, HybridVectors(read.reshape(rows, shape[1]), None, None))


def _slices(array: Array, window: int) -> Iterator[Block]:
    for start in range(0, len(array), window):
        yield Block(None, HybridVectors(np.array(array[start : start + window]), None, None))
