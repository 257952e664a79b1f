"""Token ids of texts, end to end, and of those that run together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._vectors.ragged import row_numbers, take_rows


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids of B texts that run together."""

    ids: npt.NDArray[np.int64]
    """(T,) of all texts, end to end."""
    offsets: npt.NDArray[np.int64]
    """(B + 1,) where each text starts."""
    second: npt.NDArray[np.int64] | None = None
    """(B,) of rows of two parts: see `Tokens`."""

    @classmethod
    def of_rows(cls, ids: npt.NDArray[np.int64]) -> "Batch":
        """Rows of one length (B, S)."""
        return cls(ids.reshape(-1), np.arange(len(ids) + 1, dtype=np.int64) * ids.shape[1])

    def __len__(self) -> int:
        """Texts."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(B,) tokens of each text."""
        lengths: npt.NDArray[np.int64] = self.offsets[1:] - self.offsets[:-1]
        return lengths

    def part(self, some: slice) -> "Batch":
        """Texts that lie side by side."""
        offsets = self.offsets[some.start : some.stop + 1]
        second = None if self.second is None else self.second[some]
        return Batch(self.ids[offsets[0] : offsets[-1]], offsets - offsets[0], second)

    def rows(self) -> npt.NDArray[np.int64]:
        """(B, S) where all texts have one length, as a rows graph wants them."""
        return self.ids.reshape(len(self), len(self.ids) // len(self) if len(self) else 0)

    def positions(self) -> npt.NDArray[np.int64]:
        """(T,) the place of each token in its text."""
        return np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], self.lengths)

    def texts(self) -> npt.NDArray[np.int64]:
        """(T,) the text of each token."""
        return row_numbers(self.offsets)


class Tokens(NamedTuple):
    """Token ids of N texts, end to end."""

    ids: npt.NDArray[np.int64]
    """(T,) ids of all texts."""
    offsets: npt.NDArray[np.int64]
    """(N + 1,) where each text starts in `ids`."""
    truncated: npt.NDArray[np.bool_]
    """(N,) whether a text was longer than the model reads."""
    second: npt.NDArray[np.int64] | None = None
    """(N,) where a row's second part starts: of pairs, for a graph that reads token types, the tokens of type 1, which
    all follow those of type 0; of expanded queries, the tokens that nobody attends to. None: rows have one part."""

    @classmethod
    def of_ids(cls, rows: Sequence[npt.ArrayLike]) -> "Tokens":
        """Rows of ids, none of them cut."""
        arrays = [np.asarray(row, dtype=np.int64) for row in rows]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in arrays], out=offsets[1:])
        ids = np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)
        return cls(ids, offsets, np.zeros(len(arrays), dtype=np.bool_))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(N,) tokens of each text."""
        lengths: npt.NDArray[np.int64] = self.offsets[1:] - self.offsets[:-1]  # np.diff takes ten times as long for one
        return lengths

    def take(self, rows: npt.NDArray[np.intp]) -> Batch:
        """The ids of some texts, at least one."""
        second = None if self.second is None else self.second[rows]
        if len(rows) == 1:
            ids = self.of(int(rows[0]))
            return Batch(ids, np.array([0, len(ids)]), second)
        offsets, entries = take_rows(self.offsets, rows)
        return Batch(self.ids[entries], offsets, second)

    def of(self, row: int) -> npt.NDArray[np.int64]:
        """(S,) ids of one text."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]]
