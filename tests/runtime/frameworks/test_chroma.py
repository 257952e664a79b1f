"""Chroma's embedding functions: a collection of SciFact, what it remembers of its model, and what it refuses."""

import gc
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from chromadb.api.types import Schema, SparseVectorIndexConfig, validate_sparse_embedding_function
from chromadb.execution.expression import K
from tests.runtime.frameworks.conftest import Expected, SciFact
from tests.support.tiny_heads import Tiny, random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, TruncationError
from trivec.integrations.chroma import TrivecEmbeddingFunction, TrivecSparseEmbeddingFunction

TEXTS = ["a cat", "the old dog", ""]
OPTIONS: dict[str, Any] = {"device": "cpu", "threads": 1, "precision": "fp32"}


def test_scifact(minilm: Path, prompted: dict[str, Any], scifact: SciFact, expected: Expected, tmp_path: Path) -> None:
    client = chromadb.PersistentClient(str(tmp_path / "store"))
    function = TrivecEmbeddingFunction(minilm, **prompted)
    texts = client.create_collection("scifact", embedding_function=function)
    texts.add(ids=scifact.ids, documents=scifact.texts)
    stored = texts.get(ids=scifact.ids, include=["embeddings"])
    rows = dict(zip(stored["ids"], np.asarray(stored["embeddings"]), strict=True))
    # For cosines, Chroma stores vectors that it has normalized once more.
    np.testing.assert_allclose(np.stack([rows[name] for name in scifact.ids]), expected.documents, atol=2e-8)
    np.testing.assert_array_equal(np.stack(function(scifact.texts)), expected.documents)
    found = texts.query(query_texts=list(scifact.queries.values()), n_results=5)["ids"]
    for place, ids in enumerate(found):
        assert ids == [scifact.ids[row] for row in expected.order(place)[:5]]
    assert texts.configuration_json["hnsw"]["space"] == "cosine"
    np.testing.assert_array_equal(np.stack(function.embed_query([scifact.question])), expected.queries[:1])

    # Another process opens the same model by what the collection remembers, where the module has been imported.
    script = f"""
        import chromadb
        {{import_}}
        texts = chromadb.PersistentClient({str(tmp_path / "store")!r}).get_collection("scifact")
        print(*texts.query(query_texts=[{scifact.question!r}], n_results=5)["ids"][0])
    """
    told = run(script.format(import_="import trivec.integrations.chroma"))
    assert told.stdout.split() == found[0], told.stderr
    unknown = run(script.format(import_=""))
    assert unknown.returncode == 1
    assert "Embedding function trivec not found" in unknown.stderr


def run(script: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "ANONYMIZED_TELEMETRY": "False"}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_collection_refuses_other_vectors(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model.folder, folder)
    client = chromadb.PersistentClient(str(tmp_path / "store"))
    function = TrivecEmbeddingFunction(folder, **OPTIONS)
    client.create_collection("texts", embedding_function=function).add(ids=["a", "b", "c"], documents=TEXTS)
    assert client.get_collection("texts").configuration["embedding_function"] is function  # opened once
    config = function.get_config()
    assert config == {"model": str(folder), "precision": "fp32", "fingerprint": function.fingerprint}
    other = TrivecEmbeddingFunction(folder, **OPTIONS, load_options={"prompts": {"document": "the "}})
    with pytest.raises(InputError, match="Make a new collection"):
        function.validate_config_update(config, other.get_config())
    moved = {**config, "model": str(tiny_model.folder)}
    function.validate_config_update(config, TrivecEmbeddingFunction(**moved, device="cpu").get_config())

    del function, other
    gc.collect()
    manifest = json.loads((folder / "trivec.json").read_text())
    manifest["prompts"]["document"] = "the "
    (folder / "trivec.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="gives other vectors than those that were stored"):
        client.get_collection("texts").configuration  # noqa: B018 - builds it


@pytest.mark.parametrize(("similarity", "space"), [("cosine", "cosine"), ("dot", "ip"), ("euclidean", "l2")])
def test_the_distance_is_the_models(tiny_folder: Path, similarity: str, space: str) -> None:
    load = {"similarity_fn_name": similarity}
    function = TrivecEmbeddingFunction(tiny_folder, **OPTIONS, load_options=load)
    client = chromadb.EphemeralClient()
    texts = client.create_collection(f"by-{similarity}", embedding_function=function)
    texts.add(ids=["a", "b", "c"], documents=TEXTS)
    assert texts.configuration_json["hnsw"]["space"] == space
    with trivec.load(tiny_folder, kind="dense", device="cpu", similarity_fn_name=similarity) as encoder:
        scores = encoder.similarity(encoder.encode_query(["the cat"]), encoder.encode_document(TEXTS))[0]
    assert texts.query(query_texts=["the cat"], n_results=3)["ids"][0] == ["abc"[row] for row in np.argsort(-scores)]


def test_what_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(InputError, match=r"compares by manhattan, which Chroma cannot.*similarity_fn_name"):
        TrivecEmbeddingFunction(tiny_folder, load_options={"similarity_fn_name": "manhattan"})
    with pytest.raises(InputError, match=r"precison= is no argument of trivec\.load"):
        TrivecEmbeddingFunction(tiny_folder, load_options={"precison": "int8"})
    with pytest.raises(InputError, match=r"normalise=True is no option of this model"):
        TrivecEmbeddingFunction(tiny_folder, encode_options={"normalise": True})
    with pytest.raises(InputError, match=r"this adapter needs weights of terms"):
        TrivecSparseEmbeddingFunction(tiny_folder, device="cpu")
    function = TrivecEmbeddingFunction(tiny_folder, **OPTIONS, on_overflow="error")
    with pytest.raises(InputError, match="at index 1"):
        function(["a cat", 3])
    with pytest.raises(InputError, match=r"expected a list of texts, got one str\. Type: \['a cat'\]"):
        function.embed_query("a cat")
    with pytest.raises(TruncationError):
        function(["cat " * 40])
    with pytest.raises(InputError, match=r"written down as JSON"):
        TrivecEmbeddingFunction(tiny_folder, **OPTIONS, load_options={"prompts": {"query": b"x"}}).get_config()


# ---- sparse ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sparse(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("splade") / "model"
    return splade(folder, tiny_model, random_logits(), np.abs(random_weights()))


def test_sparse(sparse: Tiny) -> None:
    """Chroma searches sparse vectors in its cloud alone; here, what a collection's schema makes of the function."""
    load = {"prompts": {"query": "find the ", "document": "the "}}
    function = TrivecSparseEmbeddingFunction(sparse.folder, **OPTIONS, load_options=load)
    validate_sparse_embedding_function(function)
    with trivec.load(sparse.folder, kind="sparse", device="cpu", prompts=load["prompts"]) as encoder:
        sides = ((function(TEXTS), encoder.encode_document), (function.embed_query(TEXTS), encoder.encode_query))
        for found, encode in sides:
            for vector, row in zip(found, encode(TEXTS), strict=True):
                assert vector.indices == row.indices.tolist()
                assert vector.values == row.values.tolist()
    schema = Schema().create_index(SparseVectorIndexConfig(source_key=K.DOCUMENT, embedding_function=function), "terms")
    kept = schema.serialize_to_json()
    again = Schema.deserialize_from_json(kept).keys["terms"].sparse_vector.sparse_vector_index.config
    assert again.embedding_function is function
    stored = kept["keys"]["terms"]["sparse_vector"]["sparse_vector_index"]["config"]["embedding_function"]
    assert stored["name"] == "trivec_sparse"
    assert stored["config"]["fingerprint"] == function.fingerprint
    with pytest.raises(InputError, match="gives other vectors"):
        TrivecSparseEmbeddingFunction.build_from_config({**stored["config"], "load_options": {}})
