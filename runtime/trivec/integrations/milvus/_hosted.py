"""Models that pymilvus.model asks by a hosted API, on their open weights: nomic-embed-text and jina-embeddings-v3."""

import threading
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Unpack, get_args

import numpy as np

from trivec._encoders.calls import Side
from trivec._encoders.dense import DenseEncoder
from trivec._errors import InputError
from trivec._system.forks import afresh_in_children
from trivec._vectors.arrays import Floats, normalize
from trivec.integrations.milvus._base import LoadArguments, Vector, check_dimensions
from trivec.integrations.milvus._dense import DenseFunction, dense_encoder

NomicTask = Literal["search_document", "search_query", "clustering", "classification"]
JinaTask = Literal["retrieval.query", "retrieval.passage", "separation", "classification", "text-matching"]
_HOSTED = (
    "only the hosted API has it; here the open weights run on this machine. For the API: from "
    "trivec.integrations.milvus.hosted import "
)


class NomicEmbeddingFunction(DenseFunction):
    """nomic-embed-text on its open weights: "search_query: " and the like before each text; matryoshka dimensions."""

    def __init__(
        self,
        model_name: str | PathLike[str] = "nomic-embed-text-v1.5",
        task_type: NomicTask = "search_document",
        dimensions: int = 768,
        *,
        dimensionality: int | None = None,
        batch_size: int = 32,
        device: str | None = "cpu",
        **kwargs: Unpack[LoadArguments],
    ) -> None:
        """Open the model.

        Args:
            model_name: a folder written by `trivec export`, or a name on the Hub; a bare name is one of nomic-ai/.
            task_type: of texts given to the function itself; queries and documents have theirs.
            dimensions: numbers of a vector. Below the model's own, vectors are layer-normalized before they are cut, as
                its model card says.
            dimensionality: another name of `dimensions`, which wins, as there.
            batch_size: as of `DenseEncoder.encode`.
            device: "cpu", "cuda", "cuda:1"; None chooses.
            kwargs: LoadArguments.

        Raises:
            InputError: an argument that only the hosted API has, an unknown task, dimensions out of range, or the model
                gives no dense vectors.
            Whatever `trivec.load` raises.
        """
        _check_task("task_type", task_type, NomicTask)
        self.model_name, self.batch_size = model_name, batch_size
        self.task_type = task_type
        hosted = dict.fromkeys(("long_text_mode", "inference_mode", "api_key"), f"{_HOSTED}{type(self).__name__}")
        name = _published("nomic-ai", model_name)
        self.model = dense_encoder(name, device, kwargs, instead=hosted)
        self.dimensionality = check_dimensions(self.model, dimensions if dimensionality is None else dimensionality)
        self.device = self.model.device

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return self.dimensionality

    def _read(self, texts: list[str], side: Side | None) -> list[Vector]:
        task = {"query": "search_query", "document": "search_document", None: self.task_type}[side]
        if self.dimensionality == self.model.dim:
            return self._encode(texts, prompt=f"{task}: ")
        whole = self._matrix(texts, None, f"{task}: ", normalized=False)  # (N, D)
        return list(normalize(_standardized(whole)[:, : self.dimensionality]))


class JinaEmbeddingFunction(DenseFunction):
    """jina-embeddings-v3 on its open weights: adapters for each task, matryoshka dimensions."""

    def __init__(
        self,
        model_name: str | PathLike[str] = "jina-embeddings-v3",
        api_key: str | None = None,
        task: JinaTask = "retrieval.passage",
        dimensions: int | None = None,
        late_chunking: bool | None = False,
        *,
        batch_size: int = 32,
        device: str | None = "cpu",
        **kwargs: Unpack[LoadArguments],
    ) -> None:
        """Open the model.

        Args:
            model_name: a folder written by `trivec export`, or a name on the Hub; a bare name is one of jinaai/.
            api_key: None: there is no hosted API here.
            task: of texts given to the function itself; queries and documents have theirs.
            dimensions: keep the first so many numbers; None: all.
            late_chunking: only the hosted API has it.
            batch_size: as of `DenseEncoder.encode`.
            device: "cpu", "cuda", "cuda:1"; None chooses.
            kwargs: LoadArguments.

        Raises:
            InputError: an argument that only the hosted API has, an unknown task, dimensions out of range, or the model
                gives no dense vectors.
            Whatever `trivec.load` raises.
        """
        for name, value in (("api_key", api_key), ("late_chunking", late_chunking)):
            if value:
                shown = "..." if name == "api_key" else repr(value)
                raise InputError(f"{name}={shown} is not taken here: {_HOSTED}{type(self).__name__}")
        _check_task("task", task, JinaTask)
        self.model_name, self.batch_size, self.late_chunking = model_name, batch_size, late_chunking
        self.task = task
        self._arguments: dict[str, Any] = {
            "name": _published("jinaai", model_name),
            "device": device,
            "arguments": kwargs,
        }
        self._models: dict[str, DenseEncoder] = {}
        self.start_afresh()
        afresh_in_children(self)
        self._truncate_dim: int | None = None
        self.model = self._of(task)
        self._truncate_dim = None if dimensions is None else check_dimensions(self.model, dimensions)
        self.model.truncate_dim = self._truncate_dim
        self.device = self.model.device

    def _read(self, texts: list[str], side: Side | None) -> list[Vector]:
        task = {"query": "retrieval.query", "document": "retrieval.passage", None: self.task}[side]
        model = self._of(task)
        prompt = model.prompts.get(task, "")
        return list(
            model.encode(texts, prompt=prompt, batch_size=self.batch_size, normalize_embeddings=True, task=task)
        )

    def start_afresh(self) -> None:
        """In a forked child: nobody holds the lock."""
        self._lock = threading.Lock()

    def _of(self, task: str) -> DenseEncoder:
        """The model with a task's adapters merged, opened when it is first asked for: each is as large as the whole."""
        with self._lock:
            if task not in self._models:
                model = dense_encoder(**self._arguments, task=task)
                model.truncate_dim = self._truncate_dim
                self._models[task] = model
            return self._models[task]


def _published(organization: str, name: str | PathLike[str]) -> str | PathLike[str]:
    """A bare model name under the organization that publishes it; folders and full names as they are."""
    if not isinstance(name, str) or "/" in name or Path(name).is_dir():
        return name
    return f"{organization}/{name}"


def _check_task(argument: str, task: object, tasks: Any) -> None:  # noqa: ANN401 - a Literal
    if task not in get_args(tasks):
        raise InputError(f"{argument}={task!r} is none of {', '.join(get_args(tasks))}.")


def _standardized(vectors: Floats) -> Floats:
    """Rows (N, D) less their mean, over their standard deviation: torch.nn.functional.layer_norm, eps 1e-5."""
    centred = vectors - vectors.mean(1, keepdims=True)  # (N, D)
    return np.asarray(centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5), dtype=np.float32)
