"""How faithful layer masking is to a network, on photographs: predictions kept, and deletion in LIME's order.

    python benchmarks/faithfulness.py MODEL.onnx PHOTOS [--json FILE] [--contact-sheet FILE.png]

**Predictions kept.** Random patches are removed from each photograph: by the graph's mask, by grey paint (128)
and by black paint (0). The same patches for all three, the same graph for all three; pictures are painted
as uint8, preprocessed as any picture, and run with an all-True mask. Counted is how often the most probable class
stays that of the whole photograph; and how often it is the true one, if every file name begins with its index
(``035_turtle.jpg``).

**Deletion.** Superpixels are removed by the mask one after another until none is left, in the order of an
explanation by LIME and in random orders. Measured is the area under the curve of the predicted class's
probability, relative to the whole photograph's, over the share of *pixels* removed (trapezoids, 0 … 1).

Intervals are percentile bootstraps of 95 % that resample photographs; draws and orders are averaged before.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from lmonnx.errors import LmonnxError
from lmonnx.explain import Explanation, explain
from lmonnx.explain.rendering import overlay
from lmonnx.explain.sampling import masks
from lmonnx.runtime import Preprocessing, Runner

PAINTS = {"grey": 128, "black": 0}
METHODS = ("layer", *PAINTS)
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
CELL = 336  # pixels, the width of a picture on the contact sheet

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


def patch_masks(rng: np.random.Generator, size: tuple[int, int], patch: int, removed: float, draws: int) -> Bools:
    """``[draws, 1, H, W]``, True = keep: exactly the share ``removed`` of the patches is missing, up to rounding."""
    height, width = size
    rows, columns = -(-height // patch), -(-width // patch)
    ranks = rng.permuted(np.tile(np.arange(rows * columns), (draws, 1)), axis=1)
    keep = ranks.reshape(draws, 1, rows, columns) >= round(removed * rows * columns)
    return keep.repeat(patch, axis=2).repeat(patch, axis=3)[..., :height, :width]


def painted(preprocessing: Preprocessing, pixels: npt.NDArray[np.uint8], keep: Bools, value: int) -> Any:
    """The network's inputs ``[draws, C, H, W]`` of a crop whose removed pixels are painted with ``value``."""
    paint = np.uint8(value)
    return np.concatenate([preprocessing.normalise(np.where(mask[0, ..., None], pixels, paint)) for mask in keep])


def top1(runner: Runner, image: Any, keep: Bools) -> npt.NDArray[np.intp]:
    """The most probable class by the graph's first output, ``[batch]``."""
    classes: npt.NDArray[np.intp] = next(iter(runner.run(image, keep).values())).argmax(axis=1)
    return classes


def predictions(runner: Runner, preprocessing: Preprocessing, pixels: Any, keep: Bools) -> dict[str, Any]:
    """The classes ``[draws]`` of a crop with pixels removed by each method, and ``[1]`` of the whole crop."""
    image, whole = preprocessing.normalise(pixels), np.ones_like(keep[:1])
    classes = {"whole": top1(runner, image, whole), "layer": top1(runner, image, keep)}
    for name, value in PAINTS.items():
        classes[name] = top1(runner, painted(preprocessing, pixels, keep, value), whole)
    return classes


def deletion_areas(runner: Runner, image: Any, explanation: Explanation, orders: Sequence[Any]) -> Doubles:
    """The area under the deletion curve of each order of the segments."""
    segments = np.arange(len(explanation.weights) + 1)  # one step more than segments, the first removes none
    keep = np.concatenate([np.argsort(order) >= segments[:, None] for order in orders])
    probability = runner.probabilities(image, masks(keep, explanation.segments, 32))[:, explanation.index]
    curves = probability.astype(np.float64).reshape(len(orders), -1)
    curves /= curves[:, :1]
    removed = (~keep @ np.bincount(explanation.segments.ravel()) / explanation.segments.size).reshape(curves.shape)
    areas: Doubles = (np.diff(removed) * (curves[:, 1:] + curves[:, :-1]) / 2).sum(axis=1)
    return areas


def estimate(values: npt.ArrayLike, seed: int) -> dict[str, float]:
    """Mean over photographs with its bootstrap interval."""
    sample = np.asarray(values, np.float64)
    rows = np.random.default_rng(seed).integers(len(sample), size=(10_000, len(sample)))
    low, high = np.quantile(sample[rows].mean(axis=1), [0.025, 0.975])
    return {"mean": float(sample.mean()), "low": float(low), "high": float(high)}


def true_classes(photos: Sequence[Path], classes: int | None) -> list[int] | list[None]:
    """The class indices that begin all file names; None for each photograph if one does not begin so."""
    indices = [int(number[1]) for photo in photos if (number := re.match(r"(\d+)[_-]", photo.name))]
    complete = len(indices) == len(photos) and (classes is None or max(indices) < classes)
    return indices if complete else [None] * len(photos)


def summarise(records: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The estimates, by the name of their row in the table."""
    area = {name: np.array([record["area"][name] for record in records]) for name in ("lime", "random")}
    rows: dict[str, Any] = {}
    for measure in ("kept", "accuracy"):
        if measure in records[0]:
            share = {name: np.array([record[measure][name] for record in records]) for name in records[0][measure]}
            rows |= {f"{measure}: {name}": estimate(values, seed) for name, values in share.items()}
            rows |= {f"{measure}: layer - {name}": estimate(share["layer"] - share[name], seed) for name in PAINTS}
    rows |= {f"deletion area: {name}": estimate(values, seed) for name, values in area.items()}
    rows["deletion area: random - lime"] = estimate(area["random"] - area["lime"], seed)
    rows["deletion: photographs lime < random"] = estimate(area["random"] > area["lime"], seed)
    rows["lime: R² of the fit"] = estimate([record["fit"] for record in records], seed)
    return rows


def contact_sheet(pictures: Sequence[Image.Image], captions: Sequence[str], columns: int = 8) -> Image.Image:
    """Overlays side by side, each over its caption."""
    margin, line = 8, 22
    height = max(round(picture.height * CELL / picture.width) for picture in pictures)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (CELL + margin), rows * (height + line + margin)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(number, columns)
        x, y = column * (CELL + margin), row * (height + line + margin)
        sheet.paste(picture.resize((CELL, height), Image.Resampling.LANCZOS), (x, y))
        draw.text((x + 6, y + height), caption, "black", font)
    return sheet


def measure(
    runner: Runner, photo: Path, truth: int | None, rng: np.random.Generator, settings: dict[str, Any]
) -> tuple[dict[str, Any], Image.Image]:
    """What is measured on a photograph, and the overlay of its explanation."""
    found = explain(runner, photo, samples=settings["samples"], segments=settings["segments"], seed=settings["seed"])
    preprocessing = runner.contract.preprocessing
    assert preprocessing, "explain refuses a graph without"
    keep = patch_masks(rng, runner.size, settings["patch"], settings["removed"], settings["draws"])
    classes = predictions(runner, preprocessing, found.pixels, keep)
    orders = [found.order(), *(rng.permutation(len(found.weights)) for _ in range(settings["orders"]))]
    areas = deletion_areas(runner, preprocessing.normalise(found.pixels), found, orders)
    record = {"photo": photo.name, "class": found.index, "name": found.name, "probability": found.probability}
    record |= {"fit": found.score, "area": {"lime": float(areas[0]), "random": float(areas[1:].mean())}}
    record["kept"] = {method: float((classes[method] == classes["whole"]).mean()) for method in METHODS}
    if truth is not None:
        record["accuracy"] = {name: float((given == truth).mean()) for name, given in classes.items()}
    return record, overlay(found)


@click.command(context_settings={"show_default": True})
@click.argument("model", type=click.Path(exists=True, dir_okay=False))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seed", default=0, help="Of patches, LIME's samples, orders and the bootstrap.")
@click.option("--draws", default=10, type=click.IntRange(1), help="Random masks of patches a photograph.")
@click.option("--patch", default=16, type=click.IntRange(1), help="Side of a patch in pixels.")
@click.option("--removed", default=0.25, type=click.FloatRange(0, 1), help="Share of the patches that is removed.")
@click.option("--samples", default=1000, help="Masks of an explanation.")
@click.option("--segments", default=50, help="Superpixels of an explanation, about.")
@click.option("--orders", default=5, type=click.IntRange(1), help="Random orders of deletion a photograph.")
@click.option("--threads", default=1, help="Threads of onnxruntime.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write settings, estimates and records.")
@click.option("--contact-sheet", "sheet_file", type=click.Path(path_type=Path), help="Write all overlays as a PNG.")
def main(model: str, folder: Path, json_file: Path | None, sheet_file: Path | None, **settings: Any) -> None:
    """Measure on the photographs in FOLDER how faithful the exported graph MODEL and its explanations are."""
    start = time.perf_counter()
    photos = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not photos:
        raise click.UsageError(f"{folder} holds no photographs ({', '.join(sorted(SUFFIXES))})")
    records, pictures = [], []
    try:
        runner = Runner(model, threads=settings["threads"])
        truth = true_classes(photos, runner.classes)
        with click.progressbar(photos, label="photographs", file=sys.stderr) as progress:
            for number, photo in enumerate(progress):
                rng = np.random.default_rng([settings["seed"], number])
                record, picture = measure(runner, photo, truth[number], rng, settings)
                records.append(record)
                pictures.append(picture)
    except LmonnxError as error:
        raise click.ClickException(str(error)) from error
    rows = summarise(records, settings["seed"])
    click.echo(f"{len(photos)} photographs {'mean':>22}  95 % interval")
    for name, row in rows.items():
        click.echo(f"{name:<36} {row['mean']:7.3f}  [{row['low']:.3f}, {row['high']:.3f}]")
    if sheet_file:
        contact_sheet(pictures, [photo.stem for photo in photos]).save(sheet_file)
    if json_file:
        result = {"model": model, "folder": str(folder), "settings": settings, "estimates": rows, "photos": records}
        json_file.write_text(json.dumps(result, indent=2) + "\n")
    click.echo(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
