"""Trains the bundled networks: ``python -m training NAME…``, or ``python -m training all``."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import click
import torch

from lmonnx.evaluate import Labelling
from training.data import HELD_OUT, scenes
from training.train import Data, Recipe, accuracy, save, train

RECIPES = {
    "scenes-material": Recipe("material", grey=False, epochs=4),
    "scenes-material-grey": Recipe("material", grey=True, epochs=6),
    "scenes-shape": Recipe("shape", grey=False, epochs=6),
    "scenes-shape-grey": Recipe("shape", grey=True, epochs=12),
}
WEIGHTS = Path(__file__).parents[1] / "lmonnx" / "weights"
ENOUGH = 0.95
"""Accuracy on held-out scenes below which nothing is written."""


@click.command(context_settings={"show_default": True})
@click.argument("names", nargs=-1, required=True, type=click.Choice([*RECIPES, "all"]), metavar="NAME...")
@click.option("-o", "--output", default=WEIGHTS, type=click.Path(path_type=Path), help="Folder of NAME.safetensors.")
@click.option("--scenes", "count", default=Recipe.scenes, type=click.IntRange(1000), help="Training scenes.")
@click.option("--epochs", type=click.IntRange(1), help="How often each is seen. [default: as in the model card]")
@click.option("--seed", default=Recipe.seed, help="Of weights, order and augmentation.")
@click.option("--processes", default=os.cpu_count() or 1, type=click.IntRange(1), help="That draw scenes.")
def main(names: tuple[str, ...], output: Path, count: int, epochs: int | None, seed: int, processes: int) -> None:
    """Train networks on scenes that are drawn for it, on a GPU if there is one.

    NAME is scenes-material, scenes-material-grey, scenes-shape, scenes-shape-grey, or all.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipes = {
        name: replace(recipe, scenes=count, seed=seed, epochs=epochs or recipe.epochs)
        for name, recipe in RECIPES.items()
        if name in names or "all" in names
    }
    failed = []
    for labelling in get_args(Labelling):
        group = {name: recipe for name, recipe in recipes.items() if recipe.labelling == labelling}
        if not group:
            continue
        start = time.perf_counter()
        click.echo(f"drawing {count} scenes to train on and {Recipe.held_out} to measure, labelled by {labelling}")
        data = scenes(labelling, 0, count, processes, lambda done: click.echo(f"{done} of {count} scenes"))
        held_out = scenes(labelling, HELD_OUT, Recipe.held_out, processes)
        drawing = round(time.perf_counter() - start)
        for name, recipe in group.items():
            reached = _one(name, recipe, (data, held_out), device, output, drawing)
            failed += [] if reached >= ENOUGH else [name]
    if failed:
        raise click.ClickException(f"less than {ENOUGH:.0%} on held-out scenes, not written: {', '.join(failed)}")


def _one(name: str, recipe: Recipe, data: tuple[Data, Data], device: torch.device, output: Path, drawing: int) -> float:
    """Trains, measures and writes one network; its accuracy on held-out scenes."""
    click.echo(f"{name}: training on {device} with {torch.get_num_threads()} threads")
    start = time.perf_counter()
    network = train(recipe, data[0], device, lambda line: click.echo(f"{name}: {line}"))
    training, reached = round(time.perf_counter() - start), accuracy(network, data[1])
    click.echo(f"{name}: {reached:.4f} right on {recipe.held_out} held-out scenes, {training} s")
    if reached >= ENOUGH:
        measured = {"accuracy": reached, "seconds_training": training, "seconds_drawing": drawing}
        save(network, output / f"{name}.safetensors", recipe, measured)
    return reached


if __name__ == "__main__":
    main()
