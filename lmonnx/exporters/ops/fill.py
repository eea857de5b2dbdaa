"""What is put at removed positions before an operator reads across positions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.ops.builder import Op, scalar
from lmonnx.exporters.ops.masked import Masked
from lmonnx.exporters.ops.masks import as_float, box3, channels_of, grown, in_blocks, nines, spread
from lmonnx.masking import Window

#: ``meta`` of a product with a mask: that mask, bool [N, 1, H, W].
GATE = "gate"

#: The factor of :func:`_scaled`, a power of two, by type: 1 over it is less than the type tells apart. The fourth power
#: of that, which four rings make of a zero that is kept, is not yet a denormal number, with which processors are slow.
KEPT = {ir.DataType.FLOAT: 2.0**30, ir.DataType.DOUBLE: 2.0**60}

#: The types of quantised values: their 0 is not the number 0.
QUANTISED = {getattr(ir.DataType, name) for name in ("INT4", "UINT4", "INT8", "UINT8", "INT16", "UINT16")}
DEQUANTISE = "put a DequantizeLinear before it and a QuantizeLinear behind it"


class QuantisedError(ValueError):
    """A removed pixel would have to be 0 among quantised integers; its arguments are the reason and the remedy."""


def zeroed(op: Op, x: Masked, blocked: bool = True) -> ir.Value:
    """``x.data`` with 0 at removed positions.

    By a product where the value is proven finite, which backends fuse; by Where otherwise, since NaN · 0 = NaN, and in
    float16, of which no sum is proven finite.
    ``blocked`` says that what reads it keeps blocks of channels, as windows do and reductions do not.
    """
    assert x.data.dtype is not None
    if x.data.dtype in QUANTISED:
        raise QuantisedError("what a removed pixel is among its quantised integers is not defined", DEQUANTISE)
    if x.zero:
        return x.data
    if x.data.dtype == ir.DataType.BOOL:
        return op.And(x.data, x.mask)
    if x.finite and x.data.dtype != ir.DataType.FLOAT16:
        kept = as_float(op, x.mask, x.data.dtype)
        product = op.Mul(x.data, spread(op, kept, x.data) if blocked else kept)
        product.meta[GATE] = x.mask
        return product
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
    & Feizi, ICCV 2023): x + r ⊙ box3(x), where r = (1 − m) / (box3(m) + 1e-5). What has no filled neighbour
    stays 0, because there box3(x) is 0.
    """
    count = rings(window) if count is None else min(count, rings(window))
    if count == 0:
        return x.data
    data, mask = zeroed(op, x), x.mask
    ring = _scaled if data.dtype in KEPT and not op.half and in_blocks(data, mask) else _added
    for i in range(count):
        mask = grown(op, mask) if i else mask
        data = ring(op, data, mask, op.Add(box3(op, mask), op.number(1e-5)))
    return data


def _added(op: Op, data: ir.Value, mask: ir.Value, near: ir.Value) -> ir.Value:
    """One ring as its formula has it, ``near`` being box3(m) + 1e-5; the data's box3 is nine times a mean.

    In a float16 graph the divisor is one kept neighbour at the least: without any the share would be 9e5, which is
    infinite there, or a number over 0 where a runtime puts 1e-5 into float16, and times a mean of 0 that is NaN.
    """
    mean = op.AveragePool(data, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    if op.half:
        near = op.Max(near, op.number(1))
    share = op.Div(op.Sub(op.number(9), nines(op, mask)), near)
    return op.Add(data, op.Mul(mean, op.cast_like(share, data)))


def _scaled(op: Op, data: ir.Value, mask: ir.Value, near: ir.Value) -> ir.Value:
    """One ring without a sum: w ⊙ (KEPT · x − the sum of its neighbours), by a depthwise convolution.

    w is 1 / KEPT where kept, which gives x, but for 1e-9 of its neighbours; it is −1 / (box3(m) + 1e-5) where removed,
    where x is 0. So maps are read or written five times, not eight.
    """
    assert data.dtype is not None
    factor = KEPT[data.dtype]
    kernel = np.full((channels_of(data), 1, 3, 3), -1, data.dtype.numpy())
    kernel[:, :, 1, 1] = factor
    around = op.Conv(
        data, kernel, kernel_shape=[3, 3], strides=[1, 1], dilations=[1, 1], pads=[1, 1, 1, 1], group=len(kernel)
    )
    weights = op.Where(mask, op.number(1 / factor), op.Div(op.number(-1), near))
    return op.Mul(around, spread(op, op.cast_like(weights, data), data))


def lowest(dtype: ir.DataType) -> float:
    """The lowest finite number of ``dtype``."""
    info = np.iinfo(dtype.numpy()) if dtype.is_integer() else np.finfo(dtype.numpy())
    return float(info.min)
