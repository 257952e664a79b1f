"""The kinds of files, by their suffix."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from trivec._errors import InputError
from trivec.store._jsonl import open_jsonl, write_jsonl
from trivec.store._npy import open_npy, write_npy
from trivec.store._npz import open_npz, write_npz
from trivec.store._parquet import arrow, open_parquet, write_parquet
from trivec.store._schema import Blocks, Contents, Head, Kind, Layout


class Format(NamedTuple):
    """A kind of file."""

    kinds: tuple[Kind, ...]
    """Of vectors that it holds."""
    keeps_texts: bool
    write: Callable[[IO[bytes], Head, Blocks], None]
    open: Callable[[Path], Contents]


FORMATS = {
    ".npy": Format(("dense",), False, write_npy, open_npy),
    ".npz": Format(("sparse", "colbert"), False, write_npz, open_npz),
    ".jsonl": Format(("dense", "sparse", "colbert", "hybrid"), True, write_jsonl, open_jsonl),
    ".parquet": Format(("dense", "sparse", "colbert", "hybrid"), True, write_parquet, open_parquet),
}


def format_of(path: Path) -> Format:
    """The kind of a file by its name.

    Raises:
        InputError: no kind that there is.
        MissingExtraError: pyarrow is needed, and not installed.
    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise InputError(f"{str(path)!r} is none of {', '.join(FORMATS)}: the suffix says what is written and read.")
    if found.write is write_parquet:
        arrow()
    return found


def check_kind(path: Path, layout: Layout) -> None:
    """Raise InputError unless the kind of file holds that kind of vectors."""
    suffix = path.suffix.lower()
    if layout.kind in FORMATS[suffix].kinds:
        return
    others = [name for name, found in FORMATS.items() if layout.kind in found.kinds]
    listed = f"{', '.join(others[:-1])} or {others[-1]}"
    raise InputError(f"a {suffix} file does not hold {layout.kind} vectors. Write {listed}.")


def partial(path: Path) -> Path:
    """Where a file is until it is complete."""
    return path.with_name(f"{path.name}.partial")


def sync_folder(folder: Path) -> None:
    """Make the new name of a file in a folder last through a power cut, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
