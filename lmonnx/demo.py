"""The point of it all in half a minute: a network, a picture, what decides in it, and two explanations of that."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import lmonnx
from lmonnx.errors import PublishError
from lmonnx.evaluate.localisation import mass_accuracy, rank_accuracy
from lmonnx.evaluate.scenes import Scene, draw
from lmonnx.explain import Explanation, explain
from lmonnx.explain.rendering import INK, PAPER, enlarge_labels, outline, overlay

NETWORK = "scenes-material"
#: The first scene that the network was not trained on.
SCENE = 1_000_000_000
SAMPLES = 300
#: How segments are removed, in words, and with which grey they are painted; None masks them.
REMOVALS = {"layer masking": None, "grey paint": 128}


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demo found.

    Attributes:
        scene: the picture, with the true pixels of the object that decides.
        explanations: of the scene, by how segments were removed.
        paths: what was written, and what it is.
    """

    scene: Scene
    explanations: Mapping[str, Explanation]
    paths: Mapping[Path, str]

    def __str__(self) -> str:
        said = next(iter(self.explanations.values()))
        table = [("removed by", "weight on the object", "top pixels on it", "strongest weight", "R² of the fit")]
        for name, found in self.explanations.items():
            mass, rank = (score(found, self.scene.object) for score in (mass_accuracy, rank_accuracy))
            strongest = float(np.abs(found.weights).max())
            table.append((name, f"{mass:.0%}", f"{rank:.0%}", f"{strongest:.3f}", f"{found.score:.2f}"))
        chance = f"{self.scene.object.mean():.0%}"
        table.append(("by chance", chance, chance, "", ""))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            f"scene {self.scene.seed} shows {self.scene.name}, the network says {said.name} ({said.probability:.1%})",
            "",
            *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table),
            "",
            *(f"wrote {path}, {what}" for path, what in self.paths.items()),
        ]
        return "\n".join(lines)


def run(folder: str | os.PathLike[str], *, seed: int = SCENE, samples: int = SAMPLES) -> Demo:
    """Exports a bundled network with proof, and explains a scene by layer masking and by grey paint.

    Args:
        folder: made if it does not exist; ``scenes.onnx``, ``scene.png``, ``object.png`` (white where the object that
            decides is), ``comparison.png`` and a folder for each explanation are written there.
        seed: of the scene, see :func:`lmonnx.evaluate.scenes.draw`.
        samples: masks for each explanation.

    Raises:
        MissingExtraError: if the packages that exporting takes are not installed.
        OptionError: if an option has a value that is not allowed.
        PublishError: if the folder cannot be written.
    """
    target = Path(folder)
    scene = draw(seed, "material")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PublishError(f"cannot write to {target}: {error.strerror}; choose another folder with -o") from error
    model = lmonnx.export(NETWORK, target / "scenes.onnx").path
    runner = lmonnx.load(model)
    photo = _saved(Image.fromarray(scene.pixels), target / "scene.png")
    truth = _saved(Image.fromarray(scene.object), target / "object.png")
    explanations = {name: explain(runner, photo, paint=paint, samples=samples) for name, paint in REMOVALS.items()}
    folders = {name: found.save(target / name.split()[0]) for name, found in explanations.items()}
    picture = _saved(comparison(scene, explanations), target / "comparison.png")
    paths = {
        model: "the network with a mask input, proven equal to PyTorch",
        photo: "the scene",
        truth: "the object that decides, white",
        **{path: f"the explanation by {name}" for name, path in folders.items()},
        picture: "the three side by side",
    }
    return Demo(scene, explanations, paths)


def comparison(scene: Scene, explanations: Mapping[str, Explanation]) -> Image.Image:
    """The scene with its deciding object outlined, and each explanation with its score, in one scale of colours."""
    strongest = max(float(np.abs(found.weights).max()) for found in explanations.values())
    panels = [overlay(found, strongest) for found in explanations.values()]
    titles = [
        f"{name}: {mass_accuracy(found, scene.object):.0%} of the weight on the object".replace("%", " %")
        for name, found in explanations.items()
    ]
    side = panels[0].width
    pixels = np.array(Image.fromarray(scene.pixels).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    outline(pixels, enlarge_labels(scene.object.astype(np.int32), side // len(scene.object)) == 1, INK)
    unit = side // 28
    sheet = Image.new("RGB", (3 * side + 4 * unit, panels[0].height + 3 * unit), PAPER)
    sheet.paste(Image.fromarray(pixels.astype(np.uint8)), (unit, 5 * unit))
    for number, panel in enumerate(panels, 1):
        sheet.paste(panel, (unit + number * (side + unit), 3 * unit))
    text, font = ImageDraw.Draw(sheet), ImageFont.load_default(unit * 1.2)
    for number, title in enumerate([f"a scene: what decides is the {scene.name}", *titles]):
        text.text((unit + number * (side + unit), 3 * unit // 2), title, INK, font, anchor="lm")
    return sheet


def _saved(picture: Image.Image, path: Path) -> Path:
    try:
        picture.save(path)
    except OSError as error:
        raise PublishError(f"cannot write {path}: {error.strerror}; choose another folder with -o") from error
    return path
