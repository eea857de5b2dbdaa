"""The truth that scenes carry is true: masks, labels, shares, stickers, and what tells nothing of the class."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from scipy import stats

from lmonnx.errors import OptionError
from lmonnx.evaluate import CLASSES, Labelling, draw, materials, outlines
from lmonnx.evaluate.plans import STICKERS, VISIBLE, Plan, cover_of, visible_share
from lmonnx.evaluate.scenes import Scene, plan, render

LABELLINGS: tuple[Labelling, ...] = get_args(Labelling)
SEEDS = range(5_000_000, 5_000_040)
#: Improbable enough under the null hypothesis that, with fixed seeds, a failure means something.
ALPHA = 1e-3

#: Of the scenes 0, 1, … with a sticker.
EXPECTED: list[tuple[Labelling, tuple[str, ...]]] = [
    (
        "material",
        (
            "ac25e9cac8b9e395",
            "bffae47066f3926e",
            "3ee42a3123682dc5",
            "57b4387231a9ae0f",
            "fa9a4761782166f5",
            "48e160710d6bd8c6",
        ),
    ),
    (
        "shape",
        (
            "d3fe6c041c40ab4f",
            "587aef6c925abf3f",
            "9e3e99f35267aeb3",
            "64f8be7e13fca2fe",
            "9518f0e28a0a0404",
            "6e87147943751b1f",
        ),
    ),
]


def digest(scene: Scene) -> str:
    state = hashlib.sha256()
    for array in (scene.pixels, scene.object, scene.cue):
        state.update(array.tobytes())
    return state.hexdigest()[:16]


def with_deciding(scene: Plan, **changes: object) -> Plan:
    items = list(scene.items)
    items[scene.decides] = replace(items[scene.decides], **changes)
    return replace(scene, items=tuple(items))


def without_deciding(scene: Plan) -> Scene:
    """The scene with the deciding object shrunk to a speck."""
    return render(with_deciding(scene, radius=1e-6))


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_arrays(labelling: Labelling) -> None:
    scene = draw(7, labelling, cue=0.5)
    assert scene.pixels.dtype == np.uint8
    assert scene.pixels.shape == (128, 128, 3)
    for mask in (scene.object, scene.cue):
        assert mask.dtype == np.bool_
        assert mask.shape == (128, 128)
    assert scene.name == CLASSES[labelling][scene.label]
    assert scene.seed == 7


def test_ten_classes_each() -> None:
    assert list(CLASSES) == list(LABELLINGS)
    assert [len(set(names)) for names in CLASSES.values()] == [10, 10]
    assert STICKERS == 10


def test_same_seed_same_scene() -> None:
    """Also after other scenes were drawn, and in whatever order."""
    first = [digest(draw(seed, labelling, cue=0.5)) for labelling in LABELLINGS for seed in SEEDS[:4]]
    again = [digest(draw(seed, labelling, cue=0.5)) for labelling in LABELLINGS[::-1] for seed in SEEDS[3::-1]]
    assert first == again[::-1]
    assert len(set(first)) == 8


@pytest.mark.parametrize(("labelling", "expected"), EXPECTED)
def test_scenes_stay_what_they_are(labelling: Labelling, expected: tuple[str, ...]) -> None:
    """The bundled networks were trained on these; a change makes their model card untrue."""
    scenes = [draw(seed, labelling, cue=0.5) for seed in range(len(expected))]
    assert tuple(digest(scene) for scene in scenes) == expected


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_object_is_exact(labelling: Labelling) -> None:
    """Another material of the deciding object changes its pixels, and not one other."""
    for seed in SEEDS[:12]:
        scene = plan(seed, labelling)
        before = render(scene)
        changed = np.zeros_like(before.object)
        for material in ("concrete", "dots", "knit"):
            changed |= (render(with_deciding(scene, material=material)).pixels != before.pixels).any(axis=2)
        assert not changed[~before.object].any()
        assert changed[before.object].mean() > 0.95


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_object_lies_under_what_stands_before_it(labelling: Labelling) -> None:
    """Where another object covers it wholly it is not visible; elsewhere all that it covers is."""
    covered = 0
    for seed in SEEDS:
        scene = plan(seed, labelling)
        alone = render(replace(scene, items=(scene.items[scene.decides],), decides=0)).object
        hidden = alone & ~render(scene).object
        front = np.zeros_like(alone)
        for item in scene.items[scene.decides + 1 :]:
            front |= render(replace(scene, items=(item,), decides=0)).object
        assert not (render(scene).object & ~alone).any()
        assert not (hidden & ~front).any()
        covered += bool(hidden.any())
    assert covered > 5


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_enough_stays_visible(labelling: Labelling) -> None:
    """Also in a crowd, where without the bound some objects would be hidden."""
    shares = []
    for seed in SEEDS[:15]:
        scene = plan(seed, labelling, distractors=20)
        item = scene.items[scene.decides]
        cover = cover_of(scene, item)
        half = len(cover) // 2
        assert all(half <= middle <= 128 - half for middle in item.centre), "cut by the picture's edge"
        assert render(scene).object.sum() >= VISIBLE * cover.sum()
        shares.append(visible_share(scene))
    assert min(shares) >= VISIBLE
    assert min(shares) < 0.8, "nothing ever stands before the object"


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_distractors_are_switched(labelling: Labelling) -> None:
    for seed in SEEDS[:10]:
        none, three = plan(seed, labelling, distractors=0), plan(seed, labelling, distractors=3)
        assert len(none.items) == 1
        assert len(three.items) == 4
        assert none.items[none.decides] == three.items[three.decides]
        assert none.label == three.label
        assert (render(none).pixels != render(three).pixels).any()
        assert 2 <= len(plan(seed, labelling, distractors=(1, 2)).items) <= 3
    counts = {len(plan(seed, labelling).items) for seed in SEEDS}
    assert counts == {2, 3, 4}


def test_distractors_are_no_classes() -> None:
    for seed in SEEDS:
        for labelling, table, attribute in (
            ("material", materials.OTHERS, "material"),
            ("shape", outlines.OTHERS, "outline"),
        ):
            scene = plan(seed, labelling)  # type: ignore[arg-type]
            decides = scene.items[scene.decides]
            assert getattr(decides, attribute) == CLASSES[labelling][scene.label]  # type: ignore[index]
            others = [item for item in scene.items if item is not decides]
            assert {getattr(item, attribute) for item in others} <= set(table)


def test_no_cue_unless_asked_for() -> None:
    assert not any(draw(seed).cue.any() for seed in SEEDS[:10])


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_cue_is_exact(labelling: Labelling) -> None:
    """The sticker's pixels are all that it changes, it lies beside the object, and its kind is to be seen."""
    for seed in SEEDS:
        scene = plan(seed, labelling, cue=1.0)
        kinds = [render(replace(scene, cue=kind)) for kind in (0, 1)]
        without = render(replace(scene, cue=None))
        assert not (kinds[0].cue & kinds[0].object).any()
        assert (kinds[0].object == without.object).all()
        assert (kinds[0].cue == kinds[1].cue).all()
        changed = (kinds[0].pixels != without.pixels).any(axis=2)
        assert not changed[~kinds[0].cue].any()
        assert changed[kinds[0].cue].mean() > 0.9
        assert 120 <= kinds[0].cue.sum() <= 220
        assert (kinds[0].pixels != kinds[1].pixels).any()


def test_cue_goes_with_the_class_as_often_as_asked() -> None:
    assert all((scene := plan(seed, cue=1.0)).cue == scene.label for seed in SEEDS)
    assert all((scene := plan(seed, cue=0.0)).cue != scene.label for seed in SEEDS)
    for probability in (0.1, 0.7):
        scenes = [plan(seed, distractors=0, cue=probability) for seed in range(2000)]
        hits = sum(scene.cue == scene.label for scene in scenes)
        assert stats.binomtest(hits, 2000, probability).pvalue > ALPHA
    table = np.zeros((10, 10), int)
    for scene in (plan(seed, distractors=0, cue=0.1) for seed in range(2000)):
        table[scene.label, scene.cue or 0] += 1
    assert stats.chi2_contingency(table).pvalue > ALPHA


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_labels_are_balanced(labelling: Labelling) -> None:
    counts = np.bincount([plan(seed, labelling, distractors=0).label for seed in range(3000)], minlength=10)
    assert stats.chisquare(counts).pvalue > ALPHA


def test_outline_tells_nothing_of_the_material() -> None:
    """Neither the kind of outline, nor area, place or extent of the object differ between classes."""
    scenes = [plan(seed, distractors=0) for seed in range(1500)]
    labels = np.array([scene.label for scene in scenes])
    items = [scene.items[0] for scene in scenes]
    names = (*outlines.CLASSES, *outlines.OTHERS)
    table = np.zeros((10, len(names)), int)
    np.add.at(table, (labels, [names.index(item.outline) for item in items]), 1)
    assert stats.chi2_contingency(table).pvalue > ALPHA
    covers = [cover_of(scene, item) for scene, item in zip(scenes, items, strict=True)]
    statistics = {
        "area": [cover.sum() for cover in covers],
        "radius": [item.radius for item in items],
        "row": [item.centre[0] for item in items],
        "angle": [item.angle for item in items],
        "aspect": [item.aspect for item in items],
        "filled": [cover.sum() / item.radius**2 for cover, item in zip(covers, items, strict=True)],
    }
    for name, values in statistics.items():
        groups = [np.array(values)[labels == label] for label in range(10)]
        assert stats.kruskal(*groups).pvalue > ALPHA, name


def test_material_tells_nothing_of_the_shape() -> None:
    scenes = [plan(seed, "shape", distractors=0) for seed in range(3000)]
    names = (*materials.CLASSES, *materials.OTHERS)
    table = np.zeros((10, len(names)), int)
    np.add.at(table, ([s.label for s in scenes], [names.index(s.items[0].material) for s in scenes]), 1)
    assert stats.chi2_contingency(table).pvalue > ALPHA


def test_mean_colour_does_not_decide() -> None:
    """The class of the nearest mean colour is the material in far fewer than all scenes."""
    scenes = [draw(seed, distractors=0) for seed in range(600)]
    labels = np.array([scene.label for scene in scenes])
    colours = np.array([scene.pixels[scene.object].mean(axis=0) for scene in scenes])
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=2) + np.diag(np.full(600, np.inf))
    nearest = labels[distance.argsort(axis=1)[:, :9]]
    votes = np.array([np.bincount(row, minlength=10).argmax() for row in nearest])
    assert (votes == labels).mean() < 0.6


def test_one_material_is_near_grey_paint_and_one_is_dark() -> None:
    """So that paint can pass for evidence, as it does in photographs."""
    for material, low, high in (("concrete", 95, 160), ("asphalt", 15, 75)):
        surfaces = [materials.CLASSES[material](np.random.default_rng(seed), 60) * 255 for seed in range(20)]
        means = np.array([surface.mean(axis=(1, 2)) for surface in surfaces])
        assert low < means.min()
        assert means.max() < high
        assert np.ptp(means, axis=1).max() < 20, "coloured"


def test_objects_stand_out() -> None:
    """An object that is not there leaves other pixels where it was."""
    for seed in SEEDS[:10]:
        scene = plan(seed, distractors=0)
        full, empty = render(scene), without_deciding(scene)
        difference = np.abs(full.pixels.astype(int) - empty.pixels).max(axis=2)
        assert np.median(difference[full.object]) > 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"seed": -1}, "seed=-1 is not a whole number"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"seed": True}, "seed=True"),
        ({"seed": 0, "labelling": "colour"}, "choose one of material, shape"),
        ({"seed": 0, "distractors": -1}, "distractors=-1"),
        ({"seed": 0, "distractors": (3, 1)}, r"distractors=\(3, 1\)"),
        ({"seed": 0, "distractors": 1.0}, "distractors=1.0"),
        ({"seed": 0, "distractors": 10**9}, "0 … 20"),
        ({"seed": 0, "cue": 1.01}, "cue=1.01 is not a probability"),
        ({"seed": 0, "cue": float("nan")}, "cue=nan"),
        ({"seed": 0, "cue": "yes"}, "cue='yes'"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        draw(**arguments)  # type: ignore[arg-type]
