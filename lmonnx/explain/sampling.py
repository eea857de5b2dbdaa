"""Which segments each sample keeps, and the masks that say so to the network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lmonnx.errors import OptionError
from lmonnx.explain.segmentation import Labels

Bools = npt.NDArray[np.bool_]

MOST = 1_000_000
"""Samples, whose choices and answers are in memory together."""

KEEP_PROBABILITY = 0.5
"""Chance of each segment to be kept in a sample."""


def keep_vectors(samples: int, segments: int, seed: int) -> Bools:
    """Seeded random choices of kept segments; the first sample keeps all of them.

    Each segment of each further sample is kept with probability one half, independently (Ribeiro et al.,
    "Why Should I Trust You?", KDD 2016).

    Args:
        samples: number of samples, 2 or more.
        segments: number of segments.
        seed: of numpy's default generator; the same seed gives the same choices.

    Returns:
        bool ``[samples, segments]``, True = keep.

    Raises:
        OptionError: if ``samples`` is less than 2 or more than ``MOST``, or ``seed`` is negative.
    """
    require(samples, seed)
    keep: Bools = np.random.default_rng(seed).random((samples, segments)) < KEEP_PROBABILITY
    keep[0] = True
    return keep


def require(samples: int, seed: int) -> None:
    """Refuses numbers that are not.

    Raises:
        OptionError: if ``samples`` is less than 2 or more than ``MOST``, or ``seed`` is negative.
    """
    if not isinstance(samples, int) or isinstance(samples, bool) or not 2 <= samples <= MOST:
        raise OptionError(f"samples={samples!r} is not a number from 2 to {MOST}; 1000 is usual")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise OptionError(f"seed={seed!r} is not a number of 0 or more")


def masks(keep: Bools, labels: Labels, batch_size: int) -> Iterator[Bools]:
    """The masks of keep-vectors, a batch at a time, so that they are never all in memory.

    Args:
        keep: bool ``[samples, segments]``, True = keep.
        labels: int32 ``[H, W]``: the segment of each pixel.
        batch_size: masks in each batch; the last may hold fewer.

    Yields:
        bool ``[batch, 1, H, W]``, True = keep.
    """
    for start in range(0, len(keep), batch_size):
        yield keep[start : start + batch_size][:, None, labels]


def painted(
    keep: Bools, labels: Labels, pixels: npt.NDArray[np.uint8], grey: int, batch_size: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """The pictures of keep-vectors in which removed segments are painted over, a batch at a time.

    Args:
        keep: bool ``[samples, segments]``, True = keep.
        labels: int32 ``[H, W]``: the segment of each pixel.
        pixels: uint8 ``[H, W, 3]``: the picture.
        grey: value of the paint in all channels, 0 … 255.
        batch_size: pictures in each batch; the last may hold fewer.

    Yields:
        uint8 ``[batch, H, W, 3]``.
    """
    for kept in masks(keep, labels, batch_size):
        yield np.where(kept[:, 0, ..., None], pixels, np.uint8(grey))
