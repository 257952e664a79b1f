"""`compare` and `diff --judged` with a model of late interaction: figures by hand, what is kept, as a second stage."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runtime.compare.test_compare import GAINS, QUERIES, TEXTS, folder
from tests.runtime.compare.test_second_stage import DEPTH, again, bm25_hits, ndcg
from tests.support.tiny_heads import hybrid
from tests.support.tiny_late import DIM, TinyLate, write_tiny_late
from tests.support.tiny_model import TinyModel

import trivec
from trivec import LateEncoder
from trivec.compare import compare, diff, plan

__all__ = ["folder"]  # a fixture


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLate:
    return write_tiny_late(tmp_path_factory.mktemp("tiny") / "model")


def hits(scores: Any) -> list[list[int]]:
    found: list[list[int]] = np.argsort(-np.round(scores, 4), axis=1, kind="stable").tolist()
    return found


def test_figures_by_hand(tiny: TinyLate, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, asked = str(tiny.folder), 0
    encode_iter = LateEncoder.encode_iter

    def counted(self: LateEncoder, *texts: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        return encode_iter(self, *texts, **options)

    monkeypatch.setattr(LateEncoder, "encode_iter", counted)
    assert [planned.texts for planned in plan(folder, [name])] == [45]
    found = compare(folder, [name, "bm25", f"bm25+{name}"], depth=DEPTH, device="cpu", threads=1)
    late, bm25, second = found.rows
    expected = hits(tiny.scores(QUERIES, TEXTS))
    assert late.ndcg.value == pytest.approx(ndcg(expected), abs=1e-6)
    assert late.ndcg.value != bm25.ndcg.value
    tokens = sum(len(vectors) for vectors in tiny.vectors(TEXTS, "document"))
    assert (late.dims, late.what) == (DIM, "fp32 on cpu")
    assert late.bytes_per_vector == pytest.approx(4 * DIM * tokens / len(TEXTS))
    assert bm25.cosine_min is None
    assert late.query_ms is not None

    def score(query: str, text: str) -> float:
        return round(float(tiny.scores([query], [text])[0, 0]), 4)

    assert second.ndcg.value == pytest.approx(ndcg(again(bm25_hits(), score)), abs=1e-6)
    assert second.what == f"{DEPTH} by fp32 on cpu"
    assert asked == 2  # queries and documents, each once
    same = compare(folder, [name], device="cpu", threads=1)
    assert same.rows[0].ndcg == late.ndcg
    assert asked == 2


def test_a_second_stage_is_kept_by_what_decides_ranks(tiny: TinyLate, folder: Path) -> None:
    """Queries that are cut elsewhere have other scores, whatever the documents' fingerprint says."""
    with trivec.load(tiny.folder, kind="late", device="cpu") as late:
        late.query_length = 5
        scores = late.similarity(late.encode_query(QUERIES), late.encode_document(TEXTS))
        found = compare(folder, [late], device="cpu")
        assert found.rows[0].ndcg.value == pytest.approx(ndcg(hits(scores)), abs=1e-6)


def test_the_mean(tiny: TinyLate, folder: Path, tmp_path: Path) -> None:
    """It ranks as the sum does, and is searched by its own name."""
    made = write_tiny_late(tmp_path / "mean", similarity="meanmaxsim")
    sums, means = (compare(folder, [str(model.folder)], device="cpu").rows[0] for model in (tiny, made))
    assert sums.ndcg == means.ndcg


def test_diff_with_judgements(tiny: TinyLate, tiny_model: TinyModel, folder: Path, tmp_path: Path) -> None:
    with trivec.load(tiny.folder, kind="late", device="cpu") as late:
        found = diff(late, late, judged=folder).heads["colbert"]
        assert found.equal
        assert found.ndcg is not None
        wanted = ndcg(hits(tiny.scores(QUERIES, TEXTS)))
        np.testing.assert_allclose([found.ndcg.a or 0, found.ndcg.b or 0, found.ndcg.mixed or 0], wanted, atol=1e-6)
    several = hybrid(tmp_path / "hybrid", tiny_model)
    with trivec.load(several.folder, device="cpu") as m3:
        queries = m3.encode_query(QUERIES, return_colbert_vecs=True).colbert
        documents = m3.encode_document(TEXTS, return_colbert_vecs=True).colbert
        wanted = ndcg(hits([[(q @ d.T).max(1).mean() for d in documents] for q in queries]))
        judged = diff(m3, m3, judged=folder, heads=["colbert"]).heads["colbert"].ndcg
        assert judged is not None
        assert judged.a == pytest.approx(wanted, abs=1e-6)
    assert GAINS.sum() > 0
