"""Grounds and skies that objects lie on; none of them is a class.

A background is a function of random numbers; it gives float32 ``[3, SIDE, SIDE]``, red, green, blue,
0 … 1 or slightly beyond.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from lmonnx.evaluate.textures import Colour, Floats, fractal, grid, mix, noise, pick, shaded, step, wave

Background: TypeAlias = Callable[[np.random.Generator], Floats]

SIDE = 128
"""Height and width of a scene, in pixels."""
_SHAPE = (SIDE, SIDE)


def _ground(rng: np.random.Generator, palette: tuple[Colour, ...], rough: float, cell: float) -> Floats:
    """One colour, rough at all scales."""
    return shaded(pick(rng, palette), np.float32(1) + np.float32(rough) * fractal(rng, _SHAPE, cell, 5))


def grass(rng: np.random.Generator) -> Floats:
    """Upright blades in patches."""
    level = np.float32(0.95) + np.float32(0.25) * noise(rng, _SHAPE, 34)
    level += np.float32(0.30) * noise(rng, _SHAPE, (7, 1.7)) + np.float32(0.15) * noise(rng, _SHAPE, (3, 1.2))
    lawn = shaded(pick(rng, ((0.30, 0.46, 0.17), (0.40, 0.50, 0.20), (0.22, 0.38, 0.16))), level)
    return mix(lawn, (0.62, 0.60, 0.30), np.float32(0.35) * step(noise(rng, _SHAPE, 26), 0.0, 0.9))


def sand(rng: np.random.Generator) -> Floats:
    """Faint ripples and grains."""
    rows, _ = grid(_SHAPE)
    ripples = wave(rows * np.float32(1 / rng.uniform(9, 16)) + noise(rng, _SHAPE, (24, 40)))
    level = np.float32(0.93) + np.float32(0.10) * ripples + np.float32(0.07) * noise(rng, _SHAPE, 1.3)
    return shaded(pick(rng, ((0.80, 0.70, 0.52), (0.74, 0.60, 0.42), (0.86, 0.80, 0.66))), level)


def sky(rng: np.random.Generator) -> Floats:
    """Blue, paler towards the horizon, with clouds."""
    rows, _ = grid(_SHAPE)
    air = mix(pick(rng, ((0.32, 0.52, 0.80), (0.42, 0.60, 0.84), (0.28, 0.44, 0.70))), (0.78, 0.85, 0.92),
              np.broadcast_to(rows / np.float32(SIDE), _SHAPE))  # fmt: skip
    clouds = step(fractal(rng, _SHAPE, (26, 48), 4), rng.uniform(-0.1, 0.3), 0.8)
    return mix(air, (0.96, 0.96, 0.97), clouds * np.float32(0.85))


def water(rng: np.random.Generator) -> Floats:
    """Flat waves that glint."""
    swell = noise(rng, _SHAPE, (5, 26)) + np.float32(0.6) * noise(rng, _SHAPE, (2.2, 11))
    sea = pick(rng, ((0.13, 0.34, 0.45), (0.16, 0.38, 0.36), (0.22, 0.42, 0.58)))
    level = np.float32(0.95) + np.float32(0.22) * swell
    return mix(shaded(sea, level), (0.85, 0.93, 0.97), np.float32(0.6) * step(swell, 0.65, 1.1))


def soil(rng: np.random.Generator) -> Floats:
    """Brown clods."""
    return _ground(rng, ((0.36, 0.26, 0.18), (0.46, 0.34, 0.24), (0.52, 0.38, 0.28)), 0.45, 12)


def snow(rng: np.random.Generator) -> Floats:
    """White, bluish in the hollows."""
    hollow = np.float32(0.5) - np.float32(0.5) * fractal(rng, _SHAPE, 40, 4)
    return mix((0.95, 0.95, 0.96), (0.72, 0.79, 0.90), step(hollow, 0.2, 1.0))


def foliage(rng: np.random.Generator) -> Floats:
    """Leaves in light and shade."""
    light = fractal(rng, _SHAPE, 11, 3)
    leaves = shaded(pick(rng, ((0.24, 0.42, 0.16), (0.34, 0.46, 0.14), (0.48, 0.40, 0.14))), np.float32(0.95) + light)
    return mix(leaves, (0.06, 0.11, 0.06), step(noise(rng, _SHAPE, 9), 0.15, 0.75) * np.float32(0.8))


def plaster(rng: np.random.Generator) -> Floats:
    """A painted wall."""
    palette = ((0.86, 0.80, 0.66), (0.84, 0.66, 0.54), (0.66, 0.78, 0.74), (0.70, 0.74, 0.86), (0.88, 0.86, 0.80))
    return _ground(rng, palette, 0.07, 30)


def carpet(rng: np.random.Generator) -> Floats:
    """A short, mottled pile."""
    level = np.float32(0.95) + np.float32(0.18) * noise(rng, _SHAPE, 1.8) + np.float32(0.12) * noise(rng, _SHAPE, 22)
    return shaded(pick(rng, ((0.52, 0.20, 0.20), (0.22, 0.26, 0.46), (0.56, 0.46, 0.32), (0.28, 0.40, 0.34))), level)


def landscape(rng: np.random.Generator) -> Floats:
    """Sky over a ground, with an uneven horizon."""
    ground = (grass, sand, soil, snow, water)[rng.integers(5)](rng)
    rows, _ = grid(_SHAPE)
    hills = noise(rng, (1, SIDE), (1, 32)) * np.float32(rng.uniform(0, 6))
    return mix(sky(rng), ground, step(rows - hills, horizon := rng.uniform(24, 70), horizon + 1.5))


BACKGROUNDS: tuple[Background, ...] = (
    grass, sand, sky, water, soil, snow, foliage, plaster, carpet, landscape, landscape,
)  # fmt: skip
