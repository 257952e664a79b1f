"""Where a model's files come from: a folder, or a repository on the Hugging Face Hub.

Both answer the same two questions, `file(path)` and `names()`. The Hub's answers come from the cache first: where the
cache has a file, nothing touches the network. Everything of one load comes from one commit: that of the cache, else
the Hub's present one. What files a commit has is noted under `TRIVEC_HOME`, so that a second load asks nothing.
"""

from pathlib import Path
from typing import Protocol

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
        self.root, self.name = root, str(root)

    def file(self, path: str) -> Path | None:
        """The file, or None."""
        found = self.root / path
        return found if found.is_file() else None

    def names(self) -> list[str]:
        """Files of the root and up to two folders below it: a model is no deeper, and a wrong folder may be huge."""
        found = (p for pattern in ("*", "*/*", "*/*/*") for p in self.root.glob(pattern))
        return sorted(p.relative_to(self.root).as_posix() for p in found if p.is_file())

    def checked(self, ref: FileRef) -> Path:
        """The file, after comparing it with the manifest."""
        check(self.root / ref.path, ref)
        return self.root / ref.path
