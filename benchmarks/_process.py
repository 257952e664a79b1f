"""What a process takes of the machine, and what the machine is."""

import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks._table import Row, Table

Ask = Callable[[object], dict[str, Any]]
"""Hands a worker a command, as a line of JSON, and returns its answer."""


@contextmanager
def worker(line: Sequence[str], variables: Mapping[str, str], threads: int) -> Iterator[tuple[dict[str, Any], Ask]]:
    """A process on `threads` cores that answers lines of JSON with such lines: what it says first, and what asks it."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    with subprocess.Popen(
        line,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),  # noqa: PLW1509 - no threads here
    ) as running:
        stdin, stdout = running.stdin, running.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the worker was started without pipes.")

        def ask(command: object) -> dict[str, Any]:
            stdin.write(json.dumps(command) + "\n")
            stdin.flush()
            found: dict[str, Any] = json.loads(stdout.readline())
            return found

        yield json.loads(stdout.readline()), ask
        stdin.close()


def resident(peak: bool = False) -> float:
    """MB of RAM that this process has now, or had at most."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def machine(note: str, *, threads: int, command: str) -> Table:
    """CPU, cores, load, date and versions, for the head of a report."""
    import numpy as np
    import onnxruntime
    import tokenizers

    from trivec import __version__
    from trivec._system.threads import available_threads

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
    versions = f"trivec {__version__}, onnxruntime {onnxruntime.__version__}, tokenizers {tokenizers.__version__}"
    rows: list[Row] = [
        {"what": "CPU", "is": cpu},
        {"what": "cores this process may use", "is": available_threads().count},
        {"what": "threads used", "is": threads},
        {"what": "load average at the start", "is": Path("/proc/loadavg").read_text(encoding="ascii").split()[0]},
        {"what": "date", "is": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")},
        {"what": "command", "is": command},
        {"what": "versions", "is": f"Python {platform.python_version()}, {versions}, numpy {np.__version__}"},
    ]
    return Table("run", "The run", note, rows)


def write(tables: list[Table], title: str, folder: Path, name: str) -> None:
    """Print a report, and write it as Markdown and as JSON lines."""
    text = "\n".join([f"# {title}\n", *(table.markdown() for table in tables)])
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    lines = [json.dumps(record, ensure_ascii=False) for table in tables for record in table.records()]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
