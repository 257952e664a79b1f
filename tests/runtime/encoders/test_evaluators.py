"""sentence-transformers' own evaluators and miners with an encoder of ours in the model's place: the same numbers."""

import random
import sys
import types
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.sentence_transformer import evaluation
from sentence_transformers.sentence_transformer import modules as st
from sentence_transformers.util import SimilarityFunction
from tests.support.static_models import bert_tokenizer, table

import trivec

WORDS = ("the", "cat", "dog", "sat", "on", "mat", "river", "old", "red", "boat")


def texts(count: int, seed: int) -> list[str]:
    """Of different words, since those of the same have the same vector: which of them is found first is chance."""
    choose = random.Random(seed)
    found: dict[tuple[str, ...], str] = {}
    while len(found) < count:
        words = choose.choices(WORDS, k=choose.randint(5, 12))
        found[tuple(sorted(words))] = " ".join(words)
    return list(found.values())


A, B, C = texts(30, 1), texts(30, 2), texts(30, 3)
SCORES = np.random.default_rng(4).random(30).round(2).tolist()
QUERIES = {f"q{i}": text for i, text in enumerate(texts(8, 5))}
CORPUS = {f"d{i}": text for i, text in enumerate(dict.fromkeys(A + B))}
RELEVANT = {name: {f"d{3 * i}", f"d{3 * i + 1}"} for i, name in enumerate(QUERIES)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[SentenceTransformer, Any]:
    """A model, and ours of the same folder."""
    place = tmp_path_factory.mktemp("evaluated") / "model"
    module = st.StaticEmbedding(bert_tokenizer(), embedding_weights=table(dim=24))
    prompts = {"query": "the old ", "document": "red "}
    SentenceTransformer(modules=[module], prompts=prompts, device="cpu").save_pretrained(str(place))
    return SentenceTransformer(str(place), device="cpu"), trivec.load(place)


class Columns:
    """What miners read of a datasets.Dataset, which would bring 20 packages, and what they make."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns

    @classmethod
    def from_dict(cls, columns: dict[str, list[Any]]) -> "Columns":
        return cls(columns)

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    def __getitem__(self, name: str) -> list[Any]:
        return self.columns[name]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def to_pandas(self) -> Any:
        return import_module("pandas").DataFrame(self.columns)


class LocalNanoEvaluator(evaluation.NanoBEIREvaluator):  # type: ignore[misc]
    """NanoBEIR's class, whose data sets are here and not on the Hub."""

    def _validate_dataset_names(self) -> None:
        """Any name will do."""

    def _load_dataset(self, dataset_name: str, **options: Any) -> Any:
        shift = len(dataset_name)
        relevant = {name: {f"d{shift + i}"} for i, name in enumerate(QUERIES)}
        options = {k: v for k, v in options.items() if v is not None}
        return evaluation.InformationRetrievalEvaluator(QUERIES, CORPUS, relevant, name=dataset_name, **options)


EVERY = list(SimilarityFunction.possible_values())[:4]
EVALUATORS: dict[str, Callable[[], Any]] = {
    "similarity": lambda: evaluation.EmbeddingSimilarityEvaluator(A, B, SCORES),
    "every similarity": lambda: evaluation.EmbeddingSimilarityEvaluator(A, B, SCORES, similarity_fn_names=EVERY),
    "similarity, cut": lambda: evaluation.EmbeddingSimilarityEvaluator(A, B, SCORES, truncate_dim=9),
    "similarity, bits": lambda: evaluation.EmbeddingSimilarityEvaluator(A, B, SCORES, precision="ubinary"),
    "retrieval": lambda: evaluation.InformationRetrievalEvaluator(QUERIES, CORPUS, RELEVANT),
    "retrieval, cut, in chunks": lambda: evaluation.InformationRetrievalEvaluator(
        QUERIES, CORPUS, RELEVANT, truncate_dim=9, corpus_chunk_size=7, query_prompt="dog ", corpus_prompt_name="query"
    ),
    "retrieval by two": lambda: evaluation.InformationRetrievalEvaluator(
        QUERIES, CORPUS, RELEVANT, score_functions={"cosine": util.cos_sim, "dot": util.dot_score}
    ),
    "classes": lambda: evaluation.BinaryClassificationEvaluator(
        A, B, [int(score > 0.5) for score in SCORES], similarity_fn_names=EVERY
    ),
    "triplets": lambda: evaluation.TripletEvaluator(A, B, C, similarity_fn_names=EVERY),
    "paraphrases": lambda: evaluation.ParaphraseMiningEvaluator(
        {str(i): text for i, text in enumerate(A + B)}, [(str(i), str(i + 30)) for i in range(10)]
    ),
    "translation": lambda: evaluation.TranslationEvaluator(A, B),
    "reranking": lambda: evaluation.RerankingEvaluator(
        [{"query": q, "positive": B[i : i + 2], "negative": C[i : i + 6]} for i, q in enumerate(QUERIES.values())]
    ),
    "NanoBEIR": lambda: LocalNanoEvaluator(dataset_names=["msmarco", "nq"]),
}


@pytest.mark.parametrize("name", EVALUATORS)
def test_evaluators(pair: tuple[SentenceTransformer, Any], name: str) -> None:
    expected, found = (EVALUATORS[name]()(model) for model in pair)
    assert set(found) == set(expected)
    assert len(found) > 0
    for metric, value in expected.items():
        assert found[metric] == pytest.approx(value, abs=1e-6), metric


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"range_min": 2, "max_score": 0.95, "min_score": 0.1},
        {"output_format": "labeled-pair", "sampling_strategy": "top"},
    ],
)
def test_mine_hard_negatives(
    pair: tuple[SentenceTransformer, Any],
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    datasets = types.ModuleType("datasets")
    datasets.__spec__, datasets.Dataset = ModuleSpec("datasets", None), Columns  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    monkeypatch.setattr("sentence_transformers.util.hard_negatives.is_datasets_available", lambda: True)
    rows = Columns({"question": list(QUERIES.values()), "answer": A[:8]})
    given = {"num_negatives": 2, "range_max": 12, "corpus": A + B, "verbose": False, **options}
    expected, found = (util.mine_hard_negatives(rows, model, **given).columns for model in pair)
    assert found == expected
    assert len(found["question"]) > 0
    again = [util.mine_hard_negatives(rows, pair[1], cache_folder=str(tmp_path), **given) for _ in range(2)]
    assert [mined.columns for mined in again] == [expected, expected]


def test_their_functions_take_our_encoder_and_its_tensors(pair: tuple[SentenceTransformer, Any]) -> None:
    theirs, ours = pair
    expected, found = (util.paraphrase_mining(model, A + B, top_k=5) for model in pair)
    assert [row[1:] for row in found[:40]] == [row[1:] for row in expected[:40]]
    vectors = [model.encode(A, convert_to_tensor=True) for model in pair]
    one, other = (
        util.semantic_search(v[:3], v, score_function=m.similarity) for v, m in zip(vectors, pair, strict=True)
    )
    assert [[hit["corpus_id"] for hit in hits] for hits in other] == [
        [hit["corpus_id"] for hit in hits] for hits in one
    ]
    np.testing.assert_allclose(ours.similarity(*vectors).numpy(), theirs.similarity(*vectors).numpy(), atol=1e-6)
