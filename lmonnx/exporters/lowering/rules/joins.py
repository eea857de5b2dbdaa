"""Operators that bring activations together: elementwise, by concatenation, by a matrix product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.lowering.registry import Operand, Refused, attributes, rule, unpadded
from lmonnx.exporters.ops.builder import Op, UnknownShapeError, extents, ints, sides
from lmonnx.exporters.ops.fill import zeroed
from lmonnx.exporters.ops.masked import Masked
from lmonnx.exporters.ops.masks import intersection, majority, union

#: What an elementwise function of several operands does: is it 0 where (all, any) operand is, and is it at least
#: 0 where all are; is it finite where they are.
_Join: TypeAlias = tuple[Callable[[list[bool]], bool], bool, bool]


MIXES = "it mixes positions with each other, as an MLP over space does"
COMPARES = "a product of two activations compares positions with each other, as attention does"


def _never(_: list[bool]) -> bool:
    return False


def _both_branches(zeros: list[bool]) -> bool:
    return all(zeros[1:])


JOINS: dict[str, _Join] = {
    # operator: (zero where … operands are zero, nonnegative if all are, finite if all are)
    "Add": (all, True, True),
    "Div": (_never, True, False),
    "Max": (all, True, True),
    "Mean": (all, True, True),
    "Min": (all, True, True),
    "Mul": (any, True, True),
    "Pow": (_never, True, False),
    "PRelu": (all, True, True),
    "Sub": (all, False, True),
    "Sum": (all, True, True),
    # of numbers that are compared, and of what a comparison says
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), (_never, False, True)),
    **dict.fromkeys(("And", "Or", "Xor"), (_never, False, True)),
    "Mod": (_never, False, False),
    "Where": (_both_branches, False, True),
}


def _join(facts: _Join) -> Callable[..., Masked]:
    def apply(op: Op, node: ir.Node, *operands: Operand) -> Masked:
        zero, nonnegative, finite = JOINS["Mul"] if _divides_by_numbers(node, operands) else facts
        masked = [unpadded(x) for x in operands if isinstance(x, Masked)]
        axes = _common_axes(node, masked)
        data = op.call(node.op_type, *map(_data, operands), **attributes(node))
        mask = intersection(op, [x.mask for x in masked])
        _require_extents(node, operands, data, axes)
        # Where an operand alone is removed its zero says nothing of the others: only one shared mask is certain.
        alike = all(x.mask is masked[0].mask for x in masked) and mask is masked[0].mask
        all_finite = finite and all(map(_finite, operands))
        return Masked(
            data,
            stretched(op, mask, extents(data), axes),
            axes,
            zero=alike and all_finite and zero([isinstance(x, Masked) and x.zero for x in operands]),
            finite=all_finite,
            nonnegative=nonnegative and all(map(_nonnegative, operands)),
        )

    return apply


for _operator, _facts in JOINS.items():
    rule(_operator)(_join(_facts))


def _divides_by_numbers(node: ir.Node, operands: Sequence[Operand]) -> bool:
    """Whether it is a Div by constants other than 0, which is a product with others."""
    if node.op_type != "Div" or isinstance(operands[1], Masked) or operands[1] is None:
        return False
    divisor = operands[1].const_value
    return divisor is not None and bool(divisor.numpy().all())


def _data(operand: Operand) -> ir.Value | None:
    return operand.data if isinstance(operand, Masked) else operand


def _nonnegative(operand: Operand) -> bool:
    if isinstance(operand, Masked):
        return operand.nonnegative
    return operand is not None and operand.const_value is not None and bool((operand.const_value.numpy() >= 0).all())


def _finite(operand: Operand) -> bool:
    """Of a plain operand that is computed it is taken for granted: its NaN would reach kept positions too.

    Of float16, in which any sum may be infinite, zeros alone are finite.
    """
    if isinstance(operand, Masked):
        return operand.finite and (operand.zero or operand.data.dtype != ir.DataType.FLOAT16)
    return operand is None or operand.const_value is None or bool(np.isfinite(operand.const_value.numpy()).all())


def _common_axes(node: ir.Node, masked: Sequence[Masked]) -> tuple[int, ...]:
    """The spatial axes of an elementwise result, on which its masked operands must agree."""
    rank = len(extents(node.outputs[0]))
    axes = tuple(sorted({axis for x in masked for axis in x.axes}))
    if any(x.rank != rank for x in masked):
        raise Refused("a masked operand has fewer axes than the result")
    if any(extents(x.data)[axis] != 1 for x in masked for axis in axes if axis not in x.axes):
        raise Refused("its operands do not agree which axes are space", axes=axes)
    return axes


def _require_extents(node: ir.Node, operands: Sequence[Operand], data: ir.Value, axes: Sequence[int]) -> None:
    """Where the extents of space are open, those of the result have to be those of the masked operands.

    Raises:
        UnknownShapeError: if an unmasked one may have a larger extent, over which the others are broadcast.
    """
    rank = len(extents(data))
    pairs = [(value, x) for value, x in zip(node.inputs, operands, strict=True) if value is not None]
    for axis in (axis for axis in axes if extents(data)[axis] is None):
        fitting = {1, *(sides(value)[axis] for value, x in pairs if isinstance(x, Masked))} - {None}
        for value, x in pairs:
            shape = () if isinstance(x, Masked) else sides(value)
            if rank - axis <= len(shape) and shape[axis - rank] not in fitting:
                raise UnknownShapeError(f"whether {value.name!r} has the height and width of the others is not known")


def stretched(op: Op, mask: ir.Value, space: Sequence[int | None], axes: Sequence[int]) -> ir.Value:
    """``mask`` with the extents ``space`` on the axes ``axes``, where a value was broadcast over them."""
    have = extents(mask)
    if any(have[axis] is not None and space[axis] is None for axis in axes):
        raise UnknownShapeError("the height and width over which it is repeated are not known")
    if all(have[axis] == space[axis] for axis in axes):
        return mask
    full = [space[axis] or 1 if axis in axes else 1 for axis in range(len(space))]
    return op.And(mask, np.ones(full, np.bool_))


@rule("Concat")
def concat(op: Op, node: ir.Node, *operands: Operand) -> Masked:
    """Over channels the rule decides what is kept; over space the masks are concatenated like the data."""
    settings = attributes(node)
    masked = [unpadded(x) for x in operands if isinstance(x, Masked)]
    axes = _common_axes(node, masked)
    axis = settings["axis"] % masked[0].rank
    masked = [x.but(axes=axes) for x in masked]
    if axis == 0:
        raise Refused("concatenating batches mixes the rows of the result", axes=axes)
    facts: dict[str, Any] = {
        "finite": all(map(_finite, operands)),
        "nonnegative": all(map(_nonnegative, operands)),
    }
    if axis in axes:
        if len(masked) < len(operands):
            raise Refused("an unmasked operand is concatenated over space, as a class token is", axes=axes)
        mask = op.call("Concat", *[x.mask for x in masked], axis=axis)
        data = op.call("Concat", *map(_data, operands), axis=axis)
        return Masked(data, mask, axes, zero=all(x.zero for x in masked), **facts)
    mask = _joined_mask(op, [x.mask for x in masked], len(operands))
    parts = [_kept_part(op, x, mask) if isinstance(x, Masked) else x for x in operands]
    alike = len(masked) == len(operands) and all(x.mask is mask and x.zero for x in masked)
    return Masked(op.call("Concat", *parts, axis=axis), mask, axes, zero=alike, **facts)


def _joined_mask(op: Op, masks: Sequence[ir.Value], operands: int) -> ir.Value:
    plain = operands - len(masks)
    if op.rules.concat == "all":
        return intersection(op, masks)
    if op.rules.concat == "majority":
        return masks[0] if operands == 1 else majority(op, masks, operands, plain)
    return union(op, masks) if not plain else op.Or(masks[0], op.Not(masks[0]))


def _kept_part(op: Op, x: Masked, mask: ir.Value) -> ir.Value:
    """An operand of the join: 0 where it is removed but the join keeps it. A join by "all" keeps nothing else."""
    return x.data if op.rules.concat == "all" or x.mask is mask else zeroed(op, x)


@rule("MatMul")
def matmul(op: Op, node: ir.Node, a: Operand, b: Operand) -> Masked:
    """A product over channels at every position; one over space would mix positions."""
    if isinstance(a, Masked) and isinstance(b, Masked):
        raise Refused(COMPARES)
    x = unpadded(a if isinstance(a, Masked) else b)  # type: ignore[arg-type]
    other = b if isinstance(a, Masked) else a
    if x.rank - (1 if isinstance(a, Masked) else 2) in x.axes:
        raise Refused(MIXES, axes=x.axes)
    if len(extents(other)) > x.rank:  # type: ignore[arg-type]
        raise Refused("the other operand has more axes than the activation")
    if None in extents(x.data)[1:] and set(extents(other)[:-2]) - {1}:  # type: ignore[arg-type]
        raise UnknownShapeError(f"whether {_data(other).name!r} fits the height and width is not known")  # type: ignore[union-attr]
    return x.but(data=op.MatMul(_data(a), _data(b)), zero=False, nonnegative=False)


@rule("Gemm")
def gemm(op: Op, node: ir.Node, x: Masked, *_: Operand) -> Masked:
    """Of two axes, one of which is space, the other can only be the batch."""
    raise Refused(MIXES)


@rule("Einsum")
def einsum(op: Op, node: ir.Node, *operands: Operand) -> Masked:
    """A product of one activation with plain operands that keeps its batch and its space."""
    masked = [unpadded(x) for x in operands if isinstance(x, Masked)]
    if len(masked) > 1:
        raise Refused(COMPARES)
    equation = str(attributes(node)["equation"]).replace(" ", "")
    left, _, right = equation.partition("->")
    own = next(letters for letters, x in zip(left.split(","), operands, strict=False) if isinstance(x, Masked))
    (x,) = masked
    if "." in own or len(own) != x.rank or len({*own}) < len(own) or not right.startswith(own[0]):
        raise Refused(f"which axes of {equation!r} are space is not followed", "write it as MatMul")
    space = [own[axis] for axis in x.axes]
    if not {*space} <= {*right}:
        raise Refused(MIXES)
    if None in extents(x.data)[1:] and any(letter in space for letter in left.replace(own, "", 1)):
        raise UnknownShapeError("whether its operands agree on height and width is not known")
    inner = [axis for axis in range(x.rank) if axis not in (0, *x.axes)]
    mask = op.Squeeze(x.mask, ints(inner)) if inner else x.mask
    order = [letter for letter in right if letter in (own[0], *space)]
    if order != [own[0], *space]:
        mask = op.Transpose(mask, perm=[[own[0], *space].index(letter) for letter in order])
    axes = tuple(axis for axis, letter in enumerate(right) if letter in space)
    new = [axis for axis in range(1, len(right)) if axis not in axes]
    data = op.call("Einsum", *map(_data, operands), **attributes(node))
    return Masked(data, op.Unsqueeze(mask, ints(new)) if new else mask, axes, finite=x.finite)
