"""What the exporter says while it works: a line a step on stderr, one table at the end on stdout."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from trivec._system.streams import tell


class Progress:
    """Prints steps with their seconds, or nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A line when the step starts, its time when it ends."""
        start = time.perf_counter()
        self._print(f"{name} ... ", end="")
        try:
            yield
        except BaseException:
            self._print("failed")
            raise
        self._print(f"{time.perf_counter() - start:.1f} s")

    def say(self, text: str) -> None:
        """A line of its own."""
        self._print(text)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns aligned, the first to the left."""
        if self.quiet:
            return
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        for row in [header, *rows]:
            cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
            print("  ".join(cells).rstrip())

    def _print(self, text: str, end: str = "\n") -> None:
        if not self.quiet:
            tell(text, end=end)
