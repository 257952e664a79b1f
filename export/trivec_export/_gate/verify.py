"""Load what was written with the runtime itself, and compare its vectors with torch's."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trivec._encoders.load_options import LoadOptions
from trivec._encoders.text_encoder import TextEncoder
from trivec._errors import GateError
from trivec._gate.checks import Check, check_route
from trivec._gate.figures import HEADS
from trivec._loading.open_model import open_model
from trivec._model.source import Folder
from trivec_export._draft import Draft


def verify(folder: Path, parts: Mapping[str, Draft], precision: str, *, stored_as: str) -> dict[str, Check]:
    """Encode the verification texts with the runtime: the worst route and head's figures for each encoder.

    Args:
        folder: a model folder with its manifest.
        parts: by encoder name.
        precision: whose bounds count.
        stored_as: the precision under which the folder's manifest has the graph.

    Raises:
        GateError: the runtime's token ids are not AutoTokenizer's.
    """
    worst: dict[str, Check] = {}
    bounds = {head: by_precision[precision] for head, by_precision in HEADS.items()}
    for name, part in parts.items():
        checks: list[Check] = []
        for route, reference in part.reference.items():
            # one route at a time: each may have a graph of gigabytes
            options = LoadOptions(str(folder), device="cpu", precision=stored_as, task=route)
            with open_model(Folder(folder), options) as encoder:
                _check_ids(encoder, part, route)
                checks += check_route(encoder, part.verification.texts, route, reference, bounds)
        found = max(checks, key=_badness)
        worst[name] = dataclasses.replace(found, others=tuple(check for check in checks if check is not found))
    return worst


def record(check: Check, status: str) -> dict[str, Any]:
    """The manifest's gate entry: the worst head in full, the others in brief."""
    entry = check.record(status)
    if check.others:
        entry["others"] = [
            {
                key: value
                for key, value in other.record(status).items()
                if key not in ("status", "device", "texts", "by_kind", "worst_text", "ms_per_text")
            }
            for other in check.others
        ]
    return entry


def _check_ids(encoder: TextEncoder[Any], part: Draft, route: str) -> None:
    texts = [text.text for text in part.verification.texts]
    for text, ours, theirs in zip(texts, encoder.tokenize(texts, task=route), part.verification.ids, strict=True):
        if ours != theirs.tolist():
            raise GateError(f"token ids differ from AutoTokenizer's for the text {text[:60]!r}: {ours} != {theirs}.")


def _badness(check: Check) -> tuple[int, float]:
    return len(check.failed), -check.figures.cosine_min
