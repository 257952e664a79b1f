"""Late interaction (ColBERT): a vector for each token, and MaxSim that compares a query's with a document's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np

from trivec._encoders.calls import Call, for_task, in_thread
from trivec._encoders.fingerprint import heads_fingerprint, ranks_fingerprint
from trivec._encoders.load_options import LoadOptions
from trivec._encoders.named_call import fingerprint_of_call, spelled_out
from trivec._encoders.pipeline import Pipeline
from trivec._encoders.text_encoder import SIDES, TextEncoder
from trivec._errors import InputError
from trivec._model.manifest import Manifest
from trivec._pooling.heads import Wanted
from trivec._pooling.ranks import Ranked, check_top_k, documents_of, ranked
from trivec._tokens.inputs import as_texts
from trivec._vectors.arrays import Floats, normalize
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import REDUCE_OF, MultiVectors, as_multi_vectors, check_token_precision

if TYPE_CHECKING:
    from trivec._concurrency.pool import WorkerPool


class LateForm(NamedTuple):
    """What becomes of the vectors of a call."""

    normalize: bool
    precision: str


class LateEncoder(TextEncoder[Any]):
    """A vector for each token of a text. Made by `trivec.load`; safe to use from many threads.

        queries = late.encode_query(["who wrote it?"])  # MultiVectors
        late.rank("who wrote it?", documents, top_k=10)

    Queries and documents are read differently: behind a mark of their own, cut at a length of their own
    (`query_length`, `document_length`), queries filled up with a token where the model was trained so, documents
    without vectors of punctuation where it was trained so. That is the task of a call; the marks are no `prompts`.

    Attributes:
        prompts: texts that are put before an input, by name; behind the mark of its side.
        default_prompt_name: the prompt of `encode` where a call names none.
        similarity_fn_name: "maxsim" or "meanmaxsim".
        manifest: what the model folder says of itself.
    """

    def __init__(self, manifest: Manifest, pipelines: Mapping[str, Pipeline], options: LoadOptions) -> None:
        super().__init__(manifest, pipelines, options)
        if options.max_active_dims is not None:
            raise InputError("max_active_dims is for weights of terms; this model has a vector a token. Leave it out.")
        self.truncate_dim = self._checked_width(options.truncate_dim) or manifest.truncate_dim
        for given in (options.prompts or {}).values():
            self._check_prompt(given)

    # ---- what it is ----------------------------------------------------------------------------------------------

    @property
    def query_length(self) -> int | None:
        """Tokens a query is cut to; None: never cut. Where queries are filled up to a length, this is that length.

        Can be set, up to the positions that the model has.
        """
        return self.route("query").tokenizer.max_seq_length

    @query_length.setter
    def query_length(self, value: int | None) -> None:
        self._set_length("query", value)

    @property
    def document_length(self) -> int | None:
        """Tokens a document is cut to; None: never cut. Can be set, up to the positions that the model has."""
        return self.route("document").tokenizer.max_seq_length

    @document_length.setter
    def document_length(self, value: int | None) -> None:
        self._set_length("document", value)

    @property
    def max_seq_length(self) -> int | None:
        """`document_length`, or `query_length` of a model that was loaded for queries alone."""
        return self.route().tokenizer.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self._set_length(self._route(None), value)

    def prompt_text(self, prompt: str | None = None, prompt_name: str | None = None, *, task: str | None = None) -> str:
        """What is put before each input of `encode(..., prompt_name, prompt, task)`, behind the mark of its side.

        Raises:
            InputError: prompt is no string, prompt_name is none of `prompts`, or either would bring a mark: the prompts
                of sentence-transformers hold it ("[Q] "), and here it is part of the model.
        """
        text = super().prompt_text(prompt, prompt_name, task=task)
        self._check_prompt(text)
        name = self.default_prompt_name if prompt_name is None else prompt_name
        if prompt is None and name is not None:
            self._check_side(name, task)
        return text

    def fingerprint_of(
        self,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        task: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        max_length: int | None = None,
        precision: str = "float32",
    ) -> str:
        """sha256 of everything that decides the vectors of an `encode` call: equal fingerprints, equal vectors."""
        pipeline = self.route(task)
        if max_length is not None:
            self._check_length(max_length)
            pipeline = replace(pipeline, tokenizer=pipeline.tokenizer.cut_at(max_length))
        multi = pipeline.multi
        again = bool(normalize_embeddings) and multi is not None and not multi.normalize
        check_token_precision(precision)
        settings: dict[str, object] = {"width": self._width(truncate_dim), **({"normalize": True} if again else {})}
        settings |= {} if precision == "float32" else {"precision": precision}
        return heads_fingerprint(
            pipeline,
            variant=self.precision,
            digest=self._options.digest,
            prompt=self.prompt_text(prompt, prompt_name, task=task),
            settings=settings,
        )

    def fingerprint_of_ranks(self) -> str:
        """sha256 of everything that decides the scores of `rank`: both sides, and how they are compared."""
        sides = (spelled_out(self, f"encode_{side}", {}) for side in SIDES)
        return ranks_fingerprint([fingerprint_of_call(self, side) for side in sides], self.similarity_fn_name)

    # ---- vectors -------------------------------------------------------------------------------------------------

    def encode(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: Literal["token_embeddings"] = "token_embeddings",
        convert_to_numpy: bool = True,
        device: str | list[str] | None = None,
        normalize_embeddings: bool = False,
        pool: "WorkerPool | None" = None,
        chunk_size: int | None = None,
        token_pooling: None = None,
        task: str | None = None,
        *,
        precision: Literal["float32", "float16", "int8"] = "float32",
        truncate_dim: int | None = None,
        on_overflow: Literal["truncate", "error"] = "truncate",
        max_length: int | None = None,
        sentences: str | Iterable[str] | None = None,
    ) -> Any:  # noqa: ANN401 - see below
        """Encode texts, in the order in which `MultiVectorEncoder.encode` of sentence-transformers 6.2 takes options.

        `list(vectors)` is the list of arrays that sentence-transformers gives.

        Args:
            inputs: one text, or any iterable of texts.
            prompt_name: a key of `prompts`.
            prompt: a text to put before each input, behind the mark of its side, which is none of it; wins over
                prompt_name.
            batch_size: work of one run: up to batch_size * 32 tokens, on CUDA batch_size * 512. Vectors do not depend
                on it beyond what kernels of other shapes round differently on CUDA.
            show_progress_bar: None shows one where the "trivec" logger is at INFO or DEBUG and stderr is a terminal.
            output_value: nothing but "token_embeddings".
            convert_to_numpy: has no effect: vectors are numpy's in any case.
            device: the encoder's own, which `load` has chosen; or a list (["cuda:0", "cuda:1"], ["cpu", "cpu"]), for
                which processes are started for this call.
            normalize_embeddings: whether vectors have length 1 where the model's own have not; most have.
            pool: processes from `start_multi_process_pool`.
            chunk_size: texts that a process takes at a time; None: a tenth of its share, of at most 5,000.
            token_pooling: nothing but None: pooling of tokens is not built yet.
            task: "query" or "document"; None: "document", as sentence-transformers counts it.
            precision: what the vectors are kept in: "float16" takes half of float32's bytes, "int8" a quarter (127
                times each number, rounded: for vectors of length 1). Rows and scores are float32 all the same.
            truncate_dim: numbers that are kept of each vector, which then has length 1 again; None: the encoder's
                `truncate_dim`.
            on_overflow: "error" raises where a text is longer than its side's length instead of cutting it.
            max_length: tokens the texts of this call are cut to; None: `query_length` or `document_length`.
            sentences: older name of `inputs`.

        Returns:
            MultiVectors of N texts; of one text (t, D) float32.

        Raises:
            InputError: something that is no text (its index is named), or an argument out of range. Nothing is encoded.
            TruncationError: a text is too long and on_overflow is "error".
            NonFiniteError: a number is NaN or infinite; the text is named.
            WorkerError: a process of the pool died.
        """
        call = self._call(
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            output_value=output_value,
            convert_to_numpy=convert_to_numpy,
            device=device,
            normalize_embeddings=normalize_embeddings,
            pool=pool,
            chunk_size=chunk_size,
            token_pooling=token_pooling,
            task=task,
            precision=precision,
            truncate_dim=truncate_dim,
            on_overflow=on_overflow,
            max_length=max_length,
        )
        texts, single = as_texts(inputs, sentences)
        return self._formed(self._run(texts, call), call, texts, single)

    encode_query = encode_queries = for_task(encode, "query")
    encode_document = encode_documents = encode_corpus = for_task(encode, "document")
    aencode = in_thread(encode)

    # ---- scores --------------------------------------------------------------------------------------------------

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Floats:  # noqa: ANN401 - see below
        """Each query against each document, by `similarity_fn_name`.

        "maxsim" is the sum over the query's vectors of the largest dot product with one of the document's (Khattab &
        Zaharia 2020, equation 3), "meanmaxsim" the mean.

        Args:
            embeddings1: the queries: MultiVectors, a list of (t, D) arrays or tensors, or one of them.
            embeddings2: the documents, in the same forms.

        Returns:
            (N, M) float32.

        Raises:
            InputError: no such vectors, or of other widths.
        """
        queries, documents = as_multi_vectors(embeddings1, "embeddings1"), as_multi_vectors(embeddings2, "embeddings2")
        return queries.maxsim(documents, REDUCE_OF[self.similarity_fn_name])

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Floats:  # noqa: ANN401 - as of `similarity`
        """Query i against document i: (N,) float32; all else is as of `similarity`."""
        queries, documents = as_multi_vectors(embeddings1, "embeddings1"), as_multi_vectors(embeddings2, "embeddings2")
        return queries.maxsim_pairs(documents, REDUCE_OF[self.similarity_fn_name])

    def rank(
        self,
        query: str,
        documents: Iterable[str] | MultiVectors,
        top_k: int | None = None,
        return_documents: bool = False,
        batch_size: int = 32,
        *,
        on_overflow: Literal["truncate", "error"] = "truncate",
    ) -> list[Ranked]:
        """Documents by their similarity to a query, best first; equal ones in their order.

        Args:
            query: one text.
            documents: N texts, in any iterable, or their vectors.
            top_k: how many of them to give; None: all.
            return_documents: whether each comes with its text.
            batch_size: as of `encode`.
            on_overflow: as of `encode`, for the query and the documents.

        Returns:
            For each document its index `corpus_id`, its `score` and, where asked for, its `text`.

        Raises:
            InputError: a query or document that is no text (its index is named), or vectors whose texts are asked for.
            Whatever `encode` raises.
        """
        check_top_k(top_k)
        texts: Sequence[str] = []
        if isinstance(documents, MultiVectors):
            documents_of(query, [])
            if return_documents:
                raise InputError("return_documents is for texts, and these are vectors. Look them up by corpus_id.")
            vectors = documents
        else:
            texts = documents_of(query, documents)
            vectors = self.encode_document(texts, batch_size=batch_size, on_overflow=on_overflow)
        scores = self.similarity(self.encode_query([query], on_overflow=on_overflow), vectors)[0]  # (N,)
        return ranked(scores, texts, top_k, return_documents)

    arank = in_thread(rank)

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _call(self, **options: Any) -> Call:  # noqa: ANN401
        if options["output_value"] != "token_embeddings":
            raise InputError(
                f"output_value {options['output_value']!r}: this model gives 'token_embeddings' alone; the features of "
                "sentence-transformers' modules are not made here."
            )
        if options["token_pooling"] is not None:
            raise InputError("token_pooling is not built yet: leave it at None, and pool the vectors afterwards.")
        width, length = self._width(options["truncate_dim"]), options["max_length"]
        if length is not None:
            self._check_length(length)
            self.route(options["task"]).tokenizer.cut_at(length)  # raises before a text is looked at
        wanted = Wanted(multi=True, width=None if width == self.dim else width)
        check_token_precision(options["precision"])
        form = LateForm(bool(options["normalize_embeddings"]), options["precision"])
        return self._checked(wanted, options, form)._replace(max_length=length)

    def _formed(self, vectors: HybridVectors, call: Call, texts: Sequence[str], single: bool) -> Any:  # noqa: ANN401, ARG002
        found, head = cast("MultiVectors", vectors.colbert), self._open()[call.route].multi
        form = cast("LateForm", call.form)
        if form.normalize and head is not None and not head.normalize:
            found = MultiVectors._trusted(normalize(found.vectors), found.offsets)
        found = found.quantize(form.precision)
        return found[0] if single else found

    def _recorded(self, vectors: Any) -> HybridVectors:  # noqa: ANN401 - of one text it is an array, and no dense vector
        return HybridVectors(colbert=vectors)

    def _uncut(self, task: str | None) -> dict[str, Any]:  # noqa: ARG002 - both sides have one width
        return {"truncate_dim": self.dim}

    def _width(self, truncate_dim: int | None) -> int:
        """Numbers of a vector of a call."""
        return self._checked_width(truncate_dim) or self.truncate_dim or self.dim

    def _checked_width(self, width: int | None) -> int | None:
        known = isinstance(width, int | np.integer) and not isinstance(width, bool) and 1 <= width <= self.dim
        if width is not None and not known:
            raise InputError(f"truncate_dim must be a whole number from 1 to {self.dim}, got {width!r}.")
        return None if width is None else int(width)

    def _check_prompt(self, prompt: str) -> None:
        """InputError where a prompt begins with the mark of a side, which would then stand there twice."""
        for side in SIDES:
            mark = self._mark(side)
            rest = prompt.lstrip().removeprefix(mark)
            goes_on = rest[:1].isalnum() and mark[-1:].isalnum()  # a longer word
            if mark and prompt.lstrip().startswith(mark) and not goes_on:
                behind = f", prompt={rest.lstrip()!r}" if rest.strip() else ""
                raise InputError(
                    f"the prompt {prompt!r} begins with {mark!r}, the mark of a {side}, which this model puts before "
                    f"every {side} by itself. Type: encode_{side}(texts{behind})"
                )

    def _check_side(self, name: str, task: str | None) -> None:
        """InputError where the name of one side's prompt is to bring that side's mark to the other.

        A caller's own prompt of that name is a text like any other.
        """
        route = self._route(task)
        if self.prompts.get(name) != self.manifest.prompts.get(name):
            return
        for side, names in SIDES.items():
            if name in names and side != route and self._mark(side):
                raise InputError(
                    f"prompt_name {name!r} is of a {side}, and this call reads each text as a {route}, behind the mark "
                    f"of a {route}. Type: encode_{side}(texts)"
                )

    def _mark(self, side: str) -> str:
        """What the model puts before every text of a side, in words; "" for nothing."""
        route = self.manifest.routes.get(side)
        ids = () if route is None or route.multi is None else route.multi.prefix_ids
        return "".join(self.token(i) for i in ids).strip()

    def _set_length(self, task: str, value: int | None) -> None:
        self._check_length(value)
        self.route(task).tokenizer.max_seq_length = value

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "truncate_dim": self.truncate_dim}
