"""Where trivec keeps what it made itself: exports of `load(..., export=True)` and notes of checked files."""

import os
import sys
import tempfile
from pathlib import Path


def home() -> Path:
    """`TRIVEC_HOME`, else `trivec` in the user's cache folder."""
    chosen = os.environ.get("TRIVEC_HOME")
    if chosen:
        return Path(chosen).expanduser()
    try:
        user = Path.home()
    except RuntimeError:  # a container that runs under an id without an account
        return Path(tempfile.gettempdir()) / f"trivec-{os.getuid()}"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(user))) / "trivec"
    if sys.platform == "darwin":
        return user / "Library" / "Caches" / "trivec"
    chosen = os.environ.get("XDG_CACHE_HOME")
    return (Path(chosen) if chosen else user / ".cache") / "trivec"
