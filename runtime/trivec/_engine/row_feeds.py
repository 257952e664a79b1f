"""What graphs of rows are fed: the inputs of texts of one length, cut and padded where a graph has a fixed shape."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._errors import ModelFormatError

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
SEEN = "seen"
"""The input (n,) of our own graphs that has the positions which tokens attend to; of others nobody takes note."""
# What a text graph may ask for beside input_ids; a row has no padding and one segment.
_EXTRA_INPUTS = ("attention_mask", "token_type_ids", "position_ids", SEEN)


def check_inputs(inputs: Sequence[str], graph: Path) -> None:
    """Raise ModelFormatError where a graph asks for more than a text."""
    past = [name for name in inputs if name.startswith("past_key")]
    if past:
        raise ModelFormatError(
            f"{graph} reads past_key_values ({len(past)} inputs, such as {past[0]}): it writes texts token by token, "
            "and the whole of a text has no past. Export the model with: trivec export"
        )
    unknown = [name for name in inputs if name != "input_ids" and name not in _EXTRA_INPUTS]
    if unknown or "input_ids" not in inputs:
        raise ModelFormatError(
            f"{graph} has the inputs {list(inputs)}; a model of texts has input_ids and at most "
            f"{', '.join(_EXTRA_INPUTS)}. Export the model with: trivec export"
        )


def feed(name: str, ids: Ids, second: Ids | None = None) -> Ids:
    """One graph input (B, S) for rows without padding; `second` (B,): where the second part of each starts.

    That is its tokens of type 1, or those that nobody attends to, where it is one and the same for all rows; the input
    `seen` is (n,).
    """
    if name == "input_ids":
        return ids
    if name == SEEN:
        return np.arange(ids.shape[1] if second is None else int(second[0]), dtype=np.int64)
    if name == "position_ids":
        return np.broadcast_to(np.arange(ids.shape[1], dtype=np.int64), ids.shape).copy()
    if name == "token_type_ids" and second is not None:
        return (np.arange(ids.shape[1]) >= second[:, None]).astype(np.int64)  # (B, S)
    return np.full_like(ids, 1 if name == "attention_mask" else 0)


class FixedShape(NamedTuple):
    """The shape (B, S) that a graph reads; None where it reads any."""

    rows: int | None
    tokens: int | None


def fixed_shape(shapes: Mapping[str, Sequence[int | str | None]], graph: Path) -> FixedShape | None:
    """What a graph's inputs fix; None where they fix nothing.

    Raises:
        ModelFormatError: the number of tokens is fixed, and there is no mask for what fewer are padded with.
    """
    shape = shapes.get("input_ids", ())
    if len(shape) != 2:
        return None
    rows, tokens = (size if isinstance(size, int) and size > 0 else None for size in shape)
    if tokens is not None and "attention_mask" not in shapes:
        raise ModelFormatError(
            f"{graph} reads texts of exactly {tokens} tokens and has no attention_mask, so others cannot be padded to "
            "it. Export the model with: trivec export"
        )
    return None if rows is None and tokens is None else FixedShape(rows, tokens)


def run_fixed(
    run: Callable[[Mapping[str, Ids]], list[Floats]],
    inputs: Sequence[str],
    ids: Ids,
    fixed: FixedShape,
    second: Ids | None = None,
) -> list[Floats]:
    """Run rows of equal length (B, S), S at most what is fixed, in pieces of the fixed shape; outputs as of (B, S).

    Args:
        run: one run of the graph.
        inputs: names.
        ids: (B, S).
        fixed: what the graph reads.
        second: (B,) where the tokens of type 1 start in each row; None: there are none.
    """
    count, length = ids.shape
    rows, tokens = fixed.rows or count, fixed.tokens or length
    padded = np.zeros((-(-count // rows) * rows, tokens), dtype=ids.dtype)  # (B', S'), whole pieces
    padded[:count, :length], padded[count:, :length] = ids, ids[-1]
    if second is not None:
        second = np.append(second, np.repeat(second[-1:], len(padded) - count))  # (B',)
    pieces: list[list[npt.NDArray[Any]]] = []
    for start in range(0, len(padded), rows):
        types = None if second is None else second[start : start + rows]
        feeds = {name: feed(name, padded[start : start + rows], types) for name in inputs}
        if "attention_mask" in feeds:
            feeds["attention_mask"][:, length:] = 0
        pieces.append(run(feeds))
    whole = [np.concatenate(arrays)[:count] for arrays in zip(*pieces, strict=True)]
    return [array[:, :length] if array.ndim == 3 else array for array in whole]  # of tokens (B, S, H), of texts (B, D)
