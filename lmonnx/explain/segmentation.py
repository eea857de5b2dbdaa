"""Superpixels: the parts of a picture that an explanation speaks about."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lmonnx.errors import OptionError

Labels = npt.NDArray[np.int32]

SLIC = {"algorithm": "slic", "compactness": 20.0, "sigma": 1.0}
"""Parameters of the segmentation, as an explanation records them."""

MAX_SEGMENTS = 10_000
"""More could not be stored in an image of 16 bits, since SLIC may find some more than it is asked for."""


def superpixels(pixels: npt.NDArray[np.uint8], segments: int = 50) -> Labels:
    """Cuts a picture into compact regions of similar colour; the same picture gives the same regions.

    SLIC (Achanta et al., "SLIC Superpixels Compared to State-of-the-art Superpixel Methods", PAMI 2012), as
    scikit-image computes it.

    Args:
        pixels: uint8 ``[H, W, 3]``, RGB.
        segments: how many are aimed at; SLIC finds about as many.

    Returns:
        int32 ``[H, W]``: the segment of each pixel, numbered from 0 without gaps.

    Raises:
        OptionError: if ``segments`` is less than 2, or more than the pixels or MAX_SEGMENTS.
    """
    from skimage.segmentation import slic

    height, width, _ = pixels.shape
    require(segments, min(height * width, MAX_SEGMENTS))
    labels = slic(
        pixels,
        n_segments=segments,
        compactness=SLIC["compactness"],
        sigma=SLIC["sigma"],
        channel_axis=-1,
    )
    numbers = np.unique(labels, return_inverse=True)[1]
    return numbers.reshape(height, width).astype(np.int32)


def require(segments: int, most: int = MAX_SEGMENTS) -> None:
    """Refuses what is not a number of segments.

    Raises:
        OptionError: if ``segments`` is less than 2, or more than ``most``.
    """
    if not isinstance(segments, int) or isinstance(segments, bool) or not 2 <= segments <= most:
        raise OptionError(f"segments={segments!r} is not a number from 2 to {most}; 50 is usual")
