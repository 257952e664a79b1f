r"""Blocks of texts and vectors as records of bytes, each with a checksum.

    b"trivec partial 1\n", then records: three numbers (bytes of the header, bytes of the payload, crc32 of both), the
    header in JSON, the payload, which is arrays end to end.

A record counts if it is whole and its checksum is right, and if all before it count.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import IO, Any, NamedTuple

import numpy as np

from trivec._vectors.arrays import Array
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors
from trivec.store._schema import Block

MAGIC = b"trivec partial 1\n"
_SIZES = struct.Struct("<IQI")  # bytes of the header, bytes of the payload, crc32 of both
_ALIGN = 8  # bytes: arrays in a payload start at multiples
Octets = bytes | memoryview


class Record(NamedTuple):
    """A record that counts."""

    header: dict[str, Any]
    payload: memoryview
    end: int
    """Where the next one starts."""


def records(file: IO[bytes]) -> Iterator[Record]:
    """The records of a file that is at its start, as far as they count."""
    size = os.fstat(file.fileno()).st_size
    end = len(file.read(len(MAGIC)))
    while True:
        sizes = file.read(_SIZES.size)
        if len(sizes) < _SIZES.size:
            return
        header, payload, checksum = _SIZES.unpack(sizes)
        end += _SIZES.size + header + payload
        if header == 0 or end > size:  # zeros are what a power cut may leave
            return
        data = file.read(header + payload)
        if len(data) < header + payload or zlib.crc32(data) != checksum:
            return
        yield Record(json.loads(data[:header]), memoryview(data)[header:], end)


def packed(header: Mapping[str, object], arrays: Iterable[Array] = ()) -> list[Octets]:
    """A record's bytes, in parts that share the arrays' memory."""
    text = json.dumps(header).encode()
    first = text + b" " * (-len(text) % _ALIGN)
    payload = [part for array in arrays for part in _aligned(array)]
    checksum = 0
    for part in (first, *payload):
        checksum = zlib.crc32(part, checksum)
    return [_SIZES.pack(len(first), sum(map(len, payload)), checksum), first, *payload]


def packed_block(texts: Sequence[str] | None, parts: HybridVectors, header: Mapping[str, object]) -> list[Octets]:
    """A record of N texts, if they are to be kept, and of their vectors."""
    arrays = block_arrays(texts, parts)
    described = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
    return packed({**header, "arrays": described}, arrays.values())


def unpacked_block(record: Record, sparse_dim: int | None) -> Block:
    """What `packed_block` made a record of; the arrays share its memory."""
    arrays: dict[str, Array] = {}
    start = 0
    for name, dtype, shape in record.header["arrays"]:
        kind, count = np.dtype(dtype), int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(record.payload, kind, count, start).reshape(shape)
        size = count * kind.itemsize
        start += size + -size % _ALIGN
    return Block(_texts(arrays), _parts(arrays, sparse_dim))


def _aligned(array: Array) -> list[Octets]:
    """An array's bytes, and as many zeros as it takes to a multiple of _ALIGN."""
    octets = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return [octets.data, bytes(-len(octets) % _ALIGN)]


def block_arrays(texts: Sequence[str] | None, parts: HybridVectors) -> dict[str, Array]:
    """What N texts, if they are to be kept, and their vectors consist of, by name."""
    return {**({} if texts is None else _text_arrays(texts)), **_vector_arrays(parts)}


def _text_arrays(texts: Sequence[str]) -> dict[str, Array]:
    """UTF-8 of all texts, end to end, and where each starts: (N + 1,)."""
    encoded = [text.encode("utf-8") for text in texts]
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return {"text": np.frombuffer(b"".join(encoded), dtype=np.uint8), "text.offsets": offsets}


def _vector_arrays(parts: HybridVectors) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    dense, rows, colbert = parts.parts()
    if dense is not None:
        arrays["dense"] = dense
    if rows is not None:
        arrays |= {"sparse.indptr": rows.indptr, "sparse.indices": rows.indices, "sparse.values": rows.values}
    if colbert is not None:
        arrays |= {"colbert": colbert.vectors, "colbert.offsets": colbert.offsets}
    return arrays


def _texts(arrays: Mapping[str, Array]) -> list[str] | None:
    if "text" not in arrays:
        return None
    whole = arrays["text"].tobytes()
    return [whole[start:stop].decode("utf-8") for start, stop in pairwise(arrays["text.offsets"].tolist())]


def _parts(arrays: Mapping[str, Array], sparse_dim: int | None) -> HybridVectors:
    sparse, colbert = None, None
    if sparse_dim is not None:
        indptr, indices, values = (arrays[f"sparse.{name}"] for name in ("indptr", "indices", "values"))
        sparse = SparseVectors._trusted(indptr, indices, values, sparse_dim)
    if "colbert" in arrays:
        colbert = MultiVectors._trusted(arrays["colbert"], arrays["colbert.offsets"])
    return HybridVectors(arrays.get("dense"), sparse, colbert)
