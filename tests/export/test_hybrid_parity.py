"""BGE-M3 against FlagEmbedding, and mGTE against a reference written from its published code."""

import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
import transformers as hf
from scipy.sparse import csr_array
from tests.support import sparse_models as made
from tests.support.flag_embedding import FlagEmbedding
from tests.support.on_cpu import mixed_on_cpu
from tests.support.published_gte import MULTILINGUAL, Published, draw, write

import trivec
from trivec._encoders.hybrid import HybridEncoder
from trivec._engine.session import Session
from trivec._gate import verify
from trivec._gate.figures import HEADS
from trivec._gate.texts import verification_texts
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVector, SparseVectors
from trivec.integrations import milvus
from trivec_export._checkpoint.published.layouts import convert
from trivec_export._graph import head_groups, row_slices

Floats = npt.NDArray[np.float32]
LENGTH = 128  # the positions of the tiny BGE-M3
COLBERT = 24  # not the hidden size, which is 32
EVERY = [text.text for text in verification_texts()]
VARIED = [*(EVERY[i * len(EVERY) // 298] for i in range(298)), "", "several words over and over " * 1000]
"""300 texts: all kinds, none and 5,000 words."""
PAIRS = [(EVERY[i], EVERY[-i - 1]) for i in range(0, 120, 13)] + [("the same", "the same"), ("", "a"), ("a b", "")]


@dataclass(frozen=True)
class M3:
    """BGE-M3, exported in all precisions, its checkpoint and the reference."""

    folder: Path
    refused: str
    """What the export said of the variants that are not faithful."""
    checkpoint: Path
    process: "FlagEmbedding"

    def oracle(self, what: str, **arguments: Any) -> Any:
        """What FlagEmbedding says of the checkpoint."""
        return self.process.ask(what, checkpoint=str(self.checkpoint), colbert_dim=COLBERT, **arguments)

    def load(self, **options: Any) -> HybridEncoder:
        return load(self.folder, **options)


def load(folder: Path, **options: Any) -> HybridEncoder:
    encoder = trivec.load(folder, **{"device": "cpu", "threads": 1, **options})
    assert isinstance(encoder, HybridEncoder)
    return encoder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are too small for more; where the cores are busy, torch's threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def m3(shared: Path, flag_embedding: "FlagEmbedding", tmp_path_factory: pytest.TempPathFactory) -> M3:
    work = tmp_path_factory.mktemp("m3")
    tokenizer = shared / "models/xlm-roberta-tokenizer/tokenizer.json"
    checkpoint = made.bge_m3(work / "checkpoint", tokenizer, colbert=COLBERT)
    refused = ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_slices, "_LEAST_BYTES", 1)  # slices and groups of heads, as the real one has them
        patch.setattr(head_groups, "_LEAST_BYTES", 1)
        try:
            trivec.export(checkpoint, work / "model", max_texts=64, quiet=True)
        except trivec.GateError as error:
            refused = str(error)
    for name in ("model.onnx", "model_int8.onnx"):
        graph = onnx.load(work / "model/onnx" / name, load_external_data=False).graph
        assert sum(node.op_type == "Scan" for node in graph.node) == 2
    return M3(work / "model", refused, checkpoint, flag_embedding)


@pytest.fixture(scope="module")
def expected(m3: M3) -> HybridVectors:
    """What FlagEmbedding says of the 300 texts."""
    options = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}
    found = m3.oracle("encode", texts=VARIED, batch_size=16, max_length=LENGTH, **options)
    return HybridVectors(
        found["dense_vecs"],
        SparseVectors.from_dicts(found["lexical_weights"], 250002),
        MultiVectors.from_arrays(found["colbert_vecs"]),
    )


def assert_equal(ours: HybridVectors, theirs: HybridVectors, atol: float = 1e-4) -> None:
    """Every number within `atol`, and the same terms wherever a weight exceeds it."""
    assert isinstance(ours.sparse, SparseVectors)
    assert isinstance(theirs.sparse, SparseVectors)
    np.testing.assert_allclose(ours.dense, theirs.dense, rtol=0, atol=atol)  # type: ignore[arg-type]
    assert ours.sparse.shape == theirs.sparse.shape
    for row, wanted in zip(ours.sparse.to_dicts(), theirs.sparse.to_dicts(), strict=True):
        assert {term for term, weight in row.items() if weight > atol} <= wanted.keys()
        assert {term for term, weight in wanted.items() if weight > atol} <= row.keys()
        assert row == pytest.approx({term: wanted.get(term, 0.0) for term in row}, rel=0, abs=atol)
    if isinstance(theirs.colbert, MultiVectors):
        assert isinstance(ours.colbert, MultiVectors)
        np.testing.assert_array_equal(ours.colbert.offsets, theirs.colbert.offsets)
        np.testing.assert_allclose(ours.colbert.vectors, theirs.colbert.vectors, rtol=0, atol=atol)


@pytest.mark.parametrize("normalized", [True, False])
def test_milvus_function_equals_its_twin(m3: M3, normalized: bool) -> None:
    heads: dict[str, Any] = {"return_colbert_vecs": True, "normalize_embeddings": normalized}
    texts = [*VARIED[:40:2], *VARIED[-2:]]
    twin = m3.oracle("milvus", texts=texts, passage_max_length=LENGTH, **heads)
    ours = milvus.BGEM3EmbeddingFunction(m3.folder, device="cpu", threads=1, passage_max_length=LENGTH, **heads)
    assert ours.dim == twin["dim"]
    for method in ("encode_queries", "encode_documents", "__call__"):
        mine, theirs = getattr(ours, method)(texts), twin[method]
        assert mine.keys() == theirs.keys() == {"dense", "sparse", "colbert_vecs"}
        for part in ("dense", "colbert_vecs"):
            assert isinstance(mine[part], list)
            for one, other in zip(mine[part], theirs[part], strict=True):
                assert (type(one), one.dtype, one.shape) == (np.ndarray, np.float32, other.shape)
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * max(1, np.abs(other).max()))
        assert isinstance(mine["sparse"], csr_array)
        arrays, shape = theirs["sparse"]
        assert mine["sparse"].shape == tuple(shape)
        assert abs(mine["sparse"] - csr_array(tuple(arrays), shape=shape)).max() < 1e-4
        assert list(mine["sparse"])[0].shape == mine["sparse"][0].shape == (1, 250002)  # noqa: RUF015 - as users write


# ------------------------------------------------------------------------------------------------------------ BGE-M3
def test_the_three_outputs_equal_the_reference(m3: M3, expected: HybridVectors) -> None:
    with m3.load() as encoder:
        assert encoder.manifest.family == "bge-m3"
        assert encoder.dim == encoder.get_embedding_dimension() == 32
        assert encoder.max_seq_length == LENGTH
        vectors = encoder.encode(VARIED, return_colbert_vecs=True)
        assert_equal(vectors, expected)
        assert isinstance(vectors.sparse, SparseVectors)
        assert isinstance(vectors.colbert, MultiVectors)
        assert vectors.colbert.dim == COLBERT
        assert vectors.sparse.values.max() > 0.5
        assert np.median(np.diff(vectors.sparse.indptr)) > 3
        assert len(vectors.sparse[298]) == 0  # of "" nothing is left but special tokens
        assert vectors.colbert[298].shape == (1, COLBERT)  # </s>
        assert vectors.colbert[299].shape == (LENGTH - 1, COLBERT)
        assert encoder.truncated >= 2


def test_queries_documents_and_blocks(m3: M3, expected: HybridVectors) -> None:
    with m3.load() as encoder:
        for encode in (encoder.encode_query, encoder.encode_document, encoder.encode_corpus):
            assert_equal(encode(VARIED[:30], return_colbert_vecs=True), cut(expected, 30))
        blocks = list(encoder.encode_iter(iter(VARIED[:30]), window=13, return_colbert_vecs=True))
        assert [len(block.dense) for block in blocks if block.dense is not None] == [13, 13, 4]
        assert_equal(blocks[0], cut(expected, 13))
        prompted = encoder.encode(VARIED[:3], prompt="a prompt ")
        assert_equal(prompted, encoder.encode([f"a prompt {text}" for text in VARIED[:3]]), 1e-5)


def cut(vectors: HybridVectors, count: int) -> HybridVectors:
    """The first rows."""
    assert vectors.dense is not None
    assert isinstance(vectors.sparse, SparseVectors)
    assert isinstance(vectors.colbert, MultiVectors)
    return HybridVectors(vectors.dense[:count], vectors.sparse[:count], vectors.colbert[:count])


@pytest.mark.parametrize(
    ("asked", "outputs"),
    [
        ({}, {"token_embeddings", "token_weights"}),
        ({"return_sparse": False}, {"token_embeddings"}),
        ({"return_dense": False}, {"token_weights"}),
        ({"return_dense": False, "return_sparse": False, "return_colbert_vecs": True}, {"colbert_vecs"}),
        ({"return_dense": False, "return_colbert_vecs": True}, {"token_weights", "colbert_vecs"}),
    ],
)
def test_what_is_not_asked_for_is_not_computed(
    asked: dict[str, bool], outputs: set[str], m3: M3, expected: HybridVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[set[str]] = []
    real = Session.run_all

    def watched(self: Session, ids: Any, names: Any) -> Any:
        wanted.append(set(names))
        return real(self, ids, names)

    with m3.load() as encoder:
        monkeypatch.setattr(Session, "run_all", watched)
        vectors = encoder.encode(VARIED[:9], **asked)  # type: ignore[arg-type]
    assert wanted
    assert all(names == outputs for names in wanted)
    assert (vectors.dense is not None) == asked.get("return_dense", True)
    assert (vectors.sparse is not None) == asked.get("return_sparse", True)
    assert (vectors.colbert is not None) == asked.get("return_colbert_vecs", False)
    if isinstance(vectors.colbert, MultiVectors):
        np.testing.assert_allclose(vectors.colbert.vectors, cut(expected, 9).colbert.vectors, atol=1e-4)  # type: ignore[union-attr]


@pytest.mark.parametrize("weights", [None, [0.4, 0.2, 0.4], [1, 0.3, 0], [0.5, 2.0, 1.0]])
def test_compute_score(weights: list[float] | None, m3: M3) -> None:
    lengths = {"max_query_length": LENGTH, "max_passage_length": LENGTH}
    given: Any = None if weights is None else list(weights)
    theirs = m3.oracle("compute_score", pairs=PAIRS, batch_size=1, weights_for_different_modes=given, **lengths)
    with m3.load() as encoder:
        scores = encoder.compute_score(PAIRS, weights_for_different_modes=weights)
        assert scores.keys() == theirs.keys()
        assert min(map(max, (scores["dense"], scores["colbert"], scores["sparse"]))) > 0.9
        for name, values in theirs.items():
            assert scores[name] == pytest.approx(values, rel=1e-5, abs=1e-4), name
        for pair in (PAIRS[3], PAIRS[-3]):
            one = encoder.compute_score(pair, weights_for_different_modes=weights)
            expected = m3.oracle("compute_score", pairs=pair, weights_for_different_modes=given, **lengths)
            assert one == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_pairs_and_weights_that_make_no_score(m3: M3) -> None:
    with m3.load() as encoder:
        assert encoder.compute_score([])["colbert"] == []
        with pytest.raises(trivec.InputError, match=r"expected pairs \(query, passage\), got 'abc' at index 1"):
            encoder.compute_score([("a", "b"), "abc"])  # type: ignore[list-item]
        with pytest.raises(trivec.InputError, match=r"expected pairs .* at index 0"):
            encoder.compute_score([("a", "b", "c")])  # type: ignore[list-item]
        for weights in ([1, 1], [0, 0, 1], [1, 1, -2]):
            with pytest.raises(trivec.InputError, match="expected three weights, for dense, sparse, colbert"):
                encoder.compute_score(PAIRS[0], weights_for_different_modes=weights)


def test_one_text_and_none(m3: M3, expected: HybridVectors) -> None:
    with m3.load() as encoder:
        one = encoder.encode(VARIED[5], return_colbert_vecs=True)
        assert one.dense is not None
        assert one.dense.shape == (32,)
        assert isinstance(one.sparse, SparseVector)
        assert isinstance(one.colbert, np.ndarray)
        many = HybridVectors(one.dense[None], SparseVectors.of(one.sparse), MultiVectors.from_arrays([one.colbert]))
        wanted = cut(expected, 6)
        assert isinstance(wanted.sparse, SparseVectors)
        assert isinstance(wanted.colbert, MultiVectors)
        assert_equal(many, HybridVectors(wanted.dense[5:], wanted.sparse[5:], wanted.colbert[5:]))  # type: ignore[index]
        assert encoder.token(next(iter(one.sparse.to_dict()))) in encoder_pieces(m3)
        none = encoder.encode([], return_colbert_vecs=True)
        assert none.dense is not None
        assert none.dense.shape == (0, 32)
        assert isinstance(none.sparse, SparseVectors)
        assert none.sparse.shape == (0, 250002)
        assert isinstance(none.colbert, MultiVectors)
        assert (len(none.colbert), none.colbert.dim) == (0, COLBERT)


def encoder_pieces(m3: M3) -> set[str]:
    return set(m3.oracle("tokens"))


def test_alone_and_in_a_batch(m3: M3) -> None:
    texts = VARIED[::15]
    with m3.load() as encoder:
        together = encoder.encode(texts, return_colbert_vecs=True)
        alone = [encoder.encode([text], return_colbert_vecs=True) for text in texts]
        joined = HybridVectors(
            np.concatenate([one.dense for one in alone if one.dense is not None]),
            SparseVectors.concatenate(one.sparse for one in alone if isinstance(one.sparse, SparseVectors)),
            MultiVectors.concatenate(one.colbert for one in alone if isinstance(one.colbert, MultiVectors)),
        )
        assert_equal(joined, together, 1e-5)
        assert_equal(encoder.encode(texts, return_colbert_vecs=True, batch_size=1), together, 1e-5)


def test_what_is_kept_of_sparse_rows(m3: M3) -> None:
    texts = VARIED[:40]
    with m3.load(max_active_dims=5) as encoder:
        assert encoder.max_active_dims == 5
        kept, every = encoder.encode(texts).sparse, encoder.encode(texts, max_active_dims=10**6).sparse
        above = encoder.encode(texts, max_active_dims=10**6, threshold=0.5).sparse
        assert isinstance(kept, SparseVectors)
        assert isinstance(every, SparseVectors)
        assert isinstance(above, SparseVectors)
        assert max(map(len, every)) > 5
        for row, whole in zip(kept, every, strict=True):
            np.testing.assert_array_equal(np.sort(row.values), np.sort(whole.values)[-5:])
            assert row.to_dict().items() <= whole.to_dict().items()
        assert above.equals(every.above(0.5))
        assert 0 < above.nnz < every.nnz
        plain = encoder.fingerprint
        assert len({plain, encoder.fingerprint_of(max_active_dims=6), encoder.fingerprint_of(threshold=0.5)}) == 3
    with m3.load() as encoder:
        assert encoder.fingerprint_of(max_active_dims=5) == plain != encoder.fingerprint


def test_a_pickle_gives_the_same_vectors(m3: M3) -> None:
    texts = VARIED[:20]
    with m3.load(max_active_dims=7, prompts={"query": "ask: "}) as encoder:
        encoder.max_seq_length = 30
        with pickle.loads(pickle.dumps(encoder)) as copy:
            assert isinstance(copy, HybridEncoder)
            assert copy.fingerprint == encoder.fingerprint
            assert (copy.max_seq_length, copy.max_active_dims) == (30, 7)
            ours, theirs = (e.encode_query(texts, return_colbert_vecs=True) for e in (copy, encoder))
            assert_equal(ours, theirs, 0)


def test_verify_passes_for_all_heads(m3: M3) -> None:
    checks = verify.verify(m3.folder, device="cpu", texts=verification_texts()[::5], threads=1)
    assert {check.head for check in checks if check.precision == "fp32"} == set(HEADS)
    assert not [(check.precision, check.head, check.failed) for check in checks if check.failed]
    assert "colbert" in verify.report(checks)


def test_every_variant_keeps_its_gates_or_is_refused(m3: M3) -> None:
    """The weights are random, so int8 may fail; what failed is named and not there, what is there has its figures."""
    with m3.load() as encoder:
        variants = encoder.manifest.encoders["main"].variants
        cuda = encoder.manifest.encoders["main"].cuda
    assert "fp32" in variants
    for precision in ("fp16", "int8"):
        assert (precision in variants) == (f"{precision} is not faithful to torch" not in m3.refused)
    for precision, variant in variants.items():
        assert variant.gate is not None
        assert variant.gate["status"] == ("emulated" if precision == "fp16" else "measured")
        heads = [variant.gate, *variant.gate["others"]]
        assert {entry["head"] for entry in heads} == {"dense", "sparse", "colbert"}
        for entry in heads:
            assert entry["cosine_min"] >= HEADS[entry["head"]][precision].cosine_min
    names = {path.name for path in (m3.folder / "onnx").iterdir()}
    suffixes = {"fp32": "", "fp16": "_fp16", "int8": "_int8"}
    graphs = {"model_fp16_cuda.onnx"} if "fp16" in variants else set()  # over the weights of fp16
    assert names == graphs | {f"model{suffixes[p]}.onnx{end}" for p in variants for end in ("", ".data")}
    assert (None if cuda is None else cuda.layout) == ("packed" if "fp16" in variants else None)
    if "int8" in variants:
        with m3.load(precision="int8") as encoder:
            texts = VARIED[::30]
            together = encoder.encode(texts, return_colbert_vecs=True)
            assert_equal(cut(encoder.encode(texts[:1], return_colbert_vecs=True), 1), cut(together, 1), 1e-5)


def test_texts_of_all_lengths_in_one_run(
    m3: M3, expected: HybridVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "fp16 is not faithful" in m3.refused:
        pytest.fail(f"the random model's fp16 has to pass for this: {m3.refused}")
    encoder = mixed_on_cpu(m3.folder, tmp_path, monkeypatch)
    assert encoder._open()["default"].session.layout == "packed"
    rows = np.arange(0, len(VARIED), 6)
    texts = [VARIED[row] for row in rows]
    found = encoder.encode(texts, return_dense=True, return_sparse=True, return_colbert_vecs=True)
    assert isinstance(expected.sparse, SparseVectors)
    assert isinstance(expected.colbert, MultiVectors)
    assert expected.dense is not None
    assert_equal(found, HybridVectors(expected.dense[rows], expected.sparse[rows], expected.colbert[rows]), 5e-3)


# -------------------------------------------------------------------------------------------------------------- mGTE
GTE = {**MULTILINGUAL, "vocab_size": 300, "max_position_embeddings": 64}
GTE["architectures"] = ["NewModel", "NewForTokenClassification"]


@pytest.fixture(scope="module", params=["new", "gte"])
def mgte(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint in the published layout, or as transformers saves its own; and its export."""
    work = tmp_path_factory.mktemp(f"mgte-{request.param}")
    checkpoint = write(work / "published", GTE, draw(GTE, "classifier"))
    if request.param == "gte":
        convert(checkpoint, work / "converted")
        model = hf.GteForTokenClassification.from_pretrained(work / "converted", dtype=torch.float32)
        checkpoint = work / "native"
        model.save_pretrained(checkpoint)
    assert json.loads((checkpoint / "config.json").read_text())["model_type"] == request.param
    tokenizer = made.small_tokenizer("roberta", work / "tokenizer")
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(checkpoint)
    made.cls_modules(checkpoint, GTE["hidden_size"], 64)
    return checkpoint, trivec.export(checkpoint, work / "model", precision=("fp32",), max_texts=64, quiet=True)


def published(checkpoint: Path, texts: list[str]) -> HybridVectors:
    """The published code's states, with what gte_embedding.py of gte-multilingual-base makes of them."""
    tokenizer = hf.AutoTokenizer.from_pretrained(checkpoint)
    reference = Published(draw(GTE, "classifier"), GTE)
    left_out = {tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    dense, sparse = [], []
    for text in texts:
        ids = torch.tensor([tokenizer(text, truncation=True, max_length=64)["input_ids"]])  # (1, S)
        states = reference.states(ids, torch.ones_like(ids))  # (1, S, H)
        dense.append(torch.nn.functional.normalize(states[0, 0], dim=0).numpy())
        row: dict[int, float] = {}
        for token, weight in zip(ids[0].tolist(), reference.token_logits(states)[0, :, 0].relu().tolist(), strict=True):
            if token not in left_out and weight > 0:
                row[token] = max(weight, row.get(token, 0.0))
        sparse.append(row)
    return HybridVectors(np.stack(dense), SparseVectors.from_dicts(sparse, 300), None)


def test_mgte_equals_the_published_code(mgte: tuple[Path, Path], texts: list[str]) -> None:
    checkpoint, folder = mgte
    with load(folder) as encoder:
        assert encoder.manifest.family == "mgte"
        assert encoder.max_seq_length == 64
        vectors, theirs = encoder.encode(texts), published(checkpoint, texts)
        assert isinstance(theirs.sparse, SparseVectors)
        assert theirs.sparse.values.max() > 0.5
        assert_equal(vectors, theirs)
        assert vectors.colbert is None
        alone = encoder.encode(texts[40])
        assert isinstance(vectors.sparse, SparseVectors)
        assert isinstance(alone.sparse, SparseVector)
        np.testing.assert_allclose(alone.sparse.to_dense(), vectors.sparse[40].to_dense(), rtol=0, atol=1e-5)


def test_mgte_has_no_colbert_head(mgte: tuple[Path, Path]) -> None:
    with load(mgte[1]) as encoder:
        with pytest.raises(trivec.InputError, match="this model has no ColBERT head"):
            encoder.encode("a", return_colbert_vecs=True)
        scores = encoder.compute_score([("a dog", "a cat"), ("a dog", "a dog")], weights_for_different_modes=[1, 3, 9])
        assert scores.keys() == {"dense", "sparse", "sparse+dense"}
        mixed = [(d + 3 * s) / 4 for d, s in zip(scores["dense"], scores["sparse"], strict=True)]
        assert scores["sparse+dense"] == pytest.approx(mixed, rel=1e-5)
        assert scores["dense"][1] == pytest.approx(1, abs=1e-5)


def test_the_milvus_function_equals_the_published_code(mgte: tuple[Path, Path], texts: list[str]) -> None:
    """The twin loads the model through remote code, which is not at hand."""
    checkpoint, folder = mgte
    some = texts[::6]
    wanted = published(checkpoint, some)
    assert wanted.dense is not None
    assert isinstance(wanted.sparse, SparseVectors)
    ours = milvus.MGTEEmbeddingFunction(folder, threads=1)
    whole = wanted.dense.shape[1]
    assert ours.dim == {"dense": whole, "sparse": 300}
    for method in (ours.encode_queries, ours.encode_documents, ours):
        found = method(some)
        assert found.keys() == {"dense", "sparse"}
        np.testing.assert_allclose(np.stack(found["dense"]), wanted.dense, rtol=0, atol=1e-4)
        assert abs(found["sparse"] - wanted.sparse.to_scipy()).max() < 1e-4
    short = milvus.MGTEEmbeddingFunction(folder, threads=1, dimensions=20, return_sparse=False)
    assert short.dim == {"dense": 20, "sparse": 300}
    cut = wanted.dense[:, :20] / np.linalg.norm(wanted.dense[:, :20], axis=1, keepdims=True)
    found = short.encode_documents(some)
    assert found.keys() == {"dense"}
    np.testing.assert_allclose(np.stack(found["dense"]), cut, rtol=0, atol=1e-4)
    raw = milvus.MGTEEmbeddingFunction(folder, threads=1, dimension=20, normalize_embeddings=False)
    lengths = np.linalg.norm(np.stack(raw.encode_documents(some)["dense"]), axis=1)
    assert np.abs(lengths - 1).max() > 0.1
    for wrong in (0, whole + 1, 1.5):
        with pytest.raises(trivec.InputError, match=f"dimensions must be between 1 and {whole}, got"):
            milvus.MGTEEmbeddingFunction(folder, dimensions=wrong)  # type: ignore[arg-type]
