"""The services' own SDKs, and pymilvus.model on them, as oracles: they send what we send, and read what we read.

A hand-written client stays honest this way; a new major of an SDK that moves the wire shows here.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.support import sdks
from tests.support.loopback import Asked, Loopback, vectors

import trivec.hosted
from trivec.integrations import milvus
from trivec.integrations.milvus import hosted

SDKS = ("openai", "voyage", "cohere", "mistral", "gemini")
TWINS: dict[str, Callable[[Loopback], Any]] = {
    "milvus_openai": lambda s: milvus.OpenAIEmbeddingFunction(base_url=s.base("openai"), dimensions=8),
    "milvus_voyage": lambda s: milvus.VoyageEmbeddingFunction(base_url=s.base("voyage"), dimension=256),
    "milvus_voyage_binary": lambda s: milvus.VoyageEmbeddingFunction(
        base_url=s.base("voyage"), dimension=256, embedding_type="binary"
    ),
    "milvus_cohere": lambda s: milvus.CohereEmbeddingFunction(base_url=s.url, input_type="clustering"),
    "milvus_cohere_binary": lambda s: milvus.CohereEmbeddingFunction(base_url=s.url, embedding_types=["ubinary"]),
    "milvus_jina": lambda s: hosted.JinaEmbeddingFunction(base_url=s.base("jina"), task="separation"),
    "milvus_tei": lambda s: milvus.TEIEmbeddingFunction(s.url),
}
RERANKERS = ("voyage_rerank", "cohere_rerank")
RERANK_TWINS: dict[str, Callable[[Loopback], Any]] = {
    "milvus_voyage_rerank": lambda s: milvus.VoyageRerankFunction(base_url=s.base("voyage")),
    "milvus_cohere_rerank": lambda s: milvus.CohereRerankFunction(base_url=s.url),
    "milvus_jina_rerank": lambda s: milvus.JinaRerankFunction(base_url=s.base("jina")),
    "milvus_tei_rerank": lambda s: milvus.TEIRerankFunction(s.url),
}
Answers = tuple[dict[str, Any], dict[str, list[Asked]]]


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    """What the SDKs gave, and what they sent."""
    names = (*SDKS, *TWINS, *RERANKERS, *RERANK_TWINS)
    servers = {name: Loopback() for name in names}
    found = sdks.ask({name: server.url for name, server in servers.items()})
    yield found, {name: server.asked for name, server in servers.items()}
    for server in servers.values():
        server.close()


def said(body: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something."""
    return {name: value for name, value in body.items() if value is not None}


@pytest.mark.parametrize("name", SDKS)
def test_the_numbers(name: str, answers: Answers, server: Loopback) -> None:
    documents, few = answers[0][name]
    np.testing.assert_array_equal(np.asarray(documents, dtype=np.float32), vectors(sdks.DOCUMENTS))
    np.testing.assert_array_equal(np.asarray(few, dtype=np.float32), vectors(["few"], 4))
    with trivec.hosted.open(f"{name}:any-model", base_url=server.base(name)) as encoder:
        np.testing.assert_array_equal(encoder.encode_document(sdks.DOCUMENTS), np.asarray(documents, dtype=np.float32))


@pytest.mark.parametrize("name", SDKS)
def test_the_bodies(name: str, answers: Answers, server: Loopback) -> None:
    """Ours hold the SDK's fields, with its values; what only we say is how vectors are packed or long texts are cut."""
    with trivec.hosted.open(f"{name}:any-model", base_url=server.base(name)) as encoder:
        encoder.encode_document(sdks.DOCUMENTS)
    with trivec.hosted.open(f"{name}:any-model", base_url=server.base(name), dimensions=4) as encoder:
        encoder.encode_query("few")
    theirs = answers[1][name]
    assert len(theirs) == len(server.asked) == 2
    for ours, sdk in zip(server.asked, theirs, strict=True):
        assert ours.path.replace("v1beta", "v1") == sdk.path.replace("v1beta", "v1")
        header = "x-goog-api-key" if name == "gemini" else "authorization"
        assert ours.headers[header] == sdk.headers[header]
        body, expected = said(ours.body), said(sdk.body)
        for more in set(body) - set(expected):
            assert more in ("encoding_format", "truncation", "truncate"), more
            del body[more]
        expected = {
            k: v for k, v in expected.items() if (k, v) not in (("encoding_format", "float"), ("output_dtype", "float"))
        }
        assert body == expected


@pytest.mark.parametrize("name", TWINS)
def test_the_twins(name: str, answers: Answers, server: Loopback) -> None:
    """The same rows in the same types, but for float32 where float64 came."""
    found = answers[0][name]
    function = TWINS[name](server)
    for method, (kind, rows) in found.items():
        ours = getattr(function, method)(sdks.DOCUMENTS)
        if kind == "bytes":
            assert [list(row) for row in ours] == rows
        else:
            assert {row.dtype.name for row in ours} == {kind.replace("float64", "float32")}
            np.testing.assert_array_equal(ours, np.asarray(rows, dtype=ours[0].dtype))
    function.model.close()


@pytest.mark.parametrize("name", RERANKERS)
def test_the_rerankers(name: str, answers: Answers, server: Loopback) -> None:
    provider = name.partition("_")[0]
    with trivec.hosted.open_reranker(f"{provider}:any-model", base_url=server.base(provider)) as reranker:
        ranked = reranker.rank("a question", sdks.DOCUMENTS)
    assert [place["corpus_id"] for place in ranked] == [index for index, _ in answers[0][name]]
    np.testing.assert_array_equal(
        np.array([place["score"] for place in ranked], dtype=np.float32),
        np.array([score for _, score in answers[0][name]], dtype=np.float32),
    )
    (sdk,) = answers[1][name]
    assert (server.asked[0].path, server.asked[0].body.items() <= said(sdk.body).items()) == (sdk.path, True)


@pytest.mark.parametrize("name", RERANK_TWINS)
def test_the_rerank_twins(name: str, answers: Answers, server: Loopback) -> None:
    """The same places of the same texts; scores are float32. There Cohere's fails, and TEI's passes over top_k."""
    theirs = answers[0][name]
    function = RERANK_TWINS[name](server)
    ours = function("a question", sdks.DOCUMENTS, top_k=2)
    function.model.close()
    if name == "milvus_cohere_rerank":
        assert "error" in theirs
        assert theirs["error"].startswith("TypeError: ")
        theirs = answers[0]["milvus_voyage_rerank"]  # of the same relevance
    for place, (said, shown) in zip(ours, theirs[:2], strict=True):
        assert place.to_dict() == {**said, "score": pytest.approx(said["score"], rel=1e-7)}
        assert repr(place) == shown.replace(repr(said["score"]), repr(place.score))
    (asked,) = server.asked
    if name != "milvus_cohere_rerank":
        sdk = answers[1][name][0]
        assert (asked.path, asked.headers.get("authorization")) == (sdk.path, sdk.headers.get("authorization"))


def test_without_the_environment_it_is_said_what_to_type(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVEC_SDKS_VENV", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"there is no .*bin/python: .* Type: scripts/setup sdks$"):
        sdks.ask({})
