"""The gate's figures, by hand, and its verdicts."""

import numpy as np
import pytest

from trivec._gate.figures import BOUNDS, Bounds, Figures, compare, cosine, failures, top_overlap


def test_cosine_by_hand() -> None:
    a = np.array([[3, 4], [1, 0], [0, 0], [0, 0], [1, np.nan]], dtype=np.float32)
    b = np.array([[4, 3], [0, 2], [0, 0], [1, 0], [1, 1]], dtype=np.float32)
    np.testing.assert_allclose(cosine(a, b), [0.96, 0, 1, 0, -1], atol=1e-7)


def test_top_overlap_counts_neighbours_and_forgives_ties() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(60, 8)).astype(np.float32)
    assert top_overlap(reference, reference) == 1.0
    assert top_overlap(reference[::-1].copy(), reference) < 0.4  # chance is 10 of 59
    tied = np.repeat(reference[:4], 15, axis=0)  # every neighbour has 13 equals
    assert top_overlap(tied + 1e-6 * rng.normal(size=tied.shape).astype(np.float32), tied) == 1.0


def test_compare_finds_the_worst_text_and_the_kinds() -> None:
    reference = np.eye(12, dtype=np.float32)
    vectors = reference.copy()
    vectors[7, 0] = 1.0  # 45 degrees off
    alone = vectors[::3] + np.float32(2e-5)
    figures = compare(vectors, alone, 3, reference, ["a", "b"] * 6)
    assert figures.worst == 7
    assert figures.cosine_min == pytest.approx(0.5**0.5)
    assert figures.by_kind["a"]["min"] == 1.0
    assert figures.by_kind["b"]["mean"] == pytest.approx((5 + 0.5**0.5) / 6, abs=1e-6)
    assert figures.batch_diff == pytest.approx(2e-5, rel=0.01)


def test_each_bound_is_checked_and_nan_fails() -> None:
    def figures(low: float = 1.0, mean: float = 1.0, top: float = 1.0, diff: float = 0.0) -> Figures:
        return Figures(low, mean, top, diff, {}, 0)

    assert failures(figures(), BOUNDS["int8"]) == []
    assert failures(figures(low=0.96), BOUNDS["int8"]) == ["cosine min 0.960000 < 0.97"]
    assert failures(figures(mean=0.99), BOUNDS["int8"]) == ["cosine mean 0.990000 < 0.995"]
    assert failures(figures(top=0.8), BOUNDS["int8"]) == ["top-10 overlap 0.8000 < 0.9"]
    assert failures(figures(diff=2e-5), BOUNDS["fp32"]) == ["alone and in a batch differ by 2.00e-05 > 1e-05"]
    assert len(failures(figures(float("nan"), float("nan"), float("nan"), float("nan")), BOUNDS["int8"])) == 4
    assert failures(figures(low=0.99998), Bounds(0.99999)) == ["cosine min 0.999980 < 0.99999"]
