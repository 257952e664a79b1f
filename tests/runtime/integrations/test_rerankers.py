"""Rerankers inside LangChain, LlamaIndex, Qdrant and Milvus, against what `rank` gives."""

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode
from qdrant_client import QdrantClient
from tests.support.rerankers import TinyReranker, write_tiny_reranker

import trivec
from trivec import InputError, Reranker, TruncationError
from trivec.integrations import milvus
from trivec.integrations.langchain import TrivecCrossEncoder, TrivecEmbeddings, TrivecReranker
from trivec.integrations.llama_index import TrivecRerank
from trivec.integrations.qdrant import QdrantEncoder

QUERY = "the cat"
TEXTS = ["a dog", "the boat", "sat on the mat", "", "a dog", "a small tree"]
LONG = "boat " * 40
OPTIONS: dict[str, Any] = {"device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyReranker:
    return write_tiny_reranker(tmp_path_factory.mktemp("reranker") / "model")


@pytest.fixture(scope="module")
def reranker(tiny: TinyReranker) -> Iterator[Reranker]:
    with trivec.load(tiny.folder, kind="reranker", device="cpu", threads=1) as found:
        yield found


def logits(tiny: TinyReranker, query: str = QUERY) -> list[float]:
    found: list[float] = tiny.logits([(query, text) for text in TEXTS])[:, 0].tolist()
    return found


def order(tiny: TinyReranker) -> list[int]:
    """Best first, of equal ones the earlier."""
    return sorted(range(len(TEXTS)), key=lambda row: -logits(tiny)[row])


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x)))


# ---- LangChain -------------------------------------------------------------------------------------------------------


def test_cross_encoder(tiny: TinyReranker) -> None:
    encoder = TrivecCrossEncoder(tiny.folder, **OPTIONS)
    assert isinstance(encoder, BaseCrossEncoder)
    pairs = [(query, text) for text in TEXTS for query in (QUERY, "find the dog")]  # queries take turns
    scores = encoder.score(pairs)
    assert {type(score) for score in scores} == {float}
    np.testing.assert_allclose(scores, sigmoid(tiny.logits(pairs)[:, 0]), rtol=1e-5)
    assert encoder.score([]) == []
    options: dict[str, Any] = {"model_kwargs": OPTIONS, "rank_kwargs": {"activation_fn": "identity"}}
    raw = TrivecCrossEncoder(model_name=str(tiny.folder), **options)
    np.testing.assert_allclose(raw.score(pairs), tiny.logits(pairs)[:, 0], rtol=1e-5)
    assert raw.fingerprint != encoder.fingerprint == encoder.reranker.fingerprint
    again = pickle.loads(pickle.dumps(raw))
    np.testing.assert_array_equal(again.score(pairs), raw.score(pairs))
    encoder.score([(QUERY, LONG)])
    assert encoder.truncated == 1


def test_compressor(tiny: TinyReranker, reranker: Reranker, tiny_folder: Path) -> None:
    documents = [Document(text, id=str(row), metadata={"row": row}) for row, text in enumerate(TEXTS)]
    compressor = TrivecReranker(reranker, top_n=3)
    assert isinstance(compressor, BaseDocumentCompressor)
    found = compressor.compress_documents(documents, QUERY)
    assert [document.metadata["row"] for document in found] == order(tiny)[:3]
    scores = [document.metadata["relevance_score"] for document in found]
    np.testing.assert_allclose(scores, sigmoid(sorted(logits(tiny), reverse=True)[:3]), rtol=1e-5)
    assert [document.id for document in found] == [str(row) for row in order(tiny)[:3]]
    assert all(set(document.metadata) == {"row"} for document in documents)
    assert asyncio.run(compressor.acompress_documents(documents, QUERY)) == found
    every = TrivecReranker(reranker, top_n=None)
    assert [d.metadata["row"] for d in every.compress_documents(documents, QUERY)] == order(tiny)
    assert every.compress_documents([], QUERY) == []
    store = InMemoryVectorStore(TrivecEmbeddings(tiny_folder, **OPTIONS))
    store.add_texts(TEXTS[:3])
    second = compressor.compress_documents(store.as_retriever(search_kwargs={"k": 3}).invoke(QUERY), QUERY)
    assert [document.page_content for document in second] == [TEXTS[row] for row in order(tiny) if row < 3]
    again = pickle.loads(pickle.dumps(TrivecReranker(tiny.folder, top_n=2, **OPTIONS)))
    assert again.compress_documents(documents, QUERY) == found[:2]
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        TrivecReranker(reranker, top_n=0)


def test_what_is_refused(tiny: TinyReranker, reranker: Reranker, tiny_folder: Path, tmp_path: Path) -> None:
    three = write_tiny_reranker(tmp_path / "three", ("a", "b", "c"), "identity")
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (None, {}, r"expected one model: its folder or name"),
        (tiny.folder, {"model_name": "x"}, r"expected one model"),
        (tiny_folder, OPTIONS, r"is a DenseEncoder, which ranks no documents"),
        (three.folder, OPTIONS, r"rank is for models of one label, and this one has 3"),
        (reranker, {"device": "cpu"}, r"device: for models that are opened here, and Reranker\(.* is open already"),
        (tiny.folder, {"model_kwargs": {"presision": "int8"}}, r"presision= is no argument of trivec\.load"),
        (tiny.folder, {"model_kwargs": {"kind": "dense"}}, r"kind= is no argument of trivec\.load"),
        (tiny.folder, {"device": "cpu", "model_kwargs": {"device": "cpu"}}, r"device is given twice"),
        (reranker, {"rank_kwargs": {"top_k": 3}}, r"top_k=3 is no option of this reranker's rank. Expected some"),
        (reranker, {"rank_kwargs": {"prompt_name": "x"}}, r"prompt_name 'x' is none of this model's prompts"),
        (3, {}, r"expected a reranker's folder, its name on the Hub, .* got int"),
    ]
    for model, options, message in wrong:
        with pytest.raises(InputError, match=message):
            TrivecCrossEncoder(model, **options)
    encoder = TrivecCrossEncoder(reranker)
    for pairs in ([("a", "b"), ("a",)], [("a", "b"), "cd"], [("a", "b"), ("a", None)]):
        with pytest.raises(InputError, match=r"expected a pair of texts at index 1"):
            encoder.score(pairs)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"expected one text, got NoneType"):
        TrivecReranker(reranker).compress_documents([Document("a")], None)  # type: ignore[arg-type]
    with pytest.raises(TruncationError, match=r"longer than 16 tokens, the first at index 1"):
        TrivecReranker(reranker, rank_kwargs={"on_overflow": "error"}).compress_documents(
            [Document("a"), Document(LONG)], QUERY
        )
    with pytest.raises(InputError, match=r"activation_fn is a function, which has no fingerprint"):
        _ = TrivecCrossEncoder(reranker, rank_kwargs={"activation_fn": np.tanh}).fingerprint


# ---- LlamaIndex ------------------------------------------------------------------------------------------------------


def scores_of(nodes: list[NodeWithScore]) -> list[float]:
    return [float("nan") if each.score is None else each.score for each in nodes]


def test_postprocessor(tiny: TinyReranker, reranker: Reranker) -> None:
    nodes = [NodeWithScore(node=TextNode(id_=str(row), text=text), score=row / 10) for row, text in enumerate(TEXTS)]
    rerank = TrivecRerank(reranker, top_n=3, keep_retrieval_score=True)
    assert isinstance(rerank, BaseNodePostprocessor)
    found = rerank.postprocess_nodes(nodes, query_str=QUERY)
    best = order(tiny)[:3]
    assert [each.node.node_id for each in found] == [str(row) for row in best]
    np.testing.assert_allclose(scores_of(found), sigmoid([logits(tiny)[row] for row in best]), rtol=1e-5)
    assert [each.node.metadata for each in found] == [{"retrieval_score": row / 10} for row in best]
    assert [(each.score, each.node.metadata) for each in nodes] == [(row / 10, {}) for row in range(len(TEXTS))]
    again = asyncio.run(rerank.apostprocess_nodes(nodes, query_str=QUERY))
    assert [(each.node.node_id, each.score) for each in again] == [(each.node.node_id, each.score) for each in found]
    assert rerank.postprocess_nodes([], query_str=QUERY) == []
    with pytest.raises(InputError, match=r"there is no query to rank the nodes for"):
        rerank.postprocess_nodes(nodes)


def test_a_node_is_read_with_its_metadata(tiny: TinyReranker, reranker: Reranker) -> None:
    node = TextNode(text="a dog", metadata={"the": "cat", "left": "out"}, excluded_embed_metadata_keys=["left"])
    (found,) = TrivecRerank(reranker).postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
    expected = tiny.logits([(QUERY, "the: cat\n\na dog")])[0, 0]
    assert found.score == pytest.approx(sigmoid(expected), rel=1e-5)


def test_a_postprocessor_is_stored_and_sent(tiny: TinyReranker) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    debug = LlamaDebugHandler(print_trace_on_end=False)
    rerank = TrivecRerank(
        tiny.folder, rank_options={"activation_fn": "identity"}, callback_manager=CallbackManager([debug]), **OPTIONS
    )
    expected = scores_of(rerank.postprocess_nodes(nodes, query_str=QUERY))
    np.testing.assert_allclose(expected, sorted(logits(tiny), reverse=True)[:2], rtol=1e-5)
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1
    stored = rerank.to_dict()
    assert stored["class_name"] == "TrivecRerank"
    for again in (TrivecRerank.from_dict(stored), pickle.loads(pickle.dumps(rerank))):
        assert scores_of(again.postprocess_nodes(nodes, query_str=QUERY)) == expected
        assert again.fingerprint == rerank.fingerprint


# ---- Qdrant ----------------------------------------------------------------------------------------------------------


def test_points(tiny: TinyReranker, reranker: Reranker, tiny_folder: Path) -> None:
    encoder = QdrantEncoder(tiny_folder, **OPTIONS)
    client = QdrantClient(":memory:")
    client.create_collection("texts", **encoder.collection())
    client.upload_points("texts", encoder.iter_points(TEXTS, ids=range(len(TEXTS))))
    response = client.query_points("texts", **encoder.query(QUERY), limit=6)
    before = [point.score for point in response.points]
    found = encoder.rerank(QUERY, response, reranker)
    np.testing.assert_allclose([p.score for p in found], sigmoid(sorted(logits(tiny), reverse=True)), rtol=1e-5)
    assert [(point.payload or {})["text"] for point in found] == [TEXTS[row] for row in order(tiny)]
    assert [point.score for point in response.points] == before
    assert QdrantEncoder.rerank(QUERY, response.points, reranker, limit=2) == found[:2]
    assert asyncio.run(encoder.arerank(QUERY, response.points, reranker, limit=2)) == found[:2]
    assert encoder.rerank(QUERY, [], reranker) == []
    named = [point.model_copy(update={"payload": {"body": (point.payload or {})["text"]}}) for point in response.points]
    assert [p.score for p in encoder.rerank(QUERY, named, reranker, text_key="body")] == [p.score for p in found]
    with pytest.raises(InputError, match=r"index 0 \(id \d\) has no text under 'text' in its payload; it has: body"):
        encoder.rerank(QUERY, named, reranker)
    with pytest.raises(InputError, match=r"expected points, got str at index 0"):
        encoder.rerank(QUERY, ["a"], reranker)  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"expected a reranker that is open, got str 'minilm'"):
        encoder.rerank(QUERY, response, "minilm")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"limit must be a whole number above 0"):
        encoder.rerank(QUERY, response, reranker, limit=0)


# ---- Milvus ----------------------------------------------------------------------------------------------------------


def test_milvus_functions(tiny: TinyReranker) -> None:
    cross = milvus.CrossEncoderRerankFunction(tiny.folder, threads=1)  # its default device, "", chooses
    bge = milvus.BGERerankFunction(tiny.folder, device="cpu", threads=1, max_length=16, query_max_length=8)
    raw = milvus.BGERerankFunction(
        tiny.folder, use_fp16=False, normalize=False, device="cpu", max_length=16, query_max_length=8
    )
    for function, expected in ((cross, sigmoid(logits(tiny))), (bge, sigmoid(logits(tiny))), (raw, logits(tiny))):
        found = function(QUERY, TEXTS)
        assert [each.index for each in found] == order(tiny)[:5]
        assert [each.text for each in found] == [TEXTS[row] for row in order(tiny)[:5]]
        assert {type(each.score) for each in found} == {float}
        np.testing.assert_allclose([each.score for each in found], [expected[each.index] for each in found], rtol=1e-5)
        assert len(function(QUERY, TEXTS, top_k=2)) == 2
        assert len(function(QUERY, TEXTS, top_k=None)) == len(TEXTS)
        assert function(QUERY, []) == []
        assert found[0].to_dict() == {"text": found[0].text, "score": found[0].score, "index": found[0].index}
        again = pickle.loads(pickle.dumps(function))
        assert again(QUERY, TEXTS) == found
        with pytest.raises(InputError, match="top_k must be a positive integer"):
            function(QUERY, TEXTS, top_k=0)
        with pytest.raises(InputError, match="documents must be a list of texts"):
            function(QUERY, "a lone string")
        again.model.close()
        function.model.close()
    fct = milvus.CrossEncoderRerankFunction(tiny.folder, "cpu", activation_fct="identity")
    np.testing.assert_allclose(fct(QUERY, TEXTS)[0].score, max(logits(tiny)), rtol=1e-5)
    fct.model.close()
    with pytest.raises(InputError, match=r"expected model_name"):
        milvus.CrossEncoderRerankFunction()
    with pytest.raises(InputError, match=r"devices=\['cpu'\] is not taken here: one reranker runs on one device"):
        milvus.BGERerankFunction(tiny.folder, devices=["cpu"])  # type: ignore[call-arg]
