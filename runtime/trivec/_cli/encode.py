"""`trivec encode`: texts from a file or stdin to vectors in a file, in bounded memory.

A file is read twice: first to its end, to check and count its rows, so that a bad last row costs seconds and not the
hours before it; then in windows. What is done is kept beside the output, as `trivec.store` does it, until that is
complete.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from trivec._cli.load_options import load_options
from trivec._encoders.named_call import METHODS, spelled_out
from trivec._encoders.protocol import Encoder
from trivec._errors import InputError, NonFiniteError, TruncationError
from trivec._open import is_hosted, open_encoder
from trivec._system.progress import progress_bar
from trivec._system.streams import is_terminal, tell
from trivec._system.text_files import open_texts
from trivec._vectors.heads import HEADS
from trivec.store._formats import FORMATS
from trivec.store._jsonl import said_first, write_lines
from trivec.store._schema import Head, Vectors, rows_of
from trivec.store._write import Encoded, check_target, head_of, in_step, write_blocks

WINDOW = 1024  # texts and vectors in memory at once
_DENSE_OPTIONS = {
    "precision": "--output-precision",
    "normalize_embeddings": "--normalize",
    "truncate_dim": "--truncate-dim",
}


def encode(args: argparse.Namespace) -> int:
    """Run the command; `args` is what `_cli` parsed."""
    target = _target(args.output, args.input, force=args.force)
    texts = open_texts(args.input, args.column)
    with contextlib.closing(open_encoder(args.model, **load_options(args))) as encoder:
        method = METHODS[args.task]
        options = {"prompt_name": args.prompt_name, "prompt": args.prompt, **_options(encoder, args)}
        spelled = spelled_out(encoder, method, options)

        def run(block: list[str]) -> Vectors:
            vectors: Vectors = getattr(encoder, method)(block, **options)
            return vectors

        blank = run([])  # (0, D) of the output's type; a wrong option ends here, before anything is written
        head = head_of(encoder, spelled, blank)
        started, window = time.perf_counter(), args.window or WINDOW

        def encoded(rest: Iterator[str], before: int) -> Encoded:
            if is_hosted(args.model):  # what was answered before a failure is kept
                return in_step(encoder, rest, before, window, spelled)
            return _blocks(run, rest, before, window)

        with contextlib.closing(texts.read()) as rows, _bar(texts.total, args.progress) as advance:
            if target is None:
                count, resumed = _print(encoded(rows, 0), head, advance), 0
            else:
                _, count, resumed = write_blocks(
                    target,
                    head,
                    rows,
                    encoded,
                    overwrite=args.force,
                    strict=args.strict,
                    start_over="--force",
                    advance=advance,
                )
        _report(encoder, count, resumed, blank, time.perf_counter() - started)
    return 0


def _options(encoder: Encoder, args: argparse.Namespace) -> dict[str, Any]:
    """Keyword options of the model's own `encode`; an option of another kind of model raises."""
    common = {"on_overflow": args.on_overflow, "show_progress_bar": False}
    if args.batch_size is not None:
        common["batch_size"] = args.batch_size
    dense = {
        "precision": args.output_precision,
        "normalize_embeddings": args.normalize,
        "truncate_dim": args.truncate_dim,
    }
    if encoder.heads == ("dense",):
        if args.max_active_dims is not None:
            raise InputError("--max-active-dims is for sparse rows; this model gives dense vectors.")
        return {**common, **dense}
    if args.max_active_dims is None and set(dense) <= set(encoder.encode_options()):  # of tokens, say
        return {**common, **dense}
    given = [_DENSE_OPTIONS[name] for name, value in dense.items() if value not in (None, False, "float32")]
    if given:
        raise InputError(f"{', '.join(given)}: for models of dense vectors alone; this one is a {encoder!r}.")
    if args.max_active_dims is None:
        return common
    if "max_active_dims" not in encoder.encode_options():
        raise InputError(f"--max-active-dims is for sparse rows; {encoder!r} gives none.")
    return {**common, "max_active_dims": args.max_active_dims}


def _blocks(run: Callable[[list[str]], Vectors], rows: Iterator[str], count: int, window: int) -> Encoded:
    """Texts and their vectors, window by window; `count` texts came before them. A slow pipe holds no window back."""
    while block := list(islice(rows, window)):
        try:
            vectors = run(block)
        except (InputError, TruncationError, NonFiniteError) as error:
            raise type(error)(f"in the block that starts at text {count} (counted from 0): {error}") from error
        yield block, vectors
        count += len(block)


def _print(blocks: Encoded, head: Head, advance: Callable[[int], object]) -> int:
    """Write lines of JSON to stdout; the number of texts."""
    count = 0
    for block, vectors in blocks:
        write_lines(sys.stdout.buffer, block, rows_of(vectors), {} if count else said_first(head))
        sys.stdout.buffer.flush()  # what is done is out, however the process ends
        count += len(block)
        advance(len(block))
    return count


def _report(encoder: Encoder, count: int, resumed: int, blank: Vectors, seconds: float) -> None:
    rate = (count - resumed) / max(seconds, 1e-9)
    there = [(head, part) for head, part in zip(HEADS, rows_of(blank).parts(), strict=True) if part is not None]
    if len(there) > 1:
        kind = " and ".join(head for head, _ in there)
    else:
        ((head, part),) = there
        kind = f"dim {part.shape[1]} {part.dtype}" if head == "dense" else f"dim {part.dim} {head}"
    before = f" ({resumed:,} of them done before)" if resumed else ""
    tell(
        f"{count:,} texts{before}, {kind}, {seconds:.1f} s, {rate:,.1f} texts/s "
        f"({encoder.precision} on {encoder.device})"
    )
    if encoder.truncated:
        tell(
            f"{encoder.truncated:,} of {count - resumed:,} texts were longer than {encoder.max_seq_length} tokens and "
            "were cut"
        )


@contextlib.contextmanager
def _bar(total: int | None, show: bool | None) -> Iterator[Callable[[int], object]]:
    """A progress bar's `update`; None shows one where stderr is a terminal."""
    with contextlib.closing(progress_bar(total, is_terminal() if show is None else show)) as bar:
        yield bar.update


def _target(out: str, source: str, *, force: bool) -> Path | None:
    """The file to write, or None for stdout; raises InputError where it must not or cannot be written."""
    if out == "-":
        if sys.stdout is None:
            raise InputError("stdout is closed, so that no vectors can go there. Name a file: -o vectors.jsonl")
        return None
    path = Path(out)
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"the output {out!r} is neither .npy, .npz (sparse), .jsonl nor .parquet, nor - for jsonl on stdout."
        )
    if path.exists() and source != "-" and Path(source).exists() and path.samefile(source):
        raise InputError(f"{out} is the input; it is not overwritten. Choose another name.")
    check_target(path, overwrite=force, start_over="--force")
    return path
