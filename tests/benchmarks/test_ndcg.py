"""The benchmark's nDCG@10 against examples computed by hand, and its reader against a corpus of three documents."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks.harness.scifact import even_sample, ndcg, read, split_sentences


def test_ndcg_of_rankings_computed_by_hand() -> None:
    scores = np.array([[0.9, 0.1, 0.5, 0.7], [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]], dtype=np.float32)
    gains = np.array([[0, 0, 2, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
    # the first query ranks the documents 0, 3, 2, 1: 1 / log2(3) + 2 / log2(4) of 2 / log2(2) + 1 / log2(3)
    first = (0.6309297535714575 + 1.0) / (2.0 + 0.6309297535714575)
    np.testing.assert_allclose(ndcg(scores, gains), [first, 1.0, 0.0], rtol=1e-12)


def test_ndcg_ignores_what_comes_after_rank_k() -> None:
    scores = -np.arange(12, dtype=np.float32)[None]
    for rank, expected in ((9, 1 / np.log2(11)), (10, 0.0)):  # counted from 0: the 10th place counts, the 11th does not
        gains = np.zeros((1, 12), dtype=np.int64)
        gains[0, rank] = 1
        np.testing.assert_allclose(ndcg(scores, gains), [expected], rtol=1e-12)
    np.testing.assert_allclose(ndcg(scores, gains, k=11), [1 / np.log2(12)], rtol=1e-12)


def test_ndcg_of_more_relevant_documents_than_ranks() -> None:
    scores = np.array([[3, 2, 1, 0]], dtype=np.float32)
    ideal = 1 + 1 / np.log2(3)  # only two of the three relevant ones can be among the first two
    np.testing.assert_allclose(ndcg(scores, np.array([[1, 0, 1, 1]]), k=2), [1 / ideal], rtol=1e-12)


def test_read_keeps_judged_queries_and_the_order_of_the_files(tmp_path: Path) -> None:
    lines = [f'{{"_id": "d{n}", "title": "T{n}", "text": "Text {n}."}}' for n in (7, 3, 5)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    queries = [f'{{"_id": "q{n}", "text": "query {n}", "metadata": {{}}}}' for n in (2, 1, 9)]
    (tmp_path / "queries.jsonl").write_text("\n".join(queries) + "\n", encoding="utf-8")
    (tmp_path / "qrels").mkdir()
    judged = "query-id\tcorpus-id\tscore\nq1\td5\t1\nq2\td7\t1\nq2\td3\t2\n"
    (tmp_path / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")
    data = read(tmp_path)
    assert data.documents == {"d7": "T7 Text 7.", "d3": "T3 Text 3.", "d5": "T5 Text 5."}
    assert data.abstracts["d3"] == "Text 3."
    assert data.queries == {"q2": "query 2", "q1": "query 1"}
    np.testing.assert_array_equal(data.gains(), [[1, 2, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Cells grow fast here. They die! Why do they die? (Nobody knows yet.)", 3),  # "They die!" has two words
        ("A rate of 0.5 percent was seen", 1),
        ("", 0),
    ],
)
def test_split_sentences(text: str, expected: int) -> None:
    assert len(split_sentences(text)) == expected


def test_even_sample_takes_first_and_last() -> None:
    assert even_sample(list("abcdefg"), 3) == ["a", "d", "g"]
    assert even_sample(list("ab"), 3) == ["a", "b"]
