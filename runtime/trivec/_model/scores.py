"""What a cross-encoder's files say of its scores: labels, and the activation by sentence-transformers' order of keys.

The rules follow `CrossEncoder._parse_model_config` and `get_default_activation_fn` of sentence-transformers 6.2.
"""

from collections.abc import Collection, Mapping
from typing import Any

from trivec._errors import ModelFormatError
from trivec._model.manifest import ACTIVATIONS
from trivec._model.source import Source

SCORES = "scores"
"""The output of our own graphs."""
LOGITS = "logits"
"""The same in graphs of others, as transformers calls it."""
_CLASSES = {name.replace("_", ""): name for name in ACTIVATIONS}  # torch.nn.LeakyReLU -> leaky_relu
_LEGACY = "sbert_ce_default_activation_function"
_MOST_LABELS = 1000


def choose_scores(outputs: Collection[str], given: str) -> str:
    """The output of a graph that gives scores: the one that a manifest names, else by the usual names.

    Raises:
        ModelFormatError: a graph of others has none of them.
    """
    chosen = next((name for name in (given, LOGITS, SCORES) if name in outputs), None)
    if chosen is None:
        raise ModelFormatError(
            f"the graph has the outputs {', '.join(outputs)}; a model that scores pairs has {LOGITS} or {SCORES}. "
            "Export the checkpoint with: trivec export"
        )
    return chosen


def labels(source: Source, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the numbers that a classifier gives, in order, by config.json; transformers' default is two."""
    names, count = config.get("id2label"), config.get("num_labels")
    if names is None or (isinstance(count, int) and isinstance(names, Mapping) and len(names) != count):
        names = {str(number): f"LABEL_{number}" for number in range(count if isinstance(count, int) else 2)}
    keys = [str(number) for number in range(len(names))]
    if not isinstance(names, Mapping) or sorted(names) != sorted(keys) or not 1 <= len(keys) <= _MOST_LABELS:
        raise ModelFormatError(
            f"{source.name}: config.json has id2label = {names!r:.80}; expected names by 0, 1, 2 ..."
        )
    return tuple(str(names[key]) for key in keys)


def activation(source: Source, settings: Mapping[str, Any], config: Mapping[str, Any], count: int) -> str:
    """What is made of the logits where a call does not say.

    Args:
        source: the checkpoint, for messages.
        settings: config_sentence_transformers.json of a folder of sentence-transformers 6; else empty.
        config: config.json, which has it from versions before.
        count: labels.

    Raises:
        ModelFormatError: a function of torch's that trivec does not have.
    """
    stated = settings.get("activation_fn")
    if stated is None or not str(stated).startswith("torch."):
        older = config.get("sentence_transformers") or {}
        stated = older["activation_fn"] if "activation_fn" in older else config.get(_LEGACY)
    if stated is None or not str(stated).startswith("torch."):  # others are not trusted there either
        return "sigmoid" if count == 1 else "identity"
    name = _CLASSES.get(str(stated).rpartition(".")[2].lower())
    if name is None:
        raise ModelFormatError(
            f"{source.name} makes its scores by {stated}; trivec knows {', '.join(ACTIVATIONS)}. Use "
            "sentence-transformers for this model."
        )
    return name
