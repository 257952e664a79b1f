"""What a process takes of the machine, and what the machine is."""

import platform
from datetime import UTC, datetime
from pathlib import Path

from benchmarks._table import Row, Table


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
    from trivec._threads import available_threads

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
    import json

    text = "\n".join([f"# {title}\n", *(table.markdown() for table in tables)])
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    lines = [json.dumps(record, ensure_ascii=False) for table in tables for record in table.records()]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
