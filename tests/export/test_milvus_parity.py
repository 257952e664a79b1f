"""Embedding functions beside those of pymilvus.model; SPLADE, BGE-M3 and mGTE are beside their models' other tests."""

from pathlib import Path
from typing import Any

import model2vec
import numpy as np
import pytest
import torch
import transformers as hf
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer
from tests.support.architectures import make

import trivec
from trivec import _export
from trivec.integrations import milvus


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sentence-transformers model that stores a prompt."""
    work = tmp_path_factory.mktemp("dense")
    words = Transformer(str(make("bert", work / "bert")), max_seq_length=48)
    pooling = Pooling(words.get_word_embedding_dimension(), "mean")
    SentenceTransformer(modules=[words, pooling, Normalize()], prompts={"query": "find "}).save(str(work / "model"))
    return work / "model"


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was exported since; in fp32 alone, on few texts, for time's sake."""
    made: list[str] = []

    def export(model: str, out: Path, **options: Any) -> Path:
        made.append(model)
        return trivec.export(model, out, **{**options, "precision": ("fp32",), "max_texts": 64, "quiet": True})

    monkeypatch.setattr(_export, "export", export)
    return made


def test_sentence_transformer_function_equals_its_twin(
    checkpoint: Path, twins: Any, texts: list[str], exports: list[str]
) -> None:
    """Given the checkpoint itself, which is exported once."""
    words: dict[str, Any] = {"query_instruction": "what is ", "doc_instruction": "text: ", "device": "cpu"}
    twin = twins.dense.SentenceTransformerEmbeddingFunction(str(checkpoint), **words)
    ours = milvus.SentenceTransformerEmbeddingFunction(checkpoint, threads=1, **words)
    assert ours.dim == twin.dim == 64
    for method in ("encode_queries", "encode_documents", "__call__"):
        mine, theirs = getattr(ours, method)(texts), getattr(twin, method)(texts)
        assert type(mine) is type(theirs) is list
        assert {(type(v), v.dtype, v.shape) for v in mine} == {(type(v), v.dtype, v.shape) for v in theirs}
        np.testing.assert_allclose(np.stack(mine), np.stack(theirs), rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours._encode_query("a dog"), twin._encode_query("a dog"), rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours._encode_document("a dog"), twin._encode_document("a dog"), rtol=0, atol=1e-5)
    again = milvus.SentenceTransformerEmbeddingFunction(checkpoint, threads=1, truncate_dim=20)
    assert exports == [str(checkpoint)]
    cut = SentenceTransformer(str(checkpoint), truncate_dim=20, device="cpu").encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(np.stack(again(texts)), cut, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["potion-base-2M", *(f"model2vec-fixtures/test-model-{kind}" for kind in ("float16", "int8"))]
)
def test_model2vec_function_equals_its_twin(
    shared: Path, twins: Any, texts: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # model2vec 0.10 has no load_local any more
    monkeypatch.setattr(model2vec.StaticModel, "load_local", model2vec.StaticModel.from_pretrained, raising=False)
    folder = shared / "models" / name
    twin = twins.dense.Model2VecEmbeddingFunction(folder)
    ours = milvus.Model2VecEmbeddingFunction(folder, threads=1)
    assert ours.dim == twin.dim
    for method in ("encode_queries", "encode_documents", "__call__"):
        mine, theirs = getattr(ours, method)(texts), getattr(twin, method)(texts)
        assert type(mine) is type(theirs) is list
        assert {(v.dtype, v.shape) for v in mine} == {(np.dtype(np.float32), (ours.dim,))}
        np.testing.assert_allclose(np.stack(mine), np.stack(theirs), rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours._encode_query("a dog"), twin._encode_query("a dog"), rtol=0, atol=1e-6)


def test_bm25_function_equals_its_twin_and_reads_its_file(twins: Any, texts: list[str], tmp_path: Path) -> None:
    """The English analyzer is beside its twin in tests/runtime; a simple one here."""

    def words(text: str) -> list[str]:
        return text.lower().split()

    twin = twins.sparse.BM25EmbeddingFunction(analyzer=words, corpus=texts, k1=1.2)
    ours = milvus.BM25EmbeddingFunction(analyzer=words, corpus=texts, k1=1.2)
    twin.save(tmp_path / "theirs.json")
    ours.save(tmp_path / "ours.json")
    assert (tmp_path / "theirs.json").read_bytes() == (tmp_path / "ours.json").read_bytes()
    from_twin, from_ours = milvus.BM25EmbeddingFunction(words), twins.sparse.BM25EmbeddingFunction(words)
    from_twin.load(tmp_path / "theirs.json")
    from_ours.load(tmp_path / "ours.json")
    for method in ("encode_queries", "encode_documents"):
        wanted = getattr(twin, method)(texts)
        for ef in (ours, from_twin, from_ours):
            assert ef.dim == twin.dim
            found = getattr(ef, method)(texts)
            assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
            np.testing.assert_array_equal(found.toarray(), wanted.toarray())
    assert ours.encode_queries(texts)[0].shape == twin._encode_query(texts[0]).shape == (1, twin.dim)


class States(torch.nn.Module):
    """What `optimum-cli export onnx` makes of an encoder: three inputs, the last hidden state."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> Any:
        return self.model(input_ids, attention_mask, token_type_ids).last_hidden_state


@pytest.mark.filterwarnings("ignore")  # of torch's exporter
def test_onnx_function_equals_its_twin(
    twins: Any, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = make("albert", tmp_path / "words")
    (tmp_path / "graph").mkdir()
    model = hf.AlbertModel.from_pretrained(words, attn_implementation="eager").eval()
    names = ("input_ids", "attention_mask", "token_type_ids")
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", min=2, max=128)}
    torch.onnx.export(
        States(model).eval(),
        tuple(torch.ones(2, 9, dtype=torch.int64) for _ in names),
        tmp_path / "graph/model.onnx",
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_shapes=dict.fromkeys(names, sizes),
        dynamo=True,
        verbose=False,
    )
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo_id, filename: str(Path(repo_id) / filename))
    twin = twins.dense.OnnxEmbeddingFunction(str(tmp_path / "graph"), str(words))
    ours = milvus.OnnxEmbeddingFunction(tmp_path / "graph", words, threads=1)
    assert ours.dim == twin.dim
    some = texts[::4]
    for method in ("encode_queries", "encode_documents", "__call__"):
        mine, theirs = getattr(ours, method)(some), getattr(twin, method)(some)
        assert {(v.dtype, v.shape) for v in mine} == {(np.dtype(np.float32), (ours.dim,))}
        np.testing.assert_allclose(np.stack(mine), np.stack(theirs), rtol=0, atol=1e-5)
