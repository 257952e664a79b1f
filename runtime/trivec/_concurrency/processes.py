"""The processes of a pool, and the threads that hand them chunks of texts."""

import contextlib
import multiprocessing
import pickle
import queue
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from trivec._concurrency.placement import Place
from trivec._concurrency.worker import Reply, serve
from trivec._errors import InputError, TrivecError, WorkerError
from trivec._system.forks import afresh_in_children

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess


_PATIENCE = 10.0  # seconds for a process or thread that was told to end
RESTART = "Start another pool: encoder.start_multi_process_pool(...)"
_GUARD = (
    'Its own message is above, on stderr. Where that speaks of the "bootstrapping phase", the script starts the pool '
    'while it is imported, which each worker does: put that part under  if __name__ == "__main__":  . Code that '
    "comes from stdin cannot be imported at all: put it into a file."
)


@dataclass(frozen=True)
class Task:
    """One chunk, and who waits for it."""

    method: str
    texts: Sequence[str]
    options: Mapping[str, Any]
    start: int
    future: "Future[Reply]" = field(default_factory=Future)


@dataclass(frozen=True)
class Worker:
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
        return WorkerError(f"{self} {how} while it {doing}. {why} The pool is closed. {RESTART}")

    def end(self) -> None:
        """Make it end, and see it end."""
        self.process.terminate()
        self.process.join(_PATIENCE)
        if self.process.is_alive():  # stopped, or with a SIGTERM handler of its own
            self.process.kill()
            self.process.join(_PATIENCE)


_LOADING = "opened the model"


class Processes:
    """The processes of a pool, and a thread for each that hands it one chunk at a time.

    Each worker has a pipe of its own: with a queue that all share, one that is killed could keep its lock.
    A forked child starts processes of its own at its first need.
    """

    def __init__(self, recipes: Sequence[tuple[Place, object]]) -> None:
        """Start nothing yet.

        Args:
            recipes: where each process is to run, and what it is to open.
        """
        self._recipes = recipes
        self._ended: WorkerError | None = None
        self.workers: list[Worker] = []
        self.start_afresh()
        afresh_in_children(self)

    def start_afresh(self) -> None:
        """In a forked child: there are no processes yet, and those of the parent are let alone."""
        for worker in self.workers:
            # Python would end them, and wait for them, when the child ends.
            getattr(multiprocessing.process, "_children", set[object]()).discard(worker.process)
            worker.pipe.close()
        self.workers = []
        self._threads: list[threading.Thread] = []
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # a finalizer may run in a thread that holds it

    def start(self) -> None:
        """Start them, unless they run or have ended, and wait until each has opened the model.

        Raises:
            InputError: this is a daemonic process.
            WorkerError, TrivecError: one could not open the model. None is left then.
        """
        with self._lock:
            if self.workers or self._ended is not None:
                return
            if multiprocessing.current_process().daemon:
                raise InputError(
                    "this is a daemonic process, such as a worker of another pool, and Python lets those start no "
                    "processes: start the pool in their parent, or encode without one."
                )
            try:
                for place, recipe in self._recipes:
                    self._start(place, recipe)
                self._wait_until_open()
            except BaseException:  # Ctrl-C too
                self.close()
                raise

    def _start(self, place: Place, recipe: object) -> None:
        """Start a process, and tell it what to open."""
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that onnxruntime's threads hold
        ours, theirs = context.Pipe()
        index = len(self.workers)
        process = context.Process(target=serve, args=(theirs, place.threads), daemon=True, name=f"trivec-{index}")
        with theirs, place.inherited():
            process.start()
        self.workers.append(Worker(index, str(place.device), process, ours))
        with contextlib.suppress(OSError):  # if it is gone already, `_wait_until_open` says so
            ours.send(recipe)

    def _wait_until_open(self) -> None:
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
                    raise placed(reply.error, f"{worker} could not open the model")
                waiting.remove(worker)
        for worker in self.workers:
            thread = threading.Thread(target=self._feed, args=(worker,), daemon=True, name=worker.process.name)
            self._threads.append(thread)
            thread.start()

    def submit(self, task: Task) -> None:
        """Put a chunk behind those that wait."""
        with self._lock:
            if self._ended is not None:
                raise WorkerError(str(self._ended))
            self._tasks.put(task)

    def close(self) -> None:
        """End everything; the second time nothing happens."""
        self._stop(WorkerError(f"this pool of processes is closed. {RESTART}"))
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

    def _feed(self, worker: Worker) -> None:
        """One worker's thread."""
        while self._serve_next(worker):
            pass  # a call of its own for each chunk: nothing of the last one stays in memory meanwhile

    def _serve_next(self, worker: Worker) -> bool:
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
                reason = worker.death(doing) if died else WorkerError(f"{worker} {doing}: {error!r}. {RESTART}")
                self._stop(reason)
            task.future.set_exception(self._ended or error)
            return False
        task.future.set_result(reply)
        return True


def placed(error: Exception, where: str) -> Exception:
    """An error of a worker, saying where it was; of its own class."""
    if isinstance(error, TrivecError):
        return type(error)(f"{where}: {error}")
    error.add_note(where)
    return error
