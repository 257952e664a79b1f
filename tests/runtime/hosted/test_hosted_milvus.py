"""The twins of pymilvus.model's API functions: the faults of PROVIDERS.md, section 1, each with the right answer."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.loopback import KEY, Loopback, Reply, as_asked, vector, vectors

import trivec
from trivec.integrations import milvus
from trivec.integrations.milvus import hosted

TEXTS = ["a cat", "the dog", "two boats"]
Make = Callable[..., Any]
TWINS: dict[str, tuple[str, Make]] = {
    "openai": ("openai", milvus.OpenAIEmbeddingFunction),
    "voyage": ("voyage", milvus.VoyageEmbeddingFunction),
    "cohere": ("cohere", milvus.CohereEmbeddingFunction),
    "mistral": ("mistral", lambda **options: milvus.MistralAIEmbeddingFunction(None, **options)),
    "jina": ("jina", hosted.JinaEmbeddingFunction),
    "nomic": ("nomic", lambda **options: hosted.NomicEmbeddingFunction(**{"dimensions": 8, **options})),
    "gemini": ("gemini", milvus.GeminiEmbeddingFunction),
    "tei": ("tei", lambda base_url, **options: milvus.TEIEmbeddingFunction(base_url, **options)),  # noqa: PLW0108 - another name
}


@pytest.fixture(params=TWINS)
def twin(request: pytest.FixtureRequest, server: Loopback) -> Iterator[Make]:
    """A function's class with the server for its service."""
    made: list[Any] = []
    provider, make = TWINS[request.param]

    def opened(**options: Any) -> Any:
        made.append(make(base_url=server.base(provider), **options))
        return made[-1]

    opened.provider = provider  # type: ignore[attr-defined]
    yield opened
    for function in made:
        function.model.close()


def test_lists_of_rows(twin: Make) -> None:
    function = twin()
    for found in (function(TEXTS), function.encode_queries(TEXTS), function.encode_documents(TEXTS)):
        assert isinstance(found, list)
        assert {(row.dtype.name, row.shape) for row in found} == {("float32", (8,))}
        np.testing.assert_array_equal(found, vectors(TEXTS))
    assert function.dim == 8


TASKS: dict[str, tuple[str, list[str | None]]] = {
    "voyage": ("input_type", ["document", "query", None]),
    "cohere": ("input_type", ["search_document", "search_query", "search_document"]),
    "jina": ("task", ["retrieval.passage", "retrieval.query", "retrieval.passage"]),
    "nomic": ("task_type", ["search_document", "search_query", "search_document"]),  # fault 2: queries are queries
}


def test_words_for_queries_and_documents(twin: Make, server: Loopback) -> None:
    function = twin()
    function.encode_documents(TEXTS)
    function.encode_queries(TEXTS)
    function(TEXTS)
    name, expected = TASKS.get(twin.provider, ("task", [None] * 3))  # type: ignore[attr-defined]
    assert [asked.body.get(name) for asked in server.asked] == expected


def test_fault_1_gemini_gives_a_vector_a_text(server: Loopback) -> None:
    function = milvus.GeminiEmbeddingFunction("gemini-embedding-2", base_url=server.url)
    assert len(function.encode_documents(TEXTS)) == 3
    function.model.close()


def test_fault_3_mistral(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be made, and a key from MISTRALAI_API_KEY is used."""
    monkeypatch.delenv("MISTRAL_API_KEY")
    monkeypatch.setenv("MISTRALAI_API_KEY", "theirs")
    function = milvus.MistralAIEmbeddingFunction(None, base_url=server.url)
    function.encode_queries(TEXTS)
    assert server.asked[0].headers["authorization"] == "Bearer theirs"
    assert server.asked[0].body["model"] == "mistral-embed"
    function.model.close()


def test_fault_5_nothing_is_installed(twin: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import subprocess

    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"started: {arguments}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "system", refuse)
    twin().encode_documents(TEXTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("provider", "name"), [("openai", "text-embedding-4"), ("cohere", "embed-v4.0"), ("voyage", "voyage-4")]
)
def test_fault_6_the_width_of_a_model_that_no_table_has(server: Loopback, provider: str, name: str) -> None:
    function = TWINS[provider][1](model_name=name, base_url=server.base(provider))
    assert len(function.encode_documents(TEXTS)) == 3
    assert function.dim == 8
    function.model.close()


def test_fault_7_three_thousand_texts(twin: Make, server: Loopback) -> None:
    texts = [f"text {n}" for n in range(3000)]
    np.testing.assert_array_equal(twin().encode_documents(texts), vectors(texts))
    assert max(len(asked.texts) for asked in server.asked) <= 2048


def test_fault_8_a_429_does_not_end_the_call(twin: Make, server: Loopback) -> None:
    server.replies.append(Reply(429, {"message": "slow"}, headers={"retry-after-ms": "10"}))
    function = twin()
    np.testing.assert_array_equal(function.encode_queries(TEXTS), vectors(TEXTS))
    assert function.model.usage.retries == 1


@pytest.mark.parametrize("reply", [Reply(401, {"error": "no such key"}), Reply(400, b"<html>hello</html>")])
def test_fault_9_the_service_is_heard(twin: Make, server: Loopback, reply: Reply) -> None:
    server.replies.append(reply)
    with pytest.raises(trivec.ServiceError, match=r"no such key|<html>hello</html>") as caught:
        twin().encode_documents(TEXTS)
    assert caught.value.status == reply.status


def test_fault_9_nobody_waits_for_ever(twin: Make, server: Loopback) -> None:
    server.replies.append(Reply(delay=1))
    function = twin(timeout=0.2, max_retries=0)
    with pytest.raises(
        trivec.ServiceError, match=r"did not answer \((Read|Connect)Timeout\)"
    ):  # a busy machine connects late
        function.encode_documents(TEXTS)


def test_fault_10_to_ask_for_the_width_changes_nothing(twin: Make, server: Loopback) -> None:
    function = twin()
    function.encode_documents(TEXTS)
    assert function.dim == 8
    function.encode_documents(TEXTS)
    assert server.asked[0].body == server.asked[-1].body


def test_fault_11_no_texts_and_a_lone_string(twin: Make, server: Loopback) -> None:
    function = twin()
    assert function([]) == function.encode_queries([]) == function.encode_documents([]) == []
    for method in (function, function.encode_queries, function.encode_documents):
        with pytest.raises(trivec.InputError, match=r"must be a list of texts, got one str\. Type: \['a cat'\]"):
            method("a cat")
    assert server.asked == []
    np.testing.assert_array_equal(function._encode_query("a cat"), vector("a cat"))
    np.testing.assert_array_equal(function._encode_document("a cat"), vector("a cat"))


def test_fault_12_voyages_truncate(server: Loopback) -> None:
    for truncate, expected in ((None, True), (True, True), (False, False)):
        function = milvus.VoyageEmbeddingFunction(truncate=truncate, base_url=server.base("voyage"))
        function.encode_documents(TEXTS)
        assert server.asked[-1].body["truncation"] is expected
        function.model.close()


def test_binary_of_voyage_is_bool(server: Loopback) -> None:
    for kind in ("binary", "ubinary"):
        function = milvus.VoyageEmbeddingFunction(embedding_type=kind, base_url=server.base("voyage"))
        found = function.encode_documents(TEXTS)
        assert {(row.dtype.name, row.shape) for row in found} == {("bool", (8,))}
        np.testing.assert_array_equal(found, vectors(TEXTS) > 0)
        assert function.dim == 8
        function.model.close()


def test_binary_of_cohere_is_bytes(server: Loopback) -> None:
    for kind in ("binary", "ubinary"):
        function = milvus.CohereEmbeddingFunction(embedding_types=[kind], base_url=server.base("cohere"))
        dtype = np.int8 if kind == "binary" else np.uint8
        expected = [np.array(as_asked(vector(text), kind), dtype=dtype).tobytes() for text in TEXTS]
        assert function.encode_queries(TEXTS) == expected
        function.model.close()


def test_coheres_sides(server: Loopback) -> None:
    for truncate in ("NONE", "START", "END", None):
        function = milvus.CohereEmbeddingFunction(truncate=truncate, input_type="clustering", base_url=server.url)
        function(TEXTS)
        assert server.asked[-1].body["truncate"] == (truncate or "END")
        assert server.asked[-1].body["input_type"] == "clustering"
        function.model.close()


def test_the_rest_of_the_arguments(server: Loopback) -> None:
    jina = hosted.JinaEmbeddingFunction(
        dimensions=4, late_chunking=True, task="separation", base_url=f"{server.url}/v1"
    )
    jina(TEXTS)
    body = server.asked[-1].body
    assert (body["dimensions"], body["late_chunking"], body["task"]) == (4, True, "separation")
    nomic = hosted.NomicEmbeddingFunction(dimensionality=4, long_text_mode="mean", base_url=server.url)
    nomic(TEXTS)
    body = server.asked[-1].body
    assert (body["dimensionality"], body["long_text_mode"], nomic.dim) == (4, "mean", 4)
    config = {"task_type": "CLUSTERING", "output_dimensionality": 4}
    gemini = milvus.GeminiEmbeddingFunction(config=config, base_url=server.url)
    gemini.encode_queries(TEXTS)
    (request, *_) = server.asked[-1].body["requests"]
    assert (request["taskType"], request["outputDimensionality"], gemini.dim) == ("CLUSTERING", 4, 4)
    mistral = milvus.MistralAIEmbeddingFunction(KEY, output_dimension=4, base_url=server.url)
    mistral(TEXTS)
    assert server.asked[-1].body["output_dimension"] == mistral.dim == 4
    tei = milvus.TEIEmbeddingFunction(server.url, dimensions=5)
    tei(TEXTS)
    assert (tei.dim, "dimensions" in server.asked[-1].body) == (5, False)
    for function in (jina, nomic, gemini, mistral, tei):
        function.model.close()


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (milvus.VoyageEmbeddingFunction, {"embedding_type": "int8"}, "'int8' is none of float, binary, ubinary"),
        (milvus.CohereEmbeddingFunction, {"embedding_types": ["uint8"]}, "'uint8' is none of float, binary, ubinary"),
        (milvus.CohereEmbeddingFunction, {"embedding_types": ["float", "int8"]}, "must be a list of one type"),
        (milvus.CohereEmbeddingFunction, {"truncate": "LEFT"}, "'LEFT' is none of NONE, START, END"),
        (milvus.OpenAIEmbeddingFunction, {"organization": "mine"}, "organization= is not taken here: expected some of"),
        (milvus.GeminiEmbeddingFunction, {"config": {"title": "x"}}, "title in config"),
        (
            hosted.NomicEmbeddingFunction,
            {"inference_mode": "local"},
            "For this machine: from trivec.integrations.milvus",
        ),
        (hosted.NomicEmbeddingFunction, {"long_text_mode": "x"}, "'x' is none of truncate, mean"),
    ],
)
def test_arguments_that_are_not_taken(make: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(trivec.InputError, match=message):
        make(**options)


def test_the_local_ones_name_the_api(tiny_folder: Path) -> None:
    hint = r"For the API: from trivec\.integrations\.milvus\.hosted import {}"
    with pytest.raises(trivec.InputError, match=hint.format("JinaEmbeddingFunction")) as caught:
        milvus.JinaEmbeddingFunction(str(tiny_folder), api_key=KEY)
    assert KEY not in str(caught.value)
    with pytest.raises(trivec.InputError, match=hint.format("JinaEmbeddingFunction")):
        milvus.JinaEmbeddingFunction(str(tiny_folder), late_chunking=True)
    with pytest.raises(trivec.InputError, match=hint.format("NomicEmbeddingFunction")) as caught:
        milvus.NomicEmbeddingFunction(str(tiny_folder), api_key=KEY)  # type: ignore[call-arg]
    assert KEY not in str(caught.value)


def test_they_go_to_another_process(twin: Make) -> None:
    function = twin()
    again = pickle.loads(pickle.dumps(function))
    np.testing.assert_array_equal(again.encode_documents(TEXTS), vectors(TEXTS))
    again.model.close()
