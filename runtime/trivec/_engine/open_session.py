"""Opening a graph with the providers that were asked for, and no other in their place."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._engine.cuda_advice import INSTALL_GPU, NO_GPU, explain
from trivec._engine.cuda_libraries import preload
from trivec._engine.devices import CPU, CUDA, Assigned, Device, Engine, Provider, check_assigned, providers_of
from trivec._errors import ModelFormatError, ProviderError
from trivec._model.held_file import HeldFile
from trivec._model.manifest import ROWS
from trivec._system.native_text import native_path
from trivec._system.nvidia import cuda_count

_LARGE = 1 << 28
DISABLED_OPTIMIZERS = "optimization.disable_specified_optimizers"
"""The entry of a session's options that names what onnxruntime must not fuse, with ; between."""


class Wanted(NamedTuple):
    """How a graph is to be opened."""

    device: Device
    threads: int
    spin: bool = True
    providers: tuple[Provider, ...] | None = None
    """Given by hand, best first; None: those of the device."""
    layout: str = ROWS
    profile: Path | None = None
    """What the file of a profile begins with; None: there is none."""
    options: Callable[[Any], None] | None = None
    """Changes onnxruntime's SessionOptions after they are set; None: they stay."""
    low_memory: bool = False
    """Whether weights stay in the mapped file, unpacked, and nothing is kept between runs."""


class Opened(NamedTuple):
    """An open graph."""

    session: Any
    assigned: tuple[Assigned, ...]
    """Every node; none where onnxruntime does not tell."""


def open_session(ort: Engine, files: Sequence[HeldFile], wanted: Wanted) -> Opened:
    """An InferenceSession that runs where it is wanted.

    Args:
        ort: the onnxruntime module.
        files: the graph, then its external data files. Opened by their paths while these lead to them, so that weights
            are mapped and shared; else from memory, which then holds a copy of those that are not packed.
        wanted: device or providers, and threads.

    Raises:
        ProviderError: the first provider is not built in, does not start, gives way to another one, or leaves a heavy
            node to the CPU.
        ModelFormatError: onnxruntime cannot read the graph.
        IntegrityError: a file was written over since it was loaded.
    """
    providers = providers_of(wanted.device, wanted.providers, wanted.layout)
    _check_built_in(ort, wanted, providers)
    messages = preload(ort) if any(p.name != CPU for p in providers) else ""
    in_place = _in_place(files)
    options, keep_alive = _options(ort, files, wanted, providers[0].name, in_place=in_place)
    model = native_path(files[0].path) if in_place else files[0].mapped().tobytes()
    on_cpu = providers[0].name == CPU
    try:
        session = ort.InferenceSession(
            model,
            options,
            providers=[tuple(provider) for provider in providers],
            enable_fallback=0,  # else it prints, goes on with the CPU, and does so again when a run fails
        )
    except Exception as error:
        if in_place and not _in_place(files):
            return open_session(ort, files, wanted)
        if on_cpu:
            raise ModelFormatError(f"onnxruntime {ort.__version__} cannot read {files[0].path}: {error}") from error
        why = why_not(ort, f"{error}\n{messages}")
        reason = " ".join(str(error).split()).rstrip(".")
        raise ProviderError(f"{providers[0].name} does not start: {reason}. {why or _DOCTOR}") from error
    del keep_alive
    if in_place and not _in_place(files):  # they were replaced meanwhile
        return open_session(ort, files, wanted)
    _check_names(session, files[0].path)
    if session.get_providers()[0] != providers[0].name:
        raise ProviderError(_fell_back(ort, session.get_providers()[0], wanted, providers[0].name, messages))
    assigned = () if on_cpu else assigned_nodes(session)
    check_assigned(assigned, providers, wanted.providers is not None)
    return Opened(session, assigned)


def _check_names(session: Any, path: Path) -> None:  # noqa: ANN401 - onnxruntime has no types
    """ModelFormatError where a name of the graph, which onnxruntime hands on as it stands there, is no text."""
    try:
        for thing in (*session.get_inputs(), *session.get_outputs()):
            for part in (thing.name, thing.type, *thing.shape):
                str(part)
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"{path} names an input or output in bytes that are no UTF-8: {error}") from error


def _in_place(files: Sequence[HeldFile]) -> bool:
    return all(file.is_in_place() for file in files)


def assigned_nodes(session: Any) -> tuple[Assigned, ...]:  # noqa: ANN401 - onnxruntime has no types
    """Every node and its provider, as onnxruntime recorded them while it shared the graph out.

    Chosen over a profile of a warm run, which costs a run and a file and sees only the nodes that ran, and over
    `session.disable_cpu_ep_fallback`, which also refuses the few shape nodes that the CUDA provider leaves to the CPU
    on purpose. onnxruntime from 1.24 on has it; reading 120 nodes takes under a millisecond.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return ()
    graphs = session.get_provider_graph_assignment_info()
    return tuple(Assigned(str(g.ep_name), str(node.op_type)) for g in graphs for node in g.get_nodes())


def why_not(ort: Engine, messages: str) -> str:
    """What is missing for CUDA and what to type, by these messages; "" where it is nothing known.

    Where nothing was said, the driver is asked whether there is a GPU at all.
    """
    known = explain(messages, engine_cuda=getattr(ort, "cuda_version", "") or "")
    return known or ("" if messages.strip() or cuda_count() else NO_GPU)


def _check_built_in(ort: Engine, wanted: Wanted, providers: Sequence[Provider]) -> None:
    have = ort.get_available_providers()
    if wanted.providers is None and providers[0].name not in have:
        raise ProviderError(
            f"device {str(wanted.device)!r} needs {providers[0].name}, which the installed onnxruntime "
            f'{ort.__version__} lacks (it has {", ".join(have)}). Type: {INSTALL_GPU}; or load with device="cpu".'
        )


_DOCTOR = "See what works here with: trivec doctor"


def _fell_back(ort: Engine, to: str, wanted: Wanted, name: str, messages: str) -> str:
    asked = f"device {str(wanted.device)!r} was asked for" if wanted.providers is None else f"{name} was asked for"
    shown, why = "", ""
    if name == CUDA:
        shown = " ".join(messages.split())
        why = why_not(ort, messages) or "It has said why on stderr."
    parts = (f"{asked}, but onnxruntime fell back to {to}.", shown and f"({shown})", why, _DOCTOR)
    return " ".join(part for part in parts if part)


# ---- options ---------------------------------------------------------------------------------------------------------


def gives_back(files: Sequence[HeldFile], wanted: Wanted) -> bool:
    """Whether a run gives back what its arena holds in the end.

    Without an arena a long text leaves holes in the C library's heap, and takes half as much again; one that is kept
    holds what the longest text took. A large model's time shows neither, that of a MiniLM does.
    """
    on_cpu = providers_of(wanted.device, wanted.providers, wanted.layout)[0].name == CPU
    return on_cpu and (wanted.low_memory or sum(file.size for file in files) >= _LARGE)


def _options(
    ort: Engine, files: Sequence[HeldFile], wanted: Wanted, provider: str, *, in_place: bool
) -> tuple[Any, list[npt.NDArray[np.uint8]]]:
    """Session options for the first provider, and buffers that must live until the session is made."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = wanted.threads
    options.inter_op_num_threads = 1
    if not wanted.spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.enable_mem_pattern = False  # its cache grows with every new shape and is never evicted
    if wanted.low_memory:  # packed, a weight is a copy of its own in each process
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.log_severity_level = 4  # errors are raised; the same text on stderr helps nobody
    if provider == CPU:
        # There, ORT's SkipLayerNormalization is several times slower than Add + LayerNormalization, and BiasGelu is
        # slower than Add + Gelu.
        options.add_session_config_entry(DISABLED_OPTIMIZERS, "SkipLayerNormFusion;BiasGeluFusion")
    if wanted.profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(wanted.profile)
    if wanted.options is not None:
        wanted.options(options)
    graph, *data = [file.path for file in files]
    if in_place and all(path.resolve().is_relative_to(graph.resolve().parent) for path in data):
        return options, []
    # onnxruntime refuses external data that resolves outside the graph's folder: hand it over in memory, mapped
    buffers = [file.mapped() for file in files[1:]]
    options.add_external_initializers_from_files_in_memory(
        [path.relative_to(graph.parent).as_posix() for path in data], buffers, [len(b) for b in buffers]
    )
    return options, buffers


# ---- libraries -------------------------------------------------------------------------------------------------------
