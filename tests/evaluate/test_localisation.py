from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_score

from lmonnx.errors import ImageError
from lmonnx.evaluate.localisation import mass_accuracy, rank_accuracy
from lmonnx.explain.explanation import Explanation

SIDE = 12


def explanation(segments: np.ndarray, weights: list[float]) -> Explanation:
    return Explanation(
        index=0,
        name="",
        probability=1.0,
        pixels=np.zeros((*segments.shape, 3), np.uint8),
        segments=segments.astype(np.int32),
        weights=np.array(weights),
        intercept=0.0,
        score=1.0,
        settings={},
        provenance={},
    )


def quarters(weights: list[float]) -> Explanation:
    """Four segments of 36 pixels, as one reads."""
    rows, columns = np.indices((SIDE, SIDE)) // (SIDE // 2)
    return explanation(2 * rows + columns, weights)


def truth(height: int, width: int) -> np.ndarray:
    """An object in the top left corner."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:height, :width] = True
    return mask


def test_mass_is_what_supports_and_is_shared_by_area() -> None:
    given = quarters([3.0, 1.0, -5.0, 0.0])
    assert mass_accuracy(given, truth(6, 6)) == pytest.approx(0.75)
    assert mass_accuracy(given, truth(6, 3)) == pytest.approx(0.375)
    assert mass_accuracy(given, truth(6, 9)) == pytest.approx(0.875)
    assert mass_accuracy(quarters([-1.0, 0.0, 0.0, -2.0]), truth(6, 6)) == 0.0


def test_segments_of_different_areas() -> None:
    segments = np.zeros((SIDE, SIDE), int)
    segments[:2, :2] = 1
    assert mass_accuracy(explanation(segments, [1.0, 1.0]), truth(2, 2)) == pytest.approx(0.5)
    assert rank_accuracy(explanation(segments, [1.0, 0.5]), truth(2, 2)) == 1.0  # denser, though lighter


def test_rank_of_distinct_pixels_is_precision_at_the_size_of_the_object() -> None:
    rng = np.random.default_rng(0)
    weights = rng.permutation(SIDE * SIDE).astype(float)
    given = explanation(np.arange(SIDE * SIDE).reshape(SIDE, SIDE), weights.tolist())
    mask = truth(5, 7)
    chosen = weights >= SIDE * SIDE - 35
    assert rank_accuracy(given, mask) == pytest.approx(precision_score(mask.ravel(), chosen))


def test_rank_shares_ties() -> None:
    assert rank_accuracy(quarters([1.0, 1.0, 1.0, 1.0]), truth(3, 4)) == pytest.approx(12 / 144)
    assert rank_accuracy(quarters([2.0, 1.0, 0.0, 0.0]), truth(6, 9)) == pytest.approx((36 + 9) / 54)
    assert rank_accuracy(quarters([-3.0, -1.0, -2.0, -4.0]), truth(6, 6)) == 0.0


@pytest.mark.parametrize("wrong", [np.ones((SIDE, SIDE), np.uint8), np.ones((SIDE, 3), bool), truth(0, 0)])
def test_a_truth_that_does_not_fit(wrong: np.ndarray) -> None:
    for score in (mass_accuracy, rank_accuracy):
        with pytest.raises(ImageError, match=r"the true object has to be bool \[12, 12\]"):
            score(quarters([1.0, 0.0, 0.0, 0.0]), wrong)
