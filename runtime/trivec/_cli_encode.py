"""`trivec encode`: texts from a file or stdin to vectors in a file, in bounded memory.

A file is read twice: first to its end, to check and count its rows, so that a bad last row costs seconds and not the
hours before it; then in windows. The output is written beside its final place and renamed when complete.
"""

import argparse
import contextlib
import json
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from trivec._encoders import DenseEncoder, EncodeOptions
from trivec._errors import InputError, NonFiniteError, TruncationError
from trivec._load import load
from trivec._read import Texts, open_texts

WINDOW = 1024  # texts and vectors in memory at once
Vectors = npt.NDArray[Any]


def encode(args: argparse.Namespace) -> int:
    """Run the command; `args` is what `_cli` parsed."""
    target = _target(args.output, args.input, force=args.force)
    texts = open_texts(args.input, args.column)
    with load(
        args.model, device=args.device, precision=args.precision, threads=args.threads, revision=args.revision
    ) as encoder:
        methods: dict[str | None, Callable[..., Any]] = {
            None: encoder.encode,
            "query": encoder.encode_query,
            "document": encoder.encode_document,
        }
        options: EncodeOptions = {
            "batch_size": args.batch_size,
            "precision": args.output_precision,
            "normalize_embeddings": args.normalize,
            "truncate_dim": args.truncate_dim,
            "on_overflow": args.on_overflow,
            "show_progress_bar": False,
        }

        def run(block: list[str]) -> Vectors:
            vectors: Vectors = methods[args.task](block, args.prompt_name, args.prompt, **options)
            return vectors

        blank = run([])  # (0, D) of the output's type; a wrong option ends here, before anything is written
        started = time.perf_counter()
        with _writer(target, blank) as writer, _bar(texts.total, args.progress) as advance:
            count = _stream(texts, run, writer, advance)
        _report(encoder, count, blank, time.perf_counter() - started)
    return 0


def _stream(
    texts: Texts, run: Callable[[list[str]], Vectors], writer: "Writer", advance: Callable[[int], object]
) -> int:
    """Encode and write window by window; the number of texts."""
    count = 0
    with contextlib.closing(texts.read()) as rows:
        while block := list(islice(rows, WINDOW)):
            try:
                vectors = run(block)
            except (InputError, TruncationError, NonFiniteError) as error:
                raise type(error)(f"in the block that starts at text {count} (counted from 0): {error}") from error
            writer.write(block, vectors)
            count += len(block)
            advance(len(block))
    return count


def _report(encoder: DenseEncoder, count: int, blank: Vectors, seconds: float) -> None:
    rate = count / max(seconds, 1e-9)
    print(
        f"{count:,} texts, dim {blank.shape[1]} {blank.dtype}, {seconds:.1f} s, {rate:,.1f} texts/s "
        f"({encoder.precision} on {encoder.device})",
        file=sys.stderr,
    )
    if encoder.truncated:
        print(
            f"{encoder.truncated:,} of {count:,} texts were longer than {encoder.max_seq_length} tokens and were cut",
            file=sys.stderr,
        )


@contextlib.contextmanager
def _bar(total: int | None, show: bool | None) -> Iterator[Callable[[int], object]]:
    """A progress bar's `update`; None shows one where stderr is a terminal."""
    if not (sys.stderr.isatty() if show is None else show):
        yield lambda _: None
        return
    from huggingface_hub.utils import tqdm

    with tqdm(total=total, desc="Texts", unit=" texts") as bar:
        yield bar.update


# ---- writing ---------------------------------------------------------------------------------------------------------


class Writer(Protocol):
    """Takes texts with their vectors, window by window."""

    def write(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Append vectors (B, D)."""

    def finish(self) -> None:
        """Complete the file."""


class NpyWriter:
    """A .npy file whose number of rows is known at the end: the header is of fixed size and written twice."""

    def __init__(self, stream: IO[bytes], blank: Vectors) -> None:
        self._stream, self._dtype, self._width, self._rows = stream, blank.dtype, blank.shape[1], 0
        stream.write(self._header())

    def write(self, _: Sequence[str], vectors: Vectors) -> None:
        """Append vectors (B, D)."""
        self._stream.write(np.ascontiguousarray(vectors).data)
        self._rows += len(vectors)

    def finish(self) -> None:
        """Write the header again, with the number of rows."""
        self._stream.seek(0)
        self._stream.write(self._header())

    def _header(self) -> bytes:
        """128 bytes of format version 1.0, as numpy.lib.format describes it."""
        fields = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._rows, self._width)}
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + f"{fields!r}".ljust(117).encode("ascii") + b"\n"


class JsonlWriter:
    """One {"text": ..., "embedding": [...]} a line. Nine digits give every float32 back exactly."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def write(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Append texts and their vectors (B, D)."""
        for text, row in zip(texts, vectors.tolist(), strict=True):
            numbers = [float(f"{x:.9g}") for x in row] if vectors.dtype.kind == "f" else row
            line = json.dumps({"text": text, "embedding": numbers}, ensure_ascii=False)
            self._stream.write(line.encode("utf-8") + b"\n")

    def finish(self) -> None:
        """Nothing to complete."""


def _target(out: str, source: str, *, force: bool) -> Path | None:
    """The file to write, or None for stdout; raises InputError where it must not or cannot be written."""
    if out == "-":
        return None
    path = Path(out)
    if path.suffix.lower() not in (".npy", ".jsonl"):
        raise InputError(f"the output {out!r} is neither .npy nor .jsonl, nor - for jsonl on stdout.")
    if not path.parent.is_dir():
        raise InputError(
            f"there is no folder {str(path.parent)!r} to write {path.name} to. Type: mkdir -p {path.parent}"
        )
    if path.exists():
        if source != "-" and Path(source).exists() and path.samefile(source):
            raise InputError(f"{out} is the input; it is not overwritten. Choose another name.")
        if path.is_dir() or not force:
            raise InputError(f"{out} exists. Choose another name{'' if path.is_dir() else ', or replace it: --force'}.")
    return path


@contextlib.contextmanager
def _writer(target: Path | None, blank: Vectors) -> Iterator[Writer]:
    if target is None:
        yield JsonlWriter(sys.stdout.buffer)
        return
    with _replacing(target) as stream:
        writer = NpyWriter(stream, blank) if target.suffix.lower() == ".npy" else JsonlWriter(stream)
        yield writer
        writer.finish()


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name when it is complete, and is gone if it never is."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            yield stream
        part.replace(path)
    except BaseException:  # Ctrl-C as well
        part.unlink(missing_ok=True)
        raise
