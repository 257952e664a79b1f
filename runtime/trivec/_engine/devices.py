"""Devices and providers: what was asked for, what onnxruntime offers, and what a graph's nodes may not run on."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from trivec._errors import InputError, ProviderError
from trivec._model.manifest import PADDED, ROWS

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
KINDS = {"cpu": CPU, "cuda": CUDA}
"""The provider behind each kind that `device=` names."""
ENGINES = ("auto", "onnxruntime", "openvino")
"""What `engine=` takes; "auto" is onnxruntime."""
OPENVINO, BF16 = "openvino", "bf16"
HEAVY = frozenset(
    {
        *("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "TransposeMatMul", "MatMulInteger", "MatMulIntegerToFloat"),
        *("QGemm", "QLinearMatMul", "DynamicQuantizeMatMul", "MatMulNBits", "GemmFastGelu", "Einsum", "Conv"),
        *("Attention", "MultiHeadAttention", "PackedAttention", "PackedMultiHeadAttention", "GroupQueryAttention"),
        *("QAttention", "LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization"),
        *("SkipSimplifiedLayerNormalization", "RMSNormalization", "EmbedLayerNormalization"),
    }
)
"""Operators that an encoder's time goes to."""


@dataclass(frozen=True)
class Device:
    """An execution provider's kind, and the index of its device."""

    kind: str
    index: int | None = 0
    """None: the provider numbers none."""

    def __str__(self) -> str:
        """As `device=` takes it: "cpu", "cuda:0"; "openvino" for a provider that was given by hand."""
        return self.kind if self.kind == "cpu" or self.index is None else f"{self.kind}:{self.index}"


class Provider(NamedTuple):
    """A provider as onnxruntime takes it: its name, and its options."""

    name: str
    options: Mapping[str, Any]


class Engine(Protocol):
    """What trivec uses of the onnxruntime module."""

    __version__: str
    InferenceSession: Any
    SessionOptions: Any
    RunOptions: Any
    OrtValue: Any

    def get_available_providers(self) -> list[str]:
        """Providers that it was built with; whether one starts on this machine, it does not say."""


class IdleProviderError(ProviderError):
    """The first provider opened, and runs none of the graph's nodes."""


class Assigned(NamedTuple):
    """A graph's node, and the provider that onnxruntime gave it to."""

    provider: str
    op_type: str


def parse_device(device: str) -> Device | None:
    """Read "cpu", "cuda" or "cuda:1" as a Device; None for "auto".

    Raises:
        InputError: it is none of these.
    """
    if device == "auto":
        return None
    kind, colon, index = str(device).partition(":")
    if kind not in KINDS or (colon and (kind == "cpu" or not index.isdecimal())):
        raise InputError(
            f"device {device!r} is not known. Expected 'auto', 'cpu', 'cuda' or 'cuda:N'. Other providers are named to "
            'trivec.load(..., providers=["OpenVINOExecutionProvider"]).'
        )
    return Device(kind, int(index or 0))


def parse_providers(providers: object) -> tuple[Provider, ...]:
    """Read what onnxruntime takes as `providers`: names, or pairs of a name and its options.

    Raises:
        InputError: it is something else, empty, or names a provider twice.
    """
    expected = 'Expected a list of names or (name, options) pairs: [("TensorrtExecutionProvider", {}), "CUDA..."].'
    if isinstance(providers, str | bytes) or not isinstance(providers, Sequence) or not providers:
        raise InputError(f"providers must be a list that is not empty, got {providers!r}. {expected}")
    found = [_parse_provider(item, expected) for item in providers]
    twice = [name for name, count in Counter(p.name for p in found).items() if count > 1]
    if twice:
        raise InputError(f"providers names {twice[0]} twice.")
    return tuple(found)


def _parse_provider(item: object, expected: str) -> Provider:
    if isinstance(item, str):
        return Provider(item, {})
    if isinstance(item, tuple | list) and len(item) == 2:
        name, options = item
        if isinstance(name, str) and isinstance(options, Mapping):
            return Provider(name, dict(options))
    raise InputError(f"{item!r} is no provider. {expected}")


def check_providers(providers: Sequence[Provider], engine: Engine) -> None:
    """Refuse a provider that the installed onnxruntime does not have.

    Raises:
        InputError: no onnxruntime knows a provider of this name.
        ProviderError: it is known, and not built into this one.
    """
    have = engine.get_available_providers()
    known = getattr(engine, "get_all_providers", engine.get_available_providers)()
    for provider in providers:
        if provider.name in have:
            continue
        listed = f"The installed onnxruntime {engine.__version__} has: {', '.join(have)}."
        if provider.name not in known:
            raise InputError(f"providers names {provider.name!r}, which onnxruntime does not know. {listed}")
        raise ProviderError(
            f"{provider.name} is not built into the installed onnxruntime. {listed} Install the build that has it: "
            "onnxruntime-gpu (CUDA, TensorRT), onnxruntime-openvino, onnxruntime-directml, ...; one of them alone, "
            "since they share their files."
        )


def device_of(providers: Sequence[Provider]) -> Device:
    """What runs where providers were given by hand: the first of them, "tensorrt:0", "openvino", "cpu"."""
    first = providers[0]
    kind = first.name.removesuffix("ExecutionProvider").lower()
    if kind == "cpu":
        return Device("cpu")
    index = first.options.get("device_id", 0 if kind == "cuda" else None)
    return Device(kind, int(index) if index is not None and str(index).isdecimal() else None)


def providers_of(device: Device, given: Sequence[Provider] | None, layout: str = ROWS) -> list[Provider]:
    """What onnxruntime is handed: the device's own provider, or those that were given, their options untouched.

    CUDA's get trivec's defaults below what was given.
    """
    if given is None:
        # The first device goes unsaid: onnxruntime looks for a plugin by its index, and warns that there is none.
        given = [Provider(KINDS[device.kind], {"device_id": str(device.index)} if device.index else {})]
    return [Provider(p.name, {**cuda_options(layout), **p.options}) if p.name == CUDA else p for p in given]


def cuda_options(layout: str = ROWS) -> dict[str, str]:
    """Options of the CUDA provider that bound its memory, and keep fp32 products in fp32.

    - `use_tf32` is on by default (cuda_execution_provider_info.h), and rounds fp32 factors to 10 bits.
    - The arena doubles by default, and keeps what it has; kSameAsRequested takes what is asked for.
    - `sdpa_kernel` has a bit for each attention kernel (AttentionBackend in attention_common.h): 3 is flash and
      memory-efficient attention. From compute capability 9.0 on, cuDNN's is preferred otherwise, and its plans are
      cached without bound by exact shape (cudnn_flash_attention.cc), of which texts bring many. Padded graphs come in
      few shapes, and their mask of lengths is one that flash attention does not take, so there the choice is left to
      onnxruntime.
    """
    options = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
    return options if layout == PADDED else {**options, "sdpa_kernel": "3"}


def shares(assigned: Iterable[Assigned]) -> dict[str, int]:
    """Nodes of each provider, the one with most first."""
    return dict(Counter(node.provider for node in assigned).most_common())


def check_assigned(assigned: Sequence[Assigned], providers: Sequence[Provider], given: bool) -> None:
    """Refuse a graph that opened on a device, but whose work would be done elsewhere.

    Args:
        assigned: every node of the graph; none where this onnxruntime does not tell.
        providers: in order of preference.
        given: whether the user named the providers: then some of the work may be the CPU's, and is shown.

    Raises:
        IdleProviderError: the first provider runs nothing.
        ProviderError: on CUDA, a matrix product, attention or normalization would run on the CPU.
    """
    first = providers[0].name
    if not assigned or first == CPU:
        return
    if all(node.provider != first for node in assigned):
        raise IdleProviderError(
            f"{first} opened, but runs none of the graph's {len(assigned)} nodes: "
            f"{', '.join(f'{count} go to {name}' for name, count in shares(assigned).items())}. Export the model with: "
            'trivec export; or load with device="cpu".'
        )
    if given:
        return
    strays = Counter(node.op_type for node in assigned if node.provider == CPU and node.op_type in HEAVY)
    if strays:
        raise ProviderError(
            f"{first} leaves {', '.join(f'{count} {op}' for op, count in strays.most_common())} of the graph's "
            f"{len(assigned)} nodes to the CPU, so every run would copy back and forth. Load another precision, or "
            f'with device="cpu"; to run it all the same: providers=["{first}", "{CPU}"].'
        )
