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

from trivec._encoders.named_call import METHODS, fingerprint_of_call, spelled_out
from trivec._encoders.text_encoder import TextEncoder
from trivec._errors import InputError, NonFiniteError, TruncationError
from trivec._load import load
from trivec._system.text_files import open_texts
from trivec._vectors.heads import HEADS
from trivec.store._formats import FORMATS
from trivec.store._jsonl import write_lines
from trivec.store._schema import Head, Layout, Vectors, rows_of
from trivec.store._write import Encoded, check_target, write_blocks

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
    with load(
        args.model, device=args.device, precision=args.precision, threads=args.threads, revision=args.revision
    ) as encoder:
        method = METHODS[args.task]
        options = {"prompt_name": args.prompt_name, "prompt": args.prompt, **_options(encoder, args)}

        def run(block: list[str]) -> Vectors:
            vectors: Vectors = getattr(encoder, method)(block, **options)
            return vectors

        blank = run([])  # (0, D) of the output's type; a wrong option ends here, before anything is written
        started, window = time.perf_counter(), args.window or WINDOW
        with contextlib.closing(texts.read()) as rows, _bar(texts.total, args.progress) as advance:
            if target is None:
                count, resumed = _print(_blocks(run, rows, 0, window), advance), 0
            else:
                head = Head(Layout.of(blank), fingerprint_of_call(encoder, spelled_out(encoder, method, options)), None)
                _, count, resumed = write_blocks(
                    target,
                    head,
                    rows,
                    lambda rest, before: _blocks(run, rest, before, window),
                    overwrite=args.force,
                    start_over="--force",
                    advance=advance,
                )
        _report(encoder, count, resumed, blank, time.perf_counter() - started)
    return 0


def _options(encoder: TextEncoder[Any], args: argparse.Namespace) -> dict[str, Any]:
    """Keyword options of the model's own `encode`; an option of another kind of model raises."""
    common = {"batch_size": args.batch_size, "on_overflow": args.on_overflow, "show_progress_bar": False}
    dense = {
        "precision": args.output_precision,
        "normalize_embeddings": args.normalize,
        "truncate_dim": args.truncate_dim,
    }
    if encoder.heads == ("dense",):
        if args.max_active_dims is not None:
            raise InputError("--max-active-dims is for sparse rows; this model gives dense vectors.")
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
    """Texts and their vectors, window by window; `count` texts came before them."""
    while block := list(islice(rows, window)):
        try:
            vectors = run(block)
        except (InputError, TruncationError, NonFiniteError) as error:
            raise type(error)(f"in the block that starts at text {count} (counted from 0): {error}") from error
        yield block, vectors
        count += len(block)


def _print(blocks: Encoded, advance: Callable[[int], object]) -> int:
    """Write lines of JSON to stdout; the number of texts."""
    count = 0
    for block, vectors in blocks:
        write_lines(sys.stdout.buffer, block, rows_of(vectors))
        count += len(block)
        advance(len(block))
    return count


def _report(encoder: TextEncoder[Any], count: int, resumed: int, blank: Vectors, seconds: float) -> None:
    rate = (count - resumed) / max(seconds, 1e-9)
    there = [(head, part) for head, part in zip(HEADS, rows_of(blank).parts(), strict=True) if part is not None]
    if len(there) > 1:
        kind = " and ".join(head for head, _ in there)
    else:
        ((head, part),) = there
        kind = f"dim {part.shape[1]} {part.dtype}" if head == "dense" else f"dim {part.dim} {head}"
    before = f" ({resumed:,} of them done before)" if resumed else ""
    print(
        f"{count:,} texts{before}, {kind}, {seconds:.1f} s, {rate:,.1f} texts/s "
        f"({encoder.precision} on {encoder.device})",
        file=sys.stderr,
    )
    if encoder.truncated:
        print(
            f"{encoder.truncated:,} of {count - resumed:,} texts were longer than {encoder.max_seq_length} tokens and "
            "were cut",
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


def _target(out: str, source: str, *, force: bool) -> Path | None:
    """The file to write, or None for stdout; raises InputError where it must not or cannot be written."""
    if out == "-":
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
