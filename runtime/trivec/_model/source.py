"""Where a model's files come from: a folder, or a repository on the Hugging Face Hub.

Both answer the same two questions, `file(path)` and `names()`. The Hub's answers come from the cache first: where the
cache has a file, nothing touches the network. Everything of one load comes from one commit: that of the cache, else
the Hub's present one. What files a commit has is noted under `TRIVEC_HOME`, so that a second load asks nothing.
"""

import os
import stat
from pathlib import Path
from typing import Protocol

from trivec._errors import ModelFormatError
from trivec._model.integrity import check
from trivec._model.manifest import FileRef


class Source(Protocol):
    """A model's files by their path relative to its root."""

    name: str

    def file(self, path: str) -> Path | None:
        """The file on disk (downloaded if need be), or None where the model has no such file."""

    def names(self) -> list[str]:
        """Every file of the model."""

    def checked(self, ref: FileRef) -> Path:
        """The file on disk, as the manifest describes it."""


class Folder:
    """A local model folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.name = root.resolve(), str(root)  # the working directory and links may change

    def file(self, path: str) -> Path | None:
        """The file, or None.

        Raises:
            ModelFormatError: there is a pipe, a device or a socket: reading it might never end.
        """
        found = self.root / path
        try:
            mode = found.stat().st_mode
        except (OSError, ValueError):  # ValueError: no path can be called so
            return None
        if stat.S_ISDIR(mode):
            return None
        if not stat.S_ISREG(mode):
            raise ModelFormatError(f"{found} is no file but a pipe, a device or a socket. Copy the folder again.")
        check_links(self.root, path)
        return found

    def names(self) -> list[str]:
        """Files of the root and up to two folders below it: a model is no deeper, and a wrong folder may be huge."""
        found = (p for pattern in ("*", "*/*", "*/*/*") for p in self.root.glob(pattern))
        return sorted(p.relative_to(self.root).as_posix() for p in found if p.is_file())

    def checked(self, ref: FileRef) -> Path:
        """The file, after comparing it with the manifest."""
        check_links(self.root, ref.path)
        check(self.root / ref.path, ref)
        return self.root / ref.path


def check_links(root: Path, path: str) -> None:
    """Follow the links on the way to a file of a model folder, which may not lead out of it.

    In the Hub's cache they lead to its blobs: snapshots/COMMIT/FILE -> ../../blobs/DIGEST.

    Args:
        root: the folder, by its real path: it may be a link itself.
        path: of the file, relative to it.

    Raises:
        ModelFormatError: one leads elsewhere; the message names it, and where it leads.
    """
    place = root / path
    real = Path(os.path.realpath(place))
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else None
    if real.is_relative_to(root) or real.parent == blobs:
        return
    ways = [place, *place.parents][: len(Path(path).parts)]
    link = next((way for way in reversed(ways) if not Path(os.path.realpath(way)).is_relative_to(root)), place)
    raise ModelFormatError(
        f"{link} leads to {os.path.realpath(link)}, out of the model folder {root}. Copy the folder together with what "
        "its links lead to: cp -rL FOLDER COPY"
    )
