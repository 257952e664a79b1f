"""The Milvus embedding functions where no torch is needed: types, a real database, and what they refuse."""

import importlib.util
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from scipy.sparse import csr_array, hstack, vstack

import trivec
from trivec import InputError, MissingExtraError, ModelNotFoundError, SparseVectors
from trivec.integrations import milvus
from trivec.integrations.milvus import BM25EmbeddingFunction, DefaultEmbeddingFunction, OnnxEmbeddingFunction
from trivec.integrations.milvus import SentenceTransformerEmbeddingFunction as Dense
from trivec.integrations.milvus._rows import RowArray, row_array

CORPUS = ["the old cat sat on a mat", "a dog ran up the hill", "the bird sat in a tree", "a boat on the river"]


# ------------------------------------------------------------------------------------------------------------- rows
@pytest.fixture
def rows() -> RowArray:
    return row_array(SparseVectors.from_dicts([{3: 0.5}, {}, {1: 2.0, 3: 1.0}], dim=10))


def test_a_row_stays_two_dimensional(rows: RowArray) -> None:
    whole = rows.toarray()
    for got, wanted in (
        (rows[0], whole[[0]]),
        (rows[-1], whole[[2]]),
        (rows[np.int64(2)], whole[[2]]),
        (list(rows)[0], whole[[0]]),  # noqa: RUF015 - as the documentation writes it
        (rows[[0]], whole[[0]]),
        (rows[[2, 0]], whole[[2, 0]]),
        (rows[2, :], whole[[2]]),
        (rows[2, 1:4], whole[[2], 1:4]),
        (rows[0][0], whole[[0]]),
        (rows[1:], whole[1:]),
        (rows[:, 1:4], whole[:, 1:4]),
        (rows[np.array([True, False, True])], whole[[0, 2]]),
        (rows._getrow(2), whole[[2]]),
    ):
        assert isinstance(got, csr_array)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got.toarray(), wanted)
    assert rows[2, 1] == 2
    assert [row.shape for row in rows] == [(1, 10)] * 3
    assert len(rows) == 3
    for wrong in (3, -4):
        with pytest.raises(IndexError, match=f"row {wrong} of 3 rows"):
            rows[wrong]


def test_the_rest_is_scipys(rows: RowArray) -> None:
    plain = csr_array(rows)
    assert type(plain) is csr_array
    whole = rows.toarray()
    pairs: tuple[tuple[Any, Any], ...] = (
        (vstack([rows[0], rows[2], plain]), np.vstack([whole[[0, 2]], whole])),
        (vstack(list(rows)), whole),
        (hstack([rows, rows]), np.hstack([whole, whole])),
        (rows @ rows.T, whole @ whole.T),
        (plain + rows, 2 * whole),
        (np.float32(2) * rows, 2 * whole),
        (rows.multiply(whole), whole * whole),
        (pickle.loads(pickle.dumps(rows))[0], whole[[0]]),
        (rows.copy()[0], whole[[0]]),
    )
    for got, wanted in pairs:
        np.testing.assert_array_equal(got.toarray(), wanted)
    assert np.asarray(rows).shape == np.asarray(plain).shape == ()
    assert rows.indices.dtype == rows.indptr.dtype == np.int32
    assert np.sum(rows) == whole.sum()


# --------------------------------------------------------------------------------------------------------- database
def test_into_milvus_and_back(tiny_folder: Path, tmp_path: Path) -> None:
    import pymilvus  # takes its time

    dense, sparse = Dense(tiny_folder, threads=1), BM25EmbeddingFunction(corpus=CORPUS)
    client = pymilvus.MilvusClient(str(tmp_path / "tiny.db"))
    schema = client.create_schema()
    schema.add_field("id", pymilvus.DataType.INT64, is_primary=True)
    schema.add_field("dense", pymilvus.DataType.FLOAT_VECTOR, dim=dense.dim)
    schema.add_field("sparse", pymilvus.DataType.SPARSE_FLOAT_VECTOR)
    indexes = client.prepare_index_params()
    indexes.add_index("dense", index_type="FLAT", metric_type="IP")
    indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection("tiny", schema=schema, index_params=indexes)
    vectors, x = dense.encode_documents(CORPUS), sparse.encode_documents(CORPUS)
    ways = [x[0], list(x)[1], x[[2]], x[3:4]]  # every way in which one comes to a row
    client.insert("tiny", [{"id": i, "dense": vectors[i], "sparse": row} for i, row in enumerate(ways)])
    query = ["the dog and the boat"]
    q = sparse.encode_queries(query)
    expected = (q @ x.T).toarray()[0]  # (4,)
    order = np.argsort(-expected, kind="stable")[:2].tolist()
    for one in ([q[0]], [list(q)[0]], q[[0]], q, [q[[0]]]):  # noqa: RUF015
        (hits,) = client.search("tiny", one, anns_field="sparse", limit=2)
        assert [hit["id"] for hit in hits] == order
        np.testing.assert_allclose([hit["distance"] for hit in hits], expected[order], rtol=1e-5)
    of_dense = dense.encode_queries(query)
    near = np.stack(vectors) @ of_dense[0]  # (4,)
    (hits,) = client.search("tiny", of_dense, anns_field="dense", limit=4)
    assert [hit["id"] for hit in hits] == np.argsort(-near).tolist()
    np.testing.assert_allclose([hit["distance"] for hit in hits], np.sort(near)[::-1], rtol=1e-5)
    parts = [pymilvus.AnnSearchRequest(q, "sparse", {}, limit=4), pymilvus.AnnSearchRequest(of_dense, "dense", {}, 4)]
    (hits,) = client.hybrid_search("tiny", parts, ranker=pymilvus.RRFRanker(), limit=4)
    ranks = [np.argsort(-expected, kind="stable").tolist(), np.argsort(-near).tolist()]
    fused = {i: sum(1 / (61 + r.index(i)) for r in ranks if r is ranks[1] or expected[i] > 0) for i in range(4)}
    assert {hit["id"]: pytest.approx(hit["distance"], rel=1e-4) for hit in hits} == fused
    client.close()


# ------------------------------------------------------------------------------------------------------------ dense
def test_instructions_are_the_only_prompts(tiny_folder: Path) -> None:
    """The tiny model stores a prompt for queries."""
    with trivec.load(tiny_folder, device="cpu", threads=1) as encoder:
        assert encoder.prompts["query"]
        ef = Dense(tiny_folder, doc_instruction="red ", normalize_embeddings=False, threads=1)
        for got, texts in (
            (ef(CORPUS), CORPUS),
            (ef.encode_queries(CORPUS), CORPUS),
            (ef.encode_documents(tuple(CORPUS)), [f"red {text}" for text in CORPUS]),
        ):
            assert isinstance(got, list)
            assert all(isinstance(v, np.ndarray) and v.shape == (ef.dim,) and v.dtype == np.float32 for v in got)
            np.testing.assert_array_equal(np.stack(got), encoder.encode(texts, prompt=""))
        assert ef.encode_documents([]) == []
        unit = Dense(tiny_folder, threads=1, truncate_dim=5)
        assert unit.dim == 5
        np.testing.assert_allclose(np.linalg.norm(unit.encode_queries(CORPUS), axis=1), 1, rtol=1e-6)
        np.testing.assert_array_equal(unit._encode_query("a cat"), unit.encode_queries(["a cat"])[0])
        np.testing.assert_array_equal(unit._encode_document("a cat"), unit.encode_documents(["a cat"])[0])


def test_a_graph_with_the_tokenizer_of_another_folder(tiny_folder: Path, tmp_path: Path) -> None:
    """Mean pooling of a bare graph, as OnnxEmbeddingFunction's defaults on the Hub are laid out."""
    graph, words = tmp_path / "graph", tmp_path / "words"
    graph.mkdir()
    words.mkdir()
    for name in ("model.onnx", "model.onnx.data"):
        shutil.copy(tiny_folder / "onnx" / name, graph / name)
    shutil.copy(tiny_folder / "tokenizer.json", words)
    (words / "config.json").write_text('{"model_type": "bert", "max_position_embeddings": 16}')
    with trivec.load(tiny_folder, device="cpu", threads=1, precision="fp32") as encoder:
        expected = encoder.encode(CORPUS, prompt="", normalize_embeddings=True)
    for _ in range(2):  # made, and found again
        ef = OnnxEmbeddingFunction(graph, words, threads=1)
        np.testing.assert_array_equal(np.stack(ef.encode_documents(CORPUS)), expected)
        assert ef.dim == expected.shape[1]
    copied = pickle.loads(pickle.dumps(ef.model))
    np.testing.assert_array_equal(copied.encode(CORPUS, prompt="", normalize_embeddings=True), expected)
    shutil.copy(words / "tokenizer.json", graph)
    shutil.copy(words / "config.json", graph)
    np.testing.assert_array_equal(np.stack(OnnxEmbeddingFunction(graph, None).encode_queries(CORPUS)), expected)
    with pytest.raises(ModelNotFoundError, match=r"has none of model.onnx, onnx/model.onnx"):
        OnnxEmbeddingFunction(words, words)
    (words / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"has no tokenizer.json.* Name another with tokenizer_name="):
        OnnxEmbeddingFunction(graph, words)


def test_a_graph_whose_weights_have_names_of_their_own(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The mean is pymilvus.model's rule here: no guess, and no base model's either."""
    for name in ("one", "all"):
        graph = tmp_path / name
        (graph / "onnx" / "parts").mkdir(parents=True)
        options: dict[str, Any] = {"location": "parts/w.bin"} if name == "one" else {"all_tensors_to_one_file": False}
        model = onnx.load(tiny_folder / "onnx" / "model.onnx")
        onnx.save_model(model, graph / "onnx/model.onnx", save_as_external_data=True, size_threshold=0, **options)
        shutil.copy(tiny_folder / "tokenizer.json", graph)
        (graph / "config.json").write_text('{"model_type": "bert", "max_position_embeddings": 16}')
        (graph / "README.md").write_text("pooling: 'cls'")
        with trivec.load(tiny_folder, device="cpu", threads=1, precision="fp32") as encoder:
            expected = encoder.encode(CORPUS, prompt="", normalize_embeddings=True)
        np.testing.assert_array_equal(np.stack(OnnxEmbeddingFunction(graph, None).encode_queries(CORPUS)), expected)
    assert not caplog.records


def test_the_default_is_minilm_in_fp32(tiny_folder: Path, tmp_path: Path) -> None:
    commit = "b" * 40
    repository = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    shutil.copytree(tiny_folder, repository / "snapshots" / commit)
    ef = DefaultEmbeddingFunction(cache_dir=str(tmp_path), local_files_only=True)
    assert (ef.model.precision, ef.device, ef.model_name) == ("fp32", "cpu", "all-MiniLM-L6-v2")
    np.testing.assert_allclose(np.linalg.norm(ef(CORPUS), axis=1), 1, rtol=1e-6)
    assert DefaultEmbeddingFunction(cache_folder=str(tmp_path), precision="int8").model.precision == "int8"


# -------------------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("method", ["encode_queries", "encode_documents", "__call__"])
def test_a_lone_string_is_not_read_letter_by_letter(tiny_folder: Path, method: str) -> None:
    functions: list[Any] = [Dense(tiny_folder, threads=1)]
    functions += [BM25EmbeddingFunction(corpus=CORPUS)] if method != "__call__" else []
    for ef in functions:
        with pytest.raises(InputError, match=r"must be a list of texts, got one str\. Type: \['a cat'\]"):
            getattr(ef, method)("a cat")
        with pytest.raises(InputError, match="must be texts, got int at index 1"):
            getattr(ef, method)(["a", 1])
        with pytest.raises(InputError, match="must be a list of texts, got int"):
            getattr(ef, method)(1)


def test_arguments_of_the_hosted_services_and_of_torch(tiny_folder: Path) -> None:
    for function, arguments, message in (
        (Dense, {"model_kwargs": {"torch_dtype": "float16"}}, r"it speaks to torch.* precision=\"fp32\""),
        (Dense, {"default_prompt_name": "query"}, "only query_instruction= and doc_instruction="),
        (Dense, {"nonsense": 1}, r"nonsense=1 is not taken here: expected one of cache_dir, .*trust_remote_code"),
        (milvus.NomicEmbeddingFunction, {"long_text_mode": "mean"}, "only the hosted API has it"),
        (milvus.NomicEmbeddingFunction, {"task_type": "nonsense"}, "task_type='nonsense' is none of search_document"),
        (milvus.NomicEmbeddingFunction, {"dimensions": 13}, "dimensions must be between 1 and 12, got 13"),
        (milvus.JinaEmbeddingFunction, {"api_key": "secret"}, r"api_key=\.\.\. is not taken here: only the hosted API"),
        (milvus.JinaEmbeddingFunction, {"late_chunking": True}, "late_chunking=True is not taken here"),
        (milvus.JinaEmbeddingFunction, {"task": "x"}, "task='x' is none of retrieval.query"),
        (milvus.JinaEmbeddingFunction, {"dimensions": 0}, "dimensions must be between 1 and 12, got 0"),
        (milvus.SpladeEmbeddingFunction, {}, "is a DenseEncoder, and this function needs a SPLADE model"),
        (milvus.BGEM3EmbeddingFunction, {}, "is a DenseEncoder, and this function needs a model with dense and sparse"),
        (milvus.BGEM3EmbeddingFunction, {"query_max_length": 9}, "set passage_max_length"),
        (milvus.MGTEEmbeddingFunction, {"return_dense": False, "return_sparse": False}, "nothing is asked for"),
        (milvus.Model2VecEmbeddingFunction, {}, "is a DenseEncoder, and this function needs a Model2Vec model"),
    ):
        with pytest.raises(InputError, match=message):
            function(tiny_folder, **arguments)
    with pytest.raises(ModelNotFoundError, match="no_such"):
        Dense("./no_such")
    with pytest.raises(ModelNotFoundError, match="sentence-transformers/all-MiniLM-L6-v2"):
        DefaultEmbeddingFunction(local_files_only=True, cache_dir=str(tiny_folder / "none"))


def test_bm25_before_fit_and_from_the_wrong_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ef = BM25EmbeddingFunction()
    assert ef.dim == 0
    for method in (ef.encode_queries, ef.encode_documents):
        with pytest.raises(InputError, match="knows no corpus yet"):
            method(["a cat"])
    with pytest.raises(InputError, match="encode_documents or encode_queries"):
        ef(["a cat"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelNotFoundError, match=r"reads bm25_msmarco_v1.json, which is not in .*nothing is downloaded"
    ):
        ef.load()
    fitted = BM25EmbeddingFunction(corpus=CORPUS)
    fitted.save(tmp_path / "bm25_msmarco_v1.json")
    ef.load()
    assert ef.dim == fitted.dim > 5
    assert abs(ef.encode_documents(CORPUS) - fitted.encode_documents(CORPUS)).max() == 0
    with pytest.raises(InputError):
        fitted.fit(["", ""])
    assert abs(ef.encode_documents(CORPUS) - fitted.encode_documents(CORPUS)).max() == 0


def test_without_scipy_the_error_names_the_extra(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "scipy" else find(name, *a))
    line = r'Type: pip install "trivec\[milvus\]"'
    for function in (BM25EmbeddingFunction, milvus.SpladeEmbeddingFunction, milvus.BGEM3EmbeddingFunction):
        with pytest.raises(MissingExtraError, match=line):
            function()
    assert len(Dense(tiny_folder, threads=1)(["a cat"])) == 1  # dense vectors need none


def test_importing_loads_neither_scipy_nor_pymilvus() -> None:
    code = "import sys, trivec.integrations.milvus; print({'scipy', 'pymilvus', 'torch', 'yaml'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
