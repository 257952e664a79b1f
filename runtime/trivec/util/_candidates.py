"""The best rows of a corpus for each query, kept while the corpus goes by in blocks.

Scores of a block come fast and rounded: a matrix product rounds a row differently at another place of a block, so that
equal rows may differ in their last bits. What is kept of a row is therefore an interval that its true score lies in.
A row is dropped once `top_k` others lie above it for sure, and those that are left in the end are scored again, each by
itself. So what is found, and its order, does not depend on blocks, chunks or threads.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._vectors.rows import Array

Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Exact = Callable[[Ids, Ids], Doubles]
"""Keys (S,) of so many pairs: query numbers (S,) and corpus ids (S,)."""


class Keys(NamedTuple):
    """What the rows of a block are ranked by, for Q queries: values + offset, give or take error."""

    values: Array
    """(Q, B)"""
    error: Doubles
    """(Q,)"""
    offset: Doubles
    """(Q,) the same for all rows of a query."""


class Hits(NamedTuple):
    """The best of each query, best first, equal scores by lower id."""

    ids: Ids
    """(Q, min(top_k, M))"""
    scores: Array
    """(Q, min(top_k, M))"""


class Candidates:
    """The rows that may still be among the best of Q queries."""

    def __init__(self, queries: int, top_k: int, exact: Exact | None, shown: Callable[[Doubles], Array]) -> None:
        """Begin with none.

        Args:
            queries: Q.
            top_k: how many are wanted.
            exact: keys of single pairs; None: the keys that are offered are exact.
            shown: scores from exact keys, in the same order, as they are returned: what is equal then, is equal.
        """
        self._top_k = top_k
        self._limit = 2 * top_k + 64  # columns before rows are dropped: so that this is not done for every block
        self._exact = exact
        self._shown = shown
        self._ids = np.empty((queries, 0), dtype=np.int64)
        self._least = np.empty((queries, 0))
        self._most = np.empty((queries, 0))
        self._count = np.zeros(queries, dtype=np.int64)
        self._floor = np.full(queries, -np.inf)
        """(Q,) what top_k rows reach for sure."""

    def offer(self, keys: Keys, start: int) -> None:
        """Take what may be among the best of a block whose first row has the id `start`."""
        queries, width = keys.values.shape
        bar = self._bar(keys)  # (Q,)
        unknown = bool((self._floor == -np.inf).any()) and width > self._top_k  # then everything would be taken
        places = None if unknown else np.flatnonzero(keys.values >= bar[:, None])
        if places is None or (len(places) > queries * (self._top_k + 32) and width > self._top_k):
            last = width - self._top_k
            sure = np.partition(keys.values, last, axis=1)[:, last]  # (Q,) the block's own top_k-th
            bar = np.maximum(bar, (sure - 2 * keys.error).astype(bar.dtype))
            self._floor = np.maximum(self._floor, sure + keys.offset - keys.error)
            places = np.flatnonzero(keys.values >= bar[:, None])
        if not len(places):
            return
        rows, columns = np.divmod(places, width)
        values = keys.values.ravel()[places] + keys.offset[rows]
        self._append(rows, columns + start, values - keys.error[rows], values + keys.error[rows])
        if self._ids.shape[1] > self._limit:
            self._prune()
        if self._ids.shape[1] > self._limit:  # more rows than that are too close to tell apart
            self._settle()

    def best(self) -> Hits:
        """What was found. The last call of all."""
        self._prune()
        scores = self._settle()
        return Hits(self._ids, scores)

    def _bar(self, keys: Keys) -> Array:
        """(Q,) the least value that can matter still; where keys are exact, equal ones of later rows do not."""
        bar = (self._floor - keys.error - keys.offset).astype(keys.values.dtype)
        after = np.nextafter(bar, bar.dtype.type(np.inf))
        return np.where((keys.error > 0) | (self._floor == -np.inf), bar, after)

    def _append(self, rows: Ids, ids: Ids, least: Doubles, most: Doubles) -> None:
        """Add candidates, whose rows ascend."""
        counts = np.bincount(rows, minlength=len(self._count))
        first = np.cumsum(counts) - counts  # (Q,)
        columns = self._count[rows] + np.arange(len(rows)) - first[rows]
        self._count += counts
        width = int(self._count.max())
        self._ids = _widened(self._ids, width, -1)
        self._least = _widened(self._least, width, -np.inf)
        self._most = _widened(self._most, width, -np.inf)
        self._ids[rows, columns] = ids
        self._least[rows, columns] = least
        self._most[rows, columns] = most

    def _prune(self) -> None:
        """Drop what top_k others lie above."""
        last = self._ids.shape[1] - self._top_k
        if last > 0:
            self._floor = np.maximum(self._floor, np.partition(self._least, last, axis=1)[:, last])
        kept = (self._most >= self._floor[:, None]) & self._filled()
        order = np.argsort(~kept, axis=1, kind="stable")  # ids go on ascending
        self._take(order, kept.sum(1))

    def _settle(self) -> Array:
        """Keep the top_k of each query by exact keys; (Q, K) their scores, best first."""
        filled = self._filled()
        rows, columns = np.nonzero(filled)
        ids = self._ids[rows, columns]
        keys = self._most[rows, columns] if self._exact is None else self._exact(rows, ids)
        shown = self._shown(keys)
        table = np.full(filled.shape, -np.inf, dtype=shown.dtype)  # (Q, W)
        table[rows, columns] = shown
        self._least[rows, columns] = self._most[rows, columns] = keys
        last = np.where(filled, self._ids, np.iinfo(np.int64).max)
        order = np.lexsort((last, -table), axis=-1)[:, : self._top_k]  # (Q, K)
        self._take(order, np.minimum(self._count, self._top_k))
        if order.shape[1] == self._top_k:
            self._floor = np.maximum(self._floor, self._least.min(1))
        return np.take_along_axis(table, order, 1)

    def _filled(self) -> npt.NDArray[np.bool_]:
        return np.arange(self._ids.shape[1]) < self._count[:, None]  # (Q, W)

    def _take(self, order: Ids, count: Ids) -> None:
        """The columns of each row in an order, `count` (Q,) of them."""
        self._count = count
        order = order[:, : int(count.max(initial=0))]
        self._ids = np.take_along_axis(self._ids, order, 1)
        self._least = np.take_along_axis(self._least, order, 1)
        self._most = np.take_along_axis(self._most, order, 1)
        empty = ~self._filled()
        self._least[empty] = self._most[empty] = -np.inf


def _widened(table: Array, width: int, fill: float) -> Array:
    """(Q, W) with `width` columns, if it has fewer."""
    if width <= table.shape[1]:
        return table
    wider = np.full((len(table), width), fill, dtype=table.dtype)
    wider[:, : table.shape[1]] = table
    return wider
