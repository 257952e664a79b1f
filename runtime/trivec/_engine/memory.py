"""Out of memory: the token budget is halved once, the batch that failed runs in two, and then it is an error."""

import logging
import re
import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from trivec._system.forks import afresh_in_children

logger = logging.getLogger("trivec")
_LEAST = 512  # tokens; below, a GPU that someone else fills for a moment would leave an encoder slow for good
# onnxruntime's arenas, the C++ library's, CUDA's, cuBLAS' and cuDNN's words for it
_SAYS = re.compile(
    r"failed to allocate|out of memory|bfc_?arena|bad[_ ]alloc|STATUS_ALLOC_FAILED|available memory of \d+ is smaller",
    re.IGNORECASE,
)


def is_memory_error(error: BaseException) -> bool:
    """Whether a run failed for want of memory, by the class and the words of its error."""
    return isinstance(error, MemoryError) or _SAYS.search(str(error)) is not None


class Budget:
    """How many tokens one run of an encoder may hold; no limit until memory has run out once. Shared by threads."""

    def __init__(self) -> None:
        self.limit: int | None = None
        """Tokens of a run, once memory has run out."""
        self._largest = 0
        self.start_afresh()
        afresh_in_children(self)

    def start_afresh(self) -> None:
        """In a forked child: nobody holds the lock."""
        self._lock = threading.Lock()

    def of(self, tokens: int) -> int:
        """What is left of a caller's budget of tokens."""
        return tokens if self.limit is None else min(tokens, self.limit)

    def pieces(self, lengths: Sequence[int]) -> list[slice]:
        """Texts of these many tokens, in order, as runs that stay within the limit; a run has at least one text."""
        with self._lock:
            self._largest = max(self._largest, sum(lengths))
            limit = self.limit
        return [slice(0, len(lengths))] if limit is None else _cut(lengths, limit)

    def after_failure(self, lengths: Sequence[int], reason: str) -> list[slice] | None:
        """How to run texts whose run has just failed: in two; None where nothing smaller may be tried.

        The first failure sets the limit for good: half of the largest run so far, at least 512 tokens. A run that was
        already under way at that time, and is above the limit, is cut as well.
        """
        halves = _halves(lengths)
        tokens = sum(lengths)
        with self._lock:
            first = self.limit is None
            if len(lengths) < 2 or not (first or tokens > (self.limit or 0)):
                return None
            if first:
                self.limit = max(self._largest // 2, _LEAST, *(sum(lengths[half]) for half in halves))
        if first:
            logger.warning(
                "Memory ran out in a run of %d texts with %d tokens; this encoder's runs hold at most %d tokens from "
                "now on. A smaller batch_size avoids the failed run. onnxruntime said: %s",
                *(len(lengths), tokens, self.limit, reason),
            )
        return halves if first else _cut(lengths, self.limit or tokens)


def within(
    budget: Budget,
    lengths: Sequence[int],
    run: Callable[[slice], Sequence[npt.NDArray[np.float32]]],
    failure: Callable[[Exception, slice], Exception],
) -> list[npt.NDArray[np.float32]]:
    """Run texts of these lengths (N,) within the budget, in fewer at a time where memory runs out.

    Args:
        budget: of the encoder; it is halved at the first failure.
        lengths: tokens of each text; padding counts.
        run: computes the outputs of a slice of the texts; the first axis of each output is the texts.
        failure: makes the error to raise from what a run raised and its slice.

    Returns:
        The outputs of all texts, in their order.
    """
    parts: list[Sequence[npt.NDArray[np.float32]]] = []
    for piece in budget.pieces(lengths):
        try:
            parts.append(run(piece))
            continue
        except Exception as error:
            reason = " ".join(str(error).split())
            smaller = budget.after_failure(lengths[piece], reason) if is_memory_error(error) else None
            if smaller is None:
                raise failure(error, piece) from error
        for part in smaller:
            shifted = slice(piece.start + part.start, piece.start + part.stop)
            try:
                parts.append(run(shifted))
            except Exception as error:
                raise failure(error, shifted) from error
    if len(parts) == 1:
        return list(parts[0])
    try:
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    except MemoryError as error:
        raise failure(error, slice(0, len(lengths))) from error


def _cut(lengths: Sequence[int], limit: int) -> list[slice]:
    """Consecutive texts with at most so many tokens together, or one text alone."""
    edges, held = [0], 0
    for index, tokens in enumerate(lengths):
        if held and held + tokens > limit:
            edges.append(index)
            held = 0
        held += tokens
    return [slice(a, b) for a, b in zip(edges, [*edges[1:], len(lengths)], strict=True)]


def _halves(lengths: Sequence[int]) -> list[slice]:
    """Consecutive texts in two parts of about as many tokens; neither is empty where there are two texts."""
    held, half = 0, sum(lengths) / 2
    for index, tokens in enumerate(lengths[:-1], start=1):
        held += tokens
        if held >= half:
            return [slice(0, index), slice(index, len(lengths))]
    return [slice(0, len(lengths) - 1), slice(len(lengths) - 1, len(lengths))]
