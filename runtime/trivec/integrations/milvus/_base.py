"""What the embedding functions have in common: opening their model, and looking at what they are given."""

import importlib.util
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from trivec._encoders.protocol import Encoder
from trivec._errors import InputError, MissingExtraError
from trivec._export import missing_packages
from trivec._vectors.sparse import SparseVectors
from trivec.integrations._adapter import open_model

logger = logging.getLogger("trivec")
Vector = npt.NDArray[np.float32]


class LoadArguments(TypedDict, total=False):
    """Keyword arguments that every embedding function with a model takes beside its own; all as of `trivec.load`."""

    precision: str
    """The variant: "auto" (fp32 on a CPU, fp16 on CUDA), "fp32", "fp16" or "int8"."""
    threads: int | None
    revision: str | None
    expect: str | None
    cache_dir: str | None
    cache_folder: str | None
    """`cache_dir` under sentence-transformers' name."""
    token: str | bool | None
    local_files_only: bool
    trust_remote_code: bool
    """Accepted; no code of a model repository is ever run here."""


class BaseEmbeddingFunction(ABC):
    """Texts to vectors, as pymilvus.model names it."""

    @abstractmethod
    def __call__(self, texts: Sequence[str]) -> Any:  # noqa: ANN401 - vectors by the kind of function
        """Vectors of texts that are neither queries nor documents."""

    @abstractmethod
    def encode_queries(self, queries: Sequence[str]) -> Any:  # noqa: ANN401
        """Vectors of queries."""

    @abstractmethod
    def encode_documents(self, documents: Sequence[str]) -> Any:  # noqa: ANN401
        """Vectors of documents."""


def encoder_of(
    name: str | PathLike[str],
    device: str | None,
    arguments: Mapping[str, Any],
    fits: Callable[[Encoder], bool],
    need: str,
    *,
    instead: Mapping[str, str] | None = None,
    task: str | None = None,
) -> Any:  # noqa: ANN401 - the kind that fits
    """A function's encoder; a model without ONNX graphs is exported on the first call where the exporter is installed.

    Args:
        name: folder or Hub name.
        device: as pymilvus.model takes it; None and "" choose.
        arguments: LoadArguments, and whatever else the user wrote.
        fits: as of `open_model`, whose errors come as well.
        need: what the function needs, in words.
        instead: for arguments that the twin takes and this function does not, what to write.
        task: open this route alone.

    Raises:
        InputError: an argument that is not known here.
    """
    check_arguments(arguments, instead or {})
    given = {"device": device or "auto", "export": not missing_packages(), "task": task}
    return open_model(name, fits, f"this function needs {need}", given, arguments)


def check_arguments(arguments: Mapping[str, Any], instead: Mapping[str, str]) -> None:
    """Raise InputError for what is none of LoadArguments; arguments as of `encoder_of`."""
    known = LoadArguments.__annotations__
    for argument, value in arguments.items():
        if argument not in known:
            hint = instead.get(argument) or f"expected one of {', '.join(sorted(known))}."
            shown = "..." if argument == "api_key" else repr(value)
            raise InputError(f"{argument}={shown} is not taken here: {hint}")


def check_dimensions(encoder: Encoder, dimensions: object) -> int:
    """The number; the encoder is closed if it is out of range."""
    whole = encoder.dim
    if not isinstance(dimensions, int | np.integer) or not 1 <= dimensions <= whole:
        encoder.close()
        raise InputError(f"dimensions must be between 1 and {whole}, got {dimensions!r}.")
    return int(dimensions)


def with_instruction(instruction: str, texts: list[str]) -> list[str]:
    """The instruction directly before each text, as pymilvus.model writes them."""
    return [instruction + text for text in texts] if instruction else texts


def rows_of(vectors: SparseVectors) -> Any:  # noqa: ANN401 - a RowArray, whose module needs scipy
    """Sparse vectors as a csr_array (N, dim) whose rows stay (1, dim).

    Raises:
        MissingExtraError: scipy is not installed.
    """
    check_scipy()
    from trivec.integrations.milvus._rows import row_array

    return row_array(vectors)


def check_scipy() -> None:
    """Raise MissingExtraError unless scipy is there: before a model is opened, not after texts were encoded."""
    if importlib.util.find_spec("scipy") is None:
        raise MissingExtraError(
            'sparse vectors for Milvus are scipy arrays, and scipy is not installed. Type: pip install "trivec[milvus]"'
        )
