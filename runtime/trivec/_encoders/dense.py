"""One dense vector a text."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, Unpack, overload

import numpy as np
import numpy.typing as npt

from trivec._encoders.base import BaseEncoder
from trivec._encoders.calls import TOKENS_PER_ROW, Overflow, check_finite, in_processes
from trivec._encoders.fingerprint import fingerprint
from trivec._encoders.load_options import LoadOptions
from trivec._encoders.pipeline import Pipeline
from trivec._errors import InputError
from trivec._model.manifest import Manifest
from trivec._system.progress import progress_bar
from trivec._tokens.batch import Batch
from trivec._tokens.inputs import as_texts, check_output_value
from trivec._vectors.arrays import Floats, Rows, normalize
from trivec._vectors.quantize import check_output_precision, quantize_vectors
from trivec._vectors.similarity import FUNCTIONS, as_rows
from trivec._vectors.torch_tensors import as_tensor

if TYPE_CHECKING:
    from trivec._concurrency.pool import WorkerPool

OutputValue = Literal["sentence_embedding", "token_embeddings"] | None
OutputPrecision = Literal["float32", "int8", "uint8", "binary", "ubinary"]


class EncodeOptions(TypedDict, total=False):
    """Keyword options of `encode`, shared by the methods that end in it."""

    batch_size: int
    show_progress_bar: bool | None
    output_value: OutputValue
    precision: OutputPrecision
    convert_to_numpy: bool
    convert_to_tensor: bool
    device: str | list[str] | None
    normalize_embeddings: bool
    truncate_dim: int | None
    pool: "WorkerPool | None"
    chunk_size: int | None
    task: str | None
    on_overflow: Literal["truncate", "error"]
    sentences: str | Iterable[str] | None


class PromptedOptions(EncodeOptions, total=False):
    """EncodeOptions with the prompt, for methods that do not name it themselves."""

    prompt_name: str | None
    prompt: str | None


class Call(NamedTuple):
    """The options of an `encode` call that decide its vectors, checked."""

    route: str
    prompt: str
    width: int
    batch_size: int
    show_progress_bar: bool | None
    on_overflow: Overflow


class DenseEncoder(BaseEncoder):
    """One vector a text. Made by `trivec.load`; safe to use from many threads.

    Attributes:
        prompts: texts that are put before an input, by name ("query", "document", ...).
        default_prompt_name: the prompt of `encode` where a call names none.
        truncate_dim: vectors are cut to their first so many numbers; None: not cut.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan".
        manifest: what the model folder says of itself.
    """

    def __init__(self, manifest: Manifest, pipelines: Mapping[str, Pipeline], options: LoadOptions) -> None:
        super().__init__(manifest, pipelines, options)
        if options.max_active_dims is not None:
            raise InputError("max_active_dims is for sparse rows; this model gives dense vectors: see truncate_dim.")
        self.truncate_dim = options.truncate_dim if options.truncate_dim is not None else manifest.truncate_dim
        self._dim = manifest.dim or next(iter(pipelines.values())).dim
        self._width(self.truncate_dim)

    # ---- encoding ------------------------------------------------------------------------------------------------

    @overload
    def encode(
        self,
        inputs: str | Iterable[str] | None = ...,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        output_value: Literal["sentence_embedding"] = ...,
        precision: OutputPrecision = ...,
        convert_to_numpy: Literal[True] = ...,
        convert_to_tensor: Literal[False] = ...,
        device: str | list[str] | None = ...,
        normalize_embeddings: bool = ...,
        truncate_dim: int | None = ...,
        pool: "WorkerPool | None" = ...,
        chunk_size: int | None = ...,
        *,
        task: str | None = ...,
        on_overflow: Literal["truncate", "error"] = ...,
        sentences: str | Iterable[str] | None = ...,
    ) -> npt.NDArray[Any]: ...
    @overload
    def encode(
        self,
        inputs: str | Iterable[str] | None = ...,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        output_value: OutputValue = ...,
        precision: OutputPrecision = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: bool = ...,
        device: str | list[str] | None = ...,
        normalize_embeddings: bool = ...,
        truncate_dim: int | None = ...,
        pool: "WorkerPool | None" = ...,
        chunk_size: int | None = ...,
        *,
        task: str | None = ...,
        on_overflow: Literal["truncate", "error"] = ...,
        sentences: str | Iterable[str] | None = ...,
    ) -> Any: ...  # noqa: ANN401

    def encode(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: OutputValue = "sentence_embedding",
        precision: OutputPrecision = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | list[str] | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: "WorkerPool | None" = None,
        chunk_size: int | None = None,
        *,
        task: str | None = None,
        on_overflow: Literal["truncate", "error"] = "truncate",
        sentences: str | Iterable[str] | None = None,
    ) -> Any:
        """Encode texts. Takes what `SentenceTransformer.encode` 6.2 takes, with the same defaults.

        Args:
            inputs: one text, or any iterable of texts. `sentences` is its older name.
            prompt_name: a key of `prompts`.
            prompt: a text to put before each input; wins over prompt_name.
            batch_size: work of one run: up to batch_size * 64 tokens, on CUDA batch_size * 512. Vectors do not depend
                on it beyond what kernels of other shapes round differently on CUDA.
            show_progress_bar: None shows one where the "trivec" logger is at INFO or DEBUG.
            output_value: "sentence_embedding"; "token_embeddings" for a list of (S, H) arrays; None for a list of
                dicts with input_ids, token_embeddings and sentence_embedding.
            precision: number type of the vectors: "float32", "int8", "uint8", "binary" or "ubinary".
            convert_to_numpy: False gives a list of torch tensors, as in sentence-transformers.
            convert_to_tensor: True gives one torch tensor; needs torch.
            device: the encoder's own, which `load` has chosen; or a list (["cuda:0", "cuda:1"], ["cpu", "cpu"]), for
                which processes are started for this call.
            normalize_embeddings: divide vectors by their L2 norm.
            truncate_dim: keep the first so many numbers of a vector (before normalize_embeddings).
            pool: processes from `start_multi_process_pool`.
            chunk_size: texts that a process takes at a time; None: a tenth of its share, of at most 5,000.
            task: the route of a model with a Router ("query", "document").
            on_overflow: "error" raises where a text is longer than max_seq_length instead of cutting it.
            sentences: older name of `inputs`.

        Returns:
            (N, dim) float32 (or the type that `precision` names); (dim,) for one text; (0, dim) for no texts.

        Raises:
            InputError: something that is no text (its index is named), an unknown prompt, precision or task, or a
                truncate_dim beyond dim. Nothing is encoded.
            TruncationError: a text is too long and on_overflow is "error".
            NonFiniteError: a vector is NaN or infinite; the text is named.
            WorkerError: a process of the pool died.
        """
        if in_processes(pool, device):
            options: dict[str, Any] = {
                "prompt_name": prompt_name,
                "prompt": prompt,
                "batch_size": batch_size,
                "precision": precision,
            }
            options |= {"output_value": output_value, "normalize_embeddings": normalize_embeddings, "task": task}
            options |= {"truncate_dim": truncate_dim, "on_overflow": on_overflow}
            texts, single = as_texts(inputs, sentences)
            parts = [self.encode([], **options)]  # checks the options; of no texts, the right width and type
            parts += self._with_pool(texts, pool, device, chunk_size, show_progress_bar, options)
            if output_value != "sentence_embedding":
                listed = [item for part in parts for item in part]
                return listed[0] if single else listed
            return _converted(np.concatenate(parts), single, convert_to_numpy, convert_to_tensor)
        check_output_precision(precision)
        check_output_value(output_value)
        self._check_run(device, batch_size)
        route, prompt = self._route(task), self._prompt(prompt, prompt_name)
        width = self._width(self.truncate_dim if truncate_dim is None else truncate_dim)
        if output_value != "sentence_embedding":
            pipeline = self._open()[route]
            ready, single = self._ready(inputs, sentences, route, prompt)
            self._count_truncated(ready, on_overflow)
            rows, prompt_length = range(len(ready.tokens.truncated)), pipeline.prompt_length(prompt)
            items = [_describe(pipeline, ready.tokens.of(row), prompt_length, width) for row in rows]
            made = items if output_value is None else [item["token_embeddings"] for item in items]
            listed = made if ready.row_of is None else [made[row] for row in ready.row_of]
            return listed[0] if single else listed
        call = Call(route, prompt, width, int(batch_size), show_progress_bar, on_overflow)
        vectors, row_of, single = self._embed(inputs, sentences, call)
        if normalize_embeddings:
            vectors = normalize(vectors)
        result = quantize_vectors(vectors, precision, self._ranges(route, width, normalize_embeddings))
        result = result if row_of is None else result[row_of]
        return _converted(result, single, convert_to_numpy, convert_to_tensor)

    def encode_query(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        **options: Unpack[EncodeOptions],
    ) -> Any:  # noqa: ANN401
        """`encode` with task "query" and, unless a prompt is given, the "query" prompt."""
        options.setdefault("task", "query")
        return self.encode(inputs, self._query_prompt(prompt, prompt_name), prompt, **options)

    def encode_document(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        **options: Unpack[EncodeOptions],
    ) -> Any:  # noqa: ANN401
        """`encode` with task "document" and, unless a prompt is given, the first of document, passage, corpus."""
        options.setdefault("task", "document")
        return self.encode(inputs, self._document_prompt(prompt, prompt_name), prompt, **options)

    encode_queries = encode_query
    encode_documents = encode_document

    def encode_iter(
        self, texts: Iterable[str], *, window: int = 1024, **options: Unpack[PromptedOptions]
    ) -> Iterator[npt.NDArray[Any]]:
        """Encode any number of texts in bounded memory: yields (rows, dim) blocks of up to `window` rows, in order.

        A window is tokenized while the one before it is encoded, so `texts` is read one window ahead. Where a text or
        the source of the texts fails, the blocks before it come first.
        """
        return self._stream(self.encode, texts, window, options)

    def encode_multi_process(
        self,
        inputs: Iterable[str],
        pool: "WorkerPool",
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        chunk_size: int | None = None,
        show_progress_bar: bool | None = None,
        precision: OutputPrecision = "float32",
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> npt.NDArray[Any]:
        """`encode(inputs, pool=pool, ...)`, under sentence-transformers' older name and parameters."""
        vectors: npt.NDArray[Any] = self.encode(
            inputs,
            prompt_name,
            prompt,
            batch_size,
            show_progress_bar,
            precision=precision,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pool=pool,
            chunk_size=chunk_size,
        )
        return vectors

    async def aencode(self, inputs: str | Iterable[str], **options: Unpack[PromptedOptions]) -> Any:  # noqa: ANN401
        """`encode` in a worker thread, so that an event loop goes on meanwhile."""
        import asyncio  # costs 40 ms, and whoever awaits has it

        return await asyncio.to_thread(lambda: self.encode(inputs, **options))

    # ---- similarity ----------------------------------------------------------------------------------------------

    def similarity(self, embeddings1: npt.ArrayLike, embeddings2: npt.ArrayLike) -> Floats:
        """(N, D) and (M, D), or one vector each, to (N, M) float32, by `similarity_fn_name`."""
        return FUNCTIONS[self._checked_similarity()].all_pairs(as_rows(embeddings1), as_rows(embeddings2))

    def similarity_pairwise(self, embeddings1: npt.ArrayLike, embeddings2: npt.ArrayLike) -> Floats:
        """(N, D) and (N, D) to (N,) float32: row i against row i."""
        return FUNCTIONS[self._checked_similarity()].pairwise(as_rows(embeddings1), as_rows(embeddings2))

    # ---- what it is ----------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Numbers in a vector, after truncate_dim."""
        return self._width(self.truncate_dim)

    def get_embedding_dimension(self) -> int:
        """`dim`, under sentence-transformers' name."""
        return self.dim

    get_sentence_embedding_dimension = get_embedding_dimension

    @property
    def include_prompt(self) -> bool:
        """Whether the tokens of a prompt count in the pooling; False where they do not in some route."""
        return all(p.pooling is None or p.pooling.include_prompt for p in self._open().values())

    def set_pooling_include_prompt(self, include_prompt: bool) -> None:
        """Count the tokens of a prompt in the pooling, or leave them out, as INSTRUCTOR models are meant to be used.

        sentence-transformers' name. Part of the fingerprint, of pickles and of what processes are started with.

        Raises:
            InputError: the graph gives sentence embeddings, which its own pooling has been through.
        """
        pipelines = self._open()
        if any(pipeline.pooling is None for pipeline in pipelines.values()):
            raise InputError(
                "this graph pools by itself, so a prompt cannot be left out. Export the checkpoint with: trivec export"
            )
        self.restore_pooling(dict.fromkeys(pipelines, bool(include_prompt)))

    def fingerprint_of(
        self,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        task: str | None = None,
        precision: OutputPrecision = "float32",
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> str:
        """sha256 of everything that decides the vectors of an `encode` call: equal fingerprints, equal vectors.

        Hashed: tokenizer, variant files and arrays (by their sha256), lower-casing and truncation, max_seq_length,
        pooling and the steps after it, the prompt's text, truncate_dim, normalize_embeddings, output precision.
        """
        check_output_precision(precision)
        return fingerprint(
            self._open()[self._route(task)],
            route=self._route(task),
            variant=self.precision,
            digest=self._options.digest,
            prompt=self._prompt(prompt, prompt_name),
            width=self._width(self.truncate_dim if truncate_dim is None else truncate_dim),
            normalize=normalize_embeddings,
            precision=precision,
        )

    def _state(self) -> dict[str, Any]:
        counted = {name: p.pooling.include_prompt for name, p in self._open().items() if p.pooling is not None}
        return {**super()._state(), "truncate_dim": self.truncate_dim, "include_prompt": counted}

    def restore_pooling(self, include_prompt: Mapping[str, bool]) -> None:
        """Set include_prompt route by route, as unpickling needs it."""
        self._pipelines = {
            name: replace(p, pooling=replace(p.pooling, include_prompt=include_prompt[name])) if p.pooling else p
            for name, p in self._open().items()
        }

    def __repr__(self) -> str:
        state = "closed" if self._pipelines is None else self.device
        return f"{type(self).__name__}({self._options.name!r}, dim={self._dim}, {self.precision}, {state})"

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _embed(self, inputs: object, sentences: object, call: Call) -> tuple[Floats, Rows | None, bool]:
        """The vectors (U, width) of the texts that differ, which of them each text is, and whether one came alone."""
        pipeline = self._open()[call.route]
        ready, single = self._ready(inputs, sentences, call.route, call.prompt)
        self._count_truncated(ready, call.on_overflow)
        tokens, prompt_length = ready.tokens, pipeline.prompt_length(call.prompt)
        bar = progress_bar(len(tokens.truncated), call.show_progress_bar)
        vectors = np.empty((len(tokens.truncated), call.width), dtype=np.float32)

        def run(pipeline: Pipeline, rows: Rows) -> Floats:
            return pipeline.vectors(tokens.take(rows), prompt_length)[:, : call.width]

        for rows, found in pipeline.each(run, tokens.lengths, call.batch_size * TOKENS_PER_ROW):
            vectors[rows] = found
            bar.update(len(rows))
        bar.close()
        finite = np.asarray(np.isfinite(vectors).all(axis=1))  # (U,)
        check_finite(ready.spread(finite), ready.texts, self.precision)
        return vectors, ready.row_of, single

    def _width(self, truncate_dim: int | None) -> int:
        dim = self._dim
        if truncate_dim is None:
            return dim
        if not isinstance(truncate_dim, int | np.integer) or not 1 <= truncate_dim <= dim:
            raise InputError(f"truncate_dim must be between 1 and {dim}, this model's dim; got {truncate_dim!r}.")
        return int(truncate_dim)

    def _ranges(self, route: str, width: int, normalized: bool) -> Floats | None:
        """(2, width) value ranges for int8 outputs, where the folder has ones that fit the call."""
        if normalized and width != self._dim:
            return None  # cutting, then normalizing, stretches every dimension by another factor
        ranges = self._open()[route].arrays.get(f"{route}.{'normalized_' if normalized else ''}ranges")
        return None if ranges is None else ranges[:, :width]


def _converted(result: npt.NDArray[Any], single: bool, convert_to_numpy: bool, convert_to_tensor: bool) -> Any:  # noqa: ANN401
    """Rows (N, D) in the type that was asked for; of a single text, its row."""
    if convert_to_tensor:
        return as_tensor(result[0] if single else result)
    if not convert_to_numpy:
        return as_tensor(result[0]) if single else [as_tensor(row) for row in result]
    return result[0] if single else result


def _describe(pipeline: Pipeline, ids: npt.NDArray[np.int64], prompt_length: int, width: int) -> dict[str, Any]:
    """One text's ids (S,), token embeddings (S, H) and sentence embedding (D,)."""
    return {
        "input_ids": ids,
        "token_embeddings": pipeline.states(Batch.of_rows(ids[None]))[0],
        "sentence_embedding": pipeline.vectors(Batch.of_rows(ids[None]), prompt_length)[0, :width],
    }
