"""Where a model's files come from: a folder, or a repository on the Hugging Face Hub.

Both answer the same two questions, `file(path)` and `names()`. The Hub's answers come from the cache first: where the
cache has a file, nothing touches the network. Everything of one load comes from one commit.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from trivec._errors import IntegrityError, ModelNotFoundError
from trivec._integrity import check
from trivec._manifest import FileRef

ORGANIZATION = "sentence-transformers"
T = TypeVar("T")


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


class Repository:
    """A model repository on the Hub, through its local cache."""

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> None:
        self.name, self._revision, self._token = name, revision, token
        self._cache = None if cache_dir is None else Path(cache_dir)
        self._offline = local_files_only
        self._snapshot: Path | None = None

    @property
    def revision(self) -> str | None:
        """The commit that the files come from, once one is known; before that, what was asked for."""
        return self._snapshot.name if self._snapshot is not None else self._revision

    def file(self, path: str) -> Path | None:
        """The file from the cache, else from the Hub; None where the repository has no such file."""
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.name, path, cache_dir=self._cache, revision=self.revision)
        if isinstance(cached, str):
            return self._pin(path, Path(cached))
        if cached is not None or self._is_offline():  # known not to exist, or nowhere to ask
            return None
        return self._download(path, force=False)

    def names(self) -> list[str]:
        """Every file of the repository; offline, every file of the cached commit."""
        if not self._is_offline():
            from huggingface_hub import HfApi

            listed = self._ask(
                lambda: HfApi().list_repo_files(self.name, revision=self.revision, token=self._token), missing=None
            )
            if listed is not None:
                return sorted(listed)
        return Folder(self._snapshot).names() if self._snapshot is not None else []

    def checked(self, ref: FileRef) -> Path:
        """The file; where the cached copy is damaged, it is fetched once more before giving up."""
        path = self.file(ref.path)
        if path is None:
            raise ModelNotFoundError(
                f"{ref.path} of {self.name} is not in the cache, and the Hub may not be asked "
                "(local_files_only or HF_HUB_OFFLINE). Load it once with network access."
            )
        try:
            check(path, ref)
        except IntegrityError:
            if self._is_offline():
                raise
            path = self._download(ref.path, force=True) or path
            check(path, ref)
        return path

    def exists(self) -> bool:
        """Whether the cache or the Hub knows the repository."""
        from huggingface_hub import HfApi, try_to_load_from_cache

        probes = ("trivec.json", "modules.json", "config.json", "tokenizer.json")
        kwargs = {"cache_dir": self._cache, "revision": self._revision}
        if any(isinstance(try_to_load_from_cache(self.name, probe, **kwargs), str) for probe in probes):
            return True
        if self._is_offline():
            return False
        try:
            self._ask(lambda: HfApi().model_info(self.name, revision=self._revision, token=self._token), missing=None)
        except ModelNotFoundError as error:
            if isinstance(error.__cause__, _not_found_errors()):
                return False
            raise
        return True

    def _pin(self, path: str, file: Path) -> Path:
        """Remember the commit's folder: later files come from the same one."""
        if self._snapshot is None:
            self._snapshot = file.parents[path.count("/")]
        return file

    def _download(self, path: str, *, force: bool) -> Path | None:
        from huggingface_hub import hf_hub_download

        fetched = self._ask(
            lambda: hf_hub_download(
                self.name,
                path,
                revision=self.revision,
                cache_dir=self._cache,
                token=self._token,
                force_download=force,
            ),
            missing=None,
        )
        return None if fetched is None else self._pin(path, Path(fetched))

    def _is_offline(self) -> bool:
        from huggingface_hub import constants

        return self._offline or constants.HF_HUB_OFFLINE

    def _ask(self, call: Callable[[], T], missing: T | None) -> T | None:
        """Call the Hub; a file that does not exist gives `missing`, every other failure one clear error."""
        from huggingface_hub import errors

        try:
            return call()
        except errors.GatedRepoError as error:
            raise ModelNotFoundError(
                f"{self.name} is gated: accept its terms on the Hub, then `hf auth login` or pass token=."
            ) from error
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            raise ModelNotFoundError(
                f"{self.name!r} is neither a folder here nor a repository on the Hub (or it is private: pass token=)."
            ) from error
        except errors.RevisionNotFoundError as error:
            raise ModelNotFoundError(f"{self.name} has no revision {self._revision!r}.") from error
        except errors.LocalEntryNotFoundError as error:
            raise ModelNotFoundError(
                f"{self.name}: the Hub cannot be reached and the cache lacks a file: {error}. "
                "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE."
            ) from error
        except errors.EntryNotFoundError:
            return missing
        except (errors.HfHubHTTPError, OSError, getattr(errors, "HTTPError", OSError)) as error:
            raise ModelNotFoundError(f"{self.name}: the Hub did not answer as expected: {error}") from error


@functools.cache
def _not_found_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub import errors

    return (errors.RepositoryNotFoundError, errors.HFValidationError, errors.RevisionNotFoundError)


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
    path = Path(name).expanduser()
    if path.is_dir():
        return Folder(path)
    if path.exists():
        raise ModelNotFoundError(f"{name} is a file. Expected a model folder or a Hub repository.")
    if (
        not name
        or isinstance(name_or_folder, os.PathLike)
        or path.is_absolute()
        or name.count("/") > 1
        or name[0] in ".~"
    ):
        raise ModelNotFoundError(f"there is no folder {name!r}. Expected a model folder or a Hub repository.")
    kwargs = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
    names = [name] if "/" in name else [f"{ORGANIZATION}/{name}", name]
    for candidate in names:
        repository = Repository(candidate, **kwargs)  # type: ignore[arg-type]
        if repository.exists():
            return repository
    where = "the cache (the Hub may not be asked)" if local_files_only else "the cache or on the Hub"
    raise ModelNotFoundError(f"there is no folder {name!r}, and no repository {' or '.join(names)} in {where}.")
