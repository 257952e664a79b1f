""".parquet: a row a text, for every program that knows tables; pyarrow writes and reads it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

from trivec._errors import InputError, MissingExtraError
from trivec._vectors.arrays import Array
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors
from trivec.store._checksum import Checksum
from trivec.store._schema import Block, Blocks, Contents, Head, Layout, origin_of

_KEY = b"trivec"  # of the file's metadata: JSON with the fingerprints and the layout
_CHECKSUM = b"trivec.checksum"
_CHECKED = b"trivec.checked"  # that there is one. Programs that write other rows from these carry neither over
_VERSIONS = (1, 2)  # 2 has vectors of tokens alone, and in float16 or int8; whatever needs neither is still 1
_GROUP = 32 << 20  # bytes of vectors in a row group
_BUFFER = 1 << 20  # bytes of a column that are read at a time
_MOST = (1 << 31) - 1  # entries of a column in a block
_TOKENS = "colbert.list.element.list.element"
_ZSTD = ("text", "sparse.indices.list.element")  # floats do not get smaller


def arrow() -> tuple[ModuleType, ModuleType]:
    """The modules pyarrow and pyarrow.parquet.

    Raises:
        MissingExtraError: they are not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError(
            'a .parquet file needs pyarrow, which is not installed. Type: pip install "trivec[parquet]"'
        ) from error
    return pa, pq


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_parquet(stream: IO[bytes], head: Head, blocks: Blocks) -> None:
    """Write all blocks, a row group in memory.

    Row groups depend on the blocks alone, so equal blocks give equal bytes.
    """
    pa, pq = arrow()
    schema = _schema(pa, head)
    compression = {name: "zstd" if name in _ZSTD else "none" for name in _leaves(head.layout)}
    # int8 lies in 4 bytes there, but as the place in a dictionary of 255 numbers in one
    listed = [_TOKENS] if head.layout.colbert_dtype == "int8" else False
    with pq.ParquetWriter(
        stream, schema, compression=compression, use_dictionary=listed, write_statistics=False
    ) as writer:
        group, size, checksum = [], 0, Checksum(head)
        for block in blocks():
            checksum.add(block)
            group += [_table(pa, schema, piece) for piece in _pieces(block)]
            size += block.parts.nbytes
            if size >= _GROUP:
                writer.write_table(pa.concat_tables(group))
                group, size = [], 0
        if group:
            writer.write_table(pa.concat_tables(group))
        writer.add_key_value_metadata({_CHECKSUM: checksum.digest(), _CHECKED: "crc32"})


def _pieces(block: Block) -> Iterator[Block]:
    """A block, or halves of it in which 32 bits count the numbers and the bytes of a column."""
    texts, parts = block.texts, block.parts
    rows, half = parts.rows, parts.rows // 2
    size = max(parts.nbytes, 4 * sum(map(len, texts or ())))  # a letter has up to 4 bytes
    if size < _MOST or rows < 2 or texts is None:
        yield block
        return
    for piece in (slice(0, half), slice(half, rows)):
        yield from _pieces(Block(texts[piece], parts.take(piece)))


def _schema(pa: ModuleType, head: Head) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Columns and metadata."""
    layout, fields = head.layout, [pa.field("text", pa.string())]
    if layout.dense_dtype is not None:
        numbers = pa.from_numpy_dtype(np.dtype(layout.dense_dtype))
        # of one width, as vector stores want them
        fields.append(pa.field("dense", pa.list_(numbers, layout.dense_dim)))
    if layout.sparse_dim is not None:
        lists = {"indices": pa.list_(pa.int32()), "values": pa.list_(pa.float32())}
        fields.append(pa.field("sparse", pa.struct(lists)))
    if layout.colbert_dim is not None:
        number = pa.from_numpy_dtype(np.dtype(layout.colbert_dtype or "float32"))
        fields.append(pa.field("colbert", pa.list_(pa.list_(number))))
    version = 2 if layout.kind == "colbert" or layout.colbert_dtype is not None else 1
    stated = {"version": version, "fingerprint": head.fingerprint, "engine": head.engine, "layout": layout.stated()}
    if head.probe is not None:
        stated["probe"] = head.probe
    return pa.schema(fields, metadata={_KEY: json.dumps(stated).encode()})


def _leaves(layout: Layout) -> Iterator[str]:
    """The paths of the columns in the file."""
    yield "text"
    if layout.dense_dim is not None:
        yield "dense.list.element"
    if layout.sparse_dim is not None:
        yield from ("sparse.indices.list.element", "sparse.values.list.element")
    if layout.colbert_dim is not None:
        yield _TOKENS


def _table(pa: ModuleType, schema: Any, block: Block) -> Any:  # noqa: ANN401 - pyarrow has no types
    dense, rows, colbert = block.parts.parts()
    columns = [_strings(pa, block.texts or [])]
    if dense is not None:
        columns.append(pa.FixedSizeListArray.from_arrays(_flat(pa, dense), dense.shape[1]))
    if rows is not None:
        lists = [_lists(pa, rows.indptr, _flat(pa, values)) for values in (rows.indices, rows.values)]
        columns.append(pa.StructArray.from_arrays(lists, fields=list(schema.field("sparse").type)))
    if colbert is not None:
        tokens, width = colbert.vectors.shape
        vectors = _lists(pa, np.arange(tokens + 1) * width, _flat(pa, colbert.vectors))
        columns.append(_lists(pa, colbert.offsets, vectors))
    return pa.Table.from_arrays(columns, schema=schema)


def _lists(pa: ModuleType, offsets: Array, values: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Values end to end as N lists; offsets (N + 1,)."""
    return pa.ListArray.from_arrays(_flat(pa, offsets.astype(np.int32)), values)


def _flat(pa: ModuleType, numbers: Array) -> Any:  # noqa: ANN401 - pyarrow has no types
    """All numbers, end to end. `pa.array` would do as well, and import pandas where there is one: half a second."""
    flat = np.ascontiguousarray(numbers).reshape(-1)
    return pa.Array.from_buffers(pa.from_numpy_dtype(flat.dtype), len(flat), [None, pa.py_buffer(flat)])


def _strings(pa: ModuleType, texts: Sequence[str]) -> Any:  # noqa: ANN401 - pyarrow has no types
    encoded = [text.encode("utf-8") for text in texts]
    offsets = np.zeros(len(texts) + 1, dtype=np.int32)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


# ---- reading ---------------------------------------------------------------------------------------------------------


def open_parquet(path: Path) -> Contents:
    """Look into a file.

    Raises:
        MissingExtraError: pyarrow is not installed.
        InputError: the file cannot be read, or trivec did not write it.
    """
    _pa, pq = arrow()
    with pq.ParquetFile(path) as file:
        metadata, rows, names = file.metadata.metadata or {}, file.metadata.num_rows, file.schema_arrow.names
    if _KEY not in metadata:
        raise InputError(
            f"{path} was not written by trivec: its metadata does not say how its columns ({', '.join(names)}) are to "
            f"be read. Read it with: pyarrow.parquet.read_table({str(path)!r})"
        )
    stated = json.loads(metadata[_KEY])
    if stated.get("version") not in _VERSIONS:
        raise InputError(f"{path} was written by a later version of trivec. Type: pip install --upgrade trivec")
    checksum = metadata.get(_CHECKSUM)
    if checksum is None and _CHECKED in metadata:
        raise InputError(f"{path} is damaged: the checksum that its metadata tells of is lost.")
    said = checksum and checksum.decode()
    head = Head(Layout(**stated["layout"]), rows=rows, checksum=said, **origin_of(stated))
    return Contents(head, lambda window: _blocks(path, head.layout, window))


def _blocks(path: Path, layout: Layout, window: int) -> Iterator[Block]:
    _, pq = arrow()
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:  # by default it holds all of it
            for batch in file.iter_batches(window, use_threads=False):
                texts = batch.column("text")
                if texts.null_count:
                    raise InputError("a row has no text.")
                yield Block(texts.to_pylist(), _parts(batch, layout))
    except KeyError as error:
        raise InputError(f"{path} lacks a column that it was written with: {error.args[0]}.") from error
    except InputError as error:
        raise InputError(f"{path} cannot be read as trivec wrote it: {error}") from error


def _parts(batch: Any, layout: Layout) -> HybridVectors:  # noqa: ANN401 - pyarrow has no types
    dense, sparse, colbert = None, None, None
    if layout.dense_dim is not None:
        _, values = _offsets(batch.column("dense"), layout.dense_dim)
        dense = _numbers(values, layout.dense_dtype).reshape(-1, layout.dense_dim)
    if layout.sparse_dim is not None:
        ids, weights = batch.column("sparse").flatten()
        indptr, indices = _offsets(ids)
        sparse = SparseVectors(
            indptr, _numbers(indices, "int32"), _numbers(_offsets(weights)[1], "float32"), layout.sparse_dim
        )
    if layout.colbert_dim is not None:
        offsets, vectors = _offsets(batch.column("colbert"))
        _, values = _offsets(vectors, layout.colbert_dim)
        numbers = _numbers(values, layout.colbert_dtype or "float32").reshape(-1, layout.colbert_dim)
        colbert = MultiVectors._kept(numbers, offsets)
    return HybridVectors(dense, sparse, colbert)


def _offsets(lists: Any, length: int | None = None) -> tuple[Array, Any]:  # noqa: ANN401
    """Where each list starts (N + 1,), and the values end to end."""
    import pyarrow.compute as pc

    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)  # (N,); of a null NaN
    if lists.null_count or (length is not None and (lengths != length).any()):
        raise InputError(f"a row has no vector, or one of another length than {length}.")
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets, lists.flatten()


def _numbers(values: Any, dtype: str | None) -> Array:  # noqa: ANN401 - pyarrow has no types
    """(T,) of an own copy, so that nothing keeps the file's buffers."""
    found = values.to_numpy(zero_copy_only=False)
    return np.array(found, dtype=dtype)
