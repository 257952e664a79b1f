"""What a checkpoint's JSON files say: sentence-transformers' modules in both generations of their keys, or none.

Read by the exporter, and by the runtime for folders that have ONNX graphs but no manifest. The rules follow
sentence-transformers 6.2: `Transformer.load_config`, `Pooling.load_config`, `Router.load`,
`SentenceTransformer._load_default_modules` and `_parse_model_config`.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from trivec._errors import ModelFormatError
from trivec._manifest import ACTIVATIONS, POOLING_MODES, SIMILARITIES, Pooling, Route, Step
from trivec._source import Source

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
    "transformer_task": "feature-extraction",
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


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as its JSON files describe it; steps name the folder of their weights in `arrays`."""

    transformers: Mapping[str, TransformerSpec]
    routes: Mapping[str, Route]
    default_route: str | None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str = "cosine"
    truncate_dim: int | None = None
    has_modules: bool = True


@dataclass(frozen=True)
class _Module:
    kind: str
    path: str


def read_checkpoint(source: Source) -> Checkpoint:
    """Read modules.json and what it names; without it, mean pooling (last token for a causal model).

    Raises:
        ModelFormatError: a module or setting that trivec does not run; the message names it.
    """
    modules = _read_list(source, "modules.json")
    settings = _read(source, "config_sentence_transformers.json")
    if settings.get("model_type", "SentenceTransformer") != "SentenceTransformer":
        raise ModelFormatError(
            f"{source.name} is a {settings['model_type']} checkpoint; this version of trivec handles dense "
            "SentenceTransformer models."
        )
    prompts = {"query": "", "document": ""} | {k: v or "" for k, v in settings.get("prompts", {}).items()}
    similarity = settings.get("similarity_fn_name") or "cosine"
    if not modules:
        transformer = _transformer(source, "", has_modules=False)
        mode = "lasttoken" if _is_causal(transformer.config) else "mean"
        return Checkpoint(
            {"main": transformer},
            {"default": Route(pooling=Pooling((mode,)))},
            "default",
            prompts,
            has_modules=False,
        )
    chains, default_route = _chains(source, [_Module(m["type"].rpartition(".")[2], m["path"]) for m in modules])
    transformers: dict[str, TransformerSpec] = {}
    names: dict[str, str] = {}
    routes = {}
    for name, chain in chains.items():
        folder = chain[0].path
        if folder not in names:
            names[folder] = "main" if not names else name
            transformers[names[folder]] = _transformer(source, folder, has_modules=True)
        routes[name] = _route(source, names[folder], chain)
    return Checkpoint(
        transformers,
        routes,
        default_route,
        prompts,
        settings.get("default_prompt_name"),
        similarity if similarity in SIMILARITIES else "cosine",
        settings.get("truncate_dim"),
    )


def _chains(source: Source, modules: Sequence[_Module]) -> tuple[dict[str, list[_Module]], str | None]:
    """Each route's modules in order, and the route taken when a call names none."""
    chains: dict[str, list[_Module]] = {"default": []}
    default: str | None = "default"
    for module in modules:
        if module.kind not in ("Router", "Asym"):
            for chain in chains.values():
                chain.append(module)
            continue
        if list(chains) != ["default"]:
            raise ModelFormatError(f"{source.name} has more than one Router ({module.path}); trivec runs one.")
        config = _read(source, _join(module.path, "router_config.json")) or _read(
            source, _join(module.path, "config.json")
        )
        if not {"types", "structure"} <= config.keys():
            raise ModelFormatError(f"{source.name}: the Router in {module.path!r} has no types and structure.")
        kinds = {key: kind.rpartition(".")[2] for key, kind in config["types"].items()}
        prefix = chains["default"]
        chains = {
            name: prefix + [_Module(kinds[key], _join(module.path, key)) for key in keys]
            for name, keys in config["structure"].items()
        }
        chains, default = _aliases(source, chains, config.get("parameters", {}))
    return chains, default


def _aliases(
    source: Source, chains: dict[str, list[_Module]], parameters: Mapping[str, Any]
) -> tuple[dict[str, list[_Module]], str | None]:
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


def _route(source: Source, encoder: str, chain: Sequence[_Module]) -> Route:
    """Transformer, Pooling, then Dense, LayerNorm and Normalize in any order."""
    kinds = [module.kind for module in chain]
    if len(chain) < 2 or kinds[:2] != ["Transformer", "Pooling"]:
        raise ModelFormatError(
            f"{source.name} has the modules {', '.join(kinds)}; a dense model starts with Transformer, Pooling."
        )
    steps = [_step(source, module) for module in chain[2:] if module.kind != "Dropout"]  # identity when encoding
    return Route(encoder, _pooling(source, chain[1].path), tuple(steps))


def _pooling(source: Source, folder: str) -> Pooling:
    config = _read(source, _join(folder, "config.json"))
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _LEGACY_POOLING.items() if config.get(key, False)] or ["mean"]
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    for mode in modes:
        if mode not in POOLING_MODES:
            raise ModelFormatError(f"{source.name}: pooling mode {mode!r} is none of {', '.join(POOLING_MODES)}.")
    return Pooling(modes, bool(config.get("include_prompt", True)))


def _step(source: Source, module: _Module) -> Step:
    config = _read(source, _join(module.path, "config.json"))
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


def _transformer(source: Source, folder: str, *, has_modules: bool) -> TransformerSpec:
    settings: Mapping[str, Any] = {}
    for name in _TRANSFORMER_CONFIGS if has_modules else ():
        settings = _read(source, _join(folder, name))
        if settings:
            break
    for key, neutral in _NEUTRAL.items():
        if settings.get(key, neutral) not in (neutral, {}):
            raise ModelFormatError(
                f"{source.name}: the Transformer has {key} = {settings[key]!r}; trivec's dense models take {neutral!r}."
            )
    config = _read(source, _join(folder, "config.json"))
    tokenizer = _read(source, _join(folder, "tokenizer_config.json"))
    processor = settings.get("processor_kwargs") or settings.get("tokenizer_args") or {}
    positions = config.get("max_position_embeddings")
    positions = positions if isinstance(positions, int) and positions > 0 else None
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
    )


def _is_causal(config: Mapping[str, Any]) -> bool:
    """A model that was designed as a causal language model, and not turned bidirectional since."""
    architectures = config.get("architectures") or [""]
    return bool(architectures[0].endswith("ForCausalLM") and config.get("is_causal", True))


def _join(folder: str, name: str) -> str:
    path = PurePosixPath(folder) / name
    if path.is_absolute() or ".." in path.parts:
        raise ModelFormatError(f"the module path {folder!r} leaves the model folder.")
    return path.as_posix()


def _read(source: Source, path: str) -> dict[str, Any]:
    """A JSON object, or an empty one where the file does not exist."""
    value = _parse(source, path)
    if not isinstance(value, dict | None):
        raise ModelFormatError(f"{source.name}: {path} holds no JSON object.")
    return value or {}


def _read_list(source: Source, path: str) -> list[dict[str, Any]]:
    value = _parse(source, path)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(m, dict) and {"type", "path"} <= m.keys() for m in value):
        raise ModelFormatError(f"{source.name}: {path} holds no list of modules.")
    return value


def _parse(source: Source, path: str) -> Any:  # noqa: ANN401 - a JSON value
    file = source.file(path)
    if file is None:
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFormatError(f"{source.name}: {path} is not valid JSON ({error}).") from error
