"""Which texts share a request: as many as the service takes, by their number and by an estimate of their tokens."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from trivec._errors import ServiceError
from trivec._tokens.plan import distinct
from trivec._vectors.arrays import Array


def estimated_tokens(text: str) -> float:
    """Bytes of ASCII / 3 + other bytes of UTF-8 / 2: above what tokenizers make of prose, now and then below in code.

    On trivec's verification texts XLM-R's makes 0.15 to 0.85 of this in prose of 15 scripts, 1.3 in code.
    """
    if text.isascii():
        return len(text) / 3
    ascii_bytes = len(text.encode("ascii", "ignore"))
    return ascii_bytes / 3 + (len(text.encode()) - ascii_bytes) / 2


_MOST = 2.0  # tokens of a letter, of 4 bytes


class Budget:
    """What a request may hold; becomes less where a service says so, for good."""

    def __init__(self, inputs: int, tokens: float, body_bytes: int | None = None) -> None:
        """The service's own limits."""
        self.inputs, self.tokens, self._bytes = inputs, float(tokens), body_bytes

    def parts(
        self, texts: Sequence[str], order: Sequence[int], most: int | None = None, beside: float = 0.0
    ) -> Iterator[list[int]]:
        """Some of the texts, by index, a request at a time; each looks at what the budget is by then.

        Args:
            texts: all of them.
            order: which.
            most: texts of a request, where the caller wants fewer than the service takes.
            beside: tokens that count again with each text, such as those of a query.
        """
        inputs = self.inputs if most is None else min(self.inputs, most)
        letters = sum(len(texts[index]) for index in order)
        if self._bytes is None and 0 < len(order) <= inputs and _MOST * letters + beside * len(order) <= self.tokens:
            yield list(order)  # without a look at each
            return
        part: list[int] = []
        tokens, size = 0.0, 0
        for index in order:
            more, bytes_ = beside + estimated_tokens(texts[index]), self._size(texts[index])
            inputs = self.inputs if most is None else min(self.inputs, most)
            full = len(part) >= inputs or tokens + more > self.tokens
            if part and (full or (self._bytes is not None and size + bytes_ > self._bytes)):
                yield part
                part, tokens, size = [], 0.0, 0
            part.append(index)
            tokens, size = tokens + more, size + bytes_
        if part:
            yield part

    def within(self, texts: Sequence[str], *, by_count: bool) -> None:
        """From now on no more than this at once, which went through where more did not."""
        if by_count:
            self.inputs = min(self.inputs, len(texts))
        else:
            self.tokens = min(self.tokens, max(1.0, sum(map(estimated_tokens, texts))))

    def _size(self, text: str) -> int:
        """Bytes that a text takes in a request, and what stands around it."""
        return 0 if self._bytes is None else len(json.dumps(text, ensure_ascii=False).encode()) + 256


class Job:
    """Texts of a call, or of one window of it: each that differs is asked for once.

    Attributes:
        texts: those that differ, U of them, as they are sent.
        missing: which of them are to be asked for.
        cut: whether all of those are in a request already.
    """

    def __init__(self, texts: Sequence[str], first: int, *, together: bool) -> None:
        """Begin.

        Args:
            texts: the N texts.
            first: the place of the first one in the call.
            together: whether texts change each other's vectors, so that equal ones may differ.
        """
        self.count, self.first = len(texts), first
        self.texts, self._row_of = (texts, None) if together else distinct(texts)
        self.missing = list(range(len(self.texts)))
        self.cut = False
        self._vectors: Array | None = None  # (U, W)
        self._done = np.zeros(len(self.texts), dtype=np.bool_)  # (U,)

    def skip(self, rows: Sequence[int]) -> None:
        """Texts that are not asked for: their vectors are zeros."""
        self._done[list(rows)] = True

    def unknown(self) -> list[int]:
        """Which of them have no vector yet."""
        return np.flatnonzero(~self._done).tolist()

    def place(self, row: int) -> int:
        """Where in the call a text is first."""
        return self.first + (row if self._row_of is None else int(np.flatnonzero(self._row_of == row)[0]))

    def fill(self, rows: Sequence[int], vectors: Array) -> None:
        """Vectors (B, W) of some of the texts that differ."""
        if len(rows) == len(self.texts) > 1:  # all in one request: its own array, while a cached row is read-only
            self._vectors = vectors
            self._done[:] = True
            return
        if self._vectors is None:
            self._vectors = np.zeros((len(self.texts), vectors.shape[1]), dtype=vectors.dtype)
        elif self._vectors.shape[1] != vectors.shape[1]:
            raise ServiceError(
                f"vectors of {vectors.shape[1]} numbers came after some of {self._vectors.shape[1]}. Has the model "
                "changed? Vectors of a cache= go with the model that gave them: name another file."
            )
        self._vectors[list(rows)] = vectors
        self._done[list(rows)] = True

    @property
    def is_done(self) -> bool:
        """Whether every text has its vector."""
        return self.cut and bool(self._done.all())

    def vectors(self, width: int, dtype: np.dtype[Any]) -> Array:
        """(N, W), or (N, width) zeros where no text was asked for; as many rows from the first on as are done."""
        done, rows = self._done, self._vectors
        rows = np.zeros((len(self.texts), width), dtype=dtype) if rows is None else rows
        if self._row_of is not None:
            done, rows = done[self._row_of], rows[self._row_of]  # (N,), (N, W)
        return rows if done.all() else rows[: int(np.argmin(done))]

    @property
    def is_known(self) -> bool:
        """Whether its width shows in a vector."""
        return self._vectors is not None


class Batch(NamedTuple):
    """Texts of one request."""

    number: int
    """Among those of its call."""
    job: Job
    rows: list[int]

    @property
    def texts(self) -> list[str]:
        """As they are sent."""
        return [self.job.texts[row] for row in self.rows]
