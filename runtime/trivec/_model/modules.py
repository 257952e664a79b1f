"""The modules of a sentence-transformers checkpoint, read from JSON in both generations of their keys.

The rules follow sentence-transformers 6.2: `Transformer.load_config`, `Pooling.load_config`, `Router.load`.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trivec._errors import ModelFormatError
from trivec._model.json_files import join, read_object
from trivec._model.manifest import ACTIVATIONS, POOLING_MODES, Pooling, Route, Step
from trivec._model.source import Source

FEATURES, FILL_MASK = "feature-extraction", "fill-mask"
NO_LIMIT = 10**6  # transformers writes 1e30 where a tokenizer has no limit
_TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
_LEGACY_POOLING = {  # in the order in which several are concatenated
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATION_CLASSES = {name.replace("_", ""): name for name in ACTIVATIONS}  # torch.nn.LeakyReLU -> leaky_relu
# Settings of newer modules that change a dense vector and that trivec does not do: anything but these values raises.
_NEUTRAL = {
    "query_length": None,
    "document_length": None,
    "query_expansion": None,
    "processing_kwargs": None,
    "module_output_name": "token_embeddings",
}


@dataclass(frozen=True)
class TransformerSpec:
    """A Transformer module: where its files are and how texts reach it."""

    folder: str
    max_seq_length: int | None
    max_positions: int | None
    lower_case: bool
    truncation_side: str
    config: Mapping[str, Any]
    task: str = FEATURES
    splade: tuple[str, str] | None = None
    """SpladePooling's strategy and activation, of a masked language model."""


@dataclass(frozen=True)
class Module:
    """An entry of modules.json or of a Router."""

    kind: str
    path: str


def read_chains(source: Source, modules: Sequence[Module]) -> tuple[dict[str, list[Module]], str | None]:
    """Each route's modules in order, and the route taken when a call names none."""
    chains: dict[str, list[Module]] = {"default": []}
    default: str | None = "default"
    for module in modules:
        if module.kind not in ("Router", "Asym"):
            for chain in chains.values():
                chain.append(module)
            continue
        if list(chains) != ["default"]:
            raise ModelFormatError(f"{source.name} has more than one Router ({module.path}); trivec runs one.")
        config = read_object(source, join(module.path, "router_config.json")) or read_object(
            source, join(module.path, "config.json")
        )
        if not {"types", "structure"} <= config.keys():
            raise ModelFormatError(f"{source.name}: the Router in {module.path!r} has no types and structure.")
        kinds = {key: kind.rpartition(".")[2] for key, kind in config["types"].items()}
        prefix = chains["default"]
        chains = {
            name: prefix + [Module(kinds[key], join(module.path, key)) for key in keys]
            for name, keys in config["structure"].items()
        }
        chains, default = _aliases(source, chains, config.get("parameters", {}))
    return chains, default


def _aliases(
    source: Source, chains: dict[str, list[Module]], parameters: Mapping[str, Any]
) -> tuple[dict[str, list[Module]], str | None]:
    """Route names as `Router._resolve_route_name` answers them for texts, and the default."""
    default = parameters.get("default_route")
    if default is None and parameters.get("allow_empty_key", True):
        default = next(iter(chains))
    named = dict(chains)
    for key, target in (parameters.get("route_mappings") or {}).items():
        task, modality = ast.literal_eval(key)
        if modality not in (None, "text"):
            continue
        if target not in chains:
            raise ModelFormatError(f"{source.name}: the Router maps {key} to {target!r}, which it does not have.")
        if task is None:
            default = target
        else:
            named[task] = chains[target]
    return named, default


def dense_route(source: Source, encoder: str, chain: Sequence[Module]) -> Route:
    """Transformer, Pooling, then Dense, LayerNorm and Normalize in any order."""
    kinds = [module.kind for module in chain]
    if len(chain) < 2 or kinds[:2] != ["Transformer", "Pooling"]:
        raise ModelFormatError(
            f"{source.name} has the modules {', '.join(kinds)}; a dense model starts with Transformer, Pooling."
        )
    return Route(encoder, _pooling(source, chain[1].path), read_steps(source, chain[2:]))


def read_steps(source: Source, modules: Sequence[Module]) -> tuple[Step, ...]:
    """What follows one vector a text: Dense, LayerNorm and Normalize in any order."""
    return tuple(_step(source, module) for module in modules if module.kind != "Dropout")  # identity when encoding


def _pooling(source: Source, folder: str) -> Pooling:
    config = read_object(source, join(folder, "config.json"))
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _LEGACY_POOLING.items() if config.get(key, False)] or ["mean"]
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    for mode in modes:
        if mode not in POOLING_MODES:
            raise ModelFormatError(f"{source.name}: pooling mode {mode!r} is none of {', '.join(POOLING_MODES)}.")
    return Pooling(modes, bool(config.get("include_prompt", True)))


def _step(source: Source, module: Module) -> Step:
    config = read_object(source, join(module.path, "config.json"))
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise ModelFormatError(
                f"{source.name}: {module.kind} in {module.path!r} has {key} {config[key]!r}; trivec's dense models "
                "apply it to sentence_embedding only."
            )
    if module.kind == "Normalize":
        return Step("normalize")
    if module.kind == "LayerNorm":
        return Step("layer_norm", arrays=module.path)
    if module.kind == "Dense":
        name = config.get("activation_function", "torch.nn.modules.activation.Tanh").rpartition(".")[2]
        activation = _ACTIVATION_CLASSES.get(name.lower())
        if activation is None:
            raise ModelFormatError(
                f"{source.name}: Dense in {module.path!r} has the activation {name}; known: {', '.join(ACTIVATIONS)}."
            )
        return Step("dense", module.path, activation, bool(config.get("use_residual", False)))
    raise ModelFormatError(
        f"{source.name} has the module {module.kind} ({module.path!r}); trivec runs Transformer, Pooling, Dense, "
        "LayerNorm, Normalize, Dropout and Router."
    )


def read_transformer(source: Source, folder: str, *, has_modules: bool) -> TransformerSpec:
    settings: Mapping[str, Any] = {}
    for name in _TRANSFORMER_CONFIGS if has_modules else ():
        settings = read_object(source, join(folder, name))
        if settings:
            break
    for key, neutral in _NEUTRAL.items():
        if settings.get(key, neutral) not in (neutral, {}):
            raise ModelFormatError(
                f"{source.name}: the Transformer has {key} = {settings[key]!r}; trivec's dense models take {neutral!r}."
            )
    config = read_object(source, join(folder, "config.json"))
    tokenizer = read_object(source, join(folder, "tokenizer_config.json"))
    processor = settings.get("processor_kwargs") or settings.get("tokenizer_args") or {}
    positions = config.get("max_position_embeddings")
    positions = positions if isinstance(positions, int) and positions > 0 else None
    task = settings.get("transformer_task", FEATURES)
    if task not in (FEATURES, FILL_MASK):
        raise ModelFormatError(
            f"{source.name}: the Transformer has transformer_task = {task!r}; known: {FEATURES}, {FILL_MASK}."
        )
    length = processor.get("model_max_length", settings.get("max_seq_length"))
    if length is None:
        limits = [n for n in (tokenizer.get("model_max_length"), positions) if n is not None and n < NO_LIMIT]
        length = min(limits, default=None)
    return TransformerSpec(
        folder,
        None if length is None or length >= NO_LIMIT else int(length),
        positions,
        bool(settings.get("do_lower_case", False)),
        processor.get("truncation_side", tokenizer.get("truncation_side", "right")),
        config,
        task,
    )
