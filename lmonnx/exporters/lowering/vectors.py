"""What may read pixels that a Flatten or Reshape made a vector of, in which removed ones are 0 and no mask is left.

A dense layer may, as may what acts on single numbers on the way to it, and sums, to which a 0 adds nothing. What
compares or averages the numbers would count removed pixels as pixels that are 0, and a window over a map that is made
of them again would read them as black.
"""

from __future__ import annotations

import onnx_ir as ir

from lmonnx.exporters.lowering.rules.joins import JOINS
from lmonnx.exporters.lowering.rules.pointwise import POINTWISE
from lmonnx.exporters.ops.builder import extents
from lmonnx.exporters.ops.masked import Masked

REMOVED = "it reads pixels that a Reshape made a vector, in which removed ones count as pixels that are 0"
REMEDY = "write it over height and width"
#: Behind them the numbers still belong to single pixels.
PASSING = {
    *JOINS, *POINTWISE, "BatchNormalization", "Cast", "Clip", "Concat", "DequantizeLinear", "Dropout", "Expand",
    "Flatten", "Gather", "Identity", "Pad", "QuantizeLinear", "Reshape", "Selu", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
}  # fmt: skip
#: Behind them they do not.
ENDING = {
    "Einsum", "Gemm", "LpNormalization", "MatMul", "ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare", "Shape",
    "Size",
}  # fmt: skip


class Vectors:
    """Which values of a source are such vectors."""

    def __init__(self) -> None:
        self._values: set[ir.Value] = set()

    def note(self, node: ir.Node, x: Masked) -> None:
        """The result of ``node``, which is plain, is one of ``x``, unless that has a single pixel."""
        if any(extents(x.data)[axis] != 1 for axis in x.axes) and node.op_type in PASSING:
            self._values.update(node.outputs)

    def misread(self, node: ir.Node) -> bool:
        """Whether ``node``, which reads plain values alone, must not read one of these; notes what it makes."""
        if not any(value in self._values for value in node.inputs):
            return False
        if node.op_type in PASSING:
            self._values.update(node.outputs)
        return node.op_type not in PASSING | ENDING
