"""A hosted encoder where a local one goes: stores, frameworks, Batcher, Ray, the command line."""

import asyncio
import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.support.loopback import KEY, Loopback, vector, vectors

import trivec
import trivec.util
from trivec import store
from trivec._cli.main import main
from trivec._encoders.protocol import is_encoder
from trivec._open import is_hosted, open_encoder
from trivec.hosted import HostedEncoder
from trivec.hosted._encoder import PROBES

Open = Callable[..., HostedEncoder]
TEXTS = ["a cat", "the dog", "two boats"]


@pytest.fixture
def spec(server: Loopback) -> str:
    """A name that opens a hosted model with its own words for queries and documents."""
    return f"voyage:m?base_url={server.base('voyage')}"


def kinds(server: Loopback) -> list[tuple[str | None, list[str]]]:
    return [(asked.body.get("input_type"), asked.texts) for asked in server.asked]


def test_a_name(spec: str, tiny_folder: Path) -> None:
    with open_encoder(f"{spec}&dimensions=4&truncate_dim=3&output_dtype=float32", device="auto", threads=None) as found:  # type: ignore[attr-defined]
        assert found.name == f"{spec}&dimensions=4&truncate_dim=3"
        assert found.encode(TEXTS).shape == (3, 3)
        assert is_encoder(found)
    for name in (str(tiny_folder), "org/name", "name", "http://x", "c:/folder", tiny_folder, None):
        assert not is_hosted(name)
    for wrong, message in {
        "cohere:": r"name the model behind the provider: cohere:MODEL",
        "nobody:m": r"no provider is called 'nobody': there are openai, voyage",
        "openai:m?dim=4": r"dim= behind openai:m\? is no option\. Expected some of: base_url, dimensions",
        "openai:m?dimensions=four": r"dimensions='four' cannot be read",
        "openai:m?dimensions=4&dimensions=5": r"dimensions is given twice",
        "openai:m?concurrency=0": r"concurrency must be a whole number of at least 1, got 0",
        "openai:m?timeout=-1": r"timeout must be a number of seconds above 0",
        "openai:m?blank=x": r"blank 'x' is not one of",
        "openai:m?api_key=x": r"api_key= behind openai:m\? is no option\. .* Keys are in variables of the environment",
    }.items():
        with pytest.raises(trivec.InputError, match=message):
            open_encoder(wrong)
    with pytest.raises(trivec.InputError, match=r"threads=2: a hosted model runs at its service"):
        open_encoder(spec, threads=2)
    with pytest.raises(trivec.InputError, match=r"precision='int8': variants are of local models"):
        open_encoder(spec, precision="int8")


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
def test_stores(suffix: str, opened: Open, tmp_path: Path) -> None:
    encoder = opened("voyage")
    path = tmp_path / f"x{suffix}"
    store.write(path, encoder, iter(TEXTS), method="encode_document", normalize_embeddings=True)
    stored = store.read(path)
    np.testing.assert_allclose(np.asarray(stored.vectors), vectors(TEXTS), atol=1e-6)
    expected = store.fingerprint_of(encoder, method="encode_document", normalize_embeddings=True)
    assert (stored.fingerprint, stored.engine) == (expected, encoder.engine_fingerprint)


def test_batcher(server: Loopback, opened: Open) -> None:
    server.delay = 0.05
    with trivec.Batcher(opened("voyage")) as batcher:
        np.testing.assert_array_equal(batcher.encode_query("a cat"), vector("a cat"))
        found: dict[str, object] = {}
        threads = [threading.Thread(target=lambda t=t: found.update({t: batcher.encode(t)})) for t in TEXTS * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for text, row in found.items():
            np.testing.assert_array_equal(row, vector(text))
    assert kinds(server)[0] == ("query", ["a cat"])
    assert len(server.asked) < 1 + len(threads)


@pytest.mark.parametrize("by", ["name", "encoder"])
def test_langchain(by: str, spec: str, server: Loopback, opened: Open) -> None:
    from trivec.integrations.langchain import TrivecEmbeddings

    embeddings = TrivecEmbeddings(spec if by == "name" else opened("voyage"))
    assert server.asked == []  # nothing is sent before texts are
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), vectors(TEXTS), atol=1e-7)
    np.testing.assert_allclose(embeddings.embed_query("a cat"), vector("a cat"), atol=1e-7)
    np.testing.assert_allclose(asyncio.run(embeddings.aembed_documents(TEXTS)), vectors(TEXTS), atol=1e-7)
    np.testing.assert_allclose(asyncio.run(embeddings.aembed_query("a cat")), vector("a cat"), atol=1e-7)
    assert kinds(server) == [("document", TEXTS), ("query", ["a cat"])] * 2
    assert embeddings.fingerprint != embeddings.query_fingerprint
    assert embeddings.truncated is None
    again = pickle.loads(pickle.dumps(embeddings))
    assert again.fingerprint == embeddings.fingerprint
    with pytest.raises(trivec.InputError, match=r"x= is no argument of trivec\.hosted\.open"):
        TrivecEmbeddings(spec, model_kwargs={"x": 1})
    embeddings.encoder.close()


def test_llama_index(spec: str, server: Loopback) -> None:
    from trivec.integrations.llama_index import TrivecEmbedding

    embedding = TrivecEmbedding(spec, load_options={"dimensions": 4})
    np.testing.assert_allclose(embedding.get_text_embedding_batch(TEXTS), vectors(TEXTS, 4), atol=1e-6)
    np.testing.assert_allclose(embedding.get_query_embedding("a cat"), vector("a cat", 4), atol=1e-6)
    assert kinds(server) == [("document", TEXTS), ("query", ["a cat"])]
    written = embedding.to_dict()
    assert KEY not in json.dumps(written)
    again = TrivecEmbedding.from_dict(written)
    assert again.fingerprint == embedding.fingerprint
    embedding.encoder.close()
    again.encoder.close()


def test_qdrant(spec: str) -> None:
    from qdrant_client import QdrantClient

    from trivec.integrations.qdrant import QdrantEncoder

    encoder = QdrantEncoder(spec)
    client = QdrantClient(":memory:")
    client.create_collection("texts", **encoder.collection())
    client.upload_points("texts", encoder.iter_points(TEXTS))
    (found,) = client.query_points("texts", **encoder.query("the dog"), limit=1).points
    assert found.payload == {"text": "the dog"}
    assert found.score == pytest.approx(1, abs=1e-6)
    encoder.encoders[0].close()
    client.close()


def test_ray(spec: str, server: Loopback) -> None:
    from trivec.integrations.ray import Encode

    encode = Encode(spec, method="encode_document", load_options={"dimensions": 4})
    found = encode({"text": np.array(TEXTS, dtype=object), "id": np.arange(3)})
    np.testing.assert_array_equal(found["embedding"], vectors(TEXTS, 4))
    assert kinds(server) == [("document", TEXTS)]
    encode._encoder.close()


def test_the_command_line(spec: str, server: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "texts.txt", tmp_path / "vectors.npy"
    texts = [f"text {n}" for n in range(3000)]
    source.write_text("\n".join(texts))
    assert main(["encode", spec, str(source), "-o", str(out), "--task", "document", "--no-progress"]) == 0
    np.testing.assert_array_equal(np.load(out), vectors(texts))
    assert {kind for kind, some in kinds(server) if some not in (["dimension"], list(PROBES))} == {"document"}
    assert "3,000 texts, dim 8 float32" in capsys.readouterr().err
    assert main(["encode", spec, str(source), "-o", str(tmp_path / "y.npy"), "--threads", "2"]) == 1
    assert "threads=2: a hosted model runs at its service" in capsys.readouterr().err


def test_similarity_of_its_vectors(opened: Open) -> None:
    encoder = opened("openai")
    found = encoder.encode(TEXTS)
    np.testing.assert_allclose(encoder.similarity(found, found), trivec.util.cos_sim(found, found))
    np.testing.assert_allclose(encoder.similarity_pairwise(found, found), np.ones(3), atol=1e-6)
    encoder.similarity_fn_name = "dot"
    assert encoder.similarity_fn_name == "dot"
    assert opened("openai", similarity_fn_name="euclidean").similarity_fn_name == "euclidean"
