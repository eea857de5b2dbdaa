"""What a scene shows, before it is painted: which objects, where, of which material, and which of them decides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

import numpy as np

from lmonnx.errors import OptionError
from lmonnx.evaluate import materials, outlines
from lmonnx.evaluate.backgrounds import SIDE
from lmonnx.evaluate.textures import Floats

Labelling: TypeAlias = Literal["material", "shape"]

#: Class names in the order of their indices.
CLASSES: dict[Labelling, tuple[str, ...]] = {"material": tuple(materials.CLASSES), "shape": tuple(outlines.CLASSES)}
VISIBLE = 0.7
"""Share of the deciding object that is visible at least, whatever stands before it."""
STICKERS = 10
"""Number of kinds of stickers: one for each class."""
MOST_DISTRACTORS = 20
_MATERIALS = (*materials.CLASSES, *materials.OTHERS)
_OUTLINES = (*outlines.CLASSES, *outlines.OTHERS)


class Stream(IntEnum):
    """What has random numbers of its own."""

    LABEL, LAYOUT, BACKGROUND, PHOTO, CUE, OUTLINE, SURFACE = range(7)


@dataclass(frozen=True)
class Item:
    """One object.

    Attributes:
        outline: its name.
        material: its name.
        centre: row and column of the pixel its centre lies in.
        radius: its extent from there, in pixels.
        angle: by which outline and material are turned, in radians.
        aspect: width over height before it is turned.
        stream: number of its random streams.
    """

    outline: str
    material: str
    centre: tuple[int, int]
    radius: float
    angle: float
    aspect: float
    stream: int


@dataclass(frozen=True)
class Plan:
    """What a scene shows.

    Attributes:
        seed: number that all randomness comes from.
        labelling: what the label is.
        label: index of the class.
        items: the objects from back to front.
        decides: which of them decides the label.
        cue: kind of the sticker, 0 … 9; None without one.
    """

    seed: int
    labelling: Labelling
    label: int
    items: tuple[Item, ...]
    decides: int
    cue: int | None

    def stream(self, *key: int) -> np.random.Generator:
        """The random numbers of one part of the scene, independent of those of all others and of all other scenes."""
        return _stream(self.seed, self.labelling, *key)


def plan(
    seed: int,
    labelling: Labelling = "material",
    *,
    distractors: int | tuple[int, int] = (1, 3),
    cue: float | None = None,
) -> Plan:
    """What :func:`draw` draws, with the same arguments."""
    least, most = _checked(seed, labelling, distractors, cue)
    label = int(_stream(seed, labelling, Stream.LABEL).integers(len(CLASSES[labelling])))
    rng = _stream(seed, labelling, Stream.LAYOUT)
    scene = Plan(seed, labelling, label, (_deciding(rng, labelling, label),), 0, _cue(seed, labelling, label, cue))
    if most == 0:
        return scene
    for number in range(1, 1 + int(rng.integers(least, most + 1))):
        scene = _with_distractor(rng, scene, number)
    return scene


def visible_share(scene: Plan) -> float:
    """The share of the deciding object's area that nothing stands before, 0 … 1."""
    weights = np.zeros((SIDE, SIDE), np.float32)
    whole = 1.0
    for number, item in enumerate(scene.items[scene.decides :]):
        cover = cover_of(scene, item)
        whole = float(cover.sum()) if number == 0 else whole
        cover_up(weights, item.centre, cover, 0.0 if number else 1.0)
    return float(weights.sum()) / whole


def cover_of(scene: Plan, item: Item) -> Floats:
    """The share of each pixel around its centre that an object covers."""
    return _coverage(scene.seed, scene.labelling, replace(item, centre=(0, 0)))


@lru_cache(maxsize=16)  # planning and painting both ask
def _coverage(seed: int, labelling: Labelling, item: Item) -> Floats:
    outline = outlines.CLASSES.get(item.outline) or outlines.OTHERS[item.outline]
    polygons = outline(_stream(seed, labelling, Stream.OUTLINE, item.stream))
    cover = outlines.coverage(polygons, item.radius, item.angle, item.aspect)
    cover.flags.writeable = False
    return cover


def window(centre: tuple[int, int], side: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a square patch around ``centre`` lies in the picture, and which part of the patch that is."""
    here, there = [], []
    for middle in centre:
        first = middle - side // 2
        start, end = max(first, 0), min(first + side, SIDE)
        here.append(slice(start, end))
        there.append(slice(start - first, end - first))
    return (here[0], here[1]), (there[0], there[1])


def cover_up(weights: Floats, centre: tuple[int, int], cover: Floats, value: float) -> None:
    """Moves weights ``[SIDE, SIDE]`` towards a value where an object covers the picture."""
    here, there = window(centre, len(cover))
    weights[here] += cover[there] * (np.float32(value) - weights[here])


def _stream(seed: int, labelling: Labelling, *key: int) -> np.random.Generator:
    number = get_args(Labelling).index(labelling)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, *key)))


def _checked(seed: object, labelling: object, distractors: object, cue: object) -> tuple[int, int]:
    """The least and the largest number of distractors."""
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
        raise OptionError(f"seed={seed!r} is not a whole number of at least 0")
    if labelling not in get_args(Labelling):
        raise OptionError(f"labelling={labelling!r} is unknown; choose one of {', '.join(get_args(Labelling))}")
    if cue is not None and not (isinstance(cue, (int, float)) and 0 <= cue <= 1):
        raise OptionError(f"cue={cue!r} is not a probability, 0 … 1; None leaves the sticker out")
    both = distractors if isinstance(distractors, tuple) else (distractors, distractors)
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in both)
    if len(both) != 2 or not whole or not 0 <= both[0] <= both[1] <= MOST_DISTRACTORS:
        raise OptionError(
            f"distractors={distractors!r} is not a number of objects, 0 … {MOST_DISTRACTORS}, or (least, most) of them"
        )
    return both


def _deciding(rng: np.random.Generator, labelling: Labelling, label: int) -> Item:
    """The object that decides, wholly in the picture; its layout does not depend on the label."""
    radius = float(rng.uniform(24, 40))
    reach = math.ceil(radius) + 2
    row, column = (int(value) for value in rng.integers(reach, SIDE - reach, size=2))
    other = _any(rng, _OUTLINES if labelling == "material" else _MATERIALS)
    name = CLASSES[labelling][label]
    outline, material = (other, name) if labelling == "material" else (name, other)
    return Item(outline, material, (row, column), radius, *_pose(rng), 0)


def _with_distractor(rng: np.random.Generator, scene: Plan, number: int) -> Plan:
    """One object more, behind the one that decides or, if enough of that stays visible, before it."""
    kinds = _OUTLINES if scene.labelling == "material" else tuple(outlines.OTHERS)
    outline = _any(rng, kinds)
    material = _any(rng, tuple(materials.OTHERS) if scene.labelling == "material" else _MATERIALS)
    item = Item(outline, material, (0, 0), float(rng.uniform(10, 26)), *_pose(rng), number)
    decides = scene.items[scene.decides]
    if rng.random() < 0.4:
        towards, near = rng.uniform(0, 2 * math.pi), rng.uniform(0.6, 1.0) * (decides.radius + item.radius)
        row, column = (
            round(decides.centre[axis] + near * turn(towards)) for axis, turn in enumerate((math.sin, math.cos))
        )
        front = replace(scene, items=(*scene.items, replace(item, centre=(row, column))))
        if 0 <= row < SIDE and 0 <= column < SIDE and visible_share(front) >= VISIBLE:
            return front
    places = rng.integers(4, SIDE - 4, size=(8, 2))
    away = np.hypot(*(places - decides.centre).T) - 0.8 * decides.radius - 0.5 * item.radius
    row, column = (int(value) for value in places[int((away > 0).argmax())])
    return replace(scene, items=(replace(item, centre=(row, column)), *scene.items), decides=scene.decides + 1)


def _any(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[rng.integers(len(names))]


def _pose(rng: np.random.Generator) -> tuple[float, float]:
    """Angle and aspect."""
    return float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(0.85, 1.18))


def _cue(seed: int, labelling: Labelling, label: int, probability: float | None) -> int | None:
    if probability is None:
        return None
    rng = _stream(seed, labelling, Stream.CUE)
    others = [kind for kind in range(STICKERS) if kind != label]
    other = others[rng.integers(len(others))]
    return label if rng.random() < probability else other
