"""How a model without modules.json pools its token embeddings: what its other files say of it.

Exports of others (transformers.js, Qdrant, onnx-community) keep the graph and the tokenizer, and leave out what
sentence-transformers would read. Without that it takes the mean, which is wrong for models of the CLS token.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from trivec._errors import TrivecError
from trivec._model.checkpoint import read_checkpoint
from trivec._model.hub import Repository
from trivec._model.json_files import opened, read_list, read_object
from trivec._model.manifest import Pooling, Route
from trivec._model.modules import read_pooling
from trivec._model.source import Source

ASSUMED = "assumed"
"""What the reason for a guess begins with."""
BY_ARGUMENT = "by pooling="
CARD = "README.md"
_CARD_BYTES = 1 << 20
_REPOSITORY = r"\w[\w.-]*/[\w.-]+"
_BASE = rf"(?m)^base_model:\s*(?:[-\[]\s*)?['\"]?({_REPOSITORY})"  # blanks are matched in one way only
_MODE = r"(?:cls|mean|max|lasttoken|last[_-]token|weightedmean|mean_sqrt_len)"
_STATEMENTS = (  # as cards write them: transformers.js, sentence-transformers, text-embeddings-inference, transformers
    rf"\bpooling(?:_mode|_method|_type|_strategy)?['\"]?\s*[:=]\s*['\"]({_MODE})['\"]",
    rf"\bpooling_mode_({_MODE})(?:_tokens?)?['\"]?\s*[:=]\s*True",
    rf"--pooling[ =]({_MODE})\b",
    r"\b(mean|average|cls|last_token)_pool(?:ing)?\(",
    r"(?:last_hidden_state|token_embeddings|outputs?\[0\]|\)\[0\])(\[:, ?0)(?=\s*[\],])",
)
_MODES = {"average": "mean", "[:,0": "cls", "last_token": "lasttoken", "mean_sqrt_len": "mean_sqrt_len_tokens"}


class Hint(NamedTuple):
    """A route, and what says so."""

    route: Route
    by: str


def find_pooling(source: Source, assumed: Route, *, cache_dir: str | None = None) -> Hint:
    """The route of a bare checkpoint with the pooling that its files tell of; a guess where they do not.

    In this order: a Pooling module's folder anywhere, modules.json of the base model where the Hub's cache has it, one
    statement in the model card, the side on which the tokenizer pads.

    Args:
        source: the model.
        assumed: what sentence-transformers takes.
        cache_dir: the Hub's cache folder; None: its default.
    """
    stored = {}
    for name in source.names():
        folder = PurePosixPath(name).parent
        if re.fullmatch(r"\d+_Pooling/config\.json", "/".join(PurePosixPath(name).parts[-2:])):
            stored[name] = read_pooling(source, folder.as_posix())
    if len(set(stored.values())) == 1:
        name, pooling = next(iter(stored.items()))
        return Hint(replace(assumed, pooling=pooling), f"by {name}")
    card = source.file(CARD)
    text = "" if card is None else _beginning(card)
    unread = []
    for base in dict.fromkeys(_base_models(source, text)):
        found = _base_route(base, cache_dir)
        if found is not None:
            return _of_base(assumed, found, base)
        unread.append(base)
    modes = _stated(text)
    if len(modes) == 1:
        return Hint(replace(assumed, pooling=Pooling(tuple(modes))), f"by {CARD}")
    why = f"{ASSUMED}, as sentence-transformers does"
    if read_object(source, "tokenizer_config.json").get("padding_side") == "left":
        assumed, why = (
            replace(assumed, pooling=Pooling(("lasttoken",))),
            f"{ASSUMED}, for its tokenizer pads on the left",
        )
    if unread:
        why += f" (the Hub's cache has no modules.json of {' or '.join(unread)}, which it was made from)"
    return Hint(assumed, why)


def _beginning(card: Path) -> str:
    """As much of a model card as is searched."""
    with opened(card) as stream:
        return stream.read(_CARD_BYTES).decode("utf-8", errors="replace").replace("\r\n", "\n")


def _base_models(source: Source, card: str) -> Iterator[str]:
    """The repositories that it may have been made from, by its card's metadata and by transformers' own note."""
    metadata = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    names = re.findall(_BASE, metadata[1]) if metadata else []
    origin = read_object(source, "config.json").get("_name_or_path")
    for name in (*names, origin):
        if isinstance(name, str) and re.fullmatch(_REPOSITORY, name) and name != source.name:
            yield name


def _base_route(name: str, cache_dir: str | None) -> Route | None:
    """The default route of a cached sentence-transformers checkpoint."""
    base = Repository(name, cache_dir=cache_dir, local_files_only=True)
    try:
        if not base.is_cached() or not read_list(base, "modules.json"):
            return None
        checkpoint = read_checkpoint(base)
        route = checkpoint.routes.get(checkpoint.default_route or "")
    except TrivecError:
        return None
    return route if route is not None and route.pooling is not None else None


def _of_base(assumed: Route, found: Route, base: str) -> Hint:
    """The base model's pooling and what follows it; layers with weights of their own are not here."""
    plain = tuple(step for step in found.steps if not step.arrays)
    route = replace(assumed, pooling=found.pooling, steps=plain)
    if plain == found.steps:
        return Hint(route, f"by its base model {base}")
    layers = " and ".join(step.kind for step in found.steps if step.arrays)
    return Hint(route, f"{ASSUMED} from its base model {base}, whose {layers} layer is not here")


def _stated(card: str) -> set[str]:
    """Every pooling mode that a card states."""
    found: Sequence[str] = [
        mode.replace(" ", "").replace("-", "_") for s in _STATEMENTS for mode in re.findall(s, card)
    ]
    return {_MODES.get(mode, mode) for mode in found}
