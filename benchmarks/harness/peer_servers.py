"""Other servers beside ours: all up at the same time, one asked at a time."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.harness import models, venvs
from benchmarks.harness.load import closed
from benchmarks.harness.servers import Server
from benchmarks.harness.serving import Run, Way, embeddings, go, met
from benchmarks.harness.stats import spread
from benchmarks.harness.tables import Row, Table
from benchmarks.harness.venvs import ROOT, Failed


def peers(run: Run) -> Table:
    """Other servers, all up at the same time, one asked at a time."""
    rows: list[Row] = []
    single, batches = [embeddings(t, "float") for t in run.short], [embeddings(b, "float") for b in run.batches]
    with _everybody(run) as (servers, failures):
        ways: dict[str, dict[str, Way]] = {"64 x 1": {}, "4 x 32": {}, "one text, ms": {}}
        seconds = run.args.seconds
        for name, server in servers.items():
            url = server.url
            ways["64 x 1"][name] = lambda url=url: go(closed(url, single, 64, seconds)).rate()  # type: ignore[misc]
            ways["4 x 32"][name] = lambda url=url: go(closed(url, batches, 4, seconds)).rate(32)  # type: ignore[misc]
            ways["one text, ms"][name] = lambda url=url: go(closed(url, single, 1, seconds / 2)).ms(50)  # type: ignore[misc]
            go(closed(url, batches, 4, seconds))  # warm up
        found = {kind: run.rounds(each) for kind, each in ways.items()}
        memory = {name: server.memory() for name, server in servers.items()}
        starts = {name: server.ready for name, server in servers.items()}
    for name in servers:
        row: Row = {"server": name} | {kind: spread(each[name]).median for kind, each in found.items()}
        rows.append(row | {"memory MB": memory[name], "s to ready": starts[name], "note": ""})
    blank: Row = dict.fromkeys(("64 x 1", "4 x 32", "one text, ms", "memory MB", "s to ready"), "-")
    rows += [{"server": name} | blank | {"note": str(failure)[:200]} for name, failure in failures.items()]
    note = f"Float vectors, short texts, {run.args.rounds} rounds in turns; texts/s, medians. " + _against(
        found, memory
    )
    return Table("peers", "Other servers", note, rows, {"64 x 1": 0, "4 x 32": 0, "memory MB": 0})


def _against(found: dict[str, dict[str, list[float]]], memory: dict[str, float]) -> str:
    """Our figures against the best peer, for the goals."""
    others = [name for name in memory if not name.startswith("trivec")]
    said = []
    for ours, least in (("trivec int8", 2.0), ("trivec fp32", 1.3)):
        if ours not in memory or not others:
            continue
        for kind in ("64 x 1", "4 x 32"):
            best = max(others, key=lambda name: spread(found[kind][name]).median)
            ratio = spread([a / b for a, b in zip(found[kind][ours], found[kind][best], strict=True)]).median
            said.append(f"{ours}, {kind}: {ratio:.2f} x {best} (goal {least:g}: {met(ratio >= least)})")
        if ours == "trivec int8":
            fastest = min(others, key=lambda name: spread(found["one text, ms"][name]).median)
            one = spread(
                [a / b for a, b in zip(found["one text, ms"][ours], found["one text, ms"][fastest], strict=True)]
            ).median
            small = min(others, key=lambda name: memory[name])
            said.append(f"one text: {one:.2f} of {fastest}'s time (goal 0.5: {met(one <= 0.5)})")
            ratio = memory[ours] / memory[small]
            said.append(f"memory: {ratio:.2f} of {small}'s (goal 0.33: {met(ratio <= 1 / 3)})")
    return "; ".join(said) + "."


@contextmanager
def _everybody(run: Run) -> Iterator[tuple[dict[str, Server], dict[str, Failed | RuntimeError]]]:
    servers: dict[str, Server] = {}
    failures: dict[str, Failed | RuntimeError] = {}
    work = ROOT / "build/bench"
    options = {"threads": run.args.threads, "tokens": 256}
    minilm = str(models.checkpoint())

    def infinity() -> Server:
        python = venvs.ensure("infinity", work)
        words = (
            "v2 --served-model-name minilm --engine torch --device cpu --no-bettertransformer --no-compile "
            "--no-model-warmup"
        )
        command = [str(python.with_name("infinity_emb")), *words.split(), "--url-prefix", "/v1"]
        quiet = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
        more = ["--model-id", minilm, "--host", "127.0.0.1", "--port", "{port}", "--log-level", "error"]
        return Server(
            [*command, *more],
            {**quiet, "OMP_NUM_THREADS": str(run.args.threads)},
            ready="/v1/models",
            live="/v1/models",
        )

    def plain(engine: str, venv: str, folder: str) -> Server:
        python = venvs.ensure(venv, work)
        command = [
            str(python),
            "-m",
            "benchmarks.harness.servers",
            engine,
            json.dumps({"folder": folder, **options}),
            "{port}",
        ]
        return Server(command, {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"})

    def fastembed() -> Server:
        graph = models.onnx_checkpoint(
            venvs.ensure("onnx-4.57", work), work / "models/minilm-onnx", run.args.threads, work / "log"
        )
        return plain(
            "fastembed", "fastembed-server", str(models.fastembed_folder(graph, work / "models/minilm-fastembed", 256))
        )

    makers: dict[str, Callable[[], Server]] = {
        "trivec int8": lambda: run.serve("int8"),
        "trivec fp32": lambda: run.serve("fp32"),
        "infinity, torch": infinity,
        "sentence-transformers + starlette": lambda: plain(
            "sentence-transformers", "sentence-transformers-server", minilm
        ),
        "FastEmbed + starlette": fastembed,
    }
    try:
        for name, make in makers.items():
            try:
                servers[name] = make()
            except (Failed, RuntimeError) as error:
                failures[name] = error
        yield servers, failures
    finally:
        for server in servers.values():
            server.stop()
