"""What was asked for, and what the gates say of it."""

from dataclasses import dataclass
from pathlib import Path

from trivec._gate.checks import Check
from trivec._model.families import exported_families

FAMILIES = ("auto", *exported_families())
MIN_TEXTS = 64
LONGEST = 100
"""Letters of a name or a version."""
Verdicts = dict[str, dict[str, Check]]
"""By precision, then by encoder."""


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    model: str
    out: Path
    family: str
    precisions: tuple[str, ...]
    calibration: Path | None
    revision: str | None
    trust_remote_code: bool
    token: str | bool | None
    max_texts: int | None = None
    tasks: tuple[str, ...] | None = None
    name: str | None = None
    version: str | None = None
