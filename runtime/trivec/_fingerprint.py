"""One number for everything that decides a vector."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict

import numpy as np

from trivec._pipeline import Pipeline
from trivec._pool import Floats


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
    encoder = pipeline.encoder
    files = (encoder.tokenizer, *encoder.variants[variant].files)
    ingredients = {
        "files": [ref.sha256 or digest(ref.path) for ref in files],
        "arrays": _digest_arrays(pipeline.arrays, route, precision),
        "lower_case": encoder.lower_case,
        "special_ids": sorted(encoder.special_ids),
        "truncation_side": encoder.truncation_side,
        "max_seq_length": pipeline.tokenizer.max_seq_length,
        "output": pipeline.output,
        "pooling": None if pipeline.pooling is None else asdict(pipeline.pooling),
        "steps": [asdict(step) for step in pipeline.steps],
        "prompt": prompt,
        "width": width,
        "normalize": normalize,
        "precision": precision,
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def _digest_arrays(arrays: Mapping[str, Floats], route: str, precision: str) -> dict[str, str]:
    """sha256 of the arrays that a route's vectors depend on; the ranges only where they are used."""
    ranges = (f"{route}.ranges", f"{route}.normalized_ranges")
    used = {k: v for k, v in arrays.items() if not k.endswith("ranges") or (k in ranges and precision.endswith("int8"))}
    return {key: hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest() for key, value in used.items()}
