"""Tensors from .safetensors files, as numpy arrays: the only import of safetensors, which an extra brings."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from trivec._errors import MissingExtraError, ModelFormatError
from trivec._system.native_text import native_path

_NUMPY = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
}


class Shape(NamedTuple):
    """What a file's header says of a tensor."""

    dtype: str
    """numpy's name of the number type: "float16"."""
    shape: tuple[int, ...]


def read_shapes(path: Path, *, extra: str, why: str) -> dict[str, Shape]:
    """Number type and shape of every tensor of a file, without reading the tensors. As `read_tensors` otherwise."""
    with _Opened(path, extra, why) as file:
        found = {}
        for name in file.keys():  # noqa: SIM118 - no dict
            part = file.get_slice(name)
            dtype, shape = str(part.get_dtype()), tuple(int(n) for n in part.get_shape())
            if dtype not in _NUMPY:
                raise ModelFormatError(
                    f"{path}: the tensor {name!r} is of {dtype}; trivec reads {', '.join(_NUMPY)}. Convert it to F32 "
                    "or F16."
                )
            found[name] = Shape(_NUMPY[dtype], shape)
        return found


def read_tensors(
    path: Path, names: Collection[str] | None = None, *, extra: str, why: str
) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a .safetensors file.

    Args:
        path: the file.
        names: those that are wanted, where they are there; None: all.
        extra: of trivec, which brings safetensors: "static".
        why: what needs it, for the message where it is missing.

    Returns:
        Arrays in the file's own number types.

    Raises:
        MissingExtraError: safetensors is not installed; the message has the pip line.
        ModelFormatError: the file is truncated, altered, or no .safetensors file, or has a number type that numpy does
            not know (bfloat16).
    """
    shapes = read_shapes(path, extra=extra, why=why)
    with _Opened(path, extra, why) as file:
        return {name: file.get_tensor(name) for name in shapes if names is None or name in names}


class _Opened:
    """A file that is open in a `with`, whose errors are trivec's."""

    def __init__(self, path: Path, extra: str, why: str) -> None:
        self._path = path
        try:
            import safetensors
        except ImportError as error:
            raise MissingExtraError(
                f'{why}, and safetensors is not installed. Type: pip install "trivec[{extra}]"'
            ) from error
        self._module: Any = safetensors
        self._file: Any = None

    def __enter__(self) -> Any:  # noqa: ANN401 - safetensors has no types
        try:
            self._file = self._module.safe_open(native_path(self._path), framework="numpy")
        except (self._module.SafetensorError, OSError) as error:
            raise ModelFormatError(self._complaint(error)) from error
        return self._file.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._file.__exit__(kind, error, trace)
        if isinstance(error, self._module.SafetensorError):
            raise ModelFormatError(self._complaint(error)) from error

    def _complaint(self, error: BaseException) -> str:
        return (
            f"{self._path} is no whole .safetensors file ({error}). It is truncated or altered: copy or download it "
            "again."
        )
