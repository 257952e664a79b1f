"""Which rows run next: a window's share of every request, equal rows once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._tokens.batch import Tokens
from trivec._vectors.heads import HybridVectors, concatenated

_MEMORY = 4096  # tokens after which a measured speed counts for half


class DeadlineError(Exception):
    """A request's time was up before its rows ran."""


class Window(NamedTuple):
    """One run: which rows of which jobs, all of one key."""

    key: Hashable
    slices: "list[tuple[Job, int, int]]"
    """Job, first row, row behind the last."""
    tokens: int


@dataclass(slots=True, eq=False)
class Job:
    """The rows of one request, and what became of them."""

    tokens: Tokens
    """Of its N rows, at least one."""
    key: Hashable
    """What rows must have in common to run together."""
    arrived: float
    deadline: float
    """Seconds of the queue's clock."""
    lengths: list[int] = field(init=False)
    waiting: int = field(init=False)
    """Tokens that are in no window yet."""
    taken: int = 0
    """Rows that are in a window, or through."""
    gone: bool = False
    """Nobody waits for it any more."""
    error: BaseException | None = None
    started: float = 0.0
    """When its first rows ran."""
    seconds: float = 0.0
    """Of the windows that it was part of."""
    _made: list[HybridVectors] = field(default_factory=list)
    _finite: list[npt.NDArray[np.bool_]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lengths = [max(1, n) for n in self.tokens.lengths.tolist()]
        self.waiting = sum(self.lengths)

    @property
    def is_done(self) -> bool:
        """Whether all its rows are through."""
        return sum(map(len, self._finite)) == len(self.lengths)

    def take(self, stop: int) -> int:
        """Put its rows up to `stop` into a window; their tokens."""
        tokens = sum(self.lengths[self.taken : stop])
        self.taken, self.waiting = stop, self.waiting - tokens
        return tokens

    def add(self, made: HybridVectors, finite: npt.NDArray[np.bool_], seconds: float) -> None:
        """What a window made of its next rows."""
        self._made.append(made)
        self._finite.append(finite)
        self.seconds += seconds

    def vectors(self) -> HybridVectors:
        """What was made of its N rows, in order."""
        return concatenated(self._made)

    def finite(self) -> npt.NDArray[np.bool_]:
        """(N,) whether everything of a row is finite."""
        return self._finite[0] if len(self._finite) == 1 else np.concatenate(self._finite)


class Speed:
    """Tokens a second, as measured lately: each run counts by its tokens."""

    def __init__(self) -> None:
        self._tokens, self._seconds = 1.0, 1e-4  # until something ran: what a small model does

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self._tokens / self._seconds

    def add(self, tokens: int, seconds: float) -> None:
        """A run of so many tokens took so many seconds."""
        kept = _MEMORY / (_MEMORY + tokens) if self._tokens > 1.0 else 0.0
        self._tokens = kept * self._tokens + max(1, tokens)
        self._seconds = kept * self._seconds + max(1e-6, seconds)


def in_turn(jobs: Sequence[Job], now: float, served: dict[Hashable, int]) -> list[Job]:
    """The jobs of the key whose turn it is, those that have waited half their time first, then the oldest.

    Args:
        jobs: all that wait, oldest first.
        now: seconds.
        served: the last window of each key; a key that is not there had none.
    """
    ordered = sorted(jobs, key=lambda job: now - job.arrived < (job.deadline - job.arrived) / 2)
    if not ordered:
        return []
    urgent = now - ordered[0].arrived >= (ordered[0].deadline - ordered[0].arrived) / 2
    key = ordered[0].key if urgent else min(ordered, key=lambda job: served.get(job.key, 0)).key
    return [job for job in ordered if job.key == key]


def shared_out(jobs: Sequence[Job], budget: int) -> list[tuple[Job, int, int]]:
    """Rows of a window: for each job up to an equal share of the budget, and at least one; the rest to the oldest.

    A row that is longer than the budget runs alone.
    """
    stops = [job.taken for job in jobs]
    total, shares = 0, (budget // max(1, len(jobs)), budget)
    for share in shares:
        for place, job in enumerate(jobs):
            used = sum(job.lengths[job.taken : stops[place]])
            while stops[place] < len(job.lengths):
                length = job.lengths[stops[place]]
                if (total and total + length > budget) or (used and used + length > share):
                    break
                stops[place] += 1
                total, used = total + length, used + length
            if total >= budget:
                break
    return [(job, job.taken, stop) for job, stop in zip(jobs, stops, strict=True) if stop > job.taken]


def distinct_rows(slices: Sequence[tuple[Job, int, int]]) -> tuple[Tokens, list[npt.NDArray[np.intp]]]:
    """The rows that differ, and where each job's are among them."""
    if len(slices) == 1 and slices[0][1] == 0 and slices[0][2] == len(slices[0][0].lengths):
        return slices[0][0].tokens, [np.arange(slices[0][2])]
    place: dict[tuple[bytes, int], int] = {}
    rows: list[npt.NDArray[np.int64]] = []
    places: list[npt.NDArray[np.intp]] = []
    for job, first, stop in slices:
        found = []
        for row in range(first, stop):
            ids, second = job.tokens.of(row), job.tokens.second
            number = place.setdefault((ids.tobytes(), -1 if second is None else int(second[row])), len(rows))
            if number == len(rows):
                rows.append(ids)
            found.append(number)
        places.append(np.array(found, dtype=np.intp))
    tokens = Tokens.of_ids(rows)
    if slices[0][0].tokens.second is not None:  # jobs of one key are of one model
        tokens = tokens._replace(second=np.array([second for _, second in place], dtype=np.int64))
    return tokens, places
