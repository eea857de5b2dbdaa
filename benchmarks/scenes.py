"""What removing pixels does to the bundled networks, by layer masking and by paint, where the truth is known.

    python benchmarks/scenes.py [NAME…] [--scenes N] [--json FILE]

Each network is exported and run on scenes that it was not trained on. Removed are a quarter and a half of the 16 px
patches at random, then all but the object that decides, then that object alone; by the graph's mask, by grey paint
(128) and by black paint (0). The same pixels for all three, the same graph for all three; painted pictures are run
with an all-True mask. Counted is how often the most probable class is the true one; intervals are Wilson's, of 95 %.

Where the object is removed, a tenth is what guessing gives. More says that the hole's outline or the object's shadow
tells the class; that is what the labelling by shape is for.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from faithfulness import METHODS, PAINTS, patch_masks
from scipy.stats import binomtest

import lmonnx
from lmonnx.evaluate import Scene, draw
from lmonnx.exporters.sources.scenes import NAMES
from lmonnx.runtime import Runner

BATCH = 50
PATCH = 16

Bools = npt.NDArray[np.bool_]


def masks(scenes: Sequence[Scene], seed: int) -> dict[str, Bools]:
    """By the name of what is removed, ``[scenes, 1, H, W]``, True = keep."""
    size = scenes[0].object.shape
    objects = np.stack([scene.object[None] for scene in scenes])
    kept = {"nothing": np.ones_like(objects)}
    for share in (0.25, 0.5):
        rng = np.random.default_rng([seed, round(100 * share)])
        kept[f"{share:.0%} of the patches"] = patch_masks(rng, size, PATCH, share, len(scenes))  # type: ignore[arg-type]
    return kept | {"all but the object": objects, "the object": ~objects}


def classes(runner: Runner, scenes: Sequence[Scene], keep: Bools, method: str) -> npt.NDArray[np.intp]:
    """The most probable class of each scene with pixels removed by one of METHODS, ``[scenes]``."""
    preprocessing = runner.contract.preprocessing
    assert preprocessing
    found = []
    for first in range(0, len(scenes), BATCH):
        rows = slice(first, first + BATCH)
        pixels, mask = [scene.pixels for scene in scenes[rows]], keep[rows]
        if method in PAINTS:
            paint = np.uint8(PAINTS[method])
            pixels = [np.where(row[0, ..., None], picture, paint) for picture, row in zip(pixels, mask, strict=True)]
            mask = np.ones_like(mask)
        images = np.concatenate([preprocessing.normalise(picture) for picture in pixels])
        found.append(next(iter(runner.run(images, mask).values())).argmax(axis=1))
    return np.concatenate(found)


def measure(runner: Runner, scenes: Sequence[Scene], seed: int) -> list[dict[str, Any]]:
    """One row for each kind of removal and method."""
    truth = np.array([scene.label for scene in scenes])
    rows = []
    for removed, keep in masks(scenes, seed).items():
        for method in METHODS if removed != "nothing" else METHODS[:1]:
            found = classes(runner, scenes, keep, method)
            right, wrong = int((found == truth).sum()), Counter(found[found != truth].tolist()).most_common(1)
            interval = binomtest(right, len(truth)).proportion_ci(method="wilson")
            row: dict[str, Any] = {"removed": removed, "by": method, "accuracy": right / len(truth)}
            row |= {"low": interval.low, "high": interval.high}
            row["wrong"] = {runner.label(index): count / len(truth) for index, count in wrong}
            rows.append(row)
    return rows


@click.command(context_settings={"show_default": True})
@click.argument("names", nargs=-1, type=click.Choice(NAMES), metavar="[NAME]...")
@click.option("--scenes", "count", default=500, type=click.IntRange(1), help="Number of scenes.")
@click.option("--first", default=1_000_100_000, type=click.IntRange(0), help="Seed of the first scene.")
@click.option("--seed", default=0, help="Of the patches.")
@click.option("--threads", default=1, help="Threads of onnxruntime.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write settings and rows.")
def main(names: tuple[str, ...], count: int, first: int, seed: int, threads: int, json_file: Path | None) -> None:
    """Measure accuracy on scenes of which parts are removed, for the bundled networks or those named."""
    start = time.perf_counter()
    result: dict[str, Any] = {"scenes": count, "first": first, "seed": seed, "networks": {}}
    for name in names or NAMES:
        labelling = "shape" if "shape" in name else "material"
        scenes = [draw(number, labelling) for number in range(first, first + count)]  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as folder:
            runner = Runner(lmonnx.export(name, Path(folder) / "network.onnx").path, "cpu", threads)
            rows = measure(runner, scenes, seed)
        result["networks"][name] = rows
        click.echo(f"{name}, {count} scenes from seed {first}")
        for row in rows:
            wrong = "".join(f"  most often wrongly {label} {share:.2f}" for label, share in row["wrong"].items())
            span = f"[{row['low']:.3f}, {row['high']:.3f}]"
            click.echo(f"  {row['removed']:<20} {row['by']:<6} {row['accuracy']:.3f}  {span}{wrong}")
    if json_file:
        json_file.write_text(json.dumps(result, indent=2) + "\n")
    click.echo(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
