"""SPLADE and inference-free SPLADE, from a checkpoint over its export to rows that equal sentence-transformers'."""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.sparse import csr_array
from sentence_transformers import SparseEncoder as Oracle
from sentence_transformers.base.modules import Router
from sentence_transformers.base.modules.transformer import Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from tests.support import sparse_models as made
from tests.support.on_cpu import mixed_on_cpu
from transformers import PreTrainedTokenizerBase

import trivec
from trivec._encoders.sparse import SparseEncoder
from trivec._gate.texts import verification_texts
from trivec._loading import open_model
from trivec._vectors.sparse import SparseVectors
from trivec.integrations import milvus

Floats = npt.NDArray[np.float32]
PROMPTS = {"query": "find this: ", "document": "passage: ", "odd": "odd "}
EVERY = [text.text for text in verification_texts()]
VARIED = [*(EVERY[i * len(EVERY) // 298] for i in range(298)), "", "several words over and over " * 1000]
"""300 texts: all kinds, none and 5,000 words."""


@dataclass(frozen=True)
class Model:
    """A checkpoint, what it was exported to, and the reference that reads the same checkpoint."""

    checkpoint: Path
    folder: Path
    oracle: Oracle

    def load(self, **options: Any) -> SparseEncoder:
        encoder = trivec.load(self.folder, **{"device": "cpu", "threads": 1, **options})
        assert isinstance(encoder, SparseEncoder)
        return encoder


def model(checkpoint: Path, oracle: Oracle | None = None, precision: tuple[str, ...] = ("fp32",)) -> Model:
    """Export a checkpoint beside itself."""
    out = checkpoint.with_name(f"{checkpoint.name}-onnx")
    trivec.export(checkpoint, out, precision=precision, max_texts=64, quiet=True)
    return Model(checkpoint, out, oracle or Oracle(str(checkpoint), device="cpu"))


def dense(vectors: Any) -> Floats:
    """Ours or theirs as an array (N, V)."""
    found: Floats = vectors.to_dense() if isinstance(vectors, SparseVectors) else vectors.to_dense().numpy()
    return found


def assert_equal(rows: SparseVectors, expected: torch.Tensor) -> None:
    """Weights within 1e-4, and the same terms wherever a weight exceeds 1e-4; there are large ones."""
    assert isinstance(rows, SparseVectors)
    ours, theirs = dense(rows), dense(expected)
    assert ours.shape == theirs.shape
    assert theirs.max() > 0.5
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    assert not ((theirs > 1e-4) & (ours == 0)).any()
    assert not ((ours > 1e-4) & (theirs == 0)).any()


# ---------------------------------------------------------------------------------------------------------- models
@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are too small for more; where the cores are busy, torch's threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("splade")


@pytest.fixture(scope="module")
def models(work: Path) -> Callable[[str], Model]:
    """Models by name, each made once."""
    found: dict[str, Model] = {}

    def get(name: str) -> Model:
        if name not in found:
            found[name] = MAKERS[name](work / name)
        return found[name]

    return get


def _mlm(kind: str, folder: Path, **shape: Any) -> Path:
    """A bare masked language model."""
    tokenizer = made.small_tokenizer(kind, folder.with_name(f"{folder.name}-tokenizer"))
    return made.masked_lm(kind, folder, tokenizer, **shape)


def _saved(folder: Path, kind: str, strategy: str, activation: str, **settings: Any) -> Model:
    # a sum of many large weights rounds at 1e-5, in torch too: fewer tokens, smaller logits
    shape = {"length": 24, "bias": -3.0} if strategy == "sum" else {}
    mlm = _mlm(kind, folder.with_name(f"{folder.name}-mlm"), **shape)
    return model(made.splade(folder, mlm, strategy, activation, **settings))


def _table(mlm: Path) -> SparseStaticEmbedding:
    """Weights of every token, some 0 and some below."""
    tokenizer = Transformer(str(mlm), transformer_task="fill-mask").tokenizer
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(len(tokenizer), generator=generator)
    weights[::7] = 0
    return SparseStaticEmbedding(tokenizer, weights)


def _router(folder: Path) -> Model:
    mlm = _mlm("distilbert", folder.with_name(f"{folder.name}-mlm"))
    return model(made.inference_free(folder, mlm, _table(mlm), prompts={"query": "find this: "}))


def _router_with_json(folder: Path) -> Model:
    """The weights are in a JSON file that the module's config names, by its path from the folder."""
    mlm = _mlm("bert", folder.with_name(f"{folder.name}-mlm"))
    table = _table(mlm)
    oracle = Oracle(str(made.inference_free(folder, mlm, table)), device="cpu")
    place = folder / "query_0_SparseStaticEmbedding"
    (place / "model.safetensors").unlink()
    values = table.weight.tolist()
    weights = {token: values[i] for token, i in table.tokenizer.get_vocab().items()}
    (place / "weights.json").write_text(json.dumps(weights))
    (place / "config.json").write_text(json.dumps({"frozen": True, "path": "weights.json"}))
    return model(folder, oracle)


MAKERS: dict[str, Callable[[Path], Model]] = {
    "bert": lambda folder: model(_mlm("bert", folder), precision=("fp32", "int8")),
    "distilbert": lambda folder: model(_mlm("distilbert", folder)),
    "roberta": lambda folder: model(_mlm("roberta", folder)),
    "max-relu": lambda folder: _saved(folder, "bert", "max", "relu"),
    "max-log1p_relu": lambda folder: _saved(
        folder,
        "roberta",
        "max",
        "log1p_relu",
        prompts=PROMPTS,
        default_prompt_name="odd",
        max_active_dims=24,
        similarity_fn_name="cosine",
    ),
    "sum-relu": lambda folder: _saved(folder, "distilbert", "sum", "relu"),
    "sum-log1p_relu": lambda folder: _saved(folder, "roberta", "sum", "log1p_relu"),
    "router": _router,
    "router-json": _router_with_json,
}


# ------------------------------------------------------------------------------------------------- rows of all models
@pytest.mark.parametrize("name", [name for name in MAKERS if name != "max-log1p_relu"])
def test_rows_equal_the_reference(name: str, models: Callable[[str], Model], texts: list[str]) -> None:
    found = models(name)
    texts = VARIED if name == "max-relu" else texts
    with found.load() as encoder:
        assert encoder.dim == encoder.get_embedding_dimension() == 300
        assert encoder.similarity_fn_name == found.oracle.similarity_fn_name == "dot"
        assert_equal(encoder.encode(texts), found.oracle.encode(texts))
        assert_equal(encoder.encode_query(texts), found.oracle.encode_query(texts))
        assert_equal(encoder.encode_document(texts), found.oracle.encode_document(texts))
        assert encoder.truncated > 0


def test_texts_of_all_lengths_in_one_run_pooled_in_the_graph(
    models: Callable[[str], Model], texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = models("max-relu")
    trivec.export(found.checkpoint, tmp_path / "fp16", precision=("fp32", "fp16"), max_texts=64, quiet=True)
    encoder = mixed_on_cpu(tmp_path / "fp16", tmp_path, monkeypatch)
    assert encoder._open()["default"].session.layout == "padded"
    some = texts[::4]
    expected = dense(found.oracle.encode(some))
    np.testing.assert_allclose(encoder.encode(some).to_dense(), expected, rtol=0, atol=2e-2)
    assert expected.max() > 0.5


def test_a_text_of_nothing_has_its_special_tokens_rows(models: Callable[[str], Model]) -> None:
    """The reference's rows of "" are not empty: [CLS] and [SEP] have logits, and they count."""
    found = models("bert")
    with found.load() as encoder:
        row = encoder.encode("")
        assert len(row) > 10
        assert_equal(SparseVectors.of(row), found.oracle.encode([""]))
    with models("router").load() as encoder:
        assert len(encoder.encode_query("", prompt="")) == 0


def test_prompts_and_limits_of_the_checkpoint(models: Callable[[str], Model], texts: list[str]) -> None:
    found = models("max-log1p_relu")
    oracle = found.oracle
    with found.load() as encoder:
        assert encoder.prompts == oracle.prompts == PROMPTS
        assert encoder.default_prompt_name == oracle.default_prompt_name == "odd"
        assert encoder.max_active_dims == oracle.max_active_dims == 24
        assert encoder.similarity_fn_name == oracle.similarity_fn_name == "cosine"
        everything = oracle.encode(texts, max_active_dims=300)
        assert_heaviest(encoder.encode(texts), oracle.encode(texts), everything, 24)
        assert_equal(encoder.encode(texts, max_active_dims=300), everything)
        for ours, theirs in (
            (encoder.encode_query, oracle.encode_query),
            (encoder.encode_document, oracle.encode_document),
        ):
            assert_equal(ours(texts, max_active_dims=300), theirs(texts, max_active_dims=300))
        assert_equal(
            encoder.encode(texts, prompt_name="query", max_active_dims=300),
            oracle.encode_query(texts, max_active_dims=300),
        )
        assert_equal(
            encoder.encode(texts, prompt="", max_active_dims=300), oracle.encode(texts, prompt="", max_active_dims=300)
        )
        assert not np.array_equal(dense(encoder.encode(texts)), dense(encoder.encode(texts, prompt_name="query")))


# --------------------------------------------------------------------------------------------------------- real parts
def test_the_real_idf_beside_a_bare_checkpoint(work: Path, shared: Path, texts: list[str]) -> None:
    """OpenSearch's layout: a masked language model with idf.json, and no modules.json."""
    idf = shared / "models/inference-free-idf-en/idf.json"
    folder = made.masked_lm("distilbert", work / "opensearch", made.idf_tokenizer(shared), length=24)
    documents = [Transformer(str(folder), transformer_task="fill-mask"), SpladePooling("max")]
    table = SparseStaticEmbedding.from_json(str(idf), documents[0].tokenizer)
    oracle = Oracle(modules=[Router.for_query_document([table], documents)], device="cpu")
    shutil.copy(idf, folder)
    found = model(folder, oracle)
    with found.load() as encoder:
        assert encoder.dim == 30522
        texts = [*texts, "what is the capital of france"]
        queries = encoder.encode_query(texts)
        # one at a time: in a batch, padding takes its weight from a text that has "[PAD]" in it
        assert_equal(queries, oracle.encode_query(texts, batch_size=1))
        assert set(dict(encoder.decode(queries[-1]))) == {"what", "is", "the", "capital", "of", "france"}
        assert_equal(encoder.encode_document(texts[:20]), oracle.encode_document(texts[:20]))
        assert_equal(encoder.encode(texts[:9]), oracle.encode(texts[:9]))


def test_the_real_splade(work: Path, shared: Path, minilm_checkpoint: Path) -> None:
    folder = made.splade_minilm(work / "splade-minilm", shared, minilm_checkpoint, max_seq_length=32)
    found = model(folder)
    expected = found.oracle.encode(VARIED, batch_size=4)
    with found.load(threads=None) as encoder:
        assert encoder.max_seq_length == found.oracle.max_seq_length == 32
        rows = encoder.encode(VARIED)
        assert_equal(rows, expected)
        assert encoder.truncated >= 2
        kept = encoder.encode(VARIED[:12], max_active_dims=8)
        theirs = found.oracle.encode(VARIED[:12], max_active_dims=8, batch_size=4)
        assert_heaviest(kept, theirs, expected.to_dense()[:12], 8)
        heaviest = encoder.decode(encoder.encode("the capital of france"), top_k=3)
        assert heaviest == about(found.oracle.decode(found.oracle.encode("the capital of france"), top_k=3))


# ------------------------------------------------------------------------------------------------------ what is kept
def assert_heaviest(rows: SparseVectors, theirs: torch.Tensor, everything: Any, count: int) -> None:
    """As many terms as the reference keeps, of the same weights; which of two equal ones is left open."""
    full, kept = dense(everything), dense(theirs)
    assert len(rows) == len(kept)
    assert max(len(row) for row in rows) == count
    for row, all_weights, expected in zip(rows, full, kept, strict=True):
        np.testing.assert_allclose(row.values, all_weights[row.indices], rtol=0, atol=1e-4)
        np.testing.assert_allclose(np.sort(row.values), np.sort(expected[expected != 0]), rtol=0, atol=1e-4)


def about(pairs: list[tuple[str, float]]) -> list[tuple[str, Any]]:
    return [(token, pytest.approx(weight, abs=1e-4)) for token, weight in pairs]


@pytest.mark.parametrize("count", [1, 7, 299])
def test_max_active_dims(count: int, models: Callable[[str], Model], texts: list[str]) -> None:
    found = models("bert")
    everything, theirs = found.oracle.encode(texts), found.oracle.encode(texts, max_active_dims=count)
    with found.load() as encoder:
        per_call = encoder.encode(texts, max_active_dims=count)
    if count < 100:
        assert_heaviest(per_call, theirs, everything, count)
    else:
        assert_equal(per_call, theirs)
    with found.load(max_active_dims=count) as encoder:
        assert encoder.max_active_dims == count
        assert encoder.encode(texts).equals(per_call)
        assert encoder.encode_document(texts).equals(per_call)
        assert max(map(len, encoder.encode(texts, max_active_dims=2))) == 2


def test_max_active_dims_of_queries_from_a_table(models: Callable[[str], Model], texts: list[str]) -> None:
    """The heaviest by their absolute value: a table has weights below 0."""
    found = models("router")
    everything, theirs = found.oracle.encode_query(texts), found.oracle.encode_query(texts, max_active_dims=3)
    assert dense(theirs).min() < 0
    with found.load() as encoder:
        assert_heaviest(encoder.encode_query(texts, max_active_dims=3), theirs, everything, 3)
        queries, documents = encoder.encode_query(texts, max_active_dims=2), encoder.encode_document(texts)
        assert max(map(len, queries)) == 2
        assert max(map(len, documents)) > 50


def test_threshold(models: Callable[[str], Model], texts: list[str]) -> None:
    with models("router").load() as encoder:
        for encode in (encoder.encode_query, encoder.encode_document):
            rows, kept = dense(encode(texts)), dense(encode(texts, threshold=0.75))
            np.testing.assert_array_equal(kept, np.where(rows > 0.75, rows, 0))
            assert 0 < (kept > 0).sum() < (rows > 0).sum()


# ------------------------------------------------------------------------------------------------- forms and products
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")  # torch, of what the reference does
@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarity(name: str, models: Callable[[str], Model], texts: list[str]) -> None:
    found = models("bert")
    found.oracle.similarity_fn_name = name
    with found.load(similarity_fn_name=name) as encoder:
        rows = encoder.encode(texts[:40])
        queries, documents = rows[:7], rows[7:]
        theirs = found.oracle.similarity(as_torch(queries), as_torch(documents)).numpy()
        np.testing.assert_allclose(encoder.similarity(queries, documents), theirs, rtol=1e-4, atol=1e-5)
        # the reference takes distances from differences of squares, and is 0.01 off where they should be 0
        theirs = found.oracle.similarity(as_torch(queries), as_torch(queries)).numpy()
        np.testing.assert_allclose(encoder.similarity(queries, queries), theirs, rtol=1e-5, atol=2e-2)
        assert encoder.similarity(rows[3], rows).shape == (1, 40)
        np.testing.assert_array_equal(encoder.similarity(rows[3], rows), encoder.similarity(rows[3:4], rows))
        expected = found.oracle.similarity_pairwise(as_torch(rows[:20]), as_torch(rows[20:])).numpy()
        np.testing.assert_allclose(encoder.similarity_pairwise(rows[:20], rows[20:]), expected, rtol=1e-4, atol=1e-5)
    found.oracle.similarity_fn_name = "dot"


def as_torch(rows: SparseVectors) -> torch.Tensor:
    return torch.from_numpy(rows.to_dense()).to_sparse()


def test_decode(models: Callable[[str], Model], texts: list[str]) -> None:
    found = models("bert")
    theirs = found.oracle.encode(texts[:20])
    with found.load() as encoder:
        rows = encoder.encode(texts[:20])
        for ours, expected in zip(encoder.decode(rows), found.oracle.decode(theirs), strict=True):
            assert dict(ours) == pytest.approx(dict(expected), abs=1e-4)
            assert [weight for _, weight in ours] == sorted((weight for _, weight in ours), reverse=True)
        assert encoder.decode(rows, top_k=3) == [about(one) for one in found.oracle.decode(theirs, top_k=3)]
        assert encoder.decode(rows[4], top_k=2) == encoder.decode(rows, top_k=2)[4]


def test_torch_tensors(models: Callable[[str], Model], texts: list[str]) -> None:
    found = models("bert")
    with found.load() as encoder:
        rows = encoder.encode(texts)
        torch.set_warn_always(True)  # else only the first test that meets one of torch's warnings would see it
        try:
            sparse = encoder.encode(texts, convert_to_tensor=True)
        finally:
            torch.set_warn_always(False)
        assert sparse.is_sparse
        assert sparse.is_coalesced()
        assert sparse.dtype == torch.float32
        assert sparse.shape == found.oracle.encode(texts).shape
        np.testing.assert_array_equal(sparse.to_dense().numpy(), rows.to_dense())
        plain = encoder.encode(texts, convert_to_tensor=True, convert_to_sparse_tensor=False)
        assert not plain.is_sparse
        np.testing.assert_array_equal(plain.numpy(), rows.to_dense())
        one = encoder.encode(texts[3], convert_to_tensor=True)
        assert one.shape == found.oracle.encode(texts[3]).shape == (300,)
        np.testing.assert_allclose(one.to_dense().numpy(), rows[3].to_dense(), atol=1e-5)
        assert encoder.encode([], convert_to_tensor=True).shape == (0, 300)


def test_one_text_no_text_and_blocks_of_texts(models: Callable[[str], Model], texts: list[str]) -> None:
    with models("router").load() as encoder:
        for task in ("query", "document"):
            rows = encoder.encode(texts, task=task)
            assert encoder.encode(iter(texts), task=task).equals(rows)
            np.testing.assert_allclose(encoder.encode(texts[5], task=task).to_dense(), rows[5].to_dense(), atol=1e-5)
            nothing = encoder.encode([], task=task)
            assert isinstance(nothing, SparseVectors)
            assert nothing.shape == (0, 300)
            blocks = list(encoder.encode_iter(iter(texts), window=40, task=task))
            assert [len(block) for block in blocks] == [40, 40, len(texts) - 80]
            assert_equal(SparseVectors.concatenate(blocks), torch.from_numpy(rows.to_dense()))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_alone_and_in_a_batch(precision: str, models: Callable[[str], Model], texts: list[str]) -> None:
    with models("bert").load(precision=precision) as encoder:
        rows = dense(encoder.encode(texts))
        alone = np.stack([encoder.encode(text).to_dense() for text in texts])
        np.testing.assert_allclose(alone, rows, rtol=0, atol=1e-5)
        text = texts[30]
        same = dense(encoder.encode([text] * 33, batch_size=64))
        np.testing.assert_allclose(same, np.tile(rows[30], (33, 1)), rtol=0, atol=1e-5)
        np.testing.assert_allclose(dense(encoder.encode(texts[::-1], batch_size=3))[::-1], rows, rtol=0, atol=1e-5)


def test_int8_is_not_fp32(models: Callable[[str], Model], texts: list[str]) -> None:
    found = models("bert")
    with found.load(precision="int8") as encoder:
        rows, expected = dense(encoder.encode(texts)), dense(found.oracle.encode(texts))
    cosines = (rows * expected).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(expected, axis=1)
    assert 0.98 < cosines.mean() < 0.9999999


# --------------------------------------------------------------------------------------------- pickles, fingerprints
def test_a_pickle_gives_the_same_rows(models: Callable[[str], Model], texts: list[str]) -> None:
    found = models("max-log1p_relu")
    with found.load(max_active_dims=9, prompts={"mine": "mine "}) as encoder:
        encoder.max_seq_length = 20
        with pickle.loads(pickle.dumps(encoder)) as copy:
            assert isinstance(copy, SparseEncoder)
            assert copy.max_active_dims == 9
            assert copy.max_seq_length == 20
            assert copy.prompts == encoder.prompts
            assert copy.fingerprint == encoder.fingerprint
            assert copy.encode(texts, prompt_name="mine").equals(encoder.encode(texts, prompt_name="mine"))


def test_the_fingerprint_tells_what_decides_the_rows(models: Callable[[str], Model]) -> None:
    found = models("router")
    with found.load() as encoder:
        plain = encoder.fingerprint
        assert encoder.fingerprint_of(task="document") == plain
        assert encoder.fingerprint_of(threshold=0.0, max_active_dims=None) == plain
        others = [
            encoder.fingerprint_of(task="query"),
            encoder.fingerprint_of(threshold=0.5),
            encoder.fingerprint_of(max_active_dims=8),
            encoder.fingerprint_of(max_active_dims=9),
            encoder.fingerprint_of(prompt="a prompt"),
            encoder.fingerprint_of(task="query", max_active_dims=8),
        ]
        assert len({plain, *others}) == 1 + len(others)
    with found.load(max_active_dims=8) as encoder:
        assert encoder.fingerprint == others[2]
        assert encoder.fingerprint_of(max_active_dims=9) == others[3]
    with models("router-json").load() as encoder:
        assert encoder.fingerprint not in (plain, *others)


# ------------------------------------------------------------------------------------------------- no graph for queries
@pytest.mark.parametrize("name", ["router", "router-json"])
def test_queries_of_an_inference_free_model_open_no_graph(
    name: str, models: Callable[[str], Model], texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = models(name)
    with found.load() as encoder:
        expected = encoder.encode_query(texts)
    folder = Path(shutil.copytree(found.folder, tmp_path / "queries"))
    shutil.rmtree(folder / "onnx")
    with pytest.raises(trivec.TrivecError, match="onnx"):
        trivec.load(folder, device="cpu")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a session was opened")

    monkeypatch.setattr(open_model, "Session", refuse)
    with trivec.load(folder, task="query") as encoder:
        assert encoder.device == "cpu"
        assert encoder.encode_query(texts).equals(expected)
        assert encoder.encode(texts, prompt=encoder.prompts["query"]).equals(expected)
        assert encoder.dim == 300
        assert pickle.loads(pickle.dumps(encoder)).encode_query(texts).equals(expected)
        with pytest.raises(trivec.InputError, match="task 'document' is no route of this model"):
            encoder.encode_document(texts)
    with pytest.raises(trivec.InputError, match=r"task 'passage' is no route of .*'document', 'query'"):
        trivec.load(folder, task="passage")


def test_documents_alone(models: Callable[[str], Model], texts: list[str]) -> None:
    found = models("router")
    with found.load() as both, found.load(task="document") as encoder:
        assert encoder.encode_document(texts).equals(both.encode_document(texts))
        with pytest.raises(trivec.InputError, match="task 'query' is no route of this model"):
            encoder.encode_query(texts)


# ------------------------------------------------------------------------------------------------------------ Milvus
@pytest.mark.parametrize("kept", [None, 7])
def test_the_milvus_function_equals_its_twin(
    models: Callable[[str], Model], texts: list[str], twins: Any, monkeypatch: pytest.MonkeyPatch, kept: int | None
) -> None:
    # transformers 5 has no batch_encode_plus any more
    monkeypatch.setattr(PreTrainedTokenizerBase, "batch_encode_plus", PreTrainedTokenizerBase.__call__, raising=False)
    found = models("bert")
    words: dict[str, Any] = {"query_instruction": "find ", "doc_instruction": "text: "}
    limits: dict[str, Any] = {"k_tokens_query": kept, "k_tokens_document": kept}
    # Its rows depend on the batch: it takes the maximum over padding as well.
    twin = twins.sparse.SpladeEmbeddingFunction(str(found.checkpoint), batch_size=1, **words, **limits)
    ours = milvus.SpladeEmbeddingFunction(found.folder, threads=1, **words, **limits)
    assert ours.dim == twin.dim == 300
    for method in ("encode_queries", "encode_documents", "__call__"):
        mine, theirs = getattr(ours, method)(texts), getattr(twin, method)(texts)
        assert (type(theirs), mine.shape, mine.dtype) == (csr_array, theirs.shape, theirs.dtype)
        assert isinstance(mine, csr_array)
        assert abs(mine - theirs).max() < 1e-4
        assert theirs.max() > 0.5
        assert list(mine)[3].shape == mine[3].shape == mine[[3]].shape == (1, 300)
    one = twin._encode_query("a dog")
    assert abs(ours._encode_query("a dog").toarray() - one.toarray()).max() < 1e-4


def test_milvus_queries_of_an_inference_free_model(models: Callable[[str], Model], texts: list[str]) -> None:
    """Its twin knows no Router; and it puts no stored prompt before texts."""
    found = models("router")
    ours = milvus.SpladeEmbeddingFunction(found.folder, threads=1)
    for mine, theirs in (
        (ours.encode_queries(texts), found.oracle.encode_query(texts, prompt="")),
        (ours.encode_documents(texts), found.oracle.encode_document(texts, prompt="")),
    ):
        assert_equal(SparseVectors.from_scipy(mine), theirs)
