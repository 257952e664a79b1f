"""Figures of rankings against pytrec-eval-terrier (trec_eval's own code) and the package rbo."""

from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from trivec.compare._judged import Judged, ranked, read_judged
from trivec.compare._metrics import NONE, interval, ndcg, overlap, rank_biased_overlap, recall, reciprocal_rank
from trivec.util import dot_score


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(st.integers(0, 10_000), st.integers(2, 160), st.integers(1, 5), st.sampled_from([0.02, 0.3]))
def test_trec_eval_says_the_same(seed: int, documents: int, queries: int, share: float) -> None:
    """Graded and negative judgements, queries that are documents as well, few documents and more than 100."""
    rng = np.random.default_rng(seed)
    d, q = (rng.normal(size=(n, 6)).astype(np.float32) for n in (documents, queries))
    ids, asked = [f"d{n}" for n in range(documents)], [f"d{n}" if n % 2 else f"q{n}" for n in range(queries)]
    judgements = {
        query: {doc: int(rng.integers(-1, 4)) for doc in ids if rng.random() < share} | {ids[-1]: 1} for query in asked
    }
    judged = Judged(dict.fromkeys(ids, "text"), dict.fromkeys(asked, "text"), judgements)
    found = ranked(judged, q, d, "dot")
    scores = dot_score(q, d)
    for k, cut in ((10, 10), (100, 100)):
        run = {}
        for i, query in enumerate(asked):
            others = {doc: float(score) for doc, score in zip(ids, scores[i], strict=True) if doc != query}
            best = sorted(others, key=lambda doc: -others[doc])[:cut]
            run[query] = {doc: others[doc] for doc in best}
        truth = {query: {doc: gain for doc, gain in row.items() if doc != query} for query, row in judgements.items()}
        names = {f"ndcg_cut.{k}", f"recall.{k}", "recip_rank"}
        expected = pytrec_eval.RelevanceEvaluator(truth, names).evaluate(run)
        ours = {
            f"ndcg_cut_{k}": ndcg(found.reached, found.possible, k),
            f"recall_{k}": recall(found.reached, found.possible, k),
            "recip_rank": reciprocal_rank(found.reached, k),
        }
        for name, values in ours.items():
            theirs = [expected[query][name] if query in expected else 0.0 for query in asked]
            np.testing.assert_allclose(values, theirs, atol=1e-9, err_msg=name)


def test_rank_biased_overlap_of_the_package_rbo() -> None:
    """rbo 0.1.3, RankingSimilarity(x, y).rbo_ext(p=0.9), of rankings by numpy's generator 0."""
    rng = np.random.default_rng(0)
    a = np.stack([rng.permutation(30)[:12] for _ in range(6)])
    b = np.stack([rng.permutation(30)[:12] for _ in range(6)])
    b[1], b[2] = a[1], a[2][::-1]
    expected = [0.47466358964240263, 1, 0.4442989627905196, 0.09732363580431821, 0.0711727527968182, 0.2488307907909741]
    assert rank_biased_overlap(a, b) == pytest.approx(expected, abs=1e-12)
    x, y = (np.pad(rows, ((0, 0), (0, 5)), constant_values=NONE) for rows in (a, b))  # of 17 places
    assert rank_biased_overlap(x, y) == pytest.approx(expected, abs=1e-12)


def test_rankings_of_few_hits_or_none() -> None:
    none = np.full((1, 4), NONE)
    some = np.array([[3, 1, NONE, NONE]])
    for same in (none, some):
        assert rank_biased_overlap(same, same) == pytest.approx([1.0])
        assert overlap(same, same) == pytest.approx([1.0])
    assert rank_biased_overlap(none, some) == pytest.approx([0.0])
    assert overlap(none, some) == pytest.approx([0.0])
    assert overlap(some, np.array([[1, 2, 5, 6]])) == pytest.approx([1 / 4])  # of the longer one
    gains, judged = np.zeros((1, 4), np.int64), np.zeros((1, 0), np.int64)
    for figure in (ndcg(gains, judged), recall(gains, judged), reciprocal_rank(gains)):
        assert figure == pytest.approx([0.0])


def test_interval_is_about_the_normal_one() -> None:
    """Of 500 values: the mean and 1.96 standard errors, to a tenth of those."""
    values = np.random.default_rng(3).beta(2, 3, size=500)
    error = values.std() / np.sqrt(len(values))
    low, high = interval(values)
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error)


def test_fewer_documents_keep_what_is_relevant(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    lines = [f'{{"_id": "d{n}", "title": "", "text": "Text {n}."}}' for n in range(6)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    asked = [f'{{"_id": "q{n}", "text": "query {n}"}}' for n in range(3)]
    (tmp_path / "queries.jsonl").write_text("\n".join(asked) + "\n", encoding="utf-8")
    judged = "query-id\tcorpus-id\tscore\nq0\td4\t1\nq0\td1\t0\nq1\td5\t2\nq2\td3\t1\n"
    (tmp_path / "qrels/dev.tsv").write_text(judged, encoding="utf-8")
    found = read_judged(tmp_path, "dev", 4)
    assert list(found.documents) == ["d0", "d3", "d4", "d5"]
    assert found.judgements == {"q0": {"d4": 1}, "q1": {"d5": 2}, "q2": {"d3": 1}}
    found = read_judged(tmp_path, "dev", 2)
    assert (list(found.documents), list(found.queries)) == (["d3", "d4"], ["q0", "q2"])
    assert len(read_judged(tmp_path, "dev", 100).documents) == 6
