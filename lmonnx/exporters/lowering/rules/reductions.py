"""Reductions over space, over one spatial axis, and over channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.lowering.registry import Operand, Refused, attributes, constant, rule, unpadded
from lmonnx.exporters.ops.builder import Op, ints
from lmonnx.exporters.ops.fill import zeroed
from lmonnx.exporters.ops.masked import Masked
from lmonnx.exporters.ops.pools import any_kept, extreme_over_kept, mean_over_kept

#: The reductions that add up: over kept positions they are the op on the zeroed map, and not rescaled.
SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")


@rule("ReduceMean", "ReduceMax", "ReduceMin", *SUMS)
def reduce(op: Op, node: ir.Node, x: Masked, axes: Operand = None) -> Masked | ir.Value:
    """Over all space the mask is consumed; along one axis of it, kept where anything is; over channels it stays."""
    x = unpadded(x)
    settings = attributes(node)
    keepdims = int(settings.get("keepdims", 1))
    over = tuple(range(x.rank)) if axes is None else tuple(int(a) % x.rank for a in constant(axes, "axes"))
    spatial = tuple(axis for axis in x.axes if axis in over)
    if 0 in over:
        raise Refused("it reduces the batch, so a row of the result depends on other rows", axes=())
    if not spatial:
        return _per_pixel(op, node, x, over, keepdims)
    data = _over_kept(op, node.op_type, x, over, spatial, keepdims)
    signed = node.op_type not in SUMS[1:] and not x.nonnegative
    rest = tuple(axis for axis in x.axes if axis not in over)
    mask = any_kept(op, x.mask, spatial, 1)
    if node.op_type in ("ReduceMax", "ReduceMin"):
        assert x.data.dtype is not None
        here = mask if keepdims else op.Squeeze(mask, ints(over))
        data = op.Where(here, data, np.array(0, x.data.dtype.numpy()))
    if not rest:
        return data
    return Masked(
        data,
        mask if keepdims else op.Squeeze(mask, ints(over)),
        rest if keepdims else tuple(axis - sum(o < axis for o in over) for axis in rest),
        zero=True,
        nonnegative=not signed,
    )


def _over_kept(
    op: Op, operator: str, x: Masked, over: Sequence[int], spatial: Sequence[int], keepdims: int
) -> ir.Value:
    if operator == "ReduceMean":
        return mean_over_kept(op, x, over, spatial, keepdims)
    if operator in SUMS:
        return op.call(operator, zeroed(op, x), ints(over), keepdims=keepdims)
    return extreme_over_kept(op, x, operator, over, keepdims)


def _per_pixel(op: Op, node: ir.Node, x: Masked, over: Sequence[int], keepdims: int) -> Masked:
    """The op at every pixel; the mask loses the axes that the data loses."""
    facts = x.but(
        data=op.call(node.op_type, x.data, ints(over), keepdims=keepdims),
        nonnegative=x.nonnegative or node.op_type in SUMS[1:],
    )
    if keepdims:
        return facts
    return facts.but(
        mask=op.Squeeze(x.mask, ints(over)), axes=tuple(axis - sum(o < axis for o in over) for axis in x.axes)
    )

