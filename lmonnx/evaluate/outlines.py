"""Outlines of objects: ten that can be classes, and the irregular blob, which cannot.

An outline is one or two polygons in a plane where the object reaches distance 1 from its centre; the second is cut
out of the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Points: TypeAlias = npt.NDArray[np.float64]
"""Corners ``[n, 2]`` of a polygon, x and y."""
Outline: TypeAlias = Callable[[np.random.Generator], tuple[Points, ...]]

SUBPIXELS = 3
"""Samples along each side of a pixel."""


def _arc(count: int, start: float = 0.0, end: float = 2 * math.pi) -> Points:
    angles = np.linspace(start, end, count, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def circle(_: np.random.Generator) -> tuple[Points, ...]:
    """A disc."""
    return (_arc(40),)


def square(_: np.random.Generator) -> tuple[Points, ...]:
    """A square."""
    return (_arc(4),)


def triangle(_: np.random.Generator) -> tuple[Points, ...]:
    """An equilateral triangle."""
    return (_arc(3),)


def star(rng: np.random.Generator) -> tuple[Points, ...]:
    """Five points."""
    points = _arc(10)
    points[1::2] *= rng.uniform(0.38, 0.48)
    return (points,)


def ring(rng: np.random.Generator) -> tuple[Points, ...]:
    """A disc with a round hole."""
    return _arc(40), _arc(40) * rng.uniform(0.5, 0.62)


def cross(rng: np.random.Generator) -> tuple[Points, ...]:
    """Four equal arms."""
    arm = rng.uniform(0.26, 0.34)
    quarter = np.array([[1, -arm], [1, arm], [arm, arm]])
    points = [quarter]
    for _ in range(3):
        points.append(points[-1][:, ::-1] * (-1, 1))
    return (np.concatenate(points),)


def crescent(rng: np.random.Generator) -> tuple[Points, ...]:
    """A disc that another disc bites into."""
    return _arc(40), _arc(40) * rng.uniform(0.78, 0.84) + (rng.uniform(0.44, 0.52), 0.0)


def heart(_: np.random.Generator) -> tuple[Points, ...]:
    """Two lobes and a point."""
    t = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return (np.stack([x, -y], axis=1) / 17,)


def arrow(rng: np.random.Generator) -> tuple[Points, ...]:
    """A triangular head on a shaft."""
    shaft, neck = rng.uniform(0.20, 0.28), rng.uniform(-0.05, 0.15)
    upper = np.array([[1.0, 0.0], [neck, 0.72], [neck, shaft], [-0.97, shaft]])
    return (np.concatenate([upper, upper[:0:-1] * (1, -1)]),)


def hourglass(rng: np.random.Generator) -> tuple[Points, ...]:
    """Two triangles that meet at a narrow waist."""
    waist, half = rng.uniform(0.10, 0.16), 0.62
    right = np.array([[half, -0.78], [waist, 0.0], [half, 0.78]])
    return (np.concatenate([right, right[::-1] * (-1, 1)]),)


def blob(rng: np.random.Generator) -> tuple[Points, ...]:
    """An irregular, smooth closed curve: a circle with waves of random height and phase on it."""
    angles = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    radius = np.ones(40)
    for waves in range(2, 6):
        radius += rng.uniform(0.05, 0.6) / waves * np.cos(waves * angles + rng.uniform(0, 2 * math.pi))
    return (np.stack([np.cos(angles), np.sin(angles)], axis=1) * (radius / radius.max())[:, None],)


#: The outlines that are classes, in the order of their indices.
CLASSES: dict[str, Outline] = {
    "circle": circle, "square": square, "triangle": triangle, "star": star, "ring": ring,
    "cross": cross, "crescent": crescent, "heart": heart, "arrow": arrow, "hourglass": hourglass,
}  # fmt: skip
#: Outlines of objects that decide nothing.
OTHERS: dict[str, Outline] = {"blob": blob}


def coverage(polygons: tuple[Points, ...], radius: float, angle: float, aspect: float) -> npt.NDArray[np.float32]:
    """The share of each pixel that an object covers, float32 ``[n, n]``, 0 … 1.

    Args:
        polygons: the outline.
        radius: its extent from the centre, in pixels.
        angle: by which it is turned, in radians.
        aspect: its width over its height before it is turned; 1 leaves it as it is, and none reaches beyond ``radius``.
    """
    side = 2 * math.ceil(radius) + 2
    cosine, sine = math.cos(angle), math.sin(angle)
    wide, tall = min(aspect, 1.0), min(1 / aspect, 1.0)
    turn = np.array([[wide * cosine, wide * sine], [-tall * sine, tall * cosine]])
    picture = Image.new("L", (side * SUBPIXELS, side * SUBPIXELS))
    canvas = ImageDraw.Draw(picture)
    for fill, points in zip((255, 0), polygons, strict=False):
        placed = points[:, :1] * turn[0] + points[:, 1:] * turn[1]
        canvas.polygon(((placed * radius + side / 2) * SUBPIXELS - 0.5).ravel().tolist(), fill=fill)
    return np.asarray(picture.reduce(SUBPIXELS)).astype(np.float32) * np.float32(1 / 255)
