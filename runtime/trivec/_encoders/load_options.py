"""What `load` was asked for, kept for pickling and for messages."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trivec._engine.devices import Provider
from trivec._model.find import find
from trivec._model.hub import Repository
from trivec._model.integrity import sha256
from trivec._model.source import Folder, Source


@dataclass(frozen=True)
class LoadOptions:
    """Resolved options of one `load` call."""

    name: str
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    revision: str | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    token: str | bool | None = None
    prompts: Mapping[str, str] | None = None
    default_prompt_name: str | None = None
    truncate_dim: int | None = None
    max_active_dims: int | None = None
    similarity_fn_name: str | None = None
    task: str | None = None
    providers: tuple[Provider, ...] | None = None
    """Given by hand; the device is then "auto"."""
    layout: str = "auto"
    """"rows", "mixed" or "auto": see `load`."""
    files: Mapping[str, Path] | None = None
    """Where each of the model's files lies."""
    reopen: Callable[..., Any] | None = None
    """What opens the encoder again, from these options and what `__reduce__` adds to them."""

    def find(self, name_or_folder: str | os.PathLike[str]) -> Source:
        """The model's files: a folder, or a repository on the Hub.

        Raises:
            ModelNotFoundError: there is neither.
        """
        return find(
            name_or_folder,
            revision=self.revision,
            cache_dir=self.cache_dir,
            local_files_only=self.local_files_only,
            token=self.token,
        )

    def opened(self, source: Source, precision: str, layout: str, files: Mapping[str, Path]) -> "LoadOptions":
        """What a pickle names: the folder wherever it is unpickled, the commit and not the branch, the very graph."""
        return replace(
            self,
            name=str(source.root.absolute()) if isinstance(source, Folder) else source.name,
            revision=source.revision if isinstance(source, Repository) else self.revision,
            precision=precision,
            layout=layout,
            files=files,
        )

    def digest(self, path: str) -> str:
        """sha256 of one of the model's files that no manifest vouches for."""
        return sha256((self.files or {})[path])
