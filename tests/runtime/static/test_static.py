"""Static models: StaticEncoder against Model2Vec and sentence-transformers, over real and random tables."""

import asyncio
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from model2vec import StaticModel
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from tests.support.static_models import DIM, SIZE, bert_tokenizer, model2vec_folder, modules, table, unigram_tokenizer
from tokenizers import Tokenizer

import trivec
from trivec import DenseEncoder, InputError, TruncationError
from trivec._cli.main import main
from trivec._encoders import static as static_module
from trivec._encoders.static import StaticEncoder, _parts
from trivec._gate.texts import verification_texts
from trivec._loading import choice
from trivec._model.static_model import MODEL2VEC, SENTENCE_TRANSFORMERS
from trivec._static import tokenizer as tokenizer_module
from trivec._static import word_memo as word_memo_module
from trivec._static.tokenizer import StaticTokenizer
from trivec._static.word_memo import word_memo
from trivec._system import threads as threads_module
from trivec._system.threads import Threads

FIXTURES = ("float32", "float16", "int8", "vocab-quantized", "sentence-transformers")
SENTENCES = ["The cat sat on the mat!", "un mot inconnu: 東京", "", "unknowns", "dog", "xyz", "old-red\tboat's river\n"]


def texts_of_all_kinds() -> list[str]:
    """Many scripts, the empty text, unknown words, look-alikes of special tokens, and texts beyond 512 tokens."""
    written = [text.text for text in verification_texts()]
    long = [" ".join(written[i : i + 60]) for i in range(0, 300, 60)]
    return [*written, *SENTENCES, *long, "hello " * 1000, "[UNK] [CLS]a[PAD]", "a" * 5000, "\x00\x01 \u2028é\u0301!"]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return texts_of_all_kinds()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small Model2Vec folder."""
    made: Path = model2vec_folder(tmp_path / "static", normalize=True)
    return made


@pytest.fixture
def encoder(folder: Path) -> StaticEncoder:
    found = trivec.load(folder)
    assert isinstance(found, StaticEncoder)
    return found


# ---- Model2Vec -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*(f"model2vec-fixtures/test-model-{kind}" for kind in FIXTURES), "potion-base-2M"])
def test_published_models_equal_model2vec(shared: Path, texts: list[str], name: str) -> None:
    place = shared / "models" / name
    reference, encoder = StaticModel.from_pretrained(place), trivec.load(place)
    expected, found = reference.encode(texts), encoder.encode(texts)
    assert found.dtype == np.float32
    assert_allclose(found, expected.astype(np.float64), rtol=0, atol=1e-6)
    assert encoder.dim == reference.dim
    assert encoder.precision == {"float16": "fp16", "int8": "int8"}.get(expected.dtype.name, encoder.precision)
    assert encoder.tokenize(texts[:40]) == reference.tokenize(texts[:40])
    for text in texts[-12:]:
        assert_allclose(encoder.encode(text), reference.encode(text).astype(np.float64), rtol=0, atol=1e-6)
    sequences = reference.encode_as_sequence(texts[:40], max_length=512)
    for ours, theirs in zip(encoder.encode(texts[:40], output_value="token_embeddings"), sequences, strict=True):
        assert ours.dtype == np.float32
        assert_allclose(ours, theirs.astype(np.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "text", "file"),
    [
        ("float32", "hello world", "short"),
        ("float32", " ".join(["hello"] * 1000), "long"),
        ("vocab-quantized", " ".join(["hello"] * 1000), "vocab_quantized"),
    ],
)
def test_vectors_that_came_with_the_published_models(shared: Path, name: str, text: str, file: str) -> None:
    place = shared / "models/model2vec-fixtures"
    expected = json.loads((place / f"embeddings_{file}.json").read_text())
    assert_allclose(trivec.load(place / f"test-model-{name}").encode([text]), expected, atol=1e-6)


TABLES: dict[str, Callable[[], dict[str, npt.NDArray[Any]]]] = {
    "float64": lambda: {"embeddings": table(dtype="float64")},
    "float16": lambda: {"embeddings": table(dtype="float16", dim=33)},
    "int8": lambda: {"embeddings": table(dtype="int8", dim=33)},
    "one number": lambda: {"embeddings": table(dim=1)},
    "weights": lambda: {"embeddings": table(), "weights": table(1, SIZE, "float64")[0]},
    "half weights": lambda: {"embeddings": table(dtype="float16"), "weights": table(1, SIZE, "float16")[0]},
    "weighted int8": lambda: {"embeddings": table(dtype="int8"), "weights": table(1, SIZE, "float32")[0]},
    "mapping": lambda: {"embeddings": table(5), "mapping": np.arange(SIZE, dtype=np.int32)[::-1] % 5},
    "both, in int8": lambda: {
        "embeddings": table(5, dtype="int8"),
        "mapping": np.arange(SIZE, dtype=np.int64) % 5,
        "weights": table(1, SIZE, "float64")[0],
    },
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("settings", [{}, {"normalize": True, "max_length": 3}, {"max_length": None}], ids=str)
def test_any_table_equals_model2vec(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    place = model2vec_folder(tmp_path, TABLES[kind](), **settings)
    reference, encoder = StaticModel.from_pretrained(place), trivec.load(place)
    texts = [*SENTENCES, "the cat sat on the mat " * 300, "zzz the zzz cat zzz"]
    found = encoder.encode(texts)
    assert_allclose(found, reference.encode(texts).astype(np.float64), rtol=1e-6, atol=1e-6)
    assert_allclose(found, np.stack([encoder.encode(text) for text in texts]), atol=0)  # neighbours do not matter
    assert encoder.max_seq_length == settings.get("max_length", 512)


@pytest.mark.parametrize("unknown", [0, None])
def test_a_unigram_tokenizer_names_its_unknown_token_by_number(tmp_path: Path, unknown: int | None) -> None:
    tokenizer = unigram_tokenizer(unknown)
    place = model2vec_folder(tmp_path, {"embeddings": table(tokenizer.get_vocab_size())}, tokenizer)
    texts = ["the cat", "", "xyz on the river", *(["東 cat", "東京", "the 東"] if unknown == 0 else [])]
    reference, encoder = StaticModel.from_pretrained(place), trivec.load(place)
    assert encoder.tokenize(texts) == reference.tokenize(texts)
    assert_allclose(encoder.encode(texts), reference.encode(texts), atol=1e-6)
    if unknown is None:
        with pytest.raises(InputError, match="index 0 to 1 cannot be tokenized: Encountered an unknown token but"):
            encoder.encode(["cat", "東"])


def test_a_table_that_somebody_saved_without_a_config(tmp_path: Path) -> None:
    """Model2Vec of several generations, of a model made by hand: its modules.json alone says what it is."""
    StaticModel(table(), bert_tokenizer(), normalize=True, max_length=4).save_pretrained(tmp_path / "new")
    old = model2vec_folder(tmp_path / "old")
    (old / "config.json").write_text("{}")
    (old / "modules.json").write_text(modules(("StaticEmbedding", ".")))
    for place in (tmp_path / "new", old):
        reference, encoder = StaticModel.from_pretrained(place), trivec.load(place)
        texts = [*SENTENCES, "the cat sat on the mat " * 200]
        assert_allclose(encoder.encode(texts), reference.encode(texts), atol=1e-6)
        assert encoder.manifest.source["rules"] == MODEL2VEC


def test_the_layout_that_model2vec_reads_without_modules(tmp_path: Path) -> None:
    model2vec_folder(tmp_path / "0_StaticEmbedding", {"embedding.weight": table()})
    (tmp_path / "0_StaticEmbedding/config.json").unlink()
    (tmp_path / "config_sentence_transformers.json").write_text('{"normalize": true}')
    found = trivec.load(tmp_path).encode(SENTENCES)
    assert_allclose(found, StaticModel.from_pretrained(tmp_path).encode(SENTENCES), atol=1e-6)


def test_a_text_beyond_max_length_is_cut_in_characters_first(folder: Path) -> None:
    reference, encoder = StaticModel.from_pretrained(folder), trivec.load(folder)
    assert encoder.max_seq_length == 512
    letters = 512 * reference.median_token_length
    texts = ["cat " * (letters // 4) + tail for tail in ("", "dog", "dog dog")]
    assert_allclose(encoder.encode(texts), reference.encode(texts), atol=0)
    assert encoder.truncated == 2
    encoder.max_seq_length = 2
    reference.max_length = 2
    assert encoder.tokenize(["the cat sat on the mat"]) == [reference.tokenize(["the cat sat"[: 2 * 3]])[0]]
    assert_allclose(encoder.encode(SENTENCES), reference.encode(SENTENCES), atol=0)
    encoder.max_seq_length = None
    reference.max_length = None
    assert_allclose(encoder.encode(texts), reference.encode(texts), atol=1e-6)


def test_a_text_of_unknown_words_gives_zeros(encoder: StaticEncoder) -> None:
    assert_array_equal(encoder.encode(["xyz qqq", "", "   "]), np.zeros((3, DIM)))
    assert_array_equal(encoder.encode("", normalize_embeddings=True), np.zeros(DIM))


# ---- sentence-transformers -------------------------------------------------------------------------------------------


def saved(folder: Path, *more: Any, tokenizer: Tokenizer | None = None, **settings: Any) -> Path:
    static = st.StaticEmbedding(tokenizer or bert_tokenizer(), embedding_weights=table())
    SentenceTransformer(modules=[static, *more], device="cpu", **settings).save_pretrained(
        str(folder), create_model_card=False
    )
    return folder


def test_a_static_embedding_equals_sentence_transformers(tmp_path: Path) -> None:
    place = saved(tmp_path, st.Normalize(), prompts={"query": "the ", "document": ""}, similarity_fn_name="dot")
    reference, encoder = SentenceTransformer(str(place), device="cpu"), trivec.load(place)
    texts = [*SENTENCES, "the cat sat on the mat " * 500]
    for name in ("query", "document", None):
        expected = reference.encode(texts, prompt_name=name)
        assert_allclose(encoder.encode(texts, prompt_name=name), expected, atol=1e-6)
    assert_allclose(encoder.encode_query(texts), reference.encode_query(texts), atol=1e-6)
    assert_allclose(encoder.encode(texts, truncate_dim=3), reference.encode(texts, truncate_dim=3), atol=1e-6)
    assert encoder.similarity_fn_name == "dot"
    assert encoder.max_seq_length is None
    assert encoder.truncated == 0
    assert np.abs(encoder.encode("xyz")).max() > 0  # the unknown token has a vector, and counts


def test_modules_that_follow_a_static_embedding(tmp_path: Path) -> None:
    place = saved(tmp_path, st.Dense(DIM, 5), st.LayerNorm(5), st.Normalize())
    encoder = trivec.load(place)
    assert encoder.dim == 5
    expected = SentenceTransformer(str(place), device="cpu").encode(SENTENCES)
    assert_allclose(encoder.encode(SENTENCES), expected, atol=1e-6)


@pytest.mark.parametrize("direction", ["right", "left"])
def test_sentence_transformers_cuts_where_the_tokenizer_says(tmp_path: Path, direction: str) -> None:
    tokenizer = bert_tokenizer()
    tokenizer.enable_truncation(3, direction=direction)
    tokenizer.enable_padding(length=9)
    place = saved(tmp_path, tokenizer=tokenizer)
    reference, encoder = SentenceTransformer(str(place), device="cpu"), trivec.load(place)
    assert encoder.max_seq_length == 3
    assert_allclose(encoder.encode(SENTENCES), reference.encode(SENTENCES), atol=1e-6)


def test_the_older_layout_of_sentence_transformers(tmp_path: Path) -> None:
    saved(tmp_path, st.Normalize())
    inner = tmp_path / "0_StaticEmbedding"
    inner.mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.move(tmp_path / name, inner / name)
    (tmp_path / "modules.json").write_text(modules(("StaticEmbedding", inner.name), ("Normalize", "1_Normalize")))
    expected = SentenceTransformer(str(tmp_path), device="cpu").encode(SENTENCES)
    assert_allclose(trivec.load(tmp_path).encode(SENTENCES), expected, atol=1e-6)


def test_a_half_table_stays_finite_where_torch_divides_by_zero(tmp_path: Path) -> None:
    place = saved(tmp_path, st.Normalize())
    weights = {"embedding.weight": table(dtype="float16")}
    save_file(weights, place / "model.safetensors")
    encoder = trivec.load(place)
    expected = SentenceTransformer(str(place), device="cpu").encode(SENTENCES).astype(np.float32)
    assert np.isnan(expected[2]).all()  # the empty text
    assert_array_equal(encoder.encode(""), np.zeros(DIM))
    rest = [0, 1, 3, 4, 5, 6]
    assert_allclose(encoder.encode(SENTENCES)[rest], expected[rest], atol=2e-3)  # there in halves to the end
    assert encoder.precision == "fp16"


# ---- words -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(minilm_checkpoint: Path) -> Tokenizer:
    """The tokenizer of BERT with its 30,522 tokens."""
    tokenizer = Tokenizer.from_file(str(minilm_checkpoint / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def library(tokenizer: Tokenizer) -> Callable[[list[str]], list[list[int]]]:
    return lambda texts: [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def random_texts(count: int) -> list[str]:
    """Texts of characters that a normalizer or a splitter may do something to."""
    rng = random.Random(5)
    # fmt: off
    ranges = [(32, 127), (32, 127), (97, 123), (0, 32), (0x80, 0x250), (0x300, 0x340), (0x370, 0x600),
              (0x2000, 0x2070), (0x3000, 0x3100), (0x4E00, 0x4E40), (0xAC00, 0xAC40), (0xFB00, 0xFB10),
              (0xFFF0, 0xFFFE), (0x1F600, 0x1F610)]
    # fmt: on
    pieces = ["the", " ", "'s", "[UNK]", "[CLS", "naïve", "\r\n", "\u00a0", "e\u0301", "=\u0338", "İI", "ß", "Σς", "…"]
    return [
        "".join(
            chr(rng.randrange(*rng.choice(ranges))) if rng.random() < 0.7 else rng.choice(pieces)
            for _ in range(rng.randrange(40))
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    "settings", [{}, {"lowercase": False}, {"strip_accents": False}, {"clean_text": False}], ids=str
)
def test_words_one_by_one_are_the_text(bert: Tokenizer, texts: list[str], settings: dict[str, bool]) -> None:
    from tokenizers import normalizers

    tokenizer = Tokenizer.from_str(bert.to_str())
    tokenizer.normalizer = normalizers.BertNormalizer(**settings)
    read = library(tokenizer)
    memo = word_memo(tokenizer, read)
    assert memo is not None
    every = [*random_texts(3000), *texts]
    expected = read(every)
    for _ in range(2):  # asked of the tokenizer, then remembered
        for start in range(0, len(every), 20):  # few at a time: many new words would not be cut up
            ids, lengths = memo.ids(every[start : start + 20])
            assert lengths.tolist() == [len(each) for each in expected[start : start + 20]]
            assert ids.tolist() == [i for each in expected[start : start + 20] for i in each]
    assert len(memo._known) > 1000


def test_words_are_forgotten_before_they_are_too_many(bert: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_memo_module, "_MOST", 50)
    read = library(bert)
    memo = word_memo(bert, read)
    assert memo is not None
    for start in range(0, 3000, 30):
        texts = [f"word{i} {i}" for i in range(start, start + 30, 3)]
        ids, _ = memo.ids(texts)
        assert ids.tolist() == [i for each in read(texts) for i in each]
        assert len(memo._known) <= 50
    memo.ids(["x" * 33])
    assert "x" * 33 not in memo._known


def test_texts_of_new_words_alone_go_to_the_tokenizer_whole(bert: Tokenizer) -> None:
    asked: list[int] = []

    def read(texts: list[str]) -> list[list[int]]:
        asked.append(len(texts))
        return library(bert)(texts)

    memo = word_memo(bert, read)
    assert memo is not None
    texts = [" ".join(f"{i * 200 + j:x}" for j in range(200)) for i in range(10)]
    ids, lengths = memo.ids(texts)
    assert asked[-1] == 10
    assert ids.tolist() == [i for each in library(bert)(texts) for i in each]
    assert lengths.sum() == len(ids)


def test_tokenizers_of_another_kind_are_not_cut_into_words(bert: Tokenizer) -> None:
    assert word_memo(unigram_tokenizer(), library(unigram_tokenizer())) is None
    tokenizer = Tokenizer.from_str(bert.to_str())
    tokenizer.add_tokens(["new york"])  # a token that is looked for in the normalized text
    assert word_memo(tokenizer, library(tokenizer)) is None
    assert word_memo(bert, lambda texts: [[1] for _ in texts]) is None  # whatever a post-processor may have done


# ---- what an encoder does --------------------------------------------------------------------------------------------


def test_many_texts_equal_one_at_a_time_in_bounded_parts(
    encoder: StaticEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_module, "_CHARACTERS", 200)
    texts = [text * (1 + i % 9) for i in range(40) for text in SENTENCES]
    one_by_one = np.stack([encoder.encode(text) for text in texts])
    assert_array_equal(encoder.encode(texts), one_by_one)
    assert_array_equal(np.concatenate(list(encoder.encode_iter(iter(texts), window=11))), one_by_one)
    parts = _parts(texts, 30, whole=False)
    assert [text for part in parts for text in texts[part]] == texts
    held = [sum(min(len(text), 30) for text in texts[part]) for part in parts]
    assert max(held) <= 200
    assert len(parts) < sum(held) / 150


def test_parts_of_texts() -> None:
    assert _parts([], None, whole=False) == []
    assert _parts(["x" * (1 << 20)] * 2, None, whole=False) == [slice(0, 1), slice(1, 2)]  # a long one comes alone
    assert _parts([""] * 5000, None, whole=False) == [slice(0, 4096), slice(4096, 5000)]
    assert _parts(["x"] * 5000, None, whole=True) == [slice(0, 5000)]


def test_everything_that_encode_takes(encoder: StaticEncoder) -> None:
    expected = encoder.encode(SENTENCES)
    norms = np.linalg.norm(expected, axis=1)
    assert_allclose(norms, np.where(norms > 0, 1, 0), atol=1e-6)
    assert isinstance(encoder, DenseEncoder)
    assert encoder.encode([]).shape == (0, DIM)
    assert encoder.encode(SENTENCES[0]).shape == (DIM,)
    assert_array_equal(encoder.encode(tuple(SENTENCES), batch_size=1, device="cpu"), expected)
    assert_array_equal(encoder.encode(SENTENCES, truncate_dim=3), expected[:, :3])
    assert_array_equal(encoder.encode(SENTENCES, precision="ubinary"), np.packbits(expected > 0, axis=1))
    assert encoder.encode(SENTENCES, convert_to_tensor=True).shape == (7, DIM)
    assert_array_equal(encoder.encode_queries(SENTENCES), expected)
    assert_array_equal(encoder.encode_documents(SENTENCES), expected)
    assert_array_equal(encoder.encode(SENTENCES, prompt="the "), encoder.encode([f"the {text}" for text in SENTENCES]))
    assert_array_equal(asyncio.run(encoder.aencode(SENTENCES)), expected)
    assert_allclose(encoder.similarity(expected, expected), expected @ expected.T, atol=1e-6)
    whole = encoder.encode(SENTENCES, output_value=None)
    assert [each["input_ids"].tolist() for each in whole] == encoder.tokenize(SENTENCES)
    assert_array_equal(np.stack([each["sentence_embedding"] for each in whole]), expected)
    assert [each["token_embeddings"].shape for each in whole] == [(len(i), DIM) for i in encoder.tokenize(SENTENCES)]


def test_what_an_encoder_says_of_itself(encoder: StaticEncoder, folder: Path) -> None:
    assert (encoder.dim, encoder.device, encoder.precision) == (DIM, "cpu", "fp32")
    assert repr(encoder) == f"StaticEncoder({str(folder)!r}, dim=7, fp32, cpu)"
    assert encoder.manifest.family == "static"
    before = encoder.fingerprint
    assert trivec.load(folder).fingerprint == before
    encoder.max_seq_length = 100
    assert encoder.fingerprint != before
    weights = load_file(folder / "model.safetensors")
    weights["embeddings"][5] += 1
    save_file(weights, folder / "model.safetensors")
    assert trivec.load(folder).fingerprint != before
    with encoder:
        encoder.encode("the cat")
    with pytest.raises(InputError, match="closed"):
        encoder.encode("the cat")


def test_a_pickle_and_a_process_encode_the_same(folder: Path) -> None:
    encoder = trivec.load(folder, prompts={"query": "old "}, truncate_dim=5, threads=1)
    encoder.max_seq_length = 4
    copy = pickle.loads(pickle.dumps(encoder))
    assert copy.fingerprint == encoder.fingerprint
    assert copy.max_seq_length == 4
    expected = encoder.encode_query(SENTENCES)
    assert_array_equal(copy.encode_query(SENTENCES), expected)
    with encoder.start_multi_process_pool(["cpu"]) as pool:
        assert_array_equal(encoder.encode_query(SENTENCES, pool=pool, chunk_size=3), expected)


def test_many_threads_share_an_encoder(encoder: StaticEncoder, texts: list[str]) -> None:
    expected = encoder.encode(texts)
    wrong: list[int] = []

    def work(start: int) -> None:
        mine = range(start, len(texts), 8)
        wrong.extend(i for i in mine if not np.array_equal(encoder.encode(texts[i]), expected[i]))

    threads = [threading.Thread(target=work, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("rules", [MODEL2VEC, SENTENCE_TRANSFORMERS])
def test_threads_bound_the_texts_that_are_tokenized_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rules: str
) -> None:
    monkeypatch.setattr(tokenizer_module, "available_threads", lambda: Threads(8, "a test"))
    path = model2vec_folder(tmp_path, {"embeddings": table(19)}, unigram_tokenizer()) / "tokenizer.json"
    texts = ["the cat sat", "dog", "", "old red boat on the river", "mat", "red red"] * 3
    expected = StaticTokenizer(path, rules, None)(texts)
    limited = StaticTokenizer(path, rules, None, threads=2)
    asked: list[int] = []

    class Watched:
        def encode_batch_fast(self, given: list[str], add_special_tokens: bool) -> Any:
            asked.append(len(given))
            return inner.encode_batch_fast(given, add_special_tokens=add_special_tokens)

    inner: Any = limited._tokenizer
    monkeypatch.setattr(limited, "_tokenizer", Watched())
    found = limited(texts)
    assert asked == [2] * 9
    assert_array_equal(found.ids, expected.ids)
    assert_array_equal(found.offsets, expected.offsets)


def test_a_variable_bounds_the_texts_that_are_tokenized_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (choice, tokenizer_module, threads_module):
        monkeypatch.setattr(module, "available_threads", lambda *_: Threads(8, "a test"))
    folder = model2vec_folder(tmp_path)
    found = []
    for variable, threads in (("3", None), ("3", 5), ("9", None)):
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
        tokenizer = trivec.load(folder, threads=threads).route().tokenizer
        found.append((tokenizer.threads, tokenizer._at_a_time))
    assert found == [(3, 3), (5, 5), (8, None)]


def test_truncation_is_counted_or_raised(encoder: StaticEncoder) -> None:
    encoder.max_seq_length = 3
    texts = ["cat", "the cat sat on", "the dog", "a" * 10]
    encoder.encode(texts)
    assert encoder.truncated == 2  # by tokens, and by characters: the median token has three
    with pytest.raises(TruncationError, match="2 of 4 texts are longer than 3 tokens, the first at index 1"):
        encoder.encode(texts, on_overflow="error")
    with pytest.raises(TruncationError, match="in the block that starts at text 0"):
        list(encoder.encode_iter(texts, on_overflow="error"))
    assert encoder.truncated == 2


# ---- where it comes from ---------------------------------------------------------------------------------------------


def test_a_name_on_the_hub(folder: Path, tmp_path: Path) -> None:
    """From the Hub's cache, with a graph beside the table, as Model2Vec's repositories have it."""
    place = tmp_path / "hub/models--minishlab--potion-tiny"
    snapshot = place / "snapshots" / ("a" * 40)
    shutil.copytree(folder, snapshot)
    (snapshot / "onnx").mkdir()
    (snapshot / "onnx/model.onnx").write_bytes(b"not looked at")
    (place / "refs").mkdir()
    (place / "refs/main").write_text("a" * 40)
    encoder = trivec.load("minishlab/potion-tiny", cache_dir=tmp_path / "hub", local_files_only=True)
    assert_array_equal(encoder.encode(SENTENCES), trivec.load(folder).encode(SENTENCES))
    assert encoder.manifest.source["revision"] == "a" * 40


def test_neither_onnxruntime_nor_torch_is_needed(folder: Path) -> None:
    code = """
import sys
for name in ("onnxruntime", "torch", "scipy", "transformers", "model2vec"):
    sys.modules[name] = None  # as where it is not installed
import trivec
print(trivec.load(sys.argv[1]).encode("the cat").tolist())
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(trivec.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert_allclose(json.loads(done.stdout), trivec.load(folder).encode("the cat"), atol=1e-7)


def test_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = tmp_path / "in.txt"
    lines.write_text("the cat\n\nxyz\n", encoding="utf-8")
    assert main(["encode", str(folder), str(lines), "-o", str(tmp_path / "out.npy"), "--normalize"]) == 0
    assert "3 texts, dim 7 float32" in capsys.readouterr().err
    assert_array_equal(np.load(tmp_path / "out.npy"), trivec.load(folder).encode(["the cat", "", "xyz"]))
    assert main(["info", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "family       static" in shown
    assert "rules model2vec" in shown
    assert "dim          7" in shown
    assert "default: main -> mean -> normalize" in shown
    assert main(["info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["encoders"]["main"]["variants"].keys() == {"fp32"}
    assert main(["similarity", str(folder), "cat", "cat"]) == 0
    assert capsys.readouterr().out == "1.0000\n"
