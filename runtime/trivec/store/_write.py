"""`write`: texts to a file of vectors, through a journal from which it can go on."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NamedTuple

from trivec._encoders.named_call import Method, fingerprint_of_call, spelled_out
from trivec._encoders.protocol import Encoder
from trivec._encoders.windows import stream
from trivec._errors import InputError, TrivecError
from trivec.store._formats import FORMATS, check_kind, format_of, partial, sync_folder
from trivec.store._journal import Identity, Journal
from trivec.store._probe import probe_of
from trivec.store._schema import Blocks, Head, Layout, Vectors, rows_of

Encoded = Generator[tuple[list[str], Vectors], None, None]
"""Texts with their vectors, block by block."""


class Written(NamedTuple):
    """What `write` did."""

    path: Path
    rows: int
    """Texts in the file."""
    resumed: int
    """Of which so many were there from an interrupted run."""


def write(
    path: str | os.PathLike[str],
    encoder: Encoder,
    texts: Iterable[str],
    *,
    window: int = 1024,
    method: Method = "encode",
    resume: bool = True,
    overwrite: bool = False,
    strict: bool = False,
    progress: Callable[[int], object] | None = None,
    **options: Any,  # noqa: ANN401 - the encoder's own, which checks them
) -> Written:
    """Encode texts in bounded memory and write them to a file, whose suffix says how: see `trivec.store`.

    Row i of the file is text i. What is done is kept in PATH.partial, window by window, and PATH appears when it is
    complete. If this process is killed, interrupted or fails, the same call goes on where it ended: what was done is
    not encoded again, and the file is the same as without the interruption. The disk holds the vectors twice while PATH
    is put together.

    Args:
        path: .parquet, .jsonl, .npy (dense vectors) or .npz (sparse rows, or vectors of tokens).
        encoder: from `trivec.load` or `trivec.hosted.open`.
        texts: any iterable; it is read once, two windows at a time in memory.
        window: texts of a block: what is kept, and what a kill can cost.
        method: "encode", "encode_query" or "encode_document".
        resume: go on where an interrupted run of this model, these options and these texts ended. False: start over.
        overwrite: replace a file that is there; start over where PATH.partial is of another model or other options, and
            from the window on where it is of other texts.
        strict: an error where PATH.partial is of another engine (`encoder.engine_fingerprint`); otherwise the log warns
            of it, and how far its vectors may be from these, and PATH names both. The same where a hosted model has
            changed under its name, which its probe tells (`HostedEncoder.probe`, one request of each `write`).
        progress: called with the number of texts after each window (a progress bar's `update`).
        options: of the method: normalize_embeddings=True, precision="int8" ("float16" of vectors of tokens), pool=...

    Returns:
        The path, the rows of the file, and how many of them an earlier run had done.

    Raises:
        InputError: a path that cannot be used or is there already; PATH.partial is of another model, other options or
            texts; an option or a text that the encoder refuses. What is done is kept.
        MissingExtraError: a .parquet file, and pyarrow is not installed.
        OSError: the disk is full, for one. What is done is kept.
        TruncationError, NonFiniteError, ProviderError, WorkerError, ServiceError: as of `encode_iter`. What is done is
            kept.
    """
    target = Path(path)
    check_target(target, overwrite=overwrite)
    source = stream(texts, window, taker="write", alone="[text]")
    spelled = spelled_out(encoder, method, options)
    blank = encoder.encode([], **{name: value for name, value in spelled.items() if name not in ("pool", "device")})
    head = head_of(encoder, spelled, blank)

    def encoded(rest: Iterator[str], before: int) -> Encoded:
        return in_step(encoder, rest, before, window, spelled)

    return write_blocks(
        target, head, iter(source), encoded, resume=resume, overwrite=overwrite, strict=strict, advance=progress
    )


def head_of(encoder: Encoder, options: Mapping[str, Any], blank: Vectors) -> Head:
    """What a file of `encode(**options)` says of itself; a hosted model is asked for its probe.

    Args:
        encoder: who is called.
        options: as `spelled_out` gives them.
        blank: what the call gives for no texts.
    """
    fingerprint, engine = fingerprint_of_call(encoder, options), encoder.engine_fingerprint
    return Head(Layout.of(blank), fingerprint, engine=engine, probe=probe_of(encoder))


def fingerprint_of(encoder: Encoder, *, method: Method = "encode", **options: Any) -> str:  # noqa: ANN401
    """The fingerprint that `write(path, encoder, texts, method=method, **options)` puts into a file.

    Raises:
        InputError: an unknown method, prompt or task.
    """
    return fingerprint_of_call(encoder, spelled_out(encoder, method, options))


def check_target(path: Path, *, overwrite: bool, start_over: str = "overwrite=True") -> None:
    """Raise InputError where a file must not or cannot be written; MissingExtraError where pyarrow is missing."""
    format_of(path)
    check_place(path, overwrite=overwrite, start_over=start_over)


def check_place(path: Path, *, overwrite: bool, start_over: str) -> None:
    """Raise InputError where a file of any kind must not or cannot be written."""
    if not path.parent.is_dir():
        raise InputError(
            f"there is no folder {str(path.parent)!r} to write {path.name} to. Type: mkdir -p {path.parent}"
        )
    if path.is_dir():
        raise InputError(f"{path} exists. Choose another name.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists. Choose another name, or replace it: {start_over}.")


def write_blocks(
    path: Path,
    head: Head,
    texts: Iterator[str],
    encoded: Callable[[Iterator[str], int], Encoded],
    *,
    resume: bool = True,
    overwrite: bool = False,
    strict: bool = False,
    start_over: str = "overwrite=True",
    advance: Callable[[int], object] | None = None,
    writer: Callable[[IO[bytes], Head, Blocks], None] | None = None,
) -> Written:
    """Write what `encoded` makes of the texts that are not done yet.

    Args:
        path: the file, checked.
        head: its layout and fingerprints.
        texts: all of them.
        encoded: gives blocks, for the texts that are left and how many there were before them.
        resume: as of `write`.
        overwrite: as of `write`.
        strict: as of `write`.
        start_over: what to type for `overwrite`, for messages.
        advance: called with the number of texts after each block, and of those that were done.
        writer: writes a file of another kind, from blocks with their texts; None: its suffix says how.
    """
    keeps_texts = True
    if writer is None:
        check_kind(path, head.layout)
        form = FORMATS[path.suffix.lower()]
        keeps_texts, writer = form.keeps_texts, form.write
    place = path.absolute()  # whoever gives the texts may change the working directory
    identity = Identity(head.fingerprint or "", head.layout.stated(), keeps_texts)
    done = advance or (lambda _: None)
    keep = {"resume": resume, "overwrite": overwrite, "strict": strict}
    with Journal(partial(place), identity, head.engine, head.probe, **keep, start_over=start_over) as journal:
        left = journal.skip(texts, done)
        resumed = journal.rows
        try:
            with closing(encoded(left, resumed)) as blocks:
                for block, vectors in blocks:
                    journal.append(block, rows_of(vectors))
                    done(len(block))
            _join(place, journal, head._replace(rows=journal.rows, engine=journal.engine, probe=journal.probe), writer)
        except BaseException as error:  # Ctrl-C as well
            if journal.rows:
                error.add_note(
                    f"{journal.rows:,} texts are done and kept in {journal.path}: the same call goes on from there."
                )
            raise
        return Written(path, journal.rows, resumed)


def _join(path: Path, journal: Journal, head: Head, writer: Callable[[IO[bytes], Head, Blocks], None]) -> None:
    """Put the file together beside its place, and give it its name."""
    joined = path.with_name(f"{path.name}.partial.joined")
    try:
        with joined.open("wb") as stream:
            writer(stream, head, journal.blocks)
            stream.flush()
            os.fsync(stream.fileno())
        joined.replace(path)
    except BaseException:
        joined.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    journal.done()


def in_step(encoder: Any, texts: Iterator[str], before: int, window: int, options: dict[str, Any]) -> Encoded:  # noqa: ANN401
    """The blocks of `encode_iter`, each with its texts, which are read ahead of it."""
    held: deque[str] = deque()

    def recorded() -> Iterator[str]:
        for text in texts:
            held.append(text)
            yield text

    try:
        for vectors in encoder.encode_iter(recorded(), window=window, **options):
            rows = rows_of(vectors).rows
            yield [held.popleft() for _ in range(rows)], vectors
    except TrivecError as error:
        if before:
            error.add_note(f"Texts are counted from the {before:,} that an earlier run has done.")
        raise
