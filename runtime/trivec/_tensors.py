"""numpy arrays as torch tensors, where torch is there."""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from trivec._errors import MissingExtraError


def as_tensor(array: npt.NDArray[np.generic]) -> Any:  # noqa: ANN401 - torch is no dependency
    """The array as a torch tensor on the CPU.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        __import__("torch")
    except ImportError as error:
        raise MissingExtraError(
            "convert_to_tensor=True and convert_to_numpy=False give torch tensors, and torch is not installed. Leave "
            "both at their defaults for numpy arrays, or type: pip install torch"
        ) from error
    return sys.modules["torch"].from_numpy(np.ascontiguousarray(array))
