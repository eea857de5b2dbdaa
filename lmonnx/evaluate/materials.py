"""Materials of objects: ten that can be classes, and some that cannot.

A material is a function of random numbers and a side length in pixels; it gives float32 ``[3, side, side]``, red,
green, blue, 0 … 1 or slightly beyond. Grain runs along the rows: whoever uses it turns it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image

from lmonnx.evaluate.textures import Colour, Floats, fractal, grid, mix, noise, pick, planes, shaded, step, vivid, wave

Material: TypeAlias = Callable[[np.random.Generator, int], Floats]

_LINEAR = Image.Resampling.BILINEAR

WOODS: tuple[Colour, ...] = (
    (0.55, 0.35, 0.20), (0.74, 0.55, 0.34), (0.36, 0.23, 0.15), (0.60, 0.57, 0.52), (0.60, 0.29, 0.20),
)  # fmt: skip
BRICKS: tuple[Colour, ...] = (
    (0.62, 0.28, 0.20), (0.48, 0.27, 0.20), (0.72, 0.58, 0.38), (0.55, 0.52, 0.50), (0.80, 0.76, 0.70),
)  # fmt: skip
MARBLES: tuple[tuple[Colour, Colour], ...] = (
    ((0.90, 0.89, 0.87), (0.45, 0.45, 0.48)), ((0.88, 0.82, 0.72), (0.55, 0.38, 0.22)),
    ((0.14, 0.14, 0.16), (0.80, 0.78, 0.72)), ((0.20, 0.36, 0.29), (0.78, 0.84, 0.78)),
    ((0.78, 0.58, 0.54), (0.94, 0.88, 0.85)),
)  # fmt: skip
DENIMS: tuple[Colour, ...] = (
    (0.20, 0.30, 0.52),
    (0.38, 0.48, 0.66),
    (0.17, 0.17, 0.20),
    (0.50, 0.50, 0.50),
    (0.56, 0.26, 0.22),
)
METALS: tuple[Colour, ...] = ((0.62, 0.63, 0.65), (0.72, 0.58, 0.30), (0.68, 0.42, 0.30), (0.45, 0.50, 0.58))


def wood(rng: np.random.Generator, side: int) -> Floats:
    """Bent year rings and fine streaks along the grain."""
    shape, (rows, _) = (side, side), grid((side, side))
    bend = noise(rng, shape, (20, 40)) * np.float32(rng.uniform(0.6, 1.3))
    rings = wave(rows * np.float32(1 / rng.uniform(5, 9)) + bend)
    streaks = noise(rng, shape, (1.3, 22))
    return shaded(pick(rng, WOODS), np.float32(0.78) + np.float32(0.34) * rings + np.float32(0.10) * streaks)


def brick(rng: np.random.Generator, side: int) -> Floats:
    """Courses of bricks, each shifted by half a brick, in mortar."""
    return _courses(rng, side, tall=rng.uniform(6.5, 9), ratio=rng.uniform(2.0, 2.5), shift=0.5, palette=BRICKS)


def _courses(
    rng: np.random.Generator, side: int, tall: float, ratio: float, shift: float, palette: tuple[Colour, ...]
) -> Floats:
    rows, columns = grid((side, side))
    row = rows * np.float32(1 / tall) + np.float32(rng.random())
    course = np.floor(row).astype(np.intp)
    column = columns * np.float32(1 / (tall * ratio)) + (course * shift).astype(np.float32)
    level = rng.uniform(0.78, 1.14, (course.max() + 1, int(column.max()) + 1)).astype(np.float32)
    bricks = shaded(pick(rng, palette), level[course, column.astype(np.intp)])
    bricks *= np.float32(1) + np.float32(0.12) * noise(rng, (side, side), 1.5)
    joint = np.float32(1.3 / tall)
    gap = ((row - np.floor(row)) < joint) | ((column - np.floor(column)) < joint / np.float32(ratio))
    mortar = pick(rng, ((0.74, 0.72, 0.68), (0.60, 0.58, 0.55), (0.85, 0.84, 0.80)))
    return np.where(gap, planes(mortar), bricks)


def marble(rng: np.random.Generator, side: int) -> Floats:
    """Polished stone with thin, bent veins."""
    shape = (side, side)
    base, vein = MARBLES[rng.integers(len(MARBLES))]
    cloud = fractal(rng, shape, 22, 4)
    thin = np.float32(1) - step(np.abs(cloud + np.float32(0.1) * noise(rng, shape, 4)), 0.0, 0.11)
    other = np.float32(1) - step(np.abs(fractal(rng, shape, 16, 3)), 0.0, 0.07)
    stone = shaded(pick(rng, (base,), 0.03), np.float32(1) + np.float32(0.10) * cloud)
    return mix(stone, vein, np.maximum(thin * np.float32(0.85), other * np.float32(0.5)))


def concrete(rng: np.random.Generator, side: int) -> Floats:
    """Almost plain grey, faintly blotched, with a few pores."""
    shape = (side, side)
    grey = rng.uniform(0.42, 0.60)
    level = np.float32(grey) + np.float32(0.035) * fractal(rng, shape, 20, 3)
    level += np.float32(0.02) * (rng.random(shape, np.float32) - np.float32(0.5))
    level -= np.float32(0.14) * step(noise(rng, shape, 3), 0.72, 0.9)
    return shaded(pick(rng, ((1.0, 1.0, 1.0), (1.0, 0.98, 0.95), (0.96, 0.98, 1.0)), 0.01), level)


def asphalt(rng: np.random.Generator, side: int) -> Floats:
    """Dark, with bright grains."""
    shape = (side, side)
    level = np.float32(rng.uniform(0.09, 0.20)) + np.float32(0.03) * fractal(rng, shape, 16, 2)
    level += np.float32(0.06) * (rng.random(shape, np.float32) - np.float32(0.5))
    level += np.float32(rng.uniform(0.18, 0.30)) * step(noise(rng, shape, 1.6), 0.45, 0.95)
    return shaded(pick(rng, ((1.0, 1.0, 1.0), (0.94, 0.96, 1.0), (1.0, 0.96, 0.92)), 0.02), level)


def denim(rng: np.random.Generator, side: int) -> Floats:
    """A twill: diagonal ribs crossed by pale threads."""
    rows, columns = grid((side, side))
    ribs = wave((rows + columns) * np.float32(1 / rng.uniform(3.2, 4.4)))
    threads = wave(columns * np.float32(1 / rng.uniform(2.2, 2.8))) * ribs
    worn = np.float32(1) + np.float32(0.18) * fractal(rng, (side, side), 24, 3)
    cloth = shaded(pick(rng, DENIMS), (np.float32(0.72) + np.float32(0.5) * ribs) * worn)
    return mix(cloth, (0.85, 0.86, 0.90), np.float32(0.28) * threads)


def knit(rng: np.random.Generator, side: int) -> Floats:
    """Columns of V-shaped stitches."""
    rows, columns = grid((side, side))
    wide = rng.uniform(7, 10)
    column = columns * np.float32(1 / wide)
    bent = np.abs(column - np.floor(column) - np.float32(0.5))
    stitch = wave(rows * np.float32(1 / rng.uniform(4.2, 5.5)) - bent * np.float32(1.7))
    valley = step(np.float32(0.5) - bent, 0.0, 0.16) * step(bent, 0.0, 0.10)
    fuzz = np.float32(0.10) * noise(rng, (side, side), 1.4)
    level = np.float32(0.42) + np.float32(0.66) * stitch * (np.float32(0.35) + np.float32(0.65) * valley) + fuzz
    return shaded(vivid(rng, rng.uniform(0.15, 0.6), 0.85), level)


def metal(rng: np.random.Generator, side: int) -> Floats:
    """Brushed, with a broad highlight across the strokes."""
    _, columns = grid((side, side))
    strokes = noise(rng, (side, side), (1.0, 60)) + np.float32(0.5) * noise(rng, (side, side), (1.0, 12))
    gloss = wave(columns * np.float32(1 / rng.uniform(36, 60)) + np.float32(rng.random()))
    colour = shaded(pick(rng, METALS), np.float32(0.66) + np.float32(0.15) * strokes + np.float32(0.25) * gloss)
    return mix(colour, (1.0, 1.0, 1.0), np.float32(0.45) * gloss * gloss * gloss)


def mosaic(rng: np.random.Generator, side: int) -> Floats:
    """Small square tiles of a few colours in pale grout."""
    rows, columns = grid((side, side))
    pitch = rng.uniform(6, 8.5)
    row, column = rows * np.float32(1 / pitch), columns * np.float32(1 / pitch)
    palette = np.array([vivid(rng, rng.uniform(0.1, 0.5), rng.uniform(0.6, 0.95)) for _ in range(3)], np.float32)
    count = int(side / pitch) + 1
    tiles = palette.T[:, rng.integers(3, size=(count, count))] * rng.uniform(0.85, 1.1, (count, count)).astype(
        np.float32
    )
    inside_row, inside_column = row - np.floor(row), column - np.floor(column)
    gloss = np.float32(1.12) - np.float32(0.2) * inside_row
    surface = tiles[:, row.astype(np.intp), column.astype(np.intp)] * gloss
    joint = np.float32(1.25 / pitch)
    grout = pick(rng, ((0.80, 0.79, 0.76), (0.88, 0.88, 0.88)))
    return np.where((inside_row < joint) | (inside_column < joint), planes(grout), surface)


def terrazzo(rng: np.random.Generator, side: int) -> Floats:
    """Angular chips of several stones in a plain ground: cells of a Voronoi diagram, shrunk."""
    half = side // 2 + 1  # drawn at half the size, because every pixel is compared with every centre
    count = max(4, round((side / rng.uniform(7.5, 10)) ** 2))
    rows, columns = grid((half, half))
    centres = rng.uniform(0, half, (2, count, 1, 1)).astype(np.float32)
    distance = (rows - centres[0]) ** 2 + (columns - centres[1]) ** 2
    nearest = distance.argmin(axis=0)
    distance.partition(1, axis=0)
    room = np.sqrt(distance[1]) - np.sqrt(distance[0])
    ground = pick(rng, ((0.86, 0.83, 0.77), (0.70, 0.68, 0.66), (0.30, 0.30, 0.32), (0.82, 0.72, 0.66)))
    stones = np.array([pick(rng, (*WOODS, *BRICKS, (0.2, 0.2, 0.2), (0.95, 0.94, 0.9)), 0.1) for _ in range(4)])
    chips = stones.T.astype(np.float32)[:, rng.integers(4, size=count)[nearest]]
    small = mix(ground, chips, step(room, 0.7, 1.2))
    box = (0.0, 0.0, side / 2, side / 2)
    return np.stack([np.asarray(Image.fromarray(plane).resize((side, side), _LINEAR, box)) for plane in small])


def plastic(rng: np.random.Generator, side: int) -> Floats:
    """One vivid colour with a soft highlight."""
    rows, columns = grid((side, side))
    away = (rows - np.float32(0.35 * side)) ** 2 + (columns - np.float32(0.4 * side)) ** 2
    gloss = np.float32(1) / (np.float32(1) + away * np.float32(40 / side**2))
    return mix(shaded(vivid(rng), np.float32(0.8) + np.float32(0.25) * gloss), (1.0, 1.0, 1.0), gloss * np.float32(0.3))


def felt(rng: np.random.Generator, side: int) -> Floats:
    """One dull colour, faintly fuzzy."""
    level = np.float32(1) + np.float32(0.10) * fractal(rng, (side, side), 5, 3)
    return shaded(vivid(rng, rng.uniform(0.15, 0.45), rng.uniform(0.5, 0.8)), level)


def stripes(rng: np.random.Generator, side: int) -> Floats:
    """Bold stripes of two vivid colours."""
    rows, columns = grid((side, side))
    band = step(wave(rows * np.float32(1 / rng.uniform(11, 18)) + columns * np.float32(0)), 0.42, 0.58)
    return mix(vivid(rng), vivid(rng, 0.1, 0.9), band)


def dots(rng: np.random.Generator, side: int) -> Floats:
    """Round dots on a vivid ground."""
    rows, columns = grid((side, side))
    pitch = np.float32(1 / rng.uniform(10, 15))
    row, column = rows * pitch, columns * pitch
    away = (row - np.floor(row) - np.float32(0.5)) ** 2 + (column - np.floor(column) - np.float32(0.5)) ** 2
    return mix(vivid(rng, 0.1, 0.9), vivid(rng), step(away, 0.06, 0.10))


def camouflage(rng: np.random.Generator, side: int) -> Floats:
    """Blots of three colours."""
    cloth = mix(vivid(rng), vivid(rng, 0.2, 0.6), step(noise(rng, (side, side), 14), -0.04, 0.04))
    return mix(cloth, vivid(rng, 0.1, 0.4), step(noise(rng, (side, side), 11), 0.2, 0.28))


#: The materials that are classes, in the order of their indices.
CLASSES: dict[str, Material] = {
    "wood": wood, "brick": brick, "marble": marble, "concrete": concrete, "asphalt": asphalt,
    "denim": denim, "knit": knit, "metal": metal, "mosaic": mosaic, "terrazzo": terrazzo,
}  # fmt: skip
#: Materials of objects that decide nothing.
OTHERS: dict[str, Material] = {
    "plastic": plastic, "felt": felt, "stripes": stripes, "dots": dots, "camouflage": camouflage,
}  # fmt: skip
