"""Dense vectors for LlamaIndex."""

from collections.abc import Mapping
from typing import Any, cast

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import BaseModel, Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager
from pydantic import computed_field

from trivec._encoders.calls import Overflow
from trivec._engine.engine_drift import check_engine
from trivec._errors import InputError
from trivec.integrations._adapter import Model, ModelOptions, OfModel
from trivec.integrations._saved_model import check_fingerprint, name_of
from trivec.integrations._text_model import TextModel, dense_lists
from trivec.integrations.llama_index._base import BATCH, OfTexts

Vector = list[float]
_OF_THE_PROCESS = ("callback_manager", "embeddings_cache", "rate_limiter")
"""What a pickle leaves behind."""


class TrivecEmbedding(OfTexts, BaseEmbedding):
    """Dense vectors of texts and queries, for every index and vector store of LlamaIndex.

        embed_model = TrivecEmbedding("minilm", precision="int8")
        index = VectorStoreIndex.from_documents(documents, embed_model=embed_model)

    Texts are encoded with the model's prompt for documents, queries with that for queries, where it has them and no
    instruction replaces it. A BGE-M3 or mGTE model gives its dense vectors. Safe to use from many threads and
    coroutines: queries that are asked for at the same time run together, lists of texts one after the other.

    `to_dict()` holds the fingerprint and nothing of the machine (device, threads) or secret (token): an ingestion cache
    is used again where the vectors are the same and nowhere else, and `from_dict` refuses a model that gives others.
    LlamaIndex' `embeddings_cache` knows texts alone: give each model one of its own, and none where a query and a text
    have different vectors. It would give a query the text's, and is refused.

    Attributes:
        encoder: what `trivec.load` returned.
        fingerprint: sha256 of what decides the vectors of texts; `query_fingerprint` of those of queries.
        engine_fingerprint: what computes them here.
        truncated: texts that were longer than the model reads.
    """

    precision: str = Field(default="fp32", description="The variant of the graph.")
    normalize: bool = Field(default=True, description="Whether vectors have length 1.")
    query_instruction: str | None = Field(default=None, description="Put before a query, for the model's own prompt.")
    text_instruction: str | None = Field(default=None, description="Put before a text, for the model's own prompt.")
    max_length: int | None = Field(default=None, description="Tokens that are read of a text.")
    on_overflow: str | None = Field(default=None, description="'error': raise for longer texts.")
    load_options: dict[str, Any] = Field(default_factory=dict, description="Further arguments of trivec.load.")
    encode_options: dict[str, Any] = Field(default_factory=dict, description="Options of encode_document.")
    query_options: dict[str, Any] = Field(default_factory=dict, description="Options of encode_query alone.")
    _model: TextModel = PrivateAttr()

    def __init__(
        self,
        model_name: Model,
        *,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        normalize: bool = True,
        query_instruction: str | None = None,
        text_instruction: str | None = None,
        max_length: int | None = None,
        on_overflow: Overflow | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,  # noqa: ARG002 - there is none to trust
        load_options: Mapping[str, Any] | None = None,
        encode_options: Mapping[str, Any] | None = None,
        query_options: Mapping[str, Any] | None = None,
        embed_batch_size: int = BATCH,
        num_workers: int | None = None,
        callback_manager: CallbackManager | None = None,
        embeddings_cache: Any = None,  # noqa: ANN401 - a BaseKVStore
        rate_limiter: Any = None,  # noqa: ANN401 - a BaseRateLimiter
        fingerprint: str | None = None,
        engine_fingerprint: str | None = None,
        strict: bool = False,
    ) -> None:
        """Open the model. The names are those of HuggingFaceEmbedding, and trivec's.

        Args:
            model_name: a folder written by `trivec export`, a name on the Hub, or what `trivec.load` returns.
            device: as of `trivec.load`, as are precision and threads; None: its default.
            precision: the variant.
            threads: CPU threads.
            normalize: give vectors length 1, as HuggingFaceEmbedding does.
            query_instruction: put before each query; None: the model's "query" prompt, where it has one.
            text_instruction: put before each text; None: the model's prompt for documents.
            max_length: tokens that are read of a text; None: as the model says.
            on_overflow: "error" raises for a longer text; None cuts it, and counts it in `truncated`.
            cache_folder: the Hub's cache folder; None: its default.
            trust_remote_code: accepted; no code of a model repository is ever run here.
            load_options: further arguments of `trivec.load`, such as {"truncate_dim": 128}.
            encode_options: options of `encode_document`, and of `encode_query` as well.
            query_options: options of `encode_query` alone, which win over those.
            embed_batch_size: texts that LlamaIndex hands over at a time.
            num_workers: as of BaseEmbedding; lists of texts are encoded one after the other in any case.
            callback_manager: as of BaseEmbedding.
            embeddings_cache: as of BaseEmbedding, for models whose queries and texts have the same vectors.
            rate_limiter: as of BaseEmbedding.
            fingerprint: as `to_dict` wrote it: what the model must have.
            engine_fingerprint: of the TrivecEmbedding whose vectors are stored: the log warns where another engine
                computes here. `to_dict` leaves it out, so that an ingestion cache outlives an upgrade.
            strict: raise there instead.

        Raises:
            InputError: no model, one of another kind or fingerprint, or an argument that is unknown or out of range.
            Whatever `trivec.load` raises.
        """
        texts, queries = _merged(encode_options, query_options, normalize, text_instruction, query_instruction)
        options = ModelOptions(
            model_name, device, precision, threads, on_overflow, load_options, texts, queries, cache_dir=cache_folder
        )
        model = options.open("dense", "Sparse ones: TrivecSparseEmbedding")
        encoder = model.encoder
        if max_length is not None:
            if encoder is model_name:
                raise InputError(
                    f"max_length={max_length!r}: for models that are opened here, and {encoder!r} is open already. "
                    f"Type: encoder.max_seq_length = {max_length!r}"
                )
            encoder.max_seq_length = max_length
        check_fingerprint(model, fingerprint)
        check_engine("what is stored", engine_fingerprint, encoder.engine_fingerprint, strict=strict)
        exports = {"export": True} if (load_options or {}).get("export") else {}
        fields: dict[str, Any] = {
            "model_name": name_of(model_name, encoder),
            "precision": encoder.precision,
            "normalize": normalize,
            "query_instruction": query_instruction,
            "text_instruction": text_instruction,
            "max_length": max_length,
            "on_overflow": on_overflow,
            "load_options": {**encoder.load_arguments(), **exports},
            "encode_options": dict(encode_options or {}),
            "query_options": dict(query_options or {}),
            "embed_batch_size": embed_batch_size,
            "num_workers": num_workers,
            "callback_manager": callback_manager or CallbackManager([]),
            "embeddings_cache": embeddings_cache,
            "rate_limiter": rate_limiter,
        }
        super().__init__(**{name: value for name, value in fields.items() if value is not None})
        self._model = model
        self._check_cache()

    fingerprint = computed_field(repr=False)(OfModel.fingerprint)  # stored as well

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex stores it."""
        return "TrivecEmbedding"

    def __getstate__(self) -> dict[str, Any]:
        """As pydantic, without what belongs to this process; LlamaIndex' own would take it from this object too."""
        state = BaseModel.__getstate__(self)
        return {**state, "__dict__": {k: v for k, v in state["__dict__"].items() if k not in _OF_THE_PROCESS}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As pydantic; LlamaIndex' own would open the model again, without its runtime settings."""
        own = {name: None for name in _OF_THE_PROCESS if name in type(self).model_fields}
        state["__dict__"] = {**own, "callback_manager": CallbackManager([]), **state["__dict__"]}
        BaseModel.__setstate__(self, state)

    def get_query_embedding(self, query: str) -> Vector:
        """As BaseEmbedding; InputError where `embeddings_cache` could hold another vector for this text."""
        self._check_cache()
        return super().get_query_embedding(query)

    async def aget_query_embedding(self, query: str) -> Vector:
        """As BaseEmbedding; InputError where `embeddings_cache` could hold another vector for this text."""
        self._check_cache()
        return await super().aget_query_embedding(query)

    def _check_cache(self) -> None:
        if self.embeddings_cache is not None and self._model.fingerprint("document") != self._model.fingerprint(
            "query"
        ):
            raise InputError(
                "embeddings_cache keeps vectors under the text alone, and here a query has another vector than the "
                "same text: their prompts or options differ. Leave it out, and keep the vectors of texts with "
                "IngestionPipeline(cache=IngestionCache()), whose keys hold the fingerprint."
            )

    def _get_query_embedding(self, query: str) -> Vector:
        return cast("Vector", dense_lists(self._model.query(query)))

    def _get_text_embedding(self, text: str) -> Vector:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Vector]:
        return cast("list[Vector]", dense_lists(self._model.documents(texts)))

    async def _aget_query_embedding(self, query: str) -> Vector:
        return cast("Vector", dense_lists(await self._model.aquery(query)))

    async def _aget_text_embedding(self, text: str) -> Vector:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Vector]:
        return await self._model.apart(self._get_text_embeddings, texts)


def _merged(
    encode_options: Mapping[str, Any] | None,
    query_options: Mapping[str, Any] | None,
    normalize: bool,
    text_instruction: str | None,
    query_instruction: str | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of texts and of queries, with LlamaIndex' names for some of them."""
    texts, queries = dict(encode_options or {}), dict(query_options or {})
    for options, name, value in (
        (texts, "normalize_embeddings", normalize),
        (texts, "prompt", text_instruction),
        (queries, "prompt", query_instruction),
    ):
        if value is not None and options.setdefault(name, value) != value:
            raise InputError(f"{name} is given twice: {options[name]!r} among the options, and {value!r}.")
    if text_instruction is not None and "prompt_name" not in queries:
        queries.setdefault("prompt", None)  # the model's own, not that of texts
    return texts, queries
