"""What a late-interaction (ColBERT) checkpoint's files say, in its three layouts.

sentence-transformers 6 (`MultiVectorEncoder`), PyLate (`ColBERT`) and Stanford's own (`HF_ColBERT`). The rules follow
`MultiVectorEncoder` of sentence-transformers 6.2: `_parse_model_config`, `_maybe_load_stanford_metadata`,
`_load_default_modules`.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from trivec._errors import ModelFormatError
from trivec._model.json_files import join, read_object
from trivec._model.manifest import Expansion, Multi, Route, Step
from trivec._model.modules import Module, read_steps
from trivec._model.settings import LATE_MASK, LATE_STEPS, check_settings
from trivec._model.source import Source

MULTI_VECTOR, PYLATE, STANFORD = "MultiVectorEncoder", "ColBERT", "HF_ColBERT"
"""The first two by model_type in config_sentence_transformers.json, the last by the architecture in config.json."""
METADATA = "artifact.metadata"
"""Stanford's settings, a JSON file."""
LINEAR = "linear.weight"
"""Stanford's projection (D, H), among the weights of the transformer."""
TOKEN_VECTORS = "token_vectors"  # noqa: S105 - an output, no password
"""The output of our graphs: (B, S, D), not normalized."""
_CLASSES = {"pylate.models.Dense.Dense": "sentence_transformers.base.modules.dense.Dense"}
"""PyLate's layers by the names of those that compute the same."""
_LENGTH = 32  # tokens of a query, as ColBERT has it (Khattab & Zaharia 2020, section 3.2)
_TASKS = ("query", "document")
_MARKERS = {"query": "[unused0]", "document": "[unused1]"}
_LEGACY_KEYS = (
    *("query_length", "document_length", "do_query_expansion", "attend_to_expansion_tokens"),
    *("attend_to_mask_tokens", "query_prefix", "document_prefix", "skiplist_words"),
)


@dataclass(frozen=True)
class LateSpec:
    """What turns a transformer's states into vectors, as far as words and files tell; ids are the tokenizer's."""

    layers: tuple[Step, ...]
    """Dense layers, in order, each with the folder of its weights; without one: Stanford's, among the transformer's."""
    skipped: Mapping[str, tuple[str, ...]]
    """By route, the words whose vectors are dropped."""
    markers: Mapping[str, str]
    """By route, what stood before its texts in training, where that was a token, as "[Q] "; a tokenizer that reads it
    as several pieces is taught it."""
    expanded_by: str | None = None
    """The token that queries are expanded by; None: the mask token, else the end token."""


@dataclass(frozen=True)
class Late:
    """A checkpoint of this family."""

    spec: LateSpec
    routes: Mapping[str, Route]
    prompts: Mapping[str, str]
    """What stands before texts of each route, markers included."""


def library_classes(listed: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """modules.json with PyLate's layers under sentence-transformers' names."""
    return [{**entry, "type": _CLASSES.get(str(entry["type"]), entry["type"])} for entry in listed]


def read_late(source: Source, settings: Mapping[str, Any], modules: Sequence[Module]) -> Late:
    """Which layout it is, by config_sentence_transformers.json or config.json, and what it says.

    Raises:
        ModelFormatError: it is none, or has a module or a setting that is not understood.
    """
    kind, architectures = settings.get("model_type"), read_object(source, "config.json").get("architectures") or ()
    if modules and kind == MULTI_VECTOR:
        return _read_multi_vector(source, settings, modules)
    if modules and kind == PYLATE:
        return _read_pylate(source, settings, modules)
    if not modules and STANFORD in architectures:
        return _read_stanford(source)
    raise ModelFormatError(
        f"{source.name} has no projection to vectors of tokens: expected a folder of PyLate's, or of "
        f"sentence-transformers' {MULTI_VECTOR}, with a modules.json, or {STANFORD} in config.json."
    )


def _read_pylate(source: Source, settings: Mapping[str, Any], modules: Sequence[Module]) -> Late:
    """PyLate's folder: all settings are flat keys of config_sentence_transformers.json.

    Raises:
        ModelFormatError: a module that is not a Transformer or a Dense, or a setting of the wrong kind.
    """
    if not modules or [module.kind for module in modules] != ["Transformer", *["Dense"] * (len(modules) - 1)]:
        raise _other_modules(source, modules, "Transformer, then Dense")
    expansion, lengths = None, {task: _length(source, settings, f"{task}_length") for task in _TASKS}
    if settings.get("do_query_expansion") is not False and any(key in settings for key in _LEGACY_KEYS):
        attended = settings.get("attend_to_expansion_tokens", settings.get("attend_to_mask_tokens"))
        expansion = Expansion(0, lengths["query"] or _LENGTH, bool(attended))
    prefixes = {task: str(settings.get(f"{task}_prefix") or "") for task in _TASKS}
    saved = settings.get("prompts") or {}
    prompts = {task: prefixes[task] + (saved.get(task) or "").removeprefix(prefixes[task]) for task in _TASKS}
    words = settings.get("skiplist_words")
    skipped = _words(source, string.punctuation if words is None else words)
    spec = LateSpec(read_steps(source, modules[1:], LATE_STEPS), {"document": skipped}, prefixes)
    return Late(spec, _routes(lengths, expansion), {**saved, **prompts})


def _read_stanford(source: Source) -> Late:
    """Stanford's folder: the projection is among the weights, the settings are in artifact.metadata.

    Raises:
        ModelFormatError: the settings ask for another score, or its architecture is code of its own.
    """
    if read_object(source, "config.json").get("auto_map"):
        raise ModelFormatError(
            f"{source.name} is a ColBERT model whose architecture is code of its own (auto_map in config.json, as "
            "jina-colbert-v2 has it), which trivec does not translate. Use sentence-transformers for this model."
        )
    metadata = read_object(source, METADATA)
    for key, known in {"similarity": "cosine", "interaction": "colbert"}.items():
        if metadata.get(key) not in (None, known):
            raise ModelFormatError(
                f"{source.name}: {METADATA} has {key} = {metadata[key]!r}; trivec scores by {known!r} alone. Use "
                "colbert-ai for this model."
            )
    lengths = {"query": _length(source, metadata, "query_maxlen"), "document": _length(source, metadata, "doc_maxlen")}
    expansion = Expansion(0, lengths["query"] or _LENGTH, bool(metadata.get("attend_to_mask_tokens")))
    keys = {"query": "query_token_id", "document": "doc_token_id"}
    markers = {task: f"{metadata.get(keys[task]) or _MARKERS[task]} " for task in _TASKS}
    skipped = _words(source, string.punctuation if metadata.get("mask_punctuation", True) else ())
    layer = Step("dense", "", "identity")
    return Late(LateSpec((layer,), {"document": skipped}, markers), _routes(lengths, expansion), markers)


def _read_multi_vector(source: Source, settings: Mapping[str, Any], modules: Sequence[Module]) -> Late:
    """A folder of sentence-transformers 6: each module has its own settings.

    Raises:
        ModelFormatError: modules in another order or of another kind, or a setting that is not understood.
    """
    kinds = [module.kind for module in modules]
    masks = [module for module in modules if module.kind == "MultiVectorMask"]
    layers = [module for module in modules[1:] if module.kind == "Dense"]
    rest = [kind for kind in kinds if kind != "MultiVectorMask"]
    expected = ["Transformer", *["Dense"] * len(layers), *["Normalize"] * kinds.count("Normalize")]
    if len(masks) != 1 or rest != expected or kinds.count("Normalize") > 1:
        raise _other_modules(source, modules, "Transformer, Dense, MultiVectorMask, Normalize")
    path = join(masks[0].path, "config.json")
    mask = read_object(source, path)
    check_settings(source, path, mask, LATE_MASK)
    words = _words(source, mask.get("skiplist_words") or ())
    tasks = mask.get("skiplist_tasks") or ["document"]
    tasks = [tasks] if isinstance(tasks, str) else tasks
    path = join(modules[0].path, "sentence_bert_config.json")
    transformer = read_object(source, path)
    lengths = {task: _length(source, transformer, f"{task}_length") for task in _TASKS}
    expansion, expanded_by = _expansion(source, path, transformer.get("query_expansion"))
    if expansion is not None and lengths["query"] is not None and lengths["query"] < expansion.length:
        raise ModelFormatError(
            f"{source.name}: {path} has query_length {lengths['query']} and queries that are expanded to "
            f"{expansion.length} tokens. Delete query_length, or lower the expansion's length."
        )
    steps = read_steps(source, [module for module in modules[1:] if module.kind != "MultiVectorMask"], LATE_STEPS)
    spec = LateSpec(
        tuple(step for step in steps if step.kind == "dense"),
        {task: words for task in _TASKS if task in tasks},
        {},
        expanded_by,
    )
    routes = _routes(lengths, expansion, normalize="Normalize" in kinds)
    return Late(spec, routes, settings.get("prompts") or {})


def _routes(
    lengths: Mapping[str, int | None], expansion: Expansion | None, *, normalize: bool = True
) -> dict[str, Route]:
    """Both sides over one encoder; numbers that the tokenizer and the weights tell are set when the graph is made."""
    query = lengths["query"]
    if expansion is not None:
        query = expansion.length if expansion.exact else None if query is None else max(query, expansion.length)
    multi = Multi(TOKEN_VECTORS, 1, skip=0, normalize=normalize, expansion=expansion)
    plain = Multi(TOKEN_VECTORS, 1, skip=0, normalize=normalize)
    return {
        "query": Route("main", None, multi=multi, max_seq_length=query),
        "document": Route("main", None, multi=plain, max_seq_length=lengths["document"]),
    }


def _expansion(source: Source, path: str, stated: object) -> tuple[Expansion | None, str | None]:
    """`query_expansion` of a Transformer, and its token where it names one."""
    if stated is None:
        return None, None
    given = dict(stated) if isinstance(stated, Mapping) else {}
    strategy, length, token = given.get("strategy"), given.get("length"), given.get("token")
    known = strategy in ("fixed", "min") and type(length) is int and length > 0
    if not known or set(given) - {"strategy", "length", "token", "attend"} or not isinstance(token, str | None):
        raise ModelFormatError(
            f"{source.name}: {path} has query_expansion = {stated!r:.120}; expected a strategy 'fixed' or 'min', a "
            "length above 0, and at most attend and token beside them."
        )
    return Expansion(0, cast("int", length), bool(given.get("attend", False)), exact=strategy == "fixed"), token


def _length(source: Source, settings: Mapping[str, Any], key: str) -> int | None:
    """A number of tokens, or None where there is no limit."""
    value = settings.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ModelFormatError(f"{source.name}: {key} must be a whole number above 0, got {value!r}.")


def _words(source: Source, words: object) -> tuple[str, ...]:
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise ModelFormatError(f"{source.name}: skiplist_words must be a list of tokens, got {words!r:.80}.")
    return tuple(words)


def _other_modules(source: Source, modules: Sequence[Module], expected: str) -> ModelFormatError:
    kinds = ", ".join(module.kind for module in modules) or "no modules"
    return ModelFormatError(
        f"{source.name} has the modules {kinds}; of late-interaction models trivec runs {expected}. Use "
        "sentence-transformers for this model."
    )
