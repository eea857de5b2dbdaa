"""What a mask costs on five networks, against the plain graph and the authors' algorithm: RESULTS.md's figures.

    python -m benchmarks.speed [NETWORK...] [--batch 8,32] [--rounds 15] [--threads 2] [--json FILE] [--profile]
                              [--compile] [--opset N]

Networks are torchvision's, with random weights; they are timed as :func:`lmonnx.bench` says. Beside the plain graph,
the masked graph and PyTorch stands layer masking as its authors run it (:mod:`benchmarks.authors`), as it is and
compiled by torch.compile, where that works.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import lmonnx
from benchmarks.authors import LayerMasking
from lmonnx.errors import LmonnxError
from lmonnx.exporters.sources.seeds import seeded
from lmonnx.exporters.sources.torchvision import import_torchvision
from lmonnx.options import Numbers
from lmonnx.speed import Program, Report

NETWORKS = ("resnet50", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "densenet121")
AUTHORS, COMPILED = "authors' algorithm, PyTorch", "authors' algorithm, torch.compile"


def program(module: torch.nn.Module) -> Program:
    """A module of image and mask, from arrays."""

    def run(image: np.ndarray, mask: np.ndarray) -> object:
        with torch.inference_mode():
            return module(torch.from_numpy(image), torch.from_numpy(mask))

    return run


def compiled(masking: LayerMasking, size: tuple[int, int] = (224, 224)) -> Program | None:
    """The same by torch.compile, of one graph for any batch; None, with a word why, where it does not work."""
    example = torch.zeros(2, 3, *size), torch.ones(2, 1, *size, dtype=torch.bool)
    batch = torch.export.Dim("batch")
    try:
        exported = torch.export.export(masking, example, dynamic_shapes=({0: batch}, {0: batch}))
        run = program(torch.compile(exported.module(), dynamic=True))
        run(*(x.numpy() for x in example))
    except Exception as error:  # what it raises depends on the compilers that it finds
        click.echo(f"torch.compile does not work here: {str(error).splitlines()[0]}", err=True)
        return None
    return run


def measured(name: str, compile_too: bool, **options: Any) -> Report:
    """The report on one of torchvision's networks."""
    module = seeded(import_torchvision().models.get_model(name, weights=None), 0).eval()
    masking = LayerMasking(module)
    others = {AUTHORS: program(masking)}
    if compile_too and (faster := compiled(masking)):
        others[COMPILED] = faster
    return lmonnx.bench(name, weights="seed:0", others=others, **options)


@click.command()
@click.argument("networks", nargs=-1)
@click.option("--batch", "batches", type=Numbers(int, 1, 2, 3, 4), default=(8, 32), help="Images in a run.")
@click.option("--rounds", default=15, type=click.IntRange(1), show_default=True, help="Runs of every program.")
@click.option("--threads", type=click.IntRange(1), help="Of every program. [default: as many as processors]")
@click.option("--opset", type=int, help="Of the masked graph.")
@click.option("--profile", is_flag=True, help="Also where the masked graph spends its time.")
@click.option("--compile", "compile_too", is_flag=True, help="Also the authors' algorithm by torch.compile.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the reports to this file too.")
def main(networks: tuple[str, ...], file: Path | None, **options: Any) -> None:
    """Time NETWORKS, five of torchvision's if none is named."""
    reports = []
    for name in networks or NETWORKS:
        try:
            report = measured(name, **options)
        except LmonnxError as error:
            raise click.ClickException(str(error)) from error
        click.echo(f"{report}\n")
        reports.append(report.to_json())
    if file is not None:
        file.write_text(json.dumps(reports, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
