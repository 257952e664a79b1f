"""Engines against each other on the same texts: loaded together, one active at a time, round after round."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from benchmarks.harness import ceiling
from benchmarks.harness.ceiling import Ceiling
from benchmarks.harness.scifact import cosines
from benchmarks.harness.stats import Shape, operations
from benchmarks.harness.venvs import Failed
from benchmarks.harness.worker import Contender, Process, cold_start, encode, latency
from tokenizers import Tokenizer

Arrays = dict[str, npt.NDArray[Any]]
OURS = ("trivec fp32", "trivec int8")
EVERY = (*OURS, "trivec bf16, OpenVINO", "trivec int8, OpenVINO")
"""OURS is what tables have columns for."""
SKIP = 5  # calls of a latency block that do not count
CALLS = 20  # calls that do


class TextSet(NamedTuple):
    """Texts that are timed together."""

    name: str
    file: Path
    warm: Path
    """A part of them, to be encoded before anything counts."""
    size: int
    tokens: int
    """With special tokens, cut at the limit."""
    operations: float


def text_set(name: str, texts: list[str], tokenizer: Path, limit: int, shape: Shape, folder: Path) -> TextSet:
    """Write the texts, and count their tokens and the model's work on them."""
    folder.mkdir(parents=True, exist_ok=True)
    file, warm = folder / f"{name}.json", folder / f"{name}-warm.json"
    file.write_text(json.dumps(texts), encoding="utf-8")
    warm.write_text(json.dumps(texts[:: max(1, len(texts) // 32)]), encoding="utf-8")
    lengths = token_lengths(texts, tokenizer, limit)
    return TextSet(name, file, warm, len(texts), int(lengths.sum()), operations(lengths, shape))


def token_lengths(texts: Sequence[str], tokenizer: Path, limit: int) -> npt.NDArray[np.int64]:
    """(N,) tokens of each text with special tokens, cut at the limit."""
    counter = Tokenizer.from_file(str(tokenizer))
    counter.no_padding()
    counter.enable_truncation(limit)
    return np.array([len(e.ids) for e in counter.encode_batch(list(texts))], dtype=np.int64)


@dataclass
class Field:
    """Where engines live, and what became of those that could not run."""

    pythons: Callable[[str], Path]
    """The Python of an environment; raises Failed."""
    work: Path
    threads: int
    section: str = ""
    """What is being measured."""
    failures: dict[tuple[str, str], Failed] = field(default_factory=dict)
    """By section and contender."""
    raw: list[dict[str, Any]] = field(default_factory=list)
    """One record a measurement."""
    started: float = field(default_factory=time.perf_counter)

    def say(self, what: str) -> None:
        """A line of progress."""
        print(f"{time.perf_counter() - self.started:6.0f} s  {what}", file=sys.stderr, flush=True)

    def fail(self, contender: Contender, error: Failed) -> None:
        """Note an engine that cannot go on."""
        self.failures[self.section, contender.name] = error
        self.say(f"{contender.name} failed: {error.said}")

    def failed(self, contender: Contender) -> Failed | None:
        """Why an engine could not run in this section; None where it could."""
        return self.failures.get((self.section, contender.name))

    def process(self, contender: Contender) -> Process:
        """A contender's process, loaded."""
        log = self.work / "logs" / f"{contender.name.replace(' ', '-')}.log"
        process = Process(contender, self.pythons(contender.venv), self.threads, log)
        try:
            seconds = process.load().seconds
        except Failed:
            process.close()
            raise
        self.say(f"{contender.name} loaded in {seconds:.1f} s")
        return process

    def cold_starts(self, contenders: Sequence[Contender], runs: int, **said: str) -> dict[str, list[float]]:
        """Seconds of fresh processes to their first vector, by contender, in turn; without those that fail.

        Args:
            contenders: in the order of their turns.
            runs: that count; one before them fills the file cache.
            said: what the records say besides.
        """
        seconds: dict[str, list[float]] = {}
        for run in range(runs + 1):
            for contender in contenders:
                if self.failed(contender):
                    continue
                try:
                    found = cold_start(contender, self.pythons(contender.venv), self.threads)
                except Failed as error:
                    self.fail(contender, error)
                    seconds.pop(contender.name, None)
                    continue
                if run:
                    seconds.setdefault(contender.name, []).append(found)
                    self.raw.append({"measured": "cold start", **said, "engine": contender.name, "seconds": found})
            self.say(f"cold start, round {run}")
        return seconds


@dataclass
class Outcome:
    """What a set of texts took."""

    texts: TextSet
    seconds: dict[str, list[float]]
    """By contender, in the order of the rounds; a contender that failed is missing."""
    batches: dict[str, int]
    ceiling: Ceiling
    products: list[dict[str, float]]
    """Operations a second of every product, a round each."""
    tried: dict[str, dict[int, float]]
    """Seconds of each batch size, of those that had several to choose from."""
    cpu: dict[str, list[float]] = field(default_factory=dict)
    """As `seconds`, of all threads together."""

    def shares(self, contender: Contender) -> list[float]:
        """Percent of the ceiling of its round, of each round."""
        ceilings = self.ceiling.of(contender.precision)
        rates = [self.texts.operations / seconds for seconds in self.seconds[contender.name]]
        return [100 * rate / top for rate, top in zip(rates, ceilings, strict=True)]


class Contest:
    """Contenders, all loaded."""

    def __init__(
        self,
        place: Field,
        contenders: Sequence[Contender],
        products: Path | None,
        seconds: float,
        device: Mapping[str, str] | None = None,
    ) -> None:
        """Name the contenders.

        Args:
            place: where engines live.
            contenders: in the order of their turns.
            products: the folder of the ceiling's graphs; None where there is none to measure.
            seconds: of each product.
            device: the "provider" and "device" of the products; None: the CPU's.
        """
        self.place, self.contenders = place, list(contenders)
        self._open = ExitStack()
        self._processes: dict[str, Process] = {}
        self._batches: dict[str, int] = {}
        options = {"folder": str(products), "threads": place.threads, "seconds": seconds, **(device or {})}
        self._top = Contender("ceiling", "ceiling", "trivec", options) if products else None

    def __enter__(self) -> "Contest":
        """Load everybody."""
        for contender in [*self.contenders, *([self._top] if self._top else [])]:
            if self.place.failed(contender):  # its model could not be made
                continue
            try:
                self._processes[contender.name] = self._open.enter_context(self.place.process(contender))
            except Failed as error:
                self.place.fail(contender, error)
        return self

    def __exit__(self, *_: object) -> None:
        """End everybody."""
        self._open.close()

    @property
    def running(self) -> list[Contender]:
        """Those that have not failed."""
        return [c for c in self.contenders if c.name in self._processes]

    def throughput(self, texts: TextSet, rounds: int) -> Outcome:
        """Warm up, choose batch sizes, and encode the texts in turn, so many rounds."""
        tried = {c.name: found for c in self.running if (found := self._choose(c, texts))}
        seconds: dict[str, list[float]] = {c.name: [] for c in self.running}
        cpu: dict[str, list[float]] = {c.name: [] for c in self.running}
        products = []
        for number in range(rounds):
            products.append(self._products(texts))
            for contender in self.running:
                save, batch = self.saved(contender, texts) if number == 0 else None, self._batches[contender.name]
                answer = self._try(contender, encode(texts.file, batch, save))
                if answer:
                    took = {"seconds": float(answer["seconds"]), "cpu": float(answer["cpu"])}
                    seconds[contender.name].append(took["seconds"])
                    cpu[contender.name].append(took["cpu"])
                    self._record("throughput", contender, texts=texts.name, round=number + 1, **took)
            row = ", ".join(f"{n} {s[-1]:.2f}" for n, s in seconds.items() if len(s) > number)
            self.place.say(f"{texts.name}, round {number + 1}: {row}")
        whole = {name: found for name, found in seconds.items() if len(found) == rounds}
        used = {name: cpu[name] for name in whole}
        return Outcome(texts, whole, dict(self._batches), ceiling.best(products), products, tried, used)

    def latency(
        self, texts: TextSet, blocks: int, calls: int = CALLS, skip: int = SKIP
    ) -> dict[str, list[list[float]]]:
        """Seconds of single calls: by contender, blocks of so many each, in turn, after some that do not count."""
        found: dict[str, list[list[float]]] = {c.name: [] for c in self.running}
        for block in range(blocks):
            for contender in self.running:
                answer = self._try(contender, latency(texts.file, calls, first=block * calls, skip=skip))
                if answer:
                    found[contender.name].append(answer["seconds"])
                    self._record("latency", contender, texts=texts.name, block=block + 1, **answer)
        self.place.say(f"{texts.name}: {blocks} blocks of {calls} calls")
        return {name: values for name, values in found.items() if len(values) == blocks}

    def peaks(self) -> dict[str, list[float]]:
        """Bytes that each process has held at most so far."""
        found = {c.name: self._try(c, {"do": "peak"}) for c in self.running}
        return {name: [float(answer["bytes"])] for name, answer in found.items() if answer}

    def saved(self, contender: Contender, texts: TextSet) -> Path:
        """Where the contender's arrays of a set are."""
        folder = self.place.work / "vectors"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{texts.name}-{contender.name.replace(' ', '-')}.npz"

    def _choose(self, contender: Contender, texts: TextSet) -> dict[int, float]:
        """Settle the batch size by trying, after a part of the texts that warms up; seconds of each, if several.

        Everybody has met every length before a round counts: an engine may compile for each.
        """
        self._try(contender, encode(texts.warm, contender.batches[0]))
        tried = {}
        for batch in contender.batches:
            found = self._try(contender, encode(texts.file, batch))
            if found and len(contender.batches) > 1:
                tried[batch] = float(found["seconds"])
                self._record("batch size", contender, texts=texts.name, batch=batch, seconds=found["seconds"])
        self._batches[contender.name] = min(tried, key=lambda b: tried[b]) if tried else contender.batches[0]
        return tried

    def _products(self, texts: TextSet) -> dict[str, float]:
        """Operations a second of each matrix product, now."""
        if self._top is None or self._top.name not in self._processes:
            return {}
        found: dict[str, float] = self._processes[self._top.name].ask(encode(None))["found"]
        self._record("ceiling", self._top, texts=texts.name, **found)
        return found

    def _try(self, contender: Contender, command: dict[str, Any]) -> dict[str, Any] | None:
        """What a contender answers; None, and no further turn, where it fails."""
        process = self._processes.get(contender.name)
        if process is None:
            return None
        try:
            return process.ask(command)
        except Failed as error:
            self.place.fail(contender, error)
            self._processes.pop(contender.name).close()
            return None

    def _record(self, kind: str, contender: Contender, **values: Any) -> None:  # noqa: ANN401 - JSON
        self.place.raw.append({"measured": kind, "engine": contender.name, **values})


def agreement(reference: Path, other: Path) -> dict[str, tuple[float, float]]:
    """Cosines of the rows of saved arrays to the reference's: (mean, least) by array, of those that both have.

    A pair of rows of zeros is left out: a text without terms in both.
    """
    with np.load(reference) as a, np.load(other) as b:
        found = {}
        for name in sorted(set(a.files) & set(b.files)):
            if a[name].shape != b[name].shape:
                raise Failed(f"compare {name}", f"shapes {b[name].shape} and {a[name].shape} are not the same")
            kept = (a[name] != 0).any(1) | (b[name] != 0).any(1)  # (N,)
            values = cosines(a[name][kept], b[name][kept])
            found[name] = (float(values.mean()), float(values.min()))
        return found
