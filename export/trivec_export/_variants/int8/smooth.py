"""The arithmetic of int8: from a linear layer's float weights and the rows that enter it to integers.

One quantized input serves every layer that reads the tensor (q, k and v). For an input x (R, K) and the joined
weights W (K, N) of its readers, :func:`fit` looks for

    x @ W + b  ~=  scale * (xq - zero) @ Wq * w_scale + b',    xq = round(x / m / scale) + zero in [0, 255]

- activations are affine u8 with one static scale and zero point, so a row does not depend on its batch
  (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"),
  or, where some rows are hundreds of times as large as the others, symmetric with a scale of each row's own, from its
  largest value: it depends on its batch as little (ZeroQuant, Yao et al. 2022, section 3.2: token-wise quantization);
- weights are symmetric with a scale for each output channel, in 7 bits: on x86 without VNNI a pair of u8 * s8 products
  is summed in 16 bits (vpmaddubsw), and 2 * 255 * 63 = 32,130 is the most that fits below 32,768;
- m moves the range of outlier channels from x to W: m = max|x| ** alpha / max|W| ** (1 - alpha) for each channel
  (SmoothQuant, Xiao et al. 2023), alpha by search for each input;
- a row of m * W that sets the scale of many output channels can be split over several copies of its channel
  (Outlier Channel Splitting, Zhao et al. 2019), where the layer before can emit the copies;
- weights are rounded one row after the other, each row's error being moved to the rows still to come
  (GPTQ, Frantar et al. 2023), in the layers where that beats rounding to nearest on held-out rows, and b' takes up the
  mean error that is left (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction").
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trivec_export._graph.run import Floats
from trivec_export._variants.int8.calibrate import Channels

WEIGHT_MAX = 63
ROW_MAX, ROW_ZERO = 127, 128
"""A row's largest value, and what stands for 0, where each row has a scale of its own: u8 is from 1 to 255 then."""
_ALPHAS: tuple[float, ...] = (0.0, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
_SEARCH_ROWS = 768
_DAMPING = 0.05  # of the mean diagonal, as GPTQ's 0.01, raised because a few thousand rows fit up to 4,096 channels
_LEVEL = 0.9  # quantile of the channels' extremes
_BLOCK = 64
TINY = 1e-8


class Range(NamedTuple):
    """Affine u8: value = scale * (q - zero)."""

    scale: float
    zero: int


class IntegerLayer(NamedTuple):
    """One linear layer in integers: y = x_scale * (xq - zero) @ weight * scale + bias."""

    weight: npt.NDArray[np.int8]  # (sum of copies, N), within +-63
    scale: Floats  # (N,)
    bias: Floats  # (N,): what rounding took from the mean output, to be added to the layer's own bias
    error: float  # root mean square over held-out rows of |y - reference| / |reference|
    rounding: str  # "gptq" or "nearest"


class Fit(NamedTuple):
    """A quantized input and the layers that read it."""

    alpha: float
    factor: Floats  # (K,): the input is divided by it
    range: Range | None
    """None: each row has a scale of its own."""
    copies: npt.NDArray[np.int64]  # (K,): how often each channel appears in the input
    clipped: float  # share of held-out values outside the range that the other texts set
    layers: list[IntegerLayer]


def fit(channels: Channels, weights: Sequence[Floats], splits: int = 0, *, by_row: bool = False) -> Fit:
    """Quantize the layers `weights`, each (K, N), that read the tensor described by `channels`.

    The range holds every value seen and more where a channel was quiet. (Cutting it to 0.8 or 0.9 of what was seen was
    tried: nothing gained on average, and the rare text with an outlier loses.)

    Args:
        channels: extremes and sample rows of the tensor.
        weights: float weights of the layers that read it.
        splits: how many copies of outlier channels the layer before can emit beyond one each.
        by_row: give each row a scale of its own in place of the range.
    """
    channels = _level(channels)
    joined = np.concatenate(weights, axis=1)  # (K, N)
    alpha = _search(channels, joined, splits, by_row)
    factor, bounds = _smooth(channels, joined, alpha, by_row)
    smoothed = joined * factor[:, None]  # (K, N)
    copies = split_rows(smoothed, splits)
    x = dequantized(channels.sample, factor, bounds)  # (R, K)
    scale = _weight_scale(smoothed, copies)  # (N,)
    ends = np.cumsum([w.shape[1] for w in weights])
    spans = [slice(end - w.shape[1], end) for end, w in zip(ends, weights, strict=True)]
    rows = _Rows(
        x, channels.sample @ joined, dequantized(channels.held_out, factor, bounds), channels.held_out @ joined
    )
    rounded = (
        _layers("gptq", _gptq(smoothed, x, scale, copies), scale, copies, rows, spans),
        _layers("nearest", _round(smoothed, scale, copies), scale, copies, rows, spans),
    )
    layers = [min(pair, key=lambda layer: layer.error) for pair in zip(*rounded, strict=True)]
    return Fit(alpha, factor, bounds, copies, 0.0 if by_row else _clipped(channels, factor), layers)


class _Rows(NamedTuple):
    """What enters the integer layers and what should leave them, for rows that fit and rows that measure."""

    x: Floats  # (R, K)
    target: Floats  # (R, N)
    held_out: Floats  # (R', K)
    held_out_target: Floats  # (R', N)


def _layers(
    rounding: str,
    q: Floats,
    scale: Floats,
    copies: npt.NDArray[np.int64],
    rows: _Rows,
    spans: Sequence[slice],
) -> list[IntegerLayer]:
    """The layers, each a span of the columns of the integers q (K, N), with their biases and errors."""
    approximate = q * scale  # (K, N)
    bias = (rows.target - rows.x @ approximate).mean(0)  # (N,)
    tested = rows.held_out @ approximate + bias  # (R', N)
    return [
        IntegerLayer(
            spread(q[:, span], copies),
            scale[span].astype(np.float32),
            bias[span].astype(np.float32),
            _relative_error(tested[:, span], rows.held_out_target[:, span]),
            rounding,
        )
        for span in spans
    ]


def affine(low: float, high: float) -> Range:
    """The u8 range that holds [low, high] and represents zero exactly (Jacob et al. 2018, section 2.1)."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, TINY)
    return Range(scale, int(np.clip(round(-low / scale), 0, 255)))


def dequantized(x: Floats, factor: Floats, bounds: Range | None) -> Floats:
    """What the integer layer sees of x (R, K): smoothed, rounded to u8, and back to float."""
    if bounds is None:
        scale = row_scales(x / factor)  # (R, 1)
        return np.asarray(np.round(x / factor / scale) * scale, dtype=np.float32)
    q = np.clip(np.round(x / (factor * np.float32(bounds.scale))) + bounds.zero, 0, 255)  # (R, K)
    return np.asarray((q - bounds.zero) * bounds.scale, dtype=np.float32)


def row_scales(x: Floats) -> Floats:
    """The scale (R, 1) at which the largest value of each row of x (R, K) is 127."""
    return np.asarray(np.maximum(np.abs(x).max(1, keepdims=True), TINY) / ROW_MAX, dtype=np.float32)


def split_rows(weight: Floats, splits: int) -> npt.NDArray[np.int64]:
    """How many copies (K,) each row of weight (K, N) should have, with `splits` copies to give away.

    A row split over c copies asks each of them for 1/c of its values. Greedy: the next copy goes to the row that
    sets the scale of output channels whose rounding error it would lower most.
    """
    copies = np.ones(len(weight), np.int64)
    parts = np.abs(weight)  # (K, N)
    top, first, second = np.zeros(weight.shape[1], np.int64), np.zeros(weight.shape[1]), np.zeros(weight.shape[1])
    stale = np.arange(weight.shape[1] if splits else 0)  # output channels whose largest parts have changed
    for _ in range(splits):
        some = parts[:, stale]  # (K, n)
        top[stale], first[stale] = some.argmax(0), some.max(0)
        some[top[stale], np.arange(len(stale))] = 0
        second[stale] = some.max(0)
        after = np.maximum(second, first * copies[top] / (copies[top] + 1))  # (N,)
        row = int(np.bincount(top, first**2 - after**2).argmax())
        stale = np.flatnonzero(parts[row] >= second)
        copies[row] += 1
        parts[row] = np.abs(weight[row]) / copies[row]
    return copies


def spread(q: Floats, copies: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """Share the integers q (K, N) among the copies of their channels: (sum of copies, N), summing to q exactly."""
    rows = np.repeat(np.arange(len(q)), copies)  # (K',)
    part = np.concatenate([np.arange(c) for c in copies])[:, None]  # (K', 1)
    size, count = np.abs(q[rows]).astype(np.int64), copies[rows][:, None]  # (K', N), (K', 1)
    return np.asarray(np.sign(q[rows]) * (size // count + (part < size % count)), dtype=np.int8)


def quantize_rows(table: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Symmetric int8 of table (V, H) with a scale (V, 1) for each row; an element is off by at most scale / 2."""
    scale = np.maximum(np.abs(table).max(1, keepdims=True), TINY) / 127  # (V, 1)
    return np.round(table / scale).astype(np.int8), scale.astype(np.float32)


def _level(channels: Channels) -> Channels:
    """Raise the extremes of quiet channels to the level that one channel in ten exceeds.

    Smoothing would otherwise blow up a channel that calibration saw asleep until it fills the range, and clip it in the
    first text that wakes it. On MiniLM this takes the worst of 629 texts from cosine 0.978 to 0.987.
    """
    low, high = np.quantile(channels.low, 1 - _LEVEL), np.quantile(channels.high, _LEVEL)
    return channels._replace(
        low=np.minimum(channels.low, np.float32(low)),
        high=np.maximum(channels.high, np.float32(high)),
        fitted_low=np.minimum(channels.fitted_low, np.float32(low)),
        fitted_high=np.maximum(channels.fitted_high, np.float32(high)),
    )


def _search(channels: Channels, weight: Floats, splits: int, by_row: bool) -> float:
    """The smoothing strength with the least squared error of the output on some of the sample rows."""
    rows = np.random.default_rng(0).permutation(len(channels.sample))[:_SEARCH_ROWS]
    x = channels.sample[rows]  # (R, K)
    target = x @ weight  # (R, N)
    errors = {}
    for alpha in _ALPHAS:
        factor, bounds = _smooth(channels, weight, alpha, by_row)
        smoothed = weight * factor[:, None]  # (K, N)
        copies = split_rows(smoothed, splits)
        scale = _weight_scale(smoothed, copies)  # (N,)
        output = dequantized(x, factor, bounds) @ (_round(smoothed, scale, copies) * scale)  # (R, N)
        errors[alpha] = float(np.square(output - target).sum())
    return min(errors, key=errors.__getitem__)


def _smooth(channels: Channels, weight: Floats, alpha: float, by_row: bool) -> tuple[Floats, Range | None]:
    """SmoothQuant's factor (K,) at strength alpha, of geometric mean 1, and the range of the input divided by it."""
    x_max = np.maximum(np.maximum(-channels.low, channels.high), 1e-5)  # (K,)
    w_max = np.maximum(np.abs(weight).max(1), 1e-5)  # (K,)
    log = alpha * np.log(x_max) - (1 - alpha) * np.log(w_max) if alpha else np.zeros_like(x_max)  # (K,)
    factor = np.exp(log - log.mean()).astype(np.float32)  # (K,)
    if by_row:
        return factor, None
    return factor, affine(float((channels.low / factor).min()), float((channels.high / factor).max()))


def _weight_scale(weight: Floats, copies: npt.NDArray[np.int64]) -> Floats:
    """The scale (N,) at which the largest share of a copy in each output channel is 63."""
    largest = np.abs(weight / copies[:, None]).max(0)  # (N,)
    return np.asarray(np.maximum(largest, TINY) / WEIGHT_MAX, dtype=np.float32)


def _round(weight: Floats, scale: Floats, copies: npt.NDArray[np.int64]) -> Floats:
    """Nearest integers (K, N) of weight / scale, as large as the copies of each row can hold together."""
    limit = WEIGHT_MAX * copies[:, None].astype(np.float32)  # (K, 1)
    return np.asarray(np.clip(np.round(weight / scale), -limit, limit), dtype=np.float32)


def _gptq(weight: Floats, x: Floats, scale: Floats, copies: npt.NDArray[np.int64]) -> Floats:
    """Integers (K, N) of weight (K, N), rounded with error feedback over the rows x (R, K) (GPTQ, algorithm 1)."""
    hessian = (x.T @ x).astype(np.float64)  # (K, K)
    hessian[np.diag_indices(len(hessian))] += max(_DAMPING * float(np.mean(np.diag(hessian))), TINY)
    factor = np.linalg.cholesky(np.linalg.inv(hessian)).T.astype(np.float32)  # (K, K), upper triangular
    left, q = weight.copy(), np.zeros_like(weight)  # (K, N), (K, N)
    for start in range(0, len(weight), _BLOCK):
        stop = min(start + _BLOCK, len(weight))
        errors = np.zeros((stop - start, weight.shape[1]), np.float32)  # (block, N)
        for row in range(start, stop):
            q[row] = _round(left[row : row + 1], scale, copies[row : row + 1])[0]
            errors[row - start] = (left[row] - q[row] * scale) / factor[row, row]
            left[row + 1 : stop] -= np.outer(factor[row, row + 1 : stop], errors[row - start])
        left[stop:] -= factor[start:stop, stop:].T @ errors
    return q


def _relative_error(output: Floats, reference: Floats) -> float:
    """Root mean square over rows (R, N) of |output - reference| / |reference|."""
    norm = np.maximum(np.linalg.norm(reference, axis=1), TINY)  # (R,)
    return float(np.sqrt(np.mean(np.square(np.linalg.norm(output - reference, axis=1) / norm))))


def _clipped(channels: Channels, factor: Floats) -> float:
    """Share of the held-out values that fall outside the range which the other texts alone would set."""
    scaled = channels.held_out / factor  # (R', K)
    low, high = (channels.fitted_low / factor).min(), (channels.fitted_high / factor).max()
    return float(np.mean((scaled < low) | (scaled > high)))
