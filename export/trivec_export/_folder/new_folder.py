"""A folder that appears whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trivec._errors import InputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_new(out: Path) -> None:
    """Raise InputError if the folder exists already, or cannot be made: before hours of work, not after."""
    if out.exists():
        raise InputError(f"{out} exists already. Choose another folder, or delete it: rm -r {out}")
    with new_folder(out, keep=False):
        pass


@contextmanager
def new_folder(out: Path, *, keep: bool = True) -> Iterator[Path]:
    """A temporary folder beside `out`, renamed to `out` when the block ends well, and removed when it does not.

    Raises:
        InputError: it cannot be written, or the disk is full.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error}. Choose another folder.") from error
    try:
        yield temporary
        if keep:
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o777 & ~umask)  # mkdtemp makes it private
            temporary.rename(out)
    except OSError as error:
        if error.errno in _FULL:
            raise InputError(f"{out.parent} is full ({error}); nothing of the export is left there.") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
