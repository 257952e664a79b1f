"""An engine's process, from the side that asks (benchmarks/harness/serve.py answers)."""

import json
import os
import select
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from benchmarks.harness.venvs import Failed, checkout

SERVE = ("-P", "-m", "benchmarks.harness.serve")
TIMEOUT = 1800.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass(frozen=True)
class Contender:
    """One engine with one model, as the report calls it."""

    name: str
    engine: str
    venv: str
    options: dict[str, Any]
    batches: tuple[int, ...] = (0,)
    """Batch sizes to try; the fastest is taken. 0: the engine's own."""
    precision: str = field(default="fp32")

    @property
    def command(self) -> str:
        """What a person would type to see the engine fail by itself."""
        python = f"{self.venv}/bin/python" if self.venv else "python"
        return f"PYTHONPATH=runtime:. {python} {' '.join(SERVE)} cold {self.engine} '{json.dumps(self.options)}'"


class Loaded(NamedTuple):
    """What opening an engine took."""

    seconds: float
    resident: int
    """Bytes of the process."""


def environment(threads: int) -> dict[str, str]:
    """The variables of every engine's process: threads, no network, and trivec from this checkout."""
    found = checkout("runtime") | dict.fromkeys(_THREAD_VARIABLES, str(threads)) | {"HF_HUB_OFFLINE": "1"}
    found.pop("PYTHONSTARTUP", None)
    return found | {"PYTHONDONTWRITEBYTECODE": ""}  # a cold start is one of code that has been compiled before


def encode(texts: Path | None, batch: int = 0, save: Path | None = None) -> dict[str, Any]:
    """The command to encode a file of texts; its answer has "seconds", "cpu", "peak" and "resident"."""
    return {"do": "encode", "texts": str(texts or ""), "batch": batch, "save": str(save) if save else None}


def latency(texts: Path, calls: int, *, first: int = 0, skip: int = 0, pause: float = 0.0) -> dict[str, Any]:
    """The command to encode texts of a file one by one, after some that do not count; its answer has "seconds"."""
    return {"do": "latency", "texts": str(texts), "first": first, "calls": calls, "skip": skip, "pause": pause}


class Process:
    """A contender's process; a context manager."""

    def __init__(
        self,
        contender: Contender,
        python: Path,
        threads: int,
        log: Path,
        *,
        pinned: bool = False,
        memory: int | None = None,
    ) -> None:
        """Start the process; the engine is not loaded yet.

        Args:
            contender: what to load.
            python: of its environment.
            threads: that its libraries are told to take.
            log: what it prints goes there.
            pinned: whether it may use no other cores than this process's first `threads`.
            memory: bytes of its own that it may hold, mapped files not counted; None: any number.
        """
        self.contender, self._log = contender, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as stderr:
            self._process = subprocess.Popen(
                [str(python), *SERVE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment(threads),
                preexec_fn=_limits(threads if pinned else None, memory),  # noqa: PLW1509 - None where there are threads
            )

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def load(self) -> Loaded:
        """Load the engine."""
        found = self.ask({"do": "load", "engine": self.contender.engine, "options": self.contender.options})
        return Loaded(**found)

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command, and wait for its answer.

        Raises:
            Failed: the engine raised, died, or took longer than half an hour.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process was started without pipes.")
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self.contender.command, self._last_words()) from None
        if not select.select([self._process.stdout], [], [], TIMEOUT)[0]:
            self._process.kill()
            raise Failed(self.contender.command, f"no answer to {command['do']} in {TIMEOUT:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise Failed(self.contender.command, self._last_words())
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise Failed(self.contender.command, str(found["error"]))
        return found

    def close(self) -> None:
        """End the process, by force where it does not follow."""
        if self._process.poll() is None:
            try:
                self._process.communicate('{"do": "quit"}\n', timeout=30)
            except (subprocess.TimeoutExpired, BrokenPipeError, ValueError):
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # of a command that a dead process has not read
                    pipe.close()

    def _last_words(self) -> str:
        status = self._process.wait(timeout=30)
        lines = [line for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return f"status {status}: {lines[-1].strip() if lines else 'nothing was said'}"[:400]


def _limits(cores: int | None, memory: int | None) -> Callable[[], None] | None:
    """What a process does to itself before it becomes Python; None where nothing limits it."""
    if cores is None and memory is None:
        return None
    import resource  # not on every system

    def limit() -> None:
        if cores is not None:
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))

    return limit


def cold_start(contender: Contender, python: Path, threads: int) -> float:
    """Seconds from the start of a fresh process's script to its first vector."""
    command = [str(python), *SERVE, "cold", contender.engine, json.dumps(contender.options)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(threads), check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"status {done.returncode}"]
        raise Failed(contender.command, lines[-1])
    return float(json.loads(done.stdout)["seconds"])
