"""`read` and `read_iter`: a file of vectors, whole or in blocks."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trivec._errors import InputError
from trivec.store._formats import FORMATS, format_of, partial
from trivec.store._journal import short
from trivec.store._schema import Block, Contents, Vectors

_WINDOW = 1 << 16  # rows that are put together at a time


class Stored(NamedTuple):
    """N texts and their vectors."""

    texts: list[str] | None
    """None where the file keeps none (.npy, .npz): row i is text i of what was encoded."""
    vectors: Vectors
    """(N, D) float32, int8 or uint8; SparseVectors; or HybridVectors, whose parts these are."""
    fingerprint: str | None
    """Of the `encode` call that made them; None where the file does not say (.npy, .jsonl)."""


def read(path: str | os.PathLike[str], *, fingerprint: str | None = None) -> Stored:
    """Read a file that `write` or `trivec encode` wrote; also plain .npy arrays, and .npz of scipy.sparse.save_npz.

    Args:
        path: .parquet, .jsonl, .npy or .npz.
        fingerprint: what the file must have been written with, such as `store.fingerprint_of(encoder)`; None: anything.

    Returns:
        Texts, vectors and fingerprint. A .jsonl file of floats gives float32; one of whole numbers int8 if any is
        negative, else uint8; one with one kind of vectors that kind, not HybridVectors.

    Raises:
        InputError: another kind of file, a damaged one, or vectors of another model or of other options.
        MissingExtraError: a .parquet file, and pyarrow is not installed.
        FileNotFoundError: no such file.
    """
    source = Path(path)
    contents = _open(source, fingerprint)
    head = contents.head
    if head.layout.kind == "dense" and head.rows is not None:
        return _filled(contents, head.rows, FORMATS[source.suffix.lower()].keeps_texts)
    return _stored(contents, list(contents.blocks(_WINDOW)), FORMATS[source.suffix.lower()].keeps_texts)


def read_iter(path: str | os.PathLike[str], *, window: int = 1024, fingerprint: str | None = None) -> Iterator[Stored]:
    """Read a file in blocks of at most `window` texts, in order, in bounded memory.

    Args:
        path: as of `read`.
        window: texts of a block.
        fingerprint: as of `read`.

    Raises:
        As `read`, at the call; what is wrong with a row when its block is read.
    """
    if not isinstance(window, int) or window < 1:
        raise InputError(f"window must be a whole number of at least 1, got {window!r}.")
    source = Path(path)
    contents, keeps = _open(source, fingerprint), FORMATS[source.suffix.lower()].keeps_texts
    return (_stored(contents, [block], keeps) for block in contents.blocks(window))


def _open(path: Path, fingerprint: str | None) -> Contents:
    found = format_of(path)
    if not path.is_file():
        hint = ""
        if partial(path).exists():
            hint = f", only {partial(path).name} of a run that was interrupted: write it again to go on"
        raise FileNotFoundError(errno.ENOENT, f"there is no file{hint}", str(path))
    contents = found.open(path)
    _check_fingerprint(path, contents.head.fingerprint, fingerprint)
    return contents


def _check_fingerprint(path: Path, found: str | None, wanted: str | None) -> None:
    if wanted is None or found == wanted:
        return
    if found is None:
        raise InputError(
            f"{path} does not say which model wrote it: {path.suffix} files have no place for a fingerprint. Write "
            ".parquet, or read it without fingerprint=."
        )
    raise InputError(
        f"{path} was written with the fingerprint {short(found)}, and {short(wanted)} is wanted: another model, "
        "variant, prompt or option. Load the model that wrote it, with the same options, or encode the texts again."
    )


def _stored(contents: Contents, blocks: list[Block], keeps_texts: bool) -> Stored:
    """Blocks in one piece."""
    head = contents.head
    parts = head.layout.concatenate([block.parts for block in blocks])
    texts = [text for block in blocks for text in block.texts or ()]
    return Stored(texts if keeps_texts else None, head.layout.vectors(parts), head.fingerprint)


def _filled(contents: Contents, rows: int, keeps_texts: bool) -> Stored:
    """Dense vectors in one piece, without a second copy of them."""
    head = contents.head
    dense = np.empty((rows, head.layout.dense_dim or 0), dtype=head.layout.dense_dtype)
    texts: list[str] = []
    start = 0
    for block in contents.blocks(_WINDOW):
        dense[start : start + block.parts.rows] = block.parts.dense
        start += block.parts.rows
        texts += block.texts or ()
    return Stored(texts if keeps_texts else None, dense, head.fingerprint)
