"""Quantisation to integers and back: the op, number by number.

A removed pixel's 0 is an integer of its own for every zero point, so what zeroes does not read quantised values
(:class:`lmonnx.exporters.ops.fill.QuantisedError`); a MaxPool, which only compares, does.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.lowering.registry import attributes, constant, rule, unpadded
from lmonnx.exporters.ops.builder import Op
from lmonnx.exporters.ops.masked import Masked


@rule("QuantizeLinear")
def quantize_linear(op: Op, node: ir.Node, x: Masked, scale: ir.Value, zero_point: ir.Value | None = None) -> Masked:
    """The op. An integer is finite; the one that stands for 0 is the zero point."""
    constant(scale, "its scale")
    data = op.call("QuantizeLinear", unpadded(x).data, scale, zero_point, **attributes(node))
    return x.but(data=data, zero=False, finite=True, nonnegative=False)


@rule("DequantizeLinear")
def dequantize_linear(op: Op, node: ir.Node, x: Masked, scale: ir.Value, zero_point: ir.Value | None = None) -> Masked:
    """The op, (q − zero point) · scale: at least 0 where no integer is below the zero point."""
    steps = constant(scale, "its scale")
    zeros = np.zeros(()) if zero_point is None else constant(zero_point, "its zero point")
    data = op.call("DequantizeLinear", unpadded(x).data, scale, zero_point, **attributes(node))
    assert x.data.dtype is not None
    least = np.iinfo(x.data.dtype.numpy()).min if x.data.dtype.is_integer() else -np.inf
    return x.but(data=data, zero=False, nonnegative=bool((least >= zeros).all() and (steps >= 0).all()))
