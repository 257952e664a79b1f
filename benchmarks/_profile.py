"""What ran where, from onnxruntime's own profile of a few runs."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._table import Row, Table

from trivec._engine.devices import CPU, HEAVY

_SUFFIX = "_kernel_time"


class Kernel(NamedTuple):
    """All runs of one operator on one provider."""

    op: str
    provider: str
    runs: int
    seconds: float


def kernels(events: Iterable[Mapping[str, Any]]) -> list[Kernel]:
    """Operators with their providers, those that took longest first, from the events of a profile.

    Args:
        events: of the profile's JSON; those of category "Node" whose name ends in "_kernel_time" are a node's run.

    Raises:
        ValueError: no node ran, so the profile says nothing.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_SUFFIX):
            about = event.get("args", {})
            key = str(about.get("op_name", "?")), str(about.get("provider", "?"))
            found.setdefault(key, []).append(float(event.get("dur", 0)) / 1e6)
    if not found:
        raise ValueError("the profile has no node that ran.")
    listed = [Kernel(op, provider, len(taken), sum(taken)) for (op, provider), taken in found.items()]
    return sorted(listed, key=lambda kernel: -kernel.seconds)


def strays(found: Iterable[Kernel]) -> list[str]:
    """Heavy operators that ran on the CPU: matrix products, attention and normalizations; none is as it should be."""
    return [f"{kernel.runs} x {kernel.op}" for kernel in found if kernel.provider == CPU and kernel.op in HEAVY]


def table(key: str, title: str, found: list[Kernel]) -> Table:
    """Every operator, its provider and its share of the time."""
    total = sum(kernel.seconds for kernel in found) or 1.0
    rows: list[Row] = [
        {"operator": k.op, "provider": k.provider, "runs": k.runs, "ms": 1e3 * k.seconds, "%": 100 * k.seconds / total}
        for k in found
    ]
    note = (
        "Time on the host's clock: on a GPU that of launching a kernel, unless the operator waits for it. "
        f"Heavy operators on the CPU: {', '.join(strays(found)) or 'none'}."
    )
    return Table(key, title, note, rows, {"ms": 3, "%": 1})


@contextmanager
def profiled(prefix: Path) -> Iterator[None]:
    """Sessions that trivec opens meanwhile write a profile, to files that begin with the prefix."""
    from trivec._engine import open_session

    made = open_session._options

    def options_of(*arguments: Any) -> Any:  # noqa: ANN401 - onnxruntime has no types
        options, buffers = made(*arguments)
        options.enable_profiling = True
        options.profile_file_prefix = str(prefix)
        return options, buffers

    setattr(open_session, "_options", options_of)  # noqa: B010 - a type of its own
    try:
        yield
    finally:
        setattr(open_session, "_options", made)  # noqa: B010


def profile(load: Any, texts: list[str], prefix: Path) -> tuple[str, dict[str, list[Kernel]]]:  # noqa: ANN401
    """Open an encoder, run texts through it, and read what its graphs did.

    Args:
        load: opens the encoder.
        texts: to encode, in one call.
        prefix: of the profiles' files, which are removed again.

    Returns:
        The encoder's device and precision, and the kernels by route.
    """
    found: dict[str, list[Kernel]] = {}
    with profiled(prefix), load() as encoder:
        encoder.encode(texts)
        for route, pipeline in encoder._open().items():
            lane = getattr(pipeline.session, "_narrow", None)  # which runs where the CPU has work for several threads
            files = [Path(s._session.end_profiling()) for s in (pipeline.session, lane) if s is not None]
            if files:
                found[route] = kernels(event for file in files for event in json.loads(file.read_text("utf-8")))
            for file in files:
                file.unlink()
        return f"{encoder.device} {encoder.precision}", found
