"""A repository on the Hub, read through its local cache."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from trivec._errors import IntegrityError, ModelNotFoundError
from trivec._model.integrity import check
from trivec._model.manifest import FileRef
from trivec._model.source import Folder, check_links
from trivec._system.home import expanded, home
from trivec._system.streams import is_heard
from trivec._system.switches import is_on

TIMEOUT = 10  # seconds to wait for the Hub's answer about a repository; its client would wait for ever
T = TypeVar("T")
_forbidden: ContextVar[bool] = ContextVar("forbidden", default=False)


@contextlib.contextmanager
def never_asked(forbidden: bool = True) -> Iterator[None]:
    """Whatever is looked for meanwhile, the Hub is not asked; False changes nothing."""
    before = _forbidden.set(forbidden or _forbidden.get())
    try:
        yield
    finally:
        _forbidden.reset(before)


def offline_by() -> str:
    """The variable that forbids to ask the Hub: "TRIVEC_OFFLINE" or "HF_HUB_OFFLINE"; "": none does."""
    from huggingface_hub import constants

    if is_on("TRIVEC_OFFLINE"):
        return "TRIVEC_OFFLINE"
    return "HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else ""


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
        self._cache = None if cache_dir is None else expanded(cache_dir, "cache_dir")
        self._offline = local_files_only
        self._commit: str | None = None
        self._listing: list[str] | None = None

    @property
    def revision(self) -> str | None:
        """The commit that the files come from, once one is known; before that, what was asked for."""
        return self._commit or self._revision

    @property
    def is_offline(self) -> bool:
        """Whether the Hub may not be asked."""
        return self._offline or _forbidden.get() or bool(offline_by())

    def file(self, path: str) -> Path | None:
        """The file from the cache, else from the Hub; None where the repository has no such file."""
        found = self._find(path)
        if found is not None:
            check_links(found.parents[path.count("/")].resolve(), path)
        return found

    def _find(self, path: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.name, path, cache_dir=self._cache, revision=self.revision)
        if isinstance(cached, str):
            return Path(cached)
        listing = self._known_names()
        if cached is not None or self.is_offline or (listing is not None and path not in listing):
            return None
        return self._download(path, force=False)

    def names(self) -> list[str]:
        """Every file of the commit; where that was never listed and the Hub may not be asked, every cached file."""
        known = self._known_names()
        if known is None and not self.is_offline:
            self._ask_info()
            known = self._listing
        return known if known is not None else self._cached_names()

    def checked(self, ref: FileRef) -> Path:
        """The file; where the cached copy is damaged, it is fetched once more before giving up."""
        path = self.file(ref.path)
        if path is None:
            raise ModelNotFoundError(f"{ref.path} of {self.name} is not in {self.where()}.")
        try:
            check(path, ref)
            return path
        except IntegrityError as error:
            if self.is_offline:
                raise
            damage = str(error)
        try:
            path = self._download(ref.path, force=True) or path
        except ModelNotFoundError as error:
            raise IntegrityError(f"{damage} Fetching it anew failed: {error}") from None
        check(path, ref)
        return path

    def is_cached(self) -> bool:
        """Whether the cache has the repository at this revision; if so, its commit is the one that is read."""
        from huggingface_hub import errors, try_to_load_from_cache

        for probe in ("trivec.json", "modules.json", "config.json", "tokenizer.json"):
            try:
                found = try_to_load_from_cache(self.name, probe, cache_dir=self._cache, revision=self._revision)
            except errors.HFValidationError:
                return False
            if isinstance(found, str):
                self._commit = Path(found).parent.name
                return True
        return False

    def is_on_hub(self) -> bool:
        """Whether the Hub, if it may be asked, has the repository; if so, its present commit is the one to read."""
        return not self.is_offline and self._ask_info()

    @property
    def is_listed(self) -> bool:
        """Whether all files of the commit are known by name, and not only those that are cached."""
        return self._known_names() is not None

    def where(self) -> str:
        """Where the repository was looked for, in words."""
        if self.is_offline:
            return f"the cache (the Hub may not be asked: {offline_by() or 'local_files_only'})"
        return "the cache or on the Hub"

    def _ask_info(self) -> bool:
        """Learn the commit and its files from the Hub; False where the Hub has no such repository."""
        from huggingface_hub import HfApi, errors

        info = self._ask(
            lambda: HfApi().model_info(self.name, revision=self.revision, timeout=TIMEOUT, token=self._token),
            absent=(errors.RepositoryNotFoundError, errors.HFValidationError),
        )
        if info is None:
            return False
        self._commit = info.sha
        self._listing = sorted(sibling.rfilename for sibling in info.siblings or [])
        with contextlib.suppress(OSError):  # what is not noted is asked for again
            note = self._listing_note()
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps(self._listing), encoding="utf-8")
        return True

    def _known_names(self) -> list[str] | None:
        """The commit's files, as the Hub listed them in this load or an earlier one: a commit never changes."""
        if self._listing is None and self._commit is not None:
            with contextlib.suppress(OSError, ValueError):
                self._listing = json.loads(self._listing_note().read_text(encoding="utf-8"))
        return self._listing

    def _listing_note(self) -> Path:
        digest = hashlib.sha256(f"{self.name}\n{self._commit}".encode()).hexdigest()
        return home() / "listings" / f"{digest}.json"

    def _cached_names(self) -> list[str]:
        from huggingface_hub import try_to_load_from_cache

        for probe in ("modules.json", "config.json", "tokenizer.json"):
            found = try_to_load_from_cache(self.name, probe, cache_dir=self._cache, revision=self.revision)
            if isinstance(found, str):
                return Folder(Path(found).parent).names()
        return []

    def _download(self, path: str, *, force: bool) -> Path | None:
        from huggingface_hub import errors, hf_hub_download

        fetched = self._ask(
            lambda: hf_hub_download(
                self.name,
                path,
                revision=self.revision,
                cache_dir=self._cache,
                token=self._token,
                force_download=force,
            ),
            absent=(errors.EntryNotFoundError,),
        )
        if fetched is None:
            return None
        snapshot = Path(fetched).parents[path.count("/")]
        self._commit = snapshot.name
        self._note_commit(snapshot.parents[1] / "refs" / (self._revision or "main"))
        return Path(fetched)

    def _note_commit(self, ref: Path) -> None:
        """Note in the cache which commit the revision is, as downloading by the revision's name would have.

        Files are fetched by commit, so that all come from one; without the note the cache would have no `main`.
        """
        if ref.name == self._commit:
            return
        with contextlib.suppress(OSError):
            if not ref.exists() or ref.read_text() != self._commit:
                ref.parent.mkdir(parents=True, exist_ok=True)
                ref.write_text(str(self._commit))

    def _ask(self, call: Callable[[], T], absent: tuple[type[Exception], ...]) -> T | None:
        """Call the Hub; the errors `absent` give None, every other failure one error of one line."""
        from huggingface_hub import errors

        try:
            with _silent_where_unheard():
                return call()
        except errors.GatedRepoError:
            message = f"{self.name} is gated: accept its terms on the Hub, then type `hf auth login` or pass token=."
        except errors.LocalEntryNotFoundError as error:
            message = _failed(self.name, error.__cause__ or error)
        except errors.RevisionNotFoundError:
            message = f"{self.name} has no revision {self.revision!r} on the Hub."
        except absent:
            return None
        except errors.HfHubHTTPError as error:
            message = f"{self.name}: the Hub did not answer as expected: {_first_line(error)}"
        except (OSError, ValueError, getattr(errors, "HTTPError", OSError)) as error:
            message = _failed(self.name, error.__cause__ or error)
        raise ModelNotFoundError(message)  # outside of the handlers: the client's chain of tracebacks helps nobody


@contextlib.contextmanager
def _silent_where_unheard() -> Iterator[None]:
    """No progress bars where there is no stderr: the client's would raise."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if is_heard() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _failed(name: str, error: BaseException) -> str:
    return (
        f"{name}: the cache lacks files of it, and fetching them from the Hub failed ({_first_line(error)}). "
        "Check the network, HF_ENDPOINT and the cache folder."
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
