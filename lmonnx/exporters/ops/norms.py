"""Normalisation with statistics over kept positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.ops.builder import Op, UnknownShapeError, extents, ints
from lmonnx.exporters.ops.fill import zeroed
from lmonnx.exporters.ops.masked import Masked
from lmonnx.exporters.ops.masks import as_float
from lmonnx.exporters.ops.totals import total


def standardise(op: Op, x: Masked, axes: Sequence[int], epsilon: float, *, outside: bool = False) -> ir.Value:
    """(x − mean) / sqrt(var + epsilon), the statistics over the kept positions of ``axes``, in float32 at least.

    With ``outside``, (x − mean) / (sqrt(var) + epsilon).
    Two passes, biased variance, count = max(kept, 1) times the extents of the axes that are not space; in a float16
    graph, where sums may be beyond it, means by the kept share of space. All spatial axes must be among ``axes``.
    """
    assert x.data.dtype is not None
    dtype = ir.DataType.FLOAT if x.data.dtype.itemsize < 4 else x.data.dtype
    wide = x if dtype == x.data.dtype else x.but(data=op.Cast(x.data, to=dtype), finite=False)
    others = [extents(x.data)[axis] for axis in axes if axis not in x.axes]
    if None in others:
        raise UnknownShapeError(f"the number of channels of {x.data.name!r} is not known")
    channels = math.prod(extent or 0 for extent in others)
    operator = "ReduceMean" if op.half else "ReduceSum"
    kept = op.call(operator, as_float(op, x.mask, dtype), ints(x.axes), keepdims=1)
    count = op.divisor(kept) if op.half else op.Mul(op.Max(kept, _number(1, dtype)), _number(channels, dtype))
    mean = op.Div(total(op, operator, zeroed(op, wide), axes), count)
    centred = wide.but(data=op.Sub(wide.data, mean), zero=False, nonnegative=False)
    inside = zeroed(op, centred)
    variance = op.Div(total(op, operator, op.Mul(inside, inside), axes), count)
    small = _number(epsilon, dtype)
    deviation = op.Add(op.Sqrt(variance), small) if outside else op.Sqrt(op.Add(variance, small))
    result = op.Div(centred.data, op.divisor(deviation) if op.half else deviation)
    return result if dtype == x.data.dtype else op.Cast(result, to=x.data.dtype)


def _number(value: float, dtype: ir.DataType) -> np.ndarray:
    return np.array(value, dtype.numpy())
