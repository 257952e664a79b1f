"""The bodies of requests: their fields and types, and what is said of one that has others."""

import json
import re
from functools import cache
from typing import Any, Generic, Literal, TypeVar

import msgspec

from trivec.server._errors import ApiError

Texts = str | list[str | int | list[int]]
"""A text, a row of token ids, or several of either."""
Side = Literal["left", "right", "Left", "Right"]
Body = TypeVar("Body", bound=msgspec.Struct)
_SURROGATE = re.compile("[\ud800-\udfff]")


class Embeddings(msgspec.Struct):
    """POST /v1/embeddings."""

    input: Texts
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: Any = None
    prompt_name: str | None = None
    input_type: Literal["query", "document", "search_query", "search_document"] | None = None
    normalize: bool | None = None
    truncate: bool | None = None
    truncate_prompt_tokens: int | None = None
    truncation_direction: Side | None = None
    output_dtype: Literal["float", "int8", "uint8", "binary", "ubinary"] | None = None
    outputs: list[Literal["dense", "sparse", "colbert"]] | None = None
    return_tokens: bool = False
    threshold: float | None = None
    max_active_dims: int | None = None


class Sentences(msgspec.Struct):
    """One text, and those that it is compared with."""

    source_sentence: str
    sentences: list[str]


class SimilarityOptions(msgspec.Struct):
    """How the texts are read."""

    truncate: bool | None = None
    truncation_direction: Side | None = None
    prompt_name: str | None = None


class Similarity(msgspec.Struct):
    """POST /similarity."""

    inputs: Sentences
    parameters: SimilarityOptions | None = None
    model: str | None = None


class Embed(msgspec.Struct):
    """POST /embed, /embed_all and /embed_sparse."""

    inputs: Texts
    truncate: bool | None = None
    truncation_direction: Side | None = None
    prompt_name: str | None = None
    normalize: bool = True
    dimensions: int | None = None
    encoding_format: Literal["float"] | None = None
    model: str | None = None


class Root(msgspec.Struct):
    """POST /: what decides which body it is."""

    inputs: Any = None
    query: Any = None


class Tokenize(msgspec.Struct):
    """POST /tokenize."""

    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None
    model: str | None = None


class Decode(msgspec.Struct):
    """POST /decode."""

    ids: list[int | list[int]]
    skip_special_tokens: bool = True
    model: str | None = None


class Predict(msgspec.Struct):
    """POST /predict."""

    inputs: str | list[str | list[str]]
    truncate: bool | None = None
    truncation_direction: Side | None = None
    raw_scores: bool = False
    model: str | None = None


class Document(msgspec.Struct):
    """A document of Cohere's first API."""

    text: str


class Rerank(msgspec.Struct):
    """POST /rerank, of TEI (`texts`), of Cohere and Jina (`documents`), and of Weaviate (`property` too)."""

    query: str
    texts: list[str] | None = None
    documents: list[str | Document] | None = None
    model: str | None = None
    top_n: int | None = None
    raw_scores: bool = False
    return_text: bool = False
    return_documents: bool = False
    truncate: bool | None = None
    truncation_direction: Side | None = None
    max_tokens_per_doc: int | None = None
    max_chunks_per_doc: Any = None
    rank_fields: Any = None
    property: Any = None


class Score(msgspec.Struct):
    """POST /score: one of the pairs of names."""

    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None
    queries: str | list[str] | None = None
    documents: str | list[str] | None = None
    data_1: str | list[str] | None = None
    data_2: str | list[str] | None = None
    model: str | None = None
    truncate_prompt_tokens: int | None = None


class Parsed(Generic[Body]):
    """A body, and a field of it that nobody knows."""

    def __init__(self, body: Body, ignored: str | None) -> None:
        self.body, self.ignored = body, ignored


def parse(data: bytes, kind: type[Body]) -> Parsed[Body]:
    """The JSON of a body, checked.

    Raises:
        ApiError: no JSON, or a field that is missing or of another type, which is named.
    """
    try:
        try:
            return Parsed(_strict(kind).decode(data), None)
        except msgspec.ValidationError as error:
            unknown = re.match(r"Object contains unknown field `(.*)`", str(error))
            if unknown is None:
                raise
        return Parsed(_lenient(kind).decode(data), unknown[1][:100])
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        param = ".".join(re.findall(r"[^.\[\]`]+", path)) or None
        missing = re.search(r"missing required field `(.*)`", message)
        raise ApiError("bad_value", f"{message}.", param=missing[1] if missing else param) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _refuse_surrogates(data)
        deep = isinstance(error, RecursionError)
        raise ApiError("bad_json", f"The body is no JSON: {'it is nested too deep' if deep else error}.") from None


@cache
def _strict(kind: type[Body]) -> "msgspec.json.Decoder[Body]":
    strict = msgspec.defstruct(kind.__name__, [], bases=(kind,), forbid_unknown_fields=True)
    return msgspec.json.Decoder(strict)


@cache
def _lenient(kind: type[Body]) -> "msgspec.json.Decoder[Body]":
    return msgspec.json.Decoder(kind)


def _refuse_surrogates(data: bytes) -> None:
    """Raise for half a surrogate pair, valid JSON and no valid Unicode: the parser says something else of it."""
    try:
        found = _surrogate(json.loads(data), "") if b"\\u" in data else None
    except (ValueError, RecursionError):
        return
    if found is not None:
        raise ApiError(
            "bad_value",
            f"{found} holds a lone surrogate, which is no valid Unicode text. Send the whole character.",
            param=found,
        )


def _surrogate(value: object, path: str) -> str | None:
    """Where the first one is."""
    if isinstance(value, str):
        return path if _SURROGATE.search(value) else None
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found = _surrogate(item, f"{path}.{key}" if path else str(key))
        if found is not None:
            return found
    return None
