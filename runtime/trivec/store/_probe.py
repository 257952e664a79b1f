"""The probe of a hosted model: what it gives for a few fixed texts tells whether it has changed under its name.

A file keeps it as text: base64 of float16, end to end, of vectors of length 1.
"""

import base64
import logging

import numpy as np

from trivec._encoders.protocol import Encoder
from trivec._errors import InputError
from trivec._vectors.arrays import Floats, normalize

logger = logging.getLogger("trivec")
_TEXTS = 3  # that `HostedEncoder.probe` sends
_SAME = 0.9999  # a service is not equal to the bit between two calls, and float16 costs 1e-7


def probe_of(encoder: Encoder) -> str | None:
    """What a file keeps of a hosted model, for one request; None of a local one, whose files have hashes."""
    probe = getattr(encoder, "probe", None)
    return None if probe is None else base64.b64encode(normalize(probe()).astype("<f2").tobytes()).decode()


def check_probe(what: str, found: str | None, here: str | None, *, strict: bool = False, start_over: str = "") -> None:
    """Warn where vectors are of another model than the one that answers now.

    Args:
        what: the vectors, for the message.
        found: their model's probe; None where there is none, which is no reason to warn.
        here: the probe of the model that answers now; None: as above.
        strict: whether another model is an error.
        start_over: what to type for vectors of one model, where that is not to encode again.

    Raises:
        InputError: another model, and strict; or a probe that is none.
    """
    if found is None or here is None:
        return
    before, now = _unit(what, found), _unit(what, here)
    if before.shape != now.shape:
        change = f"{now.shape[1]} numbers where it gave {before.shape[1]}"
    elif (cosine := float((before * now).sum(1).min())) < _SAME:
        change = f"vectors of a cosine of {cosine:.4f} to those it gave"
    else:
        return
    again = f"start over: {start_over}" if start_over else "encode the texts again"
    message = f"{what}: the model behind this name has changed since. For a fixed text it gives {change}."
    if strict:
        raise InputError(f"{message} For vectors of one model {again}, or leave out strict.")
    logger.warning("%s Such vectors do not go together; for those of one model %s.", message, again)


def _unit(what: str, probe: str) -> Floats:
    """The vectors (3, D), of length 1 again."""
    try:
        numbers = np.frombuffer(base64.b64decode(probe, validate=True), dtype="<f2").astype(np.float32)
        found: Floats = normalize(numbers.reshape(_TEXTS, -1))
    except ValueError as error:
        raise InputError(f"{what}: damaged, its probe cannot be read ({error}). Encode the texts again.") from error
    return found
