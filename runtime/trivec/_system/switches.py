"""Environment variables that turn something on."""

import os


def is_on(name: str) -> bool:
    """Whether a variable is set, to anything but "" and "0"."""
    return os.environ.get(name, "0") not in ("", "0")
