"""What the embedding functions have in common: opening their model, and looking at what they are given."""

import importlib.util
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError, MissingExtraError
from trivec._load import load
from trivec._vectors.sparse import SparseVectors

logger = logging.getLogger("trivec")
Vector = npt.NDArray[np.float32]


class ModelOptions(TypedDict, total=False):
    """Keyword arguments that every embedding function with a model takes beside its own; all as of `trivec.load`."""

    precision: str
    """The variant: "auto" (fp32 on a CPU, fp16 on CUDA), "fp32", "fp16" or "int8"."""
    threads: int | None
    revision: str | None
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


def open_model(
    name: str | PathLike[str],
    device: str | None,
    options: Mapping[str, Any],
    *,
    kinds: type | tuple[type, ...],
    wanted: str,
    instead: Mapping[str, str] | None = None,
    task: str | None = None,
) -> Any:  # noqa: ANN401 - one of `kinds`
    """Open a model; one without ONNX graphs is exported on the first call where the exporter is installed.

    Args:
        name: folder or Hub name.
        device: as pymilvus.model takes it; None and "" choose.
        options: ModelOptions, and whatever else the user wrote.
        kinds: the encoder's class must be one of these.
        wanted: what such a model is, in words.
        instead: for arguments that the twin takes and this function does not, what to write.
        task: open this route alone.

    Raises:
        InputError: an argument that is not known here, or a model of another kind.
        Whatever `trivec.load` raises.
    """
    given = {**options}
    given.pop("trust_remote_code", None)
    if "cache_folder" in given:
        given["cache_dir"] = given.pop("cache_folder")
    known = ModelOptions.__annotations__
    for argument, value in given.items():
        if argument not in known:
            hint = (instead or {}).get(argument) or f"expected one of {', '.join(sorted(known))}."
            raise InputError(f"{argument}={value!r} is not taken here: {hint}")
    encoder = load(name, device=device or "auto", export=_can_export(), task=task, **given)
    if not isinstance(encoder, kinds):
        encoder.close()
        raise InputError(f"{fspath(name)} is a {type(encoder).__name__}, and this function needs {wanted}.")
    return encoder


def _can_export() -> bool:
    """Whether the exporter has what it needs; it comes with the runtime, but its packages do not."""
    return all(
        importlib.util.find_spec(name) is not None for name in ("torch", "transformers", "optimum", "onnxscript")
    )


def as_list(texts: object, name: str) -> list[str]:
    """The texts as a list; a lone string, which would be read letter by letter, and what is no text are refused.

    Raises:
        InputError: naming the index of what is no text.
    """
    if isinstance(texts, str | bytes):
        raise InputError(f"{name} must be a list of texts, got one {type(texts).__name__}. Type: [{texts[:20]!r}]")
    try:
        listed: list[Any] = list(texts)  # type: ignore[call-overload]
    except TypeError:
        raise InputError(f"{name} must be a list of texts, got {type(texts).__name__}.") from None
    for index, text in enumerate(listed):
        if not isinstance(text, str):
            raise InputError(f"{name} must be texts, got {type(text).__name__} at index {index}.")
    return listed


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
