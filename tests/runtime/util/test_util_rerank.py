"""Hits of a search, scored again: against the tiny reranker's numbers by numpy, and by sentence-transformers' forms."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.support.rerankers import TinyReranker, write_tiny_reranker

import trivec
from trivec import InputError, TruncationError
from trivec.util import rerank, semantic_search

QUESTIONS = ["the cat", "a dog", "boat"]
CORPUS = ["sat on the mat", "a small red boat", "a dog", "the cat", "tree", "the cat", "bird"]
SEARCHED = [[2, 0, 5, 3], [], [6, 4]]
HITS = [[{"corpus_id": row, "score": 0.5} for row in rows] for rows in SEARCHED]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyReranker:
    return write_tiny_reranker(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def reranker(tiny: TinyReranker) -> Iterator[trivec.Reranker]:
    with trivec.load(tiny.folder, kind="reranker", device="cpu") as model:
        yield model


def expected(tiny: TinyReranker, question: str, rows: list[int]) -> list[tuple[int, float]]:
    logits = tiny.logits([(question, CORPUS[row]) for row in rows])
    scores = [float(1 / (1 + np.exp(-value))) for value in logits[:, 0]]
    return sorted(zip(rows, scores, strict=True), key=lambda place: -place[1])  # stable


def test_hits_in_a_new_order(tiny: TinyReranker, reranker: trivec.Reranker) -> None:
    found = rerank(reranker, QUESTIONS, CORPUS, HITS, top_k=None)
    for question, rows, places in zip(QUESTIONS, SEARCHED, found, strict=True):
        wanted = expected(tiny, question, rows)
        assert [place["corpus_id"] for place in places] == [row for row, _ in wanted]
        np.testing.assert_allclose([place["score"] for place in places], [score for _, score in wanted], rtol=1e-5)
        assert all(set(place) == {"corpus_id", "score"} for place in places)
    ids = [place["corpus_id"] for place in found[0]]
    assert ids.index(5) < ids.index(3)  # equal texts: 5 came first
    assert [len(places) for places in rerank(reranker, QUESTIONS, CORPUS, HITS, top_k=2)] == [2, 0, 2]


def test_of_a_search(tiny: TinyReranker, reranker: trivec.Reranker) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(CORPUS), 8)).astype(np.float32)
    hits = semantic_search(rng.normal(size=(3, 8)).astype(np.float32), vectors, top_k=4)
    found = rerank(reranker, QUESTIONS, CORPUS, hits, top_k=1, activation_fn="identity")
    for question, listed, (best,) in zip(QUESTIONS, hits, found, strict=True):
        logits = tiny.logits([(question, CORPUS[int(hit["corpus_id"])]) for hit in listed])[:, 0]
        assert best["score"] == pytest.approx(float(logits.max()), rel=1e-5)


def test_queries_run_together_in_windows(reranker: trivec.Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    windows: list[int] = []
    predict_iter = type(reranker).predict_iter

    def watched(self: Any, pairs: Any, **options: Any) -> Any:
        for block in predict_iter(self, pairs, **options):
            windows.append(len(block))
            yield block

    monkeypatch.setattr(type(reranker), "predict_iter", watched)
    hits = [[{"corpus_id": n % len(CORPUS)} for n in range(500)] for _ in range(5)]
    found = rerank(reranker, [f"the cat {n}" for n in range(5)], CORPUS, hits, top_k=3)
    assert windows == [1024, 1024, 452]
    assert [len(places) for places in found] == [3] * 5


def test_a_reranker_of_a_service_ranks_query_by_query() -> None:
    class Hosted:
        name, fingerprint, engine_fingerprint, truncated = "a:b", "0", "a service", None

        def __init__(self) -> None:
            self.asked: list[Any] = []

        def rank(self, query: str, documents: Any, top_k: Any = None, return_documents: bool = False) -> Any:
            assert not return_documents
            self.asked.append((query, documents, top_k))
            return [{"corpus_id": row, "score": float(-row)} for row in reversed(range(len(documents)))][:top_k]

    hosted: Any = Hosted()
    found = rerank(hosted, QUESTIONS, CORPUS, HITS, top_k=3)
    assert hosted.asked == [
        ("the cat", [CORPUS[row] for row in SEARCHED[0]], 3),
        ("boat", [CORPUS[row] for row in SEARCHED[2]], 3),
    ]
    assert [[place["corpus_id"] for place in places] for places in found] == [[3, 5, 0], [], [4, 6]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hits": HITS[:2]}, r"hits of 2 queries came for 3 queries"),
        ({"hits": [[{"corpus_id": 7}], [], []]}, r"a hit of the query at index 0 is .*a row of the corpus of 7 texts"),
        ({"hits": [[], [{"corpus_id": -1}], []]}, r"a hit of the query at index 1"),
        ({"hits": [[], [3], []]}, r"a hit of the query at index 1 is 3; expected corpus_id"),
        ({"hits": [[], [{"corpus_id": 1.0}], []]}, r"a hit of the query at index 1"),
        ({"corpus": [*CORPUS[:2], None, *CORPUS[3:]]}, r"corpus\[2\] is NoneType, expected a text"),
        ({"queries": ["the cat", None, "boat"]}, r"the query at index 1 is NoneType"),
        ({"queries": "the cat"}, r"expected a list of texts for queries, got one text"),
        ({"corpus": "the cat"}, r"expected a list of texts for the corpus, got one text"),
        ({"top_k": 0}, r"top_k must be a positive integer or None, got 0"),
        ({"on_overflow": "cut"}, r"on_overflow 'cut' is not one of"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_runs(
    changes: dict[str, Any], said: str, reranker: trivec.Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(reranker), "_rows", None)
    monkeypatch.setattr(type(reranker), "_run", None)
    given: dict[str, Any] = {"queries": QUESTIONS, "corpus": CORPUS, "hits": HITS, **changes}
    with pytest.raises(InputError, match=said):
        rerank(reranker, **given)
    with pytest.raises(TypeError, match="'batch'"):
        rerank(reranker, QUESTIONS, CORPUS, HITS, batch=3)


def test_errors_of_the_reranker_come_through(reranker: trivec.Reranker, tmp_path: Any) -> None:
    with pytest.raises(TruncationError):
        rerank(reranker, ["dog " * 40], CORPUS, [HITS[0]], on_overflow="error")
    three = write_tiny_reranker(tmp_path / "three", ("a", "b", "c"), "identity")
    with (
        trivec.load(three.folder, kind="reranker", device="cpu") as several,
        pytest.raises(InputError, match=r"rank is for models of one label"),
    ):
        rerank(several, QUESTIONS, CORPUS, HITS)
