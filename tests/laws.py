"""The laws that every mask-aware graph obeys, whatever it computes."""

from __future__ import annotations

import numpy as np

from tests.graphs import Run

#: What a removed pixel may hold.
RUBBISH = (np.nan, np.inf, -np.inf, 1e30, -7.0)
#: Operators of which onnxruntime computes the last few numbers of a tensor, or of a thread's share of it, by another
#: function than the others: these may differ in their last bit from what they were elsewhere (seen in 1.31).
ENDS = {"Acos", "Asin", "Atan", "Cos", "LRN", "Log", "Mish", "Sin", "Softplus"}


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Equal within ``tolerance`` standard deviations of ``expected``; nothing is NaN."""
    assert actual.shape == expected.shape
    assert np.isfinite(expected).all()
    scale = float(np.std(expected)) or 1.0
    worst = float(np.abs(actual.astype(np.float64) - expected).max()) / scale
    assert worst <= tolerance, f"off by {worst:.2e} standard deviations, allowed {tolerance:.2e}"


def check_laws(
    run: Run,
    image: np.ndarray,
    mask: np.ndarray,
    *,
    original: np.ndarray,
    tolerance: float,
    rounding: float,
    bits: bool = True,
) -> None:
    """Checks every law on pairs of ``image`` [n, C, H, W] and ``mask`` [n, 1, H, W]; row 0 of ``mask`` is all True.

    Args:
        run: the graph.
        image: any values.
        mask: the masks, an all-False one among them.
        original: what the original network gives for ``image``, compared within ``tolerance``.
        tolerance: in standard deviations of ``original``.
        rounding: by how much a row alone may differ, in standard deviations of the result.
        bits: whether the graph is without :data:`ENDS`, so that a row is the same bits at any place of a batch.
    """
    result = run(image, mask)
    assert np.isfinite(result).all(), "an output is not finite"
    assert not mask.any(axis=(1, 2, 3)).all(), "no all-False mask among the masks"
    nothing_removed_is_the_original(run, image, mask, original, tolerance)
    removed_pixels_change_nothing(run, image, mask, result)
    rows_are_alone(run, image, mask, result, rounding)
    places_are_alike(run, image, mask, result, 0.0 if bits else rounding)
    batches_broadcast(run, image, mask)


def nothing_removed_is_the_original(
    run: Run, image: np.ndarray, mask: np.ndarray, original: np.ndarray, tolerance: float
) -> None:
    assert mask[0].all()
    assert_close(run(image, np.repeat(mask[:1], len(image), axis=0)), original, tolerance)


def removed_pixels_change_nothing(run: Run, image: np.ndarray, mask: np.ndarray, result: np.ndarray) -> None:
    for rubbish in RUBBISH:
        np.testing.assert_array_equal(run(np.where(mask, image, image.dtype.type(rubbish)), mask), result)


def rows_are_alone(run: Run, image: np.ndarray, mask: np.ndarray, result: np.ndarray, rounding: float) -> None:
    """To rounding, because a kernel may sum a batch of one in another order."""
    for i in range(len(mask)):
        alone = run(image[i : i + 1], mask[i : i + 1])[0]
        np.testing.assert_allclose(alone, result[i], rtol=rounding, atol=rounding * (np.std(result) or 1.0))


def places_are_alike(run: Run, image: np.ndarray, mask: np.ndarray, result: np.ndarray, rounding: float) -> None:
    """At one batch size a row gives the same bits wherever it stands and whatever stands beside it."""
    for shift in (1, len(mask) // 2):
        moved = run(np.roll(image, shift, axis=0), np.roll(mask, shift, axis=0))
        allowed = rounding * (np.std(result) or 1.0)
        np.testing.assert_allclose(moved, np.roll(result, shift, axis=0), rtol=rounding, atol=allowed)


def batches_broadcast(run: Run, image: np.ndarray, mask: np.ndarray) -> None:
    n = len(mask)
    for one, many in (((image[:1], mask), (np.repeat(image[:1], n, 0), mask)),
                      ((image, mask[2:3]), (image, np.repeat(mask[2:3], n, 0)))):  # fmt: skip
        np.testing.assert_array_equal(run(*one), run(*many))
