"""A file of an open model, as it was when the model was loaded, wherever its path leads by now."""

import contextlib
import hashlib
import os
import weakref
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._errors import IntegrityError

_HOLDS = os.name != "nt"  # there, what is open can neither be removed nor replaced


class _State(NamedTuple):
    """Which file, and what it was like."""

    file: tuple[int, int]
    """Device and inode, which no other file has while this one is open."""
    size: int
    modified: int


class HeldFile:
    """A file that is kept open, so that it can be read again where its folder was renamed, replaced or removed since.

    Its path is the real one: a link to its folder may lead elsewhere later. Where the path still leads to the file, it
    is read there, so that onnxruntime maps weights and processes share them; else through the open descriptor. On
    Windows, and where a process may open no more files, none is kept: other bytes at the path are an error then.

    Attributes:
        path: where it was found. A last part that is a link stays one, as the Hub's cache has it.
        size: bytes.
    """

    def __init__(self, path: Path, digest: str | None = None) -> None:
        """Open a file.

        Args:
            path: the file.
            digest: its sha256, where it is known.
        """
        self.path = path.parent.resolve() / path.name
        self._digest = digest
        self._descriptor: int | None = None
        if _HOLDS:
            with contextlib.suppress(OSError):  # too many open files; of what is missing, `_state` says so
                self._descriptor = os.open(self.path, os.O_RDONLY)
        self._state = _state(self.path if self._descriptor is None else self._descriptor)
        self.size = self._state.size
        if self._descriptor is not None:
            # Not at exit: who encodes there may need it. It ends with the process in any case.
            weakref.finalize(self, _close, self._descriptor, self._state.file).atexit = False

    def is_in_place(self) -> bool:
        """Whether the path still leads to the file.

        Raises:
            IntegrityError: it does, and the file was written over.
        """
        return self._is_at(self.path)

    def mapped(self) -> npt.NDArray[np.uint8]:
        """(size,) its bytes, mapped.

        Raises:
            IntegrityError: it was written over, or is neither open nor in its place.
        """
        # What makes a daemon of a process closes all that is open: the descriptor may be another file's by now.
        if self._descriptor is not None and self._is_at(self._descriptor):
            return _bytes_of(self._descriptor)
        if self._is_at(self.path) or self._is_copied():
            return _bytes_of(self.path)
        raise IntegrityError(
            f"{self.path} is gone, or another file than the one that was loaded. Load the model again: trivec.load(...)"
        )

    def sha256(self) -> str:
        """Its sha256, in hexadecimal.

        Raises:
            IntegrityError: it was written over since it was loaded.
        """
        if self._digest is None:
            digest = _sha256(self.mapped())
            self.mapped()  # raises where it was written over meanwhile
            self._digest = digest
        return self._digest

    def _is_at(self, place: Path | int) -> bool:
        """Whether a path leads to the file, or a descriptor is one of it; IntegrityError where it was written over."""
        try:
            now = _state(place)
        except OSError:
            return False
        if now.file != self._state.file:
            return False
        if now != self._state:
            if not self._has_content(place, now):  # another date may be all that it got
                raise IntegrityError(
                    f"{self.path} was written over since it was loaded, so it cannot be read again. Load the model "
                    "again; to replace a file that is in use, write the new one beside it and rename it."
                )
            self._state = now
        return True

    def _is_copied(self) -> bool:
        """Whether another file with the same bytes is at the path; some file systems number a file anew, too."""
        try:
            now = _state(self.path)
        except OSError:
            return False
        if not self._has_content(self.path, now):
            return False
        self._state = now
        return True

    def _has_content(self, place: Path | int, now: _State) -> bool:
        return now.size == self.size and self._digest is not None and self._digest == _sha256(_bytes_of(place))


def _state(place: Path | int) -> _State:
    found = os.fstat(place) if isinstance(place, int) else place.stat()
    return _State((found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns)


def _bytes_of(place: Path | int) -> npt.NDArray[np.uint8]:
    """(size,) bytes of a file, mapped."""
    with os.fdopen(place, "rb", closefd=False) if isinstance(place, int) else place.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        return np.memmap(stream, np.uint8, "r") if size else np.zeros(0, np.uint8)  # no empty file can be mapped


def _sha256(data: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(data.data).hexdigest()


def _close(descriptor: int, file: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):
        if _state(descriptor).file == file:
            os.close(descriptor)
