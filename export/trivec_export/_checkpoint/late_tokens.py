"""The words of a late-interaction checkpoint as ids: marks of queries and documents, expansion, tokens left out.

The rules follow sentence-transformers 6.2: `MultiVectorEncoder._register_prefix_tokens`,
`MultiVectorMask.resolve_with_tokenizer`, `Transformer._validate_query_expansion_token`.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from tokenizers import AddedToken
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from trivec._errors import ModelFormatError
from trivec._model.late import LateSpec
from trivec._model.manifest import Expansion, Route


class Mark(NamedTuple):
    """What stands before the texts of a route, as a token."""

    text: str
    """As sentence-transformers puts it before a text."""
    ids: tuple[int, ...]
    """At most one."""
    prompt: str
    """What of the route's prompt follows it."""


def teach_markers(tokenizer: PreTrainedTokenizerBase, markers: Mapping[str, str]) -> None:
    """Let the tokenizer read each marker as the one token that it has for it, where it reads several pieces."""
    added, vocabulary = set(tokenizer.added_tokens_encoder), tokenizer.get_vocab()
    taught = []
    for marker in markers.values():
        for piece in (marker, *marker.split(None, 1)[:1]):
            if piece.strip() and (piece in added or piece in vocabulary):
                if tokenizer.tokenize(piece) != [piece]:
                    taught.append(AddedToken(piece, normalized=False, special=True))
                break
    if taught:
        tokenizer.add_special_tokens({"additional_special_tokens": taught})


def mark_of(tokenizer: PreTrainedTokenizerBase, prompt: str) -> Mark:
    """The token that a route's prompt begins with; of an ordinary prompt, none."""
    added = tokenizer.added_tokens_encoder
    piece = max((token for token in added if prompt.startswith(token)), key=len, default="")
    if not piece or tokenizer.tokenize(piece) != [piece]:
        return Mark("", (), prompt)
    rest = prompt.removeprefix(piece)
    return Mark(piece if rest.strip() else prompt, (int(added[piece]),), rest if rest.strip() else "")


def late_route(
    name: str,
    route: Route,
    mark: Mark,
    spec: LateSpec,
    dim: int,
    tokenizer: PreTrainedTokenizerBase,
    config: PretrainedConfig,
    positions: int | None,
) -> Route:
    """A route with the ids of its mark, of its expansion and of the tokens that get no vector.

    Args:
        name: of the route.
        route: what the checkpoint's files say.
        mark: of its texts.
        spec: the words.
        dim: numbers of a vector.
        tokenizer: of the checkpoint, with its markers.
        config: of the transformer.
        positions: tokens that it can be given; None: any number.

    Raises:
        ModelFormatError: there is no token to expand queries by, or more of them than the model can be given, or than
            its windows can make something of.
    """
    if route.multi is None:
        return route
    expansion = route.multi.expansion
    if expansion is not None:
        expansion = dataclasses.replace(expansion, token_id=_expansion_id(tokenizer, spec.expanded_by))
        _check_expansion(expansion, len(tokenizer("")["input_ids"]) + len(mark.ids), config, positions)
    multi = dataclasses.replace(
        route.multi,
        dim=dim,
        prefix_ids=mark.ids,
        expansion=expansion,
        dropped_ids=_dropped_ids(tokenizer, spec.skipped.get(name, ())),
    )
    return dataclasses.replace(route, multi=multi)


def _expansion_id(tokenizer: PreTrainedTokenizerBase, token: str | None) -> int:
    if token is None:
        found = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.eos_token_id
        if found is None:
            raise ModelFormatError(
                "queries are to be expanded, and the tokenizer has neither a mask token nor an end token. Set "
                '"mask_token" in tokenizer_config.json to the one that the model was trained with.'
            )
        return int(found)
    number = tokenizer.convert_tokens_to_ids(token)
    if number is None or (number == tokenizer.unk_token_id and token != tokenizer.unk_token):
        raise ModelFormatError(f"queries are to be expanded by {token!r}, which is none of the tokenizer's tokens.")
    return int(number)


def _dropped_ids(tokenizer: PreTrainedTokenizerBase, words: tuple[str, ...]) -> tuple[int, ...]:
    """Ids of those words that are tokens: the unknown token stays, whatever word it stands for."""
    found = {word: tokenizer.convert_tokens_to_ids(word) for word in words}
    unknown = tokenizer.unk_token_id
    kept = {i for word, i in found.items() if i is not None and (i != unknown or word == tokenizer.unk_token)}
    return tuple(sorted(int(i) for i in kept))


def _check_expansion(expansion: Expansion, least: int, config: PretrainedConfig, positions: int | None) -> None:
    """Raise where a query cannot be filled up; the shortest one has `least` tokens of its own."""
    if positions is not None and expansion.length > positions:
        raise ModelFormatError(
            f"queries are filled up to {expansion.length} tokens, and the model can be given {positions}. Lower "
            "query_length."
        )
    reach = _reach(config)
    if reach is None or expansion.attended or expansion.length - 1 - reach < least:
        return
    raise ModelFormatError(
        f"queries are filled up to {expansion.length} tokens that nobody attends to, and a token sees {reach} to "
        "each side: the last ones of a short query would see nothing, and what becomes of them is not defined (torch's "
        f"own kernels differ). Set query_length to {least + reach} or less, or attend_to_expansion_tokens to true "
        "where the model was trained so."
    )


def _reach(config: PretrainedConfig) -> int | None:
    """Tokens to each side that a token sees in a layer with a window; None: all."""
    window = getattr(config, "local_attention", None)
    if isinstance(window, int):
        return window // 2
    window = getattr(config, "sliding_window", None)
    windowed = any("sliding" in str(kind) for kind in getattr(config, "layer_types", None) or ())
    return window - 1 if isinstance(window, int) and windowed else None
