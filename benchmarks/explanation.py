"""What a whole explanation costs, in time and in memory, against as many passes of the plain graph.

    python -m benchmarks.explanation [NETWORK] [--samples 1000] [--rounds 3] [--batch N]

One photograph (noise) is explained by LIME; the plain graph gets as many images at the same batch size, in turns in one
process. Memory is the most that a process of its own holds, for each; that of the plain graph imports
onnxruntime and numpy alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import click
import numpy as np
import onnx_ir as ir
from PIL import Image

import lmonnx
from lmonnx.explain import explain
from lmonnx.exporters.sources import resolve
from lmonnx.runtime.providers import open_session
from lmonnx.speed.race import race

PREPROCESSING = {"mean": (0.5,), "std": (0.5,)}


def run_plain(session: object, images: np.ndarray, samples: int) -> None:
    """``samples`` images through a session, as many at once as ``images`` holds."""
    (given,) = session.get_inputs()  # type: ignore[attr-defined]
    for _ in range(-(-samples // len(images))):
        session.run(None, {given.name: images})  # type: ignore[attr-defined]


def peak_of(what: str, path: Path, samples: int, batch: int) -> int:
    """The most bytes that a program holds; see :mod:`benchmarks.peak`."""
    command = [sys.executable, "-m", "benchmarks.peak", what, str(path), str(samples), str(batch)]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@click.command()
@click.argument("name", default="resnet50")
@click.option("--samples", default=1000, show_default=True, help="Masks, and images of the plain graph.")
@click.option("--rounds", default=3, show_default=True, help="Explanations, and as many times the plain graph.")
@click.option("--batch", type=int, help="Rows of a pass. [default: measured]")
def main(name: str, samples: int, rounds: int, batch: int | None) -> None:
    """Explain a photograph by NETWORK and compare it with the plain graph."""
    with tempfile.TemporaryDirectory() as folder:
        plain, masked, photo = (Path(folder, file) for file in ("plain.onnx", "masked.onnx", "photo.png"))
        network = resolve(name, weights="seed:0")
        ir.save(network.graph, plain)
        described = None if network.preprocessing else PREPROCESSING
        lmonnx.export(name, masked, weights="seed:0", verify=False, preprocessing=described)
        noise = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
        Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC).save(photo)
        runner = lmonnx.load(masked, provider="cpu")
        size = batch or runner.tune()
        shape = (network.channels, *network.size)
        session, images = open_session(str(plain), "cpu", None), np.zeros((size, *shape), np.float32)
        times = race(
            {
                "plain": partial(run_plain, session, images, samples),
                "explanation": partial(explain, runner, photo, samples=samples, batch_size=size),
            },
            rounds,
        )
        low, middle, high = times.ratio("explanation", "plain")
        files = {"plain": plain, "explanation": masked}
        memory = {what: peak_of(what, path, samples, size) for what, path in files.items()}
        click.echo(f"{name}: {samples} samples, batches of {size}, {runner.threads} threads")
        for program in ("plain", "explanation"):
            _, seconds, _ = times.quartiles(program)
            click.echo(
                f"{program:<12} {seconds:6.2f} s  {samples / seconds:6.1f} a second  "
                f"at most {memory[program] / 1e6:.0f} MB"
            )
        click.echo(f"explanation ÷ plain: {middle:.2f} ({low:.2f}–{high:.2f}) of the time, "
                   f"{memory['explanation'] / memory['plain']:.2f} of the memory")  # fmt: skip


if __name__ == "__main__":
    main()
