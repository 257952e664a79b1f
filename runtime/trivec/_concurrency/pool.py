"""Several processes, each with the encoder opened again: on CUDA devices, or on core sets of their own."""

import contextlib
import copy
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields, replace
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from trivec._concurrency.placement import Place, places_of
from trivec._concurrency.worker import Reopened, Reply, serve
from trivec._encoders.load_options import LoadOptions
from trivec._engine.devices import device_of
from trivec._errors import InputError, TrivecError, WorkerError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

logger = logging.getLogger("trivec")

_LARGEST_CHUNK = 5000  # texts, as in sentence-transformers
_CHUNKS_PER_WORKER = 10  # as there: a worker that is done early takes over what is left
_AHEAD = 2  # chunks a worker: one that runs and one that waits for it
_PATIENCE = 10.0  # seconds for a process or thread that was told to end
_RESTART = "Start another pool: encoder.start_multi_process_pool(...)"
_GUARD = (
    'Its own message is above, on stderr. Where that speaks of the "bootstrapping phase", the script starts the pool '
    'while it is imported, which each worker does: put that part under  if __name__ == "__main__":  . Code that '
    "comes from stdin cannot be imported at all: put it into a file."
)


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
    process, however it ends.
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
        if multiprocessing.current_process().daemon:
            raise InputError(
                "this is a daemonic process, such as a worker of another pool, and Python lets those start no "
                "processes: start the pool in their parent, or encode without one."
            )
        build, (options, *settings) = encoder.__reduce__()
        self._decisive = _decisive(options, *settings)
        self._crew = crew = _Crew()
        # Not __del__: a finalizer also runs at exit, while modules are whole. It must not know the pool itself.
        self._close = weakref.finalize(self, crew.close)
        fixed = None if options.providers is None else device_of(options.providers)
        places = places_of(encoder.device, target_devices, fixed=fixed)
        logger.info("Starting a pool of processes on %s", ", ".join(str(place.device) for place in places))
        try:
            for place in places:
                device = options.device if fixed else str(place.device)
                own = replace(options, device=device, threads=place.threads)
                crew.hire(place, (build, (own, *settings)))
            crew.begin()
        except BaseException:  # Ctrl-C too
            self.close()
            raise

    @property
    def devices(self) -> list[str]:
        """Where the workers run: "cpu", "cuda:0"."""
        return [str(worker.device) for worker in self._crew.workers]

    def check(self, encoder: Reopened) -> None:
        """Raise InputError unless the workers have this encoder's model and settings: else vectors would differ."""
        if _decisive(*encoder.__reduce__()[1]) != self._decisive:
            raise InputError(
                "this pool was started from another encoder, or before this one's settings (max_seq_length, prompts, "
                f"truncate_dim, ...) changed; its workers do not know them. {_RESTART}"
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
        if chunk_size is None:
            share = -(-len(texts) // (len(self._crew.workers) * _CHUNKS_PER_WORKER or 1))
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
        return self._parts(method, iter(chunks), options, _AHEAD * max(1, len(self._crew.workers)))

    def _parts(
        self, method: str, chunks: Iterator[Sequence[str]], options: Mapping[str, Any], ahead: int
    ) -> Generator[Part, None, None]:
        waiting: deque[_Task] = deque()
        source = _Source(chunks)
        try:
            while True:
                while len(waiting) < ahead and (chunk := source.next()) is not None:
                    waiting.append(_Task(method, chunk, options, source.start))
                    self._crew.submit(waiting[-1])
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
        self._crew.close()

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


@dataclass(frozen=True)
class _Task:
    """One chunk, and who waits for it."""

    method: str
    texts: Sequence[str]
    options: Mapping[str, Any]
    start: int
    future: "Future[Reply]" = field(default_factory=Future)


@dataclass(frozen=True)
class _Worker:
    """A process, seen from this one."""

    index: int
    device: str
    process: "SpawnProcess"
    pipe: "Connection[Any, Any]"

    def __str__(self) -> str:
        return f"worker {self.index} ({self.device}, pid {self.process.pid})"

    def receive(self) -> Reply:
        """Its next message.

        Raises:
            EOFError, OSError: it died.
        """
        if self.pipe not in connection.wait([self.pipe, self.process.sentinel]):
            raise EOFError
        reply: Reply = self.pipe.recv()
        return reply

    def death(self, doing: str) -> WorkerError:
        """How it ended, and what to do."""
        self.process.join(_PATIENCE)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            how = f"was killed by {name}"
        else:
            how = f"ended with exit code {code}" if code is not None else "no longer answers"
        if code == -9:  # SIGKILL, which not every system names
            why = (
                "Linux does that where memory runs out (see: dmesg): start fewer workers or pass a smaller batch_size."
            )
        else:
            why = _GUARD if doing == _LOADING else "Its own message, if it had one, is above on stderr."
        return WorkerError(f"{self} {how} while it {doing}. {why} The pool is closed. {_RESTART}")

    def end(self) -> None:
        """Make it end, and see it end."""
        self.process.terminate()
        self.process.join(_PATIENCE)
        if self.process.is_alive():  # stopped, or with a SIGTERM handler of its own
            self.process.kill()
            self.process.join(_PATIENCE)


_LOADING = "opened the model"


class _Crew:
    """The processes of a pool, and a thread for each that hands it one chunk at a time.

    Each worker has a pipe of its own: with a queue that all share, one that is killed could keep its lock.
    """

    def __init__(self) -> None:
        self.workers: list[_Worker] = []
        self._threads: list[threading.Thread] = []
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._ended: WorkerError | None = None
        self._lock = threading.RLock()  # a finalizer may run in a thread that holds it
        self._owner = os.getpid()

    def hire(self, place: Place, recipe: object) -> None:
        """Start a process, and tell it what to open."""
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that onnxruntime's threads hold
        ours, theirs = context.Pipe()
        index = len(self.workers)
        process = context.Process(target=serve, args=(theirs, place.threads), daemon=True, name=f"trivec-{index}")
        with theirs, place.inherited():
            process.start()
        self.workers.append(_Worker(index, str(place.device), process, ours))
        with contextlib.suppress(OSError):  # if it is gone already, `begin` says so
            ours.send(recipe)

    def begin(self) -> None:
        """Wait until every worker has opened the model, then let them work."""
        waiting = list(self.workers)
        while waiting:
            ready = connection.wait([handle for w in waiting for handle in (w.pipe, w.process.sentinel)])
            for worker in [w for w in waiting if w.pipe in ready or w.process.sentinel in ready]:
                try:
                    reply = worker.receive()
                except (EOFError, OSError) as error:
                    raise worker.death(_LOADING) from error
                if reply.error is not None:
                    raise _placed(reply.error, f"{worker} could not open the model")
                waiting.remove(worker)
        for worker in self.workers:
            thread = threading.Thread(target=self._feed, args=(worker,), daemon=True, name=worker.process.name)
            self._threads.append(thread)
            thread.start()

    def submit(self, task: _Task) -> None:
        """Put a chunk behind those that wait."""
        with self._lock:
            if self._ended is not None:
                raise WorkerError(str(self._ended))
            self._tasks.put(task)

    def close(self) -> None:
        """End everything; the second time nothing happens."""
        if os.getpid() != self._owner:  # a fork of the owner, at its exit
            return
        self._stop(WorkerError(f"this pool of processes is closed. {_RESTART}"))
        with self._lock:
            workers, self.workers = self.workers, []
        for worker in workers:
            worker.end()
        for thread in self._threads:
            if thread is not threading.current_thread():  # where a finalizer runs in one of them
                thread.join(_PATIENCE)
        for worker in workers:
            worker.pipe.close()

    def _stop(self, reason: WorkerError) -> None:
        """Kill the workers, and tell everyone who waits."""
        with self._lock:
            self._ended = self._ended or reason
            for worker in self.workers:
                worker.process.terminate()
            with contextlib.suppress(queue.Empty):
                while True:
                    task = self._tasks.get_nowait()
                    if task is not None and task.future.set_running_or_notify_cancel():
                        task.future.set_exception(self._ended)
            for _ in self.workers:
                self._tasks.put(None)

    def _feed(self, worker: _Worker) -> None:
        """One worker's thread."""
        while self._serve_next(worker):
            pass  # a call of its own for each chunk: nothing of the last one stays in memory meanwhile

    def _serve_next(self, worker: _Worker) -> bool:
        """Wait for a chunk and have the worker encode it; False: there will be none."""
        task = self._tasks.get()
        if task is None:
            return False
        if not task.future.set_running_or_notify_cancel():
            return True
        try:
            message = pickle.dumps((task.method, task.texts, task.options))
        except Exception as error:  # noqa: BLE001 - whatever an object raises that cannot be pickled
            task.future.set_exception(error)
            return True
        try:
            worker.pipe.send_bytes(message)
            reply = worker.receive()
        except Exception as error:  # noqa: BLE001 - it died, or its answer was not read to the end: no further one can be
            if self._ended is None:
                doing = f"encoded the chunk that starts at text {task.start}"
                died = isinstance(error, EOFError | OSError)
                reason = worker.death(doing) if died else WorkerError(f"{worker} {doing}: {error!r}. {_RESTART}")
                self._stop(reason)
            task.future.set_exception(self._ended or error)
            return False
        task.future.set_result(reply)
        return True


def _decisive(options: LoadOptions, state: Mapping[str, Any], lengths: Mapping[str, int | None]) -> object:
    """What decides the vectors, of the arguments that open an encoder again; a copy."""
    given = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in ("device", "threads")}
    settings = {**given, **state}  # as `reopen` takes them
    del settings["similarity_fn_name"]
    return copy.deepcopy((settings, lengths))


def _outcome(task: _Task) -> Part:
    """A chunk's result, once it is there; its error names the chunk."""
    error = task.future.exception()
    if isinstance(error, WorkerError):  # many may be told of the pool's end, and each raises its own
        raise WorkerError(str(error)) from error
    if error is not None:
        raise error
    reply = task.future.result()
    if reply.error is not None:
        raise _placed(reply.error, f"in the chunk that starts at text {task.start}") from reply.error
    return Part(task.start, len(task.texts), reply.truncated, reply.value)


def _placed(error: Exception, where: str) -> Exception:
    """An error of a worker, saying where it was; of its own class."""
    if isinstance(error, TrivecError):
        return type(error)(f"{where}: {error}")
    error.add_note(where)
    return error
