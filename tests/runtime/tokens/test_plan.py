"""Batches of one token length: every text once, within the budget, the longest first."""

from itertools import pairwise

import numpy as np
import pytest

from trivec._tokens.plan import plan


@pytest.mark.parametrize("seed", range(40))
def test_random_lengths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, int(rng.integers(1, 600)), size=int(rng.integers(0, 500)))
    budget = int(rng.integers(1, 3000))
    batches = plan(lengths, budget)
    assert sorted(int(row) for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        (length,) = {int(n) for n in lengths[batch]}  # one length a batch
        assert len(batch) == 1 or len(batch) * max(length, 1) <= budget
        assert list(batch) == sorted(batch)  # texts of equal length keep their order
    order = [int(lengths[batch[0]]) for batch in batches]
    assert order == sorted(order, reverse=True)
    for before, after in pairwise(batches):  # no batch could have held one row more
        if lengths[before[0]] == lengths[after[0]]:
            assert (len(before) + 1) * max(int(lengths[before[0]]), 1) > budget


def test_no_texts() -> None:
    assert plan([], 2048) == []


def test_by_hand() -> None:
    found = [batch.tolist() for batch in plan([3, 5, 3, 0, 5, 3, 0, 9], 6)]
    assert found == [[7], [1], [4], [0, 2], [5], [3, 6]]


def test_a_text_longer_than_the_budget_runs_alone() -> None:
    assert [batch.tolist() for batch in plan([10, 10], 1)] == [[0], [1]]


def test_indices_are_of_the_type_that_numpy_indexes_with() -> None:
    assert plan([1, 2, 1], 64)[0].dtype == np.intp
