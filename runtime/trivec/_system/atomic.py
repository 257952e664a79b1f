"""Files that appear whole or not at all."""

import os
from pathlib import Path


def write_at_once(path: Path, data: bytes) -> None:
    """Write a file beside its place, and give it its name in one step; nothing is left where that fails.

    Raises:
        OSError: the disk is full, or the folder not writable.
    """
    temporary = path.with_name(f".trivec-{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
