"""Masked operators that slide a window over two spatial axes: neighbour padding, convolution, pools.

The formulas are those of Balasubramanian & Feizi, "Towards Improved Input Masking for Convolutional Neural
Networks" (ICCV 2023). Maps are `[N, C, H, W]` and masks `[N, 1, H, W]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lmonnx.masking import MaskRules, Window
from lmonnx.reference.activation import Border, Masked, RefusedError, Value, wide
from lmonnx.reference.functions import reduce_max, reduce_mean


def conv(x: Masked, weight: Tensor, bias: Tensor | None, window: Window, groups: int, rules: MaskRules) -> Masked:
    """Convolution of the neighbour-padded input; kept where the window covers at least one kept pixel.

    Args:
        x: `[N, C, H, W]`; a pending border is padded after the filling, before the convolution's own zeros.
        weight: `[K, C / groups, kH, kW]`.
        bias: `[K]` or None.
        window: strides, dilations and zero pads; its kernel is the weight's.
        groups: number of groups of channels.
        rules: `rings` and `removed` say how many rings are filled.

    Returns:
        `[N, K, H', W']`.

    Raises:
        RefusedError: if `x` is not a map with two spatial axes.
    """
    x = as_map(x)
    outer = _with_border(window, x.border)
    padded = _pad(_pad_border(neighbour_pad(x, outer, rules), x.border), window.pads, 0.0)
    data = F.conv2d(padded, weight, bias, window.strides, 0, window.dilations, groups)
    return Masked(data, covers(x.mask, outer), x.axes)


def neighbour_pad(x: Masked, window: Window, rules: MaskRules) -> Tensor:
    """Fills removed pixels with the mean of their kept neighbours, ring by ring, as far as `window` can see.

    Rings grow until no kept output reads an unfilled pixel. Where the number of rings itself can be seen in
    the result, it is exact: max over axes of d·(k − 1), and one more with `rings="kernel"`.

    Returns:
        `[N, C, H, W]`, 0 where nothing was filled.
    """
    filled, mask = wide(x.zeroed()), wide(x.mask)
    mask = mask.to(filled.dtype)
    if rules.rings == "kernel" or rules.removed == "computed":
        reach = max(d * (k - 1) for d, k in zip(window.dilations, window.kernel, strict=True))
        for _ in range(reach + (rules.rings == "kernel")):
            filled, mask = _grow(filled, mask)
    else:
        kept = covers(x.mask, window)
        while (kept & (window_sum(1 - mask, window) > 0)).any():
            filled, mask = _grow(filled, mask)
    return filled.to(x.data.dtype)


def _grow(x: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """One ring of neighbour padding: x_i and m_i from x_{i−1} and m_{i−1}."""
    c = box3(m)
    r = torch.where(c > 0, (1 - m) / (c + 1e-5), 0)
    return torch.addcmul(x, r, box3(x)), (m + c > 0).to(m.dtype)


def box3(x: Tensor) -> Tensor:
    """The 3×3 sum over space, stride 1, zero padding 1: three rows, then three columns."""
    x = F.pad(x, (1, 1, 1, 1))
    x = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    return x[..., :-2] + x[..., 1:-1] + x[..., 2:]


def covers(mask: Tensor, window: Window) -> Tensor:
    """Where the window sees at least one kept pixel: the convolution of the mask with ones is above 0.

    And where it sees no pixel at all, but padding alone: nothing of that can be removed, and an all-True mask would
    not give the original otherwise.

    Args:
        mask: bool `[N, 1, H, W]`.
        window: with its own pads and ceil_mode.

    Returns:
        bool `[N, 1, H', W']`.
    """
    whole = torch.ones_like(mask[:1], dtype=torch.float32)
    return (window_sum(mask.to(torch.float32), window) > 0) | (window_sum(whole, window) == 0)


def max_pool(x: Masked, window: Window) -> Value:
    """Maximum over the kept pixels of the window, 0 where there is none; a border's constant takes part."""
    x = as_map(x)
    if x.border is None and _is_global(x, window):
        return reduce_max(x, x.axes, keepdim=True)
    outer = _with_border(window, x.border)
    kept = covers(x.mask, outer)
    map_ = _frame(_pad_border(x.filled(-math.inf), x.border), window, -math.inf, -math.inf)
    data = F.max_pool2d(map_, window.kernel, window.strides, 0, window.dilations)
    data = data[..., : kept.shape[-2], : kept.shape[-1]]
    return Masked(torch.where(kept, data, 0), kept, x.axes)


def average_pool(
    x: Masked, window: Window, *, include_pad: bool, divisor: int | None = None, rules: MaskRules
) -> Value:
    """Average over windows: op(x ⊙ m) · op(1) / op(m), or op(x ⊙ m) with `average="area"`.

    Args:
        x: `[N, C, H, W]`; a pending border must be of zeros and belongs to op.
        window: with its own pads and ceil_mode.
        include_pad: whether the window's own pads count in the divisor; a border always does.
        divisor: divides instead of the number of pixels.
        rules: `average`.

    Returns:
        `[N, C, H', W']`; plain `[N, C, 1, 1]` if one window is the whole map, which is the global rule.

    Raises:
        RefusedError: if the pending border is not of zeros.
    """
    x = as_map(x)
    if x.border and x.border.value != 0:
        raise RefusedError(f"a Pad with the constant {x.border.value:g} reaches an average")
    if x.border is None and divisor is None and _is_global(x, window):
        return reduce_mean(x, x.axes, keepdim=True, rules=rules)

    def op(v: Tensor) -> Tensor:
        bordered = _pad_border(v, x.border)
        ones = torch.ones_like(bordered[:1, :1])
        count = divisor or window_sum(ones, window, fill=float(include_pad))
        return window_sum(bordered, window) / count

    return _rescaled(x, op, rules)


def channel_average(x: Masked, window: Window, *, include_pad: bool, divisor: int | None = None) -> Masked:
    """A mean along the axis before space alone, as local response normalisation takes it: the op at every pixel.

    Args:
        x: `[N, 1, C, H, W]`.
        window: of three axes; over space it has extent 1, stride 1 and no pads.
        include_pad: whether pads count in the divisor.
        divisor: divides instead of the number of channels.
    """
    over_space = zip(window.kernel[1:], window.strides[1:], window.pads[1:], strict=True)
    if x.data.ndim != 5 or x.axes != (3, 4) or x.border or any(part != (1, 1, (0, 0)) for part in over_space):
        raise RefusedError("a window of three axes slides over space too")

    def total(data: Tensor, fill: float) -> Tensor:
        padded = F.pad(data, (0, 0, 0, 0, *window.pads[0]), value=fill)
        return padded.unfold(2, window.kernel[0], window.strides[0]).sum(-1)

    count = divisor or total(torch.ones_like(x.data), float(include_pad))
    return Masked(total(x.data, 0.0) / count, x.mask, x.axes)


def adaptive_average(x: Masked, size: tuple[int, int], rules: MaskRules) -> Value:
    """Adaptive average to `size`; to 1×1 it is the global average and the result is plain."""
    x = as_map(x)
    if size == (1, 1):
        return reduce_mean(x, x.axes, keepdim=True, rules=rules)
    return _rescaled(x, lambda v: F.adaptive_avg_pool2d(v, size), rules)


def adaptive_max(x: Masked, size: tuple[int, int]) -> Value:
    """Adaptive maximum over kept pixels to `size`; to 1×1 it is the global maximum, the result plain."""
    x = as_map(x)
    if size == (1, 1):
        return reduce_max(x, x.axes, keepdim=True)
    kept = F.adaptive_max_pool2d(x.mask.to(torch.float32), size) > 0
    data = F.adaptive_max_pool2d(x.filled(-math.inf), size)
    return Masked(torch.where(kept, data, 0), kept, x.axes)


def _rescaled(x: Masked, op: Callable[[Tensor], Tensor], rules: MaskRules) -> Masked:
    """The AveragePool row of the rules, for a pool `op` that is linear."""
    mask = wide(x.mask).to(wide(x.data).dtype)
    data, seen, whole = op(wide(x.zeroed())), op(mask), op(torch.ones_like(mask[:1]))
    if rules.average == "valid":
        data = data * whole / torch.where(seen > 0, seen, 1)
    return Masked(data.to(x.data.dtype), (seen > 0) | (whole == 0), x.axes)


def window_sum(x: Tensor, window: Window, fill: float = 0.0) -> Tensor:
    """Sum over each window, `[..., H, W]` to `[..., H', W']`, with `fill` in the pads and 0 beyond them."""
    size = output_size(window, x.shape[-2:])
    taps = _taps(_frame(x, window, fill, 0.0), window, size)
    return sum(taps, start=torch.zeros((), dtype=x.dtype, device=x.device))


def output_size(window: Window, size: torch.Size | tuple[int, ...]) -> tuple[int, ...]:
    """Number of windows along each axis; with ceil_mode none starts beyond the map and its first pads."""
    counts = []
    for axis, extent in enumerate(size):
        before, after = window.pads[axis]
        stride = window.strides[axis]
        free = extent + before + after - window.dilations[axis] * (window.kernel[axis] - 1) - 1
        count = (-(-free // stride) if window.ceil_mode else free // stride) + 1
        if window.ceil_mode and (count - 1) * stride >= extent + before:
            count -= 1
        if count < 1:
            raise RefusedError(f"the window {window.kernel} is larger than the map {tuple(size)}")
        counts.append(count)
    return tuple(counts)


def same_pads(window: Window, size: tuple[int, ...], *, upper: bool) -> tuple[tuple[int, int], ...]:
    """The pads that give ceil(extent / stride) outputs; the odd pixel goes last if `upper`, else first."""
    pads = []
    for axis, extent in enumerate(size):
        stride, reach = window.strides[axis], window.dilations[axis] * (window.kernel[axis] - 1)
        total = max((-(-extent // stride) - 1) * stride + reach + 1 - extent, 0)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if upper else (large, small))
    return tuple(pads)


def _taps(framed: Tensor, window: Window, size: tuple[int, ...]) -> Iterator[Tensor]:
    """For each pixel of the window, the map of what all windows read there, `[..., H', W']`."""
    (s0, s1), (d0, d1), (n0, n1) = window.strides, window.dilations, size
    for i in range(0, d0 * window.kernel[0], d0):
        for j in range(0, d1 * window.kernel[1], d1):
            yield framed[..., i : i + s0 * (n0 - 1) + 1 : s0, j : j + s1 * (n1 - 1) + 1 : s1]


def _frame(x: Tensor, window: Window, fill: float, beyond: float) -> Tensor:
    """`x` padded with `fill`, then with `beyond` as far as the last windows of ceil_mode reach."""
    tails = []
    for axis, count in enumerate(output_size(window, x.shape[-2:])):
        needed = window.strides[axis] * (count - 1) + window.dilations[axis] * (window.kernel[axis] - 1) + 1
        tails.append((0, max(0, needed - x.shape[axis - 2] - sum(window.pads[axis]))))
    return _pad(_pad(x, window.pads, fill), tuple(tails), beyond)


def _pad(x: Tensor, pads: tuple[tuple[int, int], ...], value: float) -> Tensor:
    """Constant padding of the last two axes."""
    (top, bottom), (left, right) = pads
    return F.pad(x, (left, right, top, bottom), value=value)


def _pad_border(x: Tensor, border: Border | None) -> Tensor:
    return x if border is None else _pad(x, border.pads, border.value)


def _with_border(window: Window, border: Border | None) -> Window:
    """The window over the unpadded map: the border's pads are added to its own."""
    if border is None:
        return window
    both = zip(window.pads, border.pads, strict=True)
    return replace(window, pads=tuple((a + c, b + d) for (a, b), (c, d) in both))


def _is_global(x: Masked, window: Window) -> bool:
    """Whether one window without pads is the whole map."""
    whole = window.kernel == tuple(x.data.shape[-2:]) and not any(map(any, window.pads))
    return whole and all(d == 1 or k == 1 for d, k in zip(window.dilations, window.kernel, strict=True))


def as_map(x: Masked) -> Masked:
    """`x` as `[N, C, H, W]` with both axes of space; one that a reshape left with a single pixel becomes space again.

    Raises:
        RefusedError: if it is laid out in another way.
    """
    lone = [axis for axis in (2, 3) if axis not in x.axes]
    if x.data.ndim != 4 or len(lone) == 2 or len(x.axes) + len(lone) > 2 or any(x.data.shape[a] != 1 for a in lone):
        raise RefusedError(f"a window slides over [N, C, H, W], and here space is the axes {x.axes} of {x.data.ndim}")
    if not lone:
        return x
    (pads,) = x.border.pads if x.border else ((0, 0),)
    both = ((0, 0), pads) if lone == [2] else (pads, (0, 0))
    return replace(x, axes=(2, 3), border=x.border and Border(both, x.border.value))
