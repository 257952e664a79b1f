"""One number for everything that decides a vector."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields

import numpy as np

from trivec._encoders.pipeline import Pipeline
from trivec._model.manifest import Multi
from trivec._vectors.arrays import Floats

_LATER = ("prefix_ids", "expansion", "dropped_ids")
"""Fields of a multi-vector head that came with late interaction."""


def fingerprint(
    pipeline: Pipeline,
    *,
    route: str,
    variant: str,
    digest: Callable[[str], str],
    prompt: str,
    width: int,
    normalize: bool,
    precision: str,
) -> str:
    """sha256, in hexadecimal, over the files (by their own sha256), the settings and the options of a call.

    Args:
        pipeline: tokenizer, graph, pooling and steps.
        route: its name, for the value ranges of int8 and uint8 outputs.
        variant: the precision of the graph.
        digest: gives the sha256 of a file that no manifest vouches for.
        prompt: the text before each input.
        width: numbers kept of a vector.
        normalize: whether vectors are divided by their norm afterwards.
        precision: the number type of the vectors.
    """
    ingredients = {
        **_common(pipeline, variant, digest),
        "arrays": _digest_arrays(pipeline.arrays, route, precision),
        "prompt": prompt,
        "width": width,
        "normalize": normalize,
        "precision": precision,
    }
    return _hash(ingredients)


def heads_fingerprint(
    pipeline: Pipeline,
    *,
    variant: str,
    digest: Callable[[str], str],
    prompt: str,
    settings: Mapping[str, object],
) -> str:
    """The same for a route with a sparse or multi-vector head; `settings` are the options that a call gives them."""
    ingredients = {
        **_common(pipeline, variant, digest),
        "arrays": {k: _sha256(v) for k, v in pipeline.arrays.items() if not k.endswith("ranges")},
        "sparse": None if pipeline.sparse is None else asdict(pipeline.sparse),
        "multi": None if pipeline.multi is None else _multi(pipeline.multi),
        "prompt": prompt,
        **settings,
    }
    return _hash(ingredients)


def scores_fingerprint(
    pipeline: Pipeline, *, variant: str, digest: Callable[[str], str], prompt: str, settings: Mapping[str, object]
) -> str:
    """The same for a route that scores pairs; `settings` are the options that a call gives for its scores."""
    score = None if pipeline.score is None else asdict(pipeline.score)
    return _hash({**_common(pipeline, variant, digest), "score": score, "prompt": prompt, **settings})


def ranks_fingerprint(sides: Sequence[str], similarity: str) -> str:
    """The same for documents that are ranked by vectors: the fingerprints of both sides, and how they are compared."""
    return _hash({"sides": list(sides), "similarity": similarity})


def _common(pipeline: Pipeline, variant: str, digest: Callable[[str], str]) -> dict[str, object]:
    """Files, tokenizer settings and pooling of a route."""
    encoder = pipeline.encoder
    graph = encoder.variants[variant].files if encoder.variants else ()
    arithmetic = None if pipeline.session is None else pipeline.session.arithmetic
    return {
        **({} if arithmetic is None else {"arithmetic": arithmetic}),
        **({} if encoder.template is None else {"template": asdict(encoder.template)}),
        "files": [ref.sha256 or digest(ref.path) for ref in (encoder.tokenizer, *graph)],
        "lower_case": encoder.lower_case,
        "special_ids": sorted(encoder.special_ids),
        "add_special_tokens": encoder.add_special_tokens,
        "truncation_side": encoder.truncation_side,
        "max_seq_length": pipeline.tokenizer.max_seq_length,
        "output": pipeline.output,
        "pooling": None if pipeline.pooling is None else asdict(pipeline.pooling),
        "steps": [asdict(step) for step in pipeline.steps],
    }


def _multi(head: Multi) -> dict[str, object]:
    """The head as the first format had it, and of what came later what it uses: older fingerprints hold."""
    later = {field.name: field.default for field in fields(Multi) if field.name in _LATER}
    return {key: value for key, value in asdict(head).items() if later.get(key, ...) != getattr(head, key)}


def _hash(ingredients: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def _sha256(array: Floats) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _digest_arrays(arrays: Mapping[str, Floats], route: str, precision: str) -> dict[str, str]:
    """sha256 of the arrays that a route's vectors depend on; the ranges only where they are used."""
    ranges = (f"{route}.ranges", f"{route}.normalized_ranges")
    used = {k: v for k, v in arrays.items() if not k.endswith("ranges") or (k in ranges and precision.endswith("int8"))}
    return {key: _sha256(value) for key, value in used.items()}
