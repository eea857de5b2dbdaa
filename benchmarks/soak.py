"""Whether memory stays flat over many explanations: 200 scenes, 1,000 masks each.

    python -m benchmarks.soak [--scenes 200] [--samples 1000] [--workers 1]

Scenes are drawn, explained by the bundled scenes-material as `lmonnx explain FOLDER` does it, and what this process and
its workers hold is printed after every twentieth of them.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
import psutil
from PIL import Image

import lmonnx
from lmonnx.evaluate import draw
from lmonnx.explain import explain_many
from lmonnx.runtime.jobs import Silent

FIRST = 1_000_000_000


class Watch(Silent):
    """Prints memory as a job goes on."""

    def __init__(self, every: int) -> None:
        self.done, self.masks, self.every, self.start = 0, 0, every, time.perf_counter()
        self.process = psutil.Process()

    def rows(self, count: int) -> None:
        """So many more rows were computed."""
        self.masks += count

    def image(self) -> None:
        """One more photograph is finished, or failed."""
        self.done += 1
        if self.done == 1 or self.done % self.every == 0:
            own = self.process.memory_info().rss / 1e6
            others = sum(child.memory_info().rss for child in self.process.children()) / 1e6
            speed = self.masks / (time.perf_counter() - self.start)
            click.echo(f"{self.done:5} scenes  {own:7.1f} MB  workers {others:7.1f} MB  {speed:6.0f} masks/s")


@click.command()
@click.option("--scenes", default=200, show_default=True)
@click.option("--samples", default=1000, show_default=True)
@click.option("--workers", default=1, show_default=True)
def main(scenes: int, samples: int, workers: int) -> None:
    """Explain many scenes, and watch the memory."""
    with tempfile.TemporaryDirectory() as folder:
        model, photos = Path(folder, "scenes.onnx"), Path(folder, "photos")
        lmonnx.export("scenes-material", model, verify=False)
        photos.mkdir()
        for number in range(scenes):
            Image.fromarray(draw(FIRST + number).pixels).save(photos / f"{number:05}.png")
        runner = lmonnx.load(model)
        runner.tune()
        watch = Watch(max(1, scenes // 20))
        outcome = explain_many(
            runner,
            [photos],
            Path(folder, "out"),
            samples=samples,
            workers=workers,
            progress=watch,
        )
        click.echo(outcome)


if __name__ == "__main__":
    main()
