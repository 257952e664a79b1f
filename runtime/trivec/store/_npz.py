""".npz: sparse rows, as scipy.sparse.save_npz writes them, or vectors of tokens, as MultiVectors.save does.

The fingerprints are beside them.
"""

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from trivec._errors import InputError
from trivec._vectors.arrays import Array
from trivec._vectors.csr import check_csr, read_csr
from trivec._vectors.damaged import readable
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import TOKEN_PRECISIONS, MultiVectors
from trivec._vectors.ragged import check_offsets, read_npz
from trivec._vectors.sparse import SparseVectors
from trivec.store._npy import header
from trivec.store._schema import ORIGIN, Block, Blocks, Contents, Head, Layout

_WRITER = "trivec.store.write(path, encoder, texts) or scipy.sparse.save_npz(path, matrix.tocsr())"


def write_npz(stream: IO[bytes], head: Head, blocks: Blocks) -> None:
    """Write the sparse rows, or the vectors of tokens, of all blocks, array by array, with a block in memory."""
    if head.layout.kind == "colbert":
        _write_tokens(stream, head, blocks)
        return
    lengths = [np.diff(rows.indptr) for rows in _rows(blocks)]
    indptr = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)  # (N + 1,)
    shape = np.array((len(indptr) - 1, head.layout.sparse_dim))
    total = (int(indptr[-1]),)
    with zipfile.ZipFile(stream, "w") as archive:
        _put(archive, "indices", np.dtype(np.int32), total, (rows.indices for rows in _rows(blocks)))
        _put(archive, "indptr", indptr.dtype, indptr.shape, [indptr])
        for name, value in (("format", np.array(b"csr")), ("shape", shape), *_origin(head)):
            _put(archive, name, value.dtype, value.shape, [value])
        _put(archive, "data", np.dtype(np.float32), total, (rows.values for rows in _rows(blocks)))
        is_array = np.array(True)
        _put(archive, "_is_array", is_array.dtype, (), [is_array])


def open_npz(path: Path) -> Contents:
    """Look into a file, also of scipy.sparse.save_npz and of MultiVectors.save.

    Raises:
        InputError: it holds no rows of these kinds.
    """
    if _has_tokens(path):
        return _open_tokens(path)
    stored = read_npz(path, ("format", "shape", "indptr"), _WRITER)
    shape, indptr = stored["shape"].tolist(), stored["indptr"]
    kind = stored["format"].tobytes().replace(b"\0", b"")
    if kind != b"csr" or not isinstance(shape, list) or len(shape) != 2 or indptr.shape != (shape[0] + 1,):
        read_csr(path)  # says what is wrong
        raise InputError(f"{path} holds no sparse rows. Write it with {_WRITER}.")
    layout = Layout("sparse", sparse_dim=int(shape[1]))
    head = Head(layout, rows=int(shape[0]), checksum=None, **_said(path))
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


# ---- vectors of tokens -----------------------------------------------------------------------------------------------


def _write_tokens(stream: IO[bytes], head: Head, blocks: Blocks) -> None:
    lengths = [np.diff(several.offsets) for several in _tokens(blocks)]
    offsets = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)  # (N + 1,)
    kind, shape = np.dtype(head.layout.colbert_dtype or "float32"), (int(offsets[-1]), head.layout.colbert_dim or 0)
    with zipfile.ZipFile(stream, "w") as archive:
        for name, value in (("offsets", offsets), *_origin(head)):
            _put(archive, name, value.dtype, value.shape, [value])
        _put(archive, "vectors", kind, shape, (several.vectors for several in _tokens(blocks)))


def _has_tokens(path: Path) -> bool:
    with readable(path, f" Write one with {_WRITER}."), path.open("rb") as file:
        stored = np.load(file, allow_pickle=False)
        return isinstance(stored, np.lib.npyio.NpzFile) and {"vectors", "offsets"} <= set(stored.files)


def _open_tokens(path: Path) -> Contents:
    offsets = read_npz(path, ("offsets",), _WRITER)["offsets"]
    with zipfile.ZipFile(path) as archive, archive.open("vectors.npy") as file:
        shape, kind = _described(file)
    if len(shape) != 2 or not shape[1] or kind.name not in TOKEN_PRECISIONS:
        raise InputError(f"{path} holds vectors of shape {shape} of {kind}. Expected (T, D) float32, float16 or int8.")
    offsets = check_offsets("offsets", offsets, shape[0])
    dtype = None if kind == np.float32 else kind.name
    head = Head(Layout("colbert", colbert_dim=shape[1], colbert_dtype=dtype), rows=len(offsets) - 1, **_said(path))
    return Contents(head, lambda window: _token_blocks(path, offsets, shape[1], window))


def _token_blocks(path: Path, offsets: Array, dim: int, window: int) -> Iterator[Block]:
    """Texts from the one long array, in order."""
    with zipfile.ZipFile(path) as archive, archive.open("vectors.npy") as file:
        kind = _kind(file)
        for start in range(0, len(offsets) - 1, window):
            part = offsets[start : start + window + 1] - offsets[start]  # (B + 1,)
            vectors = _take(file, kind, int(part[-1]) * dim).reshape(-1, dim)
            yield Block(None, HybridVectors(None, None, MultiVectors._kept(vectors, part)))


def _tokens(blocks: Blocks) -> Iterator[MultiVectors]:
    found = (block.parts.parts()[2] for block in blocks())
    return (several for several in found if several is not None)


# ---- helpers ---------------------------------------------------------------------------------------------------------


def _origin(head: Head) -> Iterator[tuple[str, Array]]:
    """What the file says of where its rows come from, each an array of one text."""
    return ((name, np.array(value)) for name, value in head.origin.items())


def _said(path: Path) -> dict[str, str]:
    with np.load(path, allow_pickle=False) as names:
        return {name: str(names[name]) for name in ORIGIN if name in names.files}


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
    return _described(file)[1]


def _described(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and number type of an array in the file, whose header is read over."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return tuple(shape), np.dtype(dtype)


def _take(file: IO[bytes], kind: np.dtype[np.generic], count: int) -> Array:
    """The next so many numbers (count,)."""
    return np.frombuffer(file.read(count * kind.itemsize), kind, count)
