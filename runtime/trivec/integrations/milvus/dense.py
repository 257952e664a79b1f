"""Embedding functions with one vector a text."""

import threading
from abc import abstractmethod
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Unpack, get_args

import numpy as np

from trivec._encoders.dense import DenseEncoder
from trivec._encoders.static import StaticEncoder
from trivec._errors import InputError
from trivec._vectors.arrays import Floats, normalize
from trivec.integrations.milvus._base import (
    BaseEmbeddingFunction,
    ModelOptions,
    Vector,
    as_list,
    open_model,
    with_instruction,
)

__all__ = [
    "DefaultEmbeddingFunction",
    "InstructorEmbeddingFunction",
    "JinaEmbeddingFunction",
    "Model2VecEmbeddingFunction",
    "NomicEmbeddingFunction",
    "OnnxEmbeddingFunction",
    "SentenceTransformerEmbeddingFunction",
]
NomicTask = Literal["search_document", "search_query", "clustering", "classification"]
JinaTask = Literal["retrieval.query", "retrieval.passage", "separation", "classification", "text-matching"]
_DENSE = "a model with one vector a text"
_TORCH = 'it speaks to torch, which is not used; precision="fp32", "fp16" or "int8" chooses the numbers.'
_PROMPTS = "as with pymilvus.model, only query_instruction= and doc_instruction= are put before texts."
_TRANSFORMER = {
    "model_kwargs": _TORCH,
    "backend": "the ONNX graph is what runs.",
    "tokenizer_kwargs": "the tokenizer runs as its files say; set the length with .model.max_seq_length.",
    "processor_kwargs": "the tokenizer runs as its files say; set the length with .model.max_seq_length.",
    "config_kwargs": _TORCH,
    "prompts": _PROMPTS,
    "default_prompt_name": _PROMPTS,
}
_HOSTED = "only the hosted API has it; here the open weights run on this machine."


class _Dense(BaseEmbeddingFunction):
    """One vector a text, each function its own words around it."""

    model: DenseEncoder
    batch_size = 32
    normalize_embeddings = True

    def __call__(self, texts: Sequence[str]) -> list[Vector]:
        """Vectors of texts, each (D,) float32."""
        return self._encode(as_list(texts, "texts"))

    def encode_queries(self, queries: Sequence[str]) -> list[Vector]:
        """Vectors of queries, each (D,) float32."""
        return self._encode(as_list(queries, "queries"), task="query")

    def encode_documents(self, documents: Sequence[str]) -> list[Vector]:
        """Vectors of documents, each (D,) float32."""
        return self._encode(as_list(documents, "documents"), task="document")

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return self.model.dim

    def _encode_query(self, query: str) -> Vector:
        """One query: (D,)."""
        return self.encode_queries([query])[0]

    def _encode_document(self, document: str) -> Vector:
        """One document: (D,)."""
        return self.encode_documents([document])[0]

    def _encode(self, texts: list[str], task: str | None = None, prompt: str = "") -> list[Vector]:
        return list(self._matrix(texts, task, prompt, normalized=self.normalize_embeddings))

    def _matrix(self, texts: list[str], task: str | None, prompt: str, *, normalized: bool) -> Floats:
        vectors: Floats = self.model.encode(  # (N, D)
            texts, prompt=prompt, batch_size=self.batch_size, normalize_embeddings=normalized, task=task
        )
        return vectors


class SentenceTransformerEmbeddingFunction(_Dense):
    """A sentence-transformers model.

        ef = SentenceTransformerEmbeddingFunction("all-MiniLM-L6-v2", device="cpu")
        ef.encode_documents(["a text"])  # [(384,) float32]

    Prompts that the model stores are not used, as there: query_instruction and doc_instruction are.
    """

    def __init__(
        self,
        model_name: str | PathLike[str] = "all-MiniLM-L6-v2",
        batch_size: int = 32,
        query_instruction: str = "",
        doc_instruction: str = "",
        device: str | None = "cpu",
        normalize_embeddings: bool = True,
        *,
        truncate_dim: int | None = None,
        **kwargs: Unpack[ModelOptions],
    ) -> None:
        """Open the model.

        Args:
            model_name: a folder written by `trivec export`, or a name on the Hub; a bare name is looked for among
                sentence-transformers/ first.
            batch_size: as of `DenseEncoder.encode`.
            query_instruction: put before each query. Prompts that the model stores are not used.
            doc_instruction: put before each document.
            device: "cpu", "cuda", "cuda:1"; None chooses.
            normalize_embeddings: whether vectors get length 1.
            truncate_dim: keep the first so many numbers.
            kwargs: ModelOptions.

        Raises:
            InputError: an unknown argument, or the model gives no dense vectors.
            Whatever `trivec.load` raises.
        """
        self.model_name, self.batch_size, self.normalize_embeddings = model_name, batch_size, normalize_embeddings
        self.query_instruction, self.doc_instruction = query_instruction, doc_instruction
        self.model = open_model(model_name, device, kwargs, kinds=DenseEncoder, wanted=_DENSE, instead=_TRANSFORMER)
        self.model.truncate_dim = truncate_dim
        self.device = self.model.device

    def encode_queries(self, queries: Sequence[str]) -> list[Vector]:
        """Vectors of queries, each (D,) float32."""
        return self._encode(with_instruction(self.query_instruction, as_list(queries, "queries")), task="query")

    def encode_documents(self, documents: Sequence[str]) -> list[Vector]:
        """Vectors of documents, each (D,) float32."""
        return self._encode(with_instruction(self.doc_instruction, as_list(documents, "documents")), task="document")


class DefaultEmbeddingFunction(SentenceTransformerEmbeddingFunction):
    """all-MiniLM-L6-v2 in fp32, 384 numbers of length 1: what one takes without a reason for another."""

    def __init__(self, **kwargs: Unpack[ModelOptions]) -> None:
        """Open the model; the arguments are ModelOptions."""
        kwargs.setdefault("precision", "fp32")
        super().__init__(**kwargs)


class OnnxEmbeddingFunction(_Dense):
    """An ONNX graph with the tokenizer of another model; mean pooling, vectors of length 1."""

    def __init__(
        self,
        model_name: str | PathLike[str] = "GPTCache/paraphrase-albert-onnx",
        tokenizer_name: str | PathLike[str] | None = "GPTCache/paraphrase-albert-small-v2",
        *,
        device: str | None = "cpu",
        **kwargs: Unpack[ModelOptions],
    ) -> None:
        """Open the model.

        Args:
            model_name: a folder or Hub repository with model.onnx; `onnx/model.onnx` serves as well.
            tokenizer_name: a folder or Hub repository with tokenizer.json and config.json. None: model_name has them.
            device: "cpu", "cuda", "cuda:1"; None chooses.
            kwargs: ModelOptions.

        Raises:
            InputError: an unknown argument, or the model gives no dense vectors.
            Whatever `trivec.load` raises.
        """
        from trivec.integrations.milvus._pair import pair

        self.model_name, self.tokenizer_name = model_name, tokenizer_name
        folder = pair(model_name, model_name if tokenizer_name is None else tokenizer_name, kwargs)
        kwargs.pop("revision", None)  # of the graph's repository, which `pair` has read
        self.model = open_model(folder, device, kwargs, kinds=DenseEncoder, wanted=_DENSE)
        self.device = self.model.device


class Model2VecEmbeddingFunction(_Dense):
    """A Model2Vec table of static vectors: no graph runs."""

    def __init__(
        self, model_source: str | PathLike[str] = "minishlab/potion-base-8M", **kwargs: Unpack[ModelOptions]
    ) -> None:
        """Open the model.

        Args:
            model_source: a Model2Vec folder, or a name on the Hub.
            kwargs: ModelOptions.

        Raises:
            MissingExtraError: safetensors is not installed.
            InputError: an unknown argument, or the model is no static one.
            Whatever `trivec.load` raises.
        """
        self.model_source = model_source
        self.model = open_model(
            model_source, "cpu", kwargs, kinds=StaticEncoder, wanted="a Model2Vec model (a table of static vectors)"
        )
        self.normalize_embeddings = False  # the model's config says


class InstructorEmbeddingFunction(_Dense):
    """INSTRUCTOR: an instruction before each text, which pooling leaves out (Su et al. 2022, arXiv:2212.09741)."""

    def __init__(
        self,
        model_name: str | PathLike[str] = "hkunlp/instructor-xl",
        batch_size: int = 32,
        query_instruction: str = "Represent the question for retrieval:",
        doc_instruction: str = "Represent the document for retrieval:",
        device: str | None = "cpu",
        normalize_embeddings: bool = True,
        **kwargs: Unpack[ModelOptions],
    ) -> None:
        """Open the model.

        Args:
            model_name: a folder written by `trivec export`, or a name on the Hub.
            batch_size: as of `DenseEncoder.encode`.
            query_instruction: of queries.
            doc_instruction: of documents, and of texts given to the function itself.
            device: "cpu", "cuda", "cuda:1"; None chooses.
            normalize_embeddings: whether vectors get length 1.
            kwargs: ModelOptions.

        Raises:
            InputError: an unknown argument, or the model gives no dense vectors.
            Whatever `trivec.load` raises.
        """
        self.model_name, self.batch_size, self.normalize_embeddings = model_name, batch_size, normalize_embeddings
        self.query_instruction, self.doc_instruction = query_instruction, doc_instruction
        self.model = open_model(model_name, device, kwargs, kinds=DenseEncoder, wanted=_DENSE)
        self.model.set_pooling_include_prompt(False)
        self.device = self.model.device

    def __call__(self, texts: Sequence[str]) -> list[Vector]:
        """Vectors of texts, read as documents, each (D,) float32."""
        return self._instructed(as_list(texts, "texts"), self.doc_instruction)

    def encode_queries(self, queries: Sequence[str]) -> list[Vector]:
        """Vectors of queries, each (D,) float32."""
        return self._instructed(as_list(queries, "queries"), self.query_instruction)

    def encode_documents(self, documents: Sequence[str]) -> list[Vector]:
        """Vectors of documents, each (D,) float32."""
        return self._instructed(as_list(documents, "documents"), self.doc_instruction)

    def _instructed(self, texts: list[str], instruction: str) -> list[Vector]:
        return self._encode([text.strip() for text in texts], prompt=instruction.strip())  # as InstructorEmbedding


class _Tasked(_Dense):
    """A model that knows its tasks by name."""

    _query_task: str
    _document_task: str
    _own_task: str

    def __call__(self, texts: Sequence[str]) -> list[Vector]:
        """Vectors of texts under the task that the function was made with, each (D,) float32."""
        return self._of_task(as_list(texts, "texts"), self._own_task)

    def encode_queries(self, queries: Sequence[str]) -> list[Vector]:
        """Vectors of queries, each (D,) float32."""
        return self._of_task(as_list(queries, "queries"), self._query_task)

    def encode_documents(self, documents: Sequence[str]) -> list[Vector]:
        """Vectors of documents, each (D,) float32."""
        return self._of_task(as_list(documents, "documents"), self._document_task)

    @abstractmethod
    def _of_task(self, texts: list[str], task: str) -> list[Vector]:
        """Vectors of texts under a task."""


class NomicEmbeddingFunction(_Tasked):
    """nomic-embed-text on its open weights: "search_query: " and the like before each text; matryoshka dimensions."""

    _query_task, _document_task = "search_query", "search_document"

    def __init__(
        self,
        model_name: str | PathLike[str] = "nomic-embed-text-v1.5",
        task_type: NomicTask = "search_document",
        dimensions: int = 768,
        *,
        dimensionality: int | None = None,
        batch_size: int = 32,
        device: str | None = "cpu",
        **kwargs: Unpack[ModelOptions],
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
            kwargs: ModelOptions.

        Raises:
            InputError: an argument that only the hosted API has, an unknown task, dimensions out of range, or the model
                gives no dense vectors.
            Whatever `trivec.load` raises.
        """
        _check_task("task_type", task_type, NomicTask)
        self.model_name, self.batch_size = model_name, batch_size
        self.task_type = self._own_task = task_type
        hosted = dict.fromkeys(("long_text_mode", "inference_mode", "api_key"), _HOSTED)
        name = _published("nomic-ai", model_name)
        self.model = open_model(name, device, kwargs, kinds=DenseEncoder, wanted=_DENSE, instead=hosted)
        self.dimensionality = _check_dimensions(self.model, dimensions if dimensionality is None else dimensionality)
        self.device = self.model.device

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return self.dimensionality

    def _of_task(self, texts: list[str], task: str) -> list[Vector]:
        if self.dimensionality == self.model.dim:
            return self._encode(texts, prompt=f"{task}: ")
        whole = self._matrix(texts, None, f"{task}: ", normalized=False)  # (N, D)
        return list(normalize(_standardized(whole)[:, : self.dimensionality]))


class JinaEmbeddingFunction(_Tasked):
    """jina-embeddings-v3 on its open weights: adapters for each task, matryoshka dimensions."""

    _query_task, _document_task = "retrieval.query", "retrieval.passage"

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
        **kwargs: Unpack[ModelOptions],
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
            kwargs: ModelOptions.

        Raises:
            InputError: an argument that only the hosted API has, an unknown task, dimensions out of range, or the model
                gives no dense vectors.
            Whatever `trivec.load` raises.
        """
        for name, value in (("api_key", api_key), ("late_chunking", late_chunking)):
            if value:
                shown = "..." if name == "api_key" else repr(value)
                raise InputError(f"{name}={shown} is not taken here: {_HOSTED}")
        _check_task("task", task, JinaTask)
        self.model_name, self.batch_size, self.late_chunking = model_name, batch_size, late_chunking
        self.task = self._own_task = task
        self._arguments: dict[str, Any] = {
            "name": _published("jinaai", model_name),
            "device": device,
            "options": kwargs,
        }
        self._models: dict[str, DenseEncoder] = {}
        self._lock = threading.Lock()
        self._truncate_dim: int | None = None
        self.model = self._of(task)
        self._truncate_dim = None if dimensions is None else _check_dimensions(self.model, dimensions)
        self.model.truncate_dim = self._truncate_dim
        self.device = self.model.device

    def _of_task(self, texts: list[str], task: str) -> list[Vector]:
        model = self._of(task)
        prompt = model.prompts.get(task, "")
        return list(
            model.encode(texts, prompt=prompt, batch_size=self.batch_size, normalize_embeddings=True, task=task)
        )

    def _of(self, task: str) -> DenseEncoder:
        """The model with a task's adapters merged, opened when it is first asked for: each is as large as the whole."""
        with self._lock:
            if task not in self._models:
                model = open_model(**self._arguments, task=task, kinds=DenseEncoder, wanted=_DENSE)
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


def _check_dimensions(model: DenseEncoder, dimensions: object) -> int:
    """The number; the model is closed if it is out of range."""
    whole = model.dim
    if not isinstance(dimensions, int | np.integer) or not 1 <= dimensions <= whole:
        model.close()
        raise InputError(f"dimensions must be between 1 and {whole}, got {dimensions!r}.")
    return int(dimensions)


def _standardized(vectors: Floats) -> Floats:
    """Rows (N, D) less their mean, over their standard deviation: torch.nn.functional.layer_norm, eps 1e-5."""
    centred = vectors - vectors.mean(1, keepdims=True)  # (N, D)
    return np.asarray(centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5), dtype=np.float32)
