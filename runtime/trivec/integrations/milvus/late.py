"""An embedding function with a vector for each token: late interaction (ColBERT)."""

from collections.abc import Sequence
from os import PathLike
from typing import Unpack

import numpy as np
import numpy.typing as npt

from trivec._encoders.late import LateEncoder
from trivec.integrations._text_model import as_list
from trivec.integrations.milvus._base import BaseEmbeddingFunction, LoadArguments, encoder_of

__all__ = ["ColBERTEmbeddingFunction"]
Tokens = npt.NDArray[np.float32]


class ColBERTEmbeddingFunction(BaseEmbeddingFunction):
    """Late interaction: a vector for each token, of which Milvus takes those of a text as an array of structs.

        ef = ColBERTEmbeddingFunction("colbert")
        ef.encode_documents(["a text"])  # [(tokens, dim) float32]

    pymilvus.model has no such function. Servers of Milvus from 2.6.4 on compare them (`metric_type` "MAX_SIM_IP"),
    Milvus Lite does not.

    Attributes:
        model: the encoder, whose `rank` orders what another search has found.
    """

    def __init__(
        self,
        model_name: str | PathLike[str] = "colbert-ir/colbertv2.0",
        batch_size: int = 32,
        device: str | None = "cpu",
        **kwargs: Unpack[LoadArguments],
    ) -> None:
        """Open the model.

        Args:
            model_name: a folder written by `trivec export`, or a name on the Hub.
            batch_size: as of `LateEncoder.encode`.
            device: "cpu", "cuda", "cuda:1"; None chooses.
            kwargs: LoadArguments.

        Raises:
            InputError: an unknown argument, or the model is not one of late interaction.
            Whatever `trivec.load` raises.
        """
        self.model_name, self.batch_size = model_name, batch_size
        need = "a model of late interaction (ColBERT)"
        self.model: LateEncoder = encoder_of(model_name, device, kwargs, lambda e: e.heads == ("colbert",), need)
        self.device = self.model.device

    @property
    def dim(self) -> int:
        """Numbers of a token's vector."""
        return self.model.dim

    def __call__(self, texts: Sequence[str]) -> list[Tokens]:
        """Vectors of texts, which are read as documents."""
        return list(self.model.encode_document(as_list(texts, "texts"), batch_size=self.batch_size))

    def encode_queries(self, queries: Sequence[str]) -> list[Tokens]:
        """Vectors of queries, (t, D) float32 each."""
        return list(self.model.encode_query(as_list(queries, "queries"), batch_size=self.batch_size))

    def encode_documents(self, documents: Sequence[str]) -> list[Tokens]:
        """Vectors of documents, (t, D) float32 each."""
        return list(self.model.encode_document(as_list(documents, "documents"), batch_size=self.batch_size))
