"""What reading a folder may take, however hostile it is: time, and memory by the folder's size. Measured on Linux."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 10
TIMES, MORE = 4, 200 << 20  # memory: times the folder's size, and bytes
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class OutOfBoundsError(Exception):
    """Reading a folder took too much."""


def most_bytes(folder: Path) -> int:
    """What reading a folder may take of memory."""
    return TIMES * sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) + MORE


@contextmanager
def bounded(most: int) -> Iterator[None]:
    """Raise OutOfBoundsError where the block takes too long, or more than so many bytes; even if it failed."""
    _RESET.write_text("5")  # the peak begins anew
    before, started = _peak(), time.process_time()  # of this process: others may work on the machine
    failed: BaseException | None = None
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - raised again below
        failed = error
    seconds, taken = time.process_time() - started, _peak() - before
    if seconds > SECONDS:
        raise OutOfBoundsError(f"it took {seconds:.1f} s") from failed
    if taken > most:
        raise OutOfBoundsError(f"it took {taken >> 20} MB, expected up to {most >> 20}") from failed
    if failed is not None:
        raise failed


def _peak() -> int:
    """Bytes of the greatest resident size since it was reset."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10
