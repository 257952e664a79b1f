"""The modules of a sentence-transformers checkpoint, read from JSON in both generations of their keys.

The rules follow sentence-transformers 6.2: `Transformer.load_config`, `Pooling.load_config`, `Router.load`.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trivec._errors import ModelFormatError
from trivec._model import settings as known
from trivec._model.json_files import join, read_object
from trivec._model.manifest import ACTIVATIONS, POOLING_MODES, Pooling, Route, Step
from trivec._model.settings import check_settings
from trivec._model.source import Source

FEATURES, FILL_MASK, TEXT_FEATURES = "feature-extraction", "fill-mask", "text-features"
"""What a Transformer gives: token embeddings, logits over the vocabulary, or, the text tower of a model of texts and
images, one vector a text."""
CLASSIFY = "text-classification"
"""The same: logits of labels, of a pair of texts."""
GENERATE = "text-generation"
"""The same: logits of the next token, of which two are a pair's score."""
_TASKS = {FEATURES: FEATURES, FILL_MASK: FILL_MASK, "sequence-classification": CLASSIFY, GENERATE: GENERATE}
"""By sentence-transformers' names; ours are Optimum's."""
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
_LIBRARY = "sentence_transformers"
_ARGUMENTS = {"model": "model_args", "config": "config_args", "processor": "tokenizer_args"}
"""What is handed to from_pretrained: `<kind>_kwargs`, and its older name."""
_LONGEST_KEY = 200  # of what is parsed as Python
_MOST_ROUTES = 256
MESSAGE = "message"
"""The modality of texts that go through the tokenizer's chat template."""


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
    yes_no: tuple[int, int | None] | None = None
    """LogitScore's tokens, of a causal language model: a pair's score is the logit of the first less that of the
    second; None: those of "yes" and "no"."""
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    config_kwargs: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """What sentence-transformers hands to `from_pretrained` of the model, the config (`config` has it) and the
    tokenizer."""
    message: Mapping[str, Any] | None = None
    """How texts go through the tokenizer's chat template: `format` ("flat", "structured" or "auto") and the arguments
    of the template; None: they do not."""


@dataclass(frozen=True)
class Module:
    """An entry of modules.json or of a Router."""

    kind: str
    path: str


def read_modules(source: Source, listed: Sequence[Mapping[str, Any]], *, own_code: bool = False) -> list[Module]:
    """The entries of modules.json.

    Args:
        source: the checkpoint.
        listed: its modules.json.
        own_code: take a class of the repository's own for the library's of the same name. For callers that compare
            the vectors with those of that class, or that know the layout.

    Raises:
        ModelFormatError: a class of the repository's own, or a setting that is not understood.
    """
    modules = []
    for entry in listed:
        kind, path = str(entry["type"]), str(entry["path"])
        if own_code:
            check_settings(source, "modules.json", {**entry, "kwargs": None}, known.MODULES)
        else:
            _check_class(source, kind, path)
            check_settings(source, "modules.json", entry, known.MODULES)
        modules.append(Module(kind.rpartition(".")[2], path))
    return modules


def _check_class(source: Source, kind: str, path: str) -> None:
    """Raise where a class is not the library's."""
    if kind.split(".", maxsplit=1)[0] != _LIBRARY:
        raise ModelFormatError(
            f"{source.name}: the module in {path!r} is {kind}, code of the repository's own, and what it computes "
            "cannot be known from its name. Read that code; where it is the same as the library's, export with "
            "--trust-remote-code, which runs it and compares."
        )


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
        for kind in config["types"].values():
            _check_class(source, str(kind), module.path)
        check_settings(source, join(module.path, "router_config.json"), config.get("parameters", {}), known.ROUTER)
        if len(config["structure"]) > _MOST_ROUTES:
            raise ModelFormatError(f"{source.name}: the Router in {module.path!r} has over {_MOST_ROUTES} routes.")
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
        task, modality = ast.literal_eval(key if len(key) < _LONGEST_KEY else "")
        if modality not in (None, "text"):
            continue
        if target not in chains:
            raise ModelFormatError(f"{source.name}: the Router maps {key} to {target!r}, which it does not have.")
        if task is None:
            default = target
        else:
            named[task] = chains[target]
    return named, default


def dense_route(source: Source, encoder: str, chain: Sequence[Module], *, tower: bool = False) -> Route:
    """Transformer, Pooling, then Dense, LayerNorm and Normalize in any order; a text tower pools by itself."""
    kinds = [module.kind for module in chain]
    if tower:
        return Route(encoder, None, read_steps(source, chain[1:]))
    if len(chain) < 2 or kinds[:2] != ["Transformer", "Pooling"]:
        raise ModelFormatError(
            f"{source.name} has the modules {', '.join(kinds)}; a dense model starts with Transformer, Pooling."
        )
    return Route(encoder, read_pooling(source, chain[1].path), read_steps(source, chain[2:]))


def read_steps(
    source: Source, modules: Sequence[Module], allowed: Mapping[str, known.Known] = known.STEPS
) -> tuple[Step, ...]:
    """What follows the vectors: Dense, LayerNorm and Normalize in any order; `allowed` has the settings of each."""
    steps = [_step(source, module, allowed) for module in modules]
    return tuple(step for step in steps if step is not None)


def read_pooling(source: Source, folder: str) -> Pooling:
    """What a Pooling module's folder says."""
    path = join(folder, "config.json")
    if source.file(path) is None:
        raise ModelFormatError(f"{source.name} has no {path}, which says how it pools. Fetch the whole model again.")
    config = read_object(source, path)
    check_settings(source, path, config, known.pooling(_LEGACY_POOLING))
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _LEGACY_POOLING.items() if config.get(key, False)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes:
        raise ModelFormatError(
            f"{source.name}: pooling_mode {modes!r} in {path} names no mode; expected some of "
            f"{', '.join(POOLING_MODES)}."
        )
    for mode in modes:
        if mode not in POOLING_MODES:
            raise ModelFormatError(f"{source.name}: pooling mode {mode!r} is none of {', '.join(POOLING_MODES)}.")
    return Pooling(tuple(modes), bool(config.get("include_prompt", True)))


def _step(source: Source, module: Module, allowed: Mapping[str, known.Known]) -> Step | None:
    path = join(module.path, "config.json")
    config = read_object(source, path)
    if module.kind in allowed:
        check_settings(source, path, config, allowed[module.kind])
    if module.kind == "Dropout":
        return None  # the identity when encoding
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


def read_transformer(
    source: Source, folder: str, *, has_modules: bool, allowed: known.Known = known.TRANSFORMER
) -> TransformerSpec:
    """What a Transformer module's files say; without modules.json, what transformers' own say."""
    settings: Mapping[str, Any] = {}
    for name in _TRANSFORMER_CONFIGS if has_modules else ():
        settings = read_object(source, join(folder, name))
        if settings:
            check_settings(source, join(folder, name), settings, allowed)
            break
    given = {kind: _arguments(settings, kind) for kind in _ARGUMENTS}
    config = {**read_object(source, join(folder, "config.json")), **given["config"]}
    tokenizer = read_object(source, join(folder, "tokenizer_config.json"))
    tower = "vision_config" in config
    positions = (config.get("text_config") or {} if tower else config).get("max_position_embeddings")
    positions = positions if isinstance(positions, int) and positions > 0 else None
    task = settings.get("transformer_task", FEATURES)
    if task == FEATURES and tower:
        task = TEXT_FEATURES
    elif task not in _TASKS:
        raise ModelFormatError(
            f"{source.name}: the Transformer has transformer_task = {task!r}; known: {', '.join(_TASKS)}."
        )
    task = _TASKS.get(task, task)
    processing = _processing(source, settings.get("processing_kwargs") or {})
    length = given["processor"].get("model_max_length", settings.get("max_seq_length"))
    if length is None:
        limits = [n for n in (tokenizer.get("model_max_length"), positions) if n is not None and n < NO_LIMIT]
        length = min(limits, default=None)
    length = processing["text"].get("max_length", length)
    return TransformerSpec(
        folder,
        None if length is None or length >= NO_LIMIT else int(length),
        positions,
        bool(settings.get("do_lower_case", False)),
        given["processor"].get("truncation_side", tokenizer.get("truncation_side", "right")),
        config,
        task,
        model_kwargs=given["model"],
        config_kwargs=given["config"],
        tokenizer_kwargs=given["processor"],
        message=_message(source, settings.get("modality_config") or {}, task, processing["chat_template"]),
    )


def _arguments(settings: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """What is handed to a `from_pretrained`; a checkpoint cannot say that its own code is to be trusted."""
    found = settings.get(_ARGUMENTS[kind]) or settings.get(f"{kind}_kwargs") or {}
    return {key: value for key, value in found.items() if key != "trust_remote_code"}


def _processing(source: Source, processing: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The arguments with which texts are tokenized: a length, and the chat template's own."""
    text = {**(processing.get("common") or {}), **(processing.get("text") or {})}
    allowed: known.Known = {
        "max_length": None,
        "padding": None,
        "truncation": (True, "longest_first"),
        "return_tensors": None,
    }
    check_settings(source, "processing_kwargs", text, allowed)
    pictures = dict.fromkeys(("text", "common", "chat_template", "image", "audio", "video"))
    check_settings(source, "processing_kwargs", processing, pictures)
    return {"text": text, "chat_template": processing.get("chat_template") or {}}


def _message(
    source: Source, modalities: Mapping[str, Any], task: str, arguments: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """How texts reach the model by `modality_config`: as they are, or through the chat template."""
    output = {FEATURES: "last_hidden_state", TEXT_FEATURES: "pooler_output"}.get(task, "logits")
    usual = {"method": "get_text_features" if task == TEXT_FEATURES else "forward", "method_output_name": output}
    for name in ("text", MESSAGE):
        params = {key: value for key, value in (modalities.get(name) or {}).items() if key != "format"}
        if params and params not in (usual, {**usual, "method_output_name": None}):
            raise ModelFormatError(
                f"{source.name}: the Transformer's modality_config has {name} = {params!r}; trivec takes {usual!r}."
            )
    if MESSAGE not in modalities:
        return None
    return {"format": modalities[MESSAGE].get("format", "auto"), "arguments": arguments}
