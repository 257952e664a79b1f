"""Packages that people ask a server of embeddings with, in an environment of their own: what they send and read.

The tests import `ask`; the environment that `scripts/setup clients` makes runs this file as a script, which has neither
pytest nor our packages.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEY = "sk-client-0123456789abcdef"
MODEL, RERANKER = "tiny", "scorer"
_SECONDS = 500  # for all answers: far more than they take
TEXTS = ["a cat", "Schlüssel 東京", "the dog", "the dog"]
QUERY = "the cat"


def ask(url: str) -> dict[str, Any]:
    """What each client gives, by its name.

    Raises:
        FileNotFoundError: there is no such environment.
        RuntimeError: the process ended, with what it said last.
    """
    known = ("_API_KEY", "_API_BASE", "_BASE_URL")
    environment = {name: value for name, value in os.environ.items() if not name.endswith(known)}
    environment |= {
        "HF_HUB_OFFLINE": "0",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
    }
    from tests.support.environments import asked  # the other environment, which runs this file, has no tests

    found: dict[str, Any] = asked(__file__, "clients", "clients", url, environment, _SECONDS)
    return found


# ---- vectors ---------------------------------------------------------------------------------------------------------


def openai(url: str) -> Any:
    from openai import OpenAI

    client = OpenAI(api_key=KEY, base_url=f"{url}/v1")
    plain = client.embeddings.create(model=MODEL, input=TEXTS)
    assert [item.index for item in plain.data] == list(range(len(TEXTS)))
    assert MODEL in [model.id for model in client.models.list().data]
    return [item.embedding for item in plain.data]


def openai_float(url: str) -> Any:
    from openai import OpenAI

    made = OpenAI(api_key=KEY, base_url=f"{url}/v1").embeddings
    return [item.embedding for item in made.create(model=MODEL, input=TEXTS, encoding_format="float").data]


def openai_async(url: str) -> Any:
    import asyncio

    from openai import AsyncOpenAI

    async def run() -> Any:
        async with AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1") as client:
            made = await asyncio.gather(*(client.embeddings.create(model=MODEL, input=text) for text in TEXTS))
        return [one.data[0].embedding for one in made]

    return asyncio.run(run())


def openai_unknown_model(url: str) -> Any:
    from openai import NotFoundError, OpenAI

    try:
        OpenAI(api_key=KEY, base_url=f"{url}/v1").embeddings.create(model="text-embedding-3-small", input="x")
    except NotFoundError as error:
        return [error.status_code, error.code, str(error)]
    return None


def openai_wrong_key(url: str) -> Any:
    from openai import AuthenticationError, OpenAI

    try:
        OpenAI(api_key="sk-wrong", base_url=f"{url}/v1").embeddings.create(model=MODEL, input="x")
    except AuthenticationError as error:
        return error.status_code
    return None


def langchain_openai(url: str) -> Any:
    """As its page has it for a server that is not OpenAI's."""
    from langchain_openai import OpenAIEmbeddings

    made = OpenAIEmbeddings(model=MODEL, base_url=f"{url}/v1", api_key=KEY, check_embedding_ctx_length=False)
    return made.embed_documents(TEXTS)


def langchain_openai_ids(url: str) -> Any:
    """Its default: token ids of cl100k_base, whose file comes with llama-index-core."""
    import importlib.util

    spec = importlib.util.find_spec("llama_index.core")
    assert spec is not None and spec.origin is not None
    os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(spec.origin).parent / "_static/tiktoken_cache")
    from langchain_openai import OpenAIEmbeddings
    from openai import BadRequestError

    try:
        OpenAIEmbeddings(model=MODEL, base_url=f"{url}/v1", api_key=KEY).embed_documents(TEXTS)
    except BadRequestError as error:
        return [error.code, str(error)]
    return None


def huggingface_hub(url: str) -> Any:
    from huggingface_hub import InferenceClient

    client = InferenceClient(url, token=KEY)
    rows = [client.feature_extraction(text)[0].tolist() for text in TEXTS]
    assert len(client.sentence_similarity(QUERY, other_sentences=TEXTS)) == len(TEXTS)
    assert (
        client.feature_extraction(TEXTS[0], normalize=True, truncate=True, truncation_direction="right").shape[0] == 1
    )
    return rows


def huggingface_hub_embed(url: str) -> Any:
    from huggingface_hub import InferenceClient

    return [InferenceClient(f"{url}/embed", token=KEY).feature_extraction(text)[0].tolist() for text in TEXTS]


def langchain_huggingface(url: str) -> Any:
    from huggingface_hub import AsyncInferenceClient, InferenceClient
    from langchain_huggingface import HuggingFaceEndpointEmbeddings

    made = HuggingFaceEndpointEmbeddings(model="org/any", huggingfacehub_api_token=KEY)
    made.client = InferenceClient(url, token=KEY)
    made.async_client = AsyncInferenceClient(url, token=KEY)
    return made.embed_documents(TEXTS)


def llama_index_tei(url: str) -> Any:
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    made = TextEmbeddingsInference(model_name=MODEL, base_url=url, auth_token=KEY, timeout=600)
    return made.get_text_embedding_batch(TEXTS)


def llama_index_openai(url: str) -> Any:
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    made = OpenAILikeEmbedding(model_name=MODEL, api_base=f"{url}/v1", api_key=KEY, embed_batch_size=10)
    return made.get_text_embedding_batch(TEXTS)


def haystack_openai(url: str) -> Any:
    from haystack import Document
    from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
    from haystack.utils import Secret

    given = {"api_key": Secret.from_token(KEY), "api_base_url": f"{url}/v1", "model": MODEL}
    documents = OpenAIDocumentEmbedder(**given).run([Document(content=text) for text in TEXTS])["documents"]
    one = OpenAITextEmbedder(**given).run(TEXTS[0])["embedding"]
    assert max(abs(a - b) for a, b in zip(one, documents[0].embedding, strict=True)) < 1e-6
    return [document.embedding for document in documents]


def _litellm(model: str, base: str, **more: Any) -> Any:
    import litellm

    made = litellm.embedding(model=model, input=TEXTS, api_base=base, api_key=KEY, **more)
    return [item["embedding"] for item in made.data]


def litellm_openai(url: str) -> Any:
    return _litellm(f"openai/{MODEL}", f"{url}/v1", encoding_format="float")


def litellm_hosted_vllm(url: str) -> Any:
    return _litellm(f"hosted_vllm/{MODEL}", f"{url}/v1")


def litellm_infinity(url: str) -> Any:
    return _litellm(f"infinity/{MODEL}", url)


# ---- rankings --------------------------------------------------------------------------------------------------------


def cohere_v2(url: str) -> Any:
    from cohere import ClientV2

    found = ClientV2(api_key=KEY, base_url=url).rerank(model=RERANKER, query=QUERY, documents=TEXTS, top_n=3)
    return [[item.index, item.relevance_score] for item in found.results]


def cohere_v1(url: str) -> Any:
    from cohere import Client

    found = Client(api_key=KEY, base_url=url).rerank(
        model=RERANKER, query=QUERY, documents=TEXTS, top_n=3, return_documents=True
    )
    assert [item.document.text for item in found.results] == [TEXTS[item.index] for item in found.results]
    return [[item.index, item.relevance_score] for item in found.results]


def _litellm_rerank(model: str, base: str, **more: Any) -> Any:
    import litellm

    found = litellm.rerank(model=model, query=QUERY, documents=TEXTS, top_n=3, api_base=base, api_key=KEY, **more)
    return [[item["index"], item["relevance_score"]] for item in found.results]


def litellm_cohere(url: str) -> Any:
    return _litellm_rerank(f"cohere/{RERANKER}", f"{url}/v2/rerank")


def litellm_jina(url: str) -> Any:
    return _litellm_rerank(f"jina_ai/{RERANKER}", f"{url}/v1/rerank")


def litellm_infinity_rerank(url: str) -> Any:
    """Documents come back as objects, as Cohere has them; infinity has strings, and LiteLLM expects them of it."""
    return _litellm_rerank(f"infinity/{RERANKER}", url, return_documents=False)


def litellm_huggingface(url: str) -> Any:
    return _litellm_rerank(f"huggingface/{RERANKER}", url)


# ---- the process -----------------------------------------------------------------------------------------------------

VECTORS: tuple[Callable[[str], Any], ...] = (
    *(openai, openai_float, openai_async, langchain_openai, huggingface_hub, huggingface_hub_embed),
    *(langchain_huggingface, llama_index_tei, llama_index_openai, haystack_openai),
    *(litellm_openai, litellm_hosted_vllm, litellm_infinity),
)
RANKINGS: tuple[Callable[[str], Any], ...] = (
    *(cohere_v2, cohere_v1, litellm_cohere, litellm_jina, litellm_infinity_rerank, litellm_huggingface),
)
REFUSED: tuple[Callable[[str], Any], ...] = (openai_unknown_model, openai_wrong_key, langchain_openai_ids)


def answer() -> None:
    """Ask the server whose address is on stdin."""
    pipe, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    url, found = sys.stdin.read().strip(), dict[str, Any]()
    for client in (*VECTORS, *RANKINGS, *REFUSED):
        try:
            found[client.__name__] = client(url)
        except Exception as error:  # noqa: BLE001 - it goes to the one who asked
            traceback.print_exc()
            found[client.__name__] = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found), file=pipe, flush=True)


if __name__ == "__main__":
    answer()
