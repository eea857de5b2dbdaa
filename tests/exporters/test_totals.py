"""Averages over large maps keep the digits of float32."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs import Step, build, by_onnxruntime, lowered, proto_of, step

MEANS = {
    "global pool": step("GlobalAveragePool", "x"),
    "mean": step("ReduceMean", "x", np.array([-2, -1])),
    "mean, squeezed": step("ReduceMean", "x", np.array([3, 2]), keepdims=0),
    "adaptive": step("AveragePool", "x", kernel_shape=[160, 200]),
}


def _inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.uniform(0.5, 1.5, (2, 3, 160, 200)).astype(np.float32)
    return image, rng.random((2, 1, 160, 200)) > 0.1


@pytest.mark.parametrize("node", MEANS.values(), ids=MEANS)
def test_a_mean_over_a_large_map_is_exact_to_float32(node: Step) -> None:
    image, mask = _inputs()
    result = by_onnxruntime(proto_of(lowered(build([node], image.shape[1:], 18))))(image, mask)
    exact = (image.astype(np.float64) * mask).sum((2, 3)) / mask.sum((2, 3))
    np.testing.assert_allclose(result.reshape(exact.shape), exact, rtol=3e-7)


def test_a_normalised_large_map_has_no_mean_left() -> None:
    image, mask = _inputs()
    node = step("InstanceNormalization", "x", np.ones(3), np.zeros(3))
    result = by_onnxruntime(proto_of(lowered(build([node], image.shape[1:], 18))))(image, mask).astype(np.float64)
    assert np.abs((result * mask).sum((2, 3)) / mask.sum((2, 3))).max() < 3e-7
