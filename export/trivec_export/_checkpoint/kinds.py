"""Kinds of checkpoints that this exporter does not make: each is refused by its name, with what to use instead."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from trivec._errors import ModelFormatError
from trivec._model.json_files import join, read_list, read_object
from trivec._model.source import Source

_LIBRARY = "Use sentence-transformers for this model."
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_SEGMENTS = {"xlnet": "permuted attention", "canine": "characters in place of tokens", "ibert": "integer arithmetic"}
_RELATIVE = ("relative_key", "relative_key_query")


@dataclass(frozen=True)
class About:
    """What tells the kind of a checkpoint."""

    files: Collection[str]
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    """config_sentence_transformers.json."""
    modules: Sequence[str]
    """Classes of modules.json, by their whole names."""
    tokenizer: Mapping[str, Any]
    """tokenizer_config.json."""

    @property
    def model_type(self) -> str:
        """Of config.json."""
        return str(self.config.get("model_type", ""))

    def built_for(self, ending: str) -> bool:
        """Whether config.json names an architecture that ends so."""
        return any(str(name).endswith(ending) for name in self.config.get("architectures") or ())


class Kind(NamedTuple):
    """A kind that is not made."""

    fits: Callable[[About], bool]
    what: str
    instead: str


_KINDS = (
    Kind(
        lambda it: bool(it.config.get("quantization_config")),
        "a quantized checkpoint (config.json has a quantization_config: bitsandbytes, GPTQ, AWQ, FP8 and the like)",
        "Export the checkpoint that it was made from: trivec makes an int8 of its own and proves it against that one.",
    ),
    Kind(
        lambda it: it.built_for("ForRetrieval"),
        "a retrieval model of pages and images (*ForRetrieval)",
        "Use MultiVectorEncoder of sentence-transformers.",
    ),
    Kind(
        lambda it: (
            any(isinstance(it.config.get(key), int) and it.config[key] > 1 for key in _EXPERTS)
            and it.config.get("moe_every_n_layers", 1) != 0
        ),
        "a mixture of experts, whose layers choose their weights by the token",
        _LIBRARY,
    ),
    Kind(
        lambda it: it.model_type in _SEGMENTS,
        "a model of a kind that has no translation (XLNet, CANINE, I-BERT)",
        _LIBRARY,
    ),
    Kind(
        lambda it: "Phobert" in str(it.tokenizer.get("tokenizer_class", "")),
        "a PhoBERT model, whose tokenizer runs in Python over words that another program has cut",
        _LIBRARY,
    ),
    Kind(
        lambda it: it.config.get("position_embedding_type") in _RELATIVE,
        "a model with relative positions (position_embedding_type in config.json), which transformers 5 leaves out",
        "Run it with transformers 4, which still computes them.",
    ),
)


def refuse_other_kinds(source: Source) -> None:
    """Raise ModelFormatError where a checkpoint is of a kind that is not made."""
    modules = read_list(source, "modules.json")
    folder = str(modules[0]["path"]) if modules else ""
    about = About(
        set(source.names()),
        read_object(source, join(folder, "config.json")),
        read_object(source, "config_sentence_transformers.json"),
        [str(module["type"]) for module in modules],
        read_object(source, join(folder, "tokenizer_config.json")),
    )
    for kind in _KINDS:
        if kind.fits(about):
            raise ModelFormatError(f"{source.name} is {kind.what}: no vectors of texts are made of it. {kind.instead}")
