"""Which texts run, each once, and which run together: rows of one token length, up to a token budget."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from trivec._model.manifest import PACKED
from trivec._vectors.arrays import Rows

Item = TypeVar("Item", bound=Hashable)


def plan(
    lengths: npt.ArrayLike, budget: int, most: int | None = None, kinds: npt.ArrayLike | None = None
) -> list[Rows]:
    """Group texts into batches whose rows all have the same number of tokens.

    Equal lengths need neither padding nor a mask: a text's vector cannot depend on its neighbours, no token is
    computed in vain, and onnxruntime takes its flash attention kernel, which it refuses when there is a mask.

    Args:
        lengths: (N,) tokens of each text.
        budget: tokens a batch may hold; a batch has at least one row, however long.
        most: rows a batch may hold; None: any number.
        kinds: (N,) what the rows of a batch must have in common as well; None: nothing.

    Returns:
        Index arrays that together hold 0..N-1 once each, longest texts first (the largest allocation comes first,
        and an out-of-memory shows at once).
    """
    counts = np.asarray(lengths, dtype=np.int64)  # (N,)
    if len(counts) == 1:
        return [np.zeros(1, dtype=np.intp)]
    order = np.argsort(-counts, kind="stable") if kinds is None else np.lexsort((np.asarray(kinds), -counts))  # (N,)
    differ = np.diff(counts[order]) != 0  # (N - 1,)
    if kinds is not None:
        differ |= np.diff(np.asarray(kinds)[order]) != 0
    edges = np.flatnonzero(differ) + 1
    batches: list[Rows] = []
    for group in np.split(order, edges) if len(order) else []:
        rows = max(1, budget // max(1, int(counts[group[0]])))
        rows = rows if most is None else min(rows, most)
        batches.extend(group[i : i + rows] for i in range(0, len(group), rows))
    return batches


def distinct(texts: Sequence[Item]) -> tuple[Sequence[Item], Rows | None]:
    """The texts (or pairs) that differ, in order of appearance, and which of them each is, (N,); None: all differ."""
    first = dict.fromkeys(texts)
    if len(first) == len(texts):
        return texts, None
    place = {text: row for row, text in enumerate(first)}
    return list(first), np.fromiter((place[text] for text in texts), dtype=np.intp, count=len(texts))


_STEPS = ((64, 8), (256, 32), (1024, 64))
"""Up to so many tokens, padded lengths are multiples of so many: 8 sizes, 6 and 12; beyond, of 256."""


def plan_mixed(lengths: npt.ArrayLike, budget: int, most: int | None, layout: str, limit: int | None) -> list[Rows]:
    """Group texts of any lengths into batches; texts without tokens come by themselves.

    Args:
        lengths: (N,) tokens of each text.
        budget: tokens that a batch may hold, padding among them; a batch has at least one text, however long.
        most: texts that a batch may hold; None: any number.
        layout: "packed", where texts take what they have, or "padded", where they take what the longest has.
        limit: tokens that the graph can read at most; None: no limit.

    Returns:
        Index arrays that together hold 0..N-1 once each, longest texts first: texts of like lengths share a batch, so
        little of it is padding.
    """
    counts = np.asarray(lengths, dtype=np.int64)  # (N,)
    order = np.argsort(-counts, kind="stable")  # (N,)
    filled = int(np.count_nonzero(counts))
    ends = np.cumsum(counts[order[:filled]])  # (N',)
    batches: list[Rows] = []
    start = 0
    while start < filled:
        if layout == PACKED:
            stop = int(np.searchsorted(ends, (ends[start - 1] if start else 0) + budget, side="right"))
        else:
            stop = start + budget // padded_length(int(counts[order[start]]), limit)
        stop = min(max(stop, start + 1), filled if most is None else start + most, filled)
        batches.append(order[start:stop])
        start = stop
    return batches + ([order[filled:]] if filled < len(order) else [])


def padded_length(tokens: int, limit: int | None) -> int:
    """The row length for a longest text of so many tokens: one of few, and not above the model's positions."""
    step = next((step for most, step in _STEPS if tokens <= most), 256)
    rounded = -(-tokens // step) * step
    return rounded if limit is None else max(tokens, min(rounded, limit))
