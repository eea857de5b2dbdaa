"""Sliding and global pools over kept pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.ops.builder import Op, UnknownShapeError, extents, ints, scalar
from lmonnx.exporters.ops.fill import lowest, replaced, zeroed
from lmonnx.exporters.ops.masked import Border, Masked
from lmonnx.exporters.ops.masks import as_float, blind, covers, spread
from lmonnx.exporters.ops.totals import total
from lmonnx.masking import Window

Pads: TypeAlias = tuple[tuple[int, int], ...]


def joint(window: Window, border: Border | None) -> Window:
    """``window`` with a pending border counted as padding of its own."""
    if border is None:
        return window
    return dataclasses.replace(window, pads=around(border, window.pads))


def around(border: Border | None, pads: Pads) -> Pads:
    """``pads`` laid around those of ``border``."""
    if border is None:
        return pads
    return tuple((a + c, b + d) for (a, b), (c, d) in zip(border.pads, pads, strict=True))


def bordered(op: Op, data: ir.Value, border: Border | None, kernel: Sequence[int] | None) -> ir.Value:
    """``data`` [N, C, H, W] with the pending border's constant around it, for an average of ``kernel``, or a maximum.

    onnxruntime makes a Pad of zeros the pool's own padding. It then refuses one that is not smaller than the kernel,
    and a MaxPool loses the zeros (seen in 1.31): such a border is put in the place of a Pad by edge.

    Raises:
        UnknownShapeError: if it is such a border of a map whose height and width are not known.
    """
    if border is None:
        return data
    begins, ends = zip(*border.pads, strict=True)
    pads = ints([0, 0, *begins, 0, 0, *ends])
    assert data.dtype is not None
    narrow = kernel is not None and all(max(a) < b for a, b in zip(border.pads, kernel, strict=True))
    if narrow or border.value != 0:
        return op.Pad(data, pads, np.array(border.value, data.dtype.numpy()), mode="constant")
    space = extents(data)[2:]
    if None in space:
        raise UnknownShapeError(f"the height and width of {data.name!r}, which a Pad makes larger, are not known")
    inside = np.pad(np.ones((1, 1, *(extent or 0 for extent in space)), np.bool_), ((0, 0), (0, 0), *border.pads))
    return op.Where(inside, op.Pad(data, pads, mode="edge"), scalar(border.value, data))


def max_pool(op: Op, x: Masked, window: Window, attributes: dict[str, Any]) -> Masked:
    """Maximum over the kept pixels of each window, 0 where there is none. [N, C, H, W] -> [N, C, H', W'].

    Where ``x`` is at least 0, zeros cannot win and the pool of the zeroed map is the answer. A pending border
    takes part with its constant.
    """
    mask = covers(op, x.mask, joint(window, x.border))
    if x.nonnegative and x.border is None:
        pooled = op.MaxPool(zeroed(op, x), **attributes)
        return Masked(pooled, mask, x.axes, zero=True, nonnegative=blind(window, extents(x.data)[2:]) is None)
    assert x.data.dtype is not None
    data = bordered(op, replaced(op, x, lowest(x.data.dtype)), x.border, None)
    y = Masked(op.MaxPool(data, **attributes), mask, x.axes)
    return y.but(data=replaced(op, y, 0), zero=True)


def average_pool(op: Op, x: Masked, window: Window, attributes: dict[str, Any]) -> Masked:
    """Average over each window, [N, C, H, W] -> [N, C, H', W'], with op the pool and its border together.

    Rule "valid": op(x⊙m) · op(1) / op(m), and 0 where op(m) = 0; rule "area": op(x⊙m).
    """
    mask = covers(op, x.mask, joint(window, x.border))
    data = op.widened(zeroed(op, x))
    pooled = op.AveragePool(bordered(op, data, x.border, window.kernel), **attributes)
    if op.rules.average == "valid":
        kept = op.AveragePool(bordered(op, as_float(op, x.mask), x.border, window.kernel), **attributes)
        whole = _pooled_ones(op, x, window, attributes)
        some = as_float(op, mask) if whole is None else op.Mul(as_float(op, mask), whole)
        beside = blind(joint(window, x.border), extents(x.data)[2:])
        seen = mask if beside is None else op.And(mask, ~beside)
        share = op.Div(some, op.Where(seen, kept, op.number(1)))
        pooled = op.Mul(pooled, spread(op, op.cast_like(share, pooled), pooled))
    return Masked(op.cast_like(pooled, x.data), mask, x.axes, zero=True, nonnegative=x.nonnegative)


def _pooled_ones(op: Op, x: Masked, window: Window, attributes: dict[str, Any]) -> ir.Value | None:
    """op(1); None where that is 1, because the pool does not count padding."""
    padded = x.border is not None or (attributes.get("count_include_pad", 0) and any(map(any, window.pads)))
    if not padded:
        return None
    if None in extents(x.data)[2:]:
        whole = op.Concat(ints([1, 1]), op.Shape(x.data, start=2), axis=0)
        ones = op.Expand(op.number(1), whole)
        ones.shape = ir.Shape([1, 1, *extents(x.data)[2:]])
    else:
        ones = op.constant(np.ones((1, 1, *x.space), op.wide.numpy()))
    return op.AveragePool(bordered(op, ones, x.border, window.kernel), **attributes)


def mean_over_kept(op: Op, x: Masked, axes: Sequence[int], spatial: Sequence[int], keepdims: int) -> ir.Value:
    """Rule "valid": mean(x⊙m) / (mean(m) + 1e-8) over ``axes``, of which ``spatial`` are space; "area": mean(x⊙m)."""
    mean = total(op, "ReduceMean", op.widened(zeroed(op, x, blocked=False)), axes, keepdims)
    if op.rules.average == "area":
        return op.cast_like(mean, x.data)
    kept = op.ReduceMean(as_float(op, x.mask), ints(spatial), keepdims=1)
    share = op.Add(kept, op.number(1e-8))
    if op.half:
        share = op.divisor(share)
    others = [axis for axis in axes if not keepdims]
    if others:
        share = op.Squeeze(share, ints(others))
    return op.cast_like(op.Div(mean, op.cast_like(share, mean)), x.data)


def extreme_over_kept(
    op: Op, x: Masked, operator: str, axes: Sequence[int], spatial: Sequence[int], keepdims: int
) -> ir.Value:
    """ReduceMax or ReduceMin over the kept positions of ``axes``, of which ``spatial`` are space; 0 if none is kept."""
    assert x.data.dtype is not None
    worst = lowest(x.data.dtype) if operator == "ReduceMax" else -lowest(x.data.dtype)
    data = op.call(operator, replaced(op, x, worst), ints(axes), keepdims=keepdims)
    some = any_kept(op, x.mask, spatial, 1)
    return op.Where(some if keepdims else op.Squeeze(some, ints(axes)), data, scalar(0, data))


def any_kept(op: Op, mask: ir.Value, axes: Sequence[int], keepdims: int) -> ir.Value:
    """Whether anything is kept along ``axes``, bool."""
    kept = op.ReduceMax(as_float(op, mask), ints(axes), keepdims=keepdims)
    return op.Greater(kept, op.number(0.5))
