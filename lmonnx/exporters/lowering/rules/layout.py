"""Operators that move positions and leave values alone: the mask moves with the data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.lowering.registry import Operand, Refused, attributes, rule, unpadded
from lmonnx.exporters.ops.builder import Op, extents, ints
from lmonnx.exporters.ops.fill import zeroed
from lmonnx.exporters.ops.masked import Masked


@rule("Transpose")
def transpose(op: Op, node: ir.Node, x: Masked) -> Masked:
    """Data and mask are permuted alike; a permutation of a permutation is one, or none."""
    x = unpadded(x)
    perm = list(attributes(node).get("perm") or range(x.rank)[::-1])
    axes = tuple(map(perm.index, x.axes))
    if perm[0] != 0:
        raise Refused("it moves the batch axis", axes=axes)
    return x.but(data=permuted(op, x.data, perm), mask=permuted(op, x.mask, perm), axes=axes)


def permuted(op: Op, value: ir.Value, perm: Sequence[int]) -> ir.Value:
    """Transpose of ``value``, through Transposes that made it."""
    producer = value.producer()
    if producer is not None and producer.op_type == "Transpose":
        inner = producer.attributes["perm"].asints()
        source = producer.inputs[0]
        assert source is not None
        return permuted(op, source, [inner[axis] for axis in perm])
    return value if list(perm) == list(range(len(perm))) else op.Transpose(value, perm=list(perm))


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(op: Op, node: ir.Node, x: Masked, *shape: Operand) -> Masked | ir.Value:
    """Whether space survives is read off the shapes before and after.

    [N, C, H, W] -> [N, C·H·W]: a vector; removed pixels are 0 and the mask is consumed.
    [N, C, H, W] -> [N, C, H·W] or [N, G, C/G, H, W]: space merged, or channels split; the mask goes along.
    """
    x = unpadded(x)
    before, after = extents(x.data), extents(node.outputs[0])
    groups = factors(before, after)
    if groups is None:
        raise Refused(f"how it maps {_text(before)} to {_text(after)} is not known", "export with a fixed size")
    axes: list[int] = []
    lost = 0
    for old, new in groups:
        space = [axis for axis in old if axis in x.axes]
        if not space:
            continue
        if math.prod(before[axis] or 0 for axis in old) == 1 or (len(space) < len(old) and len(new) == 1):
            lost += len(space)
        elif len(space) < len(old) or 0 in old:
            raise Refused(f"mapping {_text(before)} to {_text(after)} mixes space with other axes")
        else:
            axes += new
    if lost == len(x.axes):
        return op.call(node.op_type, zeroed(op, x), *shape, **attributes(node))
    if lost:
        raise Refused(f"mapping {_text(before)} to {_text(after)} keeps one spatial axis and flattens another")
    target = [-1 if axis == 0 else (after[axis] or 0) if axis in axes else 1 for axis in range(len(after))]
    return x.but(
        data=op.call(node.op_type, x.data, *shape, **attributes(node)),
        mask=op.Reshape(x.mask, ints(target)),
        axes=tuple(axes),
    )


_Groups = list[tuple[list[int], list[int]]]


def factors(before: Sequence[int | None], after: Sequence[int | None]) -> _Groups | None:
    """Splits two shapes of equal product into the shortest runs of axes with equal products.

    One unknown extent on each side, the batch, is taken for the same number if it comes first in both.
    Axes of extent 1 at the end of a shape join the last run. None if the shapes cannot be matched.
    """
    if None in before[1:] or None in after[1:] or (before[0] is None) != (after[0] is None):
        return None
    left, right = [n or -1 for n in before], [n or -1 for n in after]
    groups: _Groups = []
    i = j = 0
    while i < len(left) and j < len(right):
        old, new = [i], [j]
        a, b = left[i], right[j]
        i, j = i + 1, j + 1
        while a != b:
            if abs(a) < abs(b) and i < len(left):
                old, a, i = [*old, i], a * left[i], i + 1
            elif abs(b) < abs(a) and j < len(right):
                new, b, j = [*new, j], b * right[j], j + 1
            else:
                return None
        groups.append((old, new))
    for rest, ones, side in ((range(i, len(left)), left, 0), (range(j, len(right)), right, 1)):
        if any(ones[axis] != 1 for axis in rest):
            return None
        groups[-1][side].extend(rest)
    return groups


def _text(shape: Sequence[int | None]) -> str:
    return "×".join("batch" if n is None else str(n) for n in shape)
