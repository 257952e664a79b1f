"""Standard streams that may be closed, missing, full or of a small alphabet: the work goes on without them."""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator

_ESCAPES = "trivec-escapes"


def is_heard() -> bool:
    """Whether there is a stderr that is open."""
    return sys.stderr is not None and not getattr(sys.stderr, "closed", False)


def is_terminal() -> bool:
    """Whether stderr is open, and a terminal."""
    return is_heard() and sys.stderr.isatty()


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Go on where stderr cannot be written to: its disk is full, or whoever read it is gone."""
    with contextlib.suppress(OSError, ValueError):
        yield


def tell(text: str, *, end: str = "\n") -> None:
    """A line for whoever watches stderr, if anybody does; `print` would write it to stdout where stderr is missing."""
    if is_heard():
        with unheard():
            print(text, end=end, file=sys.stderr, flush=True)


def prepare_streams() -> None:
    """Make a command's streams safe to use. stdin and stdout that are closed stay None, as Python has them.

    A closed descriptor is opened on the null device: else the next file that is opened, such as the output, would get
    its number, and what a library prints to stderr would land in it. What their encoding does not have is written
    as JSON escapes it, and bytes of a path that are no text as they are.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)
        os.close(number)
    if not is_heard():
        sys.stderr = _Nowhere()
    codecs.register_error(_ESCAPES, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPES)


class _Nowhere(io.TextIOBase):
    """Takes everything."""

    def write(self, text: str, /) -> int:
        """Drop it."""
        return len(text)


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    """The first character that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    number = ord(error.object[error.start])
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a path, as os.fsdecode keeps it
        return bytes([number - 0xDC00]), error.start + 1
    units = chr(number).encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)), error.start + 1
