"""Chroma's and Weaviate's own settings for an endpoint of OpenAI or TEI, against a server of trivec."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from chromadb.utils.embedding_functions import HuggingFaceEmbeddingServer, OpenAIEmbeddingFunction
from tests.runtime.frameworks.conftest import PROMPTS, Expected, SciFact
from tests.support.on_port import on_port
from weaviate.classes.config import Configure

import trivec
import trivec.server


@pytest.fixture(scope="module")
def url(minilm: Path) -> Iterator[str]:
    encoder = trivec.load(minilm, device="cpu", precision="fp32", prompts=PROMPTS)
    app = trivec.server.app({"minilm": encoder}, keys={"sk-local-0123456789abcdef": "chroma"})
    with on_port(app) as address:
        yield address
    app.close(encoders=True)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMA_OPENAI_API_KEY", "sk-local-0123456789abcdef")


def test_chroma_by_openai(url: str, scifact: SciFact, expected: Expected, tmp_path: Path) -> None:
    function = OpenAIEmbeddingFunction(api_base=f"{url}/v1", model_name="minilm:document")
    client = chromadb.PersistentClient(str(tmp_path))
    texts = client.create_collection("scifact", embedding_function=function, metadata={"hnsw:space": "ip"})
    texts.add(ids=scifact.ids, documents=scifact.texts)
    stored = texts.get(ids=scifact.ids, include=["embeddings"])
    rows = dict(zip(stored["ids"], stored["embeddings"], strict=True))
    np.testing.assert_allclose(np.stack([rows[name] for name in scifact.ids]), expected.documents, atol=2e-7)
    asking = OpenAIEmbeddingFunction(api_base=f"{url}/v1", model_name="minilm:query")
    found = client.get_collection("scifact").query(query_embeddings=asking([scifact.question]), n_results=4)["ids"][0]
    assert found == [scifact.ids[row] for row in expected.order()[:4]]


def test_chroma_by_tei(url: str, scifact: SciFact, encoder: trivec.DenseEncoder) -> None:
    function = HuggingFaceEmbeddingServer(url=f"{url}/embed", api_key_env_var="CHROMA_OPENAI_API_KEY")
    vectors = np.stack(function(scifact.texts[:5]))
    np.testing.assert_allclose(vectors, encoder.encode(scifact.texts[:5]), atol=2e-7)


@pytest.mark.parametrize("module", ["text2vec-openai", "text2vec-huggingface"])
def test_weaviate(url: str, module: str, scifact: SciFact, expected: Expected, encoder: trivec.DenseEncoder) -> None:
    """Weaviate's server runs elsewhere: here its client's settings, and the requests that its modules make of them."""
    if module == "text2vec-openai":
        made = Configure.Vectors.text2vec_openai(base_url=url, model="minilm:document", vectorize_collection_name=False)
        settings = made.vectorizer._to_dict()
        place = f"{settings['baseURL'].rstrip('/')}/v1/embeddings"
        body = {"input": scifact.texts[:5], "model": settings["model"]}
        wanted = expected.documents[:5]
    else:
        made = Configure.Vectors.text2vec_huggingface(endpoint_url=f"{url}/embed", wait_for_model=True)
        settings = made.vectorizer._to_dict()
        place = settings["endpointURL"]
        body = {"inputs": scifact.texts[:5], "options": {"wait_for_model": settings["options"]["waitForModel"]}}
        wanted = encoder.encode(scifact.texts[:5])
    assert made.vectorizer.vectorizer.value == module
    found = _posted(place, body)
    rows = [row["embedding"] for row in found["data"]] if module == "text2vec-openai" else found
    np.testing.assert_allclose(np.asarray(rows, np.float32), wanted, atol=2e-7)


def _posted(url: str, body: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-local-0123456789abcdef"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
