"""One call of an encoder: its texts, tokenized, and what its numbers must be."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._errors import NonFiniteError
from trivec._tokens.batch import Tokens
from trivec._vectors.arrays import Rows

TOKENS_PER_ROW = 64  # a run holds up to batch_size * 64 tokens: 2,048 at the default batch_size of 32
Overflow = Literal["truncate", "error"]


class Ready(NamedTuple):
    """Texts of a call, tokenized: each that differs once."""

    texts: Sequence[str]
    """The N texts as they came."""
    tokens: Tokens
    """Of the U texts that differ."""
    row_of: Rows | None
    """(N,) which of them each text is; None where all differ."""

    def spread(self, values: Any) -> Any:  # noqa: ANN401 - whatever takes an array of rows
        """U values, an array or vectors, to the N texts."""
        return values if self.row_of is None else values[self.row_of]


def in_processes(pool: object, device: object) -> bool:
    """Whether a call asks for processes: by a pool, or by a list of devices that is not empty."""
    return pool is not None or (isinstance(device, list | tuple) and len(device) > 0)


def check_finite(finite: npt.NDArray[np.bool_], texts: Sequence[str], variant: str) -> None:
    """Raise NonFiniteError, naming the first text whose vector (N,) is not finite."""
    if finite.all():
        return
    index = int(np.flatnonzero(~finite)[0])
    other = "the fp32 variant" if variant != "fp32" else "the checkpoint: its weights may hold NaN"
    raise NonFiniteError(
        f"{int((~finite).sum())} of {len(texts)} vectors are NaN or infinite, the first that of the text at index "
        f"{index}: {texts[index][:60]!r}. Check {other}."
    )
