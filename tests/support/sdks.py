"""The services' own SDKs and pymilvus.model, in an environment of their own: what they send, and what they read.

The tests import `ask`; the environment that `scripts/setup sdks` makes runs this file as a script, which has neither
pytest nor our packages.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

KEY = "sk-loopback-0123456789abcdef"
_SECONDS = 400  # for all answers: far more than they take
DOCUMENTS = ["a cat", "Schlüssel 東京", "the dog"]


def ask(urls: Mapping[str, str]) -> dict[str, Any]:
    """What each of some questions gives, by its name; each has a server of its own.

    Raises:
        FileNotFoundError: there is no such environment.
        RuntimeError: the process ended, with what it said last.
    """
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    from tests.support.environments import asked  # the other environment, which runs this file, has no tests

    found: dict[str, Any] = asked(__file__, "sdks", "the SDKs", json.dumps(urls), environment, _SECONDS)
    return found


# ---- who answers -----------------------------------------------------------------------------------------------------


def openai(url: str) -> Any:
    from openai import OpenAI

    client = OpenAI(api_key=KEY, base_url=f"{url}/v1").embeddings
    plain = client.create(model="any-model", input=DOCUMENTS)
    few = client.create(model="any-model", input=["few"], dimensions=4)
    return [[item.embedding for item in found.data] for found in (plain, few)]


def voyage(url: str) -> Any:
    import voyageai

    client = voyageai.Client(api_key=KEY, base_url=f"{url}/v1")
    documents = client.embed(DOCUMENTS, model="any-model", input_type="document")
    few = client.embed(["few"], model="any-model", input_type="query", output_dimension=4)
    return [documents.embeddings, few.embeddings]


def cohere(url: str) -> Any:
    from cohere import ClientV2

    client = ClientV2(api_key=KEY, base_url=url)
    asked = {"model": "any-model", "embedding_types": ["float"], "truncate": "END"}
    documents = client.embed(texts=DOCUMENTS, input_type="search_document", **asked)
    few = client.embed(texts=["few"], input_type="search_query", output_dimension=4, **asked)
    return [documents.embeddings.float_, few.embeddings.float_]


def mistral(url: str) -> Any:
    from mistralai.client import Mistral

    client = Mistral(api_key=KEY, server_url=url).embeddings
    plain = client.create(model="any-model", inputs=DOCUMENTS)
    few = client.create(model="any-model", inputs=["few"], output_dimension=4)
    return [[item.embedding for item in found.data] for found in (plain, few)]


def gemini(url: str) -> Any:
    from google import genai

    client = genai.Client(api_key=KEY, http_options={"base_url": url})  # forgotten, it would close its connections
    documents = [[{"parts": [{"text": text}]} for text in DOCUMENTS], {"task_type": "RETRIEVAL_DOCUMENT"}]
    few = [[{"parts": [{"text": "few"}]}], {"task_type": "RETRIEVAL_QUERY", "output_dimensionality": 4}]
    return [
        [
            each.values
            for each in client.models.embed_content(model="any-model", contents=contents, config=config).embeddings
        ]
        for contents, config in (documents, few)
    ]


def voyage_rerank(url: str) -> Any:
    import voyageai

    found = voyageai.Client(api_key=KEY, base_url=f"{url}/v1").rerank("a question", DOCUMENTS, model="any-model")
    return [[item.index, item.relevance_score] for item in found.results]


def cohere_rerank(url: str) -> Any:
    from cohere import ClientV2

    found = ClientV2(api_key=KEY, base_url=url).rerank(model="any-model", query="a question", documents=DOCUMENTS)
    return [[item.index, item.relevance_score] for item in found.results]


def _milvus(function: Any) -> dict[str, Any]:
    """What each method gives: rows as lists, and their type; an error by its name."""
    made: dict[str, Any] = {}
    for name in ("encode_documents", "encode_queries", "__call__"):
        rows = getattr(function, name)(DOCUMENTS)
        kind = type(rows[0]).__name__ if isinstance(rows[0], bytes) else str(rows[0].dtype)
        made[name] = [kind, [list(row) if isinstance(row, bytes) else row.tolist() for row in rows]]
    return made


def milvus_openai(url: str) -> Any:
    from pymilvus.model.dense import OpenAIEmbeddingFunction

    return _milvus(OpenAIEmbeddingFunction("text-embedding-3-small", KEY, f"{url}/v1", 8))


def milvus_voyage(url: str) -> Any:
    from pymilvus.model.dense import VoyageEmbeddingFunction

    return _milvus(VoyageEmbeddingFunction(api_key=KEY, dimension=256, base_url=f"{url}/v1"))


def milvus_voyage_binary(url: str) -> Any:
    from pymilvus.model.dense import VoyageEmbeddingFunction

    return _milvus(VoyageEmbeddingFunction(api_key=KEY, embedding_type="binary", dimension=256, base_url=f"{url}/v1"))


def milvus_cohere(url: str) -> Any:
    from pymilvus.model.dense import CohereEmbeddingFunction

    return _milvus(CohereEmbeddingFunction(api_key=KEY, input_type="clustering", base_url=url))


def milvus_cohere_binary(url: str) -> Any:
    from pymilvus.model.dense import CohereEmbeddingFunction

    return _milvus(CohereEmbeddingFunction(api_key=KEY, embedding_types=["ubinary"], base_url=url))


def milvus_jina(url: str) -> Any:
    from pymilvus.model.dense import JinaEmbeddingFunction, jinaai

    jinaai.API_URL = f"{url}/v1/embeddings"
    return _milvus(JinaEmbeddingFunction(api_key=KEY, task="separation"))


def milvus_tei(url: str) -> Any:
    from pymilvus.model.dense import TEIEmbeddingFunction

    return _milvus(TEIEmbeddingFunction(url))


def _ranked(function: Any) -> list[Any]:
    """What a rerank function gives, and how it shows it."""
    found = function("a question", DOCUMENTS, top_k=2)
    return [[each.to_dict(), repr(each)] for each in found]


def milvus_voyage_rerank(url: str) -> Any:
    import voyageai
    from pymilvus.model.reranker import VoyageRerankFunction

    function = VoyageRerankFunction(api_key=KEY)
    function.client = voyageai.Client(api_key=KEY, base_url=f"{url}/v1")
    return _ranked(function)


def milvus_cohere_rerank(url: str) -> Any:
    from cohere import ClientV2
    from pymilvus.model.reranker import CohereRerankFunction

    function = CohereRerankFunction(api_key=KEY)
    function.client = ClientV2(api_key=KEY, base_url=url)
    return _ranked(function)


def milvus_jina_rerank(url: str) -> Any:
    from pymilvus.model.reranker import JinaRerankFunction, jinaai

    jinaai.API_URL = f"{url}/v1/rerank"
    return _ranked(JinaRerankFunction(api_key=KEY))


def milvus_tei_rerank(url: str) -> Any:
    from pymilvus.model.reranker import TEIRerankFunction

    return _ranked(TEIRerankFunction(url))


def serve() -> None:
    """Answer the questions of stdin."""
    known: list[Callable[[str], Any]] = [
        *(openai, voyage, cohere, mistral, gemini, voyage_rerank, cohere_rerank),
        *(milvus_openai, milvus_voyage, milvus_voyage_binary, milvus_cohere, milvus_cohere_binary),
        *(milvus_jina, milvus_tei),
        *(milvus_voyage_rerank, milvus_cohere_rerank, milvus_jina_rerank, milvus_tei_rerank),
    ]
    answers = {function.__name__: function for function in known}
    pipe, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    found: dict[str, Any] = {}
    for name, url in json.load(sys.stdin).items():
        try:
            found[name] = answers[name](url)
        except Exception as error:  # noqa: BLE001 - it goes to the one who asked
            traceback.print_exc()
            found[name] = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found), file=pipe, flush=True)


if __name__ == "__main__":
    serve()
