"""One engine in a process of its own, asked and answered in lines of JSON (benchmarks/harness/worker.py asks).

    python -m benchmarks.harness.serve                      commands on stdin, answers on stdout
    python -m benchmarks.harness.serve cold ENGINE OPTIONS  seconds from here to the first vector

Commands, and what their answers have:

    load ENGINE OPTIONS             seconds, and the bytes that are resident then
    encode TEXTS BATCH SAVE         seconds of the wall clock and of all threads, peak and resident bytes
    latency TEXTS FIRST CALLS SKIP PAUSE    seconds of each call, and of all threads from the first to the last
    peak, own                       bytes: most that were resident; those that no file stands behind
    quit

An engine is a name of benchmarks/harness/engines.py, or "module:function" of a function like those. TEXTS and SAVE are
files. An answer has "error" where it failed. Timings are taken here, around the engine's call alone.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.engines import ENGINES, Engine, Options


class Server:
    """The engine of this process, and the texts that it was given last."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._texts: tuple[str, list[str]] = ("", [])

    def answer(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """What a command gives."""
        do = command["do"]
        if do == "load":
            open_engine = find(command["engine"])
            start = time.perf_counter()
            self._engine = open_engine(command["options"])
            return {"seconds": time.perf_counter() - start, "resident": memory("resident")}
        if do in ("peak", "own"):
            return {"bytes": memory(do)}
        if self._engine is None:
            raise RuntimeError(f"{do} before load")
        return self._latency(self._engine, command) if do == "latency" else self._encode(self._engine, command)

    def _encode(self, engine: Engine, command: Mapping[str, Any]) -> dict[str, Any]:
        texts = self._read(command["texts"])
        start, before = time.perf_counter(), time.process_time()
        found = engine.many(texts, command["batch"])
        seconds, cpu = time.perf_counter() - start, time.process_time() - before
        sizes = {
            "peak": memory("peak"),
            "resident": memory("resident"),
        }  # before the copies that comparing engines takes
        if command["save"]:
            importlib.import_module("numpy").savez(command["save"], **engine.arrays(found))
        counted = found if isinstance(found, dict) and not texts else None
        return {"seconds": seconds, "cpu": cpu, **sizes, "found": counted}

    def _latency(self, engine: Engine, command: Mapping[str, Any]) -> dict[str, Any]:
        """Seconds of each call without the first few: other engines' threads may still spin, the caches are theirs."""
        texts = self._read(command["texts"])
        found = []
        before = time.process_time()
        for i in range(command["calls"] + command["skip"]):
            text = texts[(command["first"] + i) % len(texts)]
            start = time.perf_counter()
            engine.one(text)
            found.append(time.perf_counter() - start)
            if command["pause"]:
                time.sleep(command["pause"])
        return {"seconds": found[command["skip"] :], "cpu": time.process_time() - before}

    def _read(self, path: str) -> list[str]:
        if path != self._texts[0]:
            self._texts = (path, json.loads(Path(path).read_text(encoding="utf-8")) if path else [])
        return self._texts[1]


def find(name: str) -> Callable[[Options], Engine]:
    """What opens an engine."""
    module, colon, function = name.partition(":")
    if not colon:
        return ENGINES[name]
    found: Callable[[Options], Engine] = getattr(importlib.import_module(module), function)
    return found


def memory(which: str = "resident") -> int:
    """Bytes of RAM that this process holds, without what is a file's ("own"), or has held at most ("peak").

    VmHWM and not getrusage: the latter starts from the parent's at the time it forked.
    """
    name = {"peak": "VmHWM:", "resident": "VmRSS:", "own": "RssAnon:"}[which]
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name))
    except OSError:  # not Linux
        resource = importlib.import_module("resource")
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def error_of(error: BaseException) -> str:
    """The last line of an error, as a terminal would show it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:400]


def main() -> None:
    """Answer commands until the input ends, or measure one cold start."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to stderr; only answers go to the real stdout
    if sys.argv[1:2] == ["cold"]:
        start = time.perf_counter()
        find(sys.argv[2])(json.loads(sys.argv[3])).one("how long until the first vector?")
        answers.write(json.dumps({"seconds": time.perf_counter() - start}) + "\n")
        answers.close()
        return
    server = Server()
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "quit":
            break
        try:
            found = server.answer(command)
        except Exception as error:  # noqa: BLE001 - whatever an engine raises is a row of the report
            found = {"error": error_of(error)}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
