"""A name to the files behind it: a folder, or a repository on the Hub."""

import contextlib
import os
from pathlib import Path

from trivec._errors import ModelNotFoundError
from trivec._model.hub import Repository
from trivec._model.source import Folder, Source

ORGANIZATION = "sentence-transformers"


def find(
    name_or_folder: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Source:
    """A folder if there is one by that name, else a Hub repository; a bare name means sentence-transformers/NAME first.

    Raises:
        ModelNotFoundError: neither exists.
    """
    name = os.fspath(name_or_folder)
    path, is_folder, is_there = Path(name), False, False
    with contextlib.suppress(OSError, RuntimeError):  # a name too long for a path, the home of an unknown user
        path = path.expanduser()
        is_folder, is_there = path.is_dir(), path.exists()
    if is_folder and name:
        return Folder(path)
    if is_there and name:
        raise ModelNotFoundError(f"{name} is a file. Expected a model folder or a Hub repository.")
    if (
        not name
        or isinstance(name_or_folder, os.PathLike)
        or path.is_absolute()
        or name.count("/") > 1
        or name[0] in ".~"
    ):
        raise ModelNotFoundError(f"there is no folder {name!r}. Expected a model folder or a Hub repository.")
    names = [name] if "/" in name else [f"{ORGANIZATION}/{name}", name]
    candidates = [
        Repository(n, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only, token=token)
        for n in names
    ]
    found = next((r for r in candidates if r.is_cached()), None) or next((r for r in candidates if r.is_on_hub()), None)
    if found is None:
        hint = "" if candidates[0].is_offline else " A private repository needs token= or `hf auth login`."
        raise ModelNotFoundError(
            f"there is no folder {name!r}, and no repository {' or '.join(names)} in {candidates[0].where()}.{hint}"
        )
    return found
