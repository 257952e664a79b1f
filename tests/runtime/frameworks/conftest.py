"""Frameworks in an environment of their own: `scripts/test-frameworks`. Nothing here asks the network.

minilm     the real all-MiniLM-L6-v2, in fp32 and int8
prompted   arguments that give it a prompt for queries and another for documents
scifact    documents, queries and judgements of SciFact
"""

import os

os.environ |= {"ANONYMIZED_TELEMETRY": "False", "HAYSTACK_TELEMETRY_ENABLED": "False", "HF_HUB_OFFLINE": "1"}

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

import trivec

PROMPTS = {"query": "question: ", "document": "passage: "}


def pytest_configure(config: pytest.Config) -> None:
    """What the frameworks warn of is theirs."""
    config.addinivalue_line("filterwarnings", "default")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would leave this machine raises."""
    connect = socket.socket.connect

    def checked(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a framework asks {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", checked)


@pytest.fixture(scope="session")
def minilm(minilm_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """all-MiniLM-L6-v2 in fp32 and int8. Not to be changed."""
    folder = tmp_path_factory.mktemp("models") / "minilm"
    trivec.export(str(minilm_checkpoint), folder, precision=["fp32", "int8"], max_texts=128)
    return folder


@pytest.fixture(scope="session")
def prompted(minilm: Path) -> dict[str, Any]:
    """Arguments of an adapter: a query and the same text as a document have different vectors."""
    return {"device": "cpu", "precision": "fp32", "load_options": {"prompts": PROMPTS}}


@pytest.fixture(scope="session")
def encoder(minilm: Path) -> Iterator[trivec.DenseEncoder]:
    """What the adapters are compared with."""
    with trivec.load(minilm, kind="dense", device="cpu", precision="fp32", prompts=PROMPTS) as found:
        yield found


class SciFact(NamedTuple):
    """A part of SciFact: every document that the queries' judgements name, and others."""

    documents: dict[str, str]
    queries: dict[str, str]
    judged: dict[str, dict[str, int]]

    @property
    def ids(self) -> list[str]:
        """Of the documents."""
        return list(self.documents)

    @property
    def texts(self) -> list[str]:
        """Of the documents."""
        return list(self.documents.values())

    @property
    def question(self) -> str:
        """One of the queries."""
        return next(iter(self.queries.values()))


def read(folder: Path, queries: int | None = None, documents: int | None = None) -> SciFact:
    """The first of the test set's queries, and at least as many documents as they need; None: all."""
    rows = [line.split("\t") for line in (folder / "qrels/test.tsv").read_text().splitlines()[1:]]
    judged: dict[str, dict[str, int]] = {}
    for query, document, score in rows:
        judged.setdefault(query, {})[document] = int(score)
    judged = dict(list(judged.items())[:queries])
    asked = {q["_id"]: q["text"] for q in _lines(folder / "queries.jsonl") if q["_id"] in judged}
    corpus = {d["_id"]: f"{d['title']} {d['text']}".strip() for d in _lines(folder / "corpus.jsonl")}
    needed = {document for found in judged.values() for document in found}
    order = sorted(corpus, key=lambda name: name not in needed)
    chosen = order if documents is None else order[: max(documents, len(needed))]
    return SciFact({name: corpus[name] for name in chosen}, {q: asked[q] for q in judged}, judged)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


@pytest.fixture(scope="session")
def scifact(shared: Path) -> SciFact:
    """60 documents and 12 queries."""
    return read(shared / "data/scifact", 12, 60)


class Expected(NamedTuple):
    """What `encode_document` and `encode_query` give."""

    documents: npt.NDArray[np.float32]
    queries: npt.NDArray[np.float32]

    def order(self, query: int = 0) -> list[int]:
        """The places of the documents, best first."""
        found: list[int] = np.argsort(-(self.documents @ self.queries[query]), kind="stable").tolist()
        return found


@pytest.fixture(scope="session")
def expected(encoder: trivec.DenseEncoder, scifact: SciFact) -> Expected:
    """(60, 384) and (12, 384), and other ones than without prompts."""
    found = Expected(encoder.encode_document(scifact.texts), encoder.encode_query(list(scifact.queries.values())))
    assert np.abs(found.queries - encoder.encode_document(list(scifact.queries.values()))).max() > 0.01
    return found
