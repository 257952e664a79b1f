"""An engine in a process of its own, asked and answered in JSON lines (benchmarks/_engines.py)."""

import json
import os
import select
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks._venvs import ROOT, Failed

SCRIPT = Path(__file__).with_name("_engines.py")
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
        return f"{self.venv}/bin/python -P benchmarks/_engines.py cold {self.engine} '{json.dumps(self.options)}'"


def environment(threads: int) -> dict[str, str]:
    """The variables of every engine's process: threads, no network, and trivec from this checkout."""
    found = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSTARTUP")}
    found |= dict.fromkeys(_THREAD_VARIABLES, str(threads))
    found |= {"PYTHONPATH": str(ROOT / "runtime"), "HF_HUB_OFFLINE": "1"}
    return found | {"PYTHONDONTWRITEBYTECODE": ""}  # a cold start is one of code that has been compiled before


def encode(texts: Path | None, batch: int = 0, save: Path | None = None) -> dict[str, Any]:
    """The command to encode a file of texts; its answer has "seconds" and "peak"."""
    return {"do": "encode", "texts": str(texts or ""), "batch": batch, "save": str(save) if save else None}


class Process:
    """A contender's process; a context manager."""

    def __init__(self, contender: Contender, python: Path, threads: int, log: Path) -> None:
        """Start the process; the engine is not loaded yet. What it prints goes to the log."""
        self.contender, self._log = contender, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as stderr:
            self._process = subprocess.Popen(
                [str(python), "-P", str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment(threads),
            )

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def load(self) -> float:
        """Load the engine; seconds."""
        found = self.ask({"do": "load", "engine": self.contender.engine, "options": self.contender.options})
        return float(found["seconds"])

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

    def _last_words(self) -> str:
        status = self._process.wait(timeout=30)
        lines = [line for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return f"status {status}: {lines[-1].strip() if lines else 'nothing was said'}"[:400]


def cold_start(contender: Contender, python: Path, threads: int) -> float:
    """Seconds from the start of a fresh process's script to its first vector."""
    command = [str(python), "-P", str(SCRIPT), "cold", contender.engine, json.dumps(contender.options)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(threads), check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"status {done.returncode}"]
        raise Failed(contender.command, lines[-1])
    return float(json.loads(done.stdout)["seconds"])
