"""What the LangChain classes have in common: one model, and LangChain's names for its arguments."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from trivec._encoders.calls import Overflow
from trivec._errors import InputError
from trivec._vectors.heads import Head
from trivec.integrations._adapter import Encoder, Model, TextModel, open_model


class FromModel:
    """A class of LangChain on a trivec model. Safe to use from many threads and coroutines; pickles."""

    _kinds: ClassVar[Sequence[type]]
    _wanted: ClassVar[str]
    _heads: ClassVar[Sequence[Head]]

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
            device: "cpu", "cuda", ...; None: CUDA where it starts, else the CPU.
            precision: the variant: "fp32", "fp16", "int8"; None: fp16 on CUDA, fp32 on a CPU.
            threads: CPU threads; None: the cores that this process may use.
            on_overflow: "error" raises TruncationError where a text is longer than the model reads; else it is cut,
                and counted in `truncated`.

        Raises:
            InputError: no model, one of another kind, or an argument that is unknown or out of range.
            Whatever `trivec.load` raises.
        """
        if (model is None) == (model_name is None):
            raise InputError("expected one model: its folder or name as the first argument, or as model_name=.")
        given = {"device": device, "precision": precision, "threads": threads, "cache_dir": cache_folder}
        name = model_name if model is None else model
        encoder: Encoder = open_model(name, self._kinds, self._wanted, given, model_kwargs)
        options = {**({"show_progress_bar": True} if show_progress else {}), **(encode_kwargs or {})}
        self._model = TextModel(encoder, self._heads, options, query_encode_kwargs, on_overflow)

    @property
    def encoder(self) -> Encoder:
        """The encoder; `encoder.close()` frees its memory."""
        return self._model.encoder

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides the vectors of documents, such as for the namespace of a cache."""
        return self._model.fingerprint("document")

    @property
    def query_fingerprint(self) -> str:
        """sha256 of everything that decides the vectors of queries."""
        return self._model.fingerprint("query")

    @property
    def truncated(self) -> int:
        """Texts that were longer than the model reads, so far."""
        return self._model.encoder.truncated

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model.encoder!r})"
