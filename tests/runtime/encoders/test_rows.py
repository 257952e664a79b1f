"""Rows of token ids in the place of texts: the same vectors as `encode`, flags in the place of errors, other cuts."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.static_models import model2vec_folder
from tests.support.tiny_heads import LIMIT, hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import MAX_TOKENS, TinyModel

import trivec
from trivec import InputError
from trivec._tokens.batch import Tokens

TEXTS = [
    "the cat sat on the mat",
    "",
    "A small RED boat",
    "un mot inconnu: 東京",
    "dog " * 40,
    "a",
    "bird",
    "a dog",
    "a",
]


def test_rows_of_a_dense_model_are_encode_s_vectors(tiny_model: TinyModel) -> None:
    with trivec.load(tiny_model.folder, device="cpu") as encoder:
        ready = encoder.read_rows(TEXTS)
        made, finite = encoder.run_rows(ready.tokens, encoder.row_call(["dense"]))
        assert finite.all()
        assert len(ready.tokens.truncated) == len(set(TEXTS))
        assert ready.spread(ready.tokens.lengths).tolist() == [len(tiny_model.ids(text)) for text in TEXTS]
        assert np.array_equal(made.dense[ready.row_of], encoder.encode(TEXTS))


def test_rows_behind_a_prompt(tiny_model: TinyModel) -> None:
    with trivec.load(tiny_model.folder, device="cpu") as encoder:
        encoder.set_pooling_include_prompt(False)
        ready = encoder.read_rows(TEXTS, prompt="find the ", task="query")
        made, _ = encoder.run_rows(ready.tokens, encoder.row_call(["dense"], prompt="find the ", task="query"))
        assert np.array_equal(made.dense[ready.row_of], encoder.encode_query(TEXTS))


def test_rows_of_all_heads_in_one_run(tiny_model: TinyModel, tmp_path: Path) -> None:
    tiny = hybrid(tmp_path / "hybrid", tiny_model)
    with trivec.load(tiny.folder, device="cpu") as encoder:
        ready = encoder.read_rows(TEXTS[:4])
        made, _ = encoder.run_rows(ready.tokens, encoder.row_call(["dense", "sparse", "colbert"]))
        expected = encoder.encode(TEXTS[:4], return_colbert_vecs=True)
        assert np.array_equal(made.dense, expected.dense)
        assert np.array_equal(made.sparse.to_dense(), expected.sparse.to_dense())
        assert np.array_equal(made.colbert.vectors, expected.colbert.vectors)
        states, _ = encoder.run_rows(ready.tokens, encoder.row_call(["colbert"], states=True))
        assert [len(row) for row in states.colbert] == ready.tokens.lengths.tolist()  # special tokens too
        assert np.array_equal(states.colbert[0], tiny.tables["token_embeddings"][tiny.ids(TEXTS[0])])


def test_rows_of_both_sides_of_an_inference_free_model(tiny_model: TinyModel, tmp_path: Path) -> None:
    tiny = splade(tmp_path / "splade", tiny_model, random_logits(), random_weights())
    with trivec.load(tiny.folder, device="cpu") as encoder:
        for task, expected in (("query", encoder.encode_query), ("document", encoder.encode_document)):
            prompt = encoder.prompt_text(None, encoder.prompt_name_of(task))
            ready = encoder.read_rows(TEXTS[:4], prompt=prompt, task=task)
            made, _ = encoder.run_rows(ready.tokens, encoder.row_call(["sparse"], prompt=prompt, task=task))
            assert np.array_equal(made.sparse.to_dense(), expected(TEXTS[:4]).to_dense())


def test_rows_of_a_static_model(tmp_path: Path) -> None:
    with trivec.load(model2vec_folder(tmp_path / "static")) as encoder:
        ready = encoder.read_rows(TEXTS)
        made, _ = encoder.run_rows(ready.tokens, encoder.row_call(["dense"]))
        assert np.array_equal(made.dense[ready.row_of], encoder.encode(TEXTS))
        with pytest.raises(InputError, match="takes no token ids"):
            encoder.route().tokenizer.of_ids([[1]])
        with pytest.raises(InputError, match="cut texts at their end"):
            encoder.reading(side="left")


def test_a_row_that_is_not_finite_is_flagged_and_no_other(tiny_model: TinyModel, tmp_path: Path) -> None:
    table = np.ones((24, 5), dtype=np.float32)
    table[tiny_model.ids("dog")[1]] = np.nan
    tiny = hybrid(tmp_path / "poisoned", tiny_model, token_embeddings=np.eye(24, 5, dtype=np.float32) + table)
    with trivec.load(tiny.folder, device="cpu") as encoder:
        spoilt = hybrid(tmp_path / "all", tiny_model, token_embeddings=np.full((24, 5), np.nan, np.float32))
        ready = encoder.read_rows(["a cat", "a dog", "a bird"])
        _, finite = encoder.run_rows(ready.tokens, encoder.row_call(["colbert"], states=True))
        assert finite.tolist() == [True, False, True]
    with trivec.load(spoilt.folder, device="cpu") as encoder:
        _, finite = encoder.run_rows(ready.tokens, encoder.row_call(["dense"]))
        assert finite.tolist() == [False] * 3  # and nothing is raised


def test_texts_cut_elsewhere_have_another_fingerprint(tiny_model: TinyModel) -> None:
    text = "the cat sat on the mat"
    with trivec.load(tiny_model.folder, device="cpu") as encoder:
        ids = tiny_model.ids(text)
        left, short = encoder.reading(max_length=5, side="left"), encoder.reading(max_length=5)
        assert short.tokenize(text) == [[*ids[:4], 3]]
        assert left.tokenize(text) == [[2, *ids[-4:]]]
        assert encoder.tokenize(text) == [ids]
        assert encoder.reading(max_length=MAX_TOKENS).fingerprint == encoder.fingerprint
        assert len({encoder.fingerprint, left.fingerprint, short.fingerprint}) == 3
        assert np.array_equal(short.encode(text), encoder.encode("the cat sat"))
        with pytest.raises(InputError, match="can be at most 32"):
            encoder.reading(max_length=33)


def test_ids_of_a_caller(tiny_model: TinyModel) -> None:
    with trivec.load(tiny_model.folder, device="cpu") as encoder:
        tokenizer = encoder.route().tokenizer
        ids = tiny_model.ids("a cat")
        tokens = tokenizer.of_ids([ids[1:-1], ids, [5] * 40])
        assert tokens.of(0).tolist() == tokens.of(1).tolist() == ids
        assert tokens.of(2).tolist() == [2, *[5] * (LIMIT - 2), 3]
        assert tokens.truncated.tolist() == [False, False, True]
        left = encoder.reading(side="left").route().tokenizer.of_ids([[*[5] * 20, 6]])
        assert left.of(0).tolist() == [2, *[5] * (LIMIT - 3), 6, 3]
        for wrong in (24, -1, 1 << 80):
            with pytest.raises(InputError, match=f"token id {wrong} at index 1 is none of this model's 24"):
                tokenizer.of_ids([[4], [4, wrong]])


def test_rows_end_to_end() -> None:
    tokens = Tokens.of_ids([[1, 2], [], [3]])
    assert tokens.lengths.tolist() == [2, 0, 1]
    assert len(Tokens.of_ids([]).ids) == 0
