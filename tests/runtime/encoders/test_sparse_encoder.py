"""SparseEncoder and HybridEncoder on tiny graphs whose outputs are rows of tables that the tests know."""

import asyncio
import dataclasses
import json
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.tiny_heads import (
    LIMIT,
    PROMPTS,
    TERMS,
    Floats,
    Tiny,
    hybrid,
    random_logits,
    random_weights,
    save,
    splade,
    unit,
)
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, ModelFormatError, NonFiniteError, TruncationError
from trivec._cli.main import main
from trivec._encoders import pipeline
from trivec._encoders.hybrid import HybridEncoder
from trivec._encoders.sparse import SparseEncoder
from trivec._model import manifest_file
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVector, SparseVectors

TEXTS = [
    "the cat sat on the mat",
    "",
    "A small RED boat",
    "un mot inconnu",
    "dog " * 40,
    "a",
    "blue river under the old tree",
    "cat",
    "bird bird bird",
    "house on the hill",
    "ran",
    "the cat sat on the mat under the old tree on a hill by the river",
]


@pytest.fixture(scope="module")
def tiny(tiny_model: "TinyModel", tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Random logits and weights. Not to be changed."""
    return splade(tmp_path_factory.mktemp("splade") / "model", tiny_model, random_logits(), random_weights())


def load(folder: Path, **options: Any) -> SparseEncoder:
    encoder = trivec.load(folder, **{"device": "cpu", "threads": 1, **options})
    assert isinstance(encoder, SparseEncoder)
    return encoder


# ------------------------------------------------------------------------------------------------------ by hand
def test_documents_by_hand(tiny_model: "TinyModel", tmp_path: Path) -> None:
    """log1p of the greatest logit above 0, whichever token it comes from; [CLS] and [SEP] count."""
    words = {word: tiny_model.ids(word)[1] for word in ("cat", "dog", "mat", "sat", "hill")}
    logits = np.full((TERMS, TERMS), -1.0, np.float32)
    logits[words["cat"], words["dog"]] = 2.0
    logits[words["sat"], words["dog"]] = 3.0
    logits[words["sat"], words["mat"]] = 0.5
    logits[words["mat"], words["mat"]] = 0.0
    logits[2, words["hill"]] = 1.0  # [CLS]
    made = splade(tmp_path / "model", tiny_model, logits, np.ones(TERMS, np.float32))
    with load(made.folder) as encoder:
        rows = encoder.encode(["cat", "cat sat", "mat", "sat"])
        assert [dict(encoder.decode(row)) for row in rows] == [
            pytest.approx({"dog": math.log(3), "hill": math.log(2)}),
            pytest.approx({"dog": math.log(4), "mat": math.log(1.5), "hill": math.log(2)}),
            pytest.approx({"hill": math.log(2)}),
            pytest.approx({"dog": math.log(4), "mat": math.log(1.5), "hill": math.log(2)}),
        ]
        assert [token for token, _ in encoder.decode(rows[1])] == ["dog", "hill", "mat"]
        assert encoder.decode(rows, top_k=1)[0] == [("dog", pytest.approx(math.log(3)))]
        assert rows.indices.dtype == np.int32
        assert rows.values.dtype == np.float32
        kept = encoder.encode(["cat sat"], threshold=math.log(2))
        assert kept.to_dicts() == [pytest.approx({words["dog"]: math.log(4)})]


def test_queries_by_hand(tiny_model: "TinyModel", tmp_path: Path) -> None:
    """The weight of each token once, without special tokens; the prompt's tokens are tokens too."""
    ids = {word: tiny_model.ids(word)[1] for word in ("cat", "dog", "mat", "find", "the")}
    weights = np.full(TERMS, 9.0, np.float32)
    weights[[ids["cat"], ids["dog"], ids["mat"], ids["find"], ids["the"]]] = [1.5, -0.5, 0.0, 0.25, 0.125]
    made = splade(tmp_path / "model", tiny_model, random_logits(), weights)
    with load(made.folder) as encoder:
        assert encoder.encode_query(["cat dog cat mat", "", "mat"], prompt="").to_dicts() == [
            {ids["cat"]: 1.5, ids["dog"]: -0.5},
            {},
            {},
        ]
        prompted = {ids["find"]: 0.25, ids["the"]: 0.125, ids["cat"]: 1.5}
        assert encoder.encode_query("cat").to_dict() == prompted
        assert encoder.encode("cat", task="query", prompt_name="query").to_dict() == prompted
        assert encoder.encode("cat", task="query").to_dict() == {ids["cat"]: 1.5}
        assert encoder.encode_query(["dog mat cat"], prompt="", max_active_dims=1).to_dicts() == [{ids["cat"]: 1.5}]
        assert encoder.encode_query(["dog mat cat"], prompt="", threshold=0.1).to_dicts() == [{ids["cat"]: 1.5}]
        unknown = encoder.encode_query("supercalifragilistic", prompt="")
        assert unknown.to_dict() == {1: 9.0}  # [UNK] has a weight in the table, and is a token like any other


def test_equal_weights_are_kept_by_lower_index(tiny_model: "TinyModel", tmp_path: Path) -> None:
    flat = np.ones((TERMS, TERMS), np.float32)
    made = splade(tmp_path / "model", tiny_model, flat, np.ones(TERMS, np.float32), max_active_dims=4)
    with load(made.folder) as encoder:
        assert encoder.max_active_dims == 4
        assert encoder.encode("cat").indices.tolist() == [0, 1, 2, 3]
        assert encoder.encode("cat", max_active_dims=2).indices.tolist() == [0, 1]
        assert len(encoder.encode("cat", max_active_dims=TERMS)) == TERMS


@pytest.mark.parametrize("activation", ["relu", "log1p_relu", "none"])
def test_activations(activation: str, tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "copy"))
    manifest = manifest_file.read(folder)
    document = manifest.routes["document"]
    assert document.sparse is not None
    changed = dataclasses.replace(document, sparse=dataclasses.replace(document.sparse, activation=activation))
    save(folder, dataclasses.replace(manifest, routes={**manifest.routes, "document": changed}))
    functions: dict[str, Callable[[Floats], Floats]] = {
        "relu": np.log1p,
        "log1p_relu": lambda x: np.log1p(np.log1p(x)),
        "none": lambda x: x,
    }
    with load(folder) as encoder:
        positive = np.maximum(tiny.pooled(TEXTS), 0)
        np.testing.assert_allclose(encoder.encode(TEXTS).to_dense(), functions[activation](positive), rtol=1e-6)


# ------------------------------------------------------------------------------------------------------ many texts
@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("rows_a_run", [1, 3, 10**6])
def test_rows_keep_their_order(batch_size: int, rows_a_run: int, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts run in groups of one length, and of so many rows that the pooled numbers stay within bounds."""
    monkeypatch.setattr(pipeline, "_ROW_NUMBERS", rows_a_run * TERMS)
    texts = [TEXTS[i] for i in np.random.default_rng(9).integers(0, len(TEXTS), 150)]
    with load(tiny.folder) as encoder:
        rows = encoder.encode(texts, batch_size=batch_size)
        assert isinstance(rows, SparseVectors)
        assert rows.shape == (150, TERMS)
        np.testing.assert_allclose(rows.to_dense(), tiny.expected(texts), rtol=1e-6)
        assert (np.diff(rows.indptr) > 0).all()
        queries = encoder.encode_query(texts, batch_size=batch_size, prompt="")
        weights = random_weights()
        for text, row in zip(texts, queries, strict=True):
            found = {tiny.term(word) for word in text.split()}  # however long: the table's tokenizer has no limit
            assert row.to_dict() == {i: float(weights[i]) for i in sorted(found)}


def test_kinds_of_input(tiny: Tiny) -> None:
    with load(tiny.folder) as encoder:
        rows = encoder.encode(TEXTS)
        for given in (tuple(TEXTS), np.array(TEXTS), iter(TEXTS), (text for text in TEXTS)):
            assert encoder.encode(given).equals(rows)
        assert encoder.encode(sentences=TEXTS).equals(rows)
        one = encoder.encode(TEXTS[2])
        assert isinstance(one, SparseVector)
        assert one == rows[2] == encoder.encode([TEXTS[2]])[0]
        for task in ("query", "document"):
            assert encoder.encode([], task=task).shape == (0, TERMS)
        assert asyncio.run(encoder.aencode(TEXTS, task="document")).equals(rows)
        assert [len(block) for block in encoder.encode_iter(TEXTS, window=5)] == [5, 5, 2]
        assert SparseVectors.concatenate(encoder.encode_iter(iter(TEXTS), window=5)).equals(rows)
        assert list(encoder.encode_iter([])) == []
        assert encoder.encode_documents(TEXTS).equals(rows)
        assert encoder.encode_queries(TEXTS).equals(encoder.encode_query(TEXTS))


def test_products(tiny: Tiny) -> None:
    with load(tiny.folder) as encoder:
        queries, documents = encoder.encode_query(TEXTS), encoder.encode_document(TEXTS)
        a, b = queries.to_dense().astype(np.float64), documents.to_dense().astype(np.float64)
        np.testing.assert_allclose(encoder.similarity(queries, documents), a @ b.T, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(encoder.similarity_pairwise(queries, documents), (a * b).sum(1), rtol=1e-6)
        np.testing.assert_allclose(encoder.similarity(queries[0], documents), a[:1] @ b.T, rtol=1e-6, atol=1e-6)
        with pytest.raises(InputError, match="similarity_fn_name 'jaccard' is not one of cosine, dot"):
            encoder.similarity_fn_name = "jaccard"


# ------------------------------------------------------------------------------------------------- what goes wrong
@pytest.mark.parametrize(("pool", "wrong"), [("ReduceMax", np.inf), ("ReduceSum", np.nan)])
def test_a_weight_that_is_not_finite_names_its_text(
    pool: str, wrong: float, tiny_model: "TinyModel", tmp_path: Path
) -> None:
    logits = random_logits()
    logits[tiny_model.ids("hill")[1], 5] = wrong
    made = splade(tmp_path / "model", tiny_model, logits, random_weights(), pool=pool)
    with load(made.folder) as encoder:
        with pytest.raises(NonFiniteError, match=r"2 of 12 vectors .* at index 9: 'house on the hill'"):
            encoder.encode(TEXTS)
        assert len(encoder.encode(TEXTS[:9])) == 9
        with pytest.raises(NonFiniteError, match=r"in the block that starts at text 7: .* at index 2: 'house on"):
            list(encoder.encode_iter(TEXTS, window=7))
        assert len(encoder.encode_query(TEXTS)) == 12  # the table has no such weight


def test_texts_that_are_cut(tiny: Tiny) -> None:
    with load(tiny.folder) as encoder:
        assert encoder.truncated == 0
        encoder.encode(TEXTS)
        assert encoder.truncated == 2
        with pytest.raises(TruncationError, match=r"2 of 12 texts are longer than 16 tokens, the first at index 4"):
            encoder.encode(TEXTS, on_overflow="error")
        assert encoder.truncated == 2
        encoder.encode(TEXTS[:3], on_overflow="error")
        with pytest.raises(TruncationError, match="1 of 1 texts"):
            encoder.encode("cat", prompt_name="long", on_overflow="error")
        encoder.encode_query(TEXTS, on_overflow="error")  # the table's tokenizer has no limit
        np.testing.assert_array_equal(encoder.encode("dog " * 40).to_dense(), encoder.encode("dog " * 14).to_dense())
        encoder.max_seq_length = 4
        np.testing.assert_array_equal(encoder.encode("dog cat hill").to_dense(), encoder.encode("dog cat").to_dense())
        with pytest.raises(InputError, match="on_overflow 'ignore' is not one of"):
            encoder.encode("a", on_overflow="ignore")  # type: ignore[call-overload]


BAD_COUNTS: list[Any] = [0, -1, True, 2.5, "8", np.int64(0), math.nan]


@pytest.mark.parametrize("count", BAD_COUNTS)
def test_counts_that_are_no_counts(count: Any, tiny: Tiny) -> None:
    told = r"max_active_dims must be a whole number above 0, or None to keep all, got "
    with pytest.raises(InputError, match=told):
        load(tiny.folder, max_active_dims=count)
    with load(tiny.folder) as encoder:
        for encode in (encoder.encode, encoder.encode_query, encoder.encode_document):
            with pytest.raises(InputError, match=told):
                encode(TEXTS, max_active_dims=count)
        assert encoder.truncated == 0
        assert len(encoder.encode("cat", max_active_dims=np.int32(2))) == 2  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -0.1}, r"threshold must be a number of at least 0, got -0\.1"),
        ({"threshold": math.nan}, "threshold must be a number of at least 0, got nan"),
        ({"threshold": "0.1"}, r"threshold must be a number of at least 0, got '0\.1'"),
        ({"threshold": None}, "threshold must be a number of at least 0, got None"),
        ({"task": "passage"}, r"task 'passage' is no route of this model\. Expected one of \['document', 'query'\]"),
        ({"prompt_name": "nope"}, "prompt_name 'nope' is none of this model's prompts"),
        ({"prompt": 3}, "prompt must be a string, got int"),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"device": "cuda"}, "this encoder runs on cpu, not 'cuda'"),
        ({"device": ["tpu"]}, "device 'tpu' is not known"),
        ({"pool": {}}, "pool must come from start_multi_process_pool"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str, tiny: Tiny) -> None:
    with load(tiny.folder) as encoder, pytest.raises(InputError, match=message):
        encoder.encode(TEXTS, **options)


def test_what_is_no_text(tiny: Tiny) -> None:
    with load(tiny.folder) as encoder:
        for wrong, message in ((["a", None], "got NoneType at index 1"), (["a", "b", b"c"], "got bytes at index 2")):
            with pytest.raises(InputError, match=message):
                encoder.encode(wrong)  # type: ignore[arg-type]
            with pytest.raises(InputError, match=message):
                encoder.encode_query(wrong)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="lone surrogate"):
            encoder.encode_query(["a", "\ud800"])
        with pytest.raises(InputError, match="got one text"):
            encoder.encode_iter("one text")
    with pytest.raises(InputError, match="this encoder is closed"):
        encoder.encode("a")


def test_options_of_dense_models_are_refused(tiny: Tiny, tiny_model: "TinyModel") -> None:
    with pytest.raises(InputError, match="truncate_dim is for models of dense vectors alone; sparse rows: see max_act"):
        load(tiny.folder, truncate_dim=8)
    with pytest.raises(InputError, match="max_active_dims"):
        trivec.load(tiny_model.folder, device="cpu", max_active_dims=8)


def test_folders_whose_parts_do_not_fit(tiny: Tiny, tmp_path: Path) -> None:
    def changed(name: str, arrays: dict[str, Floats] | None = None, **changes: Any) -> Path:
        folder = Path(shutil.copytree(tiny.folder, tmp_path / name))
        save(folder, dataclasses.replace(manifest_file.read(folder), **changes), arrays)
        return folder

    with pytest.raises(ModelFormatError, match=r"query.weights has the shape \(23,\); the manifest has it as \(24\)"):
        load(changed("short", {"query.weights": random_weights()[1:]}))
    with pytest.raises(ModelFormatError, match="route query gives 0 numbers, not 24"):
        load(changed("missing", {"other": random_weights()}))
    with pytest.raises(ModelFormatError, match="gives 24 numbers, not 25"):
        load(changed("wide", dim=25))


# ----------------------------------------------------------------------------------------------- settings, pickles
def test_settings_and_repr(tiny: Tiny) -> None:
    with load(tiny.folder, prompts={"mine": "m "}, default_prompt_name="mine", max_active_dims=3) as encoder:
        assert encoder.prompts == {**PROMPTS, "mine": "m "}
        assert (encoder.dim, encoder.get_embedding_dimension(), encoder.max_seq_length) == (TERMS, TERMS, LIMIT)
        assert encoder.similarity_fn_name == "dot"
        assert repr(encoder) == f"SparseEncoder({str(tiny.folder)!r}, dim=24, fp32, cpu)"
        assert encoder.encode("cat").to_dict() == encoder.encode("m cat", prompt="").to_dict()
        assert encoder.tokenize("cat", task="query") == [[tiny.term("cat")]]
        assert encoder.tokenize("cat", task="document") == [tiny.ids("cat")]
        copy = pickle.loads(pickle.dumps(encoder))
        assert copy.fingerprint == encoder.fingerprint
        assert copy.encode(TEXTS).equals(encoder.encode(TEXTS))
        assert max(map(len, copy.encode(TEXTS))) == 3
    assert "closed" in repr(encoder)


def test_fingerprints(tiny: Tiny, tiny_model: "TinyModel", tmp_path: Path) -> None:
    weights = random_weights()
    weights[5] += 1
    other = splade(tmp_path / "model", tiny_model, random_logits(), weights)
    with load(tiny.folder) as encoder, load(other.folder) as changed:
        found = {
            (task, threshold, count, prompt): encoder.fingerprint_of(
                task=task, threshold=threshold, max_active_dims=count, prompt=prompt
            )
            for task in ("query", "document")
            for threshold in (0.0, 0.5)
            for count in (None, 8, 9)
            for prompt in (None, "a")
        }
        assert len({*found.values()}) == len(found)
        assert encoder.fingerprint == found["document", 0.0, None, None]
        assert changed.fingerprint_of(task="query") != encoder.fingerprint_of(task="query")
        encoder.max_seq_length = 7
        assert encoder.fingerprint != found["document", 0.0, None, None]
    with load(tiny.folder, max_active_dims=8) as encoder:
        assert encoder.fingerprint == found["document", 0.0, 8, None]


def test_queries_alone_need_no_graph(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "queries"))
    shutil.rmtree(folder / "onnx")
    (folder / "tokenizer.json").unlink()
    with load(tiny.folder) as both, load(folder, task="query") as encoder:
        assert encoder.device == "cpu"
        assert encoder.encode_query(TEXTS).equals(both.encode_query(TEXTS))
        assert encoder.encode(TEXTS, prompt_name="query").equals(both.encode_query(TEXTS))
        assert encoder.fingerprint == both.fingerprint_of(task="query")
        assert pickle.loads(pickle.dumps(encoder)).encode(TEXTS).equals(encoder.encode(TEXTS))


# ---------------------------------------------------------------------------------------------------- HybridEncoder
@pytest.fixture(scope="module")
def several(tiny_model: "TinyModel", tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return hybrid(tmp_path_factory.mktemp("hybrid") / "model", tiny_model)


def load_hybrid(folder: Path, **options: Any) -> HybridEncoder:
    encoder = trivec.load(folder, **{"device": "cpu", "threads": 1, **options})
    assert isinstance(encoder, HybridEncoder)
    return encoder


def test_the_three_outputs_by_hand(several: Tiny) -> None:
    with load_hybrid(several.folder) as encoder:
        for batch_size in (1, 32):
            vectors = encoder.encode(TEXTS, return_colbert_vecs=True, batch_size=batch_size)
            ids = [several.ids(text) for text in TEXTS]
            tables = several.tables
            assert vectors.dense is not None
            np.testing.assert_allclose(vectors.dense, unit(tables["token_embeddings"][[2] * len(ids)]), rtol=1e-5)
            assert isinstance(vectors.sparse, SparseVectors)
            weights = {i: float(weight) for i, weight in enumerate(tables["token_weights"]) if i > 3 and weight > 0}
            assert vectors.sparse.to_dicts() == [{i: weights[i] for i in sorted(weights.keys() & row)} for row in ids]
            assert isinstance(vectors.colbert, MultiVectors)
            assert len(vectors.colbert) == len(TEXTS)
            for row, found in zip(ids, vectors.colbert, strict=True):
                np.testing.assert_allclose(found, unit(tables["colbert_vecs"][row[1:]]), rtol=1e-5)


def test_scores_by_hand(several: Tiny) -> None:
    pairs = [("the cat", "a cat on the mat"), ("blue boat", "the dog"), ("", "")]
    with load_hybrid(several.folder) as encoder:
        a, b = (encoder.encode([pair[side] for pair in pairs], return_colbert_vecs=True) for side in (0, 1))
        scores = encoder.compute_score(pairs, weights_for_different_modes=[1, 2, 5])
        for wrong in (zip(("a",), ("b",), strict=True), {("a", "b"), ("c", "d")}, {"a": "b", "c": "d"}):
            with pytest.raises(InputError, match=r"expected a list of pairs .*Type: list\(zip\(queries, passages\)\)"):
                encoder.compute_score(wrong)  # type: ignore[arg-type]
        assert encoder.compute_score(pairs[1], weights_for_different_modes=[1, 2, 5]) == {
            name: pytest.approx(values[1], abs=1e-6) for name, values in scores.items()
        }
    assert isinstance(a.sparse, SparseVectors)
    assert isinstance(b.sparse, SparseVectors)
    assert isinstance(a.colbert, MultiVectors)
    assert isinstance(b.colbert, MultiVectors)
    assert a.dense is not None
    assert b.dense is not None
    dense = (a.dense * b.dense).sum(1)
    sparse = (a.sparse.to_dense() * b.sparse.to_dense()).sum(1)
    colbert = np.array([(x @ y.T).max(1).mean() for x, y in zip(a.colbert, b.colbert, strict=True)])
    expected = {
        "dense": dense,
        "sparse": sparse,
        "colbert": colbert,
        "sparse+dense": (dense + 2 * sparse) / 3,
        "colbert+sparse+dense": (dense + 2 * sparse + 5 * colbert) / 8,
    }
    assert scores.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["token_embeddings", "token_weights", "colbert_vecs"])
def test_each_output_that_is_not_finite_names_its_text(name: str, tiny_model: "TinyModel", tmp_path: Path) -> None:
    """What was not asked for is not computed, and does not raise."""
    source = hybrid(tmp_path / "source", tiny_model)
    table = source.tables[name].copy()
    place = 2 if name == "token_embeddings" else tiny_model.ids("hill")[1]  # dense is [CLS], which every text has
    table[place] = np.nan
    made = hybrid(tmp_path / "model", tiny_model, **{name: table})
    flags = {
        "token_embeddings": "return_dense",
        "token_weights": "return_sparse",
        "colbert_vecs": "return_colbert_vecs",
    }
    index = 0 if name == "token_embeddings" else 9
    with load_hybrid(made.folder) as encoder:
        with pytest.raises(NonFiniteError, match=f"NaN or infinite, the first that of the text at index {index}:"):
            encoder.encode(TEXTS, return_colbert_vecs=True)
        others = {flag: flag != flags[name] for flag in flags.values()}
        assert isinstance(encoder.encode(TEXTS, **others), HybridVectors)  # type: ignore[arg-type]


def test_what_a_hybrid_encoder_refuses(several: Tiny, tiny_model: "TinyModel", tmp_path: Path) -> None:
    with load_hybrid(several.folder) as encoder:
        with pytest.raises(InputError, match="nothing is asked for: set return_dense"):
            encoder.encode("a", return_dense=False, return_sparse=False)
        for count in BAD_COUNTS:
            with pytest.raises(InputError, match="max_active_dims must be a whole number above 0"):
                encoder.encode("a", max_active_dims=count)
        with pytest.raises(InputError, match="threshold must be a number of at least 0, got -1"):
            encoder.encode("a", threshold=-1)
        with pytest.raises(TruncationError, match="2 of 12 texts are longer than 16 tokens, the first at index 4"):
            encoder.encode(TEXTS, on_overflow="error")
        assert repr(encoder) == f"HybridEncoder({str(several.folder)!r}, dim=5, fp32, cpu)"
    with pytest.raises(InputError, match="truncate_dim is for models of dense vectors alone"):
        load_hybrid(several.folder, truncate_dim=2)
    with pytest.raises(InputError, match="max_active_dims must be a whole number above 0"):
        load_hybrid(several.folder, max_active_dims=0)
    folder = Path(shutil.copytree(several.folder, tmp_path / "copy"))
    manifest = manifest_file.read(folder)
    route = dataclasses.replace(manifest.routes["default"], multi=None)
    save(folder, dataclasses.replace(manifest, family="mgte", routes={"default": route}))
    with load_hybrid(folder) as encoder:
        assert encoder.encode("a").colbert is None
        with pytest.raises(InputError, match="this model has no ColBERT head: leave return_colbert_vecs at False"):
            encoder.encode("a", return_colbert_vecs=True)
        assert encoder.compute_score([("a", "a")]).keys() == {"dense", "sparse", "sparse+dense"}


# ---- the command line ------------------------------------------------------------------------------------------------


def test_encode_writes_sparse_rows(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text("\n".join(json.dumps(text) for text in TEXTS), encoding="utf-8")
    expected = load(tiny.folder).encode_document(TEXTS, max_active_dims=5)
    command = ["encode", str(tiny.folder), str(source), "--task", "document", "--max-active-dims", "5", "-o"]
    assert main([*command, str(tmp_path / "rows.npz")]) == 0
    assert SparseVectors.load(tmp_path / "rows.npz").equals(expected)
    assert main([*command, str(tmp_path / "rows.jsonl")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["text"] for line in lines] == TEXTS
    assert SparseVectors.from_dicts([line["sparse"] for line in lines], TERMS).equals(expected)
    assert main([*command, str(tmp_path / "rows.npy")]) == 1
    assert "a .npy file does not hold sparse vectors. Write .npz, .jsonl or .parquet." in capsys.readouterr().err
    assert main([*command, str(tmp_path / "other.npz"), "--truncate-dim", "3"]) == 1
    assert "--truncate-dim: for models of dense vectors alone" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["rows.jsonl", "rows.npz", "texts.jsonl"]


def test_encode_writes_hybrid_lines(several: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "texts.txt"
    source.write_text("the cat\na small boat\n", encoding="utf-8")
    assert main(["encode", str(several.folder), str(source), "-o", str(tmp_path / "out.jsonl")]) == 0
    expected = load_hybrid(several.folder).encode(["the cat", "a small boat"])
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert expected.dense is not None
    made = np.array([line["embedding"] for line in lines], dtype=np.float32)
    np.testing.assert_array_equal(made, expected.dense)
    assert isinstance(expected.sparse, SparseVectors)
    assert SparseVectors.from_dicts([line["sparse"] for line in lines], TERMS).equals(expected.sparse)
    assert main(["encode", str(several.folder), str(source), "-o", str(tmp_path / "out.npz")]) == 1
    assert "a .npz file does not hold hybrid vectors. Write .jsonl or .parquet." in capsys.readouterr().err


def test_similarity_and_info(tiny: Tiny, several: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    with load(tiny.folder) as encoder:
        rows = encoder.encode(["the cat", "a cat"])
        expected = float(encoder.similarity(rows[0], rows[1])[0, 0])
    assert main(["similarity", str(tiny.folder), "the cat", "a cat"]) == 0
    assert float(capsys.readouterr().out) == pytest.approx(expected, abs=1e-4)
    score = load_hybrid(several.folder).compute_score(("the cat", "a cat"))["sparse+dense"]
    assert main(["similarity", str(several.folder), "the cat", "a cat"]) == 0
    assert float(capsys.readouterr().out) == pytest.approx(score, abs=1e-4)
    assert main(["info", str(tiny.folder)]) == 0
    out = capsys.readouterr().out
    assert f"splade of {TERMS} terms" in out
    assert f"table of {TERMS} terms" in out
    assert main(["info", str(several.folder)]) == 0
    assert "a vector of" in capsys.readouterr().out
