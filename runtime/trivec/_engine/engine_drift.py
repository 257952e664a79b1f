"""How far the vectors of one model are apart where engines differ, as it was measured; and who is told so.

data/engine_drift.json is written by `python -m benchmarks.engine_drift`, and says what was measured on which engines.
"""

import json
import logging
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from trivec._errors import InputError

logger = logging.getLogger("trivec")


class Drift(NamedTuple):
    """The most by which two engines of those that were measured differed."""

    max_diff: float
    """Of a number."""
    cosine_min: float
    """Between the vectors of one text."""
    top10_overlap: float
    """Mean share of a text's ten nearest neighbours that stay, of the two engines where it is least."""


class Measured(NamedTuple):
    """What was measured, and where."""

    onnxruntime: tuple[str, ...]
    """Versions, oldest first."""
    processors: tuple[str, ...]
    """Kinds of kernels."""
    models: tuple[str, ...]
    drift: dict[str, dict[str, Drift]]
    """By precision ("fp32", "int8", "static"), then by head."""


@cache
def measured() -> Measured:
    """The figures that come with this version of trivec."""
    stated = json.loads(files("trivec._engine").joinpath("data", "engine_drift.json").read_text(encoding="utf-8"))
    drift = {p: {head: Drift(**of) for head, of in heads.items()} for p, heads in stated["drift"].items()}
    return Measured(tuple(stated["onnxruntime"]), tuple(stated["processors"]), tuple(stated["models"]), drift)


def tolerance() -> str:
    """One sentence: what another engine may change, by what was measured."""
    found = measured()
    parts = [
        f"{precision} {head} by up to {of.max_diff:.1e} (cosine at least {of.cosine_min:.6f})"
        if of.max_diff
        else f"{precision} {head} not at all"
        for precision, heads in found.drift.items()
        for head, of in heads.items()
    ]
    return (
        f"Measured on {', '.join(found.models)} with onnxruntime {found.onnxruntime[0]} to {found.onnxruntime[-1]} and "
        f"{len(found.processors)} kinds of kernels, engines differ in {'; in '.join(parts)}. "
        "For this model and your texts type: trivec diff"
    )


def check_engine(what: str, found: str | None, here: str | None, *, strict: bool = False, start_over: str = "") -> None:
    """Warn where vectors of this model were computed by another engine than will be used with them.

    Args:
        what: the vectors, for the message.
        found: their engine; None where that is not known, which is no reason to warn.
        here: the engine that is expected; None: any.
        strict: whether another engine, or one that is not known, is an error.
        start_over: what to type for vectors of one engine, where that is not to encode again.

    Raises:
        InputError: another engine, and strict.
    """
    if here is None or found == here or (found is None and not strict):
        return
    if found is None:
        message = f"{what}: it is not said which engine computed it, and {here} is wanted."
    else:
        message = f"{what}: computed by another engine, {found}; here it is {here}. {tolerance()}"
    if strict:
        again = f"start over: {start_over}" if start_over else "encode the texts again"
        raise InputError(f"{message} For equal bits {again}, or leave out strict.")
    logger.warning("%s", message)
