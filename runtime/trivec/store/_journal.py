"""PATH.partial: what is done so far of a file that is being written.

Blocks are appended to it as records with checksums (`_records`). Whatever a kill, a full disk or a power cut leaves
behind the last record that counts is cut off when the next run opens the file, so no order of writes matters.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from trivec._engine.engine_drift import check_engine
from trivec._errors import InputError
from trivec._tokens.inputs import hint_of
from trivec._vectors.heads import HybridVectors
from trivec.store._locked import open_locked
from trivec.store._probe import check_probe
from trivec.store._records import MAGIC, Octets, packed, packed_block, records, unpacked_block
from trivec.store._schema import Block

_SYNC_SECONDS = 5.0  # a power cut costs what was done in so long; a kill costs nothing of it


class Identity(NamedTuple):
    """What two runs must have in common for one to go on where the other ended."""

    fingerprint: str
    layout: Mapping[str, object]
    """`asdict` of the Layout."""
    keeps_texts: bool


class _Mark(NamedTuple):
    """A block that counts."""

    rows: int
    digest: str
    """Of all texts up to its end."""
    end: int
    """Where its record ends in the file."""
    engine: str | None
    """What computed it; None where the record does not say."""
    probe: str | None
    """Of a hosted model, in the first block whose run asked for it; None of others."""


class Digest:
    """sha256 of texts, one after the other."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._count = 0

    def add(self, texts: Sequence[str]) -> str:
        """The digest of all texts so far, these included.

        Raises:
            InputError: something that is no text; its index among all is named.
        """
        for text in texts:
            if not isinstance(text, str):
                raise InputError(
                    f"expected strings, got {type(text).__name__} at index {self._count}: {text!r:.60}.{hint_of(text)}"
                )
            encoded = text.encode("utf-8", "surrogatepass")
            self._hash.update(len(encoded).to_bytes(8, "little"))
            self._hash.update(encoded)
            self._count += 1
        return self._hash.hexdigest()

    def copy(self) -> "Digest":
        """The same so far."""
        made = Digest()
        made._hash, made._count = self._hash.copy(), self._count
        return made


class Journal:
    """PATH.partial, open and locked. Closing it keeps the file, unless it has no rows or `done` was called.

    Attributes:
        path: the file.
        rows: texts whose vectors are in it.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity,
        engine: str | None = None,
        probe: str | None = None,
        *,
        resume: bool,
        overwrite: bool,
        start_over: str,
        strict: bool = False,
    ) -> None:
        """Go on with the file of an interrupted run, or begin one.

        Args:
            path: the file.
            identity: of this run.
            engine: of this run.
            probe: of this run's model; None where it has none.
            resume: go on where the run that left the file ended; otherwise begin anew.
            overwrite: begin anew where that run was another one, or go on from where its texts were others, instead of
                raising.
            start_over: what to type for `overwrite`, for messages.
            strict: go on with the blocks of no other engine or changed model; otherwise the log warns of them.

        Raises:
            InputError: the file is of another run, of another engine or a changed model and `strict`, or of another
                program, or another process writes it.
        """
        self.path, self.rows, self._identity, self._engine = path, 0, identity, engine
        self._overwrite, self._start_over, self._probe = overwrite, start_over, probe
        self._marks: list[_Mark] = []
        self._digest, self._done = Digest(), False
        self._start = self._end = 0  # of the blocks; of the file
        self._file = open_locked(path)
        try:
            found = _read_identity(path)
            if found is not None and resume and not overwrite:
                _check_identity(path, found, identity, start_over)
            if found == identity and resume:
                self._recover()
                for done in dict.fromkeys(mark.engine for mark in self._marks):
                    check_engine(f"what is done in {path}", done, engine, strict=strict, start_over=start_over)
                check_probe(f"what is done in {path}", self.probe, probe, strict=strict, start_over=f"rm {path}")
            else:
                self._file.truncate(0)
                self._put([MAGIC, *packed(identity._asdict())])
                self._start = self._end
                os.fsync(self._file.fileno())
            self._synced = time.monotonic()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        gone = self._done or self.rows == 0
        if not gone:
            with contextlib.suppress(OSError):  # what has ended the run may end the machine next
                os.fsync(self._file.fileno())
        if gone and os.name != "nt":  # while the lock is held; Windows lets no open file be removed
            self.path.unlink(missing_ok=True)
        self._file.close()
        if gone and os.name == "nt":
            self.path.unlink(missing_ok=True)

    def skip(self, texts: Iterator[str], advance: Callable[[int], object]) -> Iterator[str]:
        """Take from `texts` those whose vectors are there already; what is left of them.

        Where they are others from some block on, and overwriting is allowed, what is there of these blocks is dropped.

        Raises:
            InputError: they are not the texts that the interrupted run read.
        """
        start = 0
        for number, mark in enumerate(self._marks):
            before, part = self._digest.copy(), list(islice(texts, mark.rows))
            if self._digest.add(part) != mark.digest or len(part) < mark.rows:
                if not self._overwrite:
                    raise self._other_texts(start, part, mark)
                self._digest = before
                self._drop(number)
                return chain(part, texts)
            start += mark.rows
            advance(mark.rows)
        return texts

    def append(self, texts: Sequence[str], parts: HybridVectors) -> None:
        """Add a block.

        Raises:
            OSError: the disk is full, for one.
        """
        digest, kept = self._digest.add(texts), texts if self._identity.keeps_texts else None
        is_said = self._probe is None or any(mark.probe for mark in self._marks)
        probe = None if is_said else self._probe
        said = {"rows": len(texts), "texts": digest, "engine": self._engine, **({} if is_said else {"probe": probe})}
        self._put(packed_block(kept, parts, said))
        self._marks.append(_Mark(len(texts), digest, self._end, self._engine, probe))
        self.rows += len(texts)
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def blocks(self) -> Iterator[Block]:
        """The blocks, in order."""
        dim = self._identity.layout["sparse_dim"]
        with self.path.open("rb") as file:
            for record in islice(records(file), 1, 1 + len(self._marks)):
                yield unpacked_block(record, dim if isinstance(dim, int) else None)

    @property
    def engine(self) -> str | None:
        """What computed the blocks, several with ; between; None where one does not say."""
        engines = list(dict.fromkeys(mark.engine for mark in self._marks)) or [self._engine]
        return None if None in engines else "; ".join(map(str, engines))

    @property
    def probe(self) -> str | None:
        """Of the model that gave the first blocks that say so; None where none does."""
        return next((mark.probe for mark in self._marks if mark.probe is not None), self._probe)

    def done(self) -> None:
        """Nobody needs the file any more: it is removed when it is closed."""
        self._done = True

    def _recover(self) -> None:
        """Read what counts, and cut off the rest."""
        with self.path.open("rb") as file:
            for number, record in enumerate(records(file)):
                if number:
                    said = record.header
                    engine, probe = said.get("engine"), said.get("probe")
                    self._marks.append(_Mark(said["rows"], said["texts"], record.end, engine, probe))
                else:  # the first one says whose file it is
                    self._start = record.end
        self._drop(len(self._marks))

    def _drop(self, first: int) -> None:
        """Cut off the blocks from this one on, and whatever follows them."""
        del self._marks[first:]
        self.rows = sum(mark.rows for mark in self._marks)
        self._end = self._marks[-1].end if self._marks else self._start
        self._file.truncate(self._end)

    def _put(self, parts: Sequence[Octets]) -> None:
        """Write bytes at the end: unbuffered, so that closing has nothing left to write when the disk is full."""
        self._file.seek(self._end)
        try:
            for part in parts:
                rest = memoryview(part)
                while rest:
                    rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self._end += sum(map(len, parts))

    def _other_texts(self, start: int, part: Sequence[str], mark: _Mark) -> InputError:
        """What is wrong with the texts that should be those of a block."""
        what = f"texts {start:,} to {start + mark.rows - 1:,} (from 0) are not"
        if len(part) < mark.rows:
            what = f"the texts end after {start + len(part):,}, before"
        return InputError(
            f"{what} those done in {self.path}. Give the texts of the interrupted run again, or start over from there: "
            f"{self._start_over}"
        )


def short(fingerprint: str) -> str:
    """As much of a fingerprint as people compare."""
    return fingerprint[:12]


def _read_identity(path: Path) -> Identity | None:
    """Which run the file is of; None where it was cut off before it said so.

    Raises:
        InputError: it is something else.
    """
    with path.open("rb") as file:
        if not MAGIC.startswith(file.read(len(MAGIC))):
            raise InputError(
                f"{path} is in the way, and is no interrupted run of this version of trivec. Move it away, or choose "
                "another name."
            )
        file.seek(0)
        record = next(records(file), None)
    return None if record is None else Identity(**record.header)


def _check_identity(path: Path, found: Identity, wanted: Identity, start_over: str) -> None:
    """Raise InputError unless one run can go on where the other ended."""
    if found.fingerprint != wanted.fingerprint:
        raise InputError(
            f"{path} was begun with the fingerprint {short(found.fingerprint)}, and this call has "
            f"{short(wanted.fingerprint)}: another model, variant, prompt or option. Go on with what it was begun "
            f"with, or start over: {start_over}"
        )
    if found != wanted:
        raise InputError(
            f"{path} was begun for {_shown(found)}, and this call gives {_shown(wanted)}. Go on with the options it "
            f"was begun with, or start over: {start_over}"
        )


def _shown(identity: Identity) -> str:
    return ", ".join(f"{name} {value}" for name, value in identity.layout.items() if value is not None)
