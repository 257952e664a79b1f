""".npz: sparse rows, as scipy.sparse.save_npz writes them, and the fingerprints beside them."""

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from trivec._errors import InputError
from trivec._vectors.arrays import Array
from trivec._vectors.csr import check_csr, read_csr
from trivec._vectors.heads import HybridVectors
from trivec._vectors.ragged import read_npz
from trivec._vectors.sparse import SparseVectors
from trivec.store._npy import header
from trivec.store._schema import ORIGIN, Block, Blocks, Contents, Head, Layout

_WRITER = "trivec.store.write(path, encoder, texts) or scipy.sparse.save_npz(path, matrix.tocsr())"


def write_npz(stream: IO[bytes], head: Head, blocks: Blocks) -> None:
    """Write the sparse rows of all blocks, array by array, with a block in memory."""
    lengths = [np.diff(rows.indptr) for rows in _rows(blocks)]
    indptr = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)  # (N + 1,)
    shape = np.array((len(indptr) - 1, head.layout.sparse_dim))
    total = (int(indptr[-1]),)
    with zipfile.ZipFile(stream, "w") as archive:
        _put(archive, "indices", np.dtype(np.int32), total, (rows.indices for rows in _rows(blocks)))
        _put(archive, "indptr", indptr.dtype, indptr.shape, [indptr])
        for name, value in (
            ("format", np.array(b"csr")),
            ("shape", shape),
            *((name, np.array(value)) for name, value in head.origin.items()),
        ):
            _put(archive, name, value.dtype, value.shape, [value])
        _put(archive, "data", np.dtype(np.float32), total, (rows.values for rows in _rows(blocks)))
        is_array = np.array(True)
        _put(archive, "_is_array", is_array.dtype, (), [is_array])


def open_npz(path: Path) -> Contents:
    """Look into a file, also of scipy.sparse.save_npz.

    Raises:
        InputError: it holds no rows of that kind.
    """
    stored = read_npz(path, ("format", "shape", "indptr"), _WRITER)
    shape, indptr = stored["shape"].tolist(), stored["indptr"]
    kind = stored["format"].tobytes().replace(b"\0", b"")
    if kind != b"csr" or not isinstance(shape, list) or len(shape) != 2 or indptr.shape != (shape[0] + 1,):
        read_csr(path)  # says what is wrong
        raise InputError(f"{path} holds no sparse rows. Write it with {_WRITER}.")
    with np.load(path, allow_pickle=False) as names:
        said = {name: str(names[name]) for name in ORIGIN if name in names.files}
    layout = Layout("sparse", sparse_dim=int(shape[1]))
    head = Head(layout, rows=int(shape[0]), checksum=None, **said)
    return Contents(head, lambda window: _blocks(path, indptr, int(shape[1]), window))


def _blocks(path: Path, indptr: Array, dim: int, window: int) -> Iterator[Block]:
    """Rows from the two long arrays, read side by side."""
    with zipfile.ZipFile(path) as archive, archive.open("indices.npy") as ids, archive.open("data.npy") as weights:
        kinds = _kind(ids), _kind(weights)
        for start in range(0, len(indptr) - 1, window):
            offsets = indptr[start : start + window + 1].astype(np.int64)  # (B + 1,)
            count = int(offsets[-1] - offsets[0])
            indices, values = (_take(file, kind, count) for file, kind in zip((ids, weights), kinds, strict=True))
            rows = check_csr(offsets - offsets[0], indices, values, dim, any_order=True)
            yield Block(None, HybridVectors(None, SparseVectors(*rows, dim), None))


def _rows(blocks: Blocks) -> Iterator[SparseVectors]:
    found = (block.parts.parts()[1] for block in blocks())
    return (rows for rows in found if rows is not None)


def _put(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...], parts: Iterable[Array]
) -> None:
    """One array of the file, from its parts end to end."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        file.write(header(dtype, shape))
        for part in parts:
            file.write(part.tobytes())


def _kind(file: IO[bytes]) -> np.dtype[np.generic]:
    """The number type of an array in the file, whose header is read over."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read(file)
    return np.dtype(dtype)


def _take(file: IO[bytes], kind: np.dtype[np.generic], count: int) -> Array:
    """The next so many numbers (count,)."""
    return np.frombuffer(file.read(count * kind.itemsize), kind, count)
