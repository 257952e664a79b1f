"""Figures of scores against scipy and by hand, and gates that damaged scores do not pass."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.support.rerankers import write_tiny_reranker

import trivec
from trivec._gate.checks import bounds_of, check_route, missed
from trivec._gate.score_figures import SCORE_BOUNDS, compare_scores, spearman, swapped
from trivec._gate.texts import Pair, Text, pairs_of, verification_texts
from trivec._gate.verify import report, verify

RNG = np.random.default_rng(3)
REFERENCE = RNG.normal(scale=4, size=(600, 1)).astype(np.float32)
KINDS = ["even", "odd"] * 300


def figures(logits: Any, reference: Any = REFERENCE) -> Any:
    return compare_scores(logits, logits[::7], 7, reference, KINDS)


def test_spearman_is_scipys() -> None:
    a = RNG.normal(size=200)
    for b in (a + RNG.normal(size=200), -a, a**3, np.round(a), RNG.integers(0, 3, 200).astype(float)):
        expected = stats.spearmanr(a, b).statistic
        assert spearman(a, b) == pytest.approx(expected, abs=1e-12)
    assert spearman(np.ones(5), np.ones(5)) == 1.0
    assert spearman(np.ones(5), np.arange(5.0)) == 0.0


def test_swapped_by_hand() -> None:
    theirs = np.array([0.0, 1.0, 1.1, 3.0])  # wide pairs: all but (1, 2)
    assert swapped(theirs, theirs, 0.5) == 0.0
    assert swapped(-theirs, theirs, 0.5) == 1.0
    assert swapped(np.array([0.0, 1.1, 1.0, 3.0]), theirs, 0.5) == 0.0
    assert swapped(np.array([0.0, 3.5, 1.1, 3.0]), theirs, 0.5) == pytest.approx(1 / 5)
    assert swapped(np.array([0.0, 0.0, 1.1, 3.0]), theirs, 0.5) == pytest.approx(1 / 5)  # equal is not in order


def test_figures_by_hand() -> None:
    sigma = float(REFERENCE.std())
    off = np.zeros_like(REFERENCE)
    off[5], off[6] = 0.5 * sigma, -0.25 * sigma
    found = figures(REFERENCE + off)
    assert found.sigma == pytest.approx(sigma, rel=1e-6)
    assert found.largest == pytest.approx(0.5, rel=1e-4)
    assert found.max_diff == pytest.approx(0.5 * sigma, rel=1e-4)
    assert found.rms == pytest.approx(np.sqrt((0.25 + 0.0625) / 600), rel=1e-4)
    assert (found.worst, [index for index, _ in found.lowest[:2]]) == (5, [5, 6])
    assert found.by_kind["odd"]["max"] == pytest.approx(0.5, rel=1e-4)
    assert found.by_kind["even"]["max"] == pytest.approx(0.25, rel=1e-4)


def test_of_several_labels_the_worst_counts() -> None:
    reference = np.concatenate([REFERENCE, 100 * REFERENCE], axis=1)
    off = np.concatenate([np.full_like(REFERENCE, 1.0), np.zeros_like(REFERENCE)], axis=1)
    found = figures(reference + off, reference)
    assert found.rms == pytest.approx(1 / REFERENCE.std(), rel=1e-3)
    found = figures(np.concatenate([REFERENCE, -100 * REFERENCE], axis=1), reference)
    assert found.spearman == pytest.approx(-1)
    assert found.swapped == 1


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_what_passes_and_what_does_not(precision: str) -> None:
    bounds = SCORE_BOUNDS[precision]
    assert bounds.missed(figures(REFERENCE.copy())) == []
    sigma = float(REFERENCE.std())
    noisy = REFERENCE + RNG.normal(scale=0.3 * sigma, size=REFERENCE.shape).astype(np.float32)
    assert bounds.missed(figures(noisy))
    one = REFERENCE.copy()
    one[17] += 2 * bounds.largest * sigma
    assert any("largest difference" in said for said in bounds.missed(figures(one)))
    broken = REFERENCE.copy()
    broken[3] = np.nan
    assert bounds.missed(figures(broken))
    apart = dataclasses.replace(figures(REFERENCE.copy()), batch_diff=1e-3)
    assert bounds.missed(apart) == ["alone and in a batch differ by 1.00e-03 > 1e-05"]
    assert missed(apart, bounds_of(precision)["score"])
    assert "max" in bounds.asked()


def test_int8_is_asked_for_its_ranks() -> None:
    bounds = SCORE_BOUNDS["int8"]
    sigma = float(REFERENCE.std())
    slight = REFERENCE + RNG.normal(scale=0.05 * sigma, size=REFERENCE.shape).astype(np.float32)
    assert bounds.missed(figures(slight)) == []
    low = dataclasses.replace(figures(slight), spearman=0.97, swapped=0.02, rms=0.2)
    assert len(bounds.missed(low)) == 3


def test_pairs_of_texts() -> None:
    texts = [Text("a", "One. Two three."), Text("a", "four five six"), Text("b", "seven"), Text("b", "八。九")]
    assert pairs_of(texts) == [
        Pair("a", ("One.", "Two three.")),
        Pair("a", ("One.", "five six")),
        Pair("a", ("four", "five six")),
        Pair("a", ("four", "Two three.")),
        Pair("b", ("sev", "en")),
        Pair("b", ("sev", "九")),
        Pair("b", ("八。", "九")),
        Pair("b", ("八。", "en")),
    ]
    shipped = pairs_of(verification_texts())
    assert len(set(shipped)) == len(shipped) > 1000
    assert len({pair.kind for pair in shipped}) >= 12
    assert any(pair.text == ("", "") for pair in shipped)


def test_verify_compares_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = write_tiny_reranker(tmp_path / "model")
    checks = verify(tiny.folder, device="cpu", threads=1)
    assert [(check.precision, check.head, check.failed) for check in checks] == [("fp32", "score", [])]
    assert checks[0].texts == len(pairs_of(verification_texts()))
    lines = report(checks).splitlines()
    assert lines[0].split()[5:9] == ["rms", "max", "Spearman", "reordered"]
    assert checks[0].record("measured")["spearman"] == 1.0
    with trivec.load(tiny.folder, kind="reranker", device="cpu") as reranker:
        pairs = pairs_of(verification_texts())[:40]
        reference = reranker.represent([pair.text for pair in pairs])
        assert reference.dense is not None
        reference.dense[3] += 1
        (check,) = check_route(reranker, pairs, None, reference, bounds_of("fp32"))
        assert "largest difference" in check.failed[0]
        assert check.worst_text == " | ".join(pairs[3].text)
