"""Where trivec keeps what it made itself: exports of `load(..., export=True)` and notes of checked files."""

import os
import stat
import sys
import tempfile
from pathlib import Path

from trivec._errors import InputError


class NoHomeError(InputError, OSError):
    """There is no folder that is the user's own; an OSError, as for whoever keeps notes only where that is possible."""


def home() -> Path:
    """`TRIVEC_HOME`, else `trivec` in the user's cache folder; it need not be there, and may not be writable.

    Raises:
        NoHomeError: there is neither, nor a private folder among the temporary ones.
    """
    chosen = os.environ.get("TRIVEC_HOME")
    try:
        if chosen:
            return Path(chosen).expanduser()
        user = Path.home()
    except RuntimeError:  # a container that runs under an id without an account
        return _temporary()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(user))) / "trivec"
    if sys.platform == "darwin":
        return user / "Library" / "Caches" / "trivec"
    chosen = os.environ.get("XDG_CACHE_HOME")
    return (Path(chosen) if chosen else user / ".cache") / "trivec"


def expanded(path: str | os.PathLike[str], argument: str) -> Path:
    """A path whose "~" is the user's home.

    Raises:
        InputError: nobody knows where that is.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(
            f"{argument}={os.fspath(path)!r}: there is no such home folder. Give the whole path."
        ) from None


def _temporary() -> Path:
    """A folder among the temporary ones, made here, so that nobody else can put exports and notes into it before."""
    hint = "Set TRIVEC_HOME to a folder of your own."
    try:
        folder = Path(tempfile.gettempdir()) / f"trivec-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise NoHomeError(
            f"there is no home folder, and no temporary one that can be written ({error}). {hint}"
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise NoHomeError(f"there is no home folder, and others can write to {folder}, which is not used. {hint}")
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder
