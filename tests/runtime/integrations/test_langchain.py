"""The LangChain classes: LangChain's own tests, its stores, and what all adapters have in common."""

import asyncio
import copy
import hashlib
import inspect
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from model2vec import StaticModel
from tests.support.script import run_script
from tests.support.static_models import model2vec_folder
from tests.support.tiny_heads import Tiny, hybrid, random_logits, random_weights, splade, unit
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, ModelNotFoundError, NonFiniteError, TruncationError, _open
from trivec.integrations.langchain import TrivecEmbeddings

Floats = npt.NDArray[np.float32]
CORPUS = ["the old cat sat on a mat", "a dog ran up the hill", "the bird sat in a tree", "a boat on the river"]
QUERY = "a dog and the boat"
PROMPT = "find the "  # the tiny model's, for queries
LONG = "cat " * 40


@pytest.fixture
def embeddings(tiny_folder: Path) -> TrivecEmbeddings:
    return TrivecEmbeddings(tiny_folder, device="cpu", threads=1, precision="fp32")


@pytest.fixture(scope="module")
def sparse_model(tiny_model: "TinyModel", tmp_path_factory: pytest.TempPathFactory) -> "Tiny":
    return splade(tmp_path_factory.mktemp("splade") / "model", tiny_model, random_logits(), np.abs(random_weights()))


@pytest.fixture(scope="module")
def several(tiny_model: "TinyModel", tmp_path_factory: pytest.TempPathFactory) -> "Tiny":
    return hybrid(tmp_path_factory.mktemp("hybrid") / "model", tiny_model)


# ------------------------------------------------------------------------------------------------- LangChain's own
class TestUnit(EmbeddingsUnitTests):
    """The tests that LangChain ships for every Embeddings class."""

    @pytest.fixture(autouse=True)
    def _folder(self, tiny_folder: Path) -> None:
        self.folder = tiny_folder

    @property
    def embeddings_class(self) -> type[TrivecEmbeddings]:
        return TrivecEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": str(self.folder), "model_kwargs": {"device": "cpu", "threads": 1}}


@pytest.mark.anyio
class TestIntegration(EmbeddingsIntegrationTests):
    """The same, with vectors."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture(autouse=True)
    def _folder(self, tiny_folder: Path) -> None:
        self.folder = tiny_folder

    @property
    def embeddings_class(self) -> type[TrivecEmbeddings]:
        return TrivecEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model_name": str(self.folder), "precision": "int8"}


# ---------------------------------------------------------------------------------------------------------- vectors
class CacheBacked:
    """What langchain-classic 1.0.8 keeps, and under which keys: no other of its packages is needed for that."""

    def __init__(self, model: TrivecEmbeddings, documents: Any, queries: Any, key: Callable[[str], str]) -> None:
        self.model, self.documents, self.queries, self.key = model, documents, queries, key

    @classmethod
    def from_bytes_store(
        cls,
        underlying_embeddings: TrivecEmbeddings,
        document_embedding_cache: InMemoryByteStore,
        *,
        namespace: str,
        query_embedding_cache: bool | InMemoryByteStore,
        key_encoder: str,
    ) -> "CacheBacked":
        assert key_encoder == "sha256"
        queries = document_embedding_cache if query_embedding_cache is True else query_embedding_cache
        return cls(
            underlying_embeddings,
            document_embedding_cache,
            queries,
            lambda text: namespace + hashlib.sha256(text.encode()).hexdigest(),
        )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._kept(self.documents, text, lambda text: self.model.embed_documents([text])[0]) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self._kept(self.queries, text, self.model.embed_query)

    def _kept(self, store: InMemoryByteStore, text: str, embed: Callable[[str], list[float]]) -> list[float]:
        (found,) = store.mget([self.key(text)])
        if found is None:
            found = json.dumps(embed(text)).encode()
            store.mset([(self.key(text), found)])
        made: list[float] = json.loads(found)
        return made


def test_the_cache_of_the_docstring_keeps_queries_and_documents_apart(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores: dict[str, InMemoryByteStore] = defaultdict(InMemoryByteStore)
    for name, attribute, value in (
        ("embeddings", "CacheBackedEmbeddings", CacheBacked),
        ("storage", "LocalFileStore", stores.__getitem__),
    ):
        module = ModuleType(f"langchain_classic.{name}")
        setattr(module, attribute, value)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "langchain_classic", ModuleType("langchain_classic"))
    written = inspect.cleandoc(str(TrivecEmbeddings.__doc__))
    recipe = textwrap.dedent(written[written.index("    from langchain_classic") : written.index("Attributes:")])
    text = "the red boat"
    for prompt in ("find the ", "a cat "):  # another prompt of queries: other vectors, from the same stores
        embeddings = TrivecEmbeddings(
            tiny_folder, device="cpu", threads=1, model_kwargs={"prompts": {"query": prompt, "document": "on a "}}
        )
        names: dict[str, Any] = {"embeddings": embeddings}
        exec(recipe, names)
        for _ in range(2):  # what was made, then what was kept
            assert names["cached"].embed_documents([text]) == embeddings.embed_documents([text])
            assert names["cached"].embed_query(text) == embeddings.embed_query(text)
    assert embeddings.embed_query(text) != embeddings.embed_documents([text])[0]
    assert [len(list(store.yield_keys())) for store in stores.values()] == [1, 1, 1]  # documents, two prompts' queries


def test_documents_and_queries_have_their_own_prompts(embeddings: TrivecEmbeddings, tiny_model: "TinyModel") -> None:
    documents, query = tiny_model.expected(CORPUS), tiny_model.expected([PROMPT + QUERY])[0]
    both = asyncio.run(gathered(embeddings.aembed_documents(CORPUS), embeddings.aembed_query(QUERY)))
    for got in (embeddings.embed_documents(CORPUS), embeddings.embed_documents(tuple(CORPUS)), both[0]):  # type: ignore[arg-type]
        assert {type(number) for row in got for number in row} == {float}
        np.testing.assert_allclose(got, documents, rtol=1e-5, atol=1e-6)
    for row in (embeddings.embed_query(QUERY), both[1]):
        assert {type(number) for number in row} == {float}
        np.testing.assert_allclose(row, query, rtol=1e-5, atol=1e-6)
    assert embeddings.embed_documents([]) == asyncio.run(embeddings.aembed_documents([])) == []
    np.testing.assert_allclose(embeddings.embed_documents(CORPUS[:1]), documents[:1], rtol=1e-5, atol=1e-6)
    assert np.abs(documents[0] - tiny_model.expected([PROMPT + CORPUS[0]])[0]).max() > 0.01  # the prompt matters


async def gathered(*work: Any) -> list[Any]:
    return list(await asyncio.gather(*work))


@pytest.mark.parametrize(
    ("of_both", "of_query", "prompt"),
    [
        ({}, {}, PROMPT),
        ({"prompt": "red "}, {}, "red "),
        ({"prompt": "red "}, {"prompt_name": "query"}, PROMPT),
        ({"prompt": "red "}, {"prompt": ""}, ""),
        ({"prompt": "red "}, {"prompt": None}, PROMPT),
        ({"prompt_name": "document"}, {"prompt": "blue "}, "blue "),
    ],
)
def test_options(
    tiny_folder: Path, tiny_model: "TinyModel", of_both: dict[str, Any], of_query: dict[str, Any], prompt: str
) -> None:
    embeddings = TrivecEmbeddings(
        tiny_folder,
        threads=1,
        show_progress=False,
        model_kwargs={"truncate_dim": 5, "trust_remote_code": False},
        encode_kwargs={"normalize_embeddings": True, "batch_size": 2, **of_both},
        query_encode_kwargs=of_query,
    )
    documents = tiny_model.expected([of_both.get("prompt", "") + text for text in CORPUS])[:, :5]
    np.testing.assert_allclose(embeddings.embed_documents(CORPUS), unit(documents), rtol=1e-4, atol=1e-6)
    query = tiny_model.expected([prompt + QUERY])[:, :5]
    np.testing.assert_allclose([embeddings.embed_query(QUERY)], unit(query), rtol=1e-4, atol=1e-6)
    encoder = embeddings.encoder
    options = {"prompt": of_both.get("prompt", ""), "normalize_embeddings": True}
    assert embeddings.fingerprint == encoder.fingerprint_of(**options)
    assert embeddings.query_fingerprint == encoder.fingerprint_of(**options | {"prompt": prompt})


def test_load_options_reach_the_loader(
    tiny_folder: Path, tiny_model: "TinyModel", monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def watched(name: str, **options: Any) -> Any:
        given.update(options, name=name)
        return trivec.load(tiny_folder, precision=options["precision"], threads=1)

    monkeypatch.setattr(_open, "load", watched)
    embeddings = TrivecEmbeddings(
        model_name="organization/name",
        device="cuda:1",
        precision="int8",
        threads=3,
        cache_folder="a",
        model_kwargs={"revision": "b", "local_files_only": True, "export": True, "trust_remote_code": True},
    )
    assert given == {
        "name": "organization/name",
        "device": "cuda:1",
        "precision": "int8",
        "threads": 3,
        "cache_dir": "a",
        "revision": "b",
        "local_files_only": True,
        "export": True,
    }
    expected = tiny_model.expected(CORPUS, "int8")
    np.testing.assert_allclose(embeddings.embed_documents(CORPUS), expected, rtol=1e-5, atol=1e-6)


def test_a_static_model(tmp_path: Path) -> None:
    folder = model2vec_folder(tmp_path / "static")
    embeddings = TrivecEmbeddings(folder)
    expected = StaticModel.from_pretrained(str(folder)).encode(CORPUS)
    np.testing.assert_allclose(embeddings.embed_documents(CORPUS), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(embeddings.embed_query(CORPUS[0]), expected[0], rtol=1e-5, atol=1e-6)


def test_in_memory_store(embeddings: TrivecEmbeddings, tiny_model: "TinyModel") -> None:
    cosines = (unit(tiny_model.expected([PROMPT + QUERY])) @ unit(tiny_model.expected(CORPUS)).T)[0]
    order = np.argsort(-cosines)

    async def asynchronous() -> list[Any]:
        store = InMemoryVectorStore(embeddings)
        await store.aadd_texts(CORPUS)
        return await store.asimilarity_search_with_score(QUERY, k=3)

    store = InMemoryVectorStore.from_texts(CORPUS, embeddings)
    for hits in (store.similarity_search_with_score(QUERY, k=3), asyncio.run(asynchronous())):
        assert [document.page_content for document, _ in hits] == [CORPUS[i] for i in order[:3]]
        np.testing.assert_allclose([score for _, score in hits], cosines[order[:3]], rtol=1e-5)
    assert store.as_retriever(search_kwargs={"k": 1}).invoke(QUERY)[0].page_content == CORPUS[order[0]]


def test_a_hybrid_model_gives_its_dense_vectors(several: "Tiny") -> None:
    embeddings = TrivecEmbeddings(trivec.load(several.folder, threads=1))
    expected = unit(several.tables["token_embeddings"][[2] * len(CORPUS)])  # of [CLS]
    np.testing.assert_allclose(embeddings.embed_documents(CORPUS), expected, rtol=1e-5)
    np.testing.assert_allclose(embeddings.embed_query(QUERY), expected[0], rtol=1e-5)


# ------------------------------------------------------------------------------------------------------ many callers
def test_threads_and_coroutines_share_one_object(embeddings: TrivecEmbeddings, tiny_model: "TinyModel") -> None:
    queries = [f"{CORPUS[n % 4]} {CORPUS[n % 3]}" for n in range(60)]
    expected = tiny_model.expected([PROMPT + query for query in queries])
    with ThreadPoolExecutor(8) as threads:
        several = list(threads.map(embeddings.embed_query, queries))
    np.testing.assert_allclose(several, expected, rtol=1e-4, atol=1e-6)
    awaited = asyncio.run(gathered(*map(embeddings.aembed_query, queries)))
    np.testing.assert_allclose(awaited, expected, rtol=1e-4, atol=1e-6)


def test_queries_that_meet_run_together(embeddings: TrivecEmbeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    encode = embeddings.encoder.encode
    asked = threading.Event()

    def counted(texts: Any, **options: Any) -> Any:
        asked.wait(240)
        calls.append(1 if isinstance(texts, str) else len(texts))
        return encode(texts, **options)

    monkeypatch.setattr(embeddings.encoder, "encode", counted)

    async def main() -> list[Any]:
        tasks = [asyncio.ensure_future(embeddings.aembed_query(f"cat {n}")) for n in range(40)]
        await asyncio.sleep(0)  # all have asked
        asked.set()
        return await asyncio.gather(*tasks)

    assert len(asyncio.run(main())) == 40
    assert sum(calls) == 40
    assert len(calls) <= 2


def test_lists_of_documents_run_one_after_the_other_beside_the_loop(
    embeddings: TrivecEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most, names = 0, 0, set()
    encode = embeddings.encoder.encode

    def watched(texts: Any, **options: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        names.add(threading.current_thread().name)
        try:
            return encode(texts, **options)
        finally:
            running -= 1

    monkeypatch.setattr(embeddings.encoder, "encode", watched)
    found = asyncio.run(gathered(*(embeddings.aembed_documents(CORPUS) for _ in range(20))))
    assert len(found) == 20
    assert most == 1
    assert names == {"trivec-documents_0"}


def test_the_event_loop_goes_on(embeddings: TrivecEmbeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    encode = embeddings.encoder.encode

    def held(texts: Any, **options: Any) -> Any:
        assert released.wait(240)
        return encode(texts, **options)

    monkeypatch.setattr(embeddings.encoder, "encode", held)

    async def main() -> list[Any]:
        work = [asyncio.ensure_future(c) for c in (embeddings.aembed_documents(CORPUS), embeddings.aembed_query(QUERY))]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in work)
        released.set()  # reached while both run
        return await asyncio.gather(*work)

    documents, query = asyncio.run(main())
    assert [len(documents), len(query)] == [4, 12]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork")
def test_after_a_fork(tiny_folder: Path) -> None:
    """Threads stay behind in the parent: the child gets its own."""
    code = """
import asyncio, os, sys
from trivec.integrations.langchain import TrivecEmbeddings

embeddings = TrivecEmbeddings(sys.argv[1], device="cpu", threads=2)

async def ask():
    texts = ["red boat", "old tree on the hill"] * 20
    return await asyncio.gather(
        embeddings.aembed_documents(texts), *(embeddings.aembed_query(text) for text in texts)
    )

before = asyncio.run(ask())
child = os.fork()
if child == 0:
    assert asyncio.run(ask()) == before
    assert embeddings.embed_documents(["red boat"]) == before[0][:1]
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_script(code, tiny_folder, TOKENIZERS_PARALLELISM="false") == "0\n"


def test_pickles_and_copies(embeddings: TrivecEmbeddings, tiny_folder: Path) -> None:
    made = TrivecEmbeddings(
        embeddings.encoder, encode_kwargs={"prompt": "red "}, query_encode_kwargs={"prompt": None}, on_overflow="error"
    )
    embeddings.encoder.max_seq_length = 12
    for other in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), copy.copy(made)):
        assert other.embed_documents(CORPUS[:2]) == made.embed_documents(CORPUS[:2])
        assert other.embed_query("cat") == made.embed_query("cat")
        assert (other.fingerprint, other.query_fingerprint) == (made.fingerprint, made.query_fingerprint)
        with pytest.raises(TruncationError, match="longer than 12 tokens"):
            other.embed_query(LONG)
    assert copy.deepcopy(made).encoder is made.encoder
    assert repr(made) == f"TrivecEmbeddings(DenseEncoder({str(tiny_folder)!r}, dim=12, fp32, cpu))"


# ----------------------------------------------------------------------------------------------------------- sparse
def test_sparse_vectors_for_qdrant(sparse_model: "Tiny", several: "Tiny", tiny_model: "TinyModel") -> None:
    import langchain_qdrant as qdrant

    from trivec.integrations.langchain.qdrant import TrivecSparseEmbeddings

    sparse = TrivecSparseEmbeddings(sparse_model.folder, threads=1, encode_kwargs={"max_active_dims": 4})
    weights = heaviest(sparse_model.expected(CORPUS), 4)
    documents = sparse.embed_documents(CORPUS)
    assert isinstance(documents[0], qdrant.SparseVector)
    np.testing.assert_allclose(dense_of([(v.indices, v.values) for v in documents]), weights, rtol=1e-5)
    query = sparse.embed_query(QUERY)
    expected = heaviest(table_weights(sparse_model, PROMPT + QUERY)[None], 4)[0]
    np.testing.assert_allclose(dense_of([(query.indices, query.values)])[0], expected, rtol=1e-5)
    assert asyncio.run(gathered(sparse.aembed_documents(CORPUS), sparse.aembed_query(QUERY))) == [documents, query]

    def store(mode: str) -> Any:
        return qdrant.QdrantVectorStore.from_texts(
            CORPUS,
            embedding=TrivecEmbeddings(tiny_model.folder, threads=1),
            sparse_embedding=pickle.loads(pickle.dumps(sparse)),
            retrieval_mode=qdrant.RetrievalMode(mode),
            location=":memory:",
        )

    scores = weights @ expected
    found = {d.page_content: s for d, s in store("sparse").similarity_search_with_score(QUERY, k=4)}
    assert found == {
        CORPUS[i]: pytest.approx(s, rel=1e-4) for i, s in enumerate(scores) if weights[i][expected > 0].any()
    }
    near = (unit(tiny_model.expected([PROMPT + QUERY])) @ unit(tiny_model.expected(CORPUS)).T)[0]
    ranks = [np.argsort(-near).tolist(), [CORPUS.index(text) for text in found]]
    fused = {
        CORPUS[i]: sum(1 / (2 + rank.index(i)) for rank in ranks if i in rank) for i in range(4)
    }  # Qdrant's k is 2
    both = {d.page_content: s for d, s in store("hybrid").similarity_search_with_score(QUERY, k=4)}
    assert both == pytest.approx(fused, rel=1e-4)
    of_several = TrivecSparseEmbeddings(several.folder, threads=1).embed_query(QUERY)
    kept = {i for i in several.ids(PROMPT + QUERY) if i > 3 and several.tables["token_weights"][i] > 0}
    assert set(of_several.indices) == kept
    with pytest.raises(InputError, match="is a DenseEncoder, and this adapter needs weights of terms"):
        TrivecSparseEmbeddings(tiny_model.folder)


def test_sparse_vectors_for_milvus(sparse_model: "Tiny", tiny_model: "TinyModel", tmp_path: Path) -> None:
    import langchain_milvus as milvus
    from langchain_milvus.utils.sparse import BaseSparseEmbedding

    from trivec.integrations.langchain.milvus import TrivecSparseEmbeddings

    sparse = TrivecSparseEmbeddings(sparse_model.folder, threads=1)
    assert isinstance(sparse, BaseSparseEmbedding)
    documents, query = sparse.embed_documents(CORPUS), sparse.embed_query(QUERY)
    np.testing.assert_allclose(
        dense_of([(list(d), list(d.values())) for d in documents]), sparse_model.expected(CORPUS), rtol=1e-5
    )
    expected = table_weights(sparse_model, PROMPT + QUERY)
    np.testing.assert_allclose(dense_of([(list(query), list(query.values()))])[0], expected, rtol=1e-5)
    assert asyncio.run(gathered(sparse.aembed_documents(CORPUS), sparse.aembed_query(QUERY))) == [documents, query]
    store = milvus.Milvus.from_texts(
        CORPUS,
        embedding=[TrivecEmbeddings(tiny_model.folder, threads=1), sparse],
        vector_field=["dense", "sparse"],
        index_params=[
            {"index_type": "FLAT", "metric_type": "COSINE"},
            {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP"},
        ],
        search_params=[{"metric_type": "COSINE"}, {"metric_type": "IP"}],  # else those that drop the lightest terms
        connection_args={"uri": str(tmp_path / "texts.db")},
    )
    near = (unit(tiny_model.expected([PROMPT + QUERY])) @ unit(tiny_model.expected(CORPUS)).T)[0]
    ranks = [np.argsort(-scores).tolist() for scores in (near, sparse_model.expected(CORPUS) @ expected)]
    fused = {CORPUS[i]: pytest.approx(sum(1 / (61 + rank.index(i)) for rank in ranks), rel=1e-4) for i in range(4)}
    hits = store.similarity_search_with_score(QUERY, k=4, ranker_type="rrf")
    assert {document.page_content: score for document, score in hits} == fused
    store.client.close()


def table_weights(model: "Tiny", text: str) -> Floats:
    """(V,) weights of a query's words, as the model's table has them."""
    weights = np.zeros(24, np.float32)
    words = model.ids(text)[1:-1]
    weights[words] = np.abs(random_weights())[words]
    return weights


def heaviest(weights: Floats, count: int) -> Floats:
    """(N, V) with all but the heaviest of each row at 0."""
    kept = weights.copy()
    for row in kept:
        row[np.argsort(-row, kind="stable")[count:]] = 0
    return kept


def dense_of(rows: list[tuple[list[int], list[float]]]) -> Floats:
    """(N, 24)."""
    dense = np.zeros((len(rows), 24), np.float32)
    for row, (terms, weights) in zip(dense, rows, strict=True):
        row[terms] = weights
    return dense


# -------------------------------------------------------------------------------------------------------- bad input
def test_a_vector_that_is_not_finite_is_an_error(tiny_model: "TinyModel", tmp_path: Path) -> None:
    spoilt = hybrid(tmp_path / "model", tiny_model, token_embeddings=np.full((24, 5), np.nan, np.float32))
    embeddings = TrivecEmbeddings(spoilt.folder, threads=1)
    for result in (
        lambda: embeddings.embed_documents(CORPUS),
        lambda: embeddings.embed_query(QUERY),
        lambda: asyncio.run(embeddings.aembed_documents(CORPUS)),
        lambda: asyncio.run(embeddings.aembed_query(QUERY)),
    ):
        with pytest.raises(NonFiniteError, match="NaN or infinite, the first that of the text at index 0"):
            result()


def test_texts_that_are_too_long(tiny_folder: Path, embeddings: TrivecEmbeddings) -> None:
    assert embeddings.truncated == 0
    embeddings.embed_documents(["cat", LONG])
    embeddings.embed_query(LONG)
    assert embeddings.truncated == 2
    strict = TrivecEmbeddings(tiny_folder, threads=1, on_overflow="error")
    with pytest.raises(TruncationError, match="1 of 2 texts are longer than 16 tokens, the first at index 1"):
        strict.embed_documents(["cat", LONG])
    with pytest.raises(TruncationError, match="longer than 16 tokens"):
        strict.embed_query(LONG)
    for call in (strict.aembed_documents([LONG]), strict.aembed_query(LONG)):
        with pytest.raises(TruncationError, match="longer than 16 tokens"):
            asyncio.run(call)


def test_what_is_no_list_of_texts(embeddings: TrivecEmbeddings) -> None:
    cases: list[tuple[Callable[..., Any], Any, str]] = [
        (embeddings.embed_documents, "a cat", r"expected a list of texts, got one str\. Type: \['a cat'\]"),
        (embeddings.embed_documents, b"a cat", "expected a list of texts, got one bytes"),
        (embeddings.embed_documents, ["a", None], "got NoneType at index 1: 'None'.* Nothing was encoded"),
        (embeddings.embed_documents, 3, "expected a text or an iterable of texts, got int"),
        (embeddings.embed_query, ["a cat"], r"expected one text, got list \"\['a cat'\]\""),
        (embeddings.embed_query, b"a cat", r"got bytes .* Decode it first: text.decode\('utf-8'\)"),
        (embeddings.embed_query, None, "expected one text, got NoneType"),
    ]
    for method, value, message in cases:
        with pytest.raises(InputError, match=message):
            method(value)
        with pytest.raises(InputError, match=message):
            asyncio.run(getattr(embeddings, f"a{method.__name__}")(value))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"model_kwargs": {"backend": "onnx"}},
            "backend= is no argument of trivec.load. Expected some of: device,",
        ),
        ({"model_kwargs": {"precision": "int8"}, "precision": "fp32"}, "precision is given twice: 'fp32' and 'int8'"),
        ({"model_kwargs": {"cache_dir": "a"}, "cache_folder": "b"}, "cache_dir is given twice: 'b' and 'a'"),
        ({"encode_kwargs": {"nonsense": 1}}, "nonsense=1 is no option of this model. Expected some of: batch_size, "),
        ({"encode_kwargs": {"max_active_dims": 1}}, "max_active_dims=1 is no option of this model"),
        (
            {"encode_kwargs": {"convert_to_tensor": True}},
            "convert_to_tensor=True is not taken here: the adapter decides",
        ),
        (
            {"encode_kwargs": {"precision": "int8"}},
            "precision='int8' among .* The model's variant is an argument of the",
        ),
        ({"encode_kwargs": {"truncate_dim": 13}}, "truncate_dim must be between 1 and 12"),
        ({"encode_kwargs": {"prompt_name": "none"}}, "prompt_name 'none' is none of this model's prompts"),
        ({"query_encode_kwargs": {"truncate_dim": 0}}, "truncate_dim must be between 1 and 12"),
        (
            {"query_encode_kwargs": {"device": ["cpu"]}},
            r"device=\['cpu'\] does not apply to a query, which is one text",
        ),
        ({"on_overflow": "raise"}, "on_overflow 'raise' is not one of 'truncate', 'error'"),
        ({"on_overflow": "error", "encode_kwargs": {"on_overflow": "truncate"}}, "on_overflow is given twice"),
        ({"model_name": "another"}, "expected one model: its folder or name as the first argument, or as model_name="),
    ],
)
def test_arguments(tiny_folder: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrivecEmbeddings(tiny_folder, **arguments)


def test_models(sparse_model: "Tiny", embeddings: TrivecEmbeddings) -> None:
    with pytest.raises(InputError, match=r"SparseEncoder, and this adapter needs dense vectors.*langchain\.qdrant"):
        TrivecEmbeddings(sparse_model.folder)
    with pytest.raises(InputError, match=r"device, threads: for models that are opened here, and .* is open already"):
        TrivecEmbeddings(embeddings.encoder, device="cpu", model_kwargs={"threads": 1})
    with pytest.raises(
        InputError,
        match=r"a model's folder, its name on the Hub, provider:model of .* trivec\.hosted\.open returns, got int",
    ):
        TrivecEmbeddings(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected one model"):
        TrivecEmbeddings()
    with pytest.raises(ModelNotFoundError, match="no_such"):
        TrivecEmbeddings("./no_such")
    embeddings.encoder.close()
    with pytest.raises(InputError, match="this encoder is closed"):
        embeddings.embed_query("a")


# ---------------------------------------------------------------------------------------------------- what is loaded
def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    return done.stdout


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, json, trivec, trivec.integrations; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.partition(".")[0] for name in json.loads(python(code))}
    assert loaded.isdisjoint(
        {"langchain_core", "langchain_qdrant", "llama_index", "qdrant_client", "pydantic", "asyncio"}
    )


def test_without_a_framework_the_error_names_the_extra() -> None:
    """One process for all adapters: a blocked import costs nothing, and trivec is imported once."""
    code = """
import importlib, json, sys
import trivec
said = {}
blocked = {"langchain": "langchain_core", "llama_index": "llama_index", "qdrant": "qdrant_client"}
for adapter, package in blocked.items():
    sys.modules[package] = None
    try:
        importlib.import_module(f"trivec.integrations.{adapter}")
    except trivec.MissingExtraError as error:
        said[adapter] = str(error)
print(json.dumps(said))
"""
    assert json.loads(python(code)) == {
        adapter: f'this adapter needs {package}; {package} is not installed. Type: pip install "trivec[{extra}]"'
        for adapter, package, extra in (
            ("langchain", "langchain-core", "langchain"),
            ("llama_index", "llama-index-core", "llama-index"),
            ("qdrant", "qdrant-client", "qdrant"),
        )
    }


@pytest.mark.parametrize("store", ["qdrant", "milvus"])
def test_without_the_stores_package(store: str) -> None:
    code = f"""
import sys, trivec
sys.modules["langchain_{store}"] = None
try:
    import trivec.integrations.langchain.{store}
except trivec.MissingExtraError as error:
    print(error)
"""
    assert python(code).strip() == (
        f"this adapter needs langchain-{store}; langchain-{store} is not installed. "
        f'Type: pip install "trivec[langchain]" langchain-{store}'
    )
