"""Whose run it is, where one device serves several models."""

import threading
import weakref
from collections import deque
from typing import Protocol

from trivec._system.forks import afresh_in_children


class Waits(Protocol):
    """Who waits for a turn."""

    def seconds(self) -> float:
        """What all that waits there is expected to take."""


class Turn:
    """A lock that goes to whoever asked first: a plain one may go to its last owner for ever."""

    def __init__(self) -> None:
        self._queues: weakref.WeakSet[Waits] = weakref.WeakSet()
        self.start_afresh()
        afresh_in_children(self)

    def start_afresh(self) -> None:
        """Nobody has it, nobody waits; so in a forked child too."""
        self._lock = threading.Lock()
        self._asked: deque[threading.Lock] = deque()
        self._held = False

    def join(self, queue: Waits) -> None:
        """A queue shares the device from now on."""
        self._queues.add(queue)

    def seconds(self) -> float:
        """What everything that waits for the device is expected to take."""
        return sum(queue.seconds() for queue in self._queues)

    def take(self) -> None:
        """Wait for the turn."""
        if self.take_if_free():
            return
        mine = threading.Lock()
        mine.acquire()
        with self._lock:
            if not self._held:
                self._held = True
                return
            self._asked.append(mine)
        mine.acquire()  # whoever gives it releases this one

    def take_if_free(self) -> bool:
        """Take the turn where nobody has it."""
        with self._lock:
            if self._held:
                return False
            self._held = True
            return True

    def give(self) -> None:
        """Give it to whoever asked first."""
        with self._lock:
            if self._asked:
                self._asked.popleft().release()
            else:
                self._held = False
