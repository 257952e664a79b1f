"""The twins of pymilvus.model's rerank functions; what they have in common with those stands in test_hosted_sdks."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.loopback import KEY, Loopback, Reply, relevance

import trivec
from trivec.integrations import milvus

TEXTS = ["a cat", "the dog", "two boats"]
Make = Callable[..., Any]
RERANKERS: dict[str, tuple[str, Make]] = {
    "cohere": ("cohere", milvus.CohereRerankFunction),
    "voyage": ("voyage", milvus.VoyageRerankFunction),
    "jina": ("jina", milvus.JinaRerankFunction),
    "tei": ("tei", lambda base_url, **options: milvus.TEIRerankFunction(base_url, **options)),  # noqa: PLW0108
}


@pytest.mark.parametrize("name", RERANKERS)
def test_rerankers(name: str, server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 4: Cohere's works. Any number of documents, five of them where nobody says how many, again after a 429."""
    provider, make = RERANKERS[name]
    if name == "jina":
        monkeypatch.delenv("JINA_API_KEY")
        monkeypatch.setenv("JINAAI_API_KEY", KEY)
    function = make(base_url=server.base(provider))
    server.replies.append(Reply(429, {}, headers={"retry-after-ms": "1"}))
    documents = [f"document {n}" for n in range(2500)]
    found = function("a question", documents)
    best = sorted(range(2500), key=lambda n: -relevance("a question", documents[n]))
    assert [each.index for each in found] == best[:5]
    assert [each.text for each in found] == [documents[n] for n in best[:5]]
    assert [each.index for each in function("a question", documents, top_k=None)] == best
    assert function("a question", []) == []
    assert function.model.usage.retries == 1
    assert len(server.asked) == 1 + 2 * 3
    keys = {asked.headers.get("authorization") for asked in server.asked}
    assert keys == {None if name == "tei" else f"Bearer {KEY}"}
    again = pickle.loads(pickle.dumps(function))
    assert [each.to_dict() for each in again("a question", documents[:3])] == [
        each.to_dict() for each in function("a question", documents[:3])
    ]
    with pytest.raises(trivec.InputError, match=r"documents"):
        function("a question", "a lone string")
    with pytest.raises(trivec.InputError, match=r"max_tokens= is not taken here: expected some of base_url, timeout"):
        make(base_url=server.base(provider), max_tokens=3)
    again.model.close()
    function.model.close()


def test_a_reranker_without_texts(server: Loopback) -> None:
    function = milvus.CohereRerankFunction(return_documents=False, base_url=server.url)
    assert [each.text for each in function("a question", TEXTS)] == [""] * 3
    function.model.close()
