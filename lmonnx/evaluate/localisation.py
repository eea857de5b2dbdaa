"""Does an explanation point at the object that decides? Scores against the object's true pixels.

Both scores are those of Arras, Osman and Samek, "CLEVR-XAI: A benchmark dataset for the ground truth evaluation of
neural network explanations" (Information Fusion 81, 2022), there for a weight per pixel. A segment's weight is shared
evenly by its pixels, so that segments of any size are comparable.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lmonnx.errors import ImageError
from lmonnx.explain.explanation import Explanation


def mass_accuracy(explanation: Explanation, truth: npt.NDArray[np.bool_]) -> float:
    """Relevance mass accuracy: the share of all supporting weight that lies on the object.

    Args:
        explanation: of a photograph.
        truth: bool ``[H, W]``, True on the object, as the network saw the photograph.

    Returns:
        0 … 1; a uniform explanation gets the object's share of the area. 0 where nothing supports the class.

    Raises:
        ImageError: if ``truth`` has another shape or type, or holds no pixel.
    """
    density = _density(explanation, truth).clip(min=0)
    total = density.sum()
    return float(density[truth].sum() / total) if total > 0 else 0.0


def rank_accuracy(explanation: Explanation, truth: npt.NDArray[np.bool_]) -> float:
    """Relevance rank accuracy: of the K pixels that rank highest, the share on the object, which has K pixels.

    Pixels of equal rank count as if they were drawn at random among them.

    Args:
        explanation: of a photograph.
        truth: bool ``[H, W]``, True on the object, as the network saw the photograph.

    Returns:
        0 … 1; a random explanation gets the object's share of the area on average.

    Raises:
        ImageError: if ``truth`` has another shape or type, or holds no pixel.
    """
    density = _density(explanation, truth)
    size = int(truth.sum())
    threshold = np.partition(density, -size, axis=None)[-size]
    above, level = density > threshold, density == threshold
    share = (size - int(above.sum())) / int(level.sum())
    return float(((above & truth).sum() + share * (level & truth).sum()) / size)


def _density(explanation: Explanation, truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The weight of each pixel, ``[H, W]``: its segment's divided by the segment's area."""
    segments = explanation.segments
    if truth.dtype != np.bool_ or truth.shape != segments.shape or not truth.any():
        raise ImageError(
            f"the true object has to be bool {list(segments.shape)} with a pixel in it, given {truth.dtype} "
            f"{list(truth.shape)} with {np.count_nonzero(truth)}"
        )
    weight: npt.NDArray[np.float64] = (explanation.weights / np.bincount(segments.ravel()))[segments]
    return weight
