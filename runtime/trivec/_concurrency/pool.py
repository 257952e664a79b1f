"""Several processes, each with the encoder opened again: on CUDA devices, or on core sets of their own."""

import copy
import logging
import os
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np

from trivec._concurrency.placement import places_of
from trivec._concurrency.processes import RESTART, Processes, Task, placed
from trivec._concurrency.worker import Reopened
from trivec._engine.devices import device_of
from trivec._errors import InputError, WorkerError

logger = logging.getLogger("trivec")
_LARGEST_CHUNK = 5000  # texts, as in sentence-transformers
_CHUNKS_PER_WORKER = 10  # as there: a worker that is done early takes over what is left
_CHUNKS_AHEAD = 2  # chunks a worker: one that runs and one that waits for it


class Part(NamedTuple):
    """What a worker has made of one chunk of texts."""

    start: int
    """How many texts came before it."""
    size: int
    """Texts in it."""
    truncated: int
    """Texts of it that were cut at max_seq_length."""
    value: Any
    """What the encoder's method returned."""


class WorkerPool:
    """Processes that encode side by side, with results in order; safe to use from many threads.

        with encoder.start_multi_process_pool(["cpu", "cpu"]) as pool:
            vectors = encoder.encode(texts, pool=pool)

    A worker that dies ends the pool: whoever waits for results gets a WorkerError at once. Workers end with this
    process, however it ends. In a forked child the pool starts workers of the child's own when it is first used.
    """

    def __init__(self, encoder: Reopened, target_devices: Sequence[object] | None = None) -> None:
        """Start the processes, and wait until each has opened the encoder.

        Args:
            encoder: what they open again, from its folder or commit, with its settings as they are now.
            target_devices: a process for each: "cpu", "cuda" or "cuda:N". The "cpu" ones share out the cores that this
                process may use. None: every CUDA device where the encoder runs on CUDA, else up to four times "cpu".

        Raises:
            InputError: target_devices is no list of devices, or this is a daemonic process.
            WorkerError: a worker died while it started; what else stops one has the class it has in `load`.
        """
        build, (options, *settings) = encoder.__reduce__()
        self._decisive = _decisive(options, *settings)
        fixed = None if options.providers is None else device_of(options.providers)
        places = places_of(encoder.device, target_devices, fixed=fixed)
        logger.info("Starting a pool of processes on %s", ", ".join(str(place.device) for place in places))
        recipes = []
        for place in places:
            device = options.device if fixed else str(place.device)
            own = replace(options, device=device, threads=place.threads)
            recipes.append((place, (build, (own, *settings))))
        self._processes = processes = Processes(recipes)
        # Not __del__: a finalizer also runs at exit, while modules are whole. It must not know the pool itself.
        self._close = weakref.finalize(self, processes.close)
        processes.start()

    @property
    def devices(self) -> list[str]:
        """Where the workers run: "cpu", "cuda:0"."""
        return [str(worker.device) for worker in self._processes.workers]

    def check(self, encoder: Reopened) -> None:
        """Raise InputError unless the workers have this encoder's model and settings: else vectors would differ."""
        if _decisive(*encoder.__reduce__()[1]) != self._decisive:
            raise InputError(
                "this pool was started from another encoder, or before this one's settings (max_seq_length, prompts, "
                f"truncate_dim, ...) changed; its workers do not know them. {RESTART}"
            )

    def map(
        self,
        method: str,
        texts: Sequence[str],
        options: Mapping[str, Any],
        chunk_size: int | None = None,
        *,
        done: Callable[[Part], object] | None = None,
    ) -> list[Any]:
        """Call a method of the encoder with chunks of the texts, side by side.

        Args:
            method: its name: "encode".
            texts: N texts; a chunk is so many of them that follow each other.
            options: keyword arguments of each call; they are pickled.
            chunk_size: texts in a chunk. None: ten chunks a worker, of at most 5,000 texts.
            done: called with each part, in order, as soon as it and those before it are there.

        Returns:
            The result of each chunk, in order; none for no texts.

        Raises:
            InputError: chunk_size is below 1.
            WorkerError: a worker died; the pool is closed then.
            TrivecError: what the method raised, with the text at which its chunk starts. The pool can be used further.
        """
        self._processes.start()
        if chunk_size is None:
            share = -(-len(texts) // (len(self._processes.workers) * _CHUNKS_PER_WORKER or 1))
            chunk_size = max(1, min(share, _LARGEST_CHUNK))
        if not isinstance(chunk_size, int | np.integer) or chunk_size < 1:
            raise InputError(f"chunk_size must be a positive integer, got {chunk_size!r}.")
        chunks = (texts[start : start + chunk_size] for start in range(0, len(texts), chunk_size))
        values = []
        for part in self._parts(method, chunks, options, max(1, len(texts))):
            values.append(part.value)
            if done is not None:
                done(part)
        return values

    def imap(
        self, method: str, chunks: Iterable[Sequence[str]], options: Mapping[str, Any]
    ) -> Generator[Part, None, None]:
        """`map` for any number of chunks, in bounded memory: at most two chunks a worker are under way at a time.

        Closing the iterator early drops what is under way, and the pool can be used further. What `chunks` itself
        raises comes after the results of the chunks before it.

        Raises:
            WorkerError, TrivecError: in the iterator, as in `map`.
        """
        self._processes.start()
        return self._parts(method, iter(chunks), options, _CHUNKS_AHEAD * max(1, len(self._processes.workers)))

    def _parts(
        self, method: str, chunks: Iterator[Sequence[str]], options: Mapping[str, Any], ahead: int
    ) -> Generator[Part, None, None]:
        waiting: deque[Task] = deque()
        source = _Source(chunks)
        process = os.getpid()
        try:
            while True:
                if process != os.getpid():  # a fork: what the parent waits for, the child's own workers do as well
                    process = os.getpid()
                    self._processes.start()
                    waiting = deque(replace(task, future=Future()) for task in waiting)
                    for task in waiting:
                        self._processes.submit(task)
                while len(waiting) < ahead and (chunk := source.next()) is not None:
                    waiting.append(Task(method, chunk, options, source.start))
                    self._processes.submit(waiting[-1])
                if not waiting:
                    break
                yield _outcome(waiting.popleft())
        except KeyboardInterrupt:
            self.close()
            raise
        finally:
            for task in waiting:
                task.future.cancel()
        if source.failure is not None:
            raise source.failure

    def close(self) -> None:
        """End the workers, whatever they do. Whoever waits for results gets a WorkerError. May be called again."""
        self._processes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        raise InputError("a pool of processes cannot be pickled or copied: start one where it is needed.")

    def __repr__(self) -> str:
        return f"WorkerPool({', '.join(self.devices) or 'closed'})"


@dataclass
class _Source:
    """Chunks of texts from somewhere, and what went wrong there."""

    chunks: Iterator[Sequence[str]]
    start: int = 0
    """Texts before the chunk that was given last."""
    failure: Exception | None = None
    _read: int = 0

    def next(self) -> Sequence[str] | None:
        """A chunk; None at the end and after an error."""
        try:
            chunk = None if self.failure else next(self.chunks, None)
        except Exception as error:  # noqa: BLE001 - raised once the chunks before it are through
            self.failure = error
            return None
        self.start, self._read = self._read, self._read + len(chunk or ())
        return chunk


def _decisive(options: Any, state: Mapping[str, Any], lengths: Mapping[str, int | None]) -> object:  # noqa: ANN401
    """What decides the vectors, of the arguments that open an encoder again; a copy."""
    given = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in ("device", "threads")}
    settings = {**given, **state}  # as `reopen` takes them
    del settings["similarity_fn_name"]
    return copy.deepcopy((settings, lengths))


def _outcome(task: Task) -> Part:
    """A chunk's result, once it is there; its error names the chunk."""
    error = task.future.exception()
    if isinstance(error, WorkerError):  # many may be told of the pool's end, and each raises its own
        raise WorkerError(str(error)) from error
    if error is not None:
        raise error
    reply = task.future.result()
    if reply.error is not None:
        raise placed(reply.error, f"in the chunk that starts at text {task.start}") from reply.error
    return Part(task.start, len(task.texts), reply.truncated, reply.value)
