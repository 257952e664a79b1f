"""A late-interaction model, served: every route that it has, against numpy."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.support.serving import Client
from tests.support.tiny_late import TinyLate, write_tiny_late

import trivec
import trivec.server

TEXTS = ["the cat sat", "a small red boat", "", "the cat sat"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLate:
    return write_tiny_late(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def client(tiny: TinyLate) -> Iterator[Client]:
    app = trivec.server.app({"late": trivec.load(tiny.folder, device="cpu", threads=1)})
    for model in app.registry.models.values():
        model.warm_up()
    made = Client(app)
    yield made
    made.close()


def close(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.array(mine, dtype=np.float32), theirs, rtol=0, atol=1e-6)


def test_vectors_of_both_sides(client: Client, tiny: TinyLate) -> None:
    for side in ("query", "document"):
        body = {"model": "late", "input": TEXTS, "outputs": ["colbert"], "input_type": side}
        found = client.json("/v1/embeddings", body)
        close([item["multi_vector"] for item in found["data"]], tiny.vectors(TEXTS, side))
    said = client.post("/v1/embeddings", {"model": "late", "input": TEXTS}).json()["error"]["message"]
    assert "has no dense: it has colbert" in said
    assert "/embed_all" in said


def test_the_prompt_of_the_other_side_is_refused(client: Client) -> None:
    """As clients of sentence-transformers send it, and would get vectors of the wrong side for it."""
    body = {"model": "late", "input": TEXTS, "outputs": ["colbert"]}
    said = client.post("/v1/embeddings", {**body, "prompt_name": "query"}).json()["error"]["message"]
    assert "prompt_name 'query' is of a query, and this call reads each text as a document" in said
    sent = client.json("/v1/embeddings", {**body, "prompt_name": "query", "input_type": "query"})
    assert len(sent["data"]) == len(TEXTS)


def test_embed_all_gives_documents(client: Client, tiny: TinyLate) -> None:
    close(client.json("/embed_all", {"inputs": TEXTS}), tiny.vectors(TEXTS, "document"))


def test_scores_are_those_of_maxsim(client: Client, tiny: TinyLate) -> None:
    expected = tiny.scores(["find the cat"], TEXTS)[0]
    found = client.json("/score", {"text_1": "find the cat", "text_2": TEXTS})
    close([item["score"] for item in found["data"]], list(expected))
    tokens = sum(len(tiny.ids(text, "document")[0]) for text in TEXTS) + 8 * len(TEXTS)
    assert found["usage"]["prompt_tokens"] == tokens
    pairs = client.json("/score", {"queries": TEXTS, "documents": TEXTS[::-1]})
    close([item["score"] for item in pairs["data"]], list(np.diagonal(tiny.scores(TEXTS, TEXTS[::-1]))))
