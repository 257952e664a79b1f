"""Vectors of a comparison on disk, with what they took: a run that was stopped, or is repeated, goes on."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trivec import store
from trivec._encoders.named_call import Method
from trivec._encoders.protocol import Encoder
from trivec._system.atomic import write_at_once
from trivec._vectors.heads import Head, HybridVectors, record_of

_TIMED = 100  # queries, at most, that are encoded one at a time: of a hosted model each is a request
_SUFFIXES: dict[tuple[Head, ...], str] = {("dense",): ".npy", ("sparse",): ".npz", ("colbert",): ".npz"}


@dataclass(frozen=True)
class Effort:
    """What it took to encode texts, in the run that did it."""

    texts: int
    """Of which so many were encoded in that run, and not in one that was stopped before."""
    seconds: float
    tokens: int = 0
    """Of a hosted model."""
    asked: int = 0
    """Texts that its service was asked for."""
    query_ms: tuple[float, float] | None = None
    """Median and 95th percentile of a query alone."""


def kept(
    encoder: Encoder,
    texts: Sequence[str],
    method: Method,
    folder: Path,
    advance: Callable[[int], object] = lambda _: None,
) -> tuple[HybridVectors, Effort | None]:
    """Vectors of texts: from the folder where they are there, else made and put there, window by window.

    Args:
        encoder: whose.
        texts: N texts.
        method: "encode_query", of which some are timed one at a time, or "encode_document".
        folder: where files are kept; a file is found by the fingerprint of the call and by its texts.
        advance: called with the number of texts after each window.

    Returns:
        The vectors, and what they took; None where the process was killed before that was noted.

    Raises:
        Whatever `trivec.store` and the encoder raise. What is done is kept.
    """
    fingerprint = store.fingerprint_of(encoder, method=method)
    name = hashlib.sha256("\0".join([fingerprint, method, *texts]).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    path = folder / f"{name}{_SUFFIXES.get(encoder.heads, '.jsonl')}"
    note = folder / f"{name}.json"
    if not path.exists():
        before = _usage(encoder)
        timed = _timed(encoder, texts) if method == "encode_query" else None
        started = time.perf_counter()
        written = store.write(path, encoder, texts, method=method, progress=advance)
        seconds, after = time.perf_counter() - started, _usage(encoder)
        spent = (after[1] - before[1], after[0] - before[0])
        effort = Effort(written.rows - written.resumed, seconds, *spent, query_ms=timed)
        write_at_once(note, json.dumps(asdict(effort)).encode())
    return record_of(store.read(path, fingerprint=fingerprint).vectors), _noted(note)


def _timed(encoder: Any, queries: Sequence[str]) -> tuple[float, float] | None:  # noqa: ANN401 - an encoder's methods
    return query_ms(
        encoder.encode_query, queries, (lambda: encoder.usage.requests) if is_hosted_encoder(encoder) else None
    )


def _noted(note: Path) -> Effort | None:
    with suppress(OSError, ValueError, TypeError):  # no note, or no longer one: the figures are not known
        said = json.loads(note.read_bytes())
        return Effort(**{**said, "query_ms": None if said["query_ms"] is None else tuple(said["query_ms"])})
    return None


def query_ms(
    encode: Callable[[str], object], queries: Sequence[str], sent: Callable[[], int] | None = None
) -> tuple[float, float] | None:
    """Median and 95th percentile of the milliseconds of one query, an even sample of them one after the other.

    Args:
        encode: takes a query.
        queries: at least one.
        sent: counts requests, of a hosted model; an answer without one came from a cache, and does not count.

    Returns:
        None where none counts.
    """
    found = []
    if sent is None:
        encode(queries[0])  # what is lazy is open now
    for row in np.unique(np.linspace(0, len(queries) - 1, min(_TIMED, len(queries))).astype(int)).tolist():
        before, started = 0 if sent is None else sent(), time.perf_counter()
        encode(queries[row])
        if sent is None or sent() > before:
            found.append(1000 * (time.perf_counter() - started))
    if not found:
        return None
    median, late = np.percentile(found, (50, 95))
    return float(median), float(late)


def is_hosted_encoder(encoder: Encoder) -> bool:
    """Whether it counts requests and tokens."""
    return hasattr(type(encoder), "usage")


def _usage(encoder: Any) -> tuple[int, int]:  # noqa: ANN401 - of a hosted model
    """Texts that were answered and tokens, so far; of a local model none."""
    return (encoder.usage.texts, encoder.usage.tokens) if is_hosted_encoder(encoder) else (0, 0)
