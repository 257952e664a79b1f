"""One open graph, whatever runs it: texts of one length in, arrays out, several batches at a time."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt

from trivec._engine.devices import CUDA, Device
from trivec._engine.memory import Budget, is_memory_error, within
from trivec._engine.row_feeds import FixedShape, feed, run_fixed
from trivec._errors import ProviderError
from trivec._system.background import Background, Job, is_ending

_BATCHES_AHEAD = 2  # batches that the host prepares or finishes while the device runs
Item = TypeVar("Item")
Result = TypeVar("Result")
Floats = npt.NDArray[np.float32]


class GraphSession(ABC):
    """An open graph: token ids in, float32 arrays out. Any number of threads may run it. Engines are its subclasses."""

    name: ClassVar[str]
    """The engine, for messages."""
    inputs: tuple[str, ...]
    outputs: Mapping[str, int | None]
    """Names, and the last dimension where the graph states it."""

    def __init__(self, device: Device, layout: str, budget: Budget | None, lanes: int, *, bound: bool = False) -> None:
        """Set what every engine has.

        Args:
            device: where it runs.
            layout: what the graph reads: "rows" of equal length, or other feeds ("packed", "padded").
            budget: tokens that a run may hold, shared with other sessions; None: one of its own.
            lanes: see the attribute.
            bound: whether the host prepares batches while the device runs.
        """
        self.device, self.layout = device, layout
        self.lanes = lanes
        """Runs that are worth having side by side, each with one thread, in place of one run with all of them."""
        self.ahead = _BATCHES_AHEAD if bound else 1
        """Batches that are worth having under way: while the device runs one, the host works on another."""
        self.budget = budget or Budget()
        """Tokens that a run may hold, once memory has run out."""
        self._fixed: FixedShape | None = None
        self._lanes = Background(self.lanes, "trivec-lane")
        self._hosts = Background(self.ahead, "trivec-host")

    # ---- what it is --------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def engine(self) -> str:
        """What runs the graph, in words: see `engine_name`."""

    @property
    @abstractmethod
    def arithmetic(self) -> str | None:
        """What enters a fingerprint beside the files: where they are computed otherwise than by onnxruntime."""

    @property
    @abstractmethod
    def providers(self) -> tuple[str, ...]:
        """What of the engine runs the graph, best first."""

    @property
    @abstractmethod
    def shares(self) -> dict[str, int]:
        """Nodes of the graph by what runs them; empty where the engine does not tell."""

    @property
    def tokens(self) -> int | None:
        """Tokens of a text that the graph is fixed to; None: it takes any number."""
        return None if self._fixed is None else self._fixed.tokens

    # ---- several batches ---------------------------------------------------------------------------------------------

    def side_by_side(self, work: Callable[[Self, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`work(session, item)` of each item, in order, as many at a time as there are lanes.

        Threads that share the operators of one run wait for each other at the end of each operator, 60 times a layer;
        runs of one thread each do not. They take a session of their own, opened at the first need, since a session has
        one number of threads for all its runs; it shares what is mapped of the weights, not what is packed.
        At the interpreter's end, where no thread can be had, this session runs one item after the other.
        """
        if is_ending():
            return map(partial(work, self), items)
        return self._lanes.map(partial(work, self._narrowed()), items)

    @abstractmethod
    def _narrowed(self) -> Self:
        """The session whose runs take one thread each."""

    def overlapped(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """`work(item)` of each item, in order; while one is on the device, the next is made ready.

        On the device itself there is one at a time (`run_feeds` has one thread), so its memory is that of one run.
        """
        waiting: deque[Job[Result]] = deque()
        try:
            for item in items:
                waiting.append(self._hosts.submit(work, item))
                if len(waiting) > self.ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for job in waiting:
                job.cancel()

    # ---- runs --------------------------------------------------------------------------------------------------------

    def run(self, ids: npt.NDArray[np.int64], output: str) -> Floats:
        """Run rows of equal length: ids (B, S) to the output (B, S, H) or (B, D), float32."""
        return self.run_all(ids, (output,))[0]

    def run_all(
        self, ids: npt.NDArray[np.int64], outputs: Sequence[str], second: npt.NDArray[np.int64] | None = None
    ) -> list[Floats]:
        """Run rows of equal length (B, S), to several outputs; what only other outputs need is not computed.

        `second` (B,) says where a row's second part starts, for a graph that reads token types, or what is seen.

        Where memory runs out, the rows run in two, and this session's runs are smaller from then on.

        Raises:
            ProviderError: the engine cannot run them, or not even half of them.
        """
        if len(ids) == 1:  # one text cannot be cut
            try:
                if self._fixed is None:
                    return self.run_feeds({name: feed(name, ids, second) for name in self.inputs}, outputs)
                return self._run_rows(ids, outputs, second)
            except Exception as error:
                raise self.run_error(error, 1, ids.shape[1]) from error

        def run(rows: slice) -> list[Floats]:
            return self._run_rows(ids[rows], outputs, None if second is None else second[rows])

        def failure(error: Exception, rows: slice) -> ProviderError:
            return self.run_error(error, rows.stop - rows.start, ids.shape[1])

        return within(self.budget, [ids.shape[1]] * len(ids), run, failure)

    def _run_rows(
        self, ids: npt.NDArray[np.int64], outputs: Sequence[str], second: npt.NDArray[np.int64] | None
    ) -> list[Floats]:
        if self._fixed is None:
            return self.run_feeds({name: feed(name, ids, second) for name in self.inputs}, outputs)
        return run_fixed(lambda feeds: self.run_feeds(feeds, outputs), self.inputs, ids, self._fixed, second)

    @abstractmethod
    def run_feeds(self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]) -> list[Floats]:
        """Run a graph of any layout once, in float32 out; the engine's errors come as they are (see `run_error`).

        Args:
            feeds: every input of the graph, by name.
            outputs: names; what only other outputs need is not computed.
        """

    def run_error(self, error: Exception, texts: int, tokens: int) -> ProviderError:
        """What to raise where a run of so many texts, the longest of so many tokens, failed."""
        if isinstance(error, ProviderError):  # it says what to do already
            return ProviderError(str(error))
        device = self.device
        place = "" if device.kind == "cpu" else f" on {device}"
        reason = " ".join(str(error).split()).rstrip(".")
        failed = f"{self.name} cannot run {texts} texts of {tokens} tokens{place}: {reason}."
        if not is_memory_error(error):
            return ProviderError(f"{failed} Where the model has fewer positions, pass a smaller max_seq_length.")
        ways = ["pass a smaller batch_size to encode"] if texts > 1 else []
        ways.append(f"set encoder.max_seq_length below {tokens}")
        if device.kind == "cuda":
            ways.append(
                "free what other processes hold (nvidia-smi shows them), or raise gpu_mem_limit where you gave one: "
                f'load(..., providers=[("{CUDA}", {{"gpu_mem_limit": BYTES}})])'
            )
        return ProviderError(f"{failed} Memory ran out, and these are as few texts as are tried. {'; or '.join(ways)}.")
