"""What the LangChain classes have in common: one model, and LangChain's names for its arguments."""

from collections.abc import Mapping
from typing import Any, ClassVar

from trivec._encoders.calls import Overflow
from trivec._errors import InputError
from trivec._vectors.heads import Head
from trivec.integrations._adapter import Model, ModelOptions, OfModel

_ELSEWHERE: Mapping[Head, str] = {
    "dense": "Sparse ones: trivec.integrations.langchain.qdrant and .milvus",
    "sparse": "Dense ones: TrivecEmbeddings",
}


class FromModel(OfModel):
    """A class of LangChain on a trivec model. Safe to use from many threads and coroutines; pickles."""

    _needs: ClassVar[Head]

    def __init__(
        self,
        model: Model | None = None,
        *,
        model_name: str | None = None,
        cache_folder: str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        encode_kwargs: Mapping[str, Any] | None = None,
        query_encode_kwargs: Mapping[str, Any] | None = None,
        show_progress: bool = False,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        on_overflow: Overflow | None = None,
    ) -> None:
        """Open the model. The names are those of langchain-huggingface's HuggingFaceEmbeddings, and trivec's.

        Args:
            model: a folder written by `trivec export`, a name on the Hub, or what `trivec.load` returns.
            model_name: the same, by its older name.
            cache_folder: the Hub's cache folder; None: its default.
            model_kwargs: further arguments of `trivec.load`, such as {"truncate_dim": 128}.
            encode_kwargs: options of `encode_document`, and of `encode_query` as well, such as
                {"normalize_embeddings": True}.
            query_encode_kwargs: options of `encode_query` alone, which win over those.
            show_progress: show a bar while documents are encoded.
            device: as of `trivec.load`, as are precision and threads; None: its default.
            precision: the variant.
            threads: CPU threads.
            on_overflow: "error" raises for a text that is longer than the model reads; None cuts it, and counts it in
                `truncated`.

        Raises:
            InputError: no model, one of another kind, or an argument that is unknown or out of range.
            Whatever `trivec.load` raises.
        """
        if (model is None) == (model_name is None):
            raise InputError("expected one model: its folder or name as the first argument, or as model_name=.")
        self._model = ModelOptions(
            model_name if model is None else model,
            device,
            precision,
            threads,
            on_overflow,
            cache_dir=cache_folder,
            load=model_kwargs,
            document={**({"show_progress_bar": True} if show_progress else {}), **(encode_kwargs or {})},
            query=query_encode_kwargs,
        ).open(self._needs, _ELSEWHERE[self._needs])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model.encoder!r})"
