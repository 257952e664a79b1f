"""What every model of texts, or of pairs of texts, has: prompts, and the only loop there is from them to numbers."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt

from trivec._encoders.calls import TOKENS_PER_ROW, Call, Ready, RowCall, check_finite, device_list
from trivec._encoders.load_options import LoadOptions
from trivec._encoders.pipeline import Pipeline
from trivec._encoders.sentence_transformers_names import SentenceTransformersNames
from trivec._encoders.windows import blocks, windows
from trivec._errors import InputError, TruncationError
from trivec._model.manifest import Manifest
from trivec._pooling.heads import Wanted
from trivec._system.progress import progress_bar
from trivec._tokens.batch import Batch, Tokens
from trivec._tokens.plan import distinct
from trivec._vectors.heads import Collector, HybridVectors, concatenated

if TYPE_CHECKING:
    from trivec._concurrency.pool import Part

V = TypeVar("V")
_Listed = Callable[[list[Any]], list[Any]]


class RowModel(SentenceTransformersNames, Generic[V]):
    """Rows of token ids, of texts or pairs, to numbers. A kind adds its methods, `fingerprint_of`, `_call`, `_formed`.

    Attributes:
        prompts: texts that are put before an input, by name ("query", "document", ...).
        default_prompt_name: the prompt of calls that name none.
        manifest: what the model folder says of itself.
    """

    _made, _item = "vectors", "text"
    """What it makes, and of what, for messages."""

    def __init__(self, manifest: Manifest, pipelines: Mapping[str, Pipeline], options: LoadOptions) -> None:
        super().__init__(manifest, pipelines, options)
        self.prompts: dict[str, str] = {**manifest.prompts, **(options.prompts or {})}
        self.default_prompt_name = options.default_prompt_name or manifest.default_prompt_name
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            raise InputError(
                f"default_prompt_name {self.default_prompt_name!r} is none of the prompts {sorted(self.prompts)}."
            )

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides the numbers of a plain call (`encode(texts)`, `predict(pairs)`)."""
        return self.fingerprint_of()

    def fingerprint_of(self, *args: Any, **options: Any) -> str:  # noqa: ANN401 - the kind decides
        """sha256 of everything that decides the numbers of a call."""
        raise NotImplementedError

    def token(self, token_id: int) -> str:
        """The token of an id, which is also the term of a sparse row."""
        return next(iter(self._open().values())).tokenizer.token(token_id)

    def prompt_text(
        self,
        prompt: str | None = None,
        prompt_name: str | None = None,
        *,
        task: str | None = None,  # noqa: ARG002 - for kinds whose sides have marks of their own
    ) -> str:
        """What is put before each input of `encode(..., prompt_name, prompt, task)`; "" for nothing.

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

    def run_rows(self, tokens: Tokens, call: RowCall, /) -> tuple[HybridVectors, npt.NDArray[np.bool_]]:
        """What is wanted of N rows, and whether everything of a row is finite, (N,); no error is raised over one."""
        return self._rows(tokens, call.route, call.wanted, call.prompt_length)

    def _rows(
        self, tokens: Tokens, route: str, wanted: Wanted, prompt_length: int
    ) -> tuple[HybridVectors, npt.NDArray[np.bool_]]:
        pipeline = self._open()[route]
        collector = Collector(len(tokens.truncated), pipeline.vector_counts(tokens, wanted))
        for rows, made in pipeline.each(tokens, wanted, prompt_length, 32 * TOKENS_PER_ROW):
            collector.add(rows, *made)
        return collector.vectors(None), collector.finite

    # ---- what a kind says ----------------------------------------------------------------------------------------

    def _call(self, **options: Any) -> Call:  # noqa: ANN401
        """All options of `encode`, checked. Raises InputError before any text is looked at."""
        raise NotImplementedError

    def _formed(self, vectors: HybridVectors, call: Call, texts: Sequence[Any], single: bool) -> V:
        """Vectors of N texts as `encode` returns them; of a single text, its row."""
        raise NotImplementedError

    @property
    def _blamed(self) -> str:
        """The variant in which numbers that are not finite arise."""
        return self.precision

    def _state(self) -> dict[str, Any]:
        return {"prompts": self.prompts, "default_prompt_name": self.default_prompt_name}

    # ---- from texts to numbers -----------------------------------------------------------------------------------

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
            self.prompt_text(options["prompt"], options["prompt_name"], task=options["task"]),
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

    def _run(self, texts: Sequence[Any] | Ready, call: Call) -> HybridVectors:
        """What is wanted of N texts, or pairs: here, or in processes."""
        if call.in_processes and not isinstance(texts, Ready):
            return self._run_in_processes(texts, call)
        ready = texts if isinstance(texts, Ready) else self._ready(texts, call)
        self._count_truncated(ready, call)
        pipeline = self._open()[call.route]
        pipeline = pipeline.unnormalized() if call.unnormalized else pipeline
        count = len(ready.tokens.truncated)
        collector = Collector(count, pipeline.vector_counts(ready.tokens, call.wanted))
        bar = progress_bar(count, call.show_progress_bar)
        prompt_length = pipeline.prompt_length(call.prompt)
        for rows, made in pipeline.each(ready.tokens, call.wanted, prompt_length, call.batch_size * TOKENS_PER_ROW):
            collector.add(rows, *made)
            bar.update(len(rows))
        bar.close()
        if not count:  # nothing, but of the right widths
            nothing = Batch.of_rows(np.zeros((0, 0), dtype=np.int64))
            collector.add(np.zeros(0, dtype=np.intp), *pipeline.represent(nothing, call.wanted))
        check_finite(ready.spread(collector.finite), ready.texts, self._blamed, self._made, self._item)
        return collector.vectors(ready.row_of)

    def _run_in_processes(self, texts: Sequence[Any], call: Call) -> HybridVectors:
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

    def _windows(self, items: Iterable[Any], window: int, call: Call, listed: _Listed) -> Iterator[V]:
        """What is made of `window` texts, or pairs, at a time; `listed` gives a window's, checked."""
        if not call.in_processes:
            return blocks(
                items,
                window,
                lambda part: self._ready(listed(part), call),
                lambda ready: self._formed(self._run(ready, call), call, ready.texts, False),
            )
        return self._stream(items, window, call, listed)

    def _stream(self, items: Iterable[Any], window: int, call: Call, listed: _Listed) -> Iterator[V]:
        """The same in processes: a window is what one of them takes at a time."""
        with ExitStack() as stack:
            workers = self._workers(stack, call.pool, call.devices)
            held: deque[list[Any]] = deque()

            def chunks() -> Iterator[list[Any]]:
                for chunk in windows(items, window):
                    held.append(listed(chunk))
                    yield held[-1]

            parts = stack.enter_context(closing(workers.imap("_run", chunks(), {"call": call.in_worker()})))
            for part in parts:
                self._add_truncated(part.truncated)
                yield self._formed(part.value, call, held.popleft(), False)

    def _ready(self, texts: Sequence[Any], call: Call) -> Ready:
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
            first = int(np.flatnonzero(truncated)[0])
            most = call.max_length or self.route(call.route).tokenizer.max_seq_length
            raise TruncationError(
                f"{count} of {len(truncated)} {self._item}s are longer than {most} tokens, the first at "
                f"index {first}. Shorten them, raise max_seq_length, or pass on_overflow='truncate'."
            )
        self._add_truncated(count)
