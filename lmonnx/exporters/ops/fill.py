"""What is put at removed positions before an operator reads across positions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.ops.builder import Op, scalar
from lmonnx.exporters.ops.masked import Masked
from lmonnx.exporters.ops.masks import as_float, counted, covers
from lmonnx.masking import Window

BOX3 = Window(kernel=(3, 3), strides=(1, 1), dilations=(1, 1), pads=((1, 1), (1, 1)))


#: The types of quantised values: their 0 is not the number 0.
QUANTISED = {getattr(ir.DataType, name) for name in ("INT4", "UINT4", "INT8", "UINT8", "INT16", "UINT16")}
DEQUANTISE = "put a DequantizeLinear before it and a QuantizeLinear behind it"


class QuantisedError(ValueError):
    """A removed pixel would have to be 0 among quantised integers; its arguments are the reason and the remedy."""


def zeroed(op: Op, x: Masked) -> ir.Value:
    """``x.data`` with 0 at removed positions.

    By a product where the value is proven finite, which backends fuse; by Where otherwise, since NaN · 0 = NaN.
    """
    assert x.data.dtype is not None
    if x.data.dtype in QUANTISED:
        raise QuantisedError("what a removed pixel is among its quantised integers is not defined", DEQUANTISE)
    if x.zero:
        return x.data
    if x.data.dtype == ir.DataType.BOOL:
        return op.And(x.data, x.mask)
    if x.finite:
        return op.Mul(x.data, as_float(op, x.mask, x.data.dtype))
    return op.Where(x.mask, x.data, scalar(0, x.data))


def replaced(op: Op, x: Masked, value: float) -> ir.Value:
    """``x.data`` with ``value`` at removed positions."""
    return op.Where(x.mask, x.data, scalar(value, x.data))


def rings(window: Window) -> int:
    """How far from a kept pixel a window reads that has seen it, as Chebyshev distance: max of d·(k − 1)."""
    return max(d * (k - 1) for d, k in zip(window.dilations, window.kernel, strict=True))


def neighbour_pad(op: Op, x: Masked, window: Window, count: int | None = None) -> ir.Value:
    """Fills what ``window`` reads: removed pixels take the mean of their filled neighbours, ring by ring.

    ``count`` is the number of rings if fewer will do than a window can read that has seen a kept pixel.

    ``x.data`` is [N, C, H, W]. One ring, with box3 the 3×3 sum of stride 1 over zero padding (Balasubramanian
    & Feizi, ICCV 2023): x + r ⊙ box3(x), where r = (1 − m) / (box3(m) + 1e-5) where box3(m) > 0, else 0.
    box3 of the data is nine times an AveragePool; the nine goes into r, which depends on the mask alone.
    """
    count = rings(window) if count is None else min(count, rings(window))
    if count == 0:
        return x.data
    data, mask = zeroed(op, x), x.mask
    for _ in range(count):
        near, reached = counted(op, mask, BOX3), covers(op, mask, BOX3)
        ring = as_float(op, op.And(reached, op.Not(mask)))
        share = op.Div(op.Mul(ring, op.number(9.0)), op.Add(near, op.number(1e-5)))
        mean = op.AveragePool(data, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
        data = op.Add(data, op.Mul(op.cast_like(share, data), mean))
        mask = reached
    return data


def lowest(dtype: ir.DataType) -> float:
    """The lowest finite number of ``dtype``."""
    info = np.iinfo(dtype.numpy()) if dtype.is_integer() else np.finfo(dtype.numpy())
    return float(info.min)
