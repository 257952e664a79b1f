"""The LlamaIndex classes: in an index, in an ingestion pipeline, and as the sparse functions of its stores."""

import asyncio
import copy
import json
import logging
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.vector_stores import SimpleVectorStore
from tests.support.tiny_heads import Tiny, hybrid, random_logits, random_weights, splade, unit
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, NonFiniteError, TruncationError, _open
from trivec._engine import engine_name
from trivec.integrations.llama_index import TrivecEmbedding, TrivecSparseEmbedding

TEXTS = ["the old cat sat on a mat", "a dog ran up the hill", "the bird sat in a tree", "a boat on the river", "cat"]
QUERY = "a dog and the boat"
PROMPT = "find the "  # the tiny model's, for queries
LONG = "cat " * 40


@pytest.fixture
def model(tiny_folder: Path) -> TrivecEmbedding:
    return TrivecEmbedding(str(tiny_folder), device="cpu", threads=1)


@pytest.fixture(scope="module")
def sparse_model(tiny_model: "TinyModel", tmp_path_factory: pytest.TempPathFactory) -> "Tiny":
    return splade(tmp_path_factory.mktemp("splade") / "model", tiny_model, random_logits(), np.abs(random_weights()))


async def gathered(*work: Any) -> list[Any]:
    return list(await asyncio.gather(*work))


# ------------------------------------------------------------------------------------------------------------ dense
def test_texts_and_queries(model: TrivecEmbedding, tiny_model: "TinyModel") -> None:
    assert isinstance(model, BaseEmbedding)
    texts, query = unit(tiny_model.expected(TEXTS)), unit(tiny_model.expected([PROMPT + QUERY]))[0]
    awaited = asyncio.run(
        gathered(
            model.aget_text_embedding_batch(TEXTS),
            model.aget_query_embedding(QUERY),
            model.aget_text_embedding(TEXTS[1]),
        )
    )
    for got in (model.get_text_embedding_batch(TEXTS), awaited[0]):
        assert {type(number) for row in got for number in row} == {float}
        np.testing.assert_allclose(got, texts, rtol=1e-4, atol=1e-6)
    for row in (model.get_query_embedding(QUERY), awaited[1]):
        assert {type(number) for number in row} == {float}
        np.testing.assert_allclose(row, query, rtol=1e-4, atol=1e-6)
    for row in (model.get_text_embedding(TEXTS[1]), awaited[2]):
        np.testing.assert_allclose(row, texts[1], rtol=1e-4, atol=1e-6)
    assert model.get_text_embedding_batch([]) == []
    np.testing.assert_allclose(
        model.similarity(model.get_query_embedding(QUERY), awaited[0][0]), query @ texts[0], rtol=1e-4
    )


def test_batches(tiny_folder: Path, tiny_model: "TinyModel", monkeypatch: pytest.MonkeyPatch) -> None:
    model = TrivecEmbedding(tiny_folder, threads=1, embed_batch_size=2, num_workers=3)
    encode, sizes, running, most = model.encoder.encode, [], 0, 0

    def watched(texts: Any, **options: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        sizes.append(len(texts))
        try:
            return encode(texts, **options)
        finally:
            running -= 1

    monkeypatch.setattr(model.encoder, "encode", watched)
    expected = unit(tiny_model.expected(TEXTS))
    np.testing.assert_allclose(model.get_text_embedding_batch(TEXTS), expected, rtol=1e-4, atol=1e-6)
    assert sizes == [2, 2, 1]
    got = asyncio.run(model.aget_text_embedding_batch(TEXTS))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    assert most == 1
    assert TrivecEmbedding(model.encoder).embed_batch_size == 256


@pytest.mark.parametrize(
    ("options", "of_text", "of_query"),
    [
        ({"text_instruction": "red "}, "red ", PROMPT),
        ({"query_instruction": "blue "}, "", "blue "),
        ({"text_instruction": "red ", "query_instruction": ""}, "red ", ""),
        ({"text_instruction": "red ", "query_options": {"prompt_name": "document"}}, "red ", ""),
    ],
)
def test_instructions(
    tiny_folder: Path, tiny_model: "TinyModel", options: dict[str, Any], of_text: str, of_query: str
) -> None:
    model = TrivecEmbedding(
        tiny_folder, threads=1, normalize=False, max_length=9, load_options={"truncate_dim": 5}, **options
    )
    texts, query = tiny_model.expected([of_text + TEXTS[1]]), tiny_model.expected([of_query + "a cat"])
    np.testing.assert_allclose(model.get_text_embedding_batch(TEXTS[1:2]), texts[:, :5], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.get_query_embedding("a cat"), query[0, :5], rtol=1e-4, atol=1e-6)
    assert model.fingerprint == model.encoder.fingerprint_of(prompt=of_text)
    assert model.query_fingerprint == model.encoder.fingerprint_of(prompt=of_query)
    model.get_text_embedding("cat " * 8)
    assert model.truncated == 1  # at 9 tokens, with [CLS] and [SEP]


def test_in_an_index(model: TrivecEmbedding, tiny_model: "TinyModel", tmp_path: Path) -> None:
    cosines = (unit(tiny_model.expected([PROMPT + QUERY])) @ unit(tiny_model.expected(TEXTS)).T)[0]
    order = np.argsort(-cosines)[:3]
    documents = [Document(text=text) for text in TEXTS]
    for use_async in (False, True):
        index = VectorStoreIndex.from_documents(documents, embed_model=model, use_async=use_async)
        retriever = index.as_retriever(similarity_top_k=3)
        hits = asyncio.run(retriever.aretrieve(QUERY)) if use_async else retriever.retrieve(QUERY)
        assert [hit.text for hit in hits] == [TEXTS[i] for i in order]
        np.testing.assert_allclose([hit.get_score() for hit in hits], cosines[order], rtol=1e-4)
    index.storage_context.persist(str(tmp_path))
    store = SimpleVectorStore.from_persist_path(str(tmp_path / "default__vector_store.json"))
    assert len(store.data.embedding_dict) == len(TEXTS)


def test_an_ingestion_cache_knows_the_model(tiny_folder: Path, model: TrivecEmbedding) -> None:
    """LlamaIndex' key for what it has done: the same vectors, the same key, and no other."""
    nodes = [TextNode(text=text) for text in TEXTS]
    key = get_transformation_hash(nodes, model)
    assert get_transformation_hash(nodes, TrivecEmbedding(str(tiny_folder), threads=2)) == key
    others = [TrivecEmbedding(str(tiny_folder), precision="int8"), TrivecEmbedding(str(tiny_folder), normalize=False)]
    shorter = TrivecEmbedding(trivec.load(tiny_folder, threads=1))
    shorter.encoder.max_seq_length = 7
    keys = {get_transformation_hash(nodes, other) for other in (*others, shorter)}
    assert len(keys | {key}) == 4
    pipeline = IngestionPipeline(transformations=[model], cache=IngestionCache())
    first, again = pipeline.run(nodes=nodes), pipeline.run(nodes=nodes)
    assert [node.embedding for node in first] == [node.embedding for node in again]


def test_an_embeddings_cache_never_gives_a_query_the_vector_of_a_text(
    tiny_folder: Path, model: TrivecEmbedding
) -> None:
    """LlamaIndex keeps both under the text."""
    with pytest.raises(InputError, match=r"embeddings_cache keeps vectors under the text alone.*cache=IngestionCache"):
        TrivecEmbedding(str(tiny_folder), threads=1, embeddings_cache=SimpleKVStore())
    later = TrivecEmbedding(model.encoder)
    later.embeddings_cache = SimpleKVStore()
    for call in (later.get_query_embedding, lambda text: asyncio.run(later.aget_query_embedding(text))):
        with pytest.raises(InputError, match="a query has another vector than the same text"):
            call(TEXTS[0])
    assert later.get_text_embedding(TEXTS[0]) == model.get_text_embedding(TEXTS[0])
    same = TrivecEmbedding(str(tiny_folder), threads=1, query_instruction="", embeddings_cache=SimpleKVStore())
    for _ in range(2):
        np.testing.assert_allclose(same.get_query_embedding(TEXTS[0]), same.get_text_embedding(TEXTS[0]), rtol=1e-6)


def test_stored_and_opened_again(tiny_folder: Path, model: TrivecEmbedding, caplog: pytest.LogCaptureFixture) -> None:
    whole = TrivecEmbedding(
        str(tiny_folder),
        device="cpu",
        precision="int8",
        text_instruction="red ",
        load_options={"truncate_dim": 5, "token": "secret", "threads": 1},
    )
    stored = json.loads(whole.to_json())
    assert stored["class_name"] == "TrivecEmbedding"
    assert stored["fingerprint"] == whole.fingerprint
    assert stored["precision"] == "int8"
    assert "secret" not in whole.to_json() + repr(whole)
    assert {"device", "threads", "token"}.isdisjoint({*stored, *stored["load_options"]})
    assert stored["load_options"] == {"truncate_dim": 5}
    with caplog.at_level(logging.WARNING):
        copies = [pickle.loads(pickle.dumps(whole)), copy.deepcopy(whole), TrivecEmbedding.from_dict(stored)]
    assert caplog.records == []  # LlamaIndex says so where it drops what does not pickle
    for other in copies:
        assert other.get_text_embedding_batch(TEXTS) == whole.get_text_embedding_batch(TEXTS)
        assert other.get_query_embedding(QUERY) == whole.get_query_embedding(QUERY)
        assert other.to_dict() == stored
    model.encoder.max_seq_length = 7
    assert pickle.loads(pickle.dumps(model)).fingerprint == model.fingerprint
    with pytest.raises(
        InputError, match=r"gives other vectors than those that were stored: .* was expected\. Take the"
    ):
        TrivecEmbedding.from_dict(model.to_dict())  # the runtime setting is not among the arguments
    lone = TrivecEmbedding(trivec.load(tiny_folder, truncate_dim=4))
    assert TrivecEmbedding.from_dict(lone.to_dict()).get_query_embedding("a") == lone.get_query_embedding("a")


def test_a_hybrid_model_whose_rows_are_limited_is_opened_again(tiny_model: TinyModel, tmp_path: Path) -> None:
    """The fingerprint counts the limit, so what is stored has to carry it."""
    folder = hybrid(tmp_path / "model", tiny_model).folder
    whole = TrivecEmbedding(str(folder), device="cpu", threads=1, load_options={"max_active_dims": 2})
    again = TrivecEmbedding.from_dict(json.loads(whole.to_json()))
    assert again.fingerprint == whole.fingerprint
    assert again.get_text_embedding("a cat") == whole.get_text_embedding("a cat")


def test_callbacks_stay_in_the_process(model: TrivecEmbedding) -> None:
    counter = TokenCountingHandler(tokenizer=lambda text: text.split())
    counter.lock = threading.Lock()  # type: ignore[attr-defined]  # pickles no more than a client of a service
    model.callback_manager = CallbackManager([counter])
    other = pickle.loads(pickle.dumps(model))
    assert other.get_query_embedding(QUERY) == model.get_query_embedding(QUERY)
    model.get_text_embedding_batch(TEXTS)
    assert counter.total_embedding_token_count == sum(len(text.split()) for text in [QUERY, *TEXTS])


# ----------------------------------------------------------------------------------------------------------- sparse
def test_sparse_functions(sparse_model: "Tiny", tiny_model: "TinyModel") -> None:
    sparse = TrivecSparseEmbedding(sparse_model.folder, threads=1)
    indices, values = sparse.sparse_doc_fn(TEXTS)
    assert [type(indices[0][0]), type(values[0][0])] == [int, float]
    found = np.zeros((len(TEXTS), 24), np.float32)
    for row, terms, weights in zip(found, indices, values, strict=True):
        row[terms] = weights
    np.testing.assert_allclose(found, sparse_model.expected(TEXTS), rtol=1e-5)
    words = sorted(set(tiny_model.ids(PROMPT + QUERY)[1:-1]))
    expected = {i: pytest.approx(abs(float(random_weights()[i])), rel=1e-6) for i in words}
    assert sparse.get_query_embedding(QUERY) == expected
    ((terms,), (weights,)) = sparse.sparse_query_fn([QUERY])
    assert dict(zip(terms, weights, strict=True)) == expected
    by_text = [dict(zip(i, v, strict=True)) for i, v in zip(indices, values, strict=True)]
    other = pickle.loads(pickle.dumps(sparse))
    assert sparse.get_text_embedding_batch(TEXTS) == by_text == other.get_text_embedding_batch(TEXTS)
    assert sparse.get_text_embedding(TEXTS[0]) == pytest.approx(by_text[0], rel=1e-5)
    awaited = asyncio.run(gathered(sparse.aget_text_embedding_batch(TEXTS), sparse.aget_query_embedding(QUERY)))
    assert awaited == [by_text, expected]
    assert asyncio.run(sparse.aget_text_embedding(TEXTS[0])) == pytest.approx(by_text[0], rel=1e-5)
    assert sparse.fingerprint == sparse.encoder.fingerprint_of(prompt_name="document", task="document")
    assert sparse.query_fingerprint == sparse.encoder.fingerprint_of(prompt_name="query", task="query")
    assert sparse.model_dump()["class_name"] == "TrivecSparseEmbedding"
    assert sparse.sparse_doc_fn([]) == ([], [])


def test_queries_alone(sparse_model: "Tiny") -> None:
    """An inference-free model that is open for its queries, without its graph."""
    sparse = TrivecSparseEmbedding(trivec.load(sparse_model.folder, task="query"))
    both = TrivecSparseEmbedding(sparse_model.folder, threads=1, load_options={"precision": "fp32"})
    assert sparse.get_query_embedding(QUERY) == both.get_query_embedding(QUERY)
    with pytest.raises(InputError, match="task 'document' is no route of this model"):
        sparse.get_text_embedding("a")


def test_a_hybrid_model_gives_either(tiny_model: "TinyModel", tmp_path: Path) -> None:
    several = hybrid(tmp_path / "model", tiny_model)
    encoder = trivec.load(several.folder, threads=1)
    dense, sparse = TrivecEmbedding(encoder, normalize=False), TrivecSparseEmbedding(encoder)
    expected = several.tables["token_embeddings"][2]  # of [CLS]
    np.testing.assert_allclose(dense.get_text_embedding("a cat"), expected, rtol=1e-5)
    weights = {
        i: float(w) for i, w in enumerate(several.tables["token_weights"]) if i in several.ids("a cat")[1:-1] and w > 0
    }
    assert sparse.get_text_embedding("a cat") == pytest.approx(weights)


def test_load_options_reach_the_loader(
    tiny_folder: Path, tiny_model: "TinyModel", monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def watched(name: str, **options: Any) -> Any:
        given.update(options, name=name)
        return trivec.load(tiny_folder, precision=options["precision"], threads=1)

    monkeypatch.setattr(_open, "load", watched)
    model = TrivecEmbedding(
        "organization/name",
        device="cuda:1",
        precision="int8",
        threads=3,
        cache_folder="a",
        load_options={"revision": "b", "token": "c"},
    )
    expected = {"device": "cuda:1", "precision": "int8", "threads": 3, "cache_dir": "a", "revision": "b", "token": "c"}
    assert given == {"name": "organization/name", **expected}
    vectors = unit(tiny_model.expected(TEXTS, "int8"))
    np.testing.assert_allclose(model.get_text_embedding_batch(TEXTS), vectors, rtol=1e-4, atol=1e-6)


def test_the_event_loop_goes_on(model: TrivecEmbedding, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    encode = model.encoder.encode

    def held(texts: Any, **options: Any) -> Any:
        assert released.wait(240)
        return encode(texts, **options)

    monkeypatch.setattr(model.encoder, "encode", held)

    async def main() -> list[Any]:
        calls = (
            model.aget_text_embedding_batch(TEXTS),
            model.aget_text_embedding("a"),
            model.aget_query_embedding("a"),
        )
        work = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in work)
        released.set()  # reached while they run
        return await asyncio.gather(*work)

    assert [len(result) for result in asyncio.run(main())] == [5, 12, 12]


# -------------------------------------------------------------------------------------------------------- bad input
def test_a_vector_that_is_not_finite_is_an_error(tiny_model: "TinyModel", tmp_path: Path) -> None:
    spoilt = hybrid(tmp_path / "dense", tiny_model, token_embeddings=np.full((24, 5), np.nan, np.float32))
    dense = TrivecEmbedding(spoilt.folder, threads=1)
    logits = random_logits()
    logits[tiny_model.ids("hill")[1], 5] = np.inf
    sparse = TrivecSparseEmbedding(splade(tmp_path / "sparse", tiny_model, logits, random_weights()).folder, threads=1)
    for call in (dense.get_text_embedding_batch, sparse.get_text_embedding_batch, sparse.sparse_doc_fn):
        with pytest.raises(NonFiniteError, match="NaN or infinite"):
            call(TEXTS)
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        dense.get_query_embedding(QUERY)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"load_options": {"backend": "onnx"}}, "backend= is no argument of trivec.load"),
        (
            {"encode_options": {"normalize_embeddings": False}},
            "normalize_embeddings is given twice: False among the opt",
        ),
        (
            {"encode_options": {"prompt": "a"}, "text_instruction": "b"},
            "prompt is given twice: 'a' among the options, and",
        ),
        ({"encode_options": {"nonsense": 1}}, "nonsense=1 is no option of this model"),
        ({"query_options": {"pool": None}}, "pool=None does not apply to a query"),
        ({"max_length": 99}, "max_seq_length can be at most 32"),
        ({"on_overflow": "raise"}, "on_overflow 'raise' is not one of"),
        ({"fingerprint": "abc"}, "and abc was expected"),
        ({"embed_batch_size": 0}, "embed_batch_size"),
    ],
)
def test_arguments(tiny_folder: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrivecEmbedding(tiny_folder, **arguments)


def test_another_engine_is_told_or_refused(
    model: TrivecEmbedding, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stored = model.engine_fingerprint
    assert stored == model.encoder.engine_fingerprint
    assert stored not in model.to_json()  # the keys of ingestion caches outlive an upgrade
    assert TrivecEmbedding(model.encoder, engine_fingerprint=stored, strict=True).fingerprint == model.fingerprint
    assert not caplog.records
    monkeypatch.setattr(engine_name, "this_kernel_class", lambda: "elsewhere")
    TrivecEmbedding(model.encoder, engine_fingerprint=stored)
    assert f"what is stored: computed by another engine, {stored}; here it is onnxruntime " in caplog.text
    with pytest.raises(InputError, match="For equal bits encode the texts again, or leave out strict"):
        TrivecEmbedding(model.encoder, engine_fingerprint=stored, strict=True)


def test_a_model_that_is_open_keeps_its_length(model: TrivecEmbedding) -> None:
    with pytest.raises(InputError, match=r"max_length=9: for models that are .* Type: encoder.max_seq_length = 9"):
        TrivecEmbedding(model.encoder, max_length=9)
    assert model.encoder.max_seq_length == 16


def test_a_typo_is_no_silent_default(tiny_folder: Path) -> None:
    with pytest.raises(TypeError, match="normalise"):
        TrivecEmbedding(tiny_folder, normalise=False)  # type: ignore[call-arg]


def test_texts(tiny_folder: Path, sparse_model: "Tiny", model: TrivecEmbedding) -> None:
    strict = TrivecEmbedding(tiny_folder, threads=1, on_overflow="error")
    for call in (
        strict.get_text_embedding,
        strict.get_query_embedding,
        lambda text: strict.get_text_embedding_batch([text]),
    ):
        with pytest.raises(TruncationError, match="longer than 16 tokens"):
            call(LONG)
    with pytest.raises(InputError, match="got NoneType at index 1"):
        model.get_text_embedding_batch(["a", None])  # type: ignore[list-item]
    with pytest.raises(InputError, match="expected one text, got int"):
        model.get_query_embedding(3)  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"SparseEncoder, and this adapter needs dense vectors\. Sparse ones: TrivecSparse"
    ):
        TrivecEmbedding(sparse_model.folder)
    with pytest.raises(InputError, match="DenseEncoder, and this adapter needs weights of terms"):
        TrivecSparseEmbedding(tiny_folder)
    with pytest.raises(InputError, match="expected a list of texts, got one str"):
        TrivecSparseEmbedding(sparse_model.folder).sparse_doc_fn("a cat")  # type: ignore[arg-type]
