"""The services, a row each: where they are, what they take, what they answer. No model has a row.

Read in each service's own SDK and pages; tests ask those SDKs whether they still send and read the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from trivec._errors import InputError
from trivec.hosted._provider import Answer, Ask, Json, Provider, Rerank

# ---- requests --------------------------------------------------------------------------------------------------------


def _given(**fields: Any) -> Json:  # noqa: ANN401 - whatever JSON holds
    """The fields that say something."""
    return {name: value for name, value in fields.items() if value is not None}


def _integers(ask: Ask) -> str | None:
    return None if ask.dtype == "float32" else ask.dtype


def _openai_body(texts: Sequence[str], ask: Ask) -> Json:
    return _given(model=ask.model or None, input=texts, dimensions=ask.dimensions, encoding_format="base64")


def _voyage_body(texts: Sequence[str], ask: Ask) -> Json:
    return _given(
        model=ask.model,
        input=texts,
        input_type=ask.task,
        output_dimension=ask.dimensions,
        output_dtype=_integers(ask),
        encoding_format="base64",
        **ask.overflow,
    )


def _cohere_body(texts: Sequence[str], ask: Ask) -> Json:
    return _given(
        model=ask.model,
        texts=texts,
        input_type=ask.task,
        embedding_types=[_integers(ask) or "float"],
        output_dimension=ask.dimensions,
        **ask.overflow,
    )


def _mistral_body(texts: Sequence[str], ask: Ask) -> Json:
    return _given(model=ask.model, input=texts, output_dimension=ask.dimensions, output_dtype=_integers(ask))


def _jina_body(texts: Sequence[str], ask: Ask) -> Json:
    return _given(
        model=ask.model,
        input=texts,
        task=ask.task,
        dimensions=ask.dimensions,
        embedding_type=_integers(ask) or "base64",
        **ask.overflow,
    )


def _nomic_body(texts: Sequence[str], ask: Ask) -> Json:
    return _given(model=ask.model, texts=texts, task_type=ask.task, dimensionality=ask.dimensions, **ask.overflow)


def _gemini_body(texts: Sequence[str], ask: Ask) -> Json:
    """A request for each text: several parts of one content would be one vector."""
    more = _given(taskType=ask.task, outputDimensionality=ask.dimensions)
    model = f"models/{ask.model}"
    return {"requests": [{"model": model, "content": {"parts": [{"text": text}]}, **more} for text in texts]}


# ---- answers ---------------------------------------------------------------------------------------------------------


def _in_order(items: Sequence[Json], value: str) -> list[Any]:
    """The values of items that say their own index."""
    places = [item["index"] for item in items]
    if sorted(places) != list(range(len(items))):
        raise ValueError(f"indices {sorted(places)[:10]} of {len(items)} items")
    found = dict(zip(places, items, strict=True))
    return [found[place][value] for place in range(len(items))]


def _data(found: Any, _: Ask) -> Answer:  # noqa: ANN401 - JSON
    usage = found.get("usage") or {}
    return Answer(_in_order(found["data"], "embedding"), usage.get("total_tokens", usage.get("prompt_tokens")))


def _cohere_answer(found: Any, ask: Ask) -> Answer:  # noqa: ANN401
    units = (found.get("meta") or {}).get("billed_units") or {}
    tokens = units.get("input_tokens")
    return Answer(found["embeddings"][_integers(ask) or "float"], None if tokens is None else int(tokens))


def _nomic_answer(found: Any, _: Ask) -> Answer:  # noqa: ANN401
    return Answer(found["embeddings"], (found.get("usage") or {}).get("total_tokens"))


def _gemini_answer(found: Any, _: Ask) -> Answer:  # noqa: ANN401
    return Answer([each["values"] for each in found["embeddings"]], None)


# ---- reranking -------------------------------------------------------------------------------------------------------


def _rerank_body(model: str, query: str, documents: Sequence[str]) -> Json:
    return {"model": model, "query": query, "documents": documents}


def _jina_rerank_body(model: str, query: str, documents: Sequence[str]) -> Json:
    return {**_rerank_body(model, query, documents), "return_documents": False}


def _tei_rerank_body(_: str, query: str, documents: Sequence[str]) -> Json:
    return {"query": query, "texts": documents, "truncate": True}


def _scores(items: Sequence[Json], value: str) -> list[tuple[int, float]]:
    return [(item["index"], float(item[value])) for item in items]


# ---- the table -------------------------------------------------------------------------------------------------------

_ROWS = (
    Provider(
        "openai",
        "https://api.openai.com/v1",
        "/embeddings",
        ("OPENAI_API_KEY",),
        2_048,
        _openai_body,
        _data,
        overflow={"truncate": {}, "error": {}},  # it always refuses
        address="OPENAI_BASE_URL",
    ),
    Provider(
        "voyage",
        "https://api.voyageai.com/v1",
        "/embeddings",
        ("VOYAGE_API_KEY",),
        1_000,
        _voyage_body,
        _data,
        tasks={"query": "query", "document": "document", None: None},
        overflow={"truncate": {"truncation": True}, "error": {"truncation": False}},
        dtypes=("int8", "uint8", "binary", "ubinary"),
        elsewhere=("al-", "https://ai.mongodb.com/v1"),
        rerank=Rerank("/rerank", 1_000, _rerank_body, lambda found: _scores(found["data"], "relevance_score")),
    ),
    Provider(
        "cohere",
        "https://api.cohere.com",
        "/v2/embed",
        ("CO_API_KEY", "COHERE_API_KEY"),
        96,
        _cohere_body,
        _cohere_answer,
        tasks={"query": "search_query", "document": "search_document", None: "search_document"},
        overflow={"truncate": {"truncate": "END"}, "error": {"truncate": "NONE"}},
        dtypes=("int8", "uint8", "binary", "ubinary"),
        rerank=Rerank("/v2/rerank", 1_000, _rerank_body, lambda found: _scores(found["results"], "relevance_score")),
    ),
    Provider(
        "mistral",
        "https://api.mistral.ai",
        "/v1/embeddings",
        ("MISTRAL_API_KEY", "MISTRALAI_API_KEY"),
        512,
        _mistral_body,
        _data,
        overflow={"truncate": {}, "error": {}},  # it always refuses
        dtypes=("int8", "uint8", "binary", "ubinary"),
        tokens=16_000,
    ),
    Provider(
        "jina",
        "https://api.jina.ai/v1",
        "/embeddings",
        ("JINA_API_KEY", "JINAAI_API_KEY"),
        512,
        _jina_body,
        _data,
        tasks={"query": "retrieval.query", "document": "retrieval.passage", None: None},
        overflow={"truncate": {"truncate": True}, "error": {"truncate": False}},
        dtypes=("binary", "ubinary"),
        together="late_chunking",
        rerank=Rerank("/rerank", 1_000, _jina_rerank_body, lambda found: _scores(found["results"], "relevance_score")),
    ),
    Provider(
        "nomic",
        "https://api-atlas.nomic.ai",
        "/v1/embedding/text",
        ("NOMIC_API_KEY",),
        10,
        _nomic_body,
        _nomic_answer,
        tasks={"query": "search_query", "document": "search_document", None: "search_document"},
        overflow={"truncate": {"long_text_mode": "truncate"}},
    ),
    Provider(
        "gemini",
        "https://generativelanguage.googleapis.com",
        "/v1beta/models/{model}:batchEmbedContents",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        100,
        _gemini_body,
        _gemini_answer,
        tasks={"query": "RETRIEVAL_QUERY", "document": "RETRIEVAL_DOCUMENT", None: None},
        overflow={"truncate": {}},  # it always cuts
        header=("x-goog-api-key", ""),
        body_bytes=4 << 20,
    ),
    Provider(
        "tei",
        None,
        "/v1/embeddings",
        (),
        2_048,
        _openai_body,
        _data,
        overflow={"truncate": {}, "error": {}},  # its --auto-truncate decides
        rerank=Rerank("/rerank", 1_000, _tei_rerank_body, lambda found: _scores(found, "score")),
    ),
)
PROVIDERS: Mapping[str, Provider] = {row.name: row for row in _ROWS}


def provider_of(name: str) -> Provider:
    """The row of a service.

    Raises:
        InputError: there is none of that name.
    """
    if name not in PROVIDERS:
        raise InputError(
            f"no provider is called {name!r}: there are {', '.join(PROVIDERS)}. A server that speaks OpenAI's API: "
            'open("openai:MODEL", base_url="http://.../v1")'
        )
    return PROVIDERS[name]
