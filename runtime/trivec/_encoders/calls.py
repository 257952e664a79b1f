"""One call of an encoder: its options, checked once, its texts, tokenized, and what its numbers must be."""

import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, ParamSpec, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from trivec._errors import NonFiniteError
from trivec._pooling.heads import Wanted
from trivec._tokens.batch import Tokens
from trivec._vectors.arrays import Rows

if TYPE_CHECKING:
    from trivec._concurrency.pool import WorkerPool

TOKENS_PER_ROW = 64  # a run holds up to batch_size * 64 tokens: 2,048 at the default batch_size of 32
Overflow = Literal["truncate", "error"]
Side = Literal["query", "document"]
P = ParamSpec("P")
R = TypeVar("R")


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

    @property
    def in_processes(self) -> bool:
        """Whether processes do the work: a pool's, or some that are started on these devices."""
        return self.pool is not None or self.devices is not None

    def in_worker(self) -> "Call":
        """The same call as a worker is to do it."""
        return self._replace(show_progress_bar=False, form=None, pool=None, devices=None, chunk_size=None)


class Ready(NamedTuple):
    """Texts of a call, tokenized: each that differs once."""

    texts: Sequence[str]
    """The N texts as they came."""
    tokens: Tokens
    """Of the U texts that differ."""
    row_of: Rows | None
    """(N,) which of them each text is; None where all differ."""

    def spread(self, values: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """U values to the N texts."""
        return values if self.row_of is None else values[self.row_of]


class _Encodes(Protocol):
    encode: Callable[..., object]

    def prompt_name_of(self, side: Side) -> str | None: ...


def device_list(device: object) -> Sequence[str] | None:
    """The devices on which a call wants processes: a list that is not empty; None: none."""
    return device if isinstance(device, list | tuple) and len(device) > 0 else None


def for_task(encode: Callable[P, R], task: Side) -> Callable[P, R]:
    """`encode` for one side of a search, under its signature: with its task, and its prompt where none is given."""
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
        return self.encode(inputs, prompt_name, prompt, *more, **options)

    encode_task.__name__ = f"encode_{task}"
    encode_task.__qualname__ = f"{encode.__qualname__}_{task}"
    encode_task.__doc__ = f'`encode` with task "{task}" and, unless a prompt is given, {prompts}.'
    return cast("Callable[P, R]", encode_task)


def in_thread(encode: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """`encode` as a coroutine, with the signature of `encode`: it works in a thread, so that an event loop goes on."""

    @functools.wraps(encode)
    async def aencode(self: _Encodes, *inputs: object, **options: object) -> object:
        import asyncio  # costs 40 ms, and whoever awaits has it

        return await asyncio.to_thread(self.encode, *inputs, **options)

    aencode.__name__ = "aencode"
    aencode.__qualname__ = encode.__qualname__.replace("encode", "aencode")
    aencode.__doc__ = "`encode` in a worker thread, so that an event loop goes on meanwhile."
    return cast("Callable[P, Coroutine[Any, Any, R]]", aencode)


def check_finite(finite: npt.NDArray[np.bool_], texts: Sequence[str], variant: str) -> None:
    """Raise NonFiniteError, naming the first text whose vector (N,) is not finite."""
    if finite.all():
        return
    index = int(np.flatnonzero(~finite)[0])
    other = "the fp32 variant" if variant != "fp32" else "the checkpoint: its weights may hold NaN"
    raise NonFiniteError(
        f"{int((~finite).sum())} of {len(texts)} vectors are NaN or infinite, the first that of the text at index "
        f"{index}: {texts[index][:60]!r}. Check {other}."
    )
