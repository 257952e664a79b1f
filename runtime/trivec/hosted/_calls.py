"""One call of a hosted encoder: its options, checked, and what becomes of the vectors here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._vectors.arrays import Array, normalize
from trivec._vectors.quantize import check_output_precision, quantize_vectors
from trivec._vectors.torch_tensors import as_tensor
from trivec.hosted._answers import PACKED
from trivec.hosted._requests import Wish


class Form(NamedTuple):
    """What becomes of the vectors of a call."""

    precision: str
    normalize: bool
    truncate_dim: int | None
    to_numpy: bool
    to_tensor: bool


class HostedCall(NamedTuple):
    """The options of a call, checked."""

    wish: Wish
    form: Form
    show_progress_bar: bool | None


def formed(vectors: Array, form: Form, single: bool) -> Any:  # noqa: ANN401
    """Rows (N, W) as the service gave them, as `encode` returns them."""
    rows = vectors
    if form.truncate_dim is not None:
        rows = rows[:, : checked_width(form.truncate_dim, rows.shape[1])]  # (N, truncate_dim)
    if form.normalize:
        rows = normalize(rows.astype(np.float32, copy=False))
    made: npt.NDArray[Any] = rows if form.precision == "float32" else quantize_vectors(rows, form.precision, None)
    if form.to_tensor:
        return as_tensor(made[0] if single else made)
    if not form.to_numpy:
        return as_tensor(made[0]) if single else [as_tensor(row) for row in made]
    return made[0] if single else made


def checked_width(truncate_dim: int, width: int | None) -> int:
    whole = isinstance(truncate_dim, int | np.integer) and not isinstance(truncate_dim, bool) and truncate_dim >= 1
    if not whole or (width is not None and truncate_dim > width):
        most = "the width of its vectors" if width is None else f"{width}, this model's dim"
        raise InputError(f"truncate_dim must be between 1 and {most}; got {truncate_dim!r}.")
    return int(truncate_dim)


def _check_absent(options: Mapping[str, Any]) -> None:
    """InputError for what only a model on this machine has."""
    if options["output_value"] != "sentence_embedding":
        raise InputError(f"output_value={options['output_value']!r}: a service gives sentence embeddings alone.")
    for name in ("device", "pool", "chunk_size"):
        if options[name] not in (None, []):
            raise InputError(f"{name}={options[name]!r}: a hosted model runs at its service. See concurrency= of open.")
    size = options["batch_size"]
    if size is not None and (isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1):
        raise InputError(f"batch_size must be a positive integer or None, got {size!r}.")


def form_of(options: Mapping[str, Any], dtype: str, width: int | None) -> Form:
    """What the options of `encode` make of vectors.

    Args:
        options: all of them.
        dtype: what the service gives.
        width: numbers of a vector; None: nobody knows yet.

    Raises:
        InputError: an option that a hosted model does not have, or that does not go with the others.
    """
    _check_absent(options)
    precision, unit, cut = (
        options["precision"] or "float32",
        bool(options["normalize_embeddings"]),
        options["truncate_dim"],
    )
    check_output_precision(precision)
    if precision in ("int8", "uint8"):
        raise InputError(
            f"precision={precision!r} needs value ranges, and a service has none. Encode to float32, then: "
            f"trivec.quantize_embeddings(vectors, {precision!r}, ranges), with ranges of your own corpus."
        )
    if dtype != "float32" and (precision != "float32" or (dtype in PACKED and (unit or cut is not None))):
        raise InputError(f"the service gives {dtype} here, which is neither quantized, cut nor normalized again.")
    if cut is not None:
        checked_width(cut, width)
    return Form(precision, unit, cut, options["convert_to_numpy"], options["convert_to_tensor"])
