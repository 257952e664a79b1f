"""Load what was written with the runtime itself, and compare its vectors with torch's."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from trivec._encoders.load_options import LoadOptions
from trivec._errors import GateError
from trivec._gate.checks import DOCUMENT, QUERY, AnyBounds, Check, bounds_of, check_route
from trivec._gate.figures import Bounds, cosine, multi_cosine
from trivec._gate.score_figures import ScoreBounds
from trivec._gate.texts import Text
from trivec._loading.open_model import open_model
from trivec._model.manifest import Manifest
from trivec._model.source import Folder
from trivec._vectors.arrays import Floats
from trivec._vectors.multi import MultiVectors
from trivec_export._checkpoint.query_table import Table
from trivec_export._draft import Draft
from trivec_export._reference.agreement import check_ids
from trivec_export._reference.library import NAME, Library
from trivec_export._reference.taken import Prompted

EXACT = Bounds(cosine_min=0.999999, max_diff=1e-6)
"""What a table of weights must reach: nothing is computed."""


def verify(
    folder: Path, parts: Mapping[str, Draft], precision: str, *, stored_as: str, with_prompts: bool = False
) -> dict[str, Check]:
    """Encode the verification texts with the runtime: the worst route and head's figures for each encoder.

    Args:
        folder: a model folder with its manifest.
        parts: by encoder name.
        precision: whose bounds count.
        stored_as: the precision under which the folder's manifest has the graph.
        with_prompts: whether the checkpoint's prompts are tried as well.

    Raises:
        GateError: the runtime's token ids are not the reference's, or a prompt does something else than there.
    """
    worst: dict[str, Check] = {}
    bounds = bounds_of(precision)
    for name, part in parts.items():
        checks: list[Check] = []
        late = all(route.interacts_late for route in part.routes.values())
        for route, reference in part.reference.items():
            # one route at a time: each may have a graph of gigabytes; both sides of late interaction share theirs
            task = None if late else route
            options = LoadOptions(str(folder), device="cpu", precision=stored_as, task=task)
            with open_model(Folder(folder), options) as opened:
                encoder: Any = opened
                _check_ids(encoder, part, route)
                for item in part.prompted if with_prompts else ():
                    if item.route == route:
                        spread = 0.0 if reference.dense is None else float(reference.dense.std(0).max())
                        _check_prompt(encoder, item, bounds, spread)
                documents = part.reference.get(DOCUMENT, reference) if late and route == QUERY else None
                checks += check_route(encoder, part.verification[route].texts, route, reference, bounds, documents)
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
                if key not in ("status", "device", "texts", "by_kind", "worst_text")
            }
            for other in check.others
        ]
    return entry


def check_tables(
    folder: Path, manifest: Manifest, tables: Mapping[str, Table], library: Library, texts: Sequence[Text]
) -> None:
    """Raise GateError where a query side that needs no graph gives other rows than sentence-transformers."""
    for route in [name for name, route in manifest.routes.items() if route.encoder in tables]:
        some = [text.text for text in texts]
        with open_model(Folder(folder), LoadOptions(str(folder), device="cpu", task=route)) as opened:
            encoder: Any = opened
            ids = [np.asarray(row, dtype=np.int64) for row in encoder.tokenize(some, task=route)]
            kept = [i for i, row in enumerate(ids) if len(row)]
            some, ids = [some[i] for i in kept], [ids[i] for i in kept]
            check_ids(some, ids, library.ids(some, route), NAME)
            stated = library.vectors(some, ids, route)
            for check in check_route(encoder, [Text("", text) for text in some], route, stated, {"sparse": EXACT}):
                if check.failed:
                    raise GateError(f"the weights of {route} are not those of {NAME}: {'; '.join(check.failed)}.")


def _check_prompt(encoder: Any, item: Prompted, bounds: Mapping[str, AnyBounds], sigma: float) -> None:  # noqa: ANN401
    """Ids and vectors, or logits, behind a prompt; `sigma` is the logits' standard deviation over all pairs."""
    ours = [np.asarray(row) for row in encoder.tokenize(item.texts, prompt=item.prompt, task=item.route)]
    check_ids(item.texts, ours, item.ids, f"{NAME} behind the prompt {item.prompt!r}")
    found = encoder.represent(item.texts, prompt=item.prompt, task=item.route, whole=True)
    if isinstance(item.vectors.colbert, MultiVectors):
        found_too = cast("MultiVectors", found.colbert)
        off = float(np.abs(found_too.vectors - item.vectors.colbert.vectors).max(initial=0.0))
        if not multi_cosine(found_too, item.vectors.colbert).min() >= cast("Bounds", bounds["colbert"]).cosine_min:
            raise GateError(f"behind the prompt {item.prompt!r} vectors of tokens are {off:.2e} from those of {NAME}.")
        return
    if item.vectors.dense is None:
        return  # a sparse row is a function of the ids
    if encoder.heads == ("score",):
        allowed = cast("ScoreBounds", bounds["score"]).largest * max(1.0, sigma)
        off = float(np.abs(cast("Floats", found.dense) - item.vectors.dense).max())
        if not off <= allowed:
            raise GateError(f"behind the prompt {item.prompt!r} logits are {off:.2e} from those of {NAME}.")
        return
    least = float(cosine(cast("Floats", found.dense), item.vectors.dense).min())
    if not least >= cast("Bounds", bounds["dense"]).cosine_min:
        raise GateError(
            f"behind the prompt {item.prompt!r} vectors have a cosine of {least:.6f} to those of {NAME}: the prompt "
            "counts in the pooling on one side alone."
        )


def _check_ids(encoder: Any, part: Draft, route: str) -> None:  # noqa: ANN401
    texts = [text.text for text in part.verification[route].texts]
    ours = [np.asarray(row) for row in encoder.tokenize(texts, task=route)]
    check_ids(texts, ours, part.verification[route].ids, "the reference")


def _badness(check: Check) -> tuple[int, float]:
    return len(check.failed), check.figures.badness
