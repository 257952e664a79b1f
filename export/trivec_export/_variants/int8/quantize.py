"""int8: a float32 graph to one whose linear layers and embedding tables are integers.

Each linear layer becomes QuantizeLinear -> com.microsoft::MatMulIntegerToFloat with the bias inside, the method of
:mod:`trivec_export._variants.int8.smooth`. Scales and zero points are constants found on calibration texts, so the
vector of a text cannot depend on the texts that share its batch, as it does where DynamicQuantizeLinear takes one range
over a batch. Where one range does not hold what passes through (a few tokens with values hundreds of times as large as
the others'), the layers that read it go up a ladder, by measurement: a scale of each row's own, which depends on the
batch as little and costs some passes over the rows; then float32, within limits.

Decided on all-MiniLM-L6-v2 and 630 texts (cosine to torch; this file: mean 0.9984, min 0.987; 2.0 to 2.5 times as
fast as float32 on AVX512-VNNI, 1.4 to 1.5 times on AVX2, where an integer product itself is 1.9 times as fast as a
float one: benchmarks/results/int8.md and int8-avx2.md):

- One file for every CPU, with weights of 7 bits. 8 bits (+-127) give mean 0.9990, min 0.990 at the same speed where
  there is VNNI, but saturate on AVX2: 0.991 to 0.997 between the vectors of two machines. With 7 bits the vectors of
  AVX2 (qemu-x86_64 -cpu Haswell) and of VNNI were equal bit for bit, so that an index can move.
- No scale per token row: mean 0.9985, min 0.991, but 5 to 13 % slower, for the rows' extremes and an Add of the bias
  (inside MatMulIntegerToFloat with a scale for each row, onnxruntime 1.31 gets it wrong: cosine 0.65).
- GPTQ in each layer where it wins on texts of kinds that it was not fitted on: all 36. Nearest rounding everywhere:
  mean 0.9975, min 0.986.
- The factor of smoothing costs a Mul before each quantized input that no weight before it can carry: 3 to 5 % of the
  time on AVX2. All of them stay: without those whose error is less than halved, mean 0.9969 and min 0.979; without any,
  mean 0.993 and min 0.96.
- The tanh form of a Gelu before a quantized input: mean and min as with the exact one, 3 to 5 % of the time on AVX2.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx

from trivec._errors import InputError, NonFiniteError
from trivec._model.scores import SCORES
from trivec_export._graph.run import Example, Ids, examples_of, random_texts
from trivec_export._variants.int8.assemble import Group, assemble
from trivec_export._variants.int8.calibrate import Channels, Pool, closeness, observe, pooled
from trivec_export._variants.int8.linears import Linear, View, emitters, groups
from trivec_export._variants.int8.smooth import fit

_SAMPLE_ROWS = 4096
_SAMPLE_BYTES = 2 << 30  # for all sampled rows of all layers together
_SPLIT_SHARE = 64  # one copy of an outlier channel for each 64 channels
_PROBES, _PROBE_TOKENS = 128, 128  # texts and tokens that measure what a layer costs
_HELD_OUT = 4  # each fourth kind of text measures what the others fitted
_SHARES = (25, 50, 100)  # per cent of the groups that are tried with a scale for each row, the worst first
_GAIN = 0.8  # of its error with a static range, which a scale for each row must be below
_TINY = 1e-9  # where a bound asks for equality
_CANDIDATES = 3  # layers measured for each layer that may stay float32
_SCORES = (0.95, 0.4)  # of logits of pairs, in the place of cosines: differences of 0.05 sigma as a rule, 0.6 at most


@dataclass(frozen=True)
class LayerReport:
    """How a linear layer fared on rows held out from calibration."""

    name: str
    """Of its MatMul or Gemm node in the float32 graph."""
    error: float
    """Root mean square over rows of |int8 output - float32 output| / |float32 output|."""
    smoothing: float
    """SmoothQuant's alpha: 0 leaves the outliers in the activations, 1 moves them into the weights."""
    clipped: float
    """Share of the held-out activations outside the range of the other calibration texts. The range that is used holds
    both, so this is what to expect of an unseen text."""
    precision: str
    """The rung of the ladder: "int8"; "int8 by row" where each row of its input has a scale of its own; or "fp32"."""
    rounding: str
    """"gptq", or "nearest" where that has the smaller error."""


Accept = Callable[[onnx.ModelProto], bool]
"""Whether an int8 graph will do."""


class Quantized(NamedTuple):
    """An int8 graph and what became of each linear layer."""

    model: onnx.ModelProto
    layers: list[LayerReport]


def quantize(
    model: onnx.ModelProto,
    calibration: Sequence[Ids | Example],
    kinds: Sequence[str] | None = None,
    *,
    target_cosine: float = 0.997,
    least_cosine: float = 0.975,
    max_fp32_share: float = 0.1,
    max_fp32_bytes: int | None = None,
    pool: Pool | None = None,
    accept: Accept | None = None,
) -> Quantized:
    """Quantize the linear layers and embedding tables of `model` to int8.

    All layers get static ranges if the vectors of held-out calibration texts then have a mean cosine of at least
    `target_cosine` to those of `model`, and none of them one below `least_cosine`. If not, layers whose error falls
    most with a scale for each row get that, as few as reach both. If that is not enough, the layers whose return to
    float32 raises the mean most stay float32, as few as reach the target within the two limits. Held-out texts are few:
    what they let pass is shown to `accept`, whose no sends the ladder on as a missed target does.

    Args:
        model: float32 graph of opset 21, one input (B, S) of int64 ids, first output (B, S, H) float32. Or of pairs:
            ids and, where it reads them, token types to scores (B, L). Not changed.
        calibration: ids of texts as the model will see them, special tokens included, each (S,) or (B, S) without
            padding; of pairs with their token types. Rows of random ids are added: ranges have to hold tokens that no
            calibration text has.
        kinds: what each text stands for, such as its script. Whole kinds are held out to measure what the others fit;
            without kinds, each fourth text.
        target_cosine: mean cosine of the pooled vectors to float32 at which the ladder ends. Of scores of pairs it ends
            where their differences are 0.05 standard deviations, root mean square, and none is above 0.6.
        least_cosine: what no text may be below.
        max_fp32_share: at most this share of the linear layers stays float32; 0 for none.
        max_fp32_bytes: at most so many bytes of weights stay float32.
        pool: token embeddings (B, S, H) to the vectors that are compared; None: their mean.
        accept: has the last word on a graph that reaches the target, such as a gate on many more texts.

    Returns:
        The int8 graph with the inputs and outputs of `model`, and a report for each linear layer.

    Raises:
        InputError: no calibration texts, or not one kind for each.
        NonFiniteError: NaN or infinity in the weights, or in the activations on a calibration text.
    """
    if not calibration:
        raise InputError("no calibration texts: expected at least one array of token ids (B, S); 400 texts are a start")
    if kinds is not None and len(kinds) != len(calibration):
        raise InputError(f"{len(kinds)} kinds for {len(calibration)} calibration texts: expected one for each text")
    examples = examples_of(calibration)
    view = View(model.graph)
    texts = [*examples, *random_texts(model, examples)]
    measuring = held_out(len(texts), kinds)
    channels = _observe(model, view, texts, measuring)
    fits = [_fitted(view, members, channels) for members in groups(view)]
    unseen = [example for number, example in enumerate(examples) if number in measuring] or examples
    trial = _Trial(model, view, _probes(unseen), pool, (target_cosine, least_cosine), accept)
    if not trial.reached(fits, set()):
        fits = _by_row(view, fits, channels, trial)
    kept = _keep(view, fits, trial, max_fp32_share, max_fp32_bytes)
    return Quantized(assemble(model, view, fits, kept), _report(fits, kept))


class _Trial:
    """What the vectors of some texts say of an int8 graph: of those held out, for rounding fits the others."""

    def __init__(
        self,
        model: onnx.ModelProto,
        view: View,
        probes: Sequence[Example],
        pool: Pool | None,
        bounds: tuple[float, float],
        accept: Accept | None,
    ) -> None:
        self._model, self._view, self._probes, self._pool = model, view, probes, pool
        self._scores = model.graph.output[0].name == SCORES
        self._bounds, self._accept = _SCORES if self._scores else bounds, accept
        self._reference = pooled(model, probes, pool)  # (P, D), or logits (P, L)
        self._known: dict[_Key, tuple[float, float]] = {}
        self._accepted: dict[_Key, bool] = {}

    def cosines(self, fits: list[Group], kept: set[str]) -> tuple[float, float]:
        """Mean and least, with these layers left in float32; of pairs' scores see :func:`closeness`."""
        key = _key(fits, kept)
        if key not in self._known:
            self._known[key] = self._measured(fits, kept)
        return self._known[key]

    def _measured(self, fits: list[Group], kept: set[str]) -> tuple[float, float]:
        made = pooled(assemble(self._model, self._view, fits, kept), self._probes, self._pool)
        return closeness(made, self._reference, scores=self._scores)

    def distance(self, fits: list[Group]) -> float:
        """How far from float32, as a share of what the bounds allow; above 1 one of them is missed."""
        figures = zip(self.cosines(fits, set()), self._bounds, strict=True)
        return max((1 - found) / max(1 - bound, _TINY) for found, bound in figures)

    def reached(self, fits: list[Group], kept: set[str]) -> bool:
        """Whether both bounds are kept, and the graph is accepted."""
        if any(found < bound for found, bound in zip(self.cosines(fits, kept), self._bounds, strict=True)):
            return False
        key = _key(fits, kept)
        if key not in self._accepted:
            made = self._accept is None or self._accept(assemble(self._model, self._view, fits, kept))
            self._accepted[key] = made
        return self._accepted[key]


_Key = tuple[tuple[int, ...], frozenset[str]]


def _key(fits: list[Group], kept: set[str]) -> _Key:
    """Of a candidate: its groups live as long as the ladder goes on."""
    return tuple(map(id, fits)), frozenset(kept)


def held_out(count: int, kinds: Sequence[str] | None) -> frozenset[int]:
    """The texts that only measure: those of each fourth kind, or each fourth text where too few kinds are known."""
    names = list(dict.fromkeys(kinds or ()))
    if kinds is None or len(names) < _HELD_OUT:
        return frozenset(range(_HELD_OUT - 1, count, _HELD_OUT))
    measuring = set(names[_HELD_OUT - 1 :: _HELD_OUT])
    return frozenset(number for number, kind in enumerate(kinds) if kind in measuring)


def _observe(
    model: onnx.ModelProto, view: View, texts: Sequence[Ids | Example], measuring: Collection[int] = frozenset()
) -> dict[str, Channels]:
    """What passes through the input of each linear layer, in one pass over the texts."""
    sources = {linear.source: linear.name for linear in view.linears.values()}
    width = sum(view.matrix(linear).shape[0] for linear in {x.source: x for x in view.linears.values()}.values())
    return observe(model, sources, texts, min(_SAMPLE_ROWS, _SAMPLE_BYTES // (4 * max(1, width))), measuring)


def _fitted(view: View, members: list[Linear], channels: Mapping[str, Channels], *, by_row: bool = False) -> Group:
    """Choose range, smoothing and integers for a group of layers."""
    merged = _merge([channels[source] for source in dict.fromkeys(linear.source for linear in members)])
    weights = {linear.weight: view.matrix(linear) for linear in members}
    for linear in members:
        if not np.isfinite(weights[linear.weight]).all():
            raise NonFiniteError(f"the weight {linear.weight!r} of node {linear.name!r} holds NaN or infinity")
    before = [] if by_row else emitters(view, members)
    splits = -(-len(merged.low) // _SPLIT_SHARE) if before else 0
    return Group(members, before, fit(merged, list(weights.values()), splits, by_row=by_row))


def _by_row(view: View, fits: list[Group], channels: Mapping[str, Channels], trial: _Trial) -> list[Group]:
    """The groups, with as few as reach the target in rows of their own scales: those that gain most, first.

    Where none of these numbers reaches it, that which comes nearest.
    """
    order = sorted(range(len(fits)), key=lambda i: -_error(fits[i]))
    rows: dict[int, Group] = {}
    best, found = trial.distance(fits), fits
    for share in _SHARES:
        for i in order[: -(-len(order) * share // 100)]:
            if i not in rows:
                candidate = _fitted(view, fits[i].members, channels, by_row=True)
                rows[i] = candidate if _error(candidate) < _GAIN * _error(fits[i]) else fits[i]
        tried = [rows.get(i, group) for i, group in enumerate(fits)]
        if trial.reached(tried, set()):
            return tried
        if (distance := trial.distance(tried)) < best:
            best, found = distance, tried
    return found


def _error(group: Group) -> float:
    """The largest of its layers'."""
    return max(group.integers(linear).error for linear in group.members)


def _merge(channels: list[Channels]) -> Channels:
    """The statistics of several tensors that one weight multiplies, as if they were one."""
    if len(channels) == 1:
        return channels[0]
    parts = list(zip(*channels, strict=True))
    step = len(channels)  # as many rows as of a single tensor
    low, high, fitted_low, fitted_high = (f(part) for f, part in zip(_EXTREMES, parts, strict=False))
    return Channels(low, high, fitted_low, fitted_high, *(np.concatenate(rows)[::step] for rows in parts[4:]))


_EXTREMES = (np.minimum.reduce, np.maximum.reduce, np.minimum.reduce, np.maximum.reduce)


def _keep(view: View, fits: list[Group], trial: _Trial, share: float, max_bytes: int | None) -> set[str]:
    """Outputs of the linear layers that stay float32, so that the cosines reach their bounds."""
    budget = int(share * len(view.linears))
    kept: set[str] = set()
    if budget == 0 or trial.reached(fits, kept):
        return kept
    start, _ = trial.cosines(fits, kept)
    worst = sorted(
        ((group.integers(linear).error, linear) for group in fits for linear in group.members), reverse=True
    )[: _CANDIDATES * budget]
    gains = sorted(((trial.cosines(fits, {linear.output})[0], linear) for _, linear in worst), reverse=True)
    room = float("inf") if max_bytes is None else max_bytes
    for gain, linear in gains:
        size = 4 * view.matrix(linear).size
        if len(kept) == budget or gain <= start:
            break
        if size <= room:
            kept.add(linear.output)
            room -= size
            if trial.reached(fits, kept):
                break
    return kept


def _probes(texts: Sequence[Example]) -> list[Example]:
    """Some texts, evenly taken and cut short."""
    step = max(1, len(texts) // _PROBES)
    return [example.cut(_PROBE_TOKENS) for example in texts[::step][:_PROBES]]


def _report(fits: list[Group], kept: set[str]) -> list[LayerReport]:
    return [
        LayerReport(
            name=linear.name,
            error=group.integers(linear).error,
            smoothing=group.fit.alpha,
            clipped=group.fit.clipped,
            precision="fp32" if linear.output in kept else "int8 by row" if group.fit.range is None else "int8",
            rounding=group.integers(linear).rounding,
        )
        for group in fits
        for linear in group.members
    ]
