"""What every encoder of texts has: prompts, and the only loop there is from texts to vectors."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt

from trivec._encoders.calls import (
    TOKENS_PER_ROW,
    Call,
    Ready,
    RowCall,
    Side,
    check_finite,
    defaults_of,
    device_list,
    known_options,
)
from trivec._encoders.load_options import LoadOptions
from trivec._encoders.pipeline import Pipeline
from trivec._encoders.sentence_transformers_names import SentenceTransformersNames
from trivec._encoders.windows import blocks, stream, windows
from trivec._errors import InputError, TruncationError
from trivec._model.families import FAMILIES
from trivec._model.manifest import Manifest, similarity_name
from trivec._pooling.heads import Selection, Wanted
from trivec._system.progress import progress_bar
from trivec._tokens.batch import Batch, Tokens
from trivec._tokens.inputs import as_texts
from trivec._tokens.plan import distinct
from trivec._vectors.heads import Collector, Head, HybridVectors, concatenated, record_of
from trivec._vectors.rows import Vectors
from trivec._vectors.scores import all_pairs, side_by_side

if TYPE_CHECKING:
    from trivec._concurrency.pool import Part

V = TypeVar("V")
_CALLED = ("embeddings1", "embeddings2")
_SIDES: Mapping[Side, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""The prompts of each side of a search, by the names that models give them; the first that is there counts."""


class TextEncoder(SentenceTransformersNames, Generic[V]):
    """Texts to vectors. A kind adds `encode`, `encode_query`, `encode_document`, `fingerprint_of`, `_call`, `_formed`.

    The two sides of `encode` are not declared here: pyright would take this declaration for theirs.

    Attributes:
        prompts: texts that are put before an input, by name ("query", "document", ...).
        default_prompt_name: the prompt of `encode` where a call names none.
        manifest: what the model folder says of itself.
    """

    encode: Callable[..., Any]

    def __init__(self, manifest: Manifest, pipelines: Mapping[str, Pipeline], options: LoadOptions) -> None:
        super().__init__(manifest, pipelines, options)
        self._dim = int(manifest.dim or 0)
        self.prompts: dict[str, str] = {**manifest.prompts, **(options.prompts or {})}
        self.default_prompt_name = options.default_prompt_name or manifest.default_prompt_name
        self.similarity_fn_name = options.similarity_fn_name
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            raise InputError(
                f"default_prompt_name {self.default_prompt_name!r} is none of the prompts {sorted(self.prompts)}."
            )

    # ---- what it gives -------------------------------------------------------------------------------------------

    @property
    def heads(self) -> tuple[Head, ...]:
        """The representations that this model has of a text: some of "dense", "sparse", "colbert"."""
        multi = any(route.multi is not None for route in self.manifest.routes.values())
        return tuple(head for head in FAMILIES[self.manifest.family].heads if head != "colbert" or multi)

    @property
    def dim(self) -> int:
        """Numbers in a vector, or terms of a sparse row."""
        return self._dim

    def get_embedding_dimension(self) -> int:
        """`dim`, under sentence-transformers' name."""
        return self.dim

    get_sentence_embedding_dimension = get_embedding_dimension

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides the vectors of a plain `encode(texts)` call."""
        return self.fingerprint_of()

    def fingerprint_of(self, *args: Any, **options: Any) -> str:  # noqa: ANN401 - the kind of encoder decides
        """sha256 of everything that decides the vectors of a call."""
        raise NotImplementedError

    def represent(
        self,
        inputs: str | Iterable[str],
        heads: Sequence[str] | None = None,
        *,
        whole: bool = False,
        **options: Any,  # noqa: ANN401 - those of `encode`
    ) -> HybridVectors:
        """What any kind of encoder gives, in one kind of record: so a caller need not ask which it has.

        Args:
            inputs: one text, or any iterable of texts.
            heads: some of `heads`; None: all of them. What is not asked for is not computed.
            whole: cut off nothing: every number of a dense vector, every term of a sparse row.
            options: of this encoder's `encode`; `encode_options` names them.

        Returns:
            dense (N, D), sparse and colbert; None for what was not asked for.

        Raises:
            InputError: a head that this model does not have. Whatever `encode` raises.
        """
        multi = self.route(options.get("task")).multi is not None
        have = tuple(head for head in self.heads if head != "colbert" or multi)
        asked = have if heads is None else tuple(heads)
        if not asked or not set(asked) <= set(have):
            raise InputError(f"heads {list(asked)}: expected some of {', '.join(have)}.")
        uncut = self._uncut(options.get("task")) if whole else {}
        return record_of(self.encode(inputs, **{**self._returning(asked), **uncut, **options}))

    def check_call(self, heads: Sequence[str] | None = None, **options: Any) -> None:  # noqa: ANN401
        """Raise where an option of `represent` has a wrong value; nothing is encoded."""
        self._call(**{**self.encode_options(), **self._returning(self.heads if heads is None else heads), **options})

    @classmethod
    def encode_options(cls) -> Mapping[str, Any]:
        """The options of `encode` beside the texts, with their defaults."""
        return defaults_of(cls.encode)

    def encode_iter(self, texts: Iterable[str], *, window: int = 1024, **options: Any) -> Iterator[V]:  # noqa: ANN401
        """Encode any number of texts in bounded memory: yields what `encode` gives of up to `window` texts, in order.

        A window is tokenized while the one before it is encoded, so `texts` is read one window ahead. Where a text or
        the source of the texts fails, the blocks before it come first. The options are those of `encode`.
        """
        call = self._call(**known_options(self.encode_options(), options, "encode_iter"))
        if not call.in_processes:
            return blocks(
                texts,
                window,
                lambda part: self._ready(as_texts(part, None)[0], call),
                lambda ready: self._formed(self._run(ready, call), call, ready.texts, False),
            )
        return self._stream(stream(texts, window), window, call)

    def tokenize(self, texts: str | Iterable[str], *, prompt: str = "", task: str | None = None) -> list[list[int]]:
        """Token ids of each text as the model reads them: behind the prompt, cut at max_seq_length."""
        listed, _ = as_texts(texts, None)
        tokens = self.route(task).tokenizer(listed, prompt)
        return [tokens.of(row).tolist() for row in range(len(listed))]

    def token(self, token_id: int) -> str:
        """The token of an id, which is also the term of a sparse row."""
        return next(iter(self._open().values())).tokenizer.token(token_id)

    # ---- rows of token ids, for whoever gathers those of many callers --------------------------------------------

    def reading(self, max_length: int | None = None, side: Literal["left", "right"] | None = None) -> Self:
        """This model with texts cut elsewhere, which its fingerprint tells; the graph is shared, and stays this one's.

        Args:
            max_length: tokens a text is cut to; None: `max_seq_length`.
            side: where what is too long is cut off; None: where the model has it.

        Raises:
            InputError: a length that the model cannot read, or a tokenizer that cuts on one side alone.
        """
        if max_length is not None:
            self._check_length(max_length)
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        pipelines = {}
        for name, pipeline in self._open().items():
            tokenizer, spec = pipeline.tokenizer, pipeline.encoder
            if side is not None:
                tokenizer, spec = tokenizer.cut_from(side), replace(spec, truncation_side=side)
            if max_length is not None:
                tokenizer = tokenizer.cut_at(max_length)
            pipelines[name] = replace(pipeline, tokenizer=tokenizer, encoder=spec)
        twin._pipelines = pipelines
        return twin

    def row_call(
        self, heads: Sequence[Head], *, prompt: str = "", task: str | None = None, states: bool = False
    ) -> RowCall:
        """What `run_rows` is to make of rows: these heads, uncut; `states` are vectors of all tokens for "colbert".

        Raises:
            InputError: a task that the model does not have.
        """
        select = Selection() if "sparse" in heads else None
        wanted = Wanted("dense" in heads, select, "colbert" in heads and not states, states)
        route = self._route(task)
        return RowCall(route, wanted, self._open()[route].prompt_length(prompt) if wanted.dense else 0)

    def read_rows(self, texts: Sequence[str], *, prompt: str = "", task: str | None = None) -> Ready:
        """Texts tokenized, each that differs once.

        Raises:
            InputError: a text holds a lone surrogate (its index is named).
        """
        return self._ready(texts, Call(self._route(task), prompt, Wanted(), 1, "truncate"))

    def run_rows(self, tokens: Tokens, call: RowCall, /) -> tuple[HybridVectors, npt.NDArray[np.bool_]]:
        """What is wanted of N rows, and whether everything of a row is finite, (N,); no error is raised over one."""
        collector = Collector(len(tokens.truncated))
        pipeline = self._open()[call.route]
        for rows, made in pipeline.each(tokens, call.wanted, call.prompt_length, 32 * TOKENS_PER_ROW):
            collector.add(rows, *made)
        return collector.vectors(None), collector.finite

    # ---- similarity ----------------------------------------------------------------------------------------------

    @property
    def similarity_fn_name(self) -> str:
        """How `similarity` compares: "cosine", "dot", "euclidean" or "manhattan".

        Can be set, to a SimilarityFunction of sentence-transformers as well; None is the model's own. InputError where
        it is none.
        """
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: object) -> None:
        self._similarity_fn_name = self.manifest.similarity if value is None else similarity_name(value)

    def similarity(self, embeddings1: Vectors, embeddings2: Vectors) -> Any:  # noqa: ANN401
        """Each vector against each, by `similarity_fn_name`: `cos_sim` of `trivec.util`, or its like.

        Args:
            embeddings1: (N, D) or (D,), dense or sparse: see `trivec.util` for what vectors may be.
            embeddings2: (M, D) or (D,).

        Returns:
            (N, M) float32; float64 where float64 came. A torch tensor where an argument is one.

        Raises:
            InputError: no vectors, other widths, or a number that is not finite (its row is named).
        """
        return all_pairs(self.similarity_fn_name, embeddings1, embeddings2, _CALLED)

    def similarity_pairwise(self, embeddings1: Vectors, embeddings2: Vectors) -> Any:  # noqa: ANN401
        """Row i against row i: (N,), or a number of (D,) and (D,); all else is as of `similarity`."""
        return side_by_side(self.similarity_fn_name, embeddings1, embeddings2, _CALLED)

    # ---- prompts -------------------------------------------------------------------------------------------------

    def prompt_name_of(self, side: Side) -> str | None:
        """The prompt that `encode_query` or `encode_document` takes where a call gives none; None: there is none."""
        return next((name for name in _SIDES[side] if name in self.prompts), None)

    def prompt_text(self, prompt: str | None = None, prompt_name: str | None = None) -> str:
        """What is put before each input of `encode(..., prompt_name, prompt)`; "" for nothing.

        Raises:
            InputError: prompt is no string, or prompt_name is none of `prompts`.
        """
        if prompt is not None:
            if not isinstance(prompt, str):
                raise InputError(f"prompt must be a string, got {type(prompt).__name__}.")
            return prompt
        name = self.default_prompt_name if prompt_name is None else prompt_name
        if name is None:
            return ""
        if name not in self.prompts:
            raise InputError(f"prompt_name {name!r} is none of this model's prompts {sorted(self.prompts)}.")
        return self.prompts[name]

    def __repr__(self) -> str:
        state = "closed" if self._pipelines is None else self.device
        return f"{type(self).__name__}({self._options.name!r}, dim={self._dim}, {self.precision}, {state})"

    # ---- what a kind of encoder says -----------------------------------------------------------------------------

    def _call(self, **options: Any) -> Call:  # noqa: ANN401
        """All options of `encode`, checked. Raises InputError before any text is looked at."""
        raise NotImplementedError

    def _formed(self, vectors: HybridVectors, call: Call, texts: Sequence[str], single: bool) -> V:
        """Vectors of N texts as `encode` returns them; of a single text, its row."""
        raise NotImplementedError

    def _returning(self, heads: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """Options with which `encode` gives these heads."""
        return {}

    def _uncut(self, task: str | None) -> dict[str, Any]:  # noqa: ARG002
        """Options with which `encode` cuts nothing off."""
        return {}

    @property
    def _blamed(self) -> str:
        """The variant in which numbers that are not finite arise."""
        return self.precision

    def _state(self) -> dict[str, Any]:
        return {
            "prompts": self.prompts,
            "default_prompt_name": self.default_prompt_name,
            "similarity_fn_name": self.similarity_fn_name,
        }

    # ---- from texts to vectors -----------------------------------------------------------------------------------

    def _checked(
        self, wanted: Wanted, options: Mapping[str, Any], form: object = None, *, unnormalized: bool = False
    ) -> Call:
        """The options that all kinds of encoders share, checked."""
        device, overflow = options["device"], options["on_overflow"]
        devices = None if device is None else device_list(device)
        self._check_run(None if devices is not None else device, options["batch_size"])
        if overflow not in ("truncate", "error"):
            raise InputError(f"on_overflow {overflow!r} is not one of 'truncate', 'error'.")
        return Call(
            self._route(options["task"]),
            self.prompt_text(options["prompt"], options["prompt_name"]),
            wanted,
            int(options["batch_size"]),
            overflow,
            options["show_progress_bar"],
            unnormalized,
            form,
            options["pool"],
            devices,
            options["chunk_size"],
        )

    def _run(self, texts: Sequence[str] | Ready, call: Call) -> HybridVectors:
        """What is wanted of N texts: here, or in processes."""
        if call.in_processes and not isinstance(texts, Ready):
            return self._run_in_processes(texts, call)
        ready = texts if isinstance(texts, Ready) else self._ready(texts, call)
        self._count_truncated(ready, call)
        pipeline = self._open()[call.route]
        pipeline = pipeline.unnormalized() if call.unnormalized else pipeline
        count = len(ready.tokens.truncated)
        collector, bar = Collector(count), progress_bar(count, call.show_progress_bar)
        prompt_length = pipeline.prompt_length(call.prompt)
        for rows, made in pipeline.each(ready.tokens, call.wanted, prompt_length, call.batch_size * TOKENS_PER_ROW):
            collector.add(rows, *made)
            bar.update(len(rows))
        bar.close()
        if not count:  # nothing, but of the right widths
            nothing = Batch.of_rows(np.zeros((0, 0), dtype=np.int64))
            collector.add(np.zeros(0, dtype=np.intp), *pipeline.represent(nothing, call.wanted))
        check_finite(ready.spread(collector.finite), ready.texts, self._blamed)
        return collector.vectors(ready.row_of)

    def _run_in_processes(self, texts: Sequence[str], call: Call) -> HybridVectors:
        bar = progress_bar(len(texts), call.show_progress_bar)

        def done(part: "Part") -> None:
            self._add_truncated(part.truncated)
            bar.update(part.size)

        parts = [self._run([], call.in_worker())]  # of no texts: the right widths
        with ExitStack() as stack:
            stack.callback(bar.close)
            workers = self._workers(stack, call.pool, call.devices)
            parts += workers.map("_run", texts, {"call": call.in_worker()}, call.chunk_size, done=done)
        return concatenated(parts)

    def _stream(self, texts: Iterable[str], window: int, call: Call) -> Iterator[V]:
        """`encode_iter` in processes: a window is what one of them takes at a time."""
        with ExitStack() as stack:
            workers = self._workers(stack, call.pool, call.devices)
            held: deque[list[str]] = deque()

            def chunks() -> Iterator[list[str]]:
                for chunk in windows(texts, window):
                    held.append(chunk)
                    yield chunk

            parts = stack.enter_context(closing(workers.imap("_run", chunks(), {"call": call.in_worker()})))
            for part in parts:
                self._add_truncated(part.truncated)
                yield self._formed(part.value, call, held.popleft(), False)

    def _ready(self, texts: Sequence[str], call: Call) -> Ready:
        """The texts of a call, tokenized."""
        different, row_of = distinct(texts)
        tokenizer = self._open()[call.route].tokenizer
        if call.max_length is not None:
            tokenizer = tokenizer.cut_at(call.max_length)
        try:
            return Ready(texts, tokenizer(different, call.prompt), row_of)
        except InputError:
            if row_of is not None:
                tokenizer(texts, call.prompt)  # fails as well, and names the index that the caller knows
            raise

    def _count_truncated(self, ready: Ready, call: Call) -> None:
        truncated = ready.spread(ready.tokens.truncated)  # (N,)
        count = int(truncated.sum())
        if not count:
            return
        if call.on_overflow == "error":
            first, most = int(np.flatnonzero(truncated)[0]), call.max_length or self.max_seq_length
            raise TruncationError(
                f"{count} of {len(truncated)} texts are longer than {most} tokens, the first at "
                f"index {first}. Shorten them, raise max_seq_length, or pass on_overflow='truncate'."
            )
        self._add_truncated(count)
