"""Clients that people have, unchanged: the real openai, cohere and huggingface_hub, and trivec.hosted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from tests.support import server_clients
from tests.support.server_clients import KEY, TEXTS
from tests.support.serving import ServeProcess, numbers
from tests.support.tiny_model import TinyModel

import trivec
import trivec.hosted

SERVER = ("-m", "tests.support.serve_scorers")


@pytest.fixture(scope="module")
def url(folders: dict[str, Path]) -> Iterator[str]:
    with ServeProcess(*(f"{name}={folders[name]}" for name in ("tiny", "m3")), command=SERVER) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def answers(url: str) -> dict[str, Any]:
    return server_clients.ask(url)


@pytest.fixture(scope="module")
def expected(folders: dict[str, Path]) -> Any:
    with trivec.load(folders["tiny"], device="cpu") as encoder:
        return encoder.encode(TEXTS, normalize_embeddings=True)


def test_openai(answers: dict[str, Any], expected: Any, folders: dict[str, Path], tiny_model: TinyModel) -> None:
    found = answers["openai"]
    assert np.array_equal(numbers(found["base64"]), expected)
    with trivec.load(folders["tiny"], device="cpu") as encoder:
        assert np.array_equal(numbers(found["float"]), encoder.encode(TEXTS, truncate_dim=4, normalize_embeddings=True))
    tokens = sum(len(tiny_model.ids(text)) for text in TEXTS)
    assert found["usage"] == [tokens, tokens]
    assert found["models"] == ["tiny", "m3", "words"]
    assert found["model"] == "tiny"
    assert found["errors"]["model"] == ["model_not_found", "not_found_error", "model", True]
    assert found["errors"]["ids"][0] == "foreign_token_ids"
    assert "check_embedding_ctx_length=False" in found["errors"]["ids"][1]


def test_cohere(answers: dict[str, Any]) -> None:
    found = answers["cohere"]
    assert [index for index, _ in found["v2"]] == [1, 0]
    assert [score for _, score in found["v2"]] == pytest.approx([1 / (1 + np.exp(-1)), 0.5], abs=1e-6)
    assert found["v1"] == [[1, "a red cat"], [0, "a dog"]]


def test_huggingface_hub(url: str, expected: Any) -> None:
    client = InferenceClient(url, token=KEY)
    assert np.array_equal(client.feature_extraction(TEXTS), expected)
    one = client.feature_extraction(TEXTS[0], normalize=True, truncate=True, truncation_direction="right")
    assert np.array_equal(one, expected[:1])
    scores = client.sentence_similarity(TEXTS[0], other_sentences=[TEXTS[0], "a dog"])
    assert scores[0] == pytest.approx(1.0, abs=1e-6)
    assert scores[1] < 1.0


@pytest.mark.parametrize("provider", ["openai", "tei"])
def test_our_own_client(provider: str, url: str, expected: Any) -> None:
    base = f"{url}/v1" if provider == "openai" else url
    with trivec.hosted.open(f"{provider}:tiny", base_url=base, api_key=KEY, blank="zeros") as encoder:
        texts = [text for text in TEXTS if text]
        assert np.allclose(encoder.encode(texts), expected[[0, 2]], atol=1e-6)
