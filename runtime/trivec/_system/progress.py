"""A progress bar on stderr, where one is wanted and somebody can see it."""

import logging
from typing import Any

from trivec._system.streams import is_heard, is_terminal, unheard

logger = logging.getLogger("trivec")


class Bar:
    """A tqdm bar, or none; what it counts goes on where stderr can no longer be written to."""

    def __init__(self, bar: Any = None) -> None:  # noqa: ANN401 - tqdm has no types
        self._bar = bar

    def update(self, count: int) -> None:
        """Show so many more."""
        if self._bar is not None:
            with unheard():
                self._bar.update(count)

    def close(self) -> None:
        """Show the last state."""
        if self._bar is not None:
            with unheard():
                self._bar.close()


def progress_bar(total: int | None, show: bool | None) -> Bar:
    """A bar over `total` texts; `show` None asks the level of the "trivec" logger, as sentence-transformers does.

    Only on a terminal, though: in the log of a server a bar is a line for each of its states.
    """
    if show is None:
        show = logger.getEffectiveLevel() in (logging.INFO, logging.DEBUG) and is_terminal()
    if not show or not is_heard():
        return Bar()
    from huggingface_hub.utils import tqdm

    bar = None
    with unheard():
        bar = tqdm(total=total, desc="Texts", unit=" texts")
    return Bar(bar)
