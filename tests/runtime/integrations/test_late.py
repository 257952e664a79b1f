"""Late interaction inside Qdrant, LangChain, LlamaIndex and Milvus, on the command line, and over what was found."""

import asyncio
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from qdrant_client import QdrantClient, models
from tests.support.tiny_late import DIM, TinyLate, write_tiny_late

import trivec
import trivec.util
from trivec import InputError, LateEncoder, TruncationError
from trivec._cli.main import main
from trivec._encoders.ranking import fingerprint_of_ranks
from trivec.integrations import milvus
from trivec.integrations.langchain import TrivecCrossEncoder, TrivecEmbeddings, TrivecReranker
from trivec.integrations.llama_index import TrivecRerank
from trivec.integrations.qdrant import QdrantEncoder

QUERY = "the cat"
TEXTS = ["a dog", "the boat", "sat on the mat", "", "a dog", "a small tree"]
LONG = "boat " * 40
OPTIONS: dict[str, Any] = {"device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLate:
    return write_tiny_late(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def late(tiny: TinyLate) -> Iterator[LateEncoder]:
    with trivec.load(tiny.folder, kind="late", **OPTIONS) as model:
        yield model


def scores(tiny: TinyLate, query: str = QUERY) -> list[float]:
    found: list[float] = tiny.scores([query], TEXTS)[0].tolist()
    return found


def order(tiny: TinyLate) -> list[int]:
    """Best first, of equal ones the earlier."""
    return sorted(range(len(TEXTS)), key=lambda row: -round(scores(tiny)[row], 5))


# ---- Qdrant ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", [None, models.Datatype.FLOAT16])
def test_qdrant_searches_by_maxsim(tiny: TinyLate, datatype: models.Datatype | None) -> None:
    encoder = QdrantEncoder(tiny.folder, **OPTIONS)
    collection = encoder.collection()
    params = collection["vectors_config"]["colbert"]
    assert (params.size, params.distance) == (DIM, models.Distance.DOT)
    assert params.multivector_config == models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    params.datatype = datatype
    client = QdrantClient(":memory:")
    client.create_collection("texts", **collection)
    encoder.check(client.get_collection("texts"))
    client.upload_points("texts", encoder.iter_points(TEXTS, ids=range(len(TEXTS)), window=2))
    found = client.query_points("texts", **encoder.query(QUERY), limit=len(TEXTS)).points
    by_id = {point.id: point.score for point in found}
    expected = scores(tiny)
    np.testing.assert_allclose([by_id[row] for row in range(len(TEXTS))], expected, rtol=1e-3)
    again = pickle.loads(pickle.dumps(encoder))
    assert again.query(QUERY) == encoder.query(QUERY)
    assert asyncio.run(encoder.aquery(QUERY)) == encoder.query(QUERY)
    client.close()


def test_qdrant_reranks_what_dense_vectors_find(tiny: TinyLate, tiny_folder: Path, late: LateEncoder) -> None:
    encoder = QdrantEncoder(tiny_folder, **OPTIONS) + QdrantEncoder(late)
    assert encoder.names == ["dense", "colbert"]
    client = QdrantClient(":memory:")
    client.create_collection("texts", **encoder.collection())
    client.upload_points("texts", encoder.iter_points(TEXTS, ids=range(len(TEXTS))))
    found = client.query_points("texts", **encoder.hybrid(QUERY, rerank="colbert"), limit=len(TEXTS)).points
    np.testing.assert_allclose([point.score for point in found], sorted(scores(tiny), reverse=True), rtol=1e-5)
    assert [(point.payload or {})["text"] for point in found] == [TEXTS[row] for row in order(tiny)]
    plain = client.query_points("texts", **encoder.query(QUERY, "dense"), limit=len(TEXTS))
    second = encoder.rerank(QUERY, plain, late, limit=3)  # vectors of documents made anew, from their texts
    np.testing.assert_allclose([point.score for point in second], sorted(scores(tiny), reverse=True)[:3], rtol=1e-5)
    client.close()
    with pytest.raises(InputError, match=r"names=\{'dense': 'x'\}: this LateEncoder gives colbert"):
        QdrantEncoder(late, names={"dense": "x"})
    with pytest.raises(InputError, match=r"mark of a query"):
        QdrantEncoder(late, query_options={"prompt": "tree "})


# ---- as a reranker ---------------------------------------------------------------------------------------------------


def test_langchain(tiny: TinyLate, late: LateEncoder) -> None:
    documents = [Document(text, metadata={"row": row}) for row, text in enumerate(TEXTS)]
    for compressor in (TrivecReranker(late, top_n=3), TrivecReranker(tiny.folder, top_n=3, **OPTIONS)):
        for again in (compressor, pickle.loads(pickle.dumps(compressor))):
            found = again.compress_documents(documents, QUERY)
            assert [document.metadata["row"] for document in found] == order(tiny)[:3]
            given = [document.metadata["relevance_score"] for document in found]
            np.testing.assert_allclose(given, sorted(scores(tiny), reverse=True)[:3], rtol=1e-5)
        assert asyncio.run(compressor.acompress_documents(documents, QUERY)) == found
        assert compressor.fingerprint == late.fingerprint_of_ranks()
    pairs = [(query, text) for text in TEXTS for query in (QUERY, "find the dog")]
    encoder = TrivecCrossEncoder(late, rank_kwargs={"batch_size": 1})
    expected = [scores(tiny, query)[TEXTS.index(text)] for query, text in pairs]
    np.testing.assert_allclose(encoder.score(pairs), expected, rtol=1e-5)
    encoder.score([(QUERY, LONG)])
    assert encoder.truncated == 1
    with pytest.raises(TruncationError, match=r"longer than 12 tokens, the first at index 1"):
        TrivecReranker(late, rank_kwargs={"on_overflow": "error"}).compress_documents(
            [Document("a"), Document(LONG)], QUERY
        )
    with pytest.raises(InputError, match=r"activation_fn='identity' is no option of this reranker's rank. Expected"):
        TrivecReranker(late, rank_kwargs={"activation_fn": "identity"})
    with pytest.raises(InputError, match=r"is a LateEncoder, and this adapter needs dense vectors"):
        TrivecEmbeddings(tiny.folder, **OPTIONS)


def test_llama_index(tiny: TinyLate) -> None:
    nodes = [NodeWithScore(node=TextNode(id_=str(row), text=text), score=row / 10) for row, text in enumerate(TEXTS)]
    rerank = TrivecRerank(tiny.folder, top_n=3, **OPTIONS)
    best = order(tiny)[:3]
    for again in (rerank, TrivecRerank.from_dict(rerank.to_dict()), pickle.loads(pickle.dumps(rerank))):
        found = again.postprocess_nodes(nodes, query_str=QUERY)
        assert [each.node.node_id for each in found] == [str(row) for row in best]
        np.testing.assert_allclose([each.score or 0 for each in found], [scores(tiny)[row] for row in best], rtol=1e-5)
        assert again.fingerprint == rerank.fingerprint


def test_milvus(tiny: TinyLate, tiny_folder: Path) -> None:
    function = milvus.ColBERTEmbeddingFunction(tiny.folder, threads=1)
    assert function.dim == DIM
    for made, side in (
        (function.encode_queries(TEXTS), "query"),
        (function.encode_documents(TEXTS), "document"),
        (function(TEXTS), "document"),
    ):
        for mine, theirs in zip(made, tiny.vectors(TEXTS, side), strict=True):
            assert mine.dtype == np.float32
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="documents must be a list of texts"):
        function.encode_documents("a lone string")
    with pytest.raises(InputError, match=r"is a DenseEncoder, and this function needs a model of late interaction"):
        milvus.ColBERTEmbeddingFunction(tiny_folder)
    with pytest.raises(InputError, match=r"presision='int8' is not taken here"):
        milvus.ColBERTEmbeddingFunction(tiny.folder, presision="int8")  # type: ignore[call-arg]


def test_hits_of_a_search(tiny: TinyLate, late: LateEncoder) -> None:
    hits = [[{"corpus_id": row} for row in (5, 1, 0)], [{"corpus_id": 2}]]
    found = trivec.util.rerank(late, [QUERY, "find the dog"], TEXTS, hits, top_k=2)
    expected = sorted((5, 1, 0), key=lambda row: -scores(tiny)[row])[:2]
    assert [hit["corpus_id"] for hit in found[0]] == expected
    np.testing.assert_allclose([hit["score"] for hit in found[0]], [scores(tiny)[row] for row in expected], rtol=1e-5)
    np.testing.assert_allclose(found[1][0]["score"], scores(tiny, "find the dog")[2], rtol=1e-5)


def test_the_command_line(tiny: TinyLate, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"query_id": "q", "query": QUERY, "documents": [{"id": str(n), "text": t} for n, t in enumerate(TEXTS)]}
    (tmp_path / "in.jsonl").write_text(json.dumps(line) + "\n")
    command = ["rerank", str(tiny.folder), str(tmp_path / "in.jsonl"), "--device", "cpu", "--on-overflow", "truncate"]
    assert main([*command, "-o", "-"]) == 0
    ranking = json.loads(capsys.readouterr().out)["ranking"]
    assert [row["id"] for row in ranking] == [str(row) for row in order(tiny)]
    np.testing.assert_allclose([row["score"] for row in ranking], sorted(scores(tiny), reverse=True), rtol=1e-5)
    assert main([*command, "-o", "-", "--activation", "identity"]) == 1
    assert "activation_fn='identity' is no option of this reranker's rank" in capsys.readouterr().err


def test_the_fingerprint_of_ranks_tells_both_sides(late: LateEncoder) -> None:
    """What `encode` gives of documents is not all that decides."""
    found = [fingerprint_of_ranks(late)]
    assert fingerprint_of_ranks(late, {"batch_size": 3, "on_overflow": "error"}) == found[0]
    late.query_length = 10
    found.append(fingerprint_of_ranks(late))
    late.document_length = 9
    found.append(fingerprint_of_ranks(late))
    late.similarity_fn_name = "meanmaxsim"
    found.append(fingerprint_of_ranks(late))
    late.prompts["query"] = "find "
    found.append(fingerprint_of_ranks(late))
    assert len(set(found)) == 5
    assert late.fingerprint not in found
