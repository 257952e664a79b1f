"""Relevance from a service: scores in the documents' order, however they come, and however many there are."""

import asyncio
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.support.loopback import KEY, Loopback, Reply, relevance

import trivec.hosted
from trivec._errors import InputError, NonFiniteError, ServiceError, TruncationError
from trivec.hosted import HostedReranker

Open = Callable[..., HostedReranker]
DOCUMENTS = [f"document {n}" for n in range(7)]
QUERY = "a question"
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "voyage": ("/v1/rerank", {"model": "voyage-any", "query": QUERY, "documents": DOCUMENTS}),
    "cohere": ("/v2/rerank", {"model": "cohere-any", "query": QUERY, "documents": DOCUMENTS}),
    "jina": ("/v1/rerank", {"model": "jina-any", "query": QUERY, "documents": DOCUMENTS, "return_documents": False}),
    "tei": ("/rerank", {"query": QUERY, "texts": DOCUMENTS, "truncate": True}),
}


@pytest.fixture(params=BODIES)
def name(request: pytest.FixtureRequest) -> str:
    """Each service that has a reranker."""
    return str(request.param)


@pytest.fixture
def reranker(server: Loopback) -> Iterator[Open]:
    """`open_reranker`, with the server for each service."""
    made: list[HostedReranker] = []

    def opened(provider: str, **options: Any) -> HostedReranker:
        found = trivec.hosted.open_reranker(f"{provider}:{provider}-any", base_url=server.base(provider), **options)
        made.append(found)
        return found

    yield opened
    for found in made:
        found.close()


def expected(documents: list[str]) -> Any:
    return np.array([relevance(QUERY, document) for document in documents], dtype=np.float32)


def test_the_request_and_its_answer(name: str, server: Loopback, reranker: Open) -> None:
    """Among them that cohere is sent no return_documents: pymilvus.model's fault 4."""
    found = reranker(name).scores(QUERY, DOCUMENTS)
    (asked,) = server.asked
    assert (asked.path, asked.body) == BODIES[name]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected(DOCUMENTS))
    assert asked.headers.get("authorization") == (None if name == "tei" else f"Bearer {KEY}")


def test_best_first(name: str, reranker: Open) -> None:
    model = reranker(name)
    order = np.argsort(-expected(DOCUMENTS))
    ranked = model.rank(QUERY, DOCUMENTS)
    assert [place["corpus_id"] for place in ranked] == order.tolist()
    assert {tuple(place) for place in ranked} == {("corpus_id", "score")}
    np.testing.assert_array_equal([place["score"] for place in ranked], expected(DOCUMENTS)[order])
    with_texts = model.rank(QUERY, DOCUMENTS, return_documents=True)
    assert [place["text"] for place in with_texts] == [DOCUMENTS[index] for index in order]
    assert model.rank(QUERY, DOCUMENTS, top_k=2) == ranked[:2] == asyncio.run(model.arank(QUERY, DOCUMENTS, top_k=2))
    np.testing.assert_array_equal(asyncio.run(model.ascores(QUERY, DOCUMENTS)), expected(DOCUMENTS))
    assert model.rank(QUERY, []) == []


def test_more_documents_than_a_request_has(name: str, server: Loopback, reranker: Open) -> None:
    documents = [f"document {n}" for n in range(2500)]
    np.testing.assert_array_equal(reranker(name).scores(QUERY, documents), expected(documents))
    assert sorted(len(asked.texts) for asked in server.asked) == [500, 1000, 1000]


def test_a_server_that_takes_fewer(server: Loopback, reranker: Open) -> None:
    body = {"error": "batch size 100 > maximum allowed batch size 32", "error_type": "Validation"}
    server.refuse = lambda texts: Reply(413, body) if len(texts) > 32 else None
    documents = [f"document {n}" for n in range(100)]
    model = reranker("tei")
    for _ in range(2):
        np.testing.assert_array_equal(model.scores(QUERY, documents), expected(documents))
    assert all(len(asked.texts) <= 32 for asked in server.asked[-4:])


def test_a_document_that_is_too_long(server: Loopback, reranker: Open) -> None:
    reply = Reply(413, {"error": "`inputs` must have less than 512 tokens", "error_type": "Validation"})
    server.refuse = lambda texts: reply if "document 5" in texts else None
    with pytest.raises(TruncationError, match="the document at index 5 is too long"):
        reranker("tei").scores(QUERY, DOCUMENTS)


def edited(name: str, change: Callable[[list[Any]], object]) -> Reply:
    def of(found: Any) -> Any:
        change(found if name == "tei" else found["data" if name == "voyage" else "results"])
        return found

    return Reply(change=of)


def test_wrong_answers(name: str, server: Loopback, reranker: Open) -> None:
    score = "score" if name == "tei" else "relevance_score"
    for reply in (
        edited(name, lambda items: items.pop()),
        edited(name, lambda items: items[0].update(index=items[1]["index"])),
        edited(name, lambda items: items[0].pop(score)),
        Reply(body={}),
        Reply(body=b"[]"),
    ):
        server.replies.append(reply)
        with pytest.raises(ServiceError, match=r"something else than one score for each of 7 documents"):
            reranker(name).scores(QUERY, DOCUMENTS)
    server.replies.append(edited(name, lambda items: items[0].update({score: float("nan")})))
    with pytest.raises(NonFiniteError, match="NaN or infinite for 'a question'"):
        reranker(name).scores(QUERY, DOCUMENTS)


def test_a_429_and_a_key(name: str, server: Loopback, reranker: Open) -> None:
    model = reranker(name)
    server.replies.append(Reply(429, {"detail": "slow"}, headers={"retry-after-ms": "10"}))
    model.scores(QUERY, DOCUMENTS)
    assert (model.usage.retries, model.usage.texts) == (1, 7)
    assert KEY not in repr(model)
    with pickle.loads(pickle.dumps(model)) as again:
        np.testing.assert_array_equal(again.scores(QUERY, DOCUMENTS), expected(DOCUMENTS))


@pytest.mark.parametrize(
    ("query", "documents", "message"),
    [
        ("", ["a"], "expected a query that is a text and not blank"),
        (3, ["a"], "expected a query that is a text and not blank"),
        (QUERY, "a", "expected a list of documents"),
        (QUERY, ["a", ""], "the document at index 1 is blank"),
        (QUERY, ["a", None], "got NoneType at index 1"),
    ],
)
def test_what_cannot_be_ranked(server: Loopback, reranker: Open, query: Any, documents: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        reranker("voyage").scores(query, documents)
    assert server.asked == []


def test_who_has_none() -> None:
    with pytest.raises(InputError, match=r"openai has no reranker; voyage, cohere, jina and tei have"):
        trivec.hosted.open_reranker("openai:m")


def test_closed(server: Loopback) -> None:
    reranker = trivec.hosted.open_reranker("cohere:any-model", base_url=server.url)
    assert reranker.scores("a", ["b"]).shape == (1,)
    reranker.close()
    reranker.close()
    message = r"this reranker is closed\. Open it again: trivec\.hosted\.open_reranker\('cohere:any-model\?base_url="
    for ask in (reranker.scores, reranker.rank):
        with pytest.raises(InputError, match=message):
            ask("a", ["b"])
    for aask in (reranker.ascores, reranker.arank):
        with pytest.raises(InputError, match=message):
            asyncio.run(aask("a", ["b"]))
    assert "closed" in repr(reranker)
    assert len(server.asked) == 1
