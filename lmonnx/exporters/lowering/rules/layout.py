"""Operators that move positions and leave values alone: the mask moves with the data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.lowering.adaptive import adaptive_pool
from lmonnx.exporters.lowering.registry import FIXED, Refused, attributes, rule, unpadded
from lmonnx.exporters.ops.builder import Op, UnknownShapeError, extents, ints, sides
from lmonnx.exporters.ops.fill import zeroed
from lmonnx.exporters.ops.masked import Border, Masked


@rule("Transpose")
def transpose(op: Op, node: ir.Node, x: Masked) -> Masked:
    """Data, mask and a pending border are permuted alike; a permutation of a permutation is one, or none."""
    perm = list(attributes(node).get("perm") or range(x.rank)[::-1])
    axes = tuple(sorted(map(perm.index, x.axes)))
    if perm[0] != 0:
        if any(use.node.op_type == "ScatterND" for use in node.outputs[0].uses()):
            raise Refused("it leads to a slice that is written to, entry by entry", "join the parts with a Concat")
        raise adaptive_pool(node) or Refused("it moves the batch axis", debris=True)
    border = x.border
    if border is not None:
        pads = tuple(border.pads[x.axes.index(perm[axis])] for axis in axes)
        border = Border(pads, border.value)
    return x.but(data=permuted(op, x.data, perm), mask=permuted(op, x.mask, perm), axes=axes, border=border)


def permuted(op: Op, value: ir.Value, perm: Sequence[int]) -> ir.Value:
    """Transpose of ``value``, through Transposes that made it."""
    producer = value.producer()
    if producer is not None and producer.op_type == "Transpose":
        inner = producer.attributes["perm"].as_ints()
        source = producer.inputs[0]
        assert source is not None
        return permuted(op, source, [inner[axis] for axis in perm])
    return value if list(perm) == list(range(len(perm))) else op.Transpose(value, perm=list(perm))


#: What to do where groups of channels became images.
APART = "give the groups an axis of their own: reshape to [N, groups, channels, H, W] and reduce its last two axes"


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(op: Op, node: ir.Node, x: Masked, *shape: ir.Value | None) -> Masked | ir.Value:
    """Whether space survives is read off the shapes before and after.

    [N, C, H, W] -> [N, C·H·W]: a vector; removed pixels are 0 and the mask is consumed.
    [N, C, H, W] -> [N, C, H·W] or [N, G, C/G, H, W]: space merged, or channels split; the mask goes along.
    """
    x = unpadded(x)
    opened = None in extents(x.data)[1:]
    before, after = _numbered(node) if opened else (extents(x.data), _resolved(x.data, node.outputs[0]))
    change = _sides(node) if opened else f"{_text(before)} to {_text(after)}"
    groups = factors(before, after)
    if groups is None:
        raise Refused(f"how it maps {change} is not known", FIXED if opened else None)
    if len(after) == 2 and groups[0] == ([0], [0]):
        return _vector(op, node, x, shape)
    axes: list[int] = []
    lost, mixed = 0, False
    for old, new in groups:
        space = [axis for axis in old if axis in x.axes]
        mixed |= 0 in old and (old, new) != ([0], [0])
        if not space:
            continue
        if not new and before[old[0]] == 1:
            continue  # an axis of one pixel has no more to say than those that are left
        if not new or (len(space) < len(old) and len(new) == 1):
            lost += len(space)
        else:
            axes += new
            mixed |= len(space) < len(old)
    if any(0 in old and len(old) > 1 and not {*old} & {*x.axes} for old, _ in groups):
        raise Refused("it folds channels into the batch, each group of which is an image then", APART, debris=True)
    if mixed:
        moved = any(0 in old and (old, new) != ([0], [0]) for old, new in groups)
        rows = any(0 in old and {*old} & {*x.axes} for old, _ in groups)
        what = "batch and space" if rows else "the batch with other axes" if moved else "space with other axes"
        raise Refused(
            f"mapping {change} mixes {what}",
            FIXED if opened else "keep the batch an axis of its own, as a MatMul over channels does" if rows else None,
            axes=None if moved else tuple(axes),
        )
    if not axes:
        return _vector(op, node, x, shape)
    if lost:
        raise Refused(f"mapping {change} keeps one spatial axis and flattens another")
    data = op.call(node.op_type, x.data, *shape, **attributes(node))
    if opened:
        return x.but(data=data, mask=_laid_out_like(op, x.mask, data, node.outputs[0], axes), axes=tuple(axes))
    target = [-1 if axis == 0 else (after[axis] or 0) if axis in axes else 1 for axis in range(len(after))]
    return x.but(data=data, mask=op.Reshape(x.mask, ints(target)), axes=tuple(axes))


def _laid_out_like(op: Op, mask: ir.Value, data: ir.Value, source: ir.Value, axes: Sequence[int]) -> ir.Value:
    """``mask`` with the extents of ``data``, which is ``source`` in the source, on the axes of space."""
    after = extents(source)
    ones = ints([-1, *[1] * (len(after) - 1)])
    made = op.Reshape(mask, op.Where(np.array([axis in axes for axis in range(len(after))]), op.Shape(data), ones))
    made.shape = ir.Shape([None, *(after[axis] if axis in axes else 1 for axis in range(1, len(after)))])
    return made


def _vector(op: Op, node: ir.Node, x: Masked, shape: Sequence[ir.Value | None]) -> ir.Value:
    """Removed pixels are 0, and the mask is consumed."""
    vector: ir.Value = op.call(node.op_type, zeroed(op, x), *shape, **attributes(node))
    return vector


#: Stands for the unknown extent of a batch: a prime that no product of known extents contains.
BATCH = 2**61 - 1
_Groups = list[tuple[list[int], list[int]]]


def factors(before: Sequence[int | None], after: Sequence[int | None]) -> _Groups | None:
    """Splits two shapes of equal product into the shortest runs of axes with equal products.

    One extent on each side may be unknown: the batch, and on the right what follows from it.
    An axis of extent 1 that the other shape lacks is a run of its own. None if the shapes cannot be matched.
    """
    if list(before).count(None) > 1 or list(after).count(None) != list(before).count(None):
        return None
    left = [n or BATCH for n in before]
    rest, odd = divmod(math.prod(left), math.prod(n for n in after if n is not None))
    right = [n or rest for n in after]
    if odd or math.prod(left) != math.prod(right):
        return None
    groups: _Groups = []
    i = j = 0
    while i < len(left) or j < len(right):
        a, b = (left[i] if i < len(left) else 1), (right[j] if j < len(right) else 1)
        if (i < len(left) and a == 1 != b) or j == len(right):
            groups.append(([i], []))
            i += 1
            continue
        if (j < len(right) and b == 1 != a) or i == len(left):
            groups.append(([], [j]))
            j += 1
            continue
        old, new = [i], [j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b and i < len(left):
                old, a, i = [*old, i], a * left[i], i + 1
            elif b < a and j < len(right):
                new, b, j = [*new, j], b * right[j], j + 1
            else:
                return None
        groups.append((old, new))
    return groups


#: Stand for open extents beside the batch: primes, as many as any value has axes.
OPEN = tuple(2**exponent - 1 for exponent in (89, 107, 127, 521, 607, 1279, 2203))


def _numbered(node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes before and after ``node``, one prime for each name of an open extent; one may follow from the others.

    Raises:
        UnknownShapeError: if more of them are not known.
    """
    before, after = sides(node.inputs[0]), sides(node.outputs[0])  # type: ignore[arg-type]
    names = [side for side in dict.fromkeys(before) if isinstance(side, str)]
    number = dict(zip(names, (BATCH, *OPEN), strict=False))
    left = tuple(side if isinstance(side, int) else number.get(side or "", 0) for side in before)
    right = tuple(side if isinstance(side, int) else number.get(side or "", 0) for side in after)
    if 0 in left or right.count(0) > 1:
        raise UnknownShapeError(f"how it maps {_sides(node)} is not known")
    rest, odd = divmod(math.prod(left), math.prod(side or 1 for side in right))
    if odd or (0 not in right and rest != 1):
        raise UnknownShapeError(f"how it maps {_sides(node)} is not known")
    return left, tuple(side or rest for side in right)


def _sides(node: ir.Node) -> str:
    pairs = (sides(value) for value in (node.inputs[0], node.outputs[0]))  # type: ignore[arg-type]
    return " to ".join("×".join("?" if side is None else str(side) for side in pair) for pair in pairs)


def _resolved(before: ir.Value, after: ir.Value) -> tuple[int | None, ...]:
    """The shape of ``after``, the extents of which that are not known follow from ``before``."""
    known = extents(after)
    batch = before.shape[0] if before.shape else None
    same = [extent == batch for extent in after.shape or ()]
    rest = [axis for axis, extent in enumerate(known) if extent is None and not same[axis]]
    pixels = [extent for extent in extents(before)[1:] if extent is not None]
    if len(rest) != 1 or not any(same) or len(pixels) + 1 < len(extents(before)):
        return known
    left = math.prod(pixels) // math.prod(extent for extent in known if extent is not None)
    return tuple(left if axis in rest else extent for axis, extent in enumerate(known))


def _text(shape: Sequence[int | None]) -> str:
    return "×".join(str(n) if n is not None else "?" if i else "batch" for i, n in enumerate(shape))
