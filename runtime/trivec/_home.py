"""Where trivec keeps what it made itself: exports of `load(..., export=True)` and notes of checked files."""

import os
import sys
from pathlib import Path


def home() -> Path:
    """`TRIVEC_HOME`, else `trivec` in the user's cache folder."""
    chosen = os.environ.get("TRIVEC_HOME")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "trivec"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "trivec"
    return Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "trivec"
