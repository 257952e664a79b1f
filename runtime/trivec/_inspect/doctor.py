"""`trivec doctor`: what works on this machine, and what to type where something does not."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trivec._engine.cuda_advice import INSTALL_GPU
from trivec._engine.session import INSTALL, Session, engine_versions, probe_providers
from trivec._errors import MissingExtraError, TrivecError
from trivec._export import missing_packages
from trivec._system.home import home
from trivec._system.nvidia import cuda_count
from trivec._system.threads import available_threads
from trivec._version import __version__

if TYPE_CHECKING:
    from trivec._encoders.loaded_model import LoadedModel

# What onnxruntime's int8 and float kernels choose by, in the names of /proc/cpuinfo.
FEATURES = {
    "x86": ("fma", "avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8"),
    "arm": ("asimddp", "i8mm", "sve"),
}
_CPUINFO = Path("/proc/cpuinfo")


class Cpu(NamedTuple):
    """A CPU's name and its features; None where the system does not say."""

    model: str
    features: frozenset[str] | None


def doctor(model: str | None = None, *, device: str = "auto", providers: Sequence[str] | None = None) -> int:
    """Print the report to stdout.

    Args:
        model: a folder, or a repository on the Hub, to open too: where it runs, and which provider runs how much of it.
        device: where to open it, as in `load`.
        providers: names of providers to open it with, as in `load`.

    Returns:
        0 if some provider runs a graph, 1 if nothing can run, or the model cannot be opened so.
    """
    found, error = _providers()
    for line in _report(found):
        print(line)
    works = "started" in found.values()
    versions = engine_versions()
    problems = [problem for problem in (error, double_install(versions), idle_gpu(versions, cuda_count())) if problem]
    if not works and error is None:
        remove = f"pip uninstall -y {' '.join(versions)}"
        problems.append(f"no provider of onnxruntime runs a graph. Type: {remove} && {INSTALL}")
    opened = True
    if model is not None and works:
        try:
            for line in _section("model", _model(model, device, providers)):
                print(line)
        except TrivecError as refused:
            problems.append(f"{model} is not opened: {refused}")
            opened = False
    for problem in problems:
        print(f"\nproblem: {problem}")
    verdict = ("ready: but see above" if problems else "ready") if works else "nothing can run here"
    print(f"\n{verdict}")
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


def _model(name: str, device: str, providers: Sequence[str] | None) -> dict[str, str]:
    """Where a model runs, and which provider runs how many of each graph's nodes."""
    from trivec._load import load

    with load(name, device=device, providers=providers) as encoder:
        rows = {"device": encoder.device, "variant": encoder.precision}
        for route, session in _sessions(encoder).items():
            nodes = session.shares
            total = sum(nodes.values())
            shared = [f"{provider} {count} of {total} nodes" for provider, count in nodes.items()]
            rows[route] = ", ".join(shared) or f"{', '.join(session.providers)} (this onnxruntime counts no nodes)"
    return rows


def _sessions(encoder: "LoadedModel") -> dict[str, Session]:
    """Each open graph once, by the first route that runs it."""
    found: dict[str, Session] = {}
    for route, pipeline in encoder.routes.items():
        if isinstance(pipeline.session, Session) and pipeline.session not in found.values():
            found[route] = pipeline.session
    return found


def read_cpu(path: Path = _CPUINFO) -> Cpu:
    """The CPU as Linux describes it; elsewhere its name only."""
    fallback = platform.processor() or platform.machine() or "unknown"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Cpu(fallback, None)
    fields: dict[str, str] = {}
    for line in lines:  # the first core's values
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip().lower(), value.strip())
    flags = fields.get("flags", fields.get("features"))
    return Cpu(fields.get("model name") or fallback, None if flags is None else frozenset(flags.split()))


def _providers() -> tuple[dict[str, str], str | None]:
    """What each provider does, and why there is none."""
    try:
        return probe_providers(), None
    except MissingExtraError as error:
        return {}, str(error)


def _report(providers: dict[str, str]) -> Iterator[str]:
    yield from _section("versions", _versions())
    yield from _section("providers", providers or {"none": "no engine"})
    yield from _section("cpu", _cpu())
    threads = available_threads()
    spin = "yes" if threads.quota is None else f"no: a cgroup grants {threads.quota:g} CPUs, and waiting would use them"
    yield from _section("threads", {str(threads.count): f"from: {threads.source}", "spin": spin})
    yield from _section("folders", _folders())
    missing = missing_packages()
    state = f'lacks {", ".join(missing)}. Type: pip install "trivec[export]"' if missing else "installed"
    yield from _section("extras", {"export": state})


def _section(title: str, rows: dict[str, str]) -> Iterator[str]:
    yield title
    width = max(len(key) for key in rows)
    for key, value in rows.items():
        yield f"  {key:<{width}}  {value}"


def _versions() -> dict[str, str]:
    rows = {"trivec": __version__, "python": f"{platform.python_version()} ({sys.executable})"}
    rows["system"] = platform.platform()
    for name in ("numpy", "tokenizers", "huggingface_hub"):
        try:
            rows[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            rows[name] = "not installed"
    return rows | (engine_versions() or {"onnxruntime": "not installed"})


def _cpu() -> dict[str, str]:
    cpu = read_cpu()
    rows = {"model": cpu.model}
    if cpu.features is None:
        return rows | {"features": "not told by this system"}
    kind = "arm" if platform.machine().lower().startswith(("arm", "aarch")) else "x86"
    return rows | {name: "yes" if name in cpu.features else "no" for name in FEATURES[kind]}


def _folders() -> dict[str, str]:
    from huggingface_hub import constants

    return {"TRIVEC_HOME": _folder(home()), "Hub cache": _folder(Path(constants.HF_HUB_CACHE))}


def _folder(path: Path) -> str:
    """The folder, and whether it can be written, or made."""
    existing = next((p for p in (path, *path.parents) if p.exists()), Path(path.anchor))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return f"{path} (NOT writable)"
    return f"{path} (writable)" if existing == path else f"{path} (not there yet; can be made)"
