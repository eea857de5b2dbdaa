"""How much of a removed square is still removed deeper in a network: ``python benchmarks/holes.py NAME...``.

For each network (torchvision's name; the weights do not matter) a square is removed at 32 random places. Printed is
the share of positions that the mask at the entry of each stage still removes, relative to the square's share of the
image. 1 would mean that the hole keeps its size; 0 that the network works as if nothing were removed there, on
features computed from the square's surroundings.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime

import lmonnx

SIDES = (8, 16, 32, 64, 112, 160)  # pixels of 224


def masks_of(path: Path) -> tuple[onnxruntime.InferenceSession, list[int]]:
    """A session whose outputs are the graph's masks, in order, and the width of each."""
    model = onnx.load(path)
    inverted = {output for node in model.graph.node if node.op_type == "Not" for output in node.output}
    found = [
        value
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.BOOL and value.name not in inverted
    ]
    del model.graph.output[:]
    model.graph.output.extend(found)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session, [value.type.tensor_type.shape.dim[-1].dim_value for value in found]


@click.command()
@click.argument("names", nargs=-1, required=True)
def main(names: tuple[str, ...]) -> None:
    """Prints a table in Markdown."""
    rng = np.random.default_rng(0)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            path = lmonnx.export(name, Path(folder) / "model.onnx", weights="seed:0", verify=False).path
            session, widths = masks_of(path)
        deep = [width for width in sorted(set(widths), reverse=True) if width < 112]
        click.echo(f"\n| {name}: removed square | {' | '.join(f'{width}×{width}' for width in deep)} |")
        click.echo("|---" * (1 + len(deep)) + "|")
        for side in SIDES:
            mask = np.ones((32, 1, 224, 224), bool)
            for row in mask:
                top, left = rng.integers(0, 224 - side + 1, 2)
                row[0, top : top + side, left : left + side] = False
            outputs = session.run(None, {"image": np.zeros((1, 3, 224, 224), np.float32), "mask": mask})
            removed = [float((~output).mean()) / (side / 224) ** 2 for output in outputs]
            stages = [next(r for r, w in zip(removed, widths, strict=True) if w == width) for width in deep]
            click.echo(f"| {side} px | " + " | ".join(f"{share:.2f}" for share in stages) + " |")


if __name__ == "__main__":
    main()
