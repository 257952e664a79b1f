"""A file for one process at a time."""

import os
from pathlib import Path
from typing import IO

from trivec._errors import InputError


def open_locked(path: Path) -> IO[bytes]:
    """The file, made if need be, for this process alone."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
        try:
            _lock(file, path)
            if _inode(path) == os.fstat(file.fileno()).st_ino:
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # the process that had it has removed it meanwhile


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _lock(file: IO[bytes], path: Path) -> None:
    """Take the file's lock, which ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"{path} is being written by another process. Wait for it to end, or choose another name."
        ) from error
    except OSError:  # a file system without locks
        return
