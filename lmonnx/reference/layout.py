"""Masked operators that only move pixels about: the mask and the spatial axes follow the data.

Every function raises RefusedError where masking is not defined. The batch is axis 0 and stays there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lmonnx.masking import MaskRules, Window
from lmonnx.reference.activation import Border, Masked, RefusedError, Value
from lmonnx.reference.windows import covers, neighbour_pad

Blocks = list[tuple[list[int], list[int]]]


def transpose(x: Masked, order: Sequence[int]) -> Masked:
    """Axis i of the result is axis `order[i]` of `x`; the batch stays first."""
    order = [axis % x.data.ndim for axis in order]
    if order[0] != 0:
        raise RefusedError("it moves the batch axis")
    axes = tuple(sorted(order.index(axis) for axis in x.axes))
    tiles = x.tiles and tuple((order.index(block), order.index(inside)) for block, inside in x.tiles)
    border = x.border and Border(tuple(x.border.pads[x.axes.index(order[axis])] for axis in axes), x.border.value)
    return Masked(x.data.permute(order), x.mask.permute(order), axes, border, tiles=tiles)


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
    """The entries `indices` along an axis that is not the batch; over space the mask is taken with them.

    Args:
        x: any layout.
        indices: integers, negative ones count from the end; their axes replace `dim`, and a scalar drops it. Over
            space `[n]`.
        dim: the axis.
    """
    dim %= x.data.ndim
    if dim == 0 or (dim in x.axes and indices.ndim != 1):
        raise RefusedError("it takes single positions of the batch or of space")
    if indices.dtype == torch.bool or indices.is_floating_point():
        raise RefusedError("it selects by a condition")
    places = torch.where(indices < 0, indices + x.data.shape[dim], indices).to(torch.int64)
    if dim in x.axes:
        return Masked(x.data.index_select(dim, places), x.mask.index_select(dim, places), x.axes)
    data = x.data.index_select(dim, places.reshape(-1))
    data = data.reshape((*data.shape[:dim], *places.shape, *data.shape[dim + 1 :]))
    mask = x.mask.squeeze(dim)
    for _ in range(places.ndim):
        mask = mask.unsqueeze(dim)
    return Masked(data, mask, tuple(axis + (places.ndim - 1) * (axis > dim) for axis in x.axes))


def crop(x: Masked, dim: int, positions: range) -> Masked:
    """The slice `positions` of an axis, of which a pending border is a part; over space the mask follows.

    The batch has no slice but the whole.
    """
    dim %= x.data.ndim
    if positions == range(x.shape[dim]):
        return x
    if dim == 0:
        raise RefusedError("it slices the batch")
    border, read = x.border, list(positions)
    if border and dim in x.axes:
        border, read = _uncover(border, x.axes.index(dim), positions, x.data.shape[dim])
    places = torch.tensor(read, dtype=torch.int64, device=x.data.device)
    mask = x.mask.index_select(dim, places) if dim in x.axes else x.mask
    return Masked(x.data.index_select(dim, places), mask, x.axes, border)


def _uncover(border: Border, i: int, positions: range, extent: int) -> tuple[Border | None, list[int]]:
    """What `positions` of space axis `i` leave of a border, None for nothing, and which of the `extent` pixels."""
    before, _ = border.pads[i]
    pixels = [0 <= position - before < extent for position in positions]
    if True not in pixels:
        raise RefusedError("it leaves nothing but the constant of a Pad that no window has read")
    pads = list(border.pads)
    pads[i] = (pixels.index(True), pixels[::-1].index(True))
    left = Border(tuple(pads), border.value) if any(map(any, pads)) else None
    return left, [p - before for p, pixel in zip(positions, pixels, strict=True) if pixel]


def split(x: Masked, sizes: Sequence[int], dim: int) -> tuple[Masked, ...]:
    """Consecutive slices of the extents `sizes` along an axis; over space the mask follows."""
    ends = itertools.accumulate(sizes)
    return tuple(crop(x, dim, range(end - size, end)) for size, end in zip(sizes, ends, strict=True))


def roll(x: Masked, shifts: Sequence[int], dims: Sequence[int]) -> Masked:
    """A circular shift along axes, which is two slices joined the other way round; the mask follows."""
    positive = [dim % x.data.ndim for dim in dims]
    if len(shifts) != len(positive) or not positive or 0 in positive:
        raise RefusedError("it shifts the batch")
    mask = x.mask
    for shift, dim in zip(shifts, positive, strict=True):
        mask = mask.roll(shift, dim) if dim in x.axes else mask
    return Masked(x.data.roll(tuple(shifts), tuple(positive)), mask, x.axes)


def expand(x: Masked, shape: Sequence[int]) -> Masked:
    """Axes of extent 1 grow to `shape`, where −1 and 1 leave an axis as it is; over space the mask follows."""
    extents = _aligned(x, shape, "broadcast")
    extents = [old if new in (-1, 1) else new for old, new in zip(x.data.shape, extents, strict=True)]
    if extents[0] != x.data.shape[0]:
        raise RefusedError("it repeats the batch")
    mask = x.mask.expand([n if axis in {0, *x.axes} else 1 for axis, n in enumerate(extents)])
    return Masked(x.data.expand(extents), mask, x.axes)


def tile(x: Masked, repeats: Sequence[int]) -> Masked:
    """The data `repeats` times along each axis, one after the other; over space the mask follows."""
    times = _aligned(x, repeats, "repeated")
    if times[0] != 1:
        raise RefusedError("it repeats the batch")
    mask = x.mask.repeat([n if axis in x.axes else 1 for axis, n in enumerate(times)])
    return Masked(x.data.repeat(times), mask, x.axes)


def _aligned(x: Masked, extents: Sequence[int], what: str) -> list[int]:
    """`extents` with 1 for the axes before them."""
    if len(extents) > x.data.ndim:
        raise RefusedError(f"it is {what} to {len(extents)} axes, so that none of its own stays in place")
    return [1] * (x.data.ndim - len(extents)) + list(extents)


def reshape(x: Masked, shape: Sequence[int], rules: MaskRules) -> Value:
    """Reshape to `shape`, of which one extent may be −1.

    1. To a vector `[N, K]`: removed pixels are 0 and the result is plain.
    2. Axes that are not space split and merge among themselves, and so does space; the mask goes along.
    3. Where no space is left (it had extent 1), as 1.
    4. `[N, C, *space]` to `[N, groups, K]`, each group's channels with space, is space too; a reshape back to
       the same shape restores the map.
    5. Space that was cut into blocks, what is inside them merged into channels: a SpaceToDepth, for which
       `rules` say how neighbours are padded.
    6. `[N, *space, C]` to a matrix of pixels `[N·…, C]`, on which a dense layer acts; a reshape back to maps of any
       number of channels restores mask and axes.

    Anything else is refused.
    """
    known = math.prod(extent for extent in shape if extent != -1)
    resolved = [extent if extent != -1 else x.data.numel() // max(known, 1) for extent in shape]
    if x.rows:
        return _as_maps(x, resolved)
    if len(resolved) == 2 and resolved[0] != x.data.shape[0] and resolved[1] == x.data.shape[-1]:
        if x.data.ndim - 1 in x.axes:
            raise RefusedError("it merges the batch with space")
        mask = x.mask.expand(*x.data.shape[:-1], 1)
        return Masked(x.data.reshape(resolved), mask.reshape(-1, 1), (), rows=x)
    if resolved[:1] != [x.data.shape[0]]:
        raise RefusedError("it merges or splits the batch axis")
    if len(resolved) == 2:
        return x.zeroed().reshape(resolved)
    if x.unfolded and tuple(resolved) == x.unfolded.data.shape:
        return x.unfolded.holding(x.data.reshape(resolved))
    blocks = _blocks(x.data.shape, resolved)
    tiled, inside = ({pair[i] for pair in x.tiles or ()} for i in (0, 1))
    for old, _ in blocks:
        mixed = len({axis in x.axes for axis in old if x.data.shape[axis] != 1}) == 2
        # What is inside blocks becomes channels also where the map has one channel, which is not seen in the shape.
        if mixed or (inside and inside <= set(old) and not tiled & set(old)):
            return _merge(x, resolved, blocks, rules)
    axes = _new_axes(resolved, [pair for pair in blocks if _is_space(x, pair[0])], x.axes)
    if not axes:
        return x.zeroed().reshape(resolved)
    tiles = tuple((new[0], new[1]) for old, new in blocks if len(new) == 2 and old[0] in x.axes and len(old) == 1)
    extents = [extent if axis in {0, *axes} else 1 for axis, extent in enumerate(resolved)]
    cut = tiles if len(tiles) == len(x.axes) == 2 else None
    return Masked(x.data.reshape(resolved), x.mask.reshape(extents), axes, tiles=cut)


def _as_maps(x: Masked, shape: Sequence[int]) -> Masked:
    """A matrix of pixels as the maps that it was made of, of any number of channels."""
    assert x.rows is not None
    if tuple(shape[:-1]) != tuple(x.rows.data.shape[:-1]):
        raise RefusedError("it merges the batch with space, and nothing undoes it")
    return Masked(x.data.reshape(tuple(shape)), x.rows.mask, x.rows.axes)


def _new_axes(shape: Sequence[int], blocks: Blocks, axes: Sequence[int]) -> tuple[int, ...]:
    """Which axes of `shape` the old `axes` became, without those of extent 1 that a split leaves."""
    moved = [new for old, new in blocks if set(old) & set(axes)]
    return tuple(axis for new in moved for axis in [axis for axis in new if shape[axis] != 1] or new[-1:])


def _is_space(x: Masked, axes: Sequence[int]) -> bool:
    """Whether `axes`, which merge, are space: an axis of extent 1 is what the others are."""
    return not {*axes}.isdisjoint(x.axes) and all(axis in x.axes or x.data.shape[axis] == 1 for axis in axes)


def _merge(x: Masked, shape: Sequence[int], blocks: Blocks, rules: MaskRules) -> Value:
    """A reshape that merges space with other axes, the cases 3 to 5 of `reshape`."""
    counting = {block for block, _ in x.tiles or ()}
    large = [{axis for axis in old if x.data.shape[axis] != 1} for old, _ in blocks]
    if counting and all(old <= counting or not old & counting for old in large):
        return _blocks_to_depth(x, shape, blocks, rules)
    if len(shape) == 3 and x.axes == tuple(range(2, x.data.ndim)):
        return _fold(x, shape)
    if sum(extent != 1 for extent in shape[1:]) == 1:
        return x.zeroed().reshape(tuple(shape))
    raise RefusedError(f"it merges space with channels, {tuple(x.data.shape)} to {tuple(shape)}")


def space_to_depth(x: Masked, block: int, order: Sequence[int], rules: MaskRules) -> Value:
    """SpaceToDepth of a map `[N, C, H, W]`; `order` arranges `[N, C, H/b, b, W/b, b]` before channels merge."""
    if x.data.ndim != 4 or x.axes != (2, 3):
        raise RefusedError("it rearranges [N, C, H, W]")
    n, c, h, w = x.data.shape
    cut = reshape(x, (n, c, h // block, block, w // block, block), rules)
    assert isinstance(cut, Masked)
    return reshape(transpose(cut, order), (n, c * block**2, h // block, w // block), rules)


def _blocks_to_depth(x: Masked, shape: Sequence[int], blocks: Blocks, rules: MaskRules) -> Masked:
    """SpaceToDepth(b): a window of b pixels and stride b neighbour-pads the map, then it is rearranged.

    `x` is the map cut into blocks, in any order of axes: the map is put together again, padded, and cut as it
    was. A block is kept where it covers a kept pixel.
    """
    tiles = x.tiles or ()
    inside = [axis for pair in tiles for axis in pair]
    order = [0, *[axis for axis in range(1, x.data.ndim) if axis not in inside], *inside]
    side = tuple(x.data.shape[axis] for _, axis in tiles)
    cut, size = x.data.permute(order), [x.data.shape[block] * b for (block, _), b in zip(tiles, side, strict=True)]
    mask = x.mask.permute(order).reshape(x.data.shape[0], 1, *size)
    whole = Masked(cut.reshape(x.data.shape[0], -1, *size), mask, (2, 3))
    window = Window(side, side, (1, 1), ((0, 0), (0, 0)))
    back = [order.index(axis) for axis in range(x.data.ndim)]
    data = neighbour_pad(whole, window, rules).reshape(cut.shape).permute(back).reshape(tuple(shape))
    axes = _new_axes(shape, blocks, [block for block, _ in tiles])
    kept, turned = covers(mask, window), tiles[0][0] > tiles[1][0]
    kept = kept.transpose(2, 3) if turned else kept
    return Masked(data, kept.reshape([n if axis in {0, *axes} else 1 for axis, n in enumerate(shape)]), axes)


def _fold(x: Masked, shape: Sequence[int]) -> Masked:
    """`[N, C, *space]` to `[N, groups, K]`, where the mask is the same for every channel and every group."""
    channels, remainder = divmod(x.data.shape[1], shape[1])
    if remainder:
        raise RefusedError(f"it splits {x.data.shape[1]} channels into {shape[1]} groups")
    mask = x.mask.expand(-1, channels, *[-1] * len(x.axes)).reshape(shape[0], 1, shape[2])
    return Masked(x.data.reshape(tuple(shape)), mask, (2,), unfolded=x)


def _blocks(old: Sequence[int], new: Sequence[int]) -> Blocks:
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
    """Constant padding: over space a border that stays pending until a window reads it, over channels at once.

    Args:
        x: any layout; a border that is pending already must have the same constant.
        pads: before and after, one pair for each axis of `x`; a negative one is a slice.
        value: the constant.
    """
    if any(pads[0]):
        raise RefusedError("it pads the batch")
    if any(extent < 0 for pair in pads for extent in pair):
        for axis, (before, after) in enumerate(pads):
            x = crop(x, axis, range(x.shape[axis])[max(-before, 0) : x.shape[axis] + min(after, 0)])
        pads = [(max(before, 0), max(after, 0)) for before, after in pads]
    flat = [0 if axis in x.axes else extent for axis, pair in reversed([*enumerate(pads)]) for extent in pair]
    if not any(map(any, pads)):
        return x
    old = x.border or Border(tuple((0, 0) for _ in x.axes), value)
    if old.value != value:
        raise RefusedError(f"a Pad with {value:g} follows a Pad with {old.value:g} that no window has read")
    if any(flat):
        x = replace(x, data=F.pad(x.data, flat, value=value), unfolded=None, tiles=None)
    if not any(any(pads[axis]) for axis in x.axes):
        return x
    new = tuple((a + pads[axis][0], b + pads[axis][1]) for axis, (a, b) in zip(x.axes, old.pads, strict=True))
    return replace(x, border=Border(new, value))


def pad_mirror(x: Masked, pads: Sequence[tuple[int, int]], mode: str) -> Masked:
    """Padding over space with its own pixels, of the mask as of the data; arguments as in `pad_constant`.

    The mode is `"reflect"`, `"replicate"` or `"circular"`.
    """
    if mode not in ("reflect", "replicate", "circular"):
        raise RefusedError(f"padding by {mode} has no masked meaning")
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
