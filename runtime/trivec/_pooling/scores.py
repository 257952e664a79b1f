"""From logits of pairs to scores, in numpy float32, as sentence-transformers' CrossEncoder.predict."""

from collections.abc import Callable

import numpy as np

from trivec._errors import InputError
from trivec._pooling.dense import ACTIVATIONS
from trivec._vectors.arrays import Floats

Activation = Callable[[Floats], Floats]
_CLASSES = {name.replace("_", ""): name for name in ACTIVATIONS}
"""By torch.nn's name, in small letters: LeakyReLU is leaky_relu here."""


def activation_of(given: object, own: str) -> Activation:
    """What takes logits (N, L) to numbers of the same shape.

    Args:
        given: None; a name among ACTIVATIONS; an instance of such a class of torch.nn; or a function of arrays.
        own: the name that None stands for.

    Raises:
        InputError: none of these.
    """
    if given is None:
        return ACTIVATIONS[own]
    if isinstance(given, str) and given in ACTIVATIONS:
        return ACTIVATIONS[given]
    kind = type(given)
    name = _CLASSES.get(kind.__name__.lower()) if kind.__module__.startswith("torch.nn.") else None
    if name is not None:
        return ACTIVATIONS[name]
    if not callable(given) or kind.__module__.startswith("torch."):
        raise InputError(
            f"activation_fn {given!r} is not one of None, {', '.join(map(repr, ACTIVATIONS))}, torch.nn's of these "
            "names, or a function of arrays (N, L)."
        )
    return lambda logits: _checked(given(logits), logits)


def _checked(made: object, logits: Floats) -> Floats:
    scores = np.asarray(made, dtype=np.float32)
    if scores.shape != logits.shape:
        raise InputError(f"activation_fn made {scores.shape} of the logits {logits.shape}; expected the same shape.")
    return scores


def softmax(scores: Floats) -> Floats:
    """Rows (N, L) that sum to 1 each."""
    powers = np.exp(scores - scores.max(1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(1, keepdims=True), dtype=np.float32)


def scores_of(logits: Floats, activation: Activation, *, sums_to_one: bool) -> Floats:
    """Logits (N, L) to scores: (N,) of one label, (N, L) of several, each row's softmax where that is asked for."""
    scores = activation(logits)
    if logits.shape[1] == 1:
        return scores[:, 0]
    return softmax(scores) if sums_to_one else scores
