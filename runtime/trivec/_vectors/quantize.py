"""Vectors in the number type that a store wants: float32, int8, uint8, binary, ubinary."""

from typing import Any

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._pooling.dense import Floats

OUTPUT_PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


def check_output_precision(precision: str) -> None:
    """Raise InputError unless it is one of OUTPUT_PRECISIONS."""
    if precision not in OUTPUT_PRECISIONS:
        hint = " The variant (fp32, fp16, int8) is chosen at load." if precision in ("fp32", "fp16") else ""
        raise InputError(f"precision {precision!r} is not one of {', '.join(OUTPUT_PRECISIONS)}.{hint}")


def quantization_steps(ranges: Floats) -> Floats:
    """(2, D) value ranges to the (D,) width of one of 256 steps; 1 where a dimension never varies."""
    steps: Floats = (ranges[1] - ranges[0]) / 255
    return np.where(steps == 0, np.float32(1), steps)


def quantize_vectors(
    vectors: npt.NDArray[np.floating[Any]], precision: str, ranges: Floats | None
) -> npt.NDArray[np.generic]:
    """Quantize as sentence_transformers.util.quantize_embeddings does with `ranges`.

    Args:
        vectors: (N, D) float32, or another float type, in which it is then computed.
        precision: int8 and uint8 cut each dimension's range into 256 steps; binary and ubinary keep the signs, eight
            to a byte.
        ranges: (2, D) least and greatest value of each dimension, for int8 and uint8.

    Returns:
        (N, D) float32, int8 or uint8, or (N, ceil(D / 8)) int8 or uint8.
    """
    if precision == "float32":
        return vectors
    if precision == "ubinary":
        return np.packbits(vectors > 0, axis=-1)
    if precision == "binary":
        return (np.packbits(vectors > 0, axis=-1).astype(np.int16) - 128).astype(np.int8)
    if ranges is None:
        raise InputError(
            f"precision={precision!r} needs the value ranges that `trivec export` stores, and there are none for this "
            "call. Encode to float32 and quantize with ranges of your own corpus, or use 'binary'."
        )
    levels = np.clip(np.floor((vectors - ranges[0]) / quantization_steps(ranges)), 0, 255)  # (N, D)
    quantized: npt.NDArray[np.generic] = (
        levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)
    )
    return quantized
