"""Which texts run, each once, and which run together: rows of one token length, up to a token budget."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.intp]


def plan(lengths: npt.ArrayLike, budget: int, most: int | None = None) -> list[Rows]:
    """Group texts into batches whose rows all have the same number of tokens.

    Equal lengths need neither padding nor a mask: a text's vector cannot depend on its neighbours, no token is
    computed in vain, and onnxruntime takes its flash attention kernel, which it refuses when there is a mask.

    Args:
        lengths: (N,) tokens of each text.
        budget: tokens a batch may hold; a batch has at least one row, however long.
        most: rows a batch may hold; None: any number.

    Returns:
        Index arrays that together hold 0..N-1 once each, longest texts first (the largest allocation comes first,
        and an out-of-memory shows at once).
    """
    counts = np.asarray(lengths, dtype=np.int64)  # (N,)
    if len(counts) == 1:
        return [np.zeros(1, dtype=np.intp)]
    order = np.argsort(-counts, kind="stable")  # (N,)
    edges = np.flatnonzero(np.diff(counts[order])) + 1
    batches: list[Rows] = []
    for group in np.split(order, edges) if len(order) else []:
        rows = max(1, budget // max(1, int(counts[group[0]])))
        rows = rows if most is None else min(rows, most)
        batches.extend(group[i : i + rows] for i in range(0, len(group), rows))
    return batches


def distinct(texts: Sequence[str]) -> tuple[Sequence[str], Rows | None]:
    """The texts that differ, in order of appearance, and which of them each text is, (N,); None where all differ."""
    first = dict.fromkeys(texts)
    if len(first) == len(texts):
        return texts, None
    place = {text: row for row, text in enumerate(first)}
    return list(first), np.fromiter((place[text] for text in texts), dtype=np.intp, count=len(texts))
