"""CUDA's and cuDNN's libraries, loaded from where pip has put them."""

import contextlib
import io
import re
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

from trivec._engine.devices import CUDA, Engine
from trivec._system.forks import afresh_in_children


def preload(ort: Engine) -> str:
    """Load CUDA's and cuDNN's libraries from where pip has put them, once a process; what could not be loaded.

    onnxruntime prints its complaints, which would end up among the vectors that a program writes to stdout.
    """
    return _preloaded.by(ort)


class _Preloaded:
    """What was said where the libraries were loaded."""

    def __init__(self) -> None:
        self._found: tuple[Engine, str] | None = None
        self.start_afresh()
        afresh_in_children(self)

    def start_afresh(self) -> None:
        """In a forked child: nobody is loading them."""
        self._lock = threading.Lock()

    def by(self, ort: Engine) -> str:
        """What could not be loaded by an onnxruntime module."""
        with self._lock:
            if self._found is None or self._found[0] is not ort:
                self._found = (ort, _preload(ort))
            return self._found[1]


_preloaded = _Preloaded()


def _preload(ort: Engine) -> str:
    load = getattr(ort, "preload_dlls", None)
    if load is None or not {CUDA, "TensorrtExecutionProvider"} & set(ort.get_available_providers()):
        return ""
    with captured() as text:
        try:
            load()
        except Exception as error:  # noqa: BLE001 - a library that is not found is the session's to miss
            print(error)
    return re.sub(r"\x1b\[\d*m", "", text.getvalue()).strip()  # it prints warnings in yellow


@contextlib.contextmanager
def captured() -> Iterator[io.StringIO]:
    """What this thread prints meanwhile; what others print goes where it always goes."""
    text = io.StringIO()
    before, sys.stdout = sys.stdout, ThreadStdout(sys.stdout, text, threading.get_ident())
    try:
        yield text
    finally:
        sys.stdout = before


class ThreadStdout(io.TextIOBase):
    """A stdout that keeps one thread's words."""

    def __init__(self, real: TextIO | None, text: io.StringIO, thread: int) -> None:
        self._real, self._captured, self._thread = real, text, thread

    def write(self, text: str, /) -> int:
        """Keep the thread's text, pass on any other."""
        stream = self._captured if threading.get_ident() == self._thread else self._real
        return len(text) if stream is None else stream.write(text)

    def flush(self) -> None:
        """Flush the real one."""
        if self._real is not None:
            self._real.flush()
