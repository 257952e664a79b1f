"""The arithmetic of a comparison: turns, ratios round by round, percentiles, and how much work a text is."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


class Spread(NamedTuple):
    """The middle of some figures, and how far they reach."""

    median: float
    low: float
    high: float


class Shape(NamedTuple):
    """The matrix products of a transformer encoder."""

    layers: int
    hidden: int
    inner: int
    head: int = 0
    """Multiply-adds a token after the last layer: a vocabulary's logits, vectors of tokens."""


def spread(values: Sequence[float] | Doubles) -> Spread:
    """Median, least and greatest of (R,)."""
    found = np.asarray(values, dtype=np.float64)  # (R,)
    return Spread(float(np.median(found)), float(found.min()), float(found.max()))


def turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Each name once a round, in every other round the other way about."""
    for number in range(rounds):
        yield from names if number % 2 == 0 else reversed(names)


def ratios(seconds: Sequence[float], other: Sequence[float]) -> Spread:
    """How many times as fast the first is, from both engines' seconds (R,) of the same rounds.

    The ratio is taken within each round, where both met the same machine, and the rounds' ratios are what the median is
    of: a machine that slows down halfway does not enter.
    """
    if len(seconds) != len(other):
        raise ValueError(f"{len(seconds)} rounds of one engine and {len(other)} of the other have no pairs.")
    return spread(np.asarray(other, dtype=np.float64) / np.asarray(seconds, dtype=np.float64))


def percentiles(values: Sequence[float] | Doubles) -> tuple[float, float, float]:
    """50th, 95th and 99th percentile, between neighbours linearly."""
    p50, p95, p99 = np.percentile(np.asarray(values, dtype=np.float64), (50, 95, 99))
    return float(p50), float(p95), float(p99)


def operations(lengths: Sequence[int] | npt.NDArray[np.int64], shape: Shape) -> float:
    """Floating-point operations of the matrix products for texts of so many tokens (N,), each encoded alone.

    A layer multiplies each token by four H x H matrices (query, key, value, output) and by two of H x I, and attention
    multiplies n x H by H x n and n x n by n x H; a multiply-add is two operations.
    """
    n = np.asarray(lengths, dtype=np.float64)  # (N,)
    weights = shape.layers * (4 * shape.hidden**2 + 2 * shape.hidden * shape.inner) + shape.head
    attention = shape.layers * 2 * n**2 * shape.hidden  # (N,)
    return float(2 * (n * weights + attention).sum())
