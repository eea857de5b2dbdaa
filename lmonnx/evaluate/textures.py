"""What textures are made of: noise, waves, palettes.

Only additions, multiplications, roots and comparisons of float32 numbers, which are the same on every machine; no
sines or exponentials, which are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Colour: TypeAlias = tuple[float, float, float]
"""Red, green, blue, 0 … 1."""


def grid(shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Rows ``[H, 1]`` and columns ``[1, W]`` in pixels."""
    height, width = shape
    return np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]


def noise(rng: np.random.Generator, shape: tuple[int, int], cell: float | tuple[float, float]) -> Floats:
    """Smooth noise ``[H, W]`` of about −1 … 1, whose hills are ``cell`` (height, width) pixels large.

    Uniform numbers on a coarse grid, interpolated by cubics (Keys, IEEE TASSP 1981, a = −1/2).
    """
    tall, wide = cell if isinstance(cell, tuple) else (cell, cell)
    (top, down), (left, across) = _taps(shape[0], tall), _taps(shape[1], wide)
    coarse = rng.random((top[-1] + 4, left[-1] + 4), np.float32) * np.float32(2) - np.float32(1)
    return _summed(_summed(coarse.T, left, across).T, top, down)


def _summed(coarse: Floats, first: npt.NDArray[np.intp], weights: tuple[Floats, ...]) -> Floats:
    """Four rows of ``coarse`` for each row of the result, weighted."""
    total = coarse[first] * weights[0][:, None]
    for tap in range(1, 4):
        total += coarse[first + tap] * weights[tap][:, None]
    return total


@lru_cache(4096)
def _taps(length: int, cell: float) -> tuple[npt.NDArray[np.intp], tuple[Floats, Floats, Floats, Floats]]:
    """For each pixel the first of the four grid points around it, and the weights of the four."""
    position = np.arange(length, dtype=np.float32) * np.float32(1 / cell)
    first = np.floor(position)
    t = position - first
    one, two, half = np.float32(1), np.float32(2), np.float32(0.5)
    outer, last = -half * t * (one - t) * (one - t), -half * t * t * (one - t)
    third = half * t * (one + t * (two * two - np.float32(3) * t))
    return first.astype(np.intp), (outer, one - outer - third - last, third, last)


def fractal(
    rng: np.random.Generator, shape: tuple[int, int], cell: float | tuple[float, float], octaves: int
) -> Floats:
    """The sum ``[H, W]`` of noises, each of half the size and half the height of the one before; about −1 … 1."""
    tall, wide = cell if isinstance(cell, tuple) else (cell, cell)
    total = noise(rng, shape, (tall, wide)) * np.float32(0.6)
    for octave in range(1, octaves):
        part = 0.5**octave
        total += noise(rng, shape, (max(tall * part, 1.0), max(wide * part, 1.0))) * np.float32(0.6 * part)
    return total


def wave(phase: Floats) -> Floats:
    """A smooth wave of period 1 between 0 (at half a period) and 1 (at whole ones)."""
    ramp = np.abs(np.float32(2) * (phase - np.floor(phase)) - np.float32(1))
    smooth: Floats = ramp * ramp * (np.float32(3) - np.float32(2) * ramp)
    return smooth


def step(values: Floats, low: float, high: float) -> Floats:
    """0 below ``low``, 1 above ``high``, linear between."""
    share: Floats = np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), np.float32(0), np.float32(1))
    return share


def planes(colour: Colour | Floats) -> Floats:
    """A colour as ``[3, 1, 1]``; colours of pixels ``[3, H, W]`` as they are."""
    return colour if isinstance(colour, np.ndarray) else np.array(colour, np.float32)[:, None, None]


def shaded(colour: Colour | Floats, brightness: Floats) -> Floats:
    """A colour times a brightness ``[H, W]``: ``[3, H, W]``."""
    return planes(colour) * brightness


def mix(first: Colour | Floats, second: Colour | Floats, share: Floats) -> Floats:
    """``first`` where ``share`` ``[H, W]`` is 0, ``second`` where it is 1: ``[3, H, W]``."""
    start = planes(first)
    return start + (planes(second) - start) * share


def pick(rng: np.random.Generator, palette: Sequence[Colour], spread: float = 0.05) -> Colour:
    """One of the colours, each channel off by at most ``spread``."""
    colour = palette[int(rng.integers(len(palette)))]
    red, green, blue = (
        min(max(c + spread * float(d), 0.02), 0.98) for c, d in zip(colour, rng.uniform(-1, 1, 3), strict=True)
    )
    return red, green, blue


def vivid(rng: np.random.Generator, low: float = 0.15, high: float = 0.85) -> Colour:
    """A colour of any hue with one channel near ``high`` and one near ``low``."""
    levels = np.array([low, rng.uniform(low, high), high]) + rng.uniform(-0.08, 0.08, 3)
    red, green, blue = np.clip(levels, 0.03, 0.97)[rng.permutation(3)].tolist()
    return red, green, blue
