"""A picture for the tests."""

from __future__ import annotations

import numpy as np
from PIL import Image


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth colours and noise, so that filters, offsets and channels all show."""
    rng = np.random.default_rng(width * 10_000 + height)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([255 * x / width, 255 * y / height, 255 * (x + y) / (width + height)], -1)
    pixels = (0.7 * smooth + 0.3 * rng.integers(0, 256, smooth.shape)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)
