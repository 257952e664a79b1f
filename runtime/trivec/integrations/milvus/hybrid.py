"""Embedding functions with several representations from one run: BGE-M3 and mGTE."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Unpack

from trivec._encoders.text_encoder import TextEncoder
from trivec._errors import InputError
from trivec._vectors.arrays import Floats, normalize
from trivec._vectors.heads import Head
from trivec.integrations._text_model import as_list, sparse_rows
from trivec.integrations.milvus._base import (
    BaseEmbeddingFunction,
    LoadArguments,
    check_dimensions,
    check_scipy,
    encoder_of,
    logger,
    rows_of,
)

__all__ = ["BGEM3EmbeddingFunction", "MGTEEmbeddingFunction"]
_KEYS: Mapping[Head, str] = {"dense": "dense", "sparse": "sparse", "colbert": "colbert_vecs"}
"""What the heads are called here."""
_INSTEAD = {
    "query_max_length": "pymilvus.model encodes queries as passages too; set passage_max_length.",
    "devices": 'one encoder runs on one device: device="cuda:0".',
    "query_instruction_for_retrieval": "pymilvus.model does not apply it; write it before the queries.",
}


class _Hybrid(BaseEmbeddingFunction):
    """What both functions do alike."""

    def __init__(
        self,
        model_name: str | PathLike[str],
        batch_size: int,
        device: str | None,
        normalize_embeddings: bool,
        use_fp16: bool,
        heads: Mapping[Head, bool],
        arguments: Mapping[str, Any],
    ) -> None:
        self._heads = [head for head, asked in heads.items() if asked]
        if "sparse" in self._heads:
            check_scipy()
        if not self._heads:
            raise InputError(
                f"nothing is asked for: set one of {', '.join(f'return_{_KEYS[head]}' for head in heads)}."
            )
        if not use_fp16:
            arguments = {"precision": "fp32", **arguments}
        self.model_name, self.batch_size, self.use_fp16 = model_name, batch_size, use_fp16
        self.normalize_embeddings = normalize_embeddings
        need = "a model with dense and sparse heads (BGE-M3, mGTE)"
        self.model: TextEncoder[Any] = encoder_of(
            model_name, device, arguments, lambda e: {"dense", "sparse"} <= {*e.heads}, need, instead=_INSTEAD
        )
        self.device = self.model.device
        if use_fp16 and self.model.precision != "fp16":
            logger.warning("use_fp16=True has no effect on %s: %s runs there.", self.device, self.model.precision)
        if "colbert" in self._heads and "colbert" not in self.model.heads:
            self.model.close()
            raise InputError(f"{model_name} has no ColBERT head: leave return_colbert_vecs at False.")
        route = next(iter(self.model.manifest.routes.values()))
        self._dims = {"dense": self.model.dim}
        self._dims |= {"colbert_vecs": route.multi.dim} if route.multi else {}
        self._dims |= {"sparse": route.sparse.dim} if route.sparse else {}

    @property
    def dim(self) -> dict[str, int]:
        """Numbers of a dense vector, of a token's vector where there are such, and terms of the vocabulary."""
        return dict(self._dims)

    def __call__(self, texts: Sequence[str]) -> dict[str, Any]:
        """Vectors of texts, as `encode_documents`."""
        return self._encode(as_list(texts, "texts"))

    def encode_queries(self, queries: Sequence[str]) -> dict[str, Any]:
        """Vectors of queries; these models read queries and documents alike.

        Returns:
            What was asked for of: dense, a list of (D,) float32; sparse, csr_array (N, V) float32, of which a row
            stays (1, V); colbert_vecs, a list of (T, D) float32, without the first token.
        """
        return self._encode(as_list(queries, "queries"))

    def encode_documents(self, documents: Sequence[str]) -> dict[str, Any]:
        """Vectors of documents, as `encode_queries`."""
        return self._encode(as_list(documents, "documents"))

    def _encode(self, texts: list[str]) -> dict[str, Any]:
        found = self.model.represent(
            texts, self._heads, prompt="", batch_size=self.batch_size, normalize_embeddings=self._normalized()
        )
        made: dict[str, Any] = {}
        if found.dense is not None:
            made["dense"] = list(self._finish(found.dense))
        if found.sparse is not None:
            made["sparse"] = rows_of(sparse_rows(found))
        if found.colbert is not None:
            made["colbert_vecs"] = list(found.colbert)
        return made

    def _normalized(self) -> bool:
        return self.normalize_embeddings

    def _finish(self, dense: Floats) -> Floats:
        return dense


class BGEM3EmbeddingFunction(_Hybrid):
    """BGE-M3: dense, sparse and ColBERT vectors from one run.

        ef = BGEM3EmbeddingFunction("BAAI/bge-m3", device="cpu", use_fp16=False)
        ef.encode_documents(["a text"])  # {"dense": [(1024,)], "sparse": csr_array (1, 250002)}

    Queries and documents are read alike.
    """

    def __init__(
        self,
        model_name: str | PathLike[str] = "BAAI/bge-m3",
        batch_size: int = 16,
        device: str | None = None,
        normalize_embeddings: bool = True,
        use_fp16: bool = False,
        return_dense: bool = True,
        return_sparse: bool = True,
        return_colbert_vecs: bool = False,
        *,
        passage_max_length: int = 512,
        **kwargs: Unpack[LoadArguments],
    ) -> None:
        """Open the model.

        Args:
            model_name: a folder written by `trivec export`, or a name on the Hub.
            batch_size: as of `HybridEncoder.encode`.
            device: "cpu", "cuda", "cuda:1"; None chooses.
            normalize_embeddings: whether dense and ColBERT vectors get length 1.
            use_fp16: take the fp16 variant where the device is CUDA; a CPU keeps to fp32.
            return_dense: whether to give dense vectors.
            return_sparse: whether to give weights of terms.
            return_colbert_vecs: whether to give a vector for each token.
            passage_max_length: tokens at which a text is cut, a query as well. 512 is FlagEmbedding's default, and
                so the twin's; the model itself reads 8,192.
            kwargs: LoadArguments.

        Raises:
            MissingExtraError: scipy is not installed, and sparse vectors are asked for.
            InputError: nothing is asked for, an unknown argument, or the model is of another kind.
            Whatever `trivec.load` raises.
        """
        heads: dict[Head, bool] = {"dense": return_dense, "sparse": return_sparse, "colbert": return_colbert_vecs}
        super().__init__(model_name, batch_size, device, normalize_embeddings, use_fp16, heads, kwargs)
        longest = self.model.max_seq_length
        self.model.max_seq_length = passage_max_length if longest is None else min(longest, passage_max_length)


class MGTEEmbeddingFunction(_Hybrid):
    """mGTE: dense and sparse vectors from one run, of texts of up to 8,192 tokens."""

    def __init__(
        self,
        model_name: str | PathLike[str] = "Alibaba-NLP/gte-multilingual-base",
        batch_size: int = 16,
        device: str | None = "",
        normalize_embeddings: bool = True,
        dimensions: int | None = None,
        use_fp16: bool = False,
        return_dense: bool = True,
        return_sparse: bool = True,
        *,
        dimension: int | None = None,
        **kwargs: Unpack[LoadArguments],
    ) -> None:
        """Open the model.

        Args:
            model_name: a folder written by `trivec export`, or a name on the Hub.
            batch_size: as of `HybridEncoder.encode`.
            device: "cpu", "cuda", "cuda:1"; None and "" choose.
            normalize_embeddings: whether dense vectors get length 1.
            dimensions: keep the first so many numbers of a dense vector; None: all.
            use_fp16: take the fp16 variant where the device is CUDA; a CPU keeps to fp32.
            return_dense: whether to give dense vectors.
            return_sparse: whether to give weights of terms.
            dimension: another name of `dimensions`, which wins, as there.
            kwargs: LoadArguments.

        Raises:
            MissingExtraError: scipy is not installed, and sparse vectors are asked for.
            InputError: nothing is asked for, an unknown argument, dimensions out of range, or the model is of another
                kind.
            Whatever `trivec.load` raises.
        """
        heads: dict[Head, bool] = {"dense": return_dense, "sparse": return_sparse}
        super().__init__(model_name, batch_size, device, normalize_embeddings, use_fp16, heads, kwargs)
        wanted = dimensions if dimension is None else dimension
        self.dimensions = self.model.dim if wanted is None else check_dimensions(self.model, wanted)
        self._dims["dense"] = self.dimensions

    def _normalized(self) -> bool:
        return self.normalize_embeddings and self.dimensions == self.model.dim

    def _finish(self, dense: Floats) -> Floats:
        if self.dimensions == self.model.dim:
            return dense
        cut = dense[:, : self.dimensions]  # (N, dimensions)
        return normalize(cut) if self.normalize_embeddings else cut
