"""Vectors that a service has given before, in a file: each miss costs money."""

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._system.forks import afresh_in_children, never_freed

logger = logging.getLogger("trivec")
_AT_ONCE = 500  # keys of one question: older SQLites take no more than 999
_SECONDS = 30.0  # that one process waits for another's write


class Cache:
    """A SQLite file; any number of threads and processes may use it at the same time."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open it, or make it.

        Raises:
            InputError: there is no such folder, or the file is something else.
        """
        self.path = Path(path).absolute()
        self._takes_more = True
        self._connection: sqlite3.Connection | None = None
        self.start_afresh()
        afresh_in_children(self)
        with self._open():
            pass

    def start_afresh(self) -> None:
        """In a forked child: SQLite's connections do not outlive a fork."""
        never_freed(self._connection)
        self._connection = None
        self._lock = threading.Lock()

    def get(self, request: str, texts: Sequence[str]) -> dict[str, bytes]:
        """The vectors that are there, by text.

        Args:
            request: the fingerprint of what is asked beside the text.
            texts: as they are sent.
        """
        keys = {_key(request, text): text for text in texts}
        listed, found = list(keys), {}
        with self._open() as connection:
            for start in range(0, len(listed), _AT_ONCE):
                part = listed[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = connection.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part)  # noqa: S608 - question marks
                found.update({keys[key]: vector for key, vector in rows})
        return found

    def put(self, request: str, texts: Sequence[str], vectors: npt.NDArray[np.generic]) -> None:
        """Keep vectors (N, W) of texts, which are paid for: where the file takes none, that is one warning."""
        if not self._takes_more:
            return
        rows = [(_key(request, text), vector.tobytes()) for text, vector in zip(texts, vectors, strict=True)]
        try:
            with self._open() as connection:
                connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
        except InputError as error:
            self._takes_more = False
            logger.warning(
                "cache=%r takes no more vectors: %s. What is answered from now on is not kept in it.",
                str(self.path),
                error.__cause__,
            )

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time; what is done is kept at the end."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = sqlite3.connect(self.path, timeout=_SECONDS, check_same_thread=False)
                    self._connection.execute("PRAGMA journal_mode=WAL")
                    self._connection.execute("PRAGMA synchronous=NORMAL")  # a power cut may cost the last vectors
                    self._connection.execute(
                        "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID"
                    )
                with self._connection:
                    yield self._connection
            except sqlite3.Error as error:
                raise InputError(f"cache={str(self.path)!r} cannot be used: {error}. Name another file.") from error


def _key(request: str, text: str) -> bytes:
    return hashlib.sha256(f"{request}\n{text}".encode()).digest()
