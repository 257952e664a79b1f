"""`arrays.npz`, the small arrays of a model folder: read without believing what it says of its own sizes.

An export writes it with numpy.savez, uncompressed: so no array is larger than the file, and nothing is inflated.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from trivec._errors import ModelFormatError
from trivec._model.json_files import opened
from trivec._model.manifest import Manifest
from trivec._vectors.arrays import Floats
from trivec._vectors.damaged import readable

Shape = tuple[int | None, ...]
"""None: of any size."""
_END = 22  # bytes of the record that ends an archive without a comment
_MOST_LISTED = 1 << 20  # bytes of the archive's list of files: Python makes objects of it that are ten times as large


def read_arrays(path: Path, shapes: Mapping[str, Shape]) -> dict[str, Floats]:
    """Every array of the file.

    Args:
        path: the file.
        shapes: those that are known, by name.

    Returns:
        Arrays by name, floating-point numbers, not to be written to.

    Raises:
        ModelFormatError: it is damaged, compressed, or not what `shapes` or its own size say; nothing larger than the
            file is read or made for that.
    """
    import zipfile  # 4 ms that a model without such a file need not wait for

    found: dict[str, Floats] = {}
    with opened(path) as stream, readable(path, kind=ModelFormatError):
        left = os.fstat(stream.fileno()).st_size
        _check_listed(stream, left)
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                left -= member.file_size
                if name in found:
                    raise ValueError(f"{name} is in it twice")
                if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size or left < 0:
                    raise ValueError(f"{name} is larger than it is in the file; an export does not compress it")
                with archive.open(member) as part:
                    found[name] = _read(part, name, shapes.get(name))
    return found


def _check_listed(stream: IO[bytes], size: int) -> None:
    """Raise where the list of files is too long, or not where numpy.savez leaves it."""
    stream.seek(max(0, size - 2 * _END))
    tail = stream.read()
    listed = int.from_bytes(tail[-_END:][12:16], "little")
    if tail[-_END:-18] != b"PK\5\6" or listed > _MOST_LISTED or b"PK\6\7" in tail:
        raise ValueError("it does not end as numpy.savez ends it")


def _read(stream: IO[bytes], name: str, expected: Shape | None) -> Floats:
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = header(stream)
    if dtype.kind != "f":
        raise ValueError(f"{name} is of {dtype}, expected floating-point numbers")
    if expected is not None and not _fits(shape, expected):
        wanted = ", ".join("any" if n is None else str(n) for n in expected)
        raise ValueError(f"{name} has the shape {shape}; the manifest has it as ({wanted})")
    data = stream.read()  # at most what the file has: it is not compressed
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{name} should have {shape} numbers of {dtype}, and has {len(data):,} bytes")
    flat = np.frombuffer(data, dtype)
    array: Floats = flat.reshape(shape[::-1]).T if by_column else flat.reshape(shape)
    return array


def _fits(shape: tuple[int, ...], expected: Shape) -> bool:
    return len(shape) == len(expected) and all(want in (None, n) for n, want in zip(shape, expected, strict=True))


def known_shapes(manifest: Manifest) -> dict[str, Shape]:
    """What a manifest says of the shapes of its arrays."""
    found: dict[str, Shape] = {}
    for name, route in manifest.routes.items():
        found |= {f"{name}.ranges": (2, manifest.dim), f"{name}.normalized_ranges": (2, manifest.dim)}
        if route.sparse is not None and route.sparse.array:
            found[route.sparse.array] = (route.sparse.dim,)
        width = manifest.dim if route.gives_dense else None
        for step in reversed(route.steps):  # the last one gives what the route gives
            if step.kind == "normalize":
                continue
            dense = step.kind == "dense"
            found |= {f"{step.arrays}.weight": (width, None) if dense else (width,), f"{step.arrays}.bias": (width,)}
            if dense:
                found[f"{step.arrays}.residual"] = (width, None)
                width = None
    return found
