"""From token embeddings to one vector a text, in numpy float32.

Every function follows sentence-transformers 6.2: `Pooling._forward_padded`, `Dense.forward`, `LayerNorm`,
`Normalize` (torch.nn.functional.normalize). Rows of a batch have equal lengths, so there is no mask.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from trivec._model.manifest import Pooling, Step
from trivec._vectors.arrays import Floats, normalize


def pool(states: Floats, pooling: Pooling, prompt_length: int = 0) -> Floats:
    """Pool token embeddings.

    Args:
        states: (B, S, H) float32, every row S real tokens.
        pooling: the modes, concatenated in their order.
        prompt_length: leading tokens that are left out where `pooling.include_prompt` is False.

    Returns:
        (B, H * modes) float32. A row without a token that counts is all zeros under mean, weightedmean and lasttoken,
        its first token under cls, and -inf under max, as in the reference.
    """
    skip = 0 if pooling.include_prompt else min(prompt_length, states.shape[1])
    return np.concatenate([_MODES[mode](states, skip) for mode in pooling.modes], axis=1)


def _cls(states: Floats, skip: int) -> Floats:
    return states[:, skip if skip < states.shape[1] else 0]  # (B, H)


def _max(states: Floats, skip: int) -> Floats:
    kept = states[:, skip:]  # (B, S', H)
    greatest: Floats = kept.max(1, initial=-np.inf)  # (B, H)
    return greatest


def _mean(states: Floats, skip: int) -> Floats:
    return _sum(states, skip) / np.float32(max(states.shape[1] - skip, 1e-9))


def _mean_sqrt_len(states: Floats, skip: int) -> Floats:
    return _sum(states, skip) / np.float32(math.sqrt(max(states.shape[1] - skip, 1e-9)))


def _weighted_mean(states: Floats, skip: int) -> Floats:
    weights = np.arange(skip + 1, states.shape[1] + 1, dtype=np.float32)  # (S',): positions count from 1
    total: Floats = np.einsum("s,bsh->bh", weights, states[:, skip:])  # (B, H)
    return total / np.float32(max(float(weights.sum()), 1e-9))


def _last_token(states: Floats, skip: int) -> Floats:
    return states[:, -1] if skip < states.shape[1] else np.zeros_like(states[:, 0])


def _sum(states: Floats, skip: int) -> Floats:
    total: Floats = states[:, skip:].sum(1, dtype=np.float32)  # (B, H)
    return total


_MODES: dict[str, Callable[[Floats, int], Floats]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "lasttoken": _last_token,
}


def apply_steps(vectors: Floats, steps: Sequence[Step], arrays: Mapping[str, Floats]) -> Floats:
    """Run what follows pooling, in order: (B, D) -> (B, D')."""
    for step in steps:
        if step.kind == "normalize":
            vectors = normalize(vectors)
        elif step.kind == "layer_norm":
            vectors = _layer_norm(vectors, arrays[f"{step.arrays}.weight"], arrays[f"{step.arrays}.bias"], step.epsilon)
        else:
            vectors = _dense(vectors, step, arrays)
    return vectors


def _dense(vectors: Floats, step: Step, arrays: Mapping[str, Floats]) -> Floats:
    """activation(x W^T + b) [+ residual]."""
    out = vectors @ arrays[f"{step.arrays}.weight"].T  # (B, D')
    bias = arrays.get(f"{step.arrays}.bias")
    out = ACTIVATIONS[step.activation](out if bias is None else out + bias)
    if step.residual:
        projection = arrays.get(f"{step.arrays}.residual")
        out = out + (vectors if projection is None else vectors @ projection.T)
    return out


def _layer_norm(vectors: Floats, weight: Floats, bias: Floats, epsilon: float) -> Floats:
    centred = vectors - vectors.mean(1, keepdims=True)  # (B, D)
    variance = np.mean(centred * centred, axis=1, keepdims=True)  # (B, 1), biased as in torch.nn.LayerNorm
    result: Floats = centred / np.sqrt(variance + np.float32(epsilon)) * weight + bias
    return result


def _gelu(x: Floats) -> Floats:
    erf = np.frompyfunc(math.erf, 1, 1)  # numpy has no erf; these are (B, D) arrays, so a loop does
    result: Floats = np.float32(0.5) * x * (1 + erf(x / math.sqrt(2)).astype(np.float32))
    return result


def _sigmoid(x: Floats) -> Floats:
    result: Floats = (np.tanh(x * np.float32(0.5)) + 1) * np.float32(0.5)  # the tanh form cannot overflow
    return result


def _softplus(x: Floats) -> Floats:
    result: Floats = np.logaddexp(x, np.float32(0), dtype=np.float32)
    return result


ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "gelu": _gelu,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "leaky_relu": lambda x: np.where(x > 0, x, x * np.float32(0.01)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, np.float32(0)))),
    "softplus": _softplus,
    "mish": lambda x: x * np.tanh(_softplus(x)),
}
"""torch.nn's activations at their defaults."""


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
