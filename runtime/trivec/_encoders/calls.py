"""One call of an encoder: its options, checked once, its texts, tokenized, and what its numbers must be."""

import contextvars
import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, ParamSpec, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from trivec._errors import NonFiniteError
from trivec._pooling.heads import Wanted
from trivec._system.background import is_ending
from trivec._tokens.batch import Tokens
from trivec._vectors.arrays import Rows

if TYPE_CHECKING:
    from trivec._concurrency.pool import WorkerPool

TOKENS_PER_ROW = 32  # all runs under way hold up to batch_size * 32 tokens: 1,024 at the default batch_size of 32
Overflow = Literal["truncate", "error"]
Side = Literal["query", "document"]
P = ParamSpec("P")
R = TypeVar("R")
Encode = TypeVar("Encode", bound=Callable[..., Any])


class Call(NamedTuple):
    """The options of one call, checked. Goes to worker processes as it is."""

    route: str
    prompt: str
    wanted: Wanted
    batch_size: int
    on_overflow: Overflow
    show_progress_bar: bool | None = None
    unnormalized: bool = False
    """Whether vectors keep the length that the model gives them."""
    form: Any = None
    """What the encoder itself makes of the vectors afterwards, in the process that called."""
    pool: "WorkerPool | None" = None
    devices: Sequence[str] | None = None
    chunk_size: int | None = None
    max_length: int | None = None
    """Tokens the texts of this call are cut to; None: the model's max_seq_length."""

    @property
    def in_processes(self) -> bool:
        """Whether processes do the work: a pool's, or some that are started on these devices.

        Not at the interpreter's end, where no thread can be started to feed them: this process does it then.
        """
        return (self.pool is not None or self.devices is not None) and not is_ending()

    def in_worker(self) -> "Call":
        """The same call as a worker is to do it."""
        return self._replace(show_progress_bar=False, form=None, pool=None, devices=None, chunk_size=None)


class RowCall(NamedTuple):
    """What rows of token ids must have in common to run together; prompts are in the ids already."""

    route: str
    wanted: Wanted
    prompt_length: int = 0
    """Tokens that pooling leaves out."""


class Ready(NamedTuple):
    """Texts of a call, tokenized: each that differs once."""

    texts: Sequence[Any]
    """The N texts, or pairs of texts, as they came."""
    tokens: Tokens
    """Of the U texts that differ."""
    row_of: Rows | None
    """(N,) which of them each text is; None where all differ."""

    @classmethod
    def of_rows(cls, tokens: Tokens) -> "Ready":
        """Rows of ids that were no texts here."""
        return cls([""] * len(tokens.truncated), tokens, None)

    def spread(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """U values to the N texts."""
        return values if self.row_of is None else values[self.row_of]


class _Encodes(Protocol):
    encode: Callable[..., object]

    def prompt_name_of(self, side: Side) -> str | None: ...


def device_list(device: object) -> Sequence[str] | None:
    """The devices on which a call wants processes: a list that is not empty; None: none."""
    return device if isinstance(device, list | tuple) and len(device) > 0 else None


@functools.cache
def defaults_of(encode: Callable[..., Any]) -> Mapping[str, Any]:
    """The options of an `encode` beside the texts, with their defaults."""
    parameters = inspect.signature(encode).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("self", "inputs", "sentences")}


def known_options(defaults: Mapping[str, Any], options: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Options over their defaults; TypeError for one that is none, as Python itself has it."""
    for name in options:
        if name not in defaults:
            raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")
    return {**defaults, **options}


def for_task(encode: Encode, task: Side) -> Encode:
    """`encode` for one side of a search, under its signature and overloads: its task, and its prompt by default."""
    prompts = {"query": 'the "query" prompt', "document": "the first of document, passage, corpus"}[task]

    @functools.wraps(encode)
    def encode_task(
        self: _Encodes,
        inputs: object = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *more: object,
        **options: object,
    ) -> object:
        options.setdefault("task", task)
        if prompt is None and prompt_name is None:
            prompt_name = self.prompt_name_of(task)
        if more:
            return self.encode(inputs, prompt_name, prompt, *more, **options)
        if inputs is None:
            inputs = options.pop("sentences", None)
        return self.encode(
            inputs=inputs, prompt_name=prompt_name, prompt=prompt, **options
        )  # as whoever wraps it reads

    encode_task.__name__ = f"encode_{task}"
    encode_task.__qualname__ = f"{encode.__qualname__}_{task}"
    encode_task.__doc__ = f'`encode` with task "{task}" and, unless a prompt is given, {prompts}.'
    return cast("Encode", encode_task)


def in_thread(encode: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """`encode` (or `predict`, `rank`) as a coroutine of its signature: it works in a thread, so that a loop goes on.

    At the interpreter's end, where there are no threads, the loop waits.
    """
    name = encode.__name__

    @functools.wraps(encode)
    async def aencode(self: object, *inputs: object, **options: object) -> object:
        import asyncio  # costs 40 ms, and whoever awaits has it

        work = functools.partial(contextvars.copy_context().run, getattr(self, name), *inputs, **options)
        if is_ending():  # not even an executor may be made: closing it, `asyncio.run` would start a thread
            return work()
        try:
            waiting = asyncio.get_running_loop().run_in_executor(None, work)
        except RuntimeError:  # the end has come meanwhile
            return work()
        return await waiting

    aencode.__name__ = f"a{name}"
    aencode.__qualname__ = encode.__qualname__.replace(name, f"a{name}")
    aencode.__doc__ = f"`{name}` in a worker thread, so that an event loop goes on meanwhile."
    return cast("Callable[P, Coroutine[Any, Any, R]]", aencode)


def check_finite(
    finite: npt.NDArray[np.bool_], texts: Sequence[Any], variant: str, made: str = "vectors", item: str = "text"
) -> None:
    """Raise NonFiniteError, naming the first text (or pair) of which what was made (N,) is not finite."""
    if finite.all():
        return
    index = int(np.flatnonzero(~finite)[0])
    other = "the fp32 variant" if variant != "fp32" else "the checkpoint: its weights may hold NaN"
    text = texts[index]
    shown = f"{text[:60]!r}" if isinstance(text, str) else " and ".join(f"{part[:60]!r}" for part in text)
    raise NonFiniteError(
        f"{int((~finite).sum())} of {len(texts)} {made} are NaN or infinite, the first that of the {item} at index "
        f"{index}: {shown}. Check {other}."
    )
