"""In place of an encoder: what does what its texts say, for pools of processes."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trivec import NonFiniteError
from trivec._concurrency.pool import WorkerPool
from trivec._encoders.load_options import LoadOptions

TASKS = Path("/proc/self/task")


class UnportableError(Exception):
    """Cannot be unpickled."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def hold(path: Path) -> None:
    """Leave word of having come here, and stay until a file "open" lies beside it."""
    path.touch()
    assert soon((path.parent / "open").exists, 30)


def act(text: str) -> object:
    """What an odd encoder makes of a text."""
    verb, _, rest = text.partition(" ")
    actions: dict[str, Callable[[], object]] = {
        "exit": lambda: os._exit(int(rest)),
        "sleep": lambda: time.sleep(float(rest)),
        "hold": lambda: hold(Path(rest)),
        "pid": os.getpid,
        "pool": odd_pool,
        "cores": lambda: [os.sched_getaffinity(int(task.name)) for task in TASKS.iterdir()],
        "variable": lambda: os.environ.get(rest),
    }
    if verb in actions:
        return actions[verb]()
    if verb == "unportable":
        raise UnportableError("this", "that")
    if verb == "raise":
        raise {"NonFiniteError": NonFiniteError, "KeyError": KeyError}[rest](f"because of {text!r}")
    return text.upper()


class Odd:
    """In place of an encoder: does what its texts say."""

    device = "cpu"
    truncated = 0

    def __init__(self, name: str = "odd", threads: int | None = None) -> None:
        self.name, self.threads = name, threads

    def __reduce__(self) -> tuple[Any, ...]:
        return build, (LoadOptions(self.name), {"similarity_fn_name": "dot"}, {"default": 16})

    def encode(self, texts: Sequence[str]) -> list[object]:
        self.truncated += sum(text == "long" for text in texts)
        return [self.threads if text == "threads" else act(text) for text in texts]


def build(options: LoadOptions, state: dict[str, Any], lengths: dict[str, int]) -> Odd:
    """As `trivec._loading.open_model.reopen`."""
    act(options.name)
    return Odd(options.name, options.threads)


def odd_pool(name: str = "odd", count: int = 2) -> WorkerPool:
    encoder: Any = Odd(name)
    return WorkerPool(encoder, ["cpu"] * count)


def gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked for its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def soon(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether it comes true."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()
