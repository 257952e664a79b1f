"""Load what was written with the runtime itself, and compare its vectors with torch's."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import trivec
from trivec._encoders import DenseEncoder
from trivec._errors import GateError
from trivec._pool import Floats
from trivec_export._gate import BOUNDS, Figures, compare, failures
from trivec_export._part import Part

_ALONE = 48  # texts that are also encoded each in a call of its own


@dataclass(frozen=True)
class Verdict:
    """One precision of one route: its figures, and the bounds it failed."""

    route: str
    figures: Figures
    failed: list[str]
    worst_text: str
    texts: int
    ms_per_text: float

    def record(self, status: str) -> dict[str, Any]:
        """The manifest's gate entry."""
        figures = {key: value for key, value in asdict(self.figures).items() if key != "worst"}
        rounded = {k: round(v, 8) if isinstance(v, float) else v for k, v in figures.items()}
        return {
            "status": status,
            "route": self.route,
            "texts": self.texts,
            **rounded,
            # the graph that emulates another is not the one that will run
            **({"ms_per_text": round(self.ms_per_text, 3)} if status == "measured" else {}),
            "worst_text": self.worst_text[:200],
        }


def verify(folder: Path, parts: Mapping[str, Part], precision: str, *, stored_as: str) -> dict[str, Verdict]:
    """Encode the verification texts with the runtime: the worse route's verdict for each encoder.

    Args:
        folder: a model folder with its manifest.
        parts: by encoder name.
        precision: whose bounds count.
        stored_as: the precision under which the folder's manifest has the graph.

    Raises:
        GateError: the runtime's token ids are not AutoTokenizer's.
    """
    verdicts: dict[str, Verdict] = {}
    with trivec.load(folder, device="cpu", precision=stored_as) as encoder:
        for name, part in parts.items():
            for route, reference in part.reference.items():
                verdict = _verify_route(encoder, part, route, reference, precision)
                other = verdicts.get(name)
                if other is None or _badness(verdict) > _badness(other):
                    verdicts[name] = verdict
    return verdicts


def _verify_route(encoder: DenseEncoder, part: Part, route: str, reference: Floats, precision: str) -> Verdict:
    texts = [text.text for text in part.verification.texts]
    for text, ours, theirs in zip(texts, encoder.tokenize(texts, task=route), part.verification.ids, strict=True):
        if ours != theirs.tolist():
            raise GateError(f"token ids differ from AutoTokenizer's for the text {text[:60]!r}: {ours} != {theirs}.")
    start = time.perf_counter()
    vectors = encoder.encode(texts, prompt="", task=route)  # (N, D)
    seconds = time.perf_counter() - start
    stride = max(1, len(texts) // _ALONE)
    alone = np.stack([encoder.encode(text, prompt="", task=route) for text in texts[::stride]])  # (M, D)
    figures = compare(vectors, alone, stride, reference, [text.kind for text in part.verification.texts])
    return Verdict(
        route,
        figures,
        failures(figures, BOUNDS[precision]),
        texts[figures.worst],
        len(texts),
        seconds / len(texts) * 1000,
    )


def _badness(verdict: Verdict) -> tuple[int, float]:
    return len(verdict.failed), -verdict.figures.cosine_min
