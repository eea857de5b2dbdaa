"""Arithmetic on masks alone: what a window keeps, what a join keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.ops.builder import LAST, Op, UnknownShapeError, extents, ints, sides
from lmonnx.masking import Window


def as_float(op: Op, mask: ir.Value, dtype: ir.DataType | None = None) -> ir.Value:
    """1 where kept and 0 where removed, in ``dtype``, or in that of the mask arithmetic."""
    return op.Cast(mask, to=dtype or op.wide)


def output_extents(window: Window, space: Sequence[int]) -> tuple[int, ...]:
    """How many windows there are along each axis of a map of extents ``space`` (ONNX's Conv and MaxPool).

    With ceil_mode a last window counts if it starts before the padding after the last pixel.
    """
    out = []
    axes = zip(space, window.kernel, window.strides, window.dilations, window.pads, strict=True)
    for extent, kernel, stride, dilation, (before, after) in axes:
        room = extent + before + after - dilation * (kernel - 1) - 1
        count = (-(-room // stride) if window.ceil_mode else room // stride) + 1
        if window.ceil_mode and (count - 1) * stride >= extent + before:
            count -= 1
        out.append(count)
    return tuple(out)


def counted(op: Op, mask: ir.Value, window: Window) -> ir.Value:
    """How many kept pixels each window sees, [N, 1, H', W'] in ``op.wide``, for a mask [N, 1, H, W].

    A convolution with ones, because it takes every window: MaxPool has no bool kernel in onnxruntime and
    refuses pads as large as the kernel.
    """
    ends = _ends(window, extents(mask)[2:])
    return op.Conv(
        as_float(op, mask),
        np.ones((1, 1, *window.kernel), op.wide.numpy()),
        kernel_shape=list(window.kernel),
        strides=list(window.strides),
        dilations=list(window.dilations),
        pads=[before for before, _ in window.pads] + ends,
    )


def _ends(window: Window, space: Sequence[int | None]) -> list[int]:
    """Padding after the last pixel with which a convolution takes the windows of ``window``.

    It is what the last window reads there; where the extent is open, what gives as many windows for every extent:
    with ceil_mode stride − 1 more, unless that padding can hold a window that starts in it, which ceil_mode leaves out.

    Raises:
        UnknownShapeError: if it can.
    """
    ends = []
    axes = zip(space, window.kernel, window.strides, window.dilations, window.pads, strict=True)
    for i, (extent, kernel, stride, dilation, (before, after)) in enumerate(axes):
        reach = dilation * (kernel - 1)
        if extent is not None:
            (count,) = output_extents(_along(window, i), (extent,))
            ends.append(max(0, (count - 1) * stride + reach + 1 - extent - before))
        elif window.ceil_mode and after + stride - 2 >= reach:
            raise UnknownShapeError("whether the last window of its ceil_mode counts depends on the height and width")
        else:
            ends.append(after + (stride - 1) * window.ceil_mode)
    return ends


def _along(window: Window, axis: int) -> Window:
    """``window`` along one axis."""
    one = slice(axis, axis + 1)
    return Window(window.kernel[one], window.strides[one], window.dilations[one], window.pads[one], window.ceil_mode)


def covers(op: Op, mask: ir.Value, window: Window) -> ir.Value:
    """The mask after a window: kept where it covers a kept pixel, or no pixel. [N, 1, H, W] -> [N, 1, H', W']."""
    if {*window.kernel, *window.strides} == {1} and not any(map(any, window.pads)):
        return mask
    kept = _sampled(op, mask, window) or op.Greater(counted(op, mask, window), op.number(0.5))
    beside = blind(window, extents(mask)[2:])
    if beside is not None:
        return op.Or(kept, beside)
    kept.meta["covers"] = (mask, window)
    return kept


def _sampled(op: Op, mask: ir.Value, window: Window) -> ir.Value | None:
    """:func:`covers` of a k×k window around its position: the mask grown by (k − 1) / 2 rings, which a fill has too.

    None if the window is another one.
    """
    (kernel, *_), (stride, *_) = window.kernel, window.strides
    radius = kernel // 2
    if window != Window((2 * radius + 1,) * 2, (stride,) * 2, (1, 1), ((radius, radius),) * 2):
        return None
    for _ in range(radius):
        mask = grown(op, mask)
    return mask if stride == 1 else op.Slice(mask, ints([0, 0]), ints([LAST] * 2), ints([2, 3]), ints([stride] * 2))


def grown(op: Op, mask: ir.Value) -> ir.Value:
    """A mask and the ring around it: what is or touches a kept pixel."""
    return op.Greater(box3(op, mask), op.number(0.5))


def box3(op: Op, mask: ir.Value) -> ir.Value:
    """How many kept pixels each 3×3 window of stride 1 sees, [N, 1, H, W] in ``op.wide``.

    The mean of nines, which is exact: nine times a mean of ones is not.
    """
    return op.AveragePool(nines(op, mask), kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)


def nines(op: Op, mask: ir.Value) -> ir.Value:
    """9 where kept and 0 where removed, in ``op.wide``."""
    return op.Mul(as_float(op, mask), op.number(9))


#: Channels that onnxruntime's kernels hold together, at the least.
BLOCK = 8


def in_blocks(data: ir.Value, mask: ir.Value) -> bool:
    """Whether ``data`` is [N, C, H, W] with a multiple of :data:`BLOCK` channels, under a mask [N, 1, H, W].

    Such data onnxruntime keeps in blocks of channels from one convolution to the next.
    """
    if data.shape is None or mask.shape is None or mask.shape.rank() != 4 or sides(mask)[2:] != sides(data)[2:]:
        return False
    channels = extents(data)[1]
    return channels is not None and channels % BLOCK == 0


def channels_of(data: ir.Value) -> int:
    """The channels of ``data`` [N, C, …], which are known."""
    channels = extents(data)[1]
    assert channels is not None
    return channels


def spread(op: Op, mask: ir.Value, data: ir.Value, factors: ir.Value | None = None) -> ir.Value:
    """A float mask for every channel of ``data``, so that their product is of one shape and stays in blocks.

    By a convolution with ones, which is exact, or with ``factors`` [C, 1, 1, 1] of the channels. Data that is not in
    blocks is left to broadcasting.
    """
    if not in_blocks(data, mask):
        return mask
    assert mask.dtype is not None
    ones = np.ones((channels_of(data), 1, 1, 1), mask.dtype.numpy())
    return op.Conv(
        mask, ones if factors is None else factors, kernel_shape=[1, 1], strides=[1, 1], dilations=[1, 1], pads=[0] * 4
    )


def blind(window: Window, space: Sequence[int | None]) -> np.ndarray | None:
    """Which windows over a map of extents ``space`` see padding alone, bool [1, 1, H', W']; None if there are none.

    What they give is no pixel's doing, so that no mask can remove it: only so is an all-True mask the original.

    Raises:
        UnknownShapeError: if the extents are not known and the padding has room for such a window.
    """
    known = [extent for extent in space if extent is not None]
    if len(known) < len(space):
        reach = [dilation * (kernel - 1) for dilation, kernel in zip(window.dilations, window.kernel, strict=True)]
        if any(max(pads) > far for pads, far in zip(window.pads, reach, strict=True)):
            raise UnknownShapeError("which of its windows see padding alone depends on the height and width")
        return None
    seeing = []
    for count, extent, stride, taps in zip(
        output_extents(window, known), known, window.strides, taps_of(window), strict=True
    ):
        read = stride * np.arange(count)[:, None] + [*taps]
        seeing.append(((read >= 0) & (read < extent)).any(axis=1))
    beside = ~np.logical_and.outer(*seeing)
    return beside[None, None] if beside.any() else None


def kept_if(op: Op, mask: ir.Value, data: ir.Value, wanted: Mapping[int, int]) -> ir.Value:
    """``mask``, but everything is kept where ``data`` has the extents ``wanted``, by axis, which are open.

    So an operator that consumes the mask at one size of the image and not at others does so when the graph runs.
    """
    if not wanted:
        return mask
    met = [op.Equal(op.Shape(data, start=axis, end=axis + 1), ints([extent])) for axis, extent in wanted.items()]
    return op.Or(mask, reduce(op.And, met))


def intersection(op: Op, masks: Sequence[ir.Value]) -> ir.Value:
    """Kept where all of ``masks`` keep. A mask that contains another one adds nothing and is left out."""
    needed: list[ir.Value] = []
    for mask in masks:
        if any(contains(mask, other) for other in needed):
            continue
        needed = [other for other in needed if not contains(other, mask)] + [mask]
    return reduce(lambda a, b: _both(op, a, b), needed)


def union(op: Op, masks: Sequence[ir.Value]) -> ir.Value:
    """Kept where any of ``masks`` keeps."""
    return reduce(lambda a, b: a if a is b else op.Or(a, b), masks)


def majority(op: Op, masks: Sequence[ir.Value], operands: int, kept_everywhere: int) -> ir.Value:
    """Kept where more than half of the ``operands`` keep: ``masks``, and ``kept_everywhere`` unmasked ones."""
    votes = reduce(op.Add, [as_float(op, mask) for mask in masks])
    return op.Greater(votes, op.number(operands / 2 - kept_everywhere))


def _both(op: Op, a: ir.Value, b: ir.Value) -> ir.Value:
    both = op.And(a, b)
    both.meta["within"] = (a, b)
    return both


def taps_of(window: Window) -> list[set[int]]:
    """For each axis, where a window reads relative to its output's position times the stride."""
    return [
        {dilation * tap - before for tap in range(kernel)}
        for kernel, dilation, (before, _) in zip(window.kernel, window.dilations, window.pads, strict=True)
    ]


def _space(mask: ir.Value) -> tuple[Any, ...]:
    """The extents of space of a mask; where they are open, what they follow from: equal ones are equal extents."""
    known = extents(mask)[2:]
    if None not in known:
        return known
    if "covers" not in mask.meta:
        parts = {_space(part) for part in mask.meta.get("within", ())}
        return parts.pop() if len(parts) == 1 else (mask,)
    inner, window = mask.meta["covers"]
    axes = zip(window.kernel, window.dilations, window.pads, strict=True)
    change = tuple(sum(pads) - dilation * (kernel - 1) for kernel, dilation, pads in axes)
    if {*window.strides} == {1} and not any(change):
        return _space(inner)
    return (_space(inner), change, window.strides, window.ceil_mode)


def contains(big: ir.Value, small: ir.Value) -> bool:
    """Whether ``big`` is known to keep all that ``small`` keeps, for masks of one extent.

    Three facts: a & b is within a; a window of stride 1 that reads its own position keeps what was kept, if there
    are as many windows as pixels; and of two windows of one stride over one mask, the one with more taps keeps more.
    So a residual block's sum has the mask of its input, and a stage of a ResNet one mask.
    """
    if big is small or any(contains(big, part) for part in small.meta.get("within", ())):
        return True
    if "covers" not in big.meta:
        return False
    mask, window = big.meta["covers"]
    centred = set(window.strides) == {1} and all(0 in taps for taps in taps_of(window))
    if centred and _space(mask) == _space(big) and contains(mask, small):
        return True
    if "covers" not in small.meta or _space(small) != _space(big):
        return False
    other, narrower = small.meta["covers"]
    return (
        narrower.strides == window.strides
        and all(few <= many for few, many in zip(taps_of(narrower), taps_of(window), strict=True))
        and contains(mask, other)
    )
