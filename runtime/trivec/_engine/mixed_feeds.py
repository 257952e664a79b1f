"""Texts of different lengths in one run: what a packed or padded graph reads, and what its outputs are.

A *rows* graph takes rows of one length. A *packed* graph takes the tokens of all texts as one row, so nothing is
computed for padding; a *padded* one takes rows of the longest text's length, rounded up to one of few sizes, so that a
device sees few shapes. Both take the texts' lengths beside the tokens, and pool by weights of the tokens: every mode of
pooling but the maximum is a weighted sum.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trivec._engine.devices import PACKED
from trivec._engine.memory import within
from trivec._engine.session import Session, run_error
from trivec._errors import ModelFormatError
from trivec._model.manifest import Pooling
from trivec._pooling.dense import Floats
from trivec._tokens.plan import Rows
from trivec._tokens.tokenizer import Batch

POOLED = "pooled"
"""The output of a graph that pools by weights: (K, B, H)."""
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


def pool_weights(pooling: Pooling, lengths: npt.NDArray[np.int64], prompt_length: int) -> Floats | None:
    """What each token counts in each mode of pooling; None where a mode is no weighted sum (max).

    The weights are those of :func:`trivec._pooling.dense.pool`, which pools rows of one length.

    Args:
        pooling: its modes.
        lengths: (B,) tokens of each text, at least 1.
        prompt_length: leading tokens that are left out where `pooling.include_prompt` is False.

    Returns:
        (K, T) float32, T the sum of lengths.
    """
    if "max" in pooling.modes:
        return None
    skip = 0 if pooling.include_prompt else prompt_length
    rows = {length: _weights_of(pooling.modes, length, min(skip, length)) for length in np.unique(lengths).tolist()}
    if not rows:
        return np.zeros((len(pooling.modes), 0), dtype=np.float32)
    return np.concatenate([rows[length] for length in lengths.tolist()], axis=1)


def _weights_of(modes: Sequence[str], length: int, skip: int) -> Floats:
    """(K, S) of one text of S tokens, the first `skip` of which are left out."""
    found = np.zeros((len(modes), length), dtype=np.float32)
    count = max(length - skip, 1e-9)
    for row, mode in zip(found, modes, strict=True):
        if mode == "cls":
            row[skip if skip < length else 0] = 1
        elif mode == "lasttoken":
            row[length - 1] = skip < length
        elif mode == "weightedmean":
            positions = np.arange(skip + 1, length + 1, dtype=np.float32)  # they count from 1
            row[skip:] = positions / np.float32(max(float(positions.sum()), 1e-9))
        else:
            row[skip:] = np.float32(1 / (count if mode == "mean" else math.sqrt(count)))
    return found


def feeds_of(
    layout: str, batch: Batch, weights: Floats | None, names: Sequence[str], limit: int | None
) -> dict[str, npt.NDArray[Any]]:
    """Every input of a packed or padded graph.

    Args:
        layout: "packed" or "padded".
        batch: texts of at least one token each.
        weights: (K, T) for `pool_weight`; None: nothing is pooled, and one row of zeros takes its place.
        names: the inputs that the graph has.
        limit: tokens that the graph can read at most; None: no limit.

    Raises:
        ModelFormatError: the graph has an input of another name.
    """
    weights = np.zeros((1, len(batch.ids)), dtype=np.float32) if weights is None else weights
    made = every_feed(layout, batch, weights, limit)
    unknown = [name for name in names if name not in made]
    if unknown:
        raise ModelFormatError(
            f"a {layout} graph has the inputs {unknown}, of {list(made)} that this trivec knows. Type: "
            "pip install -U trivec"
        )
    return {name: made[name] for name in names}


def every_feed(layout: str, batch: Batch, weights: Floats, limit: int | None) -> dict[str, npt.NDArray[Any]]:
    """Every input that a graph of this layout may have; the arguments are those of `feeds_of`."""
    return _packed(batch, weights) if layout == PACKED else _padded(batch, weights, limit)


def _packed(batch: Batch, weights: Floats) -> dict[str, npt.NDArray[Any]]:
    lengths, positions, texts = batch.lengths, batch.positions(), batch.texts()
    width = int(lengths.max())
    places = texts * width + positions  # (T,) of the tokens in (B, Smax)
    padding = np.setdiff1d(np.arange(len(lengths) * width), places, assume_unique=True)
    return {
        "input_ids": batch.ids[None],  # (1, T)
        "position_ids": positions[None],  # (1, T)
        "token_offset": np.concatenate([places, padding]).astype(np.int32).reshape(len(lengths), width),  # (B, Smax)
        "cumulative_sequence_length": batch.offsets.astype(np.int32),  # (B + 1,)
        "token_row": texts,  # (T,)
        "pool_weight": weights,  # (K, T)
    }


def _padded(batch: Batch, weights: Floats, limit: int | None) -> dict[str, npt.NDArray[Any]]:
    lengths, places = batch.lengths, (batch.texts(), batch.positions())
    width = padded_length(int(lengths.max()), limit)
    # A text's own first token as padding: whatever a strange token may overflow to, it is not computed for nothing.
    ids = np.repeat(batch.ids[batch.offsets[:-1]][:, None], width, axis=1)  # (B, S)
    ids[places] = batch.ids
    spread = np.zeros((len(weights), len(lengths), width), dtype=np.float32)  # (K, B, S)
    spread[:, places[0], places[1]] = weights
    return {"input_ids": ids, "lengths": lengths.astype(np.int32), "pool_weight": spread}


def run_mixed(
    session: Session, batch: Batch, wanted: Mapping[str, bool], weights: Floats | None, limit: int | None
) -> dict[str, Floats]:
    """Run texts of any lengths once, or in parts where memory runs out.

    Args:
        session: an open packed or padded graph.
        batch: texts of at least one token each.
        wanted: outputs, and whether they have something for each token, rather than for each text.
        weights: (K, T) by which the graph pools; needed for `POOLED`.
        limit: tokens that the graph can read at most.

    Returns:
        (T, ...) of an output of tokens, (B, ...) of one of texts; of `POOLED`, (B, K * H).

    Raises:
        ProviderError: onnxruntime cannot run them.
    """
    lengths = batch.lengths
    held = lengths if session.layout == PACKED else [padded_length(int(length), limit) for length in lengths]

    def run(some: slice) -> list[Floats]:
        part = batch.part(some)
        tokens = slice(int(batch.offsets[some.start]), int(batch.offsets[some.stop]))
        feeds = feeds_of(session.layout, part, None if weights is None else weights[:, tokens], session.inputs, limit)
        made = dict(zip(wanted, session.run_feeds(feeds, tuple(wanted)), strict=True))
        return [
            _first_axis(name, array, by_token, session.layout, part)
            for (name, by_token), array in zip(wanted.items(), made.values(), strict=True)
        ]

    def failure(error: Exception, some: slice) -> Exception:
        return run_error(error, some.stop - some.start, int(lengths[some].max()), session.device)

    return dict(zip(wanted, within(session.budget, [int(size) for size in held], run, failure), strict=True))


def _first_axis(name: str, array: Floats, by_token: bool, layout: str, batch: Batch) -> Floats:
    """An output with its tokens, or texts, on the first axis, without padding."""
    if name == POOLED:
        return array.transpose(1, 0, 2).reshape(array.shape[1], -1)  # (B, K * H)
    if not by_token:
        return array
    return array[0] if layout == PACKED else array[batch.texts(), batch.positions()]
