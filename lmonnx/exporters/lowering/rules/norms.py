"""Normalisation over space, with statistics over kept pixels; over channels alone it is the op itself."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.lowering.registry import FIXED, Operand, Refused, attributes, rule, unpadded
from lmonnx.exporters.ops.builder import Op, extents, ints, sides
from lmonnx.exporters.ops.masked import Masked
from lmonnx.exporters.ops.norms import standardise


@rule("InstanceNormalization")
def instance_normalization(op: Op, node: ir.Node, x: Masked, scale: ir.Value, bias: ir.Value) -> Masked:
    """Each channel over its kept pixels."""
    return _affine(op, _grouped(op, x, _channels(x), _epsilon(node)), scale, bias)


@rule("GroupNormalization")
def group_normalization(op: Op, node: ir.Node, x: Masked, scale: Operand = None, bias: Operand = None) -> Masked:
    """Each group of channels over its kept pixels.

    Scale and bias are one number a channel, as in opset 21. Opset 18 has one a group and is refused;
    without scale and bias it is the form that normalisation recognises.
    """
    groups = attributes(node)["num_groups"]
    result = _grouped(op, x, groups, _epsilon(node))
    if scale is None or bias is None:
        return result
    assert isinstance(scale, ir.Value)
    assert isinstance(bias, ir.Value)
    if extents(scale) != (_channels(x),):
        raise Refused("GroupNormalization of opset 18, with one scale a group, is not defined", "use opset 21 or later")
    return _affine(op, result, scale, bias)


@rule("LayerNormalization")
def layer_normalization(op: Op, node: ir.Node, x: Masked, *parameters: ir.Value | None) -> Masked:
    """Over channels the op at every pixel; over space too, with statistics over kept pixels."""
    x = unpadded(x)
    settings = attributes(node)
    axes = tuple(range(settings.get("axis", -1) % x.rank, x.rank))
    if not set(axes) & set(x.axes):
        data = op.call("LayerNormalization", x.data, *parameters, **settings)
        return x.but(data=data, zero=False, finite=x.finite and _epsilon(node) > 0, nonnegative=False)
    if 0 in axes or not set(x.axes) <= set(axes):
        raise Refused("it normalises over the batch or over a part of space")
    data = standardise(op, x, axes, _epsilon(node))
    for operator, parameter in zip(("Mul", "Add"), parameters, strict=False):
        if parameter is not None:
            data = op.call(operator, data, parameter)
    return x.but(data=data, zero=False, nonnegative=False)


@rule("RMSNormalization")
def rms_normalization(op: Op, node: ir.Node, x: Masked, scale: ir.Value) -> Masked:
    """Over channels: the op at every pixel."""
    x, settings = unpadded(x), attributes(node)
    first = settings.get("axis", -1) % x.rank
    if first <= max(x.axes):
        raise Refused("over space its mean square is not defined where some positions are removed")
    data = op.call("RMSNormalization", x.data, scale, **settings)
    return x.but(data=data, zero=False, finite=x.finite and _epsilon(node) > 0, nonnegative=False)


@rule("MeanVarianceNormalization")
def mean_variance_normalization(op: Op, node: ir.Node, x: Masked) -> Masked:
    """(x − mean) / (deviation + 1e-9): over channels at every pixel, over space with statistics over kept pixels."""
    x = unpadded(x)
    axes = tuple(sorted(axis % x.rank for axis in attributes(node).get("axes", (0, 2, 3))))
    if 0 in axes:
        raise Refused("it normalises over the batch, so a row of the result depends on other rows")
    if not set(axes) & set(x.axes):
        data = op.MeanVarianceNormalization(x.data, axes=list(axes))
    elif set(x.axes) <= set(axes):
        data = standardise(op, x, axes, 1e-9, outside=True)
    else:
        raise Refused("it normalises over a part of space")
    return x.but(data=data, zero=False, finite=False, nonnegative=False)


@rule("LRN")
def lrn(op: Op, node: ir.Node, x: Masked) -> Masked:
    """The quotient x / (bias + alpha / size · sum of squares of neighbouring channels) ** beta at every pixel."""
    x, settings = unpadded(x), attributes(node)
    if 1 in x.axes:
        raise Refused("its windows lie on axis 1, which is space here")
    divides = settings.get("bias", 1.0) > 0 and settings.get("alpha", 1e-4) >= 0
    data = op.call("LRN", x.data, **settings)
    return x.but(data=data, zero=x.zero and divides, finite=x.finite and divides, nonnegative=x.nonnegative and divides)


def _grouped(op: Op, x: Masked, groups: int, epsilon: float) -> Masked:
    """X of layout [N, C, …space] standardised over space and the C / groups channels of each group."""
    x = unpadded(x)
    if x.axes != tuple(range(2, x.rank)):
        remedy = FIXED if None in extents(x.data)[1:] else None
        raise Refused("it needs the layout [N, C, …space]", remedy)
    data, back = _split(op, x, groups)
    split = x.but(
        data=data,
        mask=op.Unsqueeze(x.mask, ints([2])),
        axes=tuple(axis + 1 for axis in x.axes),
    )
    data = standardise(op, split, range(2, x.rank + 1), epsilon)
    return x.but(data=op.Reshape(data, back), zero=False, nonnegative=False)


def _split(op: Op, x: Masked, groups: int) -> tuple[ir.Value, ir.Value | np.ndarray]:
    """[N, C, …space] as [N, groups, C / groups, …space], and the shape that undoes it."""
    shape = [0, groups, _channels(x) // groups]
    if None not in extents(x.data)[2:]:
        return op.Reshape(x.data, ints([*shape, *x.space])), ints([0, _channels(x), *x.space])
    data = op.Reshape(x.data, op.Concat(ints(shape), op.Shape(x.data, start=2), axis=0))
    data.shape = ir.Shape([*sides(x.data)[:1], *shape[1:], *sides(x.data)[2:]])
    return data, op.Shape(x.data)


def _affine(op: Op, x: Masked, scale: ir.Value, bias: ir.Value) -> Masked:
    """X ⊙ scale + bias, one number a channel."""
    column = ints(range(1, x.rank - 1))
    return x.but(data=op.Add(op.Mul(x.data, op.Unsqueeze(scale, column)), op.Unsqueeze(bias, column)))


def _channels(x: Masked) -> int:
    channels = extents(x.data)[1]
    if channels is None:
        raise Refused("the number of channels is not known")
    return channels


def _epsilon(node: ir.Node) -> float:
    return float(attributes(node).get("epsilon", 1e-5))
