"""Embedding functions with one vector a text."""

from os import PathLike
from typing import Unpack

from trivec._encoders.calls import Side
from trivec._encoders.static import StaticEncoder
from trivec.integrations.milvus._base import LoadArguments, Vector, encoder_of, with_instruction
from trivec.integrations.milvus._dense import DenseFunction, dense_encoder
from trivec.integrations.milvus._hosted import JinaEmbeddingFunction, NomicEmbeddingFunction

__all__ = [
    "DefaultEmbeddingFunction",
    "InstructorEmbeddingFunction",
    "JinaEmbeddingFunction",
    "Model2VecEmbeddingFunction",
    "NomicEmbeddingFunction",
    "OnnxEmbeddingFunction",
    "SentenceTransformerEmbeddingFunction",
]
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


class SentenceTransformerEmbeddingFunction(DenseFunction):
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
        **kwargs: Unpack[LoadArguments],
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
            kwargs: LoadArguments.

        Raises:
            InputError: an unknown argument, or the model gives no dense vectors.
            Whatever `trivec.load` raises.
        """
        self.model_name, self.batch_size, self.normalize_embeddings = model_name, batch_size, normalize_embeddings
        self.query_instruction, self.doc_instruction = query_instruction, doc_instruction
        self.model = dense_encoder(model_name, device, kwargs, instead=_TRANSFORMER)
        self.model.truncate_dim = truncate_dim
        self.device = self.model.device

    def _read(self, texts: list[str], side: Side | None) -> list[Vector]:
        instruction = {"query": self.query_instruction, "document": self.doc_instruction, None: ""}[side]
        return self._encode(with_instruction(instruction, texts), task=side)


class DefaultEmbeddingFunction(SentenceTransformerEmbeddingFunction):
    """all-MiniLM-L6-v2 in fp32, 384 numbers of length 1: what one takes without a reason for another."""

    def __init__(self, **kwargs: Unpack[LoadArguments]) -> None:
        """Open the model; the arguments are LoadArguments."""
        kwargs.setdefault("precision", "fp32")
        super().__init__(**kwargs)


class OnnxEmbeddingFunction(DenseFunction):
    """An ONNX graph with the tokenizer of another model; mean pooling, vectors of length 1."""

    def __init__(
        self,
        model_name: str | PathLike[str] = "GPTCache/paraphrase-albert-onnx",
        tokenizer_name: str | PathLike[str] | None = "GPTCache/paraphrase-albert-small-v2",
        *,
        device: str | None = "cpu",
        **kwargs: Unpack[LoadArguments],
    ) -> None:
        """Open the model.

        Args:
            model_name: a folder or Hub repository with model.onnx; `onnx/model.onnx` serves as well.
            tokenizer_name: a folder or Hub repository with tokenizer.json and config.json. None: model_name has them.
            device: "cpu", "cuda", "cuda:1"; None chooses.
            kwargs: LoadArguments.

        Raises:
            InputError: an unknown argument, or the model gives no dense vectors.
            Whatever `trivec.load` raises.
        """
        from trivec.integrations.milvus._pair import pair

        self.model_name, self.tokenizer_name = model_name, tokenizer_name
        folder = pair(model_name, model_name if tokenizer_name is None else tokenizer_name, kwargs)
        kwargs.pop("revision", None)  # of the graph's repository, which `pair` has read
        self.model = dense_encoder(folder, device, kwargs)
        self.device = self.model.device


class Model2VecEmbeddingFunction(DenseFunction):
    """A Model2Vec table of static vectors: no graph runs."""

    def __init__(
        self, model_source: str | PathLike[str] = "minishlab/potion-base-8M", **kwargs: Unpack[LoadArguments]
    ) -> None:
        """Open the model.

        Args:
            model_source: a Model2Vec folder, or a name on the Hub.
            kwargs: LoadArguments.

        Raises:
            MissingExtraError: safetensors is not installed.
            InputError: an unknown argument, or the model is no static one.
            Whatever `trivec.load` raises.
        """
        self.model_source = model_source
        need = "a Model2Vec model (a table of static vectors)"
        self.model = encoder_of(model_source, "cpu", kwargs, lambda e: isinstance(e, StaticEncoder), need)
        self.normalize_embeddings = False  # the model's config says


class InstructorEmbeddingFunction(DenseFunction):
    """INSTRUCTOR: an instruction before each text, which pooling leaves out (Su et al. 2022, arXiv:2212.09741)."""

    def __init__(
        self,
        model_name: str | PathLike[str] = "hkunlp/instructor-xl",
        batch_size: int = 32,
        query_instruction: str = "Represent the question for retrieval:",
        doc_instruction: str = "Represent the document for retrieval:",
        device: str | None = "cpu",
        normalize_embeddings: bool = True,
        **kwargs: Unpack[LoadArguments],
    ) -> None:
        """Open the model.

        Args:
            model_name: a folder written by `trivec export`, or a name on the Hub.
            batch_size: as of `DenseEncoder.encode`.
            query_instruction: of queries.
            doc_instruction: of documents, and of texts given to the function itself.
            device: "cpu", "cuda", "cuda:1"; None chooses.
            normalize_embeddings: whether vectors get length 1.
            kwargs: LoadArguments.

        Raises:
            InputError: an unknown argument, or the model gives no dense vectors.
            Whatever `trivec.load` raises.
        """
        self.model_name, self.batch_size, self.normalize_embeddings = model_name, batch_size, normalize_embeddings
        self.query_instruction, self.doc_instruction = query_instruction, doc_instruction
        self.model = dense_encoder(model_name, device, kwargs)
        self.model.set_pooling_include_prompt(False)
        self.device = self.model.device

    def _read(self, texts: list[str], side: Side | None) -> list[Vector]:
        instruction = self.query_instruction if side == "query" else self.doc_instruction
        return self._encode([text.strip() for text in texts], prompt=instruction.strip())  # as InstructorEmbedding
