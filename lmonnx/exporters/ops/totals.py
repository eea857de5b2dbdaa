"""Sums and means over many positions, to the digits of the data, and to the same bits in every row of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from lmonnx.exporters.ops.builder import Op, extents, ints, scalar

#: Up to so many terms onnxruntime adds up well enough at once. It keeps a few running sums, each of which loses digits
#: as it grows: its mean of 112×112 numbers about 1 is off by 3e-6, that of 32×32 by 2e-7 (measured, 1.31).
MANY = 1024
#: Numbers that onnxruntime's reductions take at once. If a row of the batch is no multiple of them, the next row begins
#: within such a group, and the terms are added up in another order (seen in 1.31); a pool's order is always the same.
GROUP = 4


def total(op: Op, operator: str, data: ir.Value, axes: Sequence[int], keepdims: int = 1) -> ir.Value:
    """``operator``, ReduceSum or ReduceMean, over ``axes``; axis by axis if there are many terms, or unknown ones."""
    sizes = extents(data)
    terms = [sizes[axis] for axis in axes]
    at_once = None not in terms and math.prod(extent or 0 for extent in terms) <= MANY
    if _uneven(data, axes):
        for axis in (axis for axis in axes if axis < 2):
            data = op.call(operator, data, ints([axis]), keepdims=1)
        space = [axis for axis in axes if axis >= 2]
        for some in [space] if at_once else [[axis] for axis in sorted(space)]:
            data = _pooled(op, operator, data, some)
    elif at_once:
        return op.call(operator, data, ints(axes), keepdims=keepdims)  # type: ignore[no-any-return]
    else:
        for axis in sorted(axes):
            data = op.call(operator, data, ints([axis]), keepdims=1)
    return data if keepdims else op.Squeeze(data, ints(axes))


def _uneven(data: ir.Value, axes: Sequence[int]) -> bool:
    """Whether ``data`` is [N, C, …space], is added up along its last axis, and a row is no multiple of a group."""
    _, *row = extents(data)
    if data.dtype != ir.DataType.FLOAT or None in row or len(row) < 2 or max(axes) != len(row):
        return False
    return math.prod(extent or 0 for extent in row) % GROUP != 0


def _pooled(op: Op, operator: str, data: ir.Value, axes: Sequence[int]) -> ir.Value:
    """The sum or mean over some of the axes of space."""
    space = [int(extent or 0) for extent in extents(data)[2:]]
    kernel = [extent if axis in axes else 1 for axis, extent in enumerate(space, start=2)]
    # Of the two, the pool over all space is added up as finely in every opset.
    mean = op.GlobalAveragePool(data) if kernel == space else op.AveragePool(data, kernel_shape=kernel)
    return mean if operator == "ReduceMean" else op.Mul(mean, scalar(math.prod(kernel), mean))
