"""Operators that slide a window over space, and the Pad that may stand before them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.lowering.registry import Operand, Refused, attributes, constant, rule, unpadded
from lmonnx.exporters.lowering.rules.parts import cropped
from lmonnx.exporters.ops.builder import LAST, Op, extents, ints, scalar
from lmonnx.exporters.ops.fill import neighbour_pad, rings
from lmonnx.exporters.ops.masked import POINTWISE_OF, Border, Masked
from lmonnx.exporters.ops.masks import as_float, covers, kept_if
from lmonnx.exporters.ops.pools import (
    around,
    average_pool,
    bordered,
    extreme_over_kept,
    joint,
    max_pool,
    mean_over_kept,
)
from lmonnx.masking import Window

#: Entries before and after, by axis.
_Amounts: TypeAlias = dict[int, tuple[int, int]]


def image_of(x: Masked) -> Masked:
    """``x`` as a window reads it, [N, C, H, W] with H and W as space.

    Raises:
        Refused: if it is laid out in another way.
    """
    image = x.as_image()
    if image is None or image.rank != 4:
        raise Refused("a window needs the layout [N, C, H, W] with two spatial axes")
    return image


def window_of(kernel: tuple[int, ...], settings: dict[str, Any]) -> Window:
    """The window of a Conv or a pool, whose attributes normalisation has made explicit."""
    pads = settings["pads"]
    half = len(pads) // 2
    return Window(
        kernel=tuple(kernel),
        strides=tuple(settings["strides"]),
        dilations=tuple(settings.get("dilations", (1,) * half)),
        pads=tuple(zip(pads[:half], pads[half:], strict=True)),
        ceil_mode=bool(settings.get("ceil_mode", 0)),
    )


def block(size: int) -> Window:
    """A window of ``size`` × ``size`` pixels that tile the map."""
    return Window(kernel=(size, size), strides=(size, size), dilations=(1, 1), pads=((0, 0), (0, 0)))


@rule("Conv")
def conv(op: Op, node: ir.Node, x: Masked, weight: ir.Value, *bias: Operand) -> Masked:
    """Convolution of the neighbour-padded input; kept where the window saw a kept pixel.

    A pending border of zeros becomes padding of the convolution's own.
    """
    x, settings = image_of(x), attributes(node)
    window = window_of(extents(weight)[2:], settings)  # type: ignore[arg-type]
    count = node.meta.get("rings", rings(window))
    data = neighbour_pad(op, x, window, count)
    if x.border is not None and x.border.value == 0:
        befores, afters = zip(*joint(window, x.border).pads, strict=True)
        settings["pads"] = [*befores, *afters]
    else:
        data = bordered(op, data, x.border, window.kernel)
    mask = covers(op, x.mask, joint(window, x.border))
    result = op.Conv(data, weight, *bias, **settings)
    if mask is x.mask and rings(window) == 0 and x.border is None:
        result.meta[POINTWISE_OF] = x
    return Masked(result, mask, x.axes, finite=x.finite or count > 0)


@rule("MaxPool", "AveragePool")
def pool(op: Op, node: ir.Node, x: Masked) -> Masked | ir.Value:
    """Over kept pixels; a window as large as the map is a global pool, an average over channels alone the op."""
    settings = attributes(node)
    if node.op_type == "AveragePool" and _over_channels(x, settings):
        return unpadded(x).but(data=op.call(node.op_type, x.data, **settings))
    x = image_of(x)
    window = window_of(settings["kernel_shape"], settings)
    space = dict(zip(x.axes, zip(extents(x.data)[2:], window.kernel, strict=True), strict=True))
    unpadded_ = x.border is None and not any(map(any, window.pads))
    whole = unpadded_ and all(extent in (None, kernel) for extent, kernel in space.values())
    unsettled = {axis: kernel for axis, (extent, kernel) in space.items() if extent is None and whole}
    if whole and not unsettled:
        return _global(op, x, "ReduceMax" if node.op_type == "MaxPool" else "ReduceMean")
    if node.op_type == "AveragePool" and x.border is not None and x.border.value != 0:
        raise Refused("an average over a border that is not 0 is not defined")
    y = (max_pool if node.op_type == "MaxPool" else average_pool)(op, x, window, settings)
    return y.but(mask=kept_if(op, y.mask, x.data, unsettled))


def _over_channels(x: Masked, settings: dict[str, Any]) -> bool:
    """Whether a pool leaves space alone, as that of a LocalResponseNorm over [N, 1, C, H, W]."""
    pads, kernel = settings["pads"], settings["kernel_shape"]
    half = len(kernel)
    windows = zip(kernel, settings["strides"], pads[:half], pads[half:], strict=True)
    by_axis = dict(enumerate(windows, start=2))
    return x.axes != tuple(by_axis) and min(x.axes) > 2 and all(by_axis[axis] == (1, 1, 0, 0) for axis in x.axes)


@rule("GlobalAveragePool", "GlobalMaxPool")
def global_pool(op: Op, node: ir.Node, x: Masked) -> ir.Value:
    """Over kept pixels; the mask is consumed."""
    image = x.as_image()
    if image is None:
        raise Refused("a global pool needs the layout [N, C, …space]")
    return _global(op, unpadded(image), "ReduceMax" if node.op_type == "GlobalMaxPool" else "ReduceMean")


def _global(op: Op, x: Masked, operator: str) -> ir.Value:
    if operator == "ReduceMean":
        return mean_over_kept(op, x, x.axes, x.axes, 1)
    return extreme_over_kept(op, x, operator, x.axes, x.axes, 1)


@rule("Pad")
def pad(op: Op, node: ir.Node, x: Masked, pads: Operand, value: Operand = None, axes: Operand = None) -> Masked:
    """A constant Pad over space stays pending; others pad data and mask alike; a negative one is a Slice."""
    which = list(range(x.rank)) if axes is None else [int(a) % x.rank for a in constant(axes, "axes")]
    amounts = constant(pads, "pads").tolist()
    amount_of = dict(zip(which, zip(amounts[: len(which)], amounts[len(which) :], strict=True), strict=True))
    if any(amount_of.get(0, ())):
        raise Refused("it pads the batch")
    x, amount_of = _without(op, x, amount_of)
    mode = attributes(node).get("mode", "constant")
    space = tuple(amount_of.get(axis, (0, 0)) for axis in x.axes)
    if mode == "constant":
        number = 0.0 if value is None else float(constant(value, "the padding value").reshape(-1)[0])
        if x.border is not None and x.border.value != number:
            raise Refused("two constant Pads with different values follow each other")
        x = _wider(op, x, {axis: amount for axis, amount in amount_of.items() if axis not in x.axes}, number)
        return x.but(border=Border(around(x.border, space), number)) if any(map(any, space)) else x
    if mode not in ("reflect", "edge", "wrap"):
        raise Refused(f"Pad mode {mode!r} is not defined")
    x = unpadded(x)
    if any(any(amount) for axis, amount in amount_of.items() if axis not in x.axes):
        raise Refused(f"padding of channels by {mode} is not defined")
    if mode == "wrap":
        return x.but(data=_wrapped(op, x.data, amount_of), mask=_wrapped(op, x.mask, amount_of))
    full = _pads(x.rank, amount_of)
    grown = op.Greater(op.Pad(as_float(op, x.mask), full, mode=mode), op.number(0.5))
    return x.but(data=op.Pad(x.data, full, mode=mode), mask=grown)


def _wrapped(op: Op, value: ir.Value, amount_of: _Amounts) -> ir.Value:
    """``value`` between pixels of its other ends, in operators of any opset; Pad has that mode from 19 on."""
    for axis, (before, after) in amount_of.items():
        parts = [value]
        if before:
            parts.insert(0, op.Slice(value, ints([-before]), ints([LAST]), ints([axis])))
        if after:
            parts.append(op.Slice(value, ints([0]), ints([after]), ints([axis])))
        extent = extents(value)[axis]
        if extent is not None and max(before, after) > extent:
            raise Refused("it wraps around more than once")
        value = op.Concat(*parts, axis=axis) if len(parts) > 1 else value
    return value


def _without(op: Op, x: Masked, amount_of: _Amounts) -> tuple[Masked, _Amounts]:
    """``x`` without what negative amounts cut off, and the amounts that are left."""
    off = {axis: (-min(before, 0), -min(after, 0)) for axis, (before, after) in amount_of.items()}
    cuts = {axis: (a, -b or LAST, 1) for axis, (a, b) in off.items() if a or b}
    if not cuts:
        return x, amount_of
    if not set(cuts) <= set(x.axes):
        raise Refused("a Pad that cuts channels off is not defined", "cut with Slice")
    left = {axis: (max(before, 0), max(after, 0)) for axis, (before, after) in amount_of.items()}
    return cropped(op, x, cuts), left


def _pads(rank: int, amount_of: _Amounts) -> np.ndarray:
    return np.array([amount_of.get(axis, (0, 0))[side] for side in (0, 1) for axis in range(rank)], np.int64)


def _wider(op: Op, x: Masked, amount_of: _Amounts, value: float) -> Masked:
    """``x`` with channels of a constant before and after its own, the same at every position."""
    if not any(map(any, amount_of.values())):
        return x
    return x.but(
        data=op.Pad(x.data, _pads(x.rank, amount_of), scalar(value, x.data), mode="constant"),
        zero=x.zero and value == 0,
        finite=x.finite and bool(np.isfinite(value)),
        nonnegative=x.nonnegative and value >= 0,
    )
