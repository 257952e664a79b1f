"""Haystack's components: pipelines over SciFact that outlive their YAML, and what they refuse."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.core.errors import DeserializationError
from haystack.dataclasses import SparseEmbedding
from haystack.document_stores.in_memory import InMemoryDocumentStore
from tests.runtime.frameworks.conftest import Expected, SciFact
from tests.support.rerankers import TinyReranker, write_tiny_reranker
from tests.support.tiny_heads import random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, ModelNotFoundError
from trivec.integrations.haystack import (
    TrivecDocumentEmbedder,
    TrivecRanker,
    TrivecSparseDocumentEmbedder,
    TrivecSparseTextEmbedder,
    TrivecTextEmbedder,
)

OPTIONS: dict[str, Any] = {"device": "cpu", "threads": 1}
ALLOWED = ["trivec.integrations.haystack"]
DOCUMENTS = [Document(content="a cat"), Document(content="the old dog", meta={"title": "boat"}), Document(content="")]


@pytest.fixture(scope="module")
def tiny_reranker(tmp_path_factory: pytest.TempPathFactory) -> TinyReranker:
    return write_tiny_reranker(tmp_path_factory.mktemp("reranker") / "model")


def test_scifact(
    minilm: Path, prompted: dict[str, Any], scifact: SciFact, expected: Expected, tiny_reranker: TinyReranker
) -> None:
    store = InMemoryDocumentStore(embedding_similarity_function="dot_product")
    writing = Pipeline()
    writing.add_component("embedder", TrivecDocumentEmbedder(minilm, **prompted))
    writing.add_component("writer", DocumentWriter(store))
    writing.connect("embedder.documents", "writer.documents")
    documents = [Document(id=name, content=text) for name, text in scifact.documents.items()]
    writing.run({"embedder": {"documents": documents}})
    assert all(document.embedding is None for document in documents)  # copies were stored
    stored = {document.id: document.embedding for document in store.filter_documents()}
    np.testing.assert_array_equal(np.asarray([stored[name] for name in scifact.ids], np.float32), expected.documents)

    asking = Pipeline()
    asking.add_component("embedder", TrivecTextEmbedder(minilm, **prompted))
    asking.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=5))
    asking.connect("embedder.embedding", "retriever.query_embedding")
    with pytest.raises(DeserializationError, match=r"trivec\.integrations\.haystack"):
        Pipeline.loads(asking.dumps())  # Haystack wants to be told whom to trust
    unopened = asking.dumps()
    asking.warm_up()
    for pipeline in (asking, *(Pipeline.loads(kept, allowed_modules=ALLOWED) for kept in (unopened, asking.dumps()))):
        found = pipeline.run({"embedder": {"text": scifact.question}})["retriever"]["documents"]
        assert [document.id for document in found] == [scifact.ids[row] for row in expected.order()[:5]]
    assert "fingerprint" in asking.dumps()
    assert "fingerprint" not in unopened

    ranker = TrivecRanker(tiny_reranker.folder, top_k=3, **OPTIONS)
    with trivec.load(tiny_reranker.folder, kind="reranker", **OPTIONS) as reranker:
        ranked = reranker.rank(scifact.question, [document.content for document in found], 3)
    best = ranker.run(scifact.question, found)["documents"]
    assert [(b.id, b.score) for b in best] == [(found[r["corpus_id"]].id, r["score"]) for r in ranked]
    assert all(document.score is not None for document in found)  # the retriever's, as they were
    assert {document.id for document in best} < {document.id for document in found}


@pytest.fixture(scope="module")
def sparse_folder(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("splade") / "model"
    return splade(folder, tiny_model, random_logits(), np.abs(random_weights())).folder


def test_sparse(sparse_folder: Path) -> None:
    load = {"prompts": {"query": "find the ", "document": "the "}}
    documents = TrivecSparseDocumentEmbedder(sparse_folder, **OPTIONS, load_options=load)
    texts = TrivecSparseTextEmbedder(sparse_folder, **OPTIONS, load_options=load)
    with trivec.load(sparse_folder, kind="sparse", prompts=load["prompts"], **OPTIONS) as encoder:
        rows = encoder.encode_document([document.content for document in DOCUMENTS])
        query = encoder.encode_query("the cat")
    expected = [SparseEmbedding(row.indices.tolist(), row.values.tolist()) for row in rows]
    for made in (documents, TrivecSparseDocumentEmbedder.from_dict(documents.to_dict())):
        assert [document.sparse_embedding for document in made.run(DOCUMENTS)["documents"]] == expected
    assert asyncio.run(documents.run_async(DOCUMENTS)) == documents.run(DOCUMENTS)
    wanted = {"sparse_embedding": SparseEmbedding(query.indices.tolist(), query.values.tolist())}
    assert texts.run("the cat") == asyncio.run(texts.run_async("the cat")) == wanted


def test_meta_and_coroutines(tiny_folder: Path) -> None:
    embedder = TrivecDocumentEmbedder(
        tiny_folder, **OPTIONS, meta_fields_to_embed=["title", "absent"], embedding_separator=" "
    )
    with trivec.load(tiny_folder, kind="dense", **OPTIONS) as encoder:
        expected = encoder.encode_document(["a cat", "boat the old dog", ""])
        query = encoder.encode_query("the cat")
    for made in (embedder, TrivecDocumentEmbedder.from_dict(embedder.to_dict())):
        for found in (made.run(DOCUMENTS), asyncio.run(made.run_async(DOCUMENTS))):
            rows = np.asarray([document.embedding for document in found["documents"]], np.float32)
            np.testing.assert_array_equal(rows, expected)
            assert [dataclasses.replace(d, embedding=None) for d in found["documents"]] == DOCUMENTS
    assert embedder.run([]) == {"documents": []}
    text = TrivecTextEmbedder(tiny_folder, **OPTIONS)
    assert text.run("the cat") == asyncio.run(text.run_async("the cat")) == {"embedding": query.tolist()}
    with trivec.load(tiny_folder, **OPTIONS) as opened:
        assert TrivecTextEmbedder(opened).run("the cat") == text.run("the cat")
        assert TrivecTextEmbedder(opened).to_dict() == text.to_dict()


def test_what_yaml_says(tiny_folder: Path, tiny_reranker: TinyReranker) -> None:
    load = {"token": "hf_secret", "cache_dir": "/here"}
    embedder = TrivecTextEmbedder(tiny_folder, **OPTIONS, load_options=load)
    kept = embedder.to_dict()
    assert kept == {
        "type": "trivec.integrations.haystack.TrivecTextEmbedder",
        "init_parameters": {"model": str(tiny_folder)},
    }
    embedder.warm_up()
    parameters = embedder.to_dict()["init_parameters"]
    assert parameters == {"model": str(tiny_folder), "precision": "fp32", "fingerprint": embedder.query_fingerprint}
    parameters["load_options"] = {"prompts": {"query": "another "}}
    other = TrivecTextEmbedder.from_dict({**kept, "init_parameters": parameters})
    with pytest.raises(InputError, match="gives other vectors than those that were stored"):
        other.warm_up()
    ranker = TrivecRanker(tiny_reranker.folder, top_k=2, rank_options={"activation_fn": "identity"}, **OPTIONS)
    ranker.warm_up()
    again = TrivecRanker.from_dict(ranker.to_dict())
    assert again.run("the cat", DOCUMENTS) == ranker.run("the cat", DOCUMENTS)
    assert (
        asyncio.run(again.run_async("the cat", DOCUMENTS, top_k=1))["documents"]
        == (ranker.run("the cat", DOCUMENTS)["documents"][:1])
    )
    logits = tiny_reranker.logits([("the cat", document.content or "") for document in DOCUMENTS])[:, 0]
    scores = [document.score for document in ranker.run("the cat", DOCUMENTS)["documents"]]
    np.testing.assert_allclose(scores, sorted(logits, reverse=True)[:2], rtol=1e-5)


def test_what_is_refused(tiny_folder: Path, tiny_reranker: TinyReranker, sparse_folder: Path) -> None:
    embedder = TrivecDocumentEmbedder(tiny_folder, **OPTIONS)
    with pytest.raises(InputError, match=r"has no content, and its vector would be that of no text"):
        embedder.run([Document(content="a"), Document(id="b", content=None)])
    with pytest.raises(InputError, match="expected a Document at index 1, got str 'text'"):
        embedder.run([Document(content="a"), "text"])
    with pytest.raises(InputError, match=r"expected a list of Documents, got one Document\. Type: \[document\]"):
        embedder.run(Document(content="a"))
    with pytest.raises(InputError, match="expected one text, got list"):
        TrivecTextEmbedder(tiny_folder, **OPTIONS).run(["a"])
    with pytest.raises(InputError, match=r"meta_fields_to_embed must be a list of texts, got one str"):
        TrivecDocumentEmbedder(tiny_folder, meta_fields_to_embed="title")
    with pytest.raises(TypeError, match="prefix"):
        TrivecDocumentEmbedder(tiny_folder, prefix="a")
    with pytest.raises(ModelNotFoundError):
        TrivecTextEmbedder("nowhere/at/all").warm_up()
    with pytest.raises(InputError, match=r"this adapter needs weights of terms"):
        TrivecSparseTextEmbedder(tiny_folder, **OPTIONS).warm_up()
    with trivec.load(sparse_folder, **OPTIONS) as sparse, pytest.raises(InputError, match="needs dense vectors"):
        TrivecTextEmbedder(sparse)
    with pytest.raises(InputError, match="top_k must be a positive integer, or None for all, got 0"):
        TrivecRanker(tiny_reranker.folder, top_k=0)
    with pytest.raises(InputError, match="top_k must be a positive integer, or None for all, got -1"):
        TrivecRanker(tiny_reranker.folder, **OPTIONS).run("a", DOCUMENTS, top_k=-1)
    with pytest.raises(InputError, match="expected a reranker's folder"):
        TrivecRanker(3)  # type: ignore[arg-type]
