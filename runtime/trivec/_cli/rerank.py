"""`trivec rerank`: documents of queries, from a file or stdin, ranked by a reranker, in bounded memory.

As `trivec encode`, it reads a file twice: first to its end, to check and count its pairs. What is done is kept beside
the output, as `trivec.store` does it, until that is complete.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from trivec._cli.load_options import load_options
from trivec._cli.rerank_rows import Pair, open_pairs
from trivec._errors import InputError, NonFiniteError, TruncationError
from trivec._open import open_reranker
from trivec._system.progress import progress_bar
from trivec._system.streams import is_terminal, tell
from trivec.integrations._rank_model import RankModel
from trivec.store._schema import Blocks, Head, Layout, rows_of
from trivec.store._write import Encoded, check_place, write_blocks

WINDOW = 1024  # pairs that are kept at a time: what an interruption can cost
_TREC = (".run", ".trec")
Scored = Iterator[tuple[Pair, float]]


def rerank(args: argparse.Namespace) -> int:
    """Run the command; `args` is what `_cli` parsed."""
    target = _target(args.output, args.input, force=args.force)
    trec = target is not None and target.suffix.lower() in _TREC
    pairs = open_pairs(args.input, args.query, args.column, whole_ids=trec)
    names = ("prompt_name", "prompt", "batch_size", "activation_fn", "on_overflow")
    options = {name: value for name in names if (value := getattr(args, name)) is not None}
    form = _trec_lines if trec else _json_line

    def write(stream: IO[bytes], head: Head, blocks: Blocks) -> None:  # noqa: ARG001 - of the vectors' formats
        for lines in _ranked(_scored_in(blocks), args, form):
            stream.write(lines)

    with contextlib.closing(open_reranker(args.model, **load_options(args))) as reranker:
        model, started = RankModel(reranker, options), time.perf_counter()
        head = Head(Layout("dense", 1, "float32"), model.fingerprint, engine=model.engine_fingerprint)

        def encoded(rest: Iterator[str], before: int) -> Encoded:  # noqa: ARG001 - pairs name themselves
            return _blocks(model, rest, args.window or WINDOW)

        with contextlib.closing(pairs.read()) as rows, _bar(pairs.total, args.progress) as advance:
            if target is None:
                count, resumed = _print(encoded(rows, 0), args, form, advance), 0
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
                    writer=write,
                )
        _report(model, count, resumed, time.perf_counter() - started)
    return 0


def _blocks(model: RankModel, rows: Iterator[str], window: int) -> Encoded:
    """Pairs and their scores (N, 1), window by window."""
    while block := list(islice(rows, window)):
        scores = np.zeros((len(block), 1), dtype=np.float32)
        start = 0
        for (query_id, query), group in groupby(map(Pair.of, block), key=lambda pair: pair[:2]):
            listed = list(group)
            try:
                ranked = model.rank(query, [pair.text for pair in listed])
            except (InputError, TruncationError, NonFiniteError) as error:
                first = listed[0].id
                raise type(error)(f"query {query_id!r}, documents from {first!r} on: {error}") from error
            for place in ranked:
                scores[start + place["corpus_id"], 0] = place["score"]
            start += len(listed)
        yield block, scores


# ---- what is written ---------------------------------------------------------------------------------------------


def _scored_in(blocks: Blocks) -> Scored:
    for block in blocks():
        yield from _scored(block.texts or [], rows_of(block.parts).dense)


def _scored(written: Sequence[str], scores: Any) -> Scored:  # noqa: ANN401 - (N, 1)
    for text, row in zip(written, scores, strict=True):
        yield Pair.of(text), float(row[0])


def _ranked(
    scored: Scored, args: argparse.Namespace, form: Callable[[Sequence[tuple[Pair, float]], bool], bytes]
) -> Iterator[bytes]:
    """What is written of each query, best document first, of equal ones the earlier."""
    for _, group in groupby(scored, key=lambda each: each[0].query_id):
        best = sorted(group, key=lambda each: -each[1])[: args.top_k]
        yield form(best, args.documents)


def _json_line(best: Sequence[tuple[Pair, float]], documents: bool) -> bytes:
    first = best[0][0]
    ranking = [
        {"id": pair.id, "score": _digits(score), **({"text": pair.text} if documents else {})} for pair, score in best
    ]
    line = {"query_id": first.query_id, "query": first.query, "ranking": ranking}
    return json.dumps(line, ensure_ascii=False).encode("utf-8") + b"\n"


def _trec_lines(best: Sequence[tuple[Pair, float]], _: bool) -> bytes:
    """Query, Q0, document, rank, score, and who ranked: what trec_eval reads."""
    lines = [
        f"{pair.query_id} Q0 {pair.id} {rank} {_digits(score)} trivec\n" for rank, (pair, score) in enumerate(best, 1)
    ]
    return "".join(lines).encode("utf-8")


def _digits(score: float) -> float:
    """As many digits as give a float32 back exactly."""
    return float(f"{score:.9g}")


def _print(
    blocks: Encoded,
    args: argparse.Namespace,
    form: Callable[[Sequence[tuple[Pair, float]], bool], bytes],
    advance: Callable[[int], object],
) -> int:
    """Write lines to stdout, each as soon as its query is complete; the number of pairs."""
    count = 0

    def scored() -> Scored:
        nonlocal count
        for block, scores in blocks:
            count += len(block)
            advance(len(block))
            yield from _scored(block, scores)

    for lines in _ranked(scored(), args, form):
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()  # what is done is out, however the process ends
    return count


def _report(model: RankModel, count: int, resumed: int, seconds: float) -> None:
    rate = (count - resumed) / max(seconds, 1e-9)
    before = f" ({resumed:,} of them done before)" if resumed else ""
    tell(f"{count:,} pairs{before}, {seconds:.1f} s, {rate:,.1f} pairs/s ({model.reranker!r})")
    if model.reranker.truncated:
        tell(
            f"{model.reranker.truncated:,} of {count - resumed:,} pairs were longer than the model reads, and were cut"
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
            raise InputError("stdout is closed, so that no ranks can go there. Name a file: -o ranks.jsonl")
        return None
    path = Path(out)
    if path.suffix.lower() not in (".jsonl", *_TREC):
        raise InputError(f"the output {out!r} is neither .jsonl, .run nor .trec, nor - for jsonl on stdout.")
    if path.exists() and source != "-" and Path(source).exists() and path.samefile(source):
        raise InputError(f"{out} is the input; it is not overwritten. Choose another name.")
    check_place(path, overwrite=force, start_over="--force")
    return path
