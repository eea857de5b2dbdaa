"""Do explanations point at the object that decides? LIME by layer masking and by paint, on scenes with known truth.

    python benchmarks/localisation.py [NAME…] [--scenes N]

Each network is exported, and the true class of each of N scenes that it was not trained on is explained three times:
segments removed by the mask, by grey paint (128), by black paint (0). Scored is the share of the supporting weight that
lies on the deciding object (relevance mass accuracy) and the share of the highest-ranked pixels that do (relevance
rank accuracy); see lmonnx.evaluate.localisation. Intervals are percentile bootstraps of 95 % over scenes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
from faithfulness import PAINTS, estimate

import lmonnx
from lmonnx.evaluate import draw
from lmonnx.evaluate.localisation import mass_accuracy, rank_accuracy
from lmonnx.explain import explain
from lmonnx.exporters.sources.scenes import NAMES

FIRST = 1_000_000_000
REMOVALS = {"layer": None, **PAINTS}


@click.command(context_settings={"show_default": True})
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--scenes", "count", default=24, type=click.IntRange(2), help="Scenes to explain.")
@click.option("--samples", default=200, help="Masks for each explanation.")
def main(names: tuple[str, ...], count: int, samples: int) -> None:
    """Prints a table in Markdown."""
    click.echo("| network | removed by | weight on the object | highest-ranked pixels on it | R² of the fit |")
    click.echo("|---|---|---|---|---|")
    for name in names or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            runner = lmonnx.load(lmonnx.export(name, Path(folder) / "scenes.onnx").path)
            scenes = [draw(FIRST + number, "material" if "material" in name else "shape") for number in range(count)]
            for removal, paint in REMOVALS.items():
                found = [explain(runner, s.pixels, target=s.label, samples=samples, paint=paint) for s in scenes]
                scores = {
                    "mass": [mass_accuracy(e, s.object) for e, s in zip(found, scenes, strict=True)],
                    "rank": [rank_accuracy(e, s.object) for e, s in zip(found, scenes, strict=True)],
                    "fit": [e.score for e in found],
                }
                cells = ["{mean:.2f} [{low:.2f}, {high:.2f}]".format(**estimate(v, 0)) for v in scores.values()]
                click.echo(f"| {name} | {removal} | {' | '.join(cells)} |")
        share = float(np.mean([scene.object.mean() for scene in scenes]))
        click.echo(f"| {name} | by chance | {share:.2f} | {share:.2f} | |")


if __name__ == "__main__":
    main()
