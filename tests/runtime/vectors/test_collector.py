"""What runs make comes back in the texts' order, each vector held once."""

import tracemalloc

import numpy as np
from numpy.testing import assert_array_equal

from trivec._vectors.heads import Collector, HybridVectors
from trivec._vectors.multi import MultiVectors

COUNTS = np.random.default_rng(0).integers(0, 40, 500)  # (N,) vectors of a text, some of none
DIM = 32


def of(row: int) -> np.ndarray:
    return np.full((COUNTS[row], DIM), row, dtype=np.float32)


def collected(order: np.ndarray, size: int = 7) -> Collector:
    collector = Collector(len(COUNTS), COUNTS)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        parts = [of(row) for row in rows]
        made = MultiVectors(np.concatenate(parts), np.cumsum([0, *map(len, parts)]))
        collector.add(rows, HybridVectors(colbert=made), np.ones(len(rows), dtype=np.bool_))
    return collector


def test_vectors_of_tokens_come_back_in_order() -> None:
    order = np.random.default_rng(1).permutation(len(COUNTS))
    found = collected(order).vectors(None).colbert
    assert isinstance(found, MultiVectors)
    assert_array_equal(np.diff(found.offsets), COUNTS)
    for row in range(len(COUNTS)):
        assert_array_equal(found[row], of(row))
    again = np.array([3, 3, 0])
    repeated = collected(order).vectors(again).colbert
    assert isinstance(repeated, MultiVectors)
    for row, part in zip(again, repeated, strict=True):
        assert_array_equal(part, of(row))


def test_vectors_of_tokens_are_held_once() -> None:
    order = np.random.default_rng(2).permutation(len(COUNTS))
    whole = int(COUNTS.sum()) * DIM * 4  # bytes
    tracemalloc.start()
    try:
        found = collected(order).vectors(None).colbert
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(found, MultiVectors)
    assert found.vectors.nbytes == whole
    assert peak < 1.2 * whole


def test_what_one_run_made_of_all_texts_is_not_copied() -> None:
    collector = Collector(1, np.array([5]))
    made = MultiVectors(np.ones((5, DIM), dtype=np.float32), np.array([0, 5]))
    collector.add(np.array([0]), HybridVectors(colbert=made), np.ones(1, dtype=np.bool_))
    assert collector.vectors(None).colbert is made
