"""Texts and vectors of a stored corpus, as many of them as a map shows."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from trivec import store
from trivec._errors import InputError, NonFiniteError
from trivec._tokens.inputs import hint_of, one_by_one
from trivec._vectors.heads import record_of
from trivec._vectors.sparse import SparseVectors
from trivec.store import Vectors

Array = npt.NDArray[np.generic]
Rows = Array | SparseVectors
"""(N, D) numbers, or N rows of terms."""
Kind = Literal["dense", "sparse"]
_WINDOW = 4096  # rows that are read at a time


class Corpus(NamedTuple):
    """N rows of a file that has M of them."""

    vectors: Rows
    texts: list[str]
    """Their beginnings."""
    lengths: npt.NDArray[np.int64]
    """(N,) letters of each whole text."""
    rows: npt.NDArray[np.int64]
    """(N,) where in the file each is, from 0, ascending."""
    total: int
    """M."""
    fingerprint: str | None


@dataclass
class _Sample:
    """At most `limit` rows with the least of random keys, which rows get in order: a fair sample in one pass."""

    limit: int
    chars: int
    """Letters of a text that are kept."""
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    total: int = 0
    held: int = 0
    bound: float = 1.0
    """Keys from here on are too large."""
    parts: list["_Part"] = field(default_factory=list)

    def add(self, vectors: Rows, texts: Sequence[str]) -> None:
        """The next rows."""
        keys = self.rng.random(len(texts))
        taken = np.flatnonzero(keys < self.bound)
        kept = [texts[i] for i in taken.tolist()]
        part = _Part(
            keys[taken],
            self.total + taken,
            vectors if len(taken) == len(texts) else vectors[taken],
            [text[: self.chars] for text in kept],
            np.array([len(text) for text in kept], dtype=np.int64),
        )
        self.parts.append(part)
        self.total += len(texts)
        self.held += len(taken)
        if self.held > self.limit + max(self.limit, _WINDOW):
            self._drop()

    def finish(self) -> "_Part":
        """The rows that are left, in one piece."""
        self._drop()
        return self.parts[0]

    def _drop(self) -> None:
        """All rows but those of the least keys."""
        keys = np.concatenate([part.keys for part in self.parts])
        if len(keys) > self.limit:
            self.bound = float(np.partition(keys, self.limit)[self.limit])
        parts = [part.below(self.bound) for part in self.parts]
        self.parts.clear()
        self.parts.append(_joined(parts))
        self.held = len(self.parts[0].keys)


class _Part(NamedTuple):
    """Rows in order."""

    keys: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]
    vectors: Rows
    texts: list[str]
    lengths: npt.NDArray[np.int64]

    def below(self, bound: float) -> "_Part":
        """The rows whose keys are below a bound."""
        taken = np.flatnonzero(self.keys < bound)
        if len(taken) == len(self.keys):
            return self
        texts = [self.texts[i] for i in taken.tolist()]
        return _Part(self.keys[taken], self.rows[taken], self.vectors[taken], texts, self.lengths[taken])


def _joined(parts: list[_Part]) -> _Part:
    """Parts in one piece; the list is emptied on the way, so that no row is in memory twice for long."""
    if len(parts) == 1:
        return parts[0]
    keys, rows = np.concatenate([part.keys for part in parts]), np.concatenate([part.rows for part in parts])
    texts, lengths = [text for part in parts for text in part.texts], np.concatenate([part.lengths for part in parts])
    sparse = [part.vectors for part in parts if isinstance(part.vectors, SparseVectors)]
    if sparse:
        return _Part(keys, rows, SparseVectors.concatenate(sparse), texts, lengths)
    dense = [part.vectors for part in parts if isinstance(part.vectors, np.ndarray)]
    whole = np.empty((len(keys), dense[0].shape[1]), dtype=dense[0].dtype)
    parts.clear()
    start = len(keys)
    while dense:
        block = dense.pop()
        whole[start - len(block) : start] = block
        start -= len(block)
    return _Part(keys, rows, whole, texts, lengths)


def read_corpus(
    path: str | os.PathLike[str],
    texts: Iterable[str] | None,
    *,
    kind: Kind | None,
    limit: int,
    max_chars: int,
) -> Corpus:
    """Read a file once, in bounded memory: what a map of at most `limit` rows needs.

    Args:
        path: .parquet, .jsonl, .npy or .npz.
        texts: of its rows, where the file keeps none.
        kind: which vectors of several; None: the dense ones, if there are any.
        limit: rows that are kept, the same ones each time.
        max_chars: letters of a text that are kept.

    Raises:
        InputError: the file has no texts, or has them and was given others; texts and rows are not equally many; it
            holds vectors of tokens alone.
        NonFiniteError: a vector holds NaN or infinity; the row is named.
    """
    sample, fingerprint = _Sample(limit, max_chars), None
    given = None if texts is None else _strings(texts)
    for block in store.read_iter(path, window=_WINDOW):
        vectors = _chosen(block.vectors, kind, path)
        _check_finite(vectors, sample.total, path)
        sample.add(vectors, _texts_of(block.texts, given, len(vectors), sample.total, path))
        fingerprint = block.fingerprint
    if given is not None and (left := sum(1 for _ in given)):
        raise _other_number(path, f"{sample.total:,}", sample.total + left)
    if not sample.parts:
        sample.add(np.zeros((0, 1), dtype=np.float32), [])
    part = sample.finish()
    return Corpus(part.vectors, part.texts, part.lengths, part.rows, sample.total, fingerprint)


def _strings(texts: Iterable[str]) -> Iterator[str]:
    if isinstance(texts, str):
        raise InputError(f"texts must be an iterable of texts, got str {texts!r:.60}.")
    for number, text in enumerate(one_by_one(texts, "texts must be an iterable of texts")):
        if not isinstance(text, str):
            came = f"{type(text).__name__} at index {number}: {text!r:.60}"
            raise InputError(f"expected strings, got {came}.{hint_of(text)}")
        yield text


def _texts_of(
    own: list[str] | None, given: Iterator[str] | None, count: int, start: int, path: str | os.PathLike[str]
) -> list[str]:
    """The texts of the next rows."""
    if own is not None:
        if given is not None:
            raise InputError(f"{path} keeps its own texts. Leave out --texts (texts=None).")
        return own
    if given is None:
        raise InputError(f"{path} keeps no texts. Say where they are, one a line: --texts FILE.txt (texts=...).")
    found = list(islice(given, count))
    if len(found) < count:
        raise _other_number(path, f"more than {start + len(found):,}", start + len(found))
    return found


def _other_number(path: str | os.PathLike[str], rows: str, texts: int) -> InputError:
    return InputError(
        f"{path} has {rows} rows, and there are {texts:,} texts. Give the texts that were encoded, in the same order."
    )


def _chosen(vectors: Vectors, kind: Kind | None, path: str | os.PathLike[str]) -> Rows:
    """The vectors of a block that the map is of."""
    dense, sparse, _ = record_of(vectors).parts()
    found: list[tuple[Kind, Rows | None]] = [("dense", dense), ("sparse", sparse)]
    there = {name: rows for name, rows in found if rows is not None}
    if not there:
        raise InputError(
            f"{path} holds vectors of tokens alone (ColBERT): a map needs one vector a text. Encode with dense or "
            "sparse vectors."
        )
    wanted = kind or next(iter(there))
    if wanted not in there:
        raise InputError(
            f"{path} holds no {wanted} vectors, only {' and '.join(there)} ones. Leave out --vectors (vectors=None)."
        )
    return there[wanted]


def _check_finite(vectors: Rows, start: int, path: str | os.PathLike[str]) -> None:
    """Raise NonFiniteError unless all numbers are; sparse rows were checked when they were read."""
    if isinstance(vectors, SparseVectors) or vectors.dtype.kind != "f" or np.isfinite(vectors).all():
        return
    row = int(np.flatnonzero(~np.isfinite(vectors).all(1))[0])
    raise NonFiniteError(
        f"row {start + row} (from 0) of {path} holds NaN or infinity. Encode its text again, or leave the row out."
    )
