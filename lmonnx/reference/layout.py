"""Masked operators that only move pixels about: the mask and the spatial axes follow the data.

Every function raises RefusedError where masking is not defined. The batch is axis 0 and stays there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lmonnx.reference.activation import Border, Masked, RefusedError, Value


def transpose(x: Masked, order: Sequence[int]) -> Masked:
    """Axis i of the result is axis `order[i]` of `x`; the batch stays first."""
    order = [axis % x.data.ndim for axis in order]
    if order[0] != 0:
        raise RefusedError("it moves the batch axis")
    axes = tuple(sorted(order.index(axis) for axis in x.axes))
    return Masked(x.data.permute(order), x.mask.permute(order), axes)


def squeeze(x: Masked, dims: Sequence[int]) -> Value:
    """Drops the axes of extent 1 among `dims`; where no space is left, removed is 0 and the result plain."""
    dims = [dim % x.data.ndim for dim in dims if x.data.shape[dim] == 1]
    if 0 in dims:
        raise RefusedError("it drops the batch axis")
    left = [axis for axis in range(x.data.ndim) if axis not in dims]
    axes = tuple(left.index(axis) for axis in x.axes if axis in left)
    if not axes:
        return x.zeroed().squeeze(tuple(dims))
    return Masked(x.data.squeeze(tuple(dims)), x.mask.squeeze(tuple(dims)), axes)


def unsqueeze(x: Masked, dims: Sequence[int]) -> Masked:
    """Inserts axes of extent 1, which are not space, at the places `dims` of the result."""
    rank = x.data.ndim + len(dims)
    new = {dim % rank for dim in dims}
    if 0 in new:
        raise RefusedError("it moves the batch axis")
    data, mask = x.data, x.mask
    for dim in sorted(new):
        data, mask = data.unsqueeze(dim), mask.unsqueeze(dim)
    old = [axis for axis in range(rank) if axis not in new]
    return Masked(data, mask, tuple(old[axis] for axis in x.axes))


def take(x: Masked, indices: Tensor, dim: int) -> Masked:
    """The entries `indices` along an axis that is neither space nor the batch; one entry alone drops the axis."""
    dim %= x.data.ndim
    if dim in (0, *x.axes):
        raise RefusedError("it takes single positions of the batch or of space")
    if indices.ndim > 1:
        raise RefusedError(f"its indices have {indices.ndim} axes")
    count = x.data.shape[dim]
    places = torch.where(indices < 0, indices + count, indices).to(torch.int64).reshape(-1)
    taken = x.holding(x.data.index_select(dim, places))
    if indices.ndim == 1:
        return taken
    axes = tuple(axis - (axis > dim) for axis in x.axes)
    return Masked(taken.data.squeeze(dim), taken.mask.squeeze(dim), axes)


def reshape(x: Masked, shape: Sequence[int]) -> Value:
    """Reshape to `shape`, of which one extent may be −1.

    1. To a vector `[N, K]`: removed pixels are 0 and the result is plain.
    2. Axes that are not space split and merge among themselves, and so does space; the mask goes along.
    3. Where no space is left (it had extent 1), as 1.
    4. `[N, C, *space]` to `[N, groups, K]`, each group's channels with space, is space too; a reshape back to
       the same shape restores the map.

    Anything else is refused.
    """
    known = math.prod(extent for extent in shape if extent != -1)
    resolved = [extent if extent != -1 else x.data.numel() // max(known, 1) for extent in shape]
    if resolved[:1] != [x.data.shape[0]]:
        raise RefusedError("it merges or splits the batch axis")
    if len(resolved) == 2:
        return x.zeroed().reshape(resolved)
    if x.unfolded and tuple(resolved) == x.unfolded.data.shape:
        return x.unfolded.holding(x.data.reshape(resolved))
    axes: list[int] = []
    for old, new in _blocks(x.data.shape, resolved):
        if not set(old) & set(x.axes):
            continue
        if any(axis not in x.axes and x.data.shape[axis] != 1 for axis in old):
            if len(resolved) == 3 and x.axes == tuple(range(2, x.data.ndim)):
                return _fold(x, resolved)
            if sum(extent != 1 for extent in resolved[1:]) == 1:
                return x.zeroed().reshape(resolved)
            raise RefusedError(f"it merges space with channels, {tuple(x.data.shape)} to {tuple(resolved)}")
        axes += [axis for axis in new if resolved[axis] != 1] or new[-1:]
    if not axes:
        return x.zeroed().reshape(resolved)
    extents = [extent if axis in {0, *axes} else 1 for axis, extent in enumerate(resolved)]
    return Masked(x.data.reshape(resolved), x.mask.reshape(extents), tuple(axes))


def _fold(x: Masked, shape: Sequence[int]) -> Masked:
    """`[N, C, *space]` to `[N, groups, K]`, where the mask is the same for every channel and every group."""
    channels, remainder = divmod(x.data.shape[1], shape[1])
    if remainder:
        raise RefusedError(f"it splits {x.data.shape[1]} channels into {shape[1]} groups")
    mask = x.mask.expand(-1, channels, *[-1] * len(x.axes)).reshape(shape[0], 1, shape[2])
    return Masked(x.data.reshape(tuple(shape)), mask, (2,), unfolded=x)


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Pairs the axes of two shapes of one size into the smallest consecutive blocks of equal extents.

    Trailing axes of extent 1 that find no partner form no block.
    """
    blocks, i, j = [], 0, 0
    while i < len(old) and j < len(new):
        first_i, first_j, size_i, size_j = i, j, old[i], new[j]
        i, j = i + 1, j + 1
        while size_i != size_j:
            if size_i < size_j:
                size_i, i = size_i * old[i], i + 1
            else:
                size_j, j = size_j * new[j], j + 1
        blocks.append((list(range(first_i, i)), list(range(first_j, j))))
    return blocks


def pad_constant(x: Masked, pads: Sequence[tuple[int, int]], value: float) -> Masked:
    """Constant padding over space: a border that stays pending until a window reads it.

    Args:
        x: any layout; a border that is pending already must have the same constant.
        pads: before and after, one pair for each axis of `x`.
        value: the constant.
    """
    _only_space(x, pads)
    old = x.border or Border(tuple((0, 0) for _ in x.axes), value)
    if not any(map(any, pads)):
        return x
    if old.value != value:
        raise RefusedError(f"a Pad with {value:g} follows a Pad with {old.value:g} that no window has read")
    new = tuple((a + pads[axis][0], b + pads[axis][1]) for axis, (a, b) in zip(x.axes, old.pads, strict=True))
    return replace(x, border=Border(new, value))


def pad_mirror(x: Masked, pads: Sequence[tuple[int, int]], mode: Literal["reflect", "replicate"]) -> Masked:
    """Reflect or edge padding over space, of the mask as of the data; arguments as in `pad_constant`."""
    _only_space(x, pads)
    if x.border or x.axes != (2, 3) or x.data.ndim != 4:
        raise RefusedError(f"padding by {mode} is defined for [N, C, H, W] without a pending Pad")
    flat = (*pads[3], *pads[2])
    mask = F.pad(x.mask.to(x.data.dtype), flat, mode=mode) > 0
    return Masked(F.pad(x.data, flat, mode=mode), mask, x.axes)


def _only_space(x: Masked, pads: Sequence[tuple[int, int]]) -> None:
    if any(any(pair) for axis, pair in enumerate(pads) if axis not in x.axes):
        raise RefusedError("it pads other axes than space")
    if any(extent < 0 for pair in pads for extent in pair):
        raise RefusedError("a negative padding crops the map")
