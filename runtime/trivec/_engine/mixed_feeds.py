"""Texts of different lengths in one run: what a packed or padded graph reads, and what its outputs are.

A *rows* graph takes rows of one length. A *packed* graph takes the tokens of all texts as one row, so nothing is
computed for padding; a *padded* one takes rows of the longest text's length, rounded up to one of few sizes, so that a
device sees few shapes. Both take the texts' lengths beside the tokens, and pool by weights of the tokens: every mode of
pooling but the maximum is a weighted sum.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trivec._engine.graph_session import GraphSession
from trivec._engine.memory import within
from trivec._errors import ModelFormatError
from trivec._model.manifest import PACKED
from trivec._tokens.batch import Batch
from trivec._tokens.plan import padded_length
from trivec._vectors.arrays import Floats

POOLED = "pooled"
"""The output of a graph that pools by weights: (K, B, H)."""


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
    session: GraphSession, batch: Batch, wanted: Mapping[str, bool], weights: Floats | None, limit: int | None
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
        return session.run_error(error, some.stop - some.start, int(lengths[some].max()))

    return dict(zip(wanted, within(session.budget, [int(size) for size in held], run, failure), strict=True))


def _first_axis(name: str, array: Floats, by_token: bool, layout: str, batch: Batch) -> Floats:
    """An output with its tokens, or texts, on the first axis, without padding."""
    if name == POOLED:
        return array.transpose(1, 0, 2).reshape(array.shape[1], -1)  # (B, K * H)
    if not by_token:
        return array
    return array[0] if layout == PACKED else array[batch.texts(), batch.positions()]
