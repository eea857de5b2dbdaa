"""Operators that take parts of a value, or repeat them: the mask is cut and repeated like the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.lowering.registry import Operand, Refused, attributes, constant, rule, unpadded
from lmonnx.exporters.lowering.rules.joins import stretched
from lmonnx.exporters.ops.builder import Op, UnknownShapeError, extents, ints, sides
from lmonnx.exporters.ops.masked import Border, Masked

#: An end of a Slice that is taken for the end of the batch: exporters write the largest int32 or int64.
WHOLE = 2**31 - 1
#: Begin, stop and step, by axis.
Cuts: TypeAlias = dict[int, tuple[int, int, int]]


@rule("Gather")
def gather(op: Op, node: ir.Node, x: Masked, indices: ir.Value) -> Masked:
    """Entries along channels, at every position, or along space; the axes of the indices stand where the axis was."""
    axis = int(attributes(node).get("axis", 0)) % x.rank
    more = len(extents(indices)) - 1
    if axis == 0 or (axis in x.axes and more):
        raise Refused("it takes single rows of the batch" if axis == 0 else "it takes single positions of space")
    taken = unpadded(x).but(data=op.Gather(x.data, indices, axis=axis))
    if axis in x.axes:
        return taken.but(mask=op.Gather(x.mask, indices, axis=axis))
    if more < 0:
        return taken.but(mask=op.Squeeze(x.mask, ints([axis])), axes=x.axes_without([axis]))
    if more:
        mask = op.Unsqueeze(x.mask, ints(range(axis, axis + more)))
        taken = taken.but(mask=mask, axes=tuple(a + more if a > axis else a for a in x.axes))
    return taken


@rule("Split")
def split(op: Op, node: ir.Node, x: Masked, sizes: ir.Value | None = None) -> list[Masked]:
    """Parts of the channels have the mask of the whole; parts of space have parts of the mask."""
    x = unpadded(x)
    settings, count = attributes(node), len(node.outputs)
    axis = settings.get("axis", 0) % x.rank
    if axis == 0:
        raise Refused("it splits the batch")
    given = () if sizes is None else (sizes,)

    def divided(value: ir.Value) -> Sequence[ir.Value]:
        result = op.call("Split", value, *given, **settings, _outputs=count)
        return [result] if count == 1 else result

    masks = divided(x.mask) if axis in x.axes else [x.mask] * count
    return [x.but(data=part, mask=mask) for part, mask in zip(divided(x.data), masks, strict=True)]


@rule("Slice")
def slice_(
    op: Op, node: ir.Node, x: Masked, starts: Operand, ends: Operand, axes: Operand = None, steps: Operand = None
) -> Masked:
    """A part of the channels has the mask of the whole; a part of space has that part of the mask."""
    begins, stops = (constant(bound, "where it cuts").tolist() for bound in (starts, ends))
    along = list(range(len(begins))) if axes is None else [int(a) % x.rank for a in constant(axes, "axes")]
    strides = [1] * len(begins) if steps is None else constant(steps, "steps").tolist()
    cuts = dict(zip(along, zip(begins, stops, strides, strict=True), strict=True))
    begin, stop, stride = cuts.pop(0, (0, WHOLE, 1))
    if begin != 0 or stop < WHOLE or stride != 1:
        raise Refused("it takes a part of the batch")
    return cropped(op, x, cuts)


def cropped(op: Op, x: Masked, cuts: Cuts) -> Masked:
    """``x`` from begin to stop in steps along each of the axes, the batch not among them.

    A pending border is part of what is cut; what is left of it stays pending.
    """
    if x.border is not None:
        border, cuts = _around_cut(x, x.border, cuts)
        x = x.but(border=border if any(map(any, border.pads)) else None)
    space = {axis: one for axis, one in cuts.items() if axis in x.axes}
    return x.but(data=_cut(op, x.data, cuts), mask=_cut(op, x.mask, space))


def _around_cut(x: Masked, border: Border, cuts: Cuts) -> tuple[Border, Cuts]:
    """What ``cuts`` leave of ``border``, which lies around ``x``, and the cuts of ``x`` alone."""
    pads, inner = [], dict(cuts)
    for axis, extent, (before, after) in zip(x.axes, x.space, border.pads, strict=True):
        begin, stop, step = cuts.get(axis, (0, WHOLE, 1))
        if step < 1:
            raise Refused("it turns a constant Pad around that no window has read")
        taken = range(before + extent + after)[begin:stop:step]
        inside = [place - before for place in taken if 0 <= place - before < extent]
        if not inside:
            raise Refused("it leaves nothing but the constant of a Pad that no window has read")
        first = taken.index(inside[0] + before)
        pads.append((first, len(taken) - first - len(inside)))
        if len(inside) < extent:
            inner[axis] = inside[0], inside[-1] + 1, step
        else:
            inner.pop(axis, None)
    return Border(tuple(pads), border.value), inner


def _cut(op: Op, value: ir.Value, cuts: Cuts) -> ir.Value:
    """``value`` from begin to stop in steps along each of the axes."""
    if not cuts:
        return value
    begins, stops, strides = zip(*cuts.values(), strict=True)
    return op.Slice(value, ints(begins), ints(stops), ints(cuts), ints(strides))


@rule("Expand")
def expand(op: Op, node: ir.Node, x: Masked, shape: ir.Value) -> Masked:
    """Values repeated along axes of extent 1; where that is space, the mask too."""
    x, after = unpadded(x), extents(node.outputs[0])
    if len(after) != x.rank:
        raise Refused("it puts new axes before the batch")
    before, beyond = sides(node.inputs[0]), sides(node.outputs[0])  # type: ignore[arg-type]
    if any(after[axis] is None and (beyond[axis] is None or beyond[axis] != before[axis]) for axis in x.axes):
        raise UnknownShapeError("the height and width over which it is repeated are not known")
    mask = stretched(op, x.mask, after, x.axes)
    return x.but(data=op.Expand(x.data, shape), mask=mask)


@rule("Tile")
def tile(op: Op, node: ir.Node, x: Masked, repeats: Operand) -> Masked:
    """The map repeated; the mask as often, along space."""
    x, times = unpadded(x), constant(repeats, "the number of repeats")
    if times[0] != 1:
        raise Refused("it repeats the batch")
    over_space = np.where([axis in x.axes for axis in range(x.rank)], times, 1)
    mask = x.mask if (over_space == 1).all() else op.Tile(x.mask, ints(over_space))
    return x.but(data=op.Tile(x.data, ints(times)), mask=mask)
