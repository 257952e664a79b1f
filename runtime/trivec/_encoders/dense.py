"""One dense vector a text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, overload

import numpy as np
import numpy.typing as npt

from trivec._encoders.calls import Call, for_task, in_thread
from trivec._encoders.fingerprint import fingerprint
from trivec._encoders.load_options import LoadOptions
from trivec._encoders.pipeline import Pipeline
from trivec._encoders.text_encoder import TextEncoder
from trivec._errors import InputError
from trivec._model.manifest import Manifest
from trivec._pooling.heads import Wanted
from trivec._tokens.inputs import as_texts, check_output_value
from trivec._vectors.arrays import Floats, normalize
from trivec._vectors.heads import HybridVectors
from trivec._vectors.quantize import check_output_precision, check_ranges, cut_unit_ranges, quantize_vectors
from trivec._vectors.torch_tensors import as_tensor

if TYPE_CHECKING:
    from trivec._concurrency.pool import WorkerPool

OutputValue = Literal["sentence_embedding", "token_embeddings"] | None
OutputPrecision = Literal["float32", "int8", "uint8", "binary", "ubinary"]


class DenseForm(NamedTuple):
    """What becomes of the vectors of a call."""

    output_value: OutputValue
    precision: str
    normalize: bool
    ranges: Floats | None
    """(2, width) of each dimension, for int8 and uint8."""
    to_numpy: bool
    to_tensor: bool


class DenseEncoder(TextEncoder[npt.NDArray[Any]]):
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
        precision: Literal["float32"] | None = ...,
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
    ) -> npt.NDArray[np.float32]: ...
    @overload
    def encode(
        self,
        inputs: str | Iterable[str] | None = ...,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        output_value: OutputValue = ...,
        precision: OutputPrecision | None = ...,
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
        precision: OutputPrecision | None = "float32",
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
            batch_size: work of one run: up to batch_size * 32 tokens, on CUDA batch_size * 512. Vectors do not depend
                on it beyond what kernels of other shapes round differently on CUDA.
            show_progress_bar: None shows one where the "trivec" logger is at INFO or DEBUG and stderr is a terminal.
            output_value: "sentence_embedding"; "token_embeddings" for a list of (S, H) arrays; None for a list of
                dicts with input_ids, attention_mask, token_embeddings and sentence_embedding.
            precision: number type of the vectors: "float32" (or None), "int8", "uint8", "binary" or "ubinary".
            convert_to_numpy: False gives a list of torch tensors, as in sentence-transformers.
            convert_to_tensor: True gives one torch tensor, one for each text where token embeddings are asked for;
                needs torch.
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
        call = self._call(
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            output_value=output_value,
            precision=precision,
            convert_to_numpy=convert_to_numpy,
            convert_to_tensor=convert_to_tensor,
            device=device,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pool=pool,
            chunk_size=chunk_size,
            task=task,
            on_overflow=on_overflow,
        )
        texts, single = as_texts(inputs, sentences)
        return self._formed(self._run(texts, call), call, texts, single)

    encode_query = encode_queries = for_task(encode, "query")
    encode_document = encode_documents = encode_corpus = for_task(encode, "document")
    aencode = in_thread(encode)

    def encode_multi_process(
        self,
        sentences: Iterable[str],
        pool: "WorkerPool",
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        chunk_size: int | None = None,
        show_progress_bar: bool | None = None,
        precision: OutputPrecision | None = "float32",
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> npt.NDArray[Any]:
        """`encode(sentences, pool=pool, ...)`, under sentence-transformers' older name and parameters."""
        vectors: npt.NDArray[Any] = self.encode(
            sentences,
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

    # ---- what it is ----------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Numbers in a vector, after truncate_dim."""
        return self._width(self.truncate_dim)

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Inside `with`, `truncate_dim` is this one, for every thread: sentence-transformers' name.

        Raises:
            InputError: a truncate_dim beyond dim.
        """
        before = self.truncate_dim
        self._width(truncate_dim)
        try:
            self.truncate_dim = truncate_dim
            yield
        finally:
            self.truncate_dim = before

    truncate_sentence_embeddings = truncate_embeddings

    def output_ranges(
        self, *, task: str | None = None, truncate_dim: int | None = None, normalize_embeddings: bool = False
    ) -> Floats | None:
        """The value ranges that int8 and uint8 vectors of such a call are made with: for `dequantize_embeddings`.

        Returns:
            (2, dim) least and greatest value of each dimension, those that `trivec export` has stored; of vectors that
            are cut and then normalized, stretched by what that makes them longer on average. None: there are none.
        """
        width = self._width(self.truncate_dim if truncate_dim is None else truncate_dim)
        route = self._route(task)
        name = f"{route}.{'normalized_' if normalize_embeddings else ''}ranges"
        ranges = self._open()[route].arrays.get(name)
        if ranges is None:
            return None
        return cut_unit_ranges(ranges, width) if normalize_embeddings else ranges[:, :width]

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
        self._set_include_prompt(dict.fromkeys(pipelines, bool(include_prompt)))

    def fingerprint_of(
        self,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        task: str | None = None,
        precision: OutputPrecision | None = "float32",
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> str:
        """sha256 of everything that decides the vectors of an `encode` call: equal fingerprints, equal vectors.

        Hashed: tokenizer, variant files and arrays (by their sha256), lower-casing and truncation, max_seq_length,
        pooling and the steps after it, the prompt's text, truncate_dim, normalize_embeddings, output precision.
        """
        precision = precision or "float32"
        check_output_precision(precision)
        return fingerprint(
            self.route(task),
            route=self._route(task),
            variant=self.precision,
            digest=self._options.digest,
            prompt=self.prompt_text(prompt, prompt_name),
            width=self._width(self.truncate_dim if truncate_dim is None else truncate_dim),
            normalize=normalize_embeddings,
            precision=precision,
        )

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _call(self, **options: Any) -> Call:  # noqa: ANN401
        precision, output = options["precision"] or "float32", options["output_value"]
        unit = bool(options["normalize_embeddings"])
        check_output_precision(precision)
        check_output_value(output)
        width = self._width(self.truncate_dim if options["truncate_dim"] is None else options["truncate_dim"])
        ranges = None
        if precision in ("int8", "uint8") and output == "sentence_embedding":
            ranges = self.output_ranges(task=options["task"], truncate_dim=width, normalize_embeddings=unit)
            check_ranges(ranges, precision)
        form = DenseForm(output, precision, unit, ranges, options["convert_to_numpy"], options["convert_to_tensor"])
        wanted = Wanted(output != "token_embeddings", None, False, output != "sentence_embedding", width)
        return self._checked(wanted, options, form)

    def _formed(self, vectors: HybridVectors, call: Call, texts: Sequence[str], single: bool) -> Any:  # noqa: ANN401
        form: DenseForm = call.form
        dense, states = vectors.dense, vectors.colbert
        if states is not None:
            convert = as_tensor if form.to_tensor or not form.to_numpy else np.asarray
            # a row that is kept must not keep its neighbours
            made: list[Any] = [convert(tokens.copy()) for tokens in states]
            if form.output_value is None and dense is not None:
                listed = self.tokenize(texts, prompt=call.prompt, task=call.route)
                ids = [np.array(row, dtype=np.int64) for row in listed]
                made = [
                    {
                        "input_ids": convert(i),
                        "attention_mask": convert(np.ones_like(i)),
                        "token_embeddings": t,
                        "sentence_embedding": convert(s),
                    }
                    for i, t, s in zip(ids, made, dense, strict=True)
                ]
            return made[0] if single else made
        found = cast("Floats", dense)  # (N, width)
        found = normalize(found) if form.normalize else found
        return _converted(quantize_vectors(found, form.precision, form.ranges), single, form)

    def _uncut(self, task: str | None) -> dict[str, Any]:  # noqa: ARG002
        return {"truncate_dim": self._dim}

    def _state(self) -> dict[str, Any]:
        counted = {name: p.pooling.include_prompt for name, p in self._open().items() if p.pooling is not None}
        return {**super()._state(), "truncate_dim": self.truncate_dim, "include_prompt": counted}

    def restore(self, lengths: Mapping[str, int | None], include_prompt: Mapping[str, bool] | None = None) -> None:
        """Set max_seq_length and include_prompt route by route, as unpickling needs it."""
        super().restore(lengths)
        self._set_include_prompt(include_prompt or {})

    def _set_include_prompt(self, include_prompt: Mapping[str, bool]) -> None:
        self._pipelines = {
            name: replace(p, pooling=replace(p.pooling, include_prompt=include_prompt[name]))
            if p.pooling and name in include_prompt
            else p
            for name, p in self._open().items()
        }

    def _width(self, truncate_dim: int | None) -> int:
        dim = self._dim
        if truncate_dim is None:
            return dim
        if not isinstance(truncate_dim, int | np.integer) or not 1 <= truncate_dim <= dim:
            raise InputError(f"truncate_dim must be between 1 and {dim}, this model's dim; got {truncate_dim!r}.")
        return int(truncate_dim)


def _converted(rows: npt.NDArray[Any], single: bool, form: DenseForm) -> Any:  # noqa: ANN401
    """Rows (N, D) in the type that was asked for; of a single text, its row."""
    if form.to_tensor:
        return as_tensor(rows[0] if single else rows)
    if not form.to_numpy:
        return as_tensor(rows[0]) if single else [as_tensor(row) for row in rows]
    return rows[0] if single else rows
