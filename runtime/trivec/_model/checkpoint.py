"""What a checkpoint's files say: which family of vectors, from which transformers and tables, by which routes.

Read by the exporter, and by the runtime for folders that have ONNX graphs but no manifest. The rules follow
sentence-transformers 6.2: `SentenceTransformer._load_default_modules`, `_parse_model_config` and their like in
`SparseEncoder`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from trivec._errors import ModelFormatError
from trivec._model.families import FAMILIES
from trivec._model.json_files import join, read_list, read_object
from trivec._model.late import MULTI_VECTOR, PYLATE, STANFORD, LateSpec, library_classes, read_late
from trivec._model.manifest import SIMILARITIES, Multi, Pooling, Route, Score, Sparse, Step
from trivec._model.modules import (
    CLASSIFY,
    FEATURES,
    FILL_MASK,
    GENERATE,
    TEXT_FEATURES,
    Module,
    TransformerSpec,
    dense_route,
    read_chains,
    read_modules,
    read_transformer,
)
from trivec._model.scores import SCORES, activation, labels
from trivec._model.settings import (
    LATE_TRANSFORMER,
    LOGIT_SCORE,
    MODEL,
    RERANKER,
    SPARSE_TABLE,
    SPLADE_POOLING,
    check_settings,
)
from trivec._model.settings import MULTI_VECTOR as LATE_MODEL
from trivec._model.settings import PYLATE as PYLATE_MODEL
from trivec._model.source import Source
from trivec._model.static_model import refuse_static

HEADS = ("sparse_linear.pt", "colbert_linear.pt")
"""The weights of BGE-M3's heads beside the dense one."""
_SETTINGS = "config_sentence_transformers.json"
_TABLE = "SparseStaticEmbedding"
IDF = "idf.json"  # OpenSearch's name for the weights of query tokens
GTE_TYPES = ("gte", "new")
_INSTRUCTOR = "hkunlp/instructor-"
"""These models leave the prompt out of the pooling, which their 1_Pooling/config.json is too old to say:
sentence-transformers knows them by name (`SentenceTransformer.__init__`)."""
CROSS_ENCODER = "CrossEncoder"
_KINDS = {
    "SentenceTransformer": "auto",
    "SparseEncoder": "splade",
    CROSS_ENCODER: "rerank",
    MULTI_VECTOR: "late",
    PYLATE: "late",
}
"""The classes of sentence-transformers, and PyLate's, that a checkpoint may be saved from, and their families."""
_KNOWN = {CROSS_ENCODER: RERANKER, MULTI_VECTOR: LATE_MODEL, PYLATE: PYLATE_MODEL}
"""The settings of each in config_sentence_transformers.json; of any other, MODEL."""
_NAME = re.compile(r"[\w-][\w .-]{0,99}")


@dataclass(frozen=True)
class TableSpec:
    """A SparseStaticEmbedding module: a tokenizer, and a weight for each of its tokens."""

    folder: str
    weights: str
    """The file: a JSON object of tokens and weights, or "" for the module's own tensors."""


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
    family: str = "dense"
    why: str = "by modules.json"
    """What decided the family, for people."""
    max_active_dims: int | None = None
    tables: Mapping[str, TableSpec] = field(default_factory=dict)
    assumes_pooling: bool = False
    """Whether no file says how token embeddings are pooled, so that it is sentence-transformers' rule for these."""
    late: LateSpec | None = None
    """Of a late-interaction model: how its vectors of tokens are made."""


def read_checkpoint(
    source: Source, family: str = "auto", *, name: str | None = None, own_code: bool = False
) -> Checkpoint:
    """Read modules.json and what it names; without it, what config.json says of the model.

    Args:
        source: the checkpoint.
        family: "auto" goes by the files: BGE-M3's sparse_linear.pt and colbert_linear.pt, then modules.json, then the
            architecture: a token classifier of the gte kind is mGTE, a masked language model SPLADE, anything else
            dense with mean pooling (last token for a causal model). A model that classifies sequences is a reranker,
            one of ColBERT's layouts a late-interaction model.
        name: of the repository on the Hub, where the source is a folder with its files; None: the source's own.
        own_code: see `read_modules`.

    Raises:
        ModelFormatError: a module or setting that trivec does not run, or files that do not fit the family.
        InputError: a static model, which has no graph to export.
    """
    refuse_static(source)
    modules = read_list(source, "modules.json")
    settings = read_object(source, _SETTINGS)
    kind = settings.get("model_type", "SentenceTransformer")
    if kind not in _KINDS:
        raise ModelFormatError(f"{source.name} is a {kind} checkpoint; trivec handles those of {', '.join(_KINDS)}.")
    check_settings(source, _SETTINGS, settings, _KNOWN.get(kind, MODEL))
    family, why = _family(source, family, kind, modules=bool(modules))
    if family == "rerank":
        return _reranker(source, modules, settings if modules else {}, why)
    if family == "late":
        return _late(source, modules, settings, why)
    if modules:
        found = _with_modules(source, read_modules(source, modules, own_code=own_code), family)
    else:
        found = _bare(source, family)
    if family in ("bge-m3", "mgte"):
        found = _with_heads(found, family)
    if leaves_prompt_out(source.name if name is None else name):
        found = replace(found, routes={key: _without_prompt(route) for key, route in found.routes.items()})
    most = settings.get("max_active_dims")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise ModelFormatError(f"{source.name}: max_active_dims must be a whole number above 0, got {most!r}.")
    default = FAMILIES[family].similarity
    similarity = settings.get("similarity_fn_name") or default
    return replace(
        found,
        family=family,
        why=why,
        prompts={"query": "", "document": ""} | {k: v or "" for k, v in settings.get("prompts", {}).items()},
        default_prompt_name=settings.get("default_prompt_name") if modules else None,
        similarity=similarity if similarity in SIMILARITIES else default,
        truncate_dim=settings.get("truncate_dim") if modules and FAMILIES[family].heads == ("dense",) else None,
        max_active_dims=most,
    )


def leaves_prompt_out(name: str) -> bool:
    """Whether a repository's models leave the prompt out of the pooling without saying so in their files."""
    return name.startswith(_INSTRUCTOR)


def check_name(name: str, what: str) -> None:
    """Raise ModelFormatError where a name of the checkpoint's cannot be the name of a folder that an export makes."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise ModelFormatError(
            f"the {what} {name!r} has a name that no folder can have: expected up to 100 letters, digits, spaces, "
            "'.', '_' and '-', neither with a dot in front nor with two in a row."
        )


def _without_prompt(route: Route) -> Route:
    return route if route.pooling is None else replace(route, pooling=replace(route.pooling, include_prompt=False))


def _family(source: Source, asked: str, kind: str, *, modules: bool) -> tuple[str, str]:
    """The family, and what decided it; `kind` is the class that config_sentence_transformers.json names."""
    stated = _KINDS[kind]
    if asked != "auto":
        if stated not in ("auto", asked):
            raise ModelFormatError(f"{source.name} is a {kind} checkpoint, not {asked!r}. Use: --family {stated}")
        return asked, "as asked"
    if stated in ("rerank", "late"):
        return stated, f"by {_SETTINGS}"
    heads = [name for name in HEADS if source.file(name) is not None]
    if heads:  # where one is missing, the export says so
        return "bge-m3", f"by {' and '.join(heads)}"
    config = read_object(source, "config.json")
    architectures = [str(name) for name in config.get("architectures") or [""]]
    if config.get("model_type") in GTE_TYPES and any(name.endswith("ForTokenClassification") for name in architectures):
        return "mgte", "for it is a gte model with token weights"
    if stated != "auto":
        return stated, f"by {_SETTINGS}"
    if modules:
        return "dense", "by modules.json"
    if STANFORD in architectures:
        return "late", f"for its architecture is {STANFORD}"
    if is_classifier(config):
        return "rerank", f"for {architectures[0]} scores pairs"
    if architectures[0].endswith("ForMaskedLM"):
        return "splade", f"for {architectures[0]} without modules.json stands for SPLADE"
    return "dense", "for there is no modules.json"


def graph_family(source: Source) -> str:
    """The family of a model whose graphs are not ours: "rerank" where it scores pairs, else "dense".

    Sparse and multi-vector heads need graphs of our own.
    """
    kind = _KINDS.get(read_object(source, _SETTINGS).get("model_type", ""))
    bare = not read_list(source, "modules.json") and is_classifier(read_object(source, "config.json"))
    return "rerank" if kind == "rerank" or bare else "dense"


def is_classifier(config: Mapping[str, Any]) -> bool:
    """Whether config.json is of a model that gives logits of labels."""
    return any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ())


def _reranker(source: Source, listed: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], why: str) -> Checkpoint:
    """A cross-encoder; without modules.json, sentence-transformers reads no settings of it either."""
    modules = read_modules(source, listed)
    kinds = [module.kind for module in modules]
    if modules and kinds not in (["Transformer"], ["Transformer", "LogitScore"]):
        raise ModelFormatError(
            f"{source.name} has the modules {', '.join(kinds)}; trivec runs CrossEncoder models of a Transformer, and "
            "of Transformer and LogitScore."
        )
    transformer = read_transformer(source, modules[0].path if modules else "", has_modules=bool(modules))
    decoder = len(kinds) > 1 if modules else _is_language_model(transformer.config)
    if modules and transformer.task != (GENERATE if decoder else CLASSIFY):
        raise ModelFormatError(f"{source.name}: the Transformer of a CrossEncoder gives {transformer.task}, no scores.")
    if decoder:
        yes_no = _yes_no(source, modules[1].path) if modules else None
        transformer = replace(transformer, task=GENERATE, yes_no=yes_no)
    else:
        transformer = replace(transformer, task=CLASSIFY)
    names = ("LABEL_0",) if decoder else labels(source, transformer.config)
    score = Score(SCORES, names, activation(source, settings, transformer.config, len(names)))
    return Checkpoint(
        {"main": transformer},
        {"default": Route("main", None, score=score)},
        "default",
        {name: text or "" for name, text in (settings.get("prompts") or {}).items()},
        settings.get("default_prompt_name"),
        has_modules=bool(modules),
        family="rerank",
        why=why,
    )


def _yes_no(source: Source, folder: str) -> tuple[int, int | None]:
    """The tokens of a LogitScore module: of a pair that fits, and of one that does not, where that counts."""
    path = join(folder, "config.json")
    config = read_object(source, path)
    check_settings(source, path, config, LOGIT_SCORE)
    yes, no = config.get("true_token_id"), config.get("false_token_id")
    if not _is_token(yes) or not (no is None or _is_token(no)):
        raise ModelFormatError(
            f"{source.name}: {path} has true_token_id = {yes!r} and false_token_id = {no!r}; expected numbers of "
            "tokens."
        )
    return cast("int", yes), no


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _late(source: Source, listed: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], why: str) -> Checkpoint:
    """A late-interaction model: sentence-transformers 6's, PyLate's, or Stanford's folder."""
    modules = read_modules(source, library_classes(listed))
    found = read_late(source, settings, modules)
    folder = modules[0].path if modules else ""
    transformer = read_transformer(source, folder, has_modules=bool(modules), allowed=LATE_TRANSFORMER)
    if transformer.task != FEATURES or transformer.message is not None:
        what = "a chat template" if transformer.message is not None else transformer.task
        raise ModelFormatError(
            f"{source.name}: its texts go through {what}; of late-interaction models trivec runs plain text encoders. "
            "Use sentence-transformers for this model."
        )
    similarity = str(settings.get("similarity_fn_name")).lower()
    return Checkpoint(
        {"main": transformer},
        found.routes,
        "document",
        {"query": "", "document": ""} | {name: text or "" for name, text in found.prompts.items()},
        settings.get("default_prompt_name"),
        similarity if similarity in FAMILIES["late"].similarities else FAMILIES["late"].similarity,
        has_modules=bool(modules),
        family="late",
        why=why,
        late=found.spec,
    )


def _bare(source: Source, family: str) -> Checkpoint:
    """A transformers checkpoint without modules."""
    transformer = read_transformer(source, "", has_modules=False)
    if family == "splade":
        transformer = replace(transformer, task=FILL_MASK, splade=("max", "relu"))
        routes = {"default": _splade_route("main", transformer)}
        if source.file(IDF) is None:
            return Checkpoint({"main": transformer}, routes, "default", has_modules=False)
        # OpenSearch's inference-free models: queries are the weights of their tokens
        routes = {"query": _table_route("query", transformer), "document": _splade_route("main", transformer)}
        return Checkpoint(
            {"main": transformer}, routes, "document", has_modules=False, tables={"query": TableSpec("", IDF)}
        )
    assumes = False
    if transformer.task == TEXT_FEATURES:
        route = Route(pooling=None)
    elif family in ("bge-m3", "mgte"):
        route = Route(pooling=Pooling(("cls",)), steps=(Step("normalize"),))
    else:
        assumes = True
        route = Route(pooling=Pooling(("lasttoken" if _is_causal(transformer.config) else "mean",)))
    routes = {"default": route}
    return Checkpoint({"main": transformer}, routes, "default", has_modules=False, assumes_pooling=assumes)


def _with_modules(source: Source, modules: Sequence[Module], family: str) -> Checkpoint:
    """A sentence-transformers checkpoint."""
    listed, default_route = read_chains(source, modules)
    transformers: dict[str, TransformerSpec] = {}
    tables: dict[str, TableSpec] = {}
    names: dict[str, str] = {}
    routes: dict[str, Route] = {}
    # Routes with a transformer first: theirs is the encoder that is called main.
    for name, chain in sorted(listed.items(), key=lambda item: item[1][0].kind == _TABLE):
        folder = chain[0].path
        if folder not in names:
            names[folder] = "main" if not names and chain[0].kind != _TABLE else name
            check_name(name, "route")
            if chain[0].kind == _TABLE:
                tables[names[folder]] = _table(source, chain)
            else:
                transformers[names[folder]] = read_transformer(source, folder, has_modules=True)
        encoder = names[folder]
        if family != "splade":
            tower = transformers[encoder].task == TEXT_FEATURES
            routes[name] = dense_route(source, encoder, chain, tower=tower)
            task = transformers[encoder].task
            if task in (FILL_MASK, CLASSIFY, GENERATE):
                raise ModelFormatError(
                    f"{source.name}: a {family} model's Transformer has transformer_task = {task!r}."
                )
        elif encoder in tables:
            routes[name] = _table_route(encoder, next(iter(transformers.values()), None))
        else:
            transformers[encoder] = _masked(source, transformers[encoder], chain)
            routes[name] = _splade_route(encoder, transformers[encoder])
    if not transformers:
        raise ModelFormatError(f"{source.name} has no Transformer: a table of weights alone is not supported.")
    return Checkpoint(transformers, {name: routes[name] for name in listed}, default_route, tables=tables)


def _masked(source: Source, transformer: TransformerSpec, chain: Sequence[Module]) -> TransformerSpec:
    """A route's masked language model with the pooling that follows it."""
    kinds = [module.kind for module in chain]
    if kinds not in (["Transformer", "SpladePooling"], ["MLMTransformer", "SpladePooling"]):
        raise ModelFormatError(
            f"{source.name} has the modules {', '.join(kinds)}; trivec runs SparseEncoder models of Transformer and "
            "SpladePooling, and of SparseStaticEmbedding for queries."
        )
    path = join(chain[1].path, "config.json")
    config = read_object(source, path)
    check_settings(source, path, config, SPLADE_POOLING)
    pooling = (config.get("pooling_strategy", "max"), config.get("activation_function", "relu"))
    if pooling[0] not in ("max", "sum") or pooling[1] not in ("relu", "log1p_relu"):
        raise ModelFormatError(
            f"{source.name}: SpladePooling has pooling_strategy {pooling[0]!r} and activation_function {pooling[1]!r}; "
            "known: max, sum; relu, log1p_relu."
        )
    if transformer.splade not in (None, pooling):
        raise ModelFormatError(
            f"{source.name}: one Transformer has two SpladePoolings, {transformer.splade}, {pooling}."
        )
    return replace(transformer, task=FILL_MASK, splade=pooling)


def _splade_route(encoder: str, transformer: TransformerSpec) -> Route:
    """Its activation and dim are set when the graph is made."""
    return Route(encoder, None, sparse=Sparse("splade", _vocabulary(transformer), "pooled_logits"))


def _table_route(encoder: str, transformer: TransformerSpec | None) -> Route:
    dim = 1 if transformer is None else _vocabulary(transformer)
    return Route(encoder, None, sparse=Sparse("table", dim, array=f"{encoder}.weights"))


def _table(source: Source, chain: Sequence[Module]) -> TableSpec:
    if len(chain) > 1:
        kinds = ", ".join(module.kind for module in chain)
        raise ModelFormatError(f"{source.name} has the modules {kinds}; trivec runs {_TABLE} alone.")
    settings = join(chain[0].path, "config.json")
    config = read_object(source, settings)
    check_settings(source, settings, config, SPARSE_TABLE)
    path = config.get("path")
    if not path:
        return TableSpec(chain[0].path, "")
    places = [join(chain[0].path, path), join("", path)]
    found = next((place for place in places if source.file(place) is not None), None)
    if found is None:
        raise ModelFormatError(f"{source.name}: {_TABLE} takes its weights from {path!r}, which is not there.")
    return TableSpec(chain[0].path, found)


def _with_heads(checkpoint: Checkpoint, family: str) -> Checkpoint:
    """A dense checkpoint's routes with the heads of BGE-M3 or mGTE; their dims are set when the graph is made."""
    routes = {}
    for name, route in checkpoint.routes.items():
        transformer = checkpoint.transformers[route.encoder]
        sparse = Sparse("lexical", _vocabulary(transformer), "token_weights")
        multi = Multi("colbert_vecs", 1) if family == "bge-m3" else None
        routes[name] = replace(route, sparse=sparse, multi=multi)
    return replace(checkpoint, routes=routes)


def _vocabulary(transformer: TransformerSpec) -> int:
    size = transformer.config.get("vocab_size")
    if not isinstance(size, int) or size < 1:
        raise ModelFormatError(f"config.json has vocab_size {size!r}, expected the number of tokens.")
    return size


def _is_causal(config: Mapping[str, Any]) -> bool:
    """A model that was designed as a causal language model, and not turned bidirectional since."""
    return _is_language_model(config) and bool(config.get("is_causal", True))


def _is_language_model(config: Mapping[str, Any]) -> bool:
    """Whether config.json is of a model that gives logits of the next token."""
    architectures = config.get("architectures") or [""]
    return str(architectures[0]).endswith("ForCausalLM")
