"""LangChain's stores, retrievers and cache on TrivecEmbeddings, over SciFact."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_chroma import Chroma
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.retrievers import ParentDocumentRetriever
from langchain_classic.storage import LocalFileStore
from langchain_community.vectorstores import FAISS
from langchain_community.vectorstores.utils import DistanceStrategy
from langchain_core.documents import Document
from langchain_core.stores import InMemoryStore
from langchain_text_splitters import RecursiveCharacterTextSplitter
from tests.runtime.frameworks.conftest import PROMPTS, Expected, SciFact

import trivec
from trivec.integrations.langchain import TrivecEmbeddings


@pytest.fixture(scope="module")
def embeddings(minilm: Path) -> TrivecEmbeddings:
    return TrivecEmbeddings(minilm, device="cpu", precision="fp32", model_kwargs={"prompts": PROMPTS})


def documents(scifact: SciFact) -> list[Document]:
    return [Document(text, id=name, metadata={"name": name}) for name, text in scifact.documents.items()]


def test_chroma(embeddings: TrivecEmbeddings, scifact: SciFact, expected: Expected, tmp_path: Path) -> None:
    where = {"persist_directory": str(tmp_path), "collection_name": "scifact"}
    Chroma.from_documents(documents(scifact), embeddings, collection_metadata={"hnsw:space": "ip"}, **where)
    again = Chroma(embedding_function=embeddings, **where)
    stored = again.get(ids=scifact.ids, include=["embeddings"])
    rows = dict(zip(stored["ids"], stored["embeddings"], strict=True))
    np.testing.assert_array_equal(np.stack([rows[name] for name in scifact.ids]), expected.documents)
    for place, question in enumerate(scifact.queries.values()):
        found = again.similarity_search_with_score(question, k=4)
        order = expected.order(place)[:4]
        assert [document.metadata["name"] for document, _ in found] == [scifact.ids[row] for row in order]
        distances = 1 - expected.documents[order] @ expected.queries[place]
        np.testing.assert_allclose([distance for _, distance in found], distances, atol=1e-5)


def test_faiss(embeddings: TrivecEmbeddings, scifact: SciFact, expected: Expected, tmp_path: Path) -> None:
    FAISS.from_documents(
        documents(scifact), embeddings, distance_strategy=DistanceStrategy.MAX_INNER_PRODUCT
    ).save_local(str(tmp_path))
    again = FAISS.load_local(
        str(tmp_path),
        embeddings,
        allow_dangerous_deserialization=True,
        distance_strategy=DistanceStrategy.MAX_INNER_PRODUCT,
    )
    np.testing.assert_array_equal(again.index.reconstruct_n(0, len(scifact.ids)), expected.documents)
    for place, question in enumerate(scifact.queries.values()):
        found = again.similarity_search_with_score(question, k=4)
        order = expected.order(place)[:4]
        assert [document.metadata["name"] for document, _ in found] == [scifact.ids[row] for row in order]
        wanted = expected.documents[order] @ expected.queries[place]
        np.testing.assert_allclose([score for _, score in found], wanted, atol=1e-5)


def test_parents(embeddings: TrivecEmbeddings, scifact: SciFact) -> None:
    splitter = RecursiveCharacterTextSplitter(chunk_size=300, chunk_overlap=0)
    retriever = ParentDocumentRetriever(
        vectorstore=Chroma("parents", embeddings, collection_metadata={"hnsw:space": "ip"}),
        docstore=InMemoryStore(),
        child_splitter=splitter,
        search_kwargs={"k": 6},
    )
    retriever.add_documents(documents(scifact), ids=scifact.ids)
    pieces = [(name, piece) for name, text in scifact.documents.items() for piece in splitter.split_text(text)]
    assert len(pieces) > 3 * len(scifact.ids)
    encoder: Any = embeddings.encoder
    vectors = encoder.encode_document([piece for _, piece in pieces])
    best = np.argsort(-(vectors @ encoder.encode_query(scifact.question)), kind="stable")[:6]
    wanted = list(dict.fromkeys(pieces[place][0] for place in best))
    found = retriever.invoke(scifact.question)
    assert [document.metadata["name"] for document in found] == wanted
    assert [document.page_content for document in found] == [scifact.documents[name] for name in wanted]


def test_cache(
    embeddings: TrivecEmbeddings, scifact: SciFact, expected: Expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cached() -> CacheBackedEmbeddings:
        queries = LocalFileStore(tmp_path / "queries" / embeddings.query_fingerprint)
        return CacheBackedEmbeddings.from_bytes_store(
            embeddings,
            LocalFileStore(tmp_path / "documents"),
            namespace=embeddings.fingerprint,
            query_embedding_cache=queries,
            key_encoder="sha256",
        )

    texts = scifact.texts[:8]
    np.testing.assert_array_equal(np.asarray(cached().embed_documents(texts), np.float32), expected.documents[:8])
    same = texts[0]  # as a query it has another vector than as a document
    query = cached().embed_query(same)
    encoder: Any = embeddings.encoder
    np.testing.assert_array_equal(np.asarray(query, np.float32), encoder.encode_query(same))
    assert query != cached().embed_documents([same])[0]
    asked: list[Any] = []
    monkeypatch.setattr(trivec.DenseEncoder, "represent", lambda *given, **options: asked.append((given, options)))
    np.testing.assert_array_equal(np.asarray(cached().embed_documents(texts), np.float32), expected.documents[:8])
    assert cached().embed_query(same) == query
    assert asked == []
