"""What `load` was asked for, kept for pickling and for messages."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trivec._engine.devices import Provider
from trivec._errors import IntegrityError
from trivec._model.find import find
from trivec._model.held_file import HeldFile
from trivec._model.hub import Repository
from trivec._model.source import Folder, Source
from trivec._system.home import expanded


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
    file_name: str | None = None
    """The graph of a model without a manifest; None: by its name."""
    pooling: str | None = None
    """Of a model without modules.json; None: as its files tell."""
    engine: str = "auto"
    """"auto", "onnxruntime" or "openvino"."""
    low_memory: bool = False
    """Whether weights stay in the mapped file."""
    expect: str | None = None
    """The manifest's digest; "unverified": a manifest may leave digests out."""
    files: Mapping[str, HeldFile] | None = None
    """The model's files, by their path in it."""
    digests: Mapping[str, str] | None = None
    """In a pickle: their sha256, which whoever opens the model again must find."""
    reopen: Callable[..., Any] | None = None
    """What opens the encoder again, from these options and what `__reduce__` adds to them."""

    def find(self, name_or_folder: str | os.PathLike[str]) -> Source:
        """The model's files: a folder, or a repository on the Hub.

        Raises:
            ModelNotFoundError: there is neither.
            InputError: a revision of a folder is asked for.
        """
        return find(
            name_or_folder,
            revision=self.revision,
            cache_dir=self.cache_dir,
            local_files_only=self.local_files_only,
            token=self.token,
        )

    def opened(self, source: Source, precision: str, layout: str, files: Mapping[str, HeldFile]) -> "LoadOptions":
        """What a pickle names: the folder wherever it is unpickled, the commit and not the branch, the very graph.

        Raises:
            IntegrityError: these are the options of a pickle, and the files are others than its encoder's.
        """
        if self.digests is not None and self.digests != _digests(files):
            raise IntegrityError(
                f"{source.name} holds another model by now than the encoder that was pickled, or whose pool this is. "
                "Load that one again: trivec.load(...)"
            )
        return replace(
            self,
            name=str(source.root) if isinstance(source, Folder) else source.name,
            revision=source.revision if isinstance(source, Repository) else None,
            cache_dir=None if self.cache_dir is None else str(expanded(self.cache_dir, "cache_dir").absolute()),
            precision=precision,
            layout=layout,
            files=files,
            digests=None,
        )

    def portable(self) -> "LoadOptions":
        """As they go into a pickle."""
        return replace(self, files=None, digests=_digests(self.files or {}))

    def digest(self, path: str) -> str:
        """sha256 of one of the model's files that no manifest vouches for."""
        return (self.files or {})[path].sha256()


def _digests(files: Mapping[str, HeldFile]) -> dict[str, str]:
    return {path: file.sha256() for path, file in files.items()}
