"""What every encoder has: settings, tokenizers, one open pipeline a route, and how calls are checked."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from trivec._encoders.calls import Ready, in_processes
from trivec._encoders.load_options import LoadOptions
from trivec._encoders.pipeline import Pipeline
from trivec._encoders.windows import blocks, check_stream, windows
from trivec._errors import InputError, TruncationError
from trivec._model.manifest import SIMILARITIES, Manifest
from trivec._system.progress import progress_bar
from trivec._tokens.inputs import as_texts
from trivec._tokens.plan import distinct

if TYPE_CHECKING:
    from trivec._concurrency.pool import Part, WorkerPool


class BaseEncoder:
    """Common ground of the encoders that `trivec.load` returns; safe to use from many threads.

    Attributes:
        prompts: texts that are put before an input, by name ("query", "document", ...).
        default_prompt_name: the prompt of `encode` where a call names none.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan".
        manifest: what the model folder says of itself.
    """

    def __init__(self, manifest: Manifest, pipelines: Mapping[str, Pipeline], options: LoadOptions) -> None:
        self.manifest = manifest
        self.prompts: dict[str, str] = {**manifest.prompts, **(options.prompts or {})}
        self.default_prompt_name = options.default_prompt_name or manifest.default_prompt_name
        self.similarity_fn_name = options.similarity_fn_name or manifest.similarity
        self._options = options
        self._pipelines: Mapping[str, Pipeline] | None = pipelines
        self._lock = threading.Lock()
        self._truncated = 0
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            raise InputError(
                f"default_prompt_name {self.default_prompt_name!r} is none of the prompts {sorted(self.prompts)}."
            )

    def tokenize(self, texts: str | Iterable[str], *, prompt: str = "", task: str | None = None) -> list[list[int]]:
        """Token ids of each text as the model reads them: behind the prompt, cut at max_seq_length."""
        listed, _ = as_texts(texts, None)
        tokens = self._open()[self._route(task)].tokenizer(listed, prompt)
        return [tokens.of(row).tolist() for row in range(len(listed))]

    # ---- several processes ---------------------------------------------------------------------------------------

    def start_multi_process_pool(self, target_devices: Sequence[str] | None = None) -> "WorkerPool":
        """Start processes that each open this encoder again, for `encode(pool=...)`; stops them as a context manager.

        Args:
            target_devices: a process for each: "cpu", "cuda:0", ... The "cpu" ones share out the cores that this
                process may use. None: every CUDA device where the encoder runs on CUDA, else up to four times "cpu".

        Raises:
            InputError: target_devices is no list of devices, or this process may start none.
            WorkerError: a worker died while it started.
        """
        from trivec._concurrency.pool import WorkerPool

        return WorkerPool(self, target_devices)

    @staticmethod
    def stop_multi_process_pool(pool: "WorkerPool") -> None:
        """End the processes of a pool. The same as `pool.close()`."""
        pool.close()

    def _with_pool(
        self,
        texts: Sequence[str],
        pool: "WorkerPool | None",
        device: object,
        chunk_size: int | None,
        show_progress_bar: bool | None,
        options: Mapping[str, Any],
    ) -> list[Any]:
        """What `encode` gives for each chunk of the texts, in order, from a pool or from processes on these devices."""
        bar = progress_bar(len(texts), show_progress_bar)

        def done(part: "Part") -> None:
            self._add_truncated(part.truncated)
            bar.update(part.size)

        with ExitStack() as stack:
            stack.callback(bar.close)
            workers = self._workers(stack, pool, device)
            return workers.map("encode", texts, {**options, "show_progress_bar": False}, chunk_size, done=done)

    def _stream(
        self, encode: Callable[..., Any], texts: Iterable[str], window: int, options: Mapping[str, Any]
    ) -> Iterator[Any]:
        """The own `encode(**options)` of windows of the texts: in this process, in a pool, or on several devices."""
        given = dict(options)
        pool, device = given.pop("pool", None), given.get("device")
        if not in_processes(pool, device):
            read = self._reader(given.get("task"), given.get("prompt"), given.get("prompt_name"))
            return blocks(texts, window, read, lambda ready: encode(ready, **given))
        check_stream(texts, window)
        given.pop("device", None)
        given.pop("chunk_size", None)  # a window is what a process takes at a time
        encode([], **given)  # raises where an option is wrong
        return self._pooled(texts, window, pool, device, {**given, "show_progress_bar": False})

    def _pooled(
        self, texts: Iterable[str], window: int, pool: "WorkerPool | None", device: object, options: Mapping[str, Any]
    ) -> Iterator[Any]:
        with ExitStack() as stack:
            workers = self._workers(stack, pool, device)
            parts = stack.enter_context(closing(workers.imap("encode", windows(texts, window), options)))
            for part in parts:
                self._add_truncated(part.truncated)
                yield part.value

    def _workers(self, stack: ExitStack, pool: object, device: object) -> "WorkerPool":
        """The pool, if it is this encoder's, or one on these devices, which ends with the stack."""
        from trivec._concurrency.pool import WorkerPool

        if pool is None:
            return stack.enter_context(WorkerPool(self, cast("Sequence[str]", device)))
        if not isinstance(pool, WorkerPool):
            raise InputError(
                f"pool must come from start_multi_process_pool(), got {type(pool).__name__}. Where it is "
                "sentence-transformers' own, start one from this encoder."
            )
        pool.check(self)
        return pool

    # ---- what it is ----------------------------------------------------------------------------------------------

    @property
    def max_seq_length(self) -> int | None:
        """Tokens a text is cut to; None: never cut. Can be set, up to the positions that the model has."""
        lengths = [p.tokenizer.max_seq_length for p in self._open().values()]
        return min((n for n in lengths if n is not None), default=None)

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        pipelines = self._open().values()
        limit = min((n for p in pipelines if (n := p.encoder.max_positions) is not None), default=None)
        if limit is not None and (value is None or (isinstance(value, int) and value > limit)):
            raise InputError(f"max_seq_length can be at most {limit}, the positions of this model; got {value}.")
        for pipeline in pipelines:
            pipeline.tokenizer.max_seq_length = value

    def restore_lengths(self, lengths: Mapping[str, int | None]) -> None:
        """Set max_seq_length route by route, as unpickling needs it: routes may differ, and be None."""
        for name, pipeline in self._open().items():
            pipeline.tokenizer.max_seq_length = lengths[name]

    @property
    def device(self) -> str:
        """Where the graph really runs: "cpu", "cuda:0"."""
        return next((str(p.session.device) for p in self._open().values() if p.session is not None), "cpu")

    @property
    def precision(self) -> str:
        """The variant that runs: "fp32", "fp16" or "int8"."""
        return self._options.precision

    @property
    def truncated(self) -> int:
        """Texts that this encoder has cut at max_seq_length so far."""
        return self._truncated

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides the vectors of a plain `encode(texts)` call."""
        return self.fingerprint_of()

    def fingerprint_of(self) -> str:
        """sha256 of everything that decides the vectors of a call."""
        raise NotImplementedError

    def close(self) -> None:
        """Free the graph's memory. Encoding afterwards raises."""
        self._pipelines = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        lengths = {name: pipeline.tokenizer.max_seq_length for name, pipeline in self._open().items()}
        return self._options.reopen, (self._options, self._state(), lengths)

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        """The settings that a pickle has to carry: names are those of `load`'s arguments."""
        return {
            "prompts": self.prompts,
            "default_prompt_name": self.default_prompt_name,
            "similarity_fn_name": self.similarity_fn_name,
        }

    def _query_prompt(self, prompt: str | None, prompt_name: str | None) -> str | None:
        """The prompt's name of `encode_query`, as in sentence-transformers: "query", where there is one."""
        if prompt is None and prompt_name is None and "query" in self.prompts:
            return "query"
        return prompt_name

    def _document_prompt(self, prompt: str | None, prompt_name: str | None) -> str | None:
        """The prompt's name of `encode_document`: the first of document, passage, corpus."""
        if prompt is None and prompt_name is None:
            return next((n for n in ("document", "passage", "corpus") if n in self.prompts), None)
        return prompt_name

    def _open(self) -> Mapping[str, Pipeline]:
        if self._pipelines is None:
            raise InputError(f"this encoder is closed. Load it again: trivec.load({self._options.name!r})")
        return self._pipelines

    def _any(self) -> Pipeline:
        return next(iter(self._open().values()))

    def _route(self, task: str | None) -> str:
        routes = self._open()
        if list(routes) == ["default"]:  # a model without a Router reads every task alike
            return "default"
        if self._options.task is not None and len(routes) == 1 and task in (None, self._options.task):
            return next(iter(routes))
        route = self.manifest.default_route if task is None else task
        if route is None or route not in routes:
            raise InputError(f"task {task!r} is no route of this model. Expected one of {sorted(routes)}.")
        return route

    def _prompt(self, prompt: str | None, prompt_name: str | None) -> str:
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

    def _check_run(self, device: object, batch_size: int) -> None:
        if device is not None and device != [] and str(device) not in (self.device, self.device.partition(":")[0]):
            raise InputError(
                f"this encoder runs on {self.device}, not {str(device)!r}. "
                f"Type: trivec.load(..., device={str(device)!r})"
            )
        if not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise InputError(f"batch_size must be a positive integer, got {batch_size!r}.")

    def _reader(
        self, task: str | None = None, prompt: str | None = None, prompt_name: str | None = None
    ) -> Callable[[list[str]], Any]:
        """What tokenizes the texts of a call with these options; `encode` takes what it gives for its inputs."""
        route, text = self._route(task), self._prompt(prompt, prompt_name)
        return lambda texts: self._ready(texts, None, route, text)[0]

    def _ready(self, inputs: object, sentences: object, route: str, prompt: str) -> tuple[Ready, bool]:
        """The texts of a call, checked and tokenized, if that is not done yet; and whether one text came alone."""
        if isinstance(inputs, Ready):
            return inputs, False
        texts, single = as_texts(inputs, sentences)
        different, row_of = distinct(texts)
        tokenizer = self._open()[route].tokenizer
        try:
            return Ready(texts, tokenizer(different, prompt), row_of), single
        except InputError:
            if row_of is not None:
                tokenizer(texts, prompt)  # fails as well, and names the index that the caller knows
            raise

    def _count_truncated(self, ready: Ready, on_overflow: str) -> None:
        if on_overflow not in ("truncate", "error"):
            raise InputError(f"on_overflow {on_overflow!r} is not one of 'truncate', 'error'.")
        truncated = ready.spread(ready.tokens.truncated)  # (N,)
        count = int(truncated.sum())
        if not count:
            return
        if on_overflow == "error":
            first = int(np.flatnonzero(truncated)[0])
            raise TruncationError(
                f"{count} of {len(truncated)} texts are longer than {self.max_seq_length} tokens, the first at "
                f"index {first}. Shorten them, raise max_seq_length, or pass on_overflow='truncate'."
            )
        self._add_truncated(count)

    def _add_truncated(self, count: int) -> None:
        with self._lock:
            self._truncated += count

    def _checked_similarity(self) -> str:
        if self.similarity_fn_name not in SIMILARITIES:
            raise InputError(f"similarity_fn_name {self.similarity_fn_name!r} is not one of {', '.join(SIMILARITIES)}.")
        return self.similarity_fn_name
