"""Is a file the one that the manifest describes?

The size is checked at every load. The sha256 of a large model takes seconds, so it is computed once for a file's
(path, size, modification time, digest) and remembered under `TRIVEC_HOME`.
"""

import contextlib
import hashlib
import logging
import os
import stat as modes
import tempfile
from pathlib import Path

from trivec._errors import IntegrityError
from trivec._model.manifest import FileRef
from trivec._system.home import home

logger = logging.getLogger("trivec")


def sha256(path: Path) -> str:
    """The file's sha256, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe(folder: Path, path: str) -> FileRef:
    """A FileRef with size and sha256 of a file in a model folder."""
    return FileRef(path, bytes=(folder / path).stat().st_size, sha256=sha256(folder / path))


def check(path: Path, expected: FileRef) -> None:
    """Compare a file with its entry in the manifest.

    Raises:
        IntegrityError: the file is missing, or its size or sha256 is another.
    """
    try:
        stat = path.stat()
    except (OSError, ValueError) as error:  # ValueError: no path can be called so
        raise IntegrityError(
            f"{path} is missing; the manifest lists it. Copy the folder again, or export it again: trivec export"
        ) from error
    if not modes.S_ISREG(stat.st_mode):
        raise IntegrityError(f"{path} is no file but a folder, a pipe or a device. Copy the folder again.")
    if expected.bytes is not None and stat.st_size != expected.bytes:
        raise IntegrityError(
            f"{path} has {stat.st_size:,} bytes; the manifest says {expected.bytes:,}. It is truncated or another "
            "file: copy the folder again, or export it again: trivec export"
        )
    if expected.sha256 is None:
        return
    note = f"{path.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}\n{expected.sha256}"
    memo = None
    with contextlib.suppress(OSError):  # no home, or one that may not be read, is one without notes
        memo = home() / "checked" / hashlib.sha256(os.fsencode(note)).hexdigest()
        if memo.exists():
            return
    logger.debug("%s is hashed: there is no note of it", path)
    try:
        found = sha256(path)
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror or error}.") from error
    if found != expected.sha256:
        raise IntegrityError(
            f"{path} has sha256 {found[:16]}...; the manifest says {expected.sha256[:16]}.... It was altered: copy "
            "the folder again, or export it again: trivec export"
        )
    if memo is not None:
        _remember(memo)


def _remember(memo: Path) -> None:
    """Leave an empty note; a home that cannot be written only costs another check next time."""
    with contextlib.suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=memo.parent)
        os.close(handle)
        Path(temporary).replace(memo)
