"""QdrantEncoder against Qdrant's local mode: every kind of vector in, searched, fused and reranked."""

import asyncio
import itertools
import pickle
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from tests.support.tiny_heads import Tiny, hybrid, random_logits, random_weights, splade, unit
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, NonFiniteError, TruncationError, _open
from trivec._engine import engine_name
from trivec.integrations.qdrant import QdrantEncoder
from trivec.integrations.qdrant._vectors import values

Floats = npt.NDArray[np.float32]
TEXTS = [
    "the old cat sat on a mat",
    "a dog ran up the hill",
    "the bird sat in a tree",
    "a boat on the river",
    "cat dog",
]
QUERY = "a dog and the boat"
PROMPT = "find the "  # the tiny model's, for queries
LONG = "cat " * 40
ALL = {"dense": "text", "sparse": "terms", "colbert": "tokens"}


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture
def dense(tiny_folder: Path) -> QdrantEncoder:
    return QdrantEncoder(tiny_folder, device="cpu", threads=1)


@pytest.fixture(scope="module")
def sparse_model(tiny_model: "TinyModel", tmp_path_factory: pytest.TempPathFactory) -> "Tiny":
    return splade(tmp_path_factory.mktemp("splade") / "model", tiny_model, random_logits(), np.abs(random_weights()))


@pytest.fixture
def sparse(sparse_model: "Tiny") -> QdrantEncoder:
    return QdrantEncoder(sparse_model.folder, threads=1)


@pytest.fixture(scope="module")
def several(tiny_model: "TinyModel", tmp_path_factory: pytest.TempPathFactory) -> "Tiny":
    return hybrid(tmp_path_factory.mktemp("hybrid") / "model", tiny_model)


def scores(client: Any, search: Any, **options: Any) -> dict[int, float]:
    """Score by id, best first."""
    found = client.query_points("texts", **search, limit=10, **options).points
    return {point.id: point.score for point in found}


def filled(client: QdrantClient, encoder: QdrantEncoder) -> None:
    client.create_collection("texts", **encoder.collection())
    client.upsert("texts", encoder.points(TEXTS, ids=range(len(TEXTS))))


def by_words(model: "Tiny", query: str) -> Floats:
    """(N,) dot products of the texts' weights with those of the query's words."""
    weights = np.zeros(24, np.float32)
    words = model.ids(query)[1:-1]
    weights[words] = np.abs(random_weights())[words]
    return np.asarray(model.expected(TEXTS) @ weights)


# ---------------------------------------------------------------------------------------------------- kinds of vectors
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
def test_dense(client: QdrantClient, tiny_model: "TinyModel", similarity: str) -> None:
    encoder = QdrantEncoder(tiny_model.folder, threads=1, load_options={"similarity_fn_name": similarity})
    filled(client, encoder)
    params = client.get_collection("texts").config.params
    assert params.vectors == encoder.collection()["vectors_config"]
    assert (params.vectors["dense"].size, params.vectors["dense"].distance.value.lower()[:5]) == (12, similarity[:5])
    assert not params.sparse_vectors
    a, b = tiny_model.expected([PROMPT + QUERY]), tiny_model.expected(TEXTS)
    expected = {
        "cosine": (unit(a) @ unit(b).T)[0],
        "dot": (a @ b.T)[0],
        "euclidean": np.linalg.norm(a - b, axis=1),
        "manhattan": np.abs(a - b).sum(1),
    }[similarity]
    found = scores(client, encoder.query(QUERY))
    order = np.argsort(-expected if similarity in ("cosine", "dot") else expected)
    assert list(found) == order.tolist()
    np.testing.assert_allclose(list(found.values()), expected[order], rtol=1e-4)
    assert client.retrieve("texts", [2])[0].payload == {"text": TEXTS[2]}


def test_sparse(client: QdrantClient, sparse: QdrantEncoder, sparse_model: "Tiny") -> None:
    filled(client, sparse)
    assert not client.get_collection("texts").config.params.vectors
    expected = by_words(sparse_model, PROMPT + QUERY)
    found = scores(client, sparse.query(QUERY, using="sparse"))
    assert found == {i: pytest.approx(score, rel=1e-4) for i, score in enumerate(expected) if i in found}
    assert list(found) == [i for i in np.argsort(-expected).tolist() if i in found]
    assert len(found) >= 4


def test_colbert(client: QdrantClient, several: "Tiny") -> None:
    encoder = QdrantEncoder(several.folder, threads=1, names=ALL)  # type: ignore[arg-type]
    filled(client, encoder)
    tokens: Any = client.get_collection("texts").config.params.model_dump()["vectors"]["tokens"]
    assert (tokens["size"], tokens["distance"], tokens["hnsw_config"]["m"]) == (3, models.Distance.DOT, 0)
    assert tokens["multivector_config"]["comparator"] == models.MultiVectorComparator.MAX_SIM
    table = unit(several.tables["colbert_vecs"])
    query = table[several.ids(PROMPT + QUERY)[1:]]
    expected = np.array([(query @ table[several.ids(text)[1:]].T).max(1).sum() for text in TEXTS])
    found = scores(client, encoder.query(QUERY, using="tokens"))
    assert list(found) == np.argsort(-expected).tolist()
    np.testing.assert_allclose(list(found.values()), np.sort(expected)[::-1], rtol=1e-4)
    reranked = scores(client, encoder.hybrid(QUERY, rerank="tokens", prefetch_limit=10))
    assert reranked == pytest.approx(found)
    one = encoder.hybrid(QUERY, rerank="tokens", using=["text"])
    assert [p.using for p in one["prefetch"]] == ["text"]
    assert QdrantEncoder(encoder.encoders[0]).names == ["dense", "sparse"]


# -------------------------------------------------------------------------------------------------------------- both
def test_hybrid(client: QdrantClient, dense: QdrantEncoder, sparse: QdrantEncoder, tiny_model: "TinyModel") -> None:
    both = dense + sparse
    assert both.names == ["dense", "sparse"]
    filled(client, both)
    alone = [scores(client, both.query(QUERY, using=name)) for name in both.names]
    near = (unit(tiny_model.expected([PROMPT + QUERY])) @ unit(tiny_model.expected(TEXTS)).T)[0]
    assert list(alone[0]) == np.argsort(-near).tolist()
    ranks = [{point: rank for rank, point in enumerate(found)} for found in alone]
    expected = {i: sum(1 / (2 + rank[i]) for rank in ranks if i in rank) for i in range(len(TEXTS))}  # Qdrant's k is 2
    found = scores(client, both.hybrid(QUERY))
    assert found == {i: pytest.approx(score, rel=1e-5) for i, score in expected.items()}
    assert scores(client, both.hybrid(QUERY, fusion="dbsf")).keys() == found.keys()
    assert scores(client, both.hybrid(QUERY, prefetch_limit=1)).keys() == {next(iter(rank)) for rank in ranks}
    kept = models.Filter(must=[models.FieldCondition(key="text", match=models.MatchValue(value=TEXTS[1]))])
    assert scores(client, both.hybrid(QUERY, query_filter=kept)).keys() == {1}


def test_two_dense_models(client: QdrantClient, tiny_folder: Path, tiny_model: "TinyModel") -> None:
    """A short vector that finds, and the whole one that orders."""
    small = QdrantEncoder(tiny_folder, threads=1, names={"dense": "small"}, encode_options={"truncate_dim": 5})
    both = small + QdrantEncoder(tiny_folder, threads=1, names={"dense": "large"})
    filled(client, both)
    vectors: Any = client.get_collection("texts").config.params.vectors
    assert {name: params.size for name, params in vectors.items()} == {"small": 5, "large": 12}
    near = (unit(tiny_model.expected([PROMPT + QUERY])) @ unit(tiny_model.expected(TEXTS)).T)[0]
    assert list(scores(client, both.hybrid(QUERY, rerank="large"))) == np.argsort(-near).tolist()
    with pytest.raises(InputError, match=r"two vectors are called 'small'\. Give one another name: names="):
        both + small


def test_asynchronous(dense: QdrantEncoder, sparse: QdrantEncoder) -> None:
    both = dense + sparse

    async def main() -> list[Any]:
        client = AsyncQdrantClient(":memory:")
        await client.create_collection("texts", **both.collection())
        both.check(await client.get_collection("texts"))
        await client.upsert("texts", await both.apoints(TEXTS, ids=range(5)))
        searches = await asyncio.gather(
            both.aquery(QUERY, using="sparse"), both.ahybrid(QUERY, fusion="rrf", prefetch_limit=4)
        )
        found = [await client.query_points("texts", **search, limit=5) for search in searches]
        await client.close()
        return [*searches, *found]

    of_terms, fused, found, best = asyncio.run(main())
    assert of_terms == both.query(QUERY, using="sparse")
    assert fused == both.hybrid(QUERY, prefetch_limit=4)
    assert len(found.points) >= 4
    assert len(best.points) == 5
    with pytest.raises(TypeError, match="limit"):
        asyncio.run(both.ahybrid(QUERY, limit=3))  # type: ignore[call-arg]


# ------------------------------------------------------------------------------------------------------------ points
def test_points(dense: QdrantEncoder, tiny_model: "TinyModel") -> None:
    points: list[Any] = [*dense.points(TEXTS)]
    assert len({point.id for point in points}) == 5
    assert all(uuid.UUID(point.id).version == 4 for point in points)
    assert [point.payload for point in points] == [{"text": text} for text in TEXTS]
    vectors = [point.vector["dense"] for point in points]
    np.testing.assert_allclose(vectors, tiny_model.expected(TEXTS), rtol=1e-5, atol=1e-6)
    name = uuid.uuid5(uuid.NAMESPACE_URL, "a")
    ids = [np.int64(3), 0, name, str(name), 2**63]
    given = dense.points(TEXTS, ids=ids, payloads=[{"n": n} for n in range(5)])  # type: ignore[arg-type]
    assert [point.id for point in given] == [3, 0, str(name), str(name), 2**63]
    assert [point.payload for point in given] == [{"n": n} for n in range(5)]
    assert dense.points([]) == []


def test_a_stream_of_points(client: QdrantClient, dense: QdrantEncoder, tiny_model: "TinyModel") -> None:
    texts = [f"{TEXTS[n % 5]} {TEXTS[n % 3]}" for n in range(23)]
    read = 0

    def source() -> Iterator[str]:
        nonlocal read
        for text in texts:
            read += 1
            yield text

    client.create_collection("texts", **dense.collection())
    payloads = ({"n": n} for n in range(23))
    points = dense.iter_points(source(), ids=itertools.count(), payloads=payloads, window=5)
    assert read == 0
    first = next(points)
    assert read == 5
    client.upload_points("texts", itertools.chain([first], points))
    stored: list[Any] = client.retrieve("texts", range(23), with_vectors=True)
    assert [point.payload for point in stored] == [{"n": n} for n in range(23)]
    np.testing.assert_allclose(
        [point.vector["dense"] for point in stored], unit(tiny_model.expected(texts)), rtol=1e-4, atol=1e-6
    )
    assert len(list(dense.iter_points(TEXTS))) == 5


def test_texts_without_terms_and_tokens(
    client: QdrantClient, several: "Tiny", sparse_model: "Tiny", monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = QdrantEncoder(several.folder, threads=1, names=ALL)  # type: ignore[arg-type]
    terms, tokens = trivec.SparseVectors.empty(2, 24), trivec.MultiVectors.empty(2, 3)
    empty = trivec.HybridVectors(np.ones((2, 5), np.float32), terms, tokens)
    monkeypatch.setattr(encoder._parts[0].model, "documents", lambda _: empty)
    client.create_collection("texts", **encoder.collection())
    client.upsert("texts", encoder.points(["", "a"], ids=[1, 2]))
    assert scores(client, encoder.query("cat", using="text")).keys() == {1, 2}
    assert scores(client, encoder.query("cat", using="terms")) == {}
    with pytest.raises(InputError, match="the query has no tokens, and so no ColBERT vectors"):
        values(encoder._parts[0], trivec.HybridVectors(np.ones(5, np.float32), terms[0], tokens[0]), ["tokens"])
    nothing = QdrantEncoder(sparse_model.folder, threads=1, query_options={"threshold": 99.0})
    client.create_collection("sparse", **nothing.collection())
    client.upsert("sparse", nothing.points(TEXTS))
    assert client.query_points("sparse", **nothing.query(QUERY)).points == []


# ------------------------------------------------------------------------------------------------ pickles, checks
def test_pickles(dense: QdrantEncoder, sparse: QdrantEncoder, tiny_folder: Path) -> None:
    both = dense + sparse
    copy = pickle.loads(pickle.dumps(both))
    assert copy.hybrid(QUERY) == both.hybrid(QUERY)
    assert copy.fingerprints == both.fingerprints == {**dense.fingerprints, **sparse.fingerprints}
    assert dense.fingerprints == {"dense": dense.encoders[0].fingerprint_of(prompt_name="document")}
    assert repr(dense) == f"QdrantEncoder(DenseEncoder({str(tiny_folder)!r}, dim=12, fp32, cpu) as dense)"


def test_a_collection_of_another_engine(
    client: QdrantClient, dense: QdrantEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = dense.engine_fingerprints
    assert here == {"dense": dense.encoders[0].engine_fingerprint}
    filled(client, dense)
    info = client.get_collection("texts")
    dense.check(info, strict=True)
    assert not caplog.records
    monkeypatch.setattr(engine_name, "this_kernel_class", lambda: "elsewhere")
    dense.check(info)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"the collection's vectors 'dense': computed by another engine, {here['dense']}; here it is onnxruntime "
    )
    with pytest.raises(InputError, match="For equal bits encode the texts again, or leave out strict"):
        dense.check(info, strict=True)
    before = dense.collection()
    del before["metadata"]["trivec.engines"]  # as earlier versions made it
    client.create_collection("before", **before)
    dense.check(client.get_collection("before"))
    with pytest.raises(InputError, match="it is not said which engine computed it"):
        dense.check(client.get_collection("before"), strict=True)


def test_a_collection_that_does_not_fit(
    client: QdrantClient, dense: QdrantEncoder, sparse_model: "Tiny", several: "Tiny"
) -> None:
    filled(client, dense)
    info = client.get_collection("texts")
    dense.check(info)
    encoder = dense.encoders[0]
    for other, message in (
        (QdrantEncoder(encoder, names={"dense": "text"}), "no dense vector 'text'; it has 'dense'. Set names="),
        (QdrantEncoder(sparse_model.folder), "no sparse vector 'sparse'; it has 'dense'"),
        (
            QdrantEncoder(encoder, encode_options={"truncate_dim": 5}),
            "'dense' have size 12, and the model's 5. Load the",
        ),
        (
            QdrantEncoder(trivec.load(encoder.name, similarity_fn_name="dot")),
            "have distance Cosine, and .* Dot",
        ),
        (QdrantEncoder(several.folder, names={"colbert": "dense"}), "have size 12, and the model's 3"),
        (QdrantEncoder(encoder, encode_options={"prompt": "red "}), "made by another model, or with other settings"),
        (QdrantEncoder(encoder.name, precision="int8"), "made by another model, or with other settings"),
    ):
        with pytest.raises(InputError, match=message):
            other.check(info)
    with pytest.raises(InputError, match=r"got str\. Type: encoder.check\(client.get_collection\(name\)\)"):
        dense.check("texts")  # type: ignore[arg-type]
    idf = models.SparseVectorParams(modifier=models.Modifier.IDF)
    client.create_collection("idf", {}, sparse_vectors_config={"sparse": idf})
    with pytest.raises(InputError, match="'sparse' have the modifier idf, and the model's weights are final"):
        QdrantEncoder(sparse_model.folder).check(client.get_collection("idf"))
    plain = dense.collection()
    del plain["metadata"]  # type: ignore[misc]
    client.create_collection("plain", **plain)
    QdrantEncoder(encoder, encode_options={"prompt": "red "}).check(client.get_collection("plain"))
    client.create_collection("unnamed", models.VectorParams(size=12, distance=models.Distance.COSINE))
    with pytest.raises(InputError, match="no dense vector 'dense'; it has ''"):
        dense.check(client.get_collection("unnamed"))
    unnamed = QdrantEncoder(encoder, names={"dense": ""})
    unnamed.check(client.get_collection("unnamed"))
    client.upsert("unnamed", unnamed.points(TEXTS))
    assert len(client.query_points("unnamed", **unnamed.query(QUERY), limit=3).points) == 3


def test_queries_alone(client: QdrantClient, sparse: QdrantEncoder, sparse_model: "Tiny") -> None:
    """An inference-free model that is open for its queries, without its graph."""
    filled(client, sparse)
    queries = QdrantEncoder(trivec.load(sparse_model.folder, task="query"))
    queries.check(client.get_collection("texts"))
    assert queries.fingerprints == {}
    assert scores(client, queries.query(QUERY)) == scores(client, sparse.query(QUERY))
    with pytest.raises(InputError, match="task 'document' is no route"):
        queries.points(TEXTS)


def test_load_options_reach_the_loader(
    tiny_folder: Path, tiny_model: "TinyModel", monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def watched(name: str, **options: Any) -> Any:
        given.update(options, name=name)
        return trivec.load(tiny_folder, precision=options["precision"], threads=1)

    monkeypatch.setattr(_open, "load", watched)
    loads = {"revision": "b", "cache_dir": "a"}
    encoder = QdrantEncoder("organization/name", device="cuda:1", precision="int8", threads=3, load_options=loads)
    assert given == {"name": "organization/name", "device": "cuda:1", "precision": "int8", "threads": 3, **loads}
    points: list[Any] = [*encoder.points(TEXTS)]
    expected = tiny_model.expected(TEXTS, "int8")
    np.testing.assert_allclose([point.vector["dense"] for point in points], expected, rtol=1e-5, atol=1e-6)


def test_the_event_loop_goes_on(dense: QdrantEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    released, encoder = threading.Event(), dense.encoders[0]
    encode = encoder.encode

    def held(texts: Any, **options: Any) -> Any:
        assert released.wait(240)
        return encode(texts, **options)

    monkeypatch.setattr(encoder, "encode", held)

    async def main() -> list[Any]:
        work: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(call) for call in (dense.apoints(TEXTS), dense.aquery(QUERY))
        ]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in work)
        released.set()  # reached while both run
        return await asyncio.gather(*work)

    points, search = asyncio.run(main())
    assert [len(points), len(search["query"])] == [5, 12]


# -------------------------------------------------------------------------------------------------------- bad input
def test_a_vector_that_is_not_finite_is_an_error(tiny_model: "TinyModel", tmp_path: Path) -> None:
    tokens = np.ones((24, 3), np.float32)
    tokens[tiny_model.ids("hill")[1]] = np.nan
    spoilt = hybrid(tmp_path / "model", tiny_model, colbert_vecs=tokens)
    encoder = QdrantEncoder(spoilt.folder, threads=1, names=ALL)  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError, match="the first that of the text at index 1: 'a dog ran up the hill'"):
        encoder.points(TEXTS)
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        encoder.hybrid("the hill", rerank="tokens")


def test_arguments(dense: QdrantEncoder, sparse: QdrantEncoder, sparse_model: "Tiny", tiny_folder: Path) -> None:
    both = dense + sparse
    for call, message in (
        (
            lambda: QdrantEncoder(tiny_folder, names={"sparse": "a"}),
            r"names=.* this DenseEncoder gives dense\. Expected",
        ),
        (lambda: QdrantEncoder(tiny_folder, names={}), "names={}: this DenseEncoder gives dense"),
        (lambda: QdrantEncoder(tiny_folder, names=["dense"]), r"names=\['dense'\]: this DenseEncoder"),  # type: ignore[arg-type]
        (
            lambda: QdrantEncoder(sparse_model.folder, load_options={"similarity_fn_name": "cosine"}),
            "compares by cosine, and Qdrant compares sparse vectors by the dot product alone. Type: trivec.load",
        ),
        (lambda: QdrantEncoder(tiny_folder, encode_options={"precision": "int8"}), "they are floats here"),
        (lambda: both.query(QUERY), r"name the vector: using=, one of 'dense', 'sparse'\. Or type: hybrid"),
        (lambda: both.query(QUERY, using="colbert"), "there is no vector 'colbert'; there are 'dense', 'sparse'"),
        (lambda: both.hybrid(QUERY, using="dense"), r"must be a list of names, got 'dense'\. Type: using=\['dense'\]"),
        (lambda: both.hybrid(QUERY, using=["dense"]), r"only \['dense'\] would search, and there is nothing to fuse"),
        (lambda: dense.hybrid(QUERY), r"only \['dense'\] would search, and there is nothing to fuse.* encoder.query"),
        (lambda: dense.hybrid(QUERY, rerank="dense"), r"only \[\] would search, and there is nothing to rerank"),
        (lambda: both.hybrid(QUERY, fusion="mean"), "fusion 'mean' is not one of rrf, dbsf"),  # type: ignore[arg-type]
        (lambda: both.hybrid(QUERY, prefetch_limit=0), "prefetch_limit must be a whole number above 0, got 0"),
        (lambda: both.query(["a"], using="dense"), "expected one text, got list"),  # type: ignore[arg-type]
        (lambda: dense.points("a cat"), "expected a list of texts, got one str"),
        (lambda: dense.iter_points("a cat"), "expected a list of texts, got one str"),
        (lambda: dense.iter_points(["a"], window=0), "window must be a whole number above 0, got 0"),
        (lambda: dense.points(["a", "b"], ids=[1]), "got 1 ids for 2 texts. Expected as many"),
        (lambda: dense.points(["a"], payloads=[{}, {}]), "got 2 payloads for 1 texts"),
        (lambda: dense.points(["a"], payloads=["b"]), "payloads must be mappings, got str 'b' at index 0"),  # type: ignore[list-item]
        (lambda: dense.iter_points(3), "expected a text or an iterable of texts, got int"),  # type: ignore[arg-type]
        (lambda: list(dense.iter_points(TEXTS, ids=iter([1]), window=2)), "got 1 ids for 2 texts"),
        (
            lambda: dense.points(["a"], ids=["doc-1"]),
            r"UUIDs as ids, got 'doc-1' at index 0.* uuid.uuid5\(uuid.NAMESPACE",
        ),
        (lambda: dense.points(["a"], ids=[-1]), "whole numbers from 0 and UUIDs as ids, got -1 at index 0"),
        (lambda: dense.points(["a"], ids=[True]), "got True at index 0"),
        (lambda: dense.points(["a", 3]), "got int at index 1"),  # type: ignore[list-item]
    ):
        with pytest.raises(InputError, match=message):
            call()
    with pytest.raises(TypeError, match="unsupported operand"):
        dense + 3  # type: ignore[operator]
    strict = QdrantEncoder(tiny_folder, threads=1, on_overflow="error")
    for call in (lambda: strict.points([LONG]), lambda: strict.query(LONG)):
        with pytest.raises(TruncationError, match="longer than 16 tokens"):
            call()
