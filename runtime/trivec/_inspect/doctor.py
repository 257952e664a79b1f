"""`trivec doctor`: what works on this machine, and what to type where something does not."""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivec._encoders.named_call import fingerprint_of_plain_call
from trivec._engine.cuda_advice import INSTALL_GPU
from trivec._engine.engine_name import numpy_name
from trivec._engine.graph_session import GraphSession
from trivec._engine.openvino_session import INSTALL as INSTALL_OPENVINO
from trivec._engine.openvino_session import openvino_version
from trivec._engine.session import INSTALL, cpu_engine, engine_versions, probe_providers, telemetry
from trivec._errors import MissingExtraError, TrivecError
from trivec._export import missing_packages
from trivec._model.hub import offline_by
from trivec._system.cpu import features, read_cpu
from trivec._system.home import NoHomeError, home
from trivec._system.nvidia import cuda_count
from trivec._system.threads import default_threads
from trivec._version import __version__

if TYPE_CHECKING:
    from trivec._encoders.loaded_model import LoadedModel

_SENDS_NOTHING = "off: trivec loads OpenVINO without its package openvino_telemetry"
_WHEN_ASKED = "asked for what is no folder and not in its cache; never with TRIVEC_OFFLINE=1"


def doctor(
    model: str | None = None,
    *,
    device: str = "auto",
    engine: str = "auto",
    providers: Sequence[str] | None = None,
    expect: str | None = None,
    as_json: bool = False,
) -> int:
    """Print the report to stdout.

    Args:
        model: a folder, or a repository on the Hub, to open too: where it runs, and which provider runs how much of it.
        device: where to open it, as in `load`.
        engine: what to open it with, as in `load`.
        providers: names of providers to open it with, as in `load`.
        expect: as in `load`.
        as_json: one JSON object instead of text: the sections by title, "problems", "verdict".

    Returns:
        0 if some provider runs a graph, 1 if nothing can run, or the model cannot be opened so.
    """
    found, error = _providers()
    report = _report(found)
    works = "started" in found.values()
    versions = engine_versions()
    problems = [problem for problem in (error, double_install(versions), idle_gpu(versions, cuda_count())) if problem]
    if not works and error is None:
        remove = f"pip uninstall -y {' '.join(versions)}"
        problems.append(f"no provider of onnxruntime runs a graph. Type: {remove} && {INSTALL}")
    opened = True
    if model is not None and works:
        try:
            report["model"] = _model(model, device=device, engine=engine, providers=providers, expect=expect)
        except TrivecError as refused:
            problems.append(f"{model} is not opened: {refused}")
            opened = False
    verdict = ("ready: but see above" if problems else "ready") if works else "nothing can run here"
    if as_json:
        print(json.dumps({**report, "problems": problems, "verdict": verdict}, indent=2))
    else:
        print(_as_text(report, problems, verdict))
    return 0 if works and opened else 1


def double_install(engines: dict[str, str]) -> str | None:
    """What to say where several onnxruntime distributions are installed: they overwrite each other's files."""
    if len(engines) < 2:
        return None
    extra = "gpu" if "onnxruntime-gpu" in engines else "cpu"
    return (
        f"{' and '.join(engines)} are installed together; they share their files, and the last one installed has "
        f'overwritten the other. Type: pip uninstall -y {" ".join(engines)} && pip install "trivec[{extra}]"'
    )


def idle_gpu(engines: dict[str, str], gpus: int | None) -> str | None:
    """What to say where there is an NVIDIA GPU, and an onnxruntime that cannot use it."""
    if not gpus or "onnxruntime-gpu" in engines or "onnxruntime" not in engines:
        return None
    return f"the driver shows {gpus} CUDA device(s), and this onnxruntime is built without CUDA. Type: {INSTALL_GPU}"


def _model(name: str, **options: Any) -> dict[str, str]:  # noqa: ANN401 - of `load`, which checks them
    """Where a model runs, and which provider runs how many of each graph's nodes."""
    from trivec._load import load

    with load(name, **options) as encoder:
        rows = {"device": encoder.device, "variant": encoder.precision}
        if (fingerprint := fingerprint_of_plain_call(encoder)) is not None:
            rows["fingerprint"] = fingerprint
        rows["engine"] = encoder.engine_fingerprint
        for route, session in _sessions(encoder).items():
            nodes = session.shares
            total = sum(nodes.values())
            shared = [f"{provider} {count} of {total} nodes" for provider, count in nodes.items()]
            rows[route] = ", ".join(shared) or f"{', '.join(session.providers)} (this {session.name} counts no nodes)"
    return rows


def _sessions(encoder: "LoadedModel") -> dict[str, GraphSession]:
    """Each open graph once, by the first route that runs it."""
    found: dict[str, GraphSession] = {}
    for route, pipeline in encoder.routes.items():
        if pipeline.session is not None and pipeline.session not in found.values():
            found[route] = pipeline.session
    return found


def _providers() -> tuple[dict[str, str], str | None]:
    """What each provider does, and why there is none."""
    try:
        return probe_providers(), None
    except MissingExtraError as error:
        return {}, str(error)


def _report(providers: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Rows by the title of their section."""
    threads, by = default_threads(), offline_by()
    spin = "yes" if threads.quota is None else f"no: a cgroup grants {threads.quota:g} CPUs, and waiting would use them"
    missing = missing_packages()
    state = f'lacks {", ".join(missing)}. Type: pip install "trivec[export]"' if missing else "installed"
    try:
        engine = cpu_engine()
    except MissingExtraError:
        engine = numpy_name()
    return {
        "versions": _versions(),
        "providers": providers,
        "cpu": {**_cpu(), "engine": engine},
        "threads": {"count": threads.count, "from": threads.source, "spin": spin},
        "folders": _folders(),
        "network": {
            "telemetry of onnxruntime": telemetry(),
            "telemetry of openvino": _SENDS_NOTHING,
            "Hub": f"never asked: {by}" if by else _WHEN_ASKED,
        },
        "extras": {"export": state},
    }


def _as_text(report: dict[str, dict[str, Any]], problems: Sequence[str], verdict: str) -> str:
    lines = []
    for title, rows in report.items():
        lines.append(title)
        width = max((len(key) for key in rows), default=0)
        lines += [f"  {key:<{width}}  {value}" for key, value in rows.items()] or ["  none"]
    lines += [f"\nproblem: {problem}" for problem in problems]
    return "\n".join([*lines, f"\n{verdict}"])


def _versions() -> dict[str, str]:
    rows = {"trivec": __version__, "python": f"{platform.python_version()} ({sys.executable})"}
    rows["system"] = platform.platform()
    for name in ("numpy", "tokenizers", "huggingface_hub"):
        try:
            rows[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            rows[name] = "not installed"
    rows |= engine_versions() or {"onnxruntime": "not installed"}
    return rows | {"openvino": openvino_version() or f"not installed: {INSTALL_OPENVINO}"}


def _cpu() -> dict[str, str]:
    cpu = read_cpu()
    rows = {"model": cpu.model}
    if cpu.features is None:
        return rows | {"features": "not told by this system"}
    return rows | {name: "yes" if name in cpu.features else "no" for name in features()}


def _folders() -> dict[str, str]:
    from huggingface_hub import constants

    try:
        own = _folder(home())
    except NoHomeError as error:
        own = f"none: {error}"
    return {"TRIVEC_HOME": own, "Hub cache": _folder(Path(constants.HF_HUB_CACHE))}


def _folder(path: Path) -> str:
    """The folder, and whether it can be written, or made."""
    existing = next((p for p in (path, *path.parents) if p.exists()), Path(path.anchor))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return f"{path} (NOT writable)"
    return f"{path} (writable)" if existing == path else f"{path} (not there yet; can be made)"
