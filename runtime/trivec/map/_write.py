"""`write`: a page from a stored corpus."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from trivec._errors import InputError
from trivec._system.atomic import write_at_once
from trivec.map._corpus import Kind, read_corpus
from trivec.map._page import page
from trivec.map._points import Projection, check_projection, project

LIMIT = 50_000
MAX_CHARS = 1_000
_SUFFIXES = (".html", ".htm")


class Drawn(NamedTuple):
    """What `write` did."""

    path: Path
    rows: int
    """Texts on the map."""
    total: int
    """Texts in the file."""
    projection: str
    """In words, with the part of the variance that it shows."""
    size: int
    """Bytes of the page."""


def write(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    texts: Iterable[str] | None = None,
    projection: Projection = "pca",
    vectors: Kind | None = None,
    limit: int = LIMIT,
    max_chars: int = MAX_CHARS,
    overwrite: bool = False,
) -> Drawn:
    """Write a page with a stored corpus as a map. It appears in one step, when it is complete.

    Args:
        source: a file of `trivec.store`: .parquet, .jsonl, .npy or .npz.
        target: the .html file to write.
        texts: row i is of text i; for files that keep no texts (.npy, .npz).
        projection: "pca", the two directions in which the vectors differ most; or "tsne", which puts neighbours near
            each other, takes minutes for tens of thousands of texts, and needs trivec[map].
        vectors: "dense" or "sparse", of a file with both; None: dense ones, if there are any.
        limit: texts on the map at most; of more, a random sample, the same one each time.
        max_chars: letters of a text that the page has, shows and searches.
        overwrite: replace a page that is there.

    Raises:
        InputError: a file, texts or an option that cannot be used; the page is there already.
        NonFiniteError: a vector holds NaN or infinity.
        MissingExtraError: a package for the kind of file or for t-SNE is not installed.
        FileNotFoundError: no such file.
        OSError: the page cannot be written.
    """
    origin, path = Path(source), Path(target)
    _check_target(path, overwrite=overwrite)
    _check_counts(limit=limit, max_chars=max_chars)
    check_projection(projection)
    corpus = read_corpus(origin, texts, kind=vectors, limit=limit, max_chars=max_chars)
    plane = project(corpus.vectors, projection)
    data = page(origin.name, corpus, plane)
    _write(path, data)
    return Drawn(path, len(corpus.texts), corpus.total, plane.description, len(data))


def _check_target(path: Path, *, overwrite: bool) -> None:
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{str(path)!r} does not end in .html: a map is a page.")
    if not path.parent.is_dir():
        raise InputError(
            f"there is no folder {str(path.parent)!r} to write {path.name} to. Type: mkdir -p {path.parent}"
        )
    if path.is_dir():
        raise InputError(f"{path} is a folder. Choose another name.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists. Choose another name, or replace it: --force (overwrite=True).")


def _check_counts(**counts: object) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number of at least 1, got {value!r}.")


def _write(path: Path, data: bytes) -> None:
    try:
        write_at_once(path, data)
    except OSError as error:  # named as the page, not as what it is written to first
        raise OSError(error.errno, error.strerror, str(path)) from error
