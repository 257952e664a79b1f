"""Load what was written with the runtime itself, and compare its vectors with torch's."""

from collections.abc import Mapping
from pathlib import Path

import trivec
from trivec._encoders import DenseEncoder
from trivec._errors import GateError
from trivec._gate import BOUNDS
from trivec._verify import Check, check_route
from trivec_export._part import Part


def verify(folder: Path, parts: Mapping[str, Part], precision: str, *, stored_as: str) -> dict[str, Check]:
    """Encode the verification texts with the runtime: the worst route's figures for each encoder.

    Args:
        folder: a model folder with its manifest.
        parts: by encoder name.
        precision: whose bounds count.
        stored_as: the precision under which the folder's manifest has the graph.

    Raises:
        GateError: the runtime's token ids are not AutoTokenizer's.
    """
    worst: dict[str, Check] = {}
    with trivec.load(folder, device="cpu", precision=stored_as) as encoder:
        for name, part in parts.items():
            for route, reference in part.reference.items():
                _check_ids(encoder, part, route)
                check = check_route(encoder, part.verification.texts, route, reference, BOUNDS[precision])
                if name not in worst or _badness(check) > _badness(worst[name]):
                    worst[name] = check
    return worst


def _check_ids(encoder: DenseEncoder, part: Part, route: str) -> None:
    texts = [text.text for text in part.verification.texts]
    for text, ours, theirs in zip(texts, encoder.tokenize(texts, task=route), part.verification.ids, strict=True):
        if ours != theirs.tolist():
            raise GateError(f"token ids differ from AutoTokenizer's for the text {text[:60]!r}: {ours} != {theirs}.")


def _badness(check: Check) -> tuple[int, float]:
    return len(check.failed), -check.figures.cosine_min
