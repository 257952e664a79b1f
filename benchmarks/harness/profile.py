"""What ran where, and how long: onnxruntime's own profiles of the sessions that trivec opens."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest import mock

import numpy as np
import numpy.typing as npt
from benchmarks.harness.tables import Row, Table

import trivec
from trivec._encoders.dense import DenseEncoder
from trivec._engine.devices import CPU, HEAVY, Device
from trivec._engine.session import Session
from trivec._loading import open_model
from trivec._loading.load_keywords import Precision
from trivec._model.manifest import EncoderSpec, Manifest
from trivec._tokens.tokenizer import TextTokenizer

PRECISIONS = ("fp32", "int8")
Ids = npt.NDArray[np.int64]
_SUFFIX = "_kernel_time"
_UNCOUNTED = 3  # runs before those of a profile


class Kernel(NamedTuple):
    """All runs of one operator on one provider."""

    op: str
    provider: str
    runs: int
    seconds: float


def kernels(events: Iterable[Mapping[str, Any]], skip: int = 0) -> list[Kernel]:
    """Operators with their providers, those that took longest first, from the events of a profile.

    Args:
        events: of the profile's JSON; those of category "Node" whose name ends in "_kernel_time" are a node's run.
        skip: runs of the whole graph at the beginning that do not count.

    Raises:
        ValueError: no node ran, so the profile says nothing.
    """
    listed = list(events)
    start = sorted(e["ts"] for e in listed if e["name"] == "model_run")[skip] if skip else 0
    found: dict[tuple[str, str], list[float]] = {}
    for event in listed:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_SUFFIX) and event.get("ts", 0) >= start:
            about = event.get("args", {})
            key = str(about.get("op_name", "?")), str(about.get("provider", "?"))
            found.setdefault(key, []).append(float(event.get("dur", 0)) / 1e6)
    if not found:
        raise ValueError("the profile has no node that ran.")
    summed = [Kernel(op, provider, len(taken), sum(taken)) for (op, provider), taken in found.items()]
    return sorted(summed, key=lambda kernel: -kernel.seconds)


def strays(found: Iterable[Kernel]) -> list[str]:
    """Heavy operators that ran on the CPU: matrix products, attention and normalizations; none is as it should be."""
    return [f"{kernel.runs} x {kernel.op}" for kernel in found if kernel.provider == CPU and kernel.op in HEAVY]


def operators(key: str, title: str, found: list[Kernel]) -> Table:
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


# ---- of an encoder -------------------------------------------------------------------------------------------------


@contextmanager
def opening(make: Callable[..., Session]) -> Iterator[None]:
    """Encoders that are loaded meanwhile open their graphs with this, which takes what `Session` takes."""
    with mock.patch.object(open_model, "Session", make):
        yield


def profile(load: Callable[[], Any], texts: list[str], prefix: Path) -> tuple[str, dict[str, list[Kernel]]]:
    """Open an encoder, run texts through it, and read what its graphs did.

    Args:
        load: opens the encoder.
        texts: to encode, in one call.
        prefix: of the profiles' files, which are removed again.

    Returns:
        The encoder's device and precision, and the kernels by route: the first of those that share a graph.
    """
    opened: list[Session] = []

    def make(*files: Sequence[Path], **given: Any) -> Session:  # noqa: ANN401 - whatever the loader says
        session = Session(*files, **given, profile=prefix.with_name(f"{prefix.name}-{len(opened)}"))
        opened.append(session)
        return session

    with opening(make), load() as encoder:
        encoder.encode(texts)
        manifest: Manifest = encoder.manifest
        firsts: dict[str, str] = {}  # a graph's route, in the order in which graphs are opened
        for name, route in manifest.routes.items():
            if manifest.encoders[route.encoder].variants:
                firsts.setdefault(route.encoder, name)
        found = {name: kernels(_events(s)) for name, s in zip(firsts.values(), opened, strict=True)}
        return f"{encoder.device} {encoder.precision}", found


def _events(session: Session) -> list[dict[str, Any]]:
    """What a session's profiles hold; their files are removed."""
    events: list[dict[str, Any]] = []
    for file in session.end_profiling():
        events += json.loads(file.read_text(encoding="utf-8"))
        file.unlink()
    return events


# ---- of two variants -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """One variant, open twice: behind `encode`, and as a session of its own for arrays that are ready."""

    folder: Path
    precision: str
    description: EncoderSpec
    encoder: DenseEncoder
    session: Session
    threads: int

    @property
    def files(self) -> list[Path]:
        """The graph and its data."""
        return [self.folder / ref.path for ref in self.description.variants[self.precision].files]

    @property
    def output(self) -> str:
        """The graph output that is read."""
        return self.description.variants[self.precision].output


def open_variant(folder: Path, precision: str, threads: int) -> Variant:
    """Open a variant on the CPU."""
    encoder = trivec.load(folder, precision=cast("Precision", precision), device="cpu", threads=threads)
    description = main_encoder(encoder.manifest)
    files = [folder / ref.path for ref in description.variants[precision].files]
    return Variant(
        folder, precision, description, encoder, Session(files, device=Device("cpu"), threads=threads), threads
    )


def main_encoder(manifest: Manifest) -> EncoderSpec:
    """The encoder behind the default route."""
    return manifest.encoders[manifest.routes[manifest.default_route or next(iter(manifest.routes))].encoder]


def ready_batches(tokenizer: TextTokenizer, documents: Sequence[str], sentences: Sequence[str]) -> dict[str, Ids]:
    """Token ids of one long batch (8, 250) and one short batch (64, 14), cut from real texts."""
    found = {}
    for rows, length, texts in ((8, 250, documents), (64, 14, sentences)):
        tokens = tokenizer(list(texts))
        enough = np.flatnonzero(tokens.lengths >= length)[:rows]
        if len(enough) < rows:
            raise SystemExit(f"only {len(enough)} texts have {length} tokens, {rows} are needed.")
        found[f"{rows} x {length}"] = np.stack([tokens.of(int(row))[:length] for row in enough])  # (B, S)
    return found


def compared(variants: Mapping[str, Variant], name: str, ids: Ids, runs: int) -> Table:
    """Time by kind of operator of both graphs, most of fp32 and int8 together first."""
    found = {p: _by_operator(variants[p], ids, runs) for p in PRECISIONS}
    total = {p: sum(ms for _, ms in ops.values()) for p, ops in found.items()}
    kinds = sorted(
        {*found["fp32"], *found["int8"]}, key=lambda op: -sum(found[p].get(op, (0, 0))[1] for p in PRECISIONS)
    )
    rows: list[Row] = []
    for op in ["all", *kinds]:
        row: Row = {"operator": op}
        for p in PRECISIONS:
            sums = (sum(n for n, _ in found[p].values()), total[p]) if op == "all" else found[p].get(op, (0, 0.0))
            row |= {f"{p} nodes": sums[0], f"{p} ms": sums[1], f"{p} %": 100 * sums[1] / total[p]}
        rows.append(row)
    digits = {f"{p} %": 1 for p in PRECISIONS}
    note = (
        f"onnxruntime's profile of one batch of {name}, the mean of {runs} runs after {_UNCOUNTED} uncounted ones; "
        "profiling itself costs a little, and what onnxruntime does between the operators is left out."
    )
    return Table(f"profile {name}", f"Where the time goes: {name} tokens", note, rows, digits)


def _by_operator(variant: Variant, ids: Ids, runs: int) -> dict[str, tuple[int, float]]:
    """Nodes, and milliseconds of one run, of each kind of operator of the graph that onnxruntime has optimized."""
    with tempfile.TemporaryDirectory() as scratch:
        session = Session(
            variant.files, device=Device("cpu"), threads=variant.threads, profile=Path(scratch) / "profile"
        )
        for _ in range(runs + _UNCOUNTED):
            session.run(ids, variant.output)
        found: dict[str, tuple[int, float]] = {}
        for kernel in kernels(_events(session), skip=_UNCOUNTED):
            nodes, ms = found.get(kernel.op, (0, 0.0))
            found[kernel.op] = (nodes + kernel.runs // runs, ms + 1e3 * kernel.seconds / runs)
    return found
