"""What callers of sentence-transformers and of FlagEmbedding's BGE-M3 find here under the names that they know."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sentence_transformers import SentenceTransformer
from sentence_transformers import SparseEncoder as TheirSparseEncoder
from sentence_transformers import util as reference
from sentence_transformers.util import SimilarityFunction
from tests.support.static_models import model2vec_folder
from tests.support.tiny_heads import TERMS, hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import DIM, TinyModel
from tokenizers import Tokenizer

import trivec
from trivec import DenseEncoder, HybridEncoder, InputError, SparseEncoder, SparseVector, SparseVectors, TruncationError
from trivec._vectors.heads import record_of
from trivec._vectors.torch_tensors import as_sparse_tensor

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch, of its own sparse tensors
TEXTS = ["a blue bird on the river", "the old house", "", "dog ran under a tree", "red cat"]
KINDS = ("dense", "static", "sparse", "hybrid")


@pytest.fixture(scope="module")
def folders(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind. Not to be changed."""
    work = tmp_path_factory.mktemp("kinds")
    return {
        "dense": tiny_model.folder,
        "static": model2vec_folder(work / "static"),
        "sparse": splade(work / "sparse", tiny_model, random_logits(), random_weights()).folder,
        "hybrid": hybrid(work / "hybrid", tiny_model).folder,
    }


@pytest.fixture(params=KINDS)
def encoder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Any:
    """An encoder of each kind."""
    return trivec.load(folders[request.param], device="cpu", threads=1)


@pytest.fixture
def dense(folders: dict[str, Path]) -> DenseEncoder:
    found: DenseEncoder = trivec.load(folders["dense"], device="cpu", threads=1)
    return found


@pytest.fixture
def sparse(folders: dict[str, Path]) -> SparseEncoder:
    found: SparseEncoder = trivec.load(folders["sparse"], device="cpu", threads=1)
    return found


@pytest.fixture
def m3(folders: dict[str, Path]) -> HybridEncoder:
    found: HybridEncoder = trivec.load(folders["hybrid"], device="cpu", threads=1)
    return found


def randoms(*shape: int, seed: int = 5) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ---- similarity ------------------------------------------------------------------------------------------------------

MAKE: dict[str, Callable[[Any], Any]] = {
    "array": lambda rows: rows,
    "doubles": lambda rows: rows.astype(np.float64),
    "list of arrays": list,
    "column of arrays": lambda rows: np.array([*rows, None], dtype=object)[:-1],
    "tensor": torch.from_numpy,
    "gradients": lambda rows: torch.from_numpy(rows).requires_grad_(),
    "list of tensors": lambda rows: list(torch.from_numpy(rows)),
    "sparse tensor": lambda rows: torch.from_numpy(rows).to_sparse(),
}


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
@pytest.mark.parametrize("kind", MAKE)
def test_similarity_of_any_vectors(encoder: Any, name: str, kind: str) -> None:
    """A tensor where one came, an array otherwise; the numbers are those of sentence-transformers."""
    a, b = randoms(4, 9), randoms(4, 9, seed=6)
    encoder.similarity_fn_name = name
    for one, other in ((MAKE[kind](a), b), (b, MAKE[kind](a))):
        for found, function in (
            (encoder.similarity(one, other), SimilarityFunction.to_similarity_fn(name)),
            (encoder.similarity_pairwise(one, other), SimilarityFunction.to_similarity_pairwise_fn(name)),
        ):
            assert isinstance(found, torch.Tensor) == ("tensor" in kind or kind == "gradients")
            sides = (a, b) if other is b else (b, a)
            assert_allclose(np.asarray(found), function(*(side.astype(np.float64) for side in sides)), atol=2e-6)


def test_similarity_is_checked_as_that_of_util_is(encoder: Any) -> None:
    rows = randoms(3, 8)
    wrong = rows.copy()
    wrong[1, 2] = np.nan
    for a, b, message in (
        (rows, rows[:, :5], "embeddings1 have 8 numbers a vector, embeddings2 have 5. Encode both with one model"),
        (["a text"], rows, "embeddings1 must be numbers, got <U6. Encode texts first"),
        (rows, wrong, "embeddings2 hold nan in row 1"),
        (torch.from_numpy(wrong), rows, "embeddings1 hold nan in row 1"),
        (np.array([rows[0], rows[1, :4], None], dtype=object)[:2], rows, "embeddings1 must be vectors of one width"),
    ):
        for compare in (encoder.similarity, encoder.similarity_pairwise):
            with pytest.raises(InputError) as caught:
                compare(a, b)
            assert str(caught.value).startswith(message)
    with pytest.raises(
        InputError, match=r"embeddings1 has 3 rows and embeddings2 has 2. For all pairs type: encoder.sim"
    ):
        encoder.similarity_pairwise(rows, rows[:2])


def test_the_name_of_a_similarity_is_checked_where_it_is_set(encoder: Any, folders: dict[str, Path]) -> None:
    own = encoder.similarity_fn_name
    for value in SentenceTransformer.SUPPORTED_SIMILARITY_FN_NAMES:
        encoder.similarity_fn_name = SimilarityFunction(value)
        assert encoder.similarity_fn_name == value
        assert pickle.loads(pickle.dumps(encoder)).similarity_fn_name == value
    for wrong in ("l2", SimilarityFunction("maxsim"), 3):
        with pytest.raises(InputError, match=r"similarity_fn_name .* is not one of cosine, dot, euclidean, manhattan"):
            encoder.similarity_fn_name = wrong
    encoder.similarity_fn_name = None
    assert encoder.similarity_fn_name == own
    loaded = trivec.load(encoder.name, similarity_fn_name=SimilarityFunction.MANHATTAN)
    assert loaded.similarity_fn_name == "manhattan"
    assert loaded.load_arguments()["similarity_fn_name"] == "manhattan"


# ---- names that every kind has ---------------------------------------------------------------------------------------


def test_the_tokenizer_is_a_copy(encoder: Any) -> None:
    before = encoder.represent(TEXTS).parts()[encoder.heads[0] == "sparse"]
    tokenizer = encoder.tokenizer
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer is encoder.tokenizer
    ids = encoder.tokenize("a cat on the mat")[0]
    assert [tokenizer.id_to_token(i) for i in ids] == [encoder.token(i) for i in ids]
    assert {tokenizer.token_to_id("cat"), tokenizer.token_to_id("mat")} <= set(ids)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    after = encoder.represent(TEXTS).parts()[encoder.heads[0] == "sparse"]
    same = after.equals(before) if isinstance(after, SparseVectors) else np.array_equal(after, before)
    assert same
    with pytest.raises(AttributeError):
        encoder.__class__.tokenizer.fset  # noqa: B018 - there is none


def test_small_names(encoder: Any) -> None:
    assert encoder.get_max_seq_length() == encoder.max_seq_length
    encoder.max_seq_length = 11
    assert encoder.get_max_seq_length() == 11
    assert encoder.eval() is encoder
    assert encoder.to("cpu") is encoder
    assert encoder.to(torch.device("cpu")) is encoder
    with pytest.raises(InputError, match=r"runs on cpu, not 'cuda:0'. Type: trivec.load\(..., device='cuda:0'\)"):
        encoder.to("cuda:0")
    found, expected = record_of(encoder.encode_corpus(TEXTS)).parts(), record_of(encoder.encode_document(TEXTS)).parts()
    for ours, theirs in zip(found, expected, strict=True):
        if isinstance(ours, SparseVectors):
            assert ours.equals(theirs)
        else:
            assert_array_equal(ours, theirs)


def test_model_cards_tell_models_apart_and_take_metrics(encoder: Any) -> None:
    card = encoder.model_card_data
    assert card.set_evaluation_metrics(object(), {"accuracy": 1.0}, epoch=2, step=7) is None
    first = card.base_model
    assert encoder.name in first
    encoder.max_seq_length = 5  # other vectors: what mine_hard_negatives has cached under the old name is not read
    assert encoder.model_card_data.base_model != first


# ---- what dense vectors come as --------------------------------------------------------------------------------------


def test_precision_none_is_float32(dense: DenseEncoder) -> None:
    assert_array_equal(dense.encode(TEXTS, precision=None), dense.encode(TEXTS))
    assert dense.encode(TEXTS[0], precision=None).dtype == np.float32
    assert dense.fingerprint_of(precision=None) == dense.fingerprint


@pytest.mark.parametrize("options", [{"convert_to_tensor": True}, {"convert_to_numpy": False}, {}])
def test_token_embeddings_as_tensors(dense: DenseEncoder, tiny_model: TinyModel, options: dict[str, Any]) -> None:
    kind = torch.Tensor if options else np.ndarray
    table, weight = tiny_model.weights["fp32"]
    found = dense.encode(TEXTS, output_value="token_embeddings", **options)
    assert len(found) == len(TEXTS)
    for states, text in zip(found, TEXTS, strict=True):
        assert isinstance(states, kind)
        assert_allclose(states, np.tanh(table[tiny_model.ids(text)] @ weight), atol=1e-6)
    assert isinstance(dense.encode(TEXTS[0], output_value="token_embeddings", **options), kind)
    for item, text in zip(dense.encode(TEXTS, output_value=None, **options), TEXTS, strict=True):
        assert {name: type(value) for name, value in item.items()} == dict.fromkeys(
            ("input_ids", "attention_mask", "token_embeddings", "sentence_embedding"), kind
        )
        assert item["input_ids"].tolist() == tiny_model.ids(text)
        assert item["attention_mask"].tolist() == [1] * len(tiny_model.ids(text))
        assert_allclose(item["sentence_embedding"], tiny_model.expected([text])[0], atol=1e-6)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
@pytest.mark.parametrize("width", [1, 5, DIM])
def test_small_numbers_of_vectors_that_are_cut_and_made_unit_again(
    dense: DenseEncoder, tiny_model: TinyModel, precision: Any, width: int
) -> None:
    low, high = tiny_model.normalized_ranges.astype(np.float64)
    squares = (low**2 + low * high + high**2) / 3  # of numbers spread evenly from low to high
    ranges = tiny_model.normalized_ranges[:, :width] * np.sqrt(squares.sum() / squares[:width].sum())
    vectors = dense.encode(TEXTS, truncate_dim=width, normalize_embeddings=True)
    expected = np.asarray(reference.quantize_embeddings(vectors, precision, ranges=ranges.astype(np.float32)))
    found = dense.encode(TEXTS, truncate_dim=width, normalize_embeddings=True, precision=precision)
    assert found.dtype == expected.dtype
    assert np.abs(found.astype(int) - expected).max() <= 1  # at the edge of a step
    assert (found == expected).mean() > 0.9
    one = dense.encode(TEXTS[3], truncate_dim=width, normalize_embeddings=True, precision=precision)
    assert_array_equal(one, found[3])
    known = dense.output_ranges(truncate_dim=width, normalize_embeddings=True)
    assert known is not None
    assert_allclose(known, ranges, rtol=1e-6)
    back = trivec.dequantize_embeddings(found, precision, known)
    inside = (vectors >= ranges[0]) & (vectors <= ranges[1])
    assert (np.abs(back - vectors) <= 1.001 * (ranges[1] - ranges[0]) / 255)[inside].all()
    plain = dense.output_ranges(truncate_dim=width)
    assert plain is not None
    assert_array_equal(plain, tiny_model.ranges[:, :width])


def test_truncate_embeddings_in_a_with(dense: DenseEncoder) -> None:
    whole = dense.encode(TEXTS)
    for cut in (dense.truncate_embeddings, dense.truncate_sentence_embeddings):
        with cut(4):
            assert dense.dim == 4
            assert_array_equal(dense.encode(TEXTS), whole[:, :4])
            with cut(None):
                assert dense.encode(TEXTS[0]).shape == (DIM,)
            assert dense.encode(TEXTS[0]).shape == (4,)
    with pytest.raises(ZeroDivisionError), dense.truncate_embeddings(3):
        raise ZeroDivisionError
    assert dense.truncate_dim is None
    with pytest.raises(InputError, match="truncate_dim must be between 1 and 12"), dense.truncate_embeddings(13):
        pass


def test_encode_multi_process_takes_sentences(dense: DenseEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    monkeypatch.setattr(DenseEncoder, "encode", lambda _, *a, **o: taken.append((a, o)))
    pool: Any = object()
    dense.encode_multi_process(sentences=TEXTS, pool=pool, chunk_size=3)
    ((arguments, options),) = taken
    assert (arguments[0], options["pool"], options["chunk_size"]) == (TEXTS, pool, 3)


def test_a_model_without_ranges_says_so(folders: dict[str, Path]) -> None:
    assert trivec.load(folders["static"]).output_ranges() is None


@pytest.mark.parametrize("side", ["query", "document"])
def test_both_sides_of_a_search_call_encode_by_its_names(encoder: Any, side: str) -> None:
    """Whoever puts an `encode` of their own in its place, as sentence-transformers' tests do, reads them."""
    taken: list[Any] = []
    encoder.encode = lambda *a, **o: taken.append((a, o))
    encode = getattr(encoder, f"encode_{side}")
    encode(TEXTS, batch_size=3)
    encode(sentences=TEXTS, prompt="red ", custom=1)
    shared = {"inputs": TEXTS, "task": side}
    assert taken == [
        ((), {**shared, "prompt_name": encoder.prompt_name_of(side), "prompt": None, "batch_size": 3}),
        ((), {**shared, "prompt_name": None, "prompt": "red ", "custom": 1}),
    ]


# ---- sparse rows -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows() -> Any:
    """(4, TERMS), mostly zeros; none in row 2."""
    rng = np.random.default_rng(8)
    found = np.where(rng.random((4, TERMS)) < 0.3, rng.standard_normal((4, TERMS)), 0).astype(np.float32)
    found[2] = 0
    return found


FORMS: dict[str, Callable[[Any], Any]] = {
    "array": lambda rows: rows,
    "tensor": torch.from_numpy,
    "sparse tensor": lambda rows: torch.from_numpy(rows).to_sparse(),
    "rows": lambda rows: SparseVectors.from_dicts(
        [{int(i): float(row[i]) for i in np.flatnonzero(row)} for row in rows], rows.shape[1]
    ),
}


@pytest.mark.parametrize("kind", ["sparse", "hybrid"])
@pytest.mark.parametrize("form", FORMS)
def test_decode_and_sparsity_of_rows_in_any_form(folders: dict[str, Path], rows: Any, kind: str, form: str) -> None:
    encoder = trivec.load(folders[kind], device="cpu", threads=1)
    made = FORMS[form](rows)
    for top_k in (None, 1, 3):
        expected: Any = [
            [(encoder.token(int(i)), float(row[i])) for i in np.argsort(-row, kind="stable") if row[i]][:top_k]
            for row in rows
        ]
        found = encoder.decode(made, top_k=top_k)
        assert [[(token, pytest.approx(weight)) for token, weight in row] for row in found] == expected
        assert encoder.decode(made[1], top_k) == found[1]
    theirs = TheirSparseEncoder.sparsity(torch.from_numpy(rows))
    assert encoder.sparsity(made) == pytest.approx(theirs)
    assert encoder.sparsity(made[0]) == pytest.approx(TheirSparseEncoder.sparsity(torch.from_numpy(rows[0])))
    assert encoder.sparsity(FORMS[form](rows[:0])) == TheirSparseEncoder.sparsity(torch.from_numpy(rows[:0]))


@pytest.mark.parametrize("form", FORMS)
def test_intersection(rows: Any, form: str) -> None:
    tensors = torch.from_numpy(rows)
    for one in (0, 2, 3):
        expected = TheirSparseEncoder.intersection(tensors[one], tensors).to_dense().numpy()
        found = SparseEncoder.intersection(FORMS[form](rows)[one], FORMS[form](rows))
        assert isinstance(found, torch.Tensor if "tensor" in form else SparseVectors)
        assert_allclose(found.to_dense(), expected, rtol=1e-6)
        single = SparseEncoder.intersection(FORMS[form](rows)[one], FORMS[form](rows)[1])
        assert isinstance(single, torch.Tensor if "tensor" in form else SparseVector)
        assert_allclose(single.to_dense(), expected[1], rtol=1e-6)
    with pytest.raises(InputError, match=r"embeddings_1 must be one row, got 4. Type: embeddings_1\[0\]"):
        SparseEncoder.intersection(rows, rows)
    with pytest.raises(InputError, match=f"dim {TERMS} and 5"):
        SparseEncoder.intersection(rows[0], rows[:, :5])


def test_rows_of_another_vocabulary_are_not_decoded(sparse: SparseEncoder, rows: Any) -> None:
    with pytest.raises(InputError, match=f"5 numbers a row, and this model has {TERMS} terms"):
        sparse.decode(rows[:, :5])
    with pytest.raises(InputError, match="embeddings must be numbers"):
        sparse.decode(["a text"])


def test_its_own_tensors_and_rows_compare_alike(sparse: SparseEncoder) -> None:
    found = sparse.encode(TEXTS)
    tensor = sparse.encode(TEXTS, convert_to_tensor=True)
    dense = sparse.encode(TEXTS, convert_to_tensor=True, convert_to_sparse_tensor=False)
    exact = found.to_dense().astype(np.float64)
    for a in (found, tensor, dense):
        for b in (found, tensor, dense):
            assert_allclose(np.asarray(sparse.similarity(a, b)), exact @ exact.T, rtol=1e-5, atol=1e-6)
    assert sparse.decode(tensor) == sparse.decode(found) == sparse.decode(dense)
    assert torch.equal(as_sparse_tensor(found).to_dense(), dense)


# ---- BGE-M3 ----------------------------------------------------------------------------------------------------------


def test_max_length_cuts_the_texts_of_a_call(m3: HybridEncoder) -> None:
    texts = [*TEXTS, "the old dog ran on the hill under a tree"]
    short = trivec.load(m3.name, device="cpu", threads=1)
    short.max_seq_length = 5
    expected: Any
    whole: Any
    found: Any
    expected, whole = short.encode(texts, return_colbert_vecs=True), m3.encode(texts, return_colbert_vecs=True)
    found = m3.encode(texts, return_colbert_vecs=True, max_length=5)
    assert_array_equal(found.dense, expected.dense)
    assert found.sparse.equals(expected.sparse)
    assert found.colbert.equals(expected.colbert)
    assert not found.colbert.equals(whole.colbert)
    assert m3.truncated == short.truncated > 0
    found = m3.encode(texts, return_colbert_vecs=True)  # of that call only
    assert found.colbert.equals(whole.colbert)
    assert m3.fingerprint_of(max_length=5) == short.fingerprint != m3.fingerprint
    assert m3.fingerprint_of(max_length=m3.max_seq_length) == m3.fingerprint
    block: Any
    (block,) = m3.encode_iter(texts, max_length=5, return_sparse=False)
    assert_array_equal(block.dense, expected.dense)
    there = m3.encode(texts, max_length=5, return_sparse=False, device=["cpu"])  # in a process
    assert there.dense is not None
    assert_allclose(there.dense, expected.dense, rtol=1e-6)
    with pytest.raises(TruncationError, match="longer than 5 tokens"):
        m3.encode(texts, max_length=5, on_overflow="error")
    wrong: Any
    for wrong, message in ((2, "whole number above the 2 special tokens"), ("7", "whole number above the 2 special")):
        with pytest.raises(InputError, match=message):
            m3.encode([], max_length=wrong)
    found = m3.encode(sentences=TEXTS)
    assert found.dense.shape == (5, 5)


def test_weights_by_id_and_by_row(folders: dict[str, Path]) -> None:
    m3: Any = trivec.load(folders["hybrid"], device="cpu", threads=1)
    rows = m3.encode(TEXTS).sparse
    assert isinstance(rows, SparseVectors)
    named = [{str(i): w for i, w in row.items()} for row in rows.to_dicts()]  # FlagEmbedding's lexical_weights
    expected = [[sum(w * b.get(i, 0.0) for i, w in a.items()) for b in named] for a in named]
    for one, other in ((named, named), (rows, named), (rows, rows)):
        found = m3.compute_lexical_matching_score(one, other)
        assert isinstance(found, np.ndarray)
        assert_allclose(found, expected, rtol=1e-6)
    assert m3.compute_lexical_matching_score(named[0], rows[3]) == pytest.approx(expected[0][3])
    assert m3.compute_lexical_matching_score([], named).shape == (0, 5)
    with pytest.raises(InputError, match="two rows, or two lists of rows"):
        m3.compute_lexical_matching_score(named[0], named)
    with pytest.raises(InputError, match="expected rows of weights, dictionaries or SparseVectors, got str"):
        m3.compute_lexical_matching_score(["a"], ["b"])
    tokens = [{m3.token(int(i)): w for i, w in row.items()} for row in named]
    assert m3.convert_id_to_token(named) == m3.convert_id_to_token(rows) == tokens
    assert m3.convert_id_to_token(named[3]) == m3.convert_id_to_token([named[3]]) == tokens[3]


def test_colbert_score() -> None:
    query, passage = randoms(3, 7), randoms(5, 7, seed=9)
    expected = (query @ passage.T).max(1).mean()  # FlagEmbedding: the sum, divided by the query's vectors
    found = HybridEncoder.colbert_score(query, passage)
    assert isinstance(found, np.floating)
    assert found == pytest.approx(expected, rel=1e-6)
    tensor = HybridEncoder.colbert_score(torch.from_numpy(query), torch.from_numpy(passage))
    assert tensor.shape == ()
    assert tensor.item() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(InputError, match="different models"):
        HybridEncoder.colbert_score(query, passage[:, :3])


# ---- arguments of constructors ---------------------------------------------------------------------------------------

NEUTRAL: dict[str, Any] = {
    "model_kwargs": ({}, {"torch_dtype": "float16"}, "How a graph runs is said by precision="),
    "processor_kwargs": (None, {"max_length": 8}, "encoder.max_seq_length = n"),
    "tokenizer_kwargs": ({}, {"use_fast": True}, "encoder.max_seq_length = n"),
    "config_kwargs": (None, {"x": 1}, "no option of the configuration changes it"),
    "trust_remote_code": (False, True, "No code of a model is run here"),
    "backend": ("onnx", "torch", 'leave it out, or backend="onnx"'),
    "model_card_data": (None, object(), "No model card is written here"),
    "modules": (None, [1], "trivec export folder OUT"),
    "use_auth_token": (None, "hf_x", "called token now"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_that_ask_for_nothing(folders: dict[str, Path], kind: str) -> None:
    found = trivec.load(folders[kind], **{name: value for name, (value, _, _) in NEUTRAL.items()})
    assert found.fingerprint == trivec.load(folders[kind]).fingerprint
    assert trivec.load(folders[kind], device=None).device == "cpu"
    device: Any = torch.device("cpu")
    assert trivec.load(folders[kind], device=device).device == "cpu"


@pytest.mark.parametrize("name", NEUTRAL)
def test_arguments_that_cannot_be_followed(folders: dict[str, Path], name: str) -> None:
    _, value, reason = NEUTRAL[name]
    with pytest.raises(InputError) as caught:
        trivec.load(folders["static"], **{name: value})
    assert str(caught.value).startswith(f"{name}={value!r} has no meaning here.")
    assert reason in str(caught.value)


def test_an_argument_that_nobody_has(folders: dict[str, Path]) -> None:
    with pytest.raises(TypeError, match=r"load\(\) got an unexpected keyword argument 'colour'"):
        trivec.load(folders["dense"], colour="red")  # type: ignore[call-overload]


def test_cache_folder_is_cache_dir(folders: dict[str, Path], tmp_path: Path) -> None:
    found = trivec.load(folders["dense"], cache_folder=tmp_path)
    assert found._options.cache_dir == str(tmp_path)
    with pytest.raises(InputError, match="two names of one argument"):
        trivec.load(folders["dense"], cache_folder=tmp_path, cache_dir=tmp_path)
