"""Segmentation, sampling and surrogate, each against a plain statement of what it means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from lmonnx.errors import OptionError
from lmonnx.explain.sampling import keep_vectors, masks
from lmonnx.explain.segmentation import superpixels
from lmonnx.explain.surrogate import fit, proximity


def test_superpixels_are_numbered_without_gaps_and_repeat(photo: Image.Image) -> None:
    pixels = np.asarray(photo)
    labels = superpixels(pixels, 16)
    assert labels.shape == pixels.shape[:2]
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))
    assert 8 <= labels.max() + 1 <= 24
    np.testing.assert_array_equal(labels, superpixels(pixels, 16))


@pytest.mark.parametrize("shape", [(64, 64), (7, 90), (1, 5)])
def test_a_picture_of_one_colour_is_cut_too(shape: tuple[int, int]) -> None:
    labels = superpixels(np.full((*shape, 3), 200, np.uint8), 4)
    assert labels.shape == shape
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))


@pytest.mark.parametrize("segments", [1, 0, -3, 26, 50_000, 2.5, True, "50"])
def test_segments_out_of_range(segments: Any) -> None:
    with pytest.raises(OptionError, match="segments="):
        superpixels(np.zeros((5, 5, 3), np.uint8), segments)


def test_keep_vectors() -> None:
    keep = keep_vectors(2000, 30, seed=3)
    assert keep.shape == (2000, 30)
    assert keep.dtype == np.bool_
    assert keep[0].all()
    assert abs(keep[1:].mean() - 0.5) < 0.01
    assert np.abs(np.corrcoef(keep[1:].T) - np.eye(30)).max() < 0.12
    np.testing.assert_array_equal(keep, keep_vectors(2000, 30, seed=3))
    assert (keep != keep_vectors(2000, 30, seed=4)).any()


@pytest.mark.parametrize(
    ("samples", "seed", "name"), [(1, 0, "samples"), (2.0, 0, "samples"), (9, -1, "seed"), (9, None, "seed")]
)
def test_wrong_sampling_options(samples: Any, seed: Any, name: str) -> None:
    with pytest.raises(OptionError, match=f"{name}="):
        keep_vectors(samples, 5, seed)


def test_masks_keep_the_pixels_of_the_kept_segments() -> None:
    rng = np.random.default_rng(0)
    labels, keep = rng.integers(0, 6, (9, 7)).astype(np.int32), rng.random((10, 6)) < 0.5
    batches = list(masks(keep, labels, 4))
    assert [batch.shape for batch in batches] == [(4, 1, 9, 7), (4, 1, 9, 7), (2, 1, 9, 7)]
    expected = np.array([np.isin(labels, np.flatnonzero(vector)) for vector in keep])[:, None]
    np.testing.assert_array_equal(np.concatenate(batches), expected)


def test_masks_are_made_one_batch_at_a_time() -> None:
    """All at once these would be 1 TiB."""
    labels = np.zeros((1024, 1024), np.int32)
    stream = masks(np.ones((1 << 20, 1), bool), labels, 2)
    assert next(stream).shape == (2, 1, 1024, 1024)


def test_proximity_is_the_kernel_of_the_cosine_distance() -> None:
    from sklearn.metrics import pairwise_distances

    keep = keep_vectors(50, 12, seed=0)
    distance = pairwise_distances(keep.astype(float), np.ones((1, 12)), metric="cosine").ravel()
    np.testing.assert_allclose(proximity(keep), np.sqrt(np.exp(-(distance**2) / 0.25**2)), atol=1e-12)
    assert proximity(np.ones((1, 5), bool)) == 1
    assert proximity(np.zeros((1, 5), bool)) == pytest.approx(np.exp(-8))  # distance 1


def test_fit_solves_the_weighted_ridge_equations() -> None:
    rng = np.random.default_rng(5)
    keep, targets = keep_vectors(80, 6, seed=1), rng.random(80)
    weight = proximity(keep)
    design = np.column_stack([keep, np.ones(80)])
    penalty = np.diag([1.0] * 6 + [0.0])  # the intercept is free
    solution = np.linalg.solve(design.T @ (weight[:, None] * design) + penalty, design.T @ (weight * targets))
    result = fit(keep, targets)
    np.testing.assert_allclose([*result.weights, result.intercept], solution, atol=1e-10)
    residual = targets - design @ solution
    mean = np.average(targets, weights=weight)
    assert result.score == pytest.approx(1 - (weight * residual**2).sum() / (weight * (targets - mean) ** 2).sum())


def test_a_network_that_does_not_care_gets_no_weights() -> None:
    result = fit(keep_vectors(50, 6, seed=1), np.full(50, 0.25, np.float32))
    np.testing.assert_allclose(result.weights, 0, atol=1e-12)
    assert result.intercept == pytest.approx(0.25)
