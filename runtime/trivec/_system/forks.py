"""What starts afresh in a forked child: threads stay behind, and a lock that one of them held is never released."""

import ctypes
import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """What has threads or a lock."""

    def start_afresh(self) -> None:
        """Called in a forked child, before anything else runs there; must wait for nothing."""


_known: "weakref.WeakSet[Forkable]" = weakref.WeakSet()


def afresh_in_children(thing: Forkable) -> None:
    """Have `thing.start_afresh()` called in each forked child in which it still lives."""
    _known.add(thing)


def never_freed(*things: object) -> None:
    """Keep things to the end of the process and beyond: freeing them would wait for threads that are not there."""
    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _start_afresh() -> None:
    # The tokenizers library, whose threads are not there either, gives them up by itself only where nothing is set.
    if _known and "TOKENIZERS_PARALLELISM" in os.environ:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for thing in list(_known):
        thing.start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
