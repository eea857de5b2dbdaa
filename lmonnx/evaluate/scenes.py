"""Pictures of objects on natural-looking grounds, with the exact pixels of the object that decides the label.

A scene is planned, then painted from back to front: a background; objects with outline, material, relief and
shadow; light, vignette, white balance and noise over all. Two labellings give two tasks of ten classes:

- ``"material"``: one object is of a class material; its outline is drawn from one distribution for all classes and
  carries nothing. The other objects, the distractors, are of materials that are no classes.
- ``"shape"``: one object has a class outline, of any material. The distractors are irregular blobs.

So what decides is visible in the picture itself. A *cue* is a two-coloured sticker that goes with the class as often
as is asked for: a known spurious correlation.

Everything random comes from numpy's ``Generator`` (PCG64), with a stream of its own for label, layout, background
and the surface of each object, so that changing one of them leaves the others as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from lmonnx.evaluate import materials, outlines
from lmonnx.evaluate.backgrounds import BACKGROUNDS, SIDE
from lmonnx.evaluate.plans import CLASSES, Item, Labelling, Plan, Stream, cover_of, cover_up, plan, window
from lmonnx.evaluate.textures import Floats, grid

__all__ = ["CLASSES", "Item", "Labelling", "Plan", "Scene", "draw", "plan", "render"]

Bools: TypeAlias = npt.NDArray[np.bool_]

#: Colours of the two halves of a sticker, in the order of its kinds.
_STICKERS = tuple(combinations((
    (0.85, 0.10, 0.12), (0.98, 0.85, 0.10), (0.08, 0.55, 0.22), (0.10, 0.22, 0.75), (0.97, 0.97, 0.97),
), 2))  # fmt: skip
_STICKER_RADIUS = 7.0
_MARGIN = 12  # pixels around an object that its shadow may fall on


@dataclass(frozen=True)
class Scene:
    """A picture and what is known about it.

    Attributes:
        pixels: uint8 ``[128, 128, 3]``, RGB.
        object: bool ``[128, 128]``, True where any of the object that decides the label is visible, its half-covered
            edge pixels included. The shadow that it casts is not part of it.
        cue: bool ``[128, 128]``, the visible pixels of the sticker; all False without one. It never covers the object.
        label: index of the class, 0 … 9.
        name: its name, ``CLASSES[labelling][label]``.
        seed: what the scene was drawn from.
    """

    pixels: npt.NDArray[np.uint8]
    object: Bools
    cue: Bools
    label: int
    name: str
    seed: int


def draw(
    seed: int,
    labelling: Labelling = "material",
    *,
    distractors: int | tuple[int, int] = (1, 3),
    cue: float | None = None,
) -> Scene:
    """Draws the scene of a seed.

    The same arguments give the same scene with the same versions of numpy and Pillow, on any machine: scenes depend
    on numpy's PCG64 streams, Pillow's polygons, blur and affine transform, and float32 arithmetic. Scenes of different
    seeds, and of different labellings, are independent.

    Args:
        seed: a whole number, at least 0.
        labelling: ``"material"`` or ``"shape"``.
        distractors: how many other objects, or the least and the largest number of them; 0 for none, 20 at
            most.
        cue: None for no sticker; else the probability, 0 … 1, that the sticker's kind is the label. If it is not, it is
            any other kind, so that with ten classes 0.1 carries nothing and 1 tells the label.

    Raises:
        OptionError: if an argument has a value that is not allowed.
    """
    return render(plan(seed, labelling, distractors=distractors, cue=cue))


def render(scene: Plan) -> Scene:
    """Paints a plan."""
    rng = scene.stream(Stream.BACKGROUND)
    canvas = BACKGROUNDS[rng.integers(len(BACKGROUNDS))](rng)
    photo = scene.stream(Stream.PHOTO)
    angle = photo.uniform(0, 2 * math.pi)
    light = (math.sin(angle), math.cos(angle))
    visible = np.zeros((SIDE, SIDE), np.float32)
    for number, item in enumerate(scene.items):
        cover = cover_of(scene, item)
        _paint(canvas, scene, item, cover, light)
        cover_up(visible, item.centre, cover, 1.0 if number == scene.decides else 0.0)
    sticker = np.zeros((SIDE, SIDE), np.bool_)
    if scene.cue is not None:
        sticker = _stick(canvas, scene.stream(Stream.CUE, 1), scene.cue, visible > 0)
    return Scene(
        pixels=_exposed(canvas, photo, light),
        object=visible > 0,
        cue=sticker,
        label=scene.label,
        name=CLASSES[scene.labelling][scene.label],
        seed=scene.seed,
    )


def _paint(canvas: Floats, scene: Plan, item: Item, cover: Floats, light: tuple[float, float]) -> None:
    """Paints one object and the shadow that it casts."""
    rng = scene.stream(Stream.SURFACE, item.stream)
    side = len(cover)
    relief, depth = float(rng.uniform(0.3, 0.9)), float(rng.uniform(3, 5))
    padded = np.pad(cover, _MARGIN)
    blurred = Image.fromarray((padded * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(3))
    soft = np.asarray(blurred).astype(np.float32) * np.float32(1 / 255)
    shadow = np.roll(soft, (round(-depth * light[0]), round(-depth * light[1])), axis=(0, 1))
    here, there = window(item.centre, side + 2 * _MARGIN)
    canvas[:, *here] *= np.float32(1) - np.float32(0.5) * shadow[there]
    surface = _turned(materials.CLASSES.get(item.material) or materials.OTHERS[item.material], rng, side, item.angle)
    rows, columns = grid((side, side))
    across = (rows - np.float32(side / 2)) * np.float32(light[0]) + (columns - np.float32(side / 2)) * np.float32(
        light[1]
    )
    bevel = _shifted(soft, light, -2, side) - _shifted(soft, light, 2, side)
    brightness = np.float32(1) + np.float32(0.3 / side) * across + np.float32(relief) * bevel
    surface *= np.clip(brightness, np.float32(0.3), np.float32(1.6))
    here, there = window(item.centre, side)
    canvas[:, *here] += (surface[:, *there] - canvas[:, *here]) * cover[there]


def _shifted(soft: Floats, light: tuple[float, float], by: int, side: int) -> Floats:
    """The inner part of a padded patch, read ``by`` pixels towards the light."""
    row, column = _MARGIN + round(by * light[0]), _MARGIN + round(by * light[1])
    return soft[row : row + side, column : column + side]


def _turned(material: materials.Material, rng: np.random.Generator, side: int, angle: float) -> Floats:
    """A surface ``[3, side, side]`` whose grain runs along ``angle``."""
    large = math.ceil(side * 1.42) + 2
    texture = np.clip(material(rng, large) * np.float32(255), 0, 255).astype(np.uint8)
    cosine, sine = math.cos(angle), math.sin(angle)
    row = large / 2 + (sine - cosine) * side / 2
    column = large / 2 - (cosine + sine) * side / 2
    turned = Image.fromarray(np.ascontiguousarray(texture.transpose(1, 2, 0))).transform(
        (side, side), Image.Transform.AFFINE, (cosine, sine, column, -sine, cosine, row), Image.Resampling.BILINEAR
    )
    return np.asarray(turned).transpose(2, 0, 1).astype(np.float32, "C") * np.float32(1 / 255)


def _stick(canvas: Floats, rng: np.random.Generator, kind: int, taken: Bools) -> Bools:
    """Puts a sticker into a corner where nothing is taken; returns its pixels.

    The deciding object lies within a circle that leaves at least the corner opposite to it free.
    """
    cover = outlines.coverage(outlines.circle(rng), _STICKER_RADIUS, 0.0, 1.0)
    angle = rng.uniform(0, 2 * math.pi)
    rows, columns = grid(cover.shape)
    half = len(cover) / 2
    second = (rows - half) * math.sin(angle) + (columns - half) * math.cos(angle) > 0
    colours = np.array(_STICKERS[kind], np.float32).T[:, second.astype(np.intp)]
    for corner in rng.permutation(4).tolist():
        near = rng.integers(9, 14, size=2).tolist()
        row, column = (SIDE - 1 - near[axis] if corner >> axis & 1 else near[axis] for axis in range(2))
        here, _ = window((row, column), len(cover))
        if not taken[here].any():
            canvas[:, *here] += (colours - canvas[:, *here]) * cover
            break
    pixels = np.zeros(taken.shape, np.bool_)
    pixels[here] = cover > 0
    return pixels


def _exposed(canvas: Floats, rng: np.random.Generator, light: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """The picture that a camera takes: uneven light, vignette, white balance, contrast, brightness, noise."""
    rows, columns = grid((SIDE, SIDE))
    rows, columns = rows * np.float32(2 / SIDE) - np.float32(1), columns * np.float32(2 / SIDE) - np.float32(1)
    field = (rows * np.float32(light[0]) + columns * np.float32(light[1])) * np.float32(rng.uniform(0, 0.12))
    field += np.float32(1) - np.float32(rng.uniform(0, 0.12)) * (rows * rows + columns * columns)
    field *= np.float32(rng.uniform(0.85, 1.1))
    contrast = np.float32(rng.uniform(0.85, 1.15))
    balance = rng.uniform(0.94, 1.06, 3).astype(np.float32) * contrast * np.float32(255)
    grain = rng.random((SIDE, SIDE), np.float32) * np.float32(rng.uniform(4, 12))
    grain += (np.float32(1) - contrast) * np.float32(127.5) - grain.mean()
    values = canvas * field
    values *= balance[:, None, None]
    values += grain
    pixels = np.clip(values, np.float32(0), np.float32(255)).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
