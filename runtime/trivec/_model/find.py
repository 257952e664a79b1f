"""A name to the files behind it: a folder, or a repository on the Hub."""

import contextlib
import logging
import os
from pathlib import Path

from trivec._errors import InputError, ModelNotFoundError
from trivec._model.hub import Repository
from trivec._model.source import Folder, Source

logger = logging.getLogger("trivec")
ORGANIZATION = "sentence-transformers"


def find(
    name_or_folder: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Source:
    """A folder if there is one by that name, else a repository in the Hub's cache, else one on the Hub.

    A bare name means sentence-transformers/NAME, or a repository NAME that is in the cache: what looks like a folder
    that is missing is not looked for among everybody's repositories.

    Raises:
        ModelNotFoundError: neither exists.
        InputError: a revision of a folder is asked for.
    """
    name = os.fspath(name_or_folder)
    path, is_folder, is_there = Path(name), False, False
    with contextlib.suppress(OSError, RuntimeError):  # a name too long for a path, the home of an unknown user
        path = path.expanduser()
        is_folder, is_there = path.is_dir(), path.exists()
    if is_folder and name:
        if revision is not None:
            raise InputError(
                f"revision={revision!r} is for repositories on the Hub, and {name!r} is a folder{_here(path)}, which "
                "has none. Leave revision out."
            )
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
        raise ModelNotFoundError(
            f"there is no folder {name!r}{_here(path)}. Expected a model folder or a Hub repository."
        )
    if ":" in name:
        raise ModelNotFoundError(
            f"there is no folder {name!r}{_here(path)}, and no repository has a colon in its name. A hosted model, "
            f"provider:model, opens with trivec.hosted.open({name!r})."
        )
    names = [name] if "/" in name else [f"{ORGANIZATION}/{name}", name]
    candidates = [
        Repository(n, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only, token=token)
        for n in names
    ]
    cached = next((r for r in candidates if r.is_cached()), None)
    if cached is not None:
        logger.debug("%s is no folder; it is %s at commit %s, in the cache", name, cached.name, cached.revision)
        return cached
    asked, missing = candidates[0], f"there is no folder {name!r}{_here(path)}"
    try:
        is_on_hub = asked.is_on_hub()
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"{missing}; {error}") from None
    if not is_on_hub:
        bare = f", no repository {name} in the cache" if len(names) > 1 else ""
        hint = "" if asked.is_offline else " A private repository needs token= or `hf auth login`."
        raise ModelNotFoundError(f"{missing}{bare}, and no repository {asked.name} in {asked.where()}.{hint}")
    tell = logger.warning if len(names) > 1 else logger.debug
    tell("%s, and %s on the Hub is taken, at commit %s", missing, asked.name, asked.revision)
    return asked


def _here(path: Path) -> str:
    """Where a relative path was looked for, in words."""
    if not path.is_absolute():
        with contextlib.suppress(OSError):  # the working directory is gone
            return f" in {Path.cwd()}"
    return ""
