"""`read` and `read_iter`: a file of vectors, whole or in blocks."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trivec._engine.engine_drift import check_engine
from trivec._errors import InputError
from trivec._vectors.damaged import readable
from trivec.store._checksum import checked
from trivec.store._formats import FORMATS, format_of, partial
from trivec.store._journal import short
from trivec.store._schema import Block, Contents, Head, Vectors

_WINDOW = 1 << 16  # rows that are put together at a time


class _Stored(NamedTuple):
    texts: list[str] | None
    """None where the file keeps none (.npy, .npz): row i is text i of what was encoded."""
    vectors: Vectors
    """(N, D) float32, int8 or uint8; SparseVectors; MultiVectors; or HybridVectors, whose parts these are."""
    fingerprint: str | None
    """Of the `encode` call that made them; None where the file does not say."""


class Stored(_Stored):
    """N texts, their vectors and their fingerprint; `engine` and `probe` beside them.

    Attributes:
        engine: what computed them, `engine_fingerprint` of the encoder, several with ; between; None where the file
            does not say.
        probe: by which `trivec diff` tells whether a hosted model has changed since; None of other models.
    """

    engine: str | None = None
    probe: str | None = None


def read(
    path: str | os.PathLike[str], *, fingerprint: str | None = None, engine: str | None = None, strict: bool = False
) -> Stored:
    """Read a file that `write` or `trivec encode` wrote; also plain .npy arrays, .npz of scipy's and MultiVectors.save.

    Args:
        path: .parquet, .jsonl, .npy or .npz.
        fingerprint: what the file must have been written with, such as `store.fingerprint_of(encoder)`; None: anything.
        engine: what should have computed it, such as `encoder.engine_fingerprint`; the log warns of another one, and
            of how far its vectors were from others where that was measured. None: anything.
        strict: an error in place of the warning, and where the file does not say.

    Returns:
        Texts, vectors and fingerprint. A .jsonl file of floats gives float32; one of whole numbers int8 if any is
        negative, else uint8; one with one kind of vectors that kind, not HybridVectors.

    Raises:
        InputError: another kind of file, a damaged one, or vectors of another model, of other options or, where that
            is asked, of another engine.
        MissingExtraError: a .parquet file, and pyarrow is not installed.
        FileNotFoundError: no such file.
    """
    source = Path(path)
    contents = _open(source, fingerprint, engine, strict)
    head, keeps = contents.head, FORMATS[source.suffix.lower()].keeps_texts
    with readable(source):  # a damaged one may ask for more memory than there is
        if head.layout.kind == "dense" and head.rows is not None:
            return _filled(contents, head.rows, keeps)
        return _stored(contents, list(contents.blocks(_WINDOW)), keeps)


def read_iter(
    path: str | os.PathLike[str],
    *,
    window: int = 1024,
    fingerprint: str | None = None,
    engine: str | None = None,
    strict: bool = False,
) -> Iterator[Stored]:
    """Read a file in blocks of at most `window` texts, in order, in bounded memory.

    Args:
        path: as of `read`.
        window: texts of a block.
        fingerprint: as of `read`.
        engine: as of `read`.
        strict: as of `read`.

    Raises:
        As `read`, at the call; what is wrong with a row when its block is read.
    """
    if not isinstance(window, int) or window < 1:
        raise InputError(f"window must be a whole number of at least 1, got {window!r}.")
    source = Path(path)
    contents, keeps = _open(source, fingerprint, engine, strict), FORMATS[source.suffix.lower()].keeps_texts
    return (_stored(contents, [block], keeps) for block in contents.blocks(window))


def _open(path: Path, fingerprint: str | None, engine: str | None, strict: bool) -> Contents:
    given: dict[str, object] = {"fingerprint": fingerprint, "engine": engine}
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            known = "store.fingerprint_of(encoder)" if name == "fingerprint" else "encoder.engine_fingerprint"
            raise InputError(f"{name} must be a string, got {type(value).__name__}. Type: {name}={known}")
    if strict and engine is None:
        raise InputError("strict=True compares engines: say which. Type: engine=encoder.engine_fingerprint")
    found = format_of(path)
    if not path.is_file():
        hint = ""
        if partial(path).exists():
            hint = f", only {partial(path).name} of a run that was interrupted: write it again to go on"
        raise FileNotFoundError(errno.ENOENT, f"there is no file{hint}", str(path))
    with readable(path):
        contents = found.open(path)
    _check_fingerprint(path, contents.head.fingerprint, fingerprint)
    check_engine(str(path), contents.head.engine, engine, strict=strict)
    return checked(path, contents._replace(blocks=_of_engine(contents, engine, strict)))


def _of_engine(contents: Contents, engine: str | None, strict: bool) -> Callable[[int], Iterator[Block]]:
    """The blocks, where rows within are compared with the engine of `read`, or without it with the first row's."""

    def blocks(window: int) -> Iterator[Block]:
        wanted, before = engine or contents.head.engine, contents.head.engine
        for block in contents.blocks(window):
            for where, found in block.engines:
                if found != before:
                    check_engine(where, found, wanted, strict=strict)
                before = found
            yield block

    return blocks


def _check_fingerprint(path: Path, found: str | None, wanted: str | None) -> None:
    if wanted is None or found == wanted:
        return
    if found is None:
        raise InputError(
            f"{path} does not say which model wrote it: it is of another program, of an earlier trivec, or a part of a "
            "file. Encode the texts again, or read it without fingerprint=."
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
    return _stated(texts if keeps_texts else None, head.layout.vectors(parts), head)


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
    return _stated(texts if keeps_texts else None, dense, head)


def _stated(texts: list[str] | None, vectors: Vectors, head: Head) -> Stored:
    stored = Stored(texts, vectors, head.fingerprint)
    stored.engine, stored.probe = head.engine, head.probe
    return stored
