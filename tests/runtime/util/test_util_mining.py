"""trivec.util.paraphrase_mining and community_detection, against sentence_transformers.util."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from numpy.testing import assert_allclose
from sentence_transformers import util as reference
from tests.support.tiny_heads import hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, util

Array = npt.NDArray[Any]
Pairs = list[list[float | int]]
TEXTS = ["the cat sat", "a red boat", "the cat ran", "a blue boat", "the dog ran", "a red boat", "old house", "river"]


def clusters(rows: int, dim: int, centres: int, spread: float, seed: int = 0) -> npt.NDArray[np.float32]:
    """Of about length 1, around some centres, in any order."""
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal((centres, dim))
    found = middle[rng.integers(0, centres, rows)] + spread * rng.standard_normal((rows, dim))
    return np.asarray(found / np.sqrt(dim), dtype=np.float32)


# ---- paraphrase mining -----------------------------------------------------------------------------------------------


def check_pairs(found: Pairs, expected: Pairs) -> None:
    """The same pairs with the same scores; ours in a defined order."""
    assert {(i, j) for _, i, j in found} == {(i, j) for _, i, j in expected}
    assert len(found) == len(expected)
    scores = {(i, j): score for score, i, j in expected}
    assert_allclose([score for score, _, _ in found], [scores[i, j] for _, i, j in found], rtol=1e-6, atol=1e-6)
    assert found == sorted(found, key=lambda pair: (-pair[0], pair[1], pair[2]))
    assert {tuple(map(type, pair)) for pair in found} <= {(float, int, int)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 1},
        {"top_k": 3, "max_pairs": 50},
        {"max_pairs": 7, "query_chunk_size": 17, "corpus_chunk_size": 23},
        {"top_k": 500, "query_chunk_size": 1},
    ],
)
@pytest.mark.parametrize("name", ["cos_sim", "dot_score", "euclidean_sim", "manhattan_sim"])
def test_pairs(name: str, options: dict[str, Any]) -> None:
    rows = clusters(120, 33, 20, 0.3)
    found = util.paraphrase_mining_embeddings(rows, score_function=getattr(util, name), **options)
    wide = torch.from_numpy(rows.astype(np.float64))
    check_pairs(found, reference.paraphrase_mining_embeddings(wide, score_function=getattr(reference, name), **options))


def test_pairs_of_few_rows() -> None:
    rows = clusters(2, 5, 2, 0.3)
    check_pairs(util.paraphrase_mining_embeddings(rows), reference.paraphrase_mining_embeddings(torch.from_numpy(rows)))
    for count in (0, 1):
        assert util.paraphrase_mining_embeddings(rows[:count]) == []
    assert util.paraphrase_mining_embeddings([]) == []


def test_pairs_of_equal_rows_are_in_the_order_of_the_rows() -> None:
    rows = np.repeat(clusters(3, 9, 3, 0.3), 3, axis=0)  # 0, 1, 2 are equal, and so on
    found = util.paraphrase_mining_embeddings(rows, max_pairs=8)
    equal = [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5), (6, 7), (6, 8)]
    assert [(i, j) for _, i, j in found] == equal
    assert [score for score, _, _ in found] == [1.0] * 8


def test_pairs_of_sparse_rows_and_by_any_function(tmp_path: Path, tiny_model: "TinyModel") -> None:
    encoder = trivec.load(splade(tmp_path / "model", tiny_model, random_logits(), random_weights()).folder)
    texts = [*dict.fromkeys(TEXTS)]
    rows = encoder.encode(texts)
    tensor = encoder.encode(texts, convert_to_tensor=True, convert_to_sparse_tensor=False)
    check_pairs(util.paraphrase_mining_embeddings(rows), reference.paraphrase_mining_embeddings(tensor))
    found = util.paraphrase_mining_embeddings(rows, score_function=encoder.similarity, top_k=3)
    expected = reference.paraphrase_mining_embeddings(tensor, score_function=reference.dot_score, top_k=3)
    check_pairs(found, expected)


@pytest.mark.parametrize("kind", ["dense", "sparse", "hybrid"])
def test_any_encoder(kind: str, tmp_path: Path, tiny_model: "TinyModel") -> None:
    if kind == "dense":
        folder = tiny_model.folder
    elif kind == "sparse":
        folder = splade(tmp_path / "model", tiny_model, random_logits(), random_weights()).folder
    else:
        folder = hybrid(tmp_path / "model", tiny_model).folder
    encoder: Any = trivec.load(folder, device="cpu", threads=1)
    vectors = encoder.encode(TEXTS)
    if kind != "dense":
        vectors = vectors.to_dense() if kind == "sparse" else vectors.dense
    expected = reference.paraphrase_mining_embeddings(torch.from_numpy(vectors))
    check_pairs(util.paraphrase_mining(encoder, iter(TEXTS), batch_size=3), expected)


def test_options_of_encoding(tiny_folder: Path) -> None:
    encoder = trivec.load(tiny_folder, device="cpu", threads=1)
    for options in ({"prompt_name": "query"}, {"prompt": "the red "}, {"truncate_dim": 5}):
        vectors = encoder.encode(TEXTS, **options)
        expected = reference.paraphrase_mining_embeddings(torch.from_numpy(vectors))
        check_pairs(util.paraphrase_mining(encoder, TEXTS, **options), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k must be a positive integer, got 0."),
        ({"max_pairs": -1}, "max_pairs must be a positive integer, got -1."),
        ({"query_chunk_size": 0}, "query_chunk_size must be a positive integer, got 0."),
        ({"corpus_chunk_size": 0}, "corpus_chunk_size must be a positive integer, got 0."),
        ({"score_function": None}, "score_function must be a function of two blocks of vectors, got None."),
        ({"truncate_dim": 13}, "truncate_dim must be between 1 and 12"),
        ({"model": "minilm"}, "expected an encoder, got str. Type: trivec.load('minilm')"),
        ({"model": None}, "expected an encoder, got NoneType. Type: trivec.load(name_or_folder)"),
        ({"sentences": "one text"}, "sentences must be a list of texts, got one text."),
        ({"sentences": ["a", 3]}, "1"),
    ],
)
def test_bad_arguments_of_mining(tiny_folder: Path, options: dict[str, Any], message: str) -> None:
    encoder = trivec.load(tiny_folder, device="cpu", threads=1)
    with pytest.raises(InputError) as caught:
        util.paraphrase_mining(**{"model": encoder, "sentences": TEXTS, **options})
    assert message in str(caught.value)


def test_mining_names_the_row_and_knows_what_can_be_truncated(tmp_path: Path, tiny_model: "TinyModel") -> None:
    rows = clusters(9, 4, 3, 0.3)
    rows[7, 2] = np.nan
    with pytest.raises(InputError, match=r"^embeddings hold nan in row 7, expected finite numbers."):
        util.paraphrase_mining_embeddings(rows)
    encoder = trivec.load(splade(tmp_path / "model", tiny_model, random_logits(), random_weights()).folder)
    with pytest.raises(InputError, match=r"^truncate_dim is for dense vectors, not for those of a SparseEncoder."):
        util.paraphrase_mining(encoder, TEXTS, truncate_dim=3)


# ---- communities -----------------------------------------------------------------------------------------------------


def check_communities(found: list[list[int]], expected: list[list[int]], rows: Array) -> None:
    """The same communities in the same order, with the same centres; members by similarity as far as that is told."""
    assert [community[0] for community in found] == [community[0] for community in expected]
    assert [sorted(community) for community in found] == [sorted(community) for community in expected]
    for community in found:
        scores = reference.cos_sim(rows[community[:1]].astype(float), rows[community[1:]].astype(float)).numpy()[0]
        assert (np.diff(scores) < 1e-6).all()
        assert {*map(type, community)} == {int}


@pytest.mark.parametrize("spread", [0.1, 0.5, 0.9, 3.0])
@pytest.mark.parametrize(
    "options", [{}, {"threshold": 0.6, "min_community_size": 3}, {"threshold": 0.4, "min_community_size": 1}]
)
@pytest.mark.parametrize("batch_size", [1024, 37])
def test_communities(spread: float, options: dict[str, Any], batch_size: int) -> None:
    """From clusters far apart to one cloud, in which communities overlap."""
    rows = clusters(500, 16, 25, spread) * np.linspace(0.5, 2, 500, dtype=np.float32)[:, None]
    expected = reference.community_detection(rows.astype(np.float64), **options)
    check_communities(util.community_detection(rows, batch_size=batch_size, **options), expected, rows)


def test_communities_of_one_cloud() -> None:
    """All near all: one community; and near none: none, or one each."""
    rows = clusters(200, 8, 1, 0.01)
    check_communities(util.community_detection(rows), reference.community_detection(rows.astype(np.float64)), rows)
    far = np.eye(30, dtype=np.float32)
    assert util.community_detection(far) == reference.community_detection(far) == []
    alone = util.community_detection(far, min_community_size=1)
    assert alone == reference.community_detection(far, min_community_size=1) == [[i] for i in range(30)]


def test_communities_of_few_rows_and_of_zeros() -> None:
    rows = np.concatenate([clusters(12, 5, 1, 0.1), np.zeros((3, 5), np.float32)])
    for count in (0, 1, 9, 10, 15):
        expected = reference.community_detection(rows[:count].astype(np.float64))
        check_communities(util.community_detection(rows[:count]), expected, rows)
    for threshold in (-1.0, 0.0, -2):
        options: dict[str, Any] = {"threshold": threshold, "min_community_size": 2}
        expected = reference.community_detection(rows.astype(np.float64), **options)
        check_communities(util.community_detection(rows, **options), expected, rows)
    assert util.community_detection([]) == []
    assert util.community_detection(rows[0], min_community_size=1) == [[0]]


def test_equal_rows_are_near_at_a_threshold_of_1_and_in_order() -> None:
    """In float32 the cosine of a row with itself may be 0.99999994, and is that at some places of a block only."""
    different = clusters(40, 37, 40, 1)
    rows = np.concatenate([different] * 12)
    for batch_size in (1024, 31):
        found = util.community_detection(rows, threshold=1.0, min_community_size=12, batch_size=batch_size)
        assert found == [list(range(i, 480, 40)) for i in range(40)]


@pytest.mark.parametrize("dtype", [np.float16, np.int8])
def test_communities_of_other_number_types(dtype: Any) -> None:
    rows = (60 * clusters(300, 16, 12, 0.4)).astype(dtype)
    expected = reference.community_detection(rows.astype(np.float64))
    check_communities(util.community_detection(rows), expected, rows)
    check_communities(util.community_detection(torch.from_numpy(rows)), expected, rows)
    check_communities(util.community_detection(rows.tolist()), expected, rows)


def test_no_matrix_of_all_pairs() -> None:
    """Of 6,000 rows it would be 144 MB, and so much again for the communities that overlap."""
    rows = clusters(6000, 24, 3, 0.2)
    tracemalloc.start()
    found = util.community_detection(rows, threshold=0.5, batch_size=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(map(len, found)) == 6000
    assert len(found) == 3
    assert peak < 80e6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": float("nan")}, "threshold must be a finite number, a cosine from -1 to 1, got nan."),
        ({"threshold": "0.75"}, "threshold must be a finite number, a cosine from -1 to 1, got '0.75'."),
        ({"min_community_size": 0}, "min_community_size must be a positive integer, got 0."),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0."),
        (
            {"embeddings": trivec.SparseVectors.empty(2, 5)},
            "embeddings must be dense vectors, got SparseVectors(",
        ),
        (
            {"embeddings": np.array([[1.0]] * 12 + [[np.inf]])},
            "embeddings hold inf in row 12, expected finite",
        ),
    ],
)
def test_bad_arguments_of_communities(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        util.community_detection(**{"embeddings": clusters(20, 4, 2, 0.1), **options})
    assert message in str(caught.value)


def test_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    util.community_detection(clusters(50, 4, 2, 0.1), show_progress_bar=True)
    assert "50/50" in capsys.readouterr().err
    util.community_detection(clusters(50, 4, 2, 0.1))
    assert capsys.readouterr().err == ""
