"""Exports resnet50 and explains a photograph: ``python examples/demo.py FOLDER``.

Takes ImageNet weights where they can be downloaded, and random ones otherwise.
"""

from __future__ import annotations

import pathlib

import click
from PIL import Image
from skimage import data

import lmonnx
from lmonnx.errors import WeightsError
from lmonnx.explain import explain


@click.command()
@click.argument("folder", type=click.Path(path_type=pathlib.Path))
@click.option("--samples", default=200, show_default=True, help="Number of masks.")
def main(folder: pathlib.Path, samples: int) -> None:
    """Writes the graph and an explanation of scikit-image's picture of a cup of coffee into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "resnet50.onnx"
    try:
        result = lmonnx.export("resnet50", path)
    except WeightsError as error:
        click.echo(f"{error}\n\nUsing random weights: the path is real, the class and the picture mean nothing.\n")
        result = lmonnx.export("resnet50", path, weights="seed:0")
    click.echo(f"{result.verification}\nwrote {path}")
    explanation = explain(path, Image.fromarray(data.coffee()), samples=samples)
    explanation.save(folder / "explanation")
    click.echo(f"{explanation.name} ({explanation.probability:.1%})\nwrote {folder / 'explanation' / 'overlay.png'}")


if __name__ == "__main__":
    main()
