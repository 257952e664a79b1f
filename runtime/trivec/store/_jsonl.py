""".jsonl: an object a line, with the text and its vectors."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from trivec._errors import InputError
from trivec._system.text_files import decode_lines
from trivec._vectors.arrays import Array
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors
from trivec.store._schema import Block, Blocks, Contents, Head, Kind, Layout, origin_of

_KEYS = ("embedding", "sparse", "colbert")
_ORIGIN = "trivec"  # fingerprints, in the first line that was written; a file of several such files has more of them
_KIND = "kind"  # beside them


class Row(NamedTuple):
    """A line of a file."""

    where: str
    """"x.jsonl, line 3": for messages."""
    fields: dict[str, Any]


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_jsonl(stream: IO[bytes], head: Head, blocks: Blocks) -> None:
    """Write the lines of all blocks."""
    said = said_first(head)
    for block in blocks():
        write_lines(stream, block.texts or [], block.parts, said)
        said = {}


def said_first(head: Head) -> dict[str, str]:
    """What the first line says of all: where they come from, and that vectors of tokens are all that there is."""
    return {**head.origin, **({_KIND: "colbert"} if head.layout.kind == "colbert" else {})}


def write_lines(stream: IO[bytes], texts: Sequence[str], parts: HybridVectors, first: Mapping[str, str]) -> None:
    """A line for each text: "text", and what was made of it; the first says also by what, as "trivec".

    "embedding" is a list, "sparse" an object of term ids and weights with "sparse_dim", the size of the vocabulary,
    beside it, "colbert" a list of lists, float32 whatever it was kept in. Nine digits give every float32 back exactly.
    """
    for row, text in enumerate(texts):
        said = {_ORIGIN: dict(first)} if first and not row else {}
        line = json.dumps({"text": text, **_fields(parts, row), **said}, ensure_ascii=False)
        stream.write(line.encode("utf-8") + b"\n")


def _fields(parts: HybridVectors, row: int) -> dict[str, Any]:
    """What a line says beside the text."""
    fields: dict[str, Any] = {}
    dense, sparse, colbert = parts.parts()
    if dense is not None:
        fields["embedding"] = _digits(dense[row])
    if sparse is not None:
        weights = sparse[row].to_dict()
        fields["sparse"] = {str(term): float(f"{weight:.9g}") for term, weight in weights.items()}
        fields["sparse_dim"] = sparse.dim
    if colbert is not None:
        fields["colbert"] = [_digits(vector) for vector in colbert[row]]
    return fields


def _digits(vector: Array) -> list[Any]:
    listed: list[Any] = vector.tolist()
    return [float(f"{x:.9g}") for x in listed] if vector.dtype.kind == "f" else listed


# ---- reading ---------------------------------------------------------------------------------------------------------


def open_jsonl(path: Path) -> Contents:
    """Look into a file.

    Whole numbers are int8 if one of them is negative, else uint8: lines do not say.

    Raises:
        InputError: its first line is none of those that `write_lines` writes.
    """
    first = next(_rows(path), None)
    layout = Layout("dense", 0, "float32") if first is None else _layout(path, first)
    origin = {} if first is None else origin_of(first.fields.get(_ORIGIN))
    head = Head(layout, rows=None, checksum=None, **origin)
    return Contents(head, lambda window: _blocks(path, head, window))


def _engine(row: Row, head: Head) -> str | None:
    """What a later line says of the engine, as where files were put together; None where it says nothing.

    Raises:
        InputError: its vectors are of another model.
    """
    said = origin_of(row.fields.get(_ORIGIN))
    found = said.get("fingerprint", head.fingerprint)
    if found != head.fingerprint and head.fingerprint is not None:
        raise InputError(
            f"{row.where} begins the vectors of another model or of other options than the first line's: their "
            "fingerprints differ. Keep them in files of their own."
        )
    return said.get("engine")


def _layout(path: Path, first: Row) -> Layout:
    """What the lines hold, from as many of them as it takes to tell."""
    found = [key for key in _KEYS if key in first.fields]
    if not found:
        raise InputError(
            f"{first.where} has none of {', '.join(_KEYS)}; it has: {', '.join(first.fields) or 'nothing'}."
        )
    embedding, dim = first.fields.get("embedding"), first.fields.get("sparse_dim")
    if "embedding" in found and not isinstance(embedding, list):
        raise InputError(f"{first.where}: expected a list of numbers as embedding, got {json.dumps(embedding)[:60]}.")
    if "sparse" in found and not isinstance(dim, int):
        raise InputError(
            f"{first.where} does not say how large the vocabulary is, as trivec's own lines do in sparse_dim. Read "
            "such lines with json, and build rows: trivec.SparseVectors.from_dicts(dicts, dim)"
        )
    said = first.fields.get(_ORIGIN)
    alone = isinstance(said, dict) and said.get(_KIND) == "colbert"  # else of a model with other kinds, not asked for
    kinds: dict[str, Kind] = {"embedding": "dense", "sparse": "sparse", "colbert": "colbert" if alone else "hybrid"}
    return Layout(
        kinds[found[0]] if len(found) == 1 else "hybrid",
        None if embedding is None else len(embedding),
        None if embedding is None else _number_type(path, embedding),
        dim if "sparse" in found else None,
        _colbert_dim(path) if "colbert" in found else None,
    )


def _number_type(path: Path, first: Sequence[Any]) -> str:
    if not first or not all(isinstance(x, int) for x in first):
        return "float32"
    for row in _rows(path):  # the first one decides in practice
        listed = row.fields.get("embedding")
        numbers = [x for x in listed if isinstance(x, int)] if isinstance(listed, list) else []
        if numbers and (min(numbers) < 0 or max(numbers) > 127):
            return "int8" if min(numbers) < 0 else "uint8"
    return "uint8"


def _colbert_dim(path: Path) -> int:
    """From the first text that has vectors of tokens."""
    found = (row.fields.get("colbert") for row in _rows(path))
    return next((len(v[0]) for v in found if isinstance(v, list) and v and isinstance(v[0], list)), 1)


def _rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as stream:
        for number, line in enumerate(decode_lines(stream, str(path)), 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where} is not valid JSON: {error}") from error
            if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
                raise InputError(f"{where}: expected an object with a text, got {line.strip()[:60]!r}.")
            yield Row(where, fields)


def _blocks(path: Path, head: Head, window: int) -> Iterator[Block]:
    rows, layout = _rows(path), head.layout
    while listed := list(islice(rows, window)):
        said = ((row.where, _engine(row, head)) for row in listed if _ORIGIN in row.fields)
        engines = tuple((f"{where} and what follows", engine) for where, engine in said if engine is not None)
        dense = None if layout.dense_dim is None else _dense(listed, layout)
        sparse = None if layout.sparse_dim is None else _sparse(listed, layout.sparse_dim)
        colbert = None if layout.colbert_dim is None else _colbert(listed, layout.colbert_dim)
        yield Block([row.fields["text"] for row in listed], HybridVectors(dense, sparse, colbert), engines)


def _dense(rows: Sequence[Row], layout: Layout) -> Array:
    """(B, D)."""
    array = np.empty((len(rows), layout.dense_dim or 0), dtype=layout.dense_dtype)
    for place, row in enumerate(rows):
        numbers = row.fields.get("embedding")
        if not isinstance(numbers, list) or len(numbers) != array.shape[1]:
            count = len(numbers) if isinstance(numbers, list) else "no"
            raise InputError(f"{row.where} has {count} numbers in its embedding, the first line {array.shape[1]}.")
        try:
            array[place] = numbers
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"{row.where}: its embedding is no {array.dtype} vector: {error}") from error
    return array


def _sparse(rows: Sequence[Row], dim: int) -> SparseVectors:
    parts = []
    for row in rows:
        weights = row.fields.get("sparse")
        try:
            parts.append(SparseVectors.from_dicts([_mapping(weights)], dim))
        except InputError as error:
            raise InputError(f"{row.where}: {error}") from error
    return SparseVectors.concatenate(parts)


def _mapping(weights: object) -> Mapping[str, Any]:
    if not isinstance(weights, dict):
        raise InputError("it has no sparse weights, unlike the first line.")
    return weights


def _colbert(rows: Sequence[Row], dim: int) -> MultiVectors:
    parts = [MultiVectors.empty(0, dim)]
    for row in rows:
        vectors = row.fields.get("colbert")
        if not isinstance(vectors, list):
            raise InputError(f"{row.where} has no colbert vectors, unlike the first line.")
        try:
            array = np.array(vectors, dtype=np.float32).reshape(len(vectors), dim)
        except (ValueError, TypeError) as error:
            raise InputError(f"{row.where}: its colbert vectors are not of {dim} numbers each: {error}") from error
        parts.append(MultiVectors.from_arrays([array]))
    return MultiVectors.concatenate(parts)
