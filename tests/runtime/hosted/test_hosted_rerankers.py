"""A hosted reranker where a local one goes: frameworks, and its fingerprint."""

import asyncio
import pickle

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from qdrant_client import models
from tests.support.loopback import Loopback, relevance

import trivec
import trivec.hosted
from trivec._encoders.ranking import is_ranking_model
from trivec._open import open_reranker
from trivec.integrations.langchain import TrivecCrossEncoder, TrivecReranker
from trivec.integrations.llama_index import TrivecRerank
from trivec.integrations.qdrant import QdrantEncoder

QUERY = "a question"
TEXTS = ["a cat", "the dog", "two boats", "a tree"]
ORDER = sorted(range(4), key=lambda row: -relevance(QUERY, TEXTS[row]))
SCORES = [pytest.approx(relevance(QUERY, TEXTS[row])) for row in ORDER]


@pytest.fixture
def spec(server: Loopback) -> str:
    return f"cohere:m?base_url={server.base('cohere')}"


def test_langchain(spec: str, server: Loopback) -> None:
    documents = [Document(text) for text in TEXTS]
    compressor = TrivecReranker(spec, top_n=2)
    found = compressor.compress_documents(documents, QUERY)
    assert [document.page_content for document in found] == [TEXTS[row] for row in ORDER[:2]]
    assert [document.metadata["relevance_score"] for document in found] == SCORES[:2]
    assert asyncio.run(compressor.acompress_documents(documents, QUERY)) == found
    assert compressor.truncated is None
    named = TrivecCrossEncoder("cohere:m", model_kwargs={"base_url": server.base("cohere")})
    assert named.score([(QUERY, TEXTS[row]) for row in ORDER]) == SCORES
    again = pickle.loads(pickle.dumps(named))
    assert again.fingerprint == named.fingerprint == compressor.fingerprint
    with pytest.raises(trivec.InputError, match=r"batch_size=3 is no option of this reranker's rank. Expected none"):
        TrivecReranker(spec, rank_kwargs={"batch_size": 3})
    with pytest.raises(trivec.InputError, match=r"revision= is no argument of trivec.hosted.open_reranker"):
        TrivecReranker(spec, model_kwargs={"revision": "main"})


def test_llama_index_and_qdrant(spec: str) -> None:
    rerank = TrivecRerank(spec, top_n=4)
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    assert [each.score for each in rerank.postprocess_nodes(nodes, query_str=QUERY)] == SCORES
    again = TrivecRerank.from_dict(rerank.to_dict())
    assert [each.score for each in again.postprocess_nodes(nodes, query_str=QUERY)] == SCORES
    points = [models.ScoredPoint(id=row, version=0, score=0.5, payload={"text": t}) for row, t in enumerate(TEXTS)]
    with trivec.hosted.open_reranker(spec) as reranker:
        assert [point.id for point in QdrantEncoder.rerank(QUERY, points, reranker)] == ORDER


def test_a_name_opens_it(spec: str, server: Loopback) -> None:
    reranker = open_reranker(spec, device="auto", precision="auto", threads=None)
    assert is_ranking_model(reranker)
    assert reranker.engine_fingerprint == "hosted at 127.0.0.1"
    other = open_reranker(spec.replace("cohere:m", "cohere:n"))
    assert reranker.fingerprint != other.fingerprint
    assert not server.asked
    for each in (reranker, other):
        each.close()
    with pytest.raises(trivec.InputError, match=r"threads=2: a hosted model runs at its service. Options of 'cohere:m"):
        open_reranker(spec, threads=2)
    with pytest.raises(trivec.InputError, match=r"openai has no reranker; voyage, cohere, jina and tei have"):
        open_reranker("openai:m")


def test_what_a_comparison_would_cost(spec: str) -> None:
    with trivec.hosted.open_reranker(spec) as reranker:
        usage = reranker.estimate(["abc", "abcdef"], ["abc" * 10, "abc" * 20], 100)
    assert (usage.requests, usage.texts, usage.tokens) == (2, 4, 2 * (1 + 15) + 2 * (2 + 15))
