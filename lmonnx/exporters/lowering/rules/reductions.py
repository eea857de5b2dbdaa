"""Reductions over space, over one spatial axis, and over channels."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from lmonnx.exporters.lowering.registry import Operand, Refused, attributes, constant, rule, unpadded
from lmonnx.exporters.ops.builder import Op, extents, ints
from lmonnx.exporters.ops.fill import zeroed
from lmonnx.exporters.ops.masked import Masked
from lmonnx.exporters.ops.masks import kept_if
from lmonnx.exporters.ops.pools import any_kept, extreme_over_kept, mean_over_kept
from lmonnx.exporters.ops.totals import total

#: The reductions that add up: over kept positions they are the op on the zeroed map, and not rescaled.
SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")


#: Reductions that are defined at one pixel alone: which of them are 0 there, finite there, at least 0 there if x is.
PER_PIXEL = {
    "ReduceLogSum": (False, False, False),
    "ReduceLogSumExp": (False, True, False),
    "ReduceProd": (True, True, True),
}


@rule("ReduceMean", "ReduceMax", "ReduceMin", *SUMS, *PER_PIXEL)
def reduce(op: Op, node: ir.Node, x: Masked, axes: Operand = None) -> Masked | ir.Value:
    """Over all space the mask is consumed; along one axis of it, kept where anything is; over channels it stays.

    An axis of space that is kept, with extent 1, is still space: [N, C, H, 1] is a map, as coordinate attention has it.
    """
    x = unpadded(x)
    settings = attributes(node)
    keepdims = int(settings.get("keepdims", 1))
    over = () if axes is None else tuple(int(a) % x.rank for a in constant(axes, "axes"))
    if not over and settings.get("noop_with_empty_axes", 0):
        return x
    over = over or tuple(range(x.rank))
    spatial = tuple(axis for axis in x.axes if axis in over)
    if 0 in over:
        raise Refused("it reduces the batch, so a row of the result depends on other rows")
    if not spatial:
        return _per_pixel(op, node, x, over, keepdims)
    if node.op_type in PER_PIXEL:
        raise Refused("over space it is not defined where some positions are removed", "reduce channels alone, or sum")
    data = _over_kept(op, node.op_type, x, over, spatial, keepdims)
    if all(axis in over or extents(x.data)[axis] == 1 for axis in x.axes):
        return data
    mask, rest = any_kept(op, x.mask, spatial, 1), x.axes
    left = {axis: extents(x.data)[axis] for axis in x.axes if axis not in over}
    if set(left.values()) <= {1, None}:
        mask = kept_if(op, mask, x.data, {axis: 1 for axis, extent in left.items() if extent is None})
    if not keepdims:
        mask, rest = op.Squeeze(mask, ints(over)), x.axes_without(over)
    return Masked(data, mask, rest, zero=True, nonnegative=x.nonnegative or node.op_type in SUMS[1:])


def _over_kept(
    op: Op, operator: str, x: Masked, over: Sequence[int], spatial: Sequence[int], keepdims: int
) -> ir.Value:
    if operator == "ReduceMean":
        return mean_over_kept(op, x, over, spatial, keepdims)
    if operator == "ReduceSum":
        return op.cast_like(total(op, operator, op.widened(zeroed(op, x, blocked=False)), over, keepdims), x.data)
    if operator in SUMS:
        data = op.widened(zeroed(op, x, blocked=False))
        return op.cast_like(op.call(operator, data, ints(over), keepdims=keepdims), x.data)
    return extreme_over_kept(op, x, operator, over, spatial, keepdims)


def _per_pixel(op: Op, node: ir.Node, x: Masked, over: Sequence[int], keepdims: int) -> Masked:
    """The op at every pixel; the mask loses the axes that the data loses."""
    zero, finite, nonnegative = PER_PIXEL.get(node.op_type, (True, True, True))
    facts = x.but(
        data=op.call(node.op_type, x.data, ints(over), keepdims=keepdims),
        zero=x.zero and zero,
        finite=x.finite and finite,
        nonnegative=(x.nonnegative and nonnegative) or node.op_type in SUMS[1:],
    )
    if keepdims:
        return facts
    return facts.but(mask=op.Squeeze(x.mask, ints(over)), axes=x.axes_without(over))
