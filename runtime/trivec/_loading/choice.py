"""Which device, variant and graph of a model are opened, and why not another."""

import dataclasses
import importlib.util
import logging
from collections.abc import Sequence

from trivec._encoders.load_options import LoadOptions
from trivec._engine.approvals import is_approved
from trivec._engine.devices import BF16, ENGINES, OPENVINO, Device, device_of, parse_device
from trivec._engine.openvino_session import INSTALL as INSTALL_OPENVINO
from trivec._engine.openvino_session import check_bf16
from trivec._engine.session import check_available
from trivec._errors import InputError, MissingExtraError, ModelNotFoundError, ProviderError
from trivec._model.families import FAMILIES
from trivec._model.manifest import (
    EVERY_SIMILARITY,
    LOADED_PRECISIONS,
    POOLING_MODES,
    EncoderSpec,
    Manifest,
    similarity_name,
)
from trivec._system.threads import Threads, available_threads, bounded

logger = logging.getLogger("trivec")
_warned: set[str] = set()
_ORDER = {"cuda": ("fp16", "fp32"), "cpu": ("fp32", "int8")}  # what precision="auto" takes, best first
_OTHERS = ("fp32", "fp16", "int8")  # the same for providers that are given by hand
_REFUSALS = {
    ("cpu", "fp16"): "onnxruntime computes fp16 graphs on a CPU in fp32 through casts: slower, and no more exact. "
    'Load precision="fp32" or "int8" there.',
    ("cuda", "int8"): "onnxruntime has no CUDA kernels for these integer products and would copy to and from the CPU. "
    'Load precision="fp16" or "fp32" there, or device="cpu".',
}


def wanted(options: LoadOptions) -> Device | None:
    """The device that was asked for, checked; None where trivec is to choose.

    Raises:
        InputError: it is none, or device and providers both say where to run, or the engine does not go with them.
        ProviderError: the installed onnxruntime does not have a provider, or this CPU no bf16.
        MissingExtraError: OpenVINO is asked for, and is not installed.
    """
    check_engine_choice(options)
    check_low_memory(options)
    if options.providers is None:
        on_cpu = options.engine == OPENVINO or options.low_memory
        return Device("cpu") if on_cpu else parse_device(options.device)
    if options.device != "auto":
        raise InputError(
            f"device={options.device!r} and providers={[p.name for p in options.providers]!r} both say where to run. "
            "Leave one out; a provider takes its device among its options: "
            '("CUDAExecutionProvider", {"device_id": 1}).'
        )
    check_available(options.providers)
    return device_of(options.providers)


def check_arguments(precision: str, threads: int | None, similarity: object, layout: str, pooling: str | None) -> None:
    """Raise InputError unless each is one of what there is."""
    if layout not in ("auto", "rows", "mixed"):
        raise InputError(f"layout {layout!r} is none of auto, rows, mixed.")
    if precision not in ("auto", *LOADED_PRECISIONS):
        raise InputError(f"precision {precision!r} is not one of auto, {', '.join(LOADED_PRECISIONS)}.")
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads must be a positive integer or None, got {threads!r}.")
    if similarity is not None:
        similarity_name(similarity, EVERY_SIMILARITY)
    if pooling is not None and pooling not in POOLING_MODES:
        raise InputError(f"pooling {pooling!r} is not one of {', '.join(POOLING_MODES)}.")


def check_engine_choice(options: LoadOptions) -> None:
    """Refuse an engine with what it does not do.

    Raises:
        InputError: there is no such engine, or it does not go with another argument.
        ProviderError: it does not go with the precision, or this CPU has no bf16.
        MissingExtraError: OpenVINO is not installed.
    """
    if options.engine not in ENGINES:
        raise InputError(f"engine {options.engine!r} is none of {', '.join(ENGINES)}.")
    if options.engine != OPENVINO:
        if options.precision == BF16:
            raise InputError(
                'precision="bf16" is OpenVINO\'s: onnxruntime has no bf16 arithmetic on CPUs. Type: '
                'trivec.load(..., engine="openvino", precision="bf16"), after pip install "trivec[openvino]"'
            )
        return
    if options.providers is not None:
        raise InputError(
            'engine="openvino" and providers= both say what runs the graph: providers are onnxruntime\'s. Leave one '
            "out."
        )
    if options.device not in ("auto", "cpu"):
        raise InputError(
            f'engine="openvino" runs on the CPU, and device={options.device!r} is asked for. Leave one of them out.'
        )
    if options.layout == "mixed":
        raise InputError('layout="mixed" is for CUDA, and engine="openvino" runs on the CPU. Leave one of them out.')
    if options.precision == "fp16":
        raise ProviderError(
            'engine="openvino" computes on the CPU, which would take fp16 weights to float32. Load precision="fp32", '
            '"bf16" or "int8".'
        )
    if importlib.util.find_spec("openvino") is None:
        raise MissingExtraError(f"OpenVINO is not installed. Type: {INSTALL_OPENVINO}")
    if options.precision == BF16:
        check_bf16()


def check_low_memory(options: LoadOptions) -> None:
    """Refuse low_memory with what has its weights elsewhere than in a mapped file.

    Raises:
        InputError: it is no bool, or does not go with another argument.
    """
    if not isinstance(options.low_memory, bool):
        raise InputError(f"low_memory must be True or False, got {options.low_memory!r}.")
    if not options.low_memory:
        return
    reason = "low_memory=True leaves the weights in the mapped file, where onnxruntime reads them on the CPU"
    if options.engine == OPENVINO:
        raise InputError(f'{reason}; engine="openvino" makes copies of its own. Leave one of them out.')
    if options.providers is not None:
        raise InputError(f"{reason}; providers= may copy them. Leave one of them out.")
    if options.device not in ("auto", "cpu"):
        raise InputError(f"{reason}, and device={options.device!r} is asked for. Leave one of them out.")
    if options.precision == "fp16" or options.layout == "mixed":
        raise InputError(f'{reason}; precision="fp16" and layout="mixed" are for CUDA. Leave them out.')


def with_bf16(manifest: Manifest) -> Manifest:
    """A manifest as OpenVINO reads it: what has fp32 weights has bf16, which is computed with them."""
    encoders = {
        name: dataclasses.replace(encoder, variants={**encoder.variants, BF16: encoder.variants["fp32"]})
        if "fp32" in encoder.variants
        else encoder
        for name, encoder in manifest.encoders.items()
    }
    return dataclasses.replace(manifest, encoders=encoders)


def check_kind(kind: str | None, family: str | None = None, name: str = "") -> None:
    """Raise InputError where `kind` is none, or a model of the family is of another one."""
    kinds = {row.encoder.partition(":")[0] for row in FAMILIES.values()}
    if kind is not None and kind not in kinds:
        raise InputError(f"kind {kind!r} is none of {', '.join(sorted(kinds))}.")
    found = None if family is None else FAMILIES[family].encoder.partition(":")[0]
    if None not in (kind, found) and found != kind and (kind, found) != ("dense", "static"):
        raise InputError(
            f'{name} is a {found} model, and kind={kind!r} was asked for. Type: trivec.load({name!r}, kind="{found}")'
        )


def candidates(
    wanted: Device | None,
    precision: str,
    have: Sequence[str],
    available: Sequence[str],
    name: str,
    others: Sequence[str] = (),
) -> list[tuple[Device, str]]:
    """Devices and variants to try in order; where there is none, the reason as an error, which names other graphs."""
    if precision != "auto" and precision not in have:
        raise ModelNotFoundError(
            f"{name} has no {precision} variant; it has: {', '.join(have) or 'none'}. "
            f"Export one from the checkpoint: trivec export MODEL OUT --precision {precision}"
            + (f"; or name another of its graphs ({', '.join(others)}): file_name={others[0]!r}" if others else "")
        )
    devices = [wanted] if wanted else [Device(kind) for kind in available]
    attempts = []
    for device in devices:
        variants = _ORDER.get(device.kind, _OTHERS) if precision == "auto" else (precision,)
        allowed = [p for p in variants if p in have and (device.kind, p) not in _REFUSALS]
        attempts += [(device, p) for p in allowed[:1]]
    if not attempts:
        kind = devices[-1].kind
        variant = precision if precision != "auto" else next(iter(have), "")
        reason = _REFUSALS.get((kind, variant), f"it has the variants {', '.join(have) or 'none'}.")
        raise ProviderError(f"{name}: {variant or 'no variant'} is not run on {kind}: {reason}")
    return attempts


def check_layout(manifest: Manifest, precision: str, device: Device, options: LoadOptions) -> None:
    """Raise InputError where texts of different lengths are to share runs, and no graph can do that."""
    if options.layout != "mixed":
        return
    again = "or export the checkpoint again with: trivec export MODEL OUT --precision fp32,fp16"
    if all(encoder.cuda is None for encoder in manifest.encoders.values()):
        raise InputError(f'layout="mixed": {options.name} has no graph for it. Leave it out, {again}')
    if precision != "fp16":
        raise InputError(
            f'layout="mixed" is for fp16, and {options.name} is opened in {precision} on {device}. Leave it out, or '
            'type: precision="fp16", device="cuda"'
        )


def graph_for(encoder: EncoderSpec, precision: str, device: Device, layout: str) -> EncoderSpec:
    """The encoder, with the graph for CUDA in place of its fp16 variant where that is to be opened."""
    cuda = encoder.cuda
    if cuda is None or precision != "fp16" or layout == "rows":
        return encoder
    digests = [ref.sha256 or "" for ref in cuda.files]
    if layout == "auto" and not (device.kind == "cuda" and all(digests) and is_approved(digests, device)):
        if device.kind == "cuda":
            logger.debug(
                "A graph that takes texts of all lengths together waits to be proven on this GPU. Type: "
                "trivec verify MODEL --device cuda"
            )
        return encoder
    return dataclasses.replace(encoder, variants={**encoder.variants, precision: cuda})


def threads_for(threads: int | None) -> Threads:
    """The threads that the caller names, else the default; where a variable lowers that, the log says so once."""
    available = available_threads()
    if threads is not None:
        return dataclasses.replace(available, count=threads, source="threads= of the call")
    found = bounded(available)
    if found.count < available.count:
        warn_once(found.source, f"threads={found.count}, from {found.source}; threads= in the call wins over it.")
    return found


def warn_once(what: str, message: str) -> None:
    """Warn, once a process."""
    if what not in _warned:
        _warned.add(what)
        logger.warning(message)
