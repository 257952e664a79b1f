"""Run a graph over calibration texts and keep bounded statistics of what flows through it."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx

from trivec._errors import NonFiniteError
from trivec._model.derived import SENTENCE_OUTPUT
from trivec._model.scores import SCORES
from trivec_export._graph.run import Example, Floats, Ids, examples_of, open_session

_TOKEN_AXES = 3  # of token embeddings (B, S, H)
_LEAST_SIGMA = 1e-6  # where all pairs have one score


class Channels(NamedTuple):
    """What passed through one tensor of K channels: its extremes over every row, and some of its rows."""

    low: Floats  # (K,)
    high: Floats  # (K,)
    fitted_low: Floats  # (K,): without the held-out texts
    fitted_high: Floats  # (K,)
    sample: Floats  # (R, K)
    held_out: Floats  # (R', K)


class _Tracker:
    """Extremes and sample rows of one tensor, for fitted texts [0] and for held-out texts [1]."""

    def __init__(self) -> None:
        self._low: list[list[Floats]] = [[], []]
        self._high: list[list[Floats]] = [[], []]
        self._rows: list[list[Floats]] = [[], []]

    def add(self, x: Floats, chosen: npt.NDArray[np.int64], *, held_out: bool) -> bool:
        """Count every row of x (R, K), keep those in `chosen`; False where a value is not finite."""
        low, high = x.min(0), x.max(0)  # (K,), (K,)
        self._low[held_out] = [np.minimum.reduce([*self._low[held_out], low])]
        self._high[held_out] = [np.maximum.reduce([*self._high[held_out], high])]
        self._rows[held_out].append(x[chosen % len(x)])  # a table of positions has other rows than the text
        return bool(np.isfinite(low).all() and np.isfinite(high).all())

    def channels(self) -> Channels:
        """What was seen. With a single text, it is held-out text as well."""
        rows = [np.concatenate(part) for part in self._rows if part]
        low, high = self._low[0] + self._low[1], self._high[0] + self._high[1]
        return Channels(np.minimum.reduce(low), np.maximum.reduce(high), low[0], high[0], rows[0], rows[-1])


def observe(
    model: onnx.ModelProto,
    tensors: dict[str, str],
    texts: Sequence[Ids | Example],
    rows: int,
    held_out: Collection[int],
) -> dict[str, Channels]:
    """Statistics of each of `tensors` over `texts`, in one pass and in memory bounded by `rows`.

    Every token of every text counts for the extremes. The sampled rows are as many from a short text as from a long
    one, because pooling gives every text the same weight.

    Args:
        model: the float32 graph.
        tensors: name of a tensor (..., K) -> name of the node that reads it, for error messages.
        texts: token ids, each (B, S), or of pairs with their token types.
        rows: number of rows to sample over all texts.
        held_out: numbers of the texts whose rows measure what the others fitted; not all of them.

    Raises:
        NonFiniteError: one of the tensors held NaN or infinity.
    """
    if not tensors:
        return {}
    session = open_session(model, tensors)
    inputs = [value.name for value in session.get_inputs()]
    examples = examples_of(texts)
    keep = max(1, rows // max(1, sum(len(example.ids) for example in examples)))
    rng = np.random.default_rng(0)
    trackers = {tensor: _Tracker() for tensor in tensors}
    for number, example in enumerate(examples):
        chosen = rng.permutation(example.ids.size)[: keep * len(example.ids)]
        for tensor, x in zip(tensors, session.run(list(tensors), example.feeds(inputs)), strict=True):
            rows_seen = x.reshape(-1, x.shape[-1])  # (B * S, K)
            if not trackers[tensor].add(rows_seen, chosen, held_out=number in held_out):
                raise NonFiniteError(
                    f"the input {tensor!r} of node {tensors[tensor]!r} holds NaN or infinity on calibration text "
                    f"{number}; int8 needs finite activations: check the fp32 graph on this text first"
                )
    return {tensor: tracker.channels() for tensor, tracker in trackers.items()}


Pool = Callable[[Floats], Floats]
"""Token embeddings (B, S, H) to vectors (B, D)."""


def pooled(model: onnx.ModelProto, texts: Sequence[Ids | Example], pool: Pool | None = None) -> Floats:
    """What a user sees of the first output of `model` for each row of `texts`: (sum of B, H), normalized, or logits.

    Of token embeddings (B, S, H) what `pool` makes of them, else their mean; of pooled logits (B, V) the weights
    log(1 + relu(x)) of a SPLADE model; a sentence embedding (B, D) as it is. Scores of pairs (B, L) are not normalized.
    """
    session = open_session(model)
    inputs, first = [value.name for value in session.get_inputs()], session.get_outputs()[0].name
    outputs = [  # (B, S, H), (B, V), (B, D) or (B, L) each
        session.run([first], example.feeds(inputs))[0] for example in examples_of(texts)
    ]
    if first == SCORES:
        return np.concatenate(outputs)
    if outputs[0].ndim == _TOKEN_AXES:
        vectors = np.concatenate([x.mean(1) if pool is None else pool(x) for x in outputs])
    elif first == SENTENCE_OUTPUT:
        vectors = np.concatenate(outputs)
    else:
        vectors = np.concatenate([np.log1p(np.maximum(x, 0)) for x in outputs])
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def closeness(made: Floats, reference: Floats, *, scores: bool) -> tuple[float, float]:
    """How close a graph comes to another on P texts, as a rule and at worst; 1 where they are equal.

    Of vectors (P, D) the mean and the least cosine. Of logits (P, L), where a cosine says nothing, 1 less the root mean
    square and the largest of their differences, in standard deviations of the reference's.
    """
    if not scores:
        cosines = (made * reference).sum(1)  # (P,)
        return float(cosines.mean()), float(cosines.min())
    off = np.abs(made - reference) / np.maximum(reference.std(0), _LEAST_SIGMA)  # (P, L)
    return 1 - float(np.sqrt(np.square(off).mean(0)).max()), 1 - float(off.max())
