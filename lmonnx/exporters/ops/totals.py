"""Sums and means over many positions, to the digits of the data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from lmonnx.exporters.ops.builder import Op, extents, ints

#: Up to so many terms onnxruntime adds up well enough at once. It keeps a few running sums, each of which loses digits
#: as it grows: its mean of 112×112 numbers about 1 is off by 3e-6, that of 32×32 by 2e-7 (measured, 1.31).
MANY = 1024


def total(op: Op, operator: str, data: ir.Value, axes: Sequence[int], keepdims: int = 1) -> ir.Value:
    """``operator``, ReduceSum or ReduceMean, over ``axes``; axis by axis if there are many terms, or unknown ones."""
    terms = [extents(data)[axis] for axis in axes]
    if None not in terms and math.prod(extent or 0 for extent in terms) <= MANY:
        return op.call(operator, data, ints(axes), keepdims=keepdims)  # type: ignore[no-any-return]
    for axis in sorted(axes):
        data = op.call(operator, data, ints([axis]), keepdims=1)
    return data if keepdims else op.Squeeze(data, ints(axes))
