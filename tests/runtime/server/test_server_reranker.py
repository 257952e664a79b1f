"""A reranker that was exported, served: every shape of its routes, against what `rank` and `predict` give."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.support.rerankers import TinyReranker, write_tiny_reranker
from tests.support.serving import Client

import trivec
import trivec.server
from trivec import Reranker

QUERY = "the cat"
TEXTS = ["a dog", "the boat", "sat on the mat", "a small tree", "a dog"]
LABELS = ("contradiction", "entailment", "neutral")
LONG = "boat " * 40


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyReranker:
    return write_tiny_reranker(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def reranker(tiny: TinyReranker) -> Iterator[Reranker]:
    with trivec.load(tiny.folder, kind="reranker", device="cpu", threads=1) as found:
        yield found


@pytest.fixture(scope="module")
def client(tiny: TinyReranker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    three = write_tiny_reranker(tmp_path_factory.mktemp("three") / "model", LABELS, "identity")
    folders = {"one": tiny.folder, "three": three.folder}
    models = {name: trivec.load(folder, device="cpu", threads=1) for name, folder in folders.items()}
    app = trivec.server.app(models)
    for model in app.registry.models.values():
        model.warm_up()
    made = Client(app)
    yield made
    made.close()


def test_rerank_in_three_shapes(client: Client, reranker: Reranker) -> None:
    expected = reranker.rank(QUERY, TEXTS)
    places = [place["corpus_id"] for place in expected]
    scores = pytest.approx([place["score"] for place in expected], abs=1e-6)
    tei = client.json("/rerank", {"query": QUERY, "texts": TEXTS, "return_text": True, "model": "one"})
    assert [item["index"] for item in tei] == places
    assert [item["text"] for item in tei] == [TEXTS[row] for row in places]
    assert [item["score"] for item in tei] == scores
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        body = {"query": QUERY, "documents": TEXTS, "model": "one"}
        found = client.json(path, {**body, "return_documents": True})
        assert [item["index"] for item in found["results"]] == places
        assert [item["relevance_score"] for item in found["results"]] == scores
        assert found["results"][0]["document"] == {"text": TEXTS[places[0]]}
        tokens = sum(len(ids) for ids in reranker.tokenize([(QUERY, text) for text in TEXTS]))
        assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
        assert [i["index"] for i in client.json(path, {**body, "top_n": 2})["results"]] == places[:2]
        raw = client.json(path, {**body, "raw_scores": True})["results"]
        logits = reranker.predict([(QUERY, TEXTS[row]) for row in places], activation_fn="identity")
        assert [item["relevance_score"] for item in raw] == pytest.approx(logits.tolist(), abs=1e-5)
    weaviate = client.json("/rerank", {"query": QUERY, "documents": TEXTS, "property": "p", "model": "one"})
    assert [item["document"] for item in weaviate["scores"]] == TEXTS
    by_index = reranker.predict([(QUERY, text) for text in TEXTS]).tolist()
    assert [item["score"] for item in weaviate["scores"]] == pytest.approx(by_index, abs=1e-6)


def test_score_and_predict(client: Client, reranker: Reranker) -> None:
    expected = reranker.predict([(QUERY, text) for text in TEXTS]).tolist()
    one = client.json("/score", {"text_1": QUERY, "text_2": TEXTS, "model": "one"})
    assert [item["score"] for item in one["data"]] == pytest.approx(expected, abs=1e-6)
    each = client.json("/v1/score", {"queries": [QUERY] * 5, "documents": TEXTS, "model": "one"})
    assert [item["score"] for item in each["data"]] == pytest.approx(expected, abs=1e-6)
    pairs = [[QUERY, TEXTS[0]], [QUERY, TEXTS[1]]]
    found = client.json("/predict", {"inputs": pairs, "model": "three", "raw_scores": True})
    three = client.app.registry.models["three"].encoder
    logits = three.predict(pairs)  # (2, 3)
    for items, row in zip(found, logits.tolist(), strict=True):
        assert [item["label"] for item in items] == [LABELS[i] for i in np.argsort(-np.array(row), kind="stable")]
        assert [item["score"] for item in items] == pytest.approx(sorted(row, reverse=True), abs=1e-5)
    (soft, *_) = client.json("/predict", {"inputs": pairs, "model": "three"})
    assert sum(item["score"] for item in soft) == pytest.approx(1.0)
    assert client.error("/rerank", {"query": QUERY, "documents": TEXTS, "model": "three"}) == (
        400,
        "wrong_model_kind",
        "model",
    )


def test_a_pair_that_is_too_long(client: Client, reranker: Reranker) -> None:
    body: dict[str, Any] = {"query": QUERY, "documents": ["a dog", LONG], "model": "one"}
    answer = client.post("/rerank", body)
    assert answer.status_code == 200
    assert answer.headers["x-trivec-truncated"] == "1"
    assert answer.headers["x-trivec-fingerprint"] == reranker.fingerprint[:16]
    by_index = {item["index"]: item["relevance_score"] for item in answer.json()["results"]}
    assert by_index[1] == pytest.approx(float(reranker.predict((QUERY, LONG))), abs=1e-6)
    left = client.json("/rerank", {**body, "documents": [f"the cat {LONG}"], "truncation_direction": "Left"})
    expected = float(reranker.reading(side="left").predict((QUERY, f"the cat {LONG}")))
    assert left["results"][0]["relevance_score"] == pytest.approx(expected, abs=1e-6)
    assert client.error("/rerank", {**body, "truncate": False}) == (400, "text_too_long", "documents.1")


def test_what_it_says_of_itself(client: Client, reranker: Reranker) -> None:
    said = client.get("/v1/models/one").json()
    assert said["capabilities"] == ["rerank"]
    assert (said["fingerprint"], said["max_model_len"]) == (reranker.fingerprint, 16)
    assert (said["precision"], said["device"], said["prompts"]) == ("fp32", "cpu", ["query"])
    assert client.error("/v1/embeddings", {"input": "a", "model": "one"}) == (400, "wrong_model_kind", "model")
