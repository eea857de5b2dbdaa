"""ATen operators that move pixels about, cut, join or resize maps.

A function takes the rules and the operator's arguments in the order of its schema, defaults filled in.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmonnx.masking import MaskRules
from lmonnx.reference import functions, layout, resample, windows
from lmonnx.reference.activation import Masked, RefusedError, Value


def _slice(_: MaskRules, x: Masked, dim: int, start: int | None, end: int | None, step: int) -> Value:
    return layout.crop(x, dim, range(x.shape[dim])[slice(start, end, step)])


def _narrow(_: MaskRules, x: Masked, dim: int, start: int, length: int) -> Value:
    start %= x.shape[dim]
    return layout.crop(x, dim, range(start, start + length))


def _sizes(extent: int, part: int) -> list[int]:
    """Extents of the parts of `part` positions that `extent` positions make, the last of what is left."""
    return [min(part, extent - start) for start in range(0, extent, part)]


def _split(_: MaskRules, x: Masked, sizes: int | Sequence[int], dim: int) -> tuple[Value, ...]:
    return layout.split(x, _sizes(x.data.shape[dim], sizes) if isinstance(sizes, int) else sizes, dim)


def _chunk(rules: MaskRules, x: Masked, chunks: int, dim: int) -> tuple[Value, ...]:
    return _split(rules, x, -(-x.data.shape[dim] // chunks), dim)


def _tensor_split(_: MaskRules, x: Masked, sections: int | Sequence[int], dim: int) -> tuple[Value, ...]:
    extent = x.data.shape[dim]
    if isinstance(sections, int):
        sizes = [extent // sections + (index < extent % sections) for index in range(sections)]
    else:
        places = [0, *sections, extent]
        sizes = [after - before for before, after in itertools.pairwise(places)]
    return layout.split(x, sizes, dim)


def _select(_: MaskRules, x: Masked, dim: int, index: int) -> Value:
    return layout.take(x, torch.tensor(index, device=x.data.device), dim)


def _unbind(rules: MaskRules, x: Masked, dim: int) -> tuple[Value, ...]:
    return tuple(_select(rules, x, dim, index) for index in range(x.data.shape[dim]))


def _index(_: MaskRules, x: Masked, indices: Sequence[Tensor | None]) -> Value:
    given = [(dim, places) for dim, places in enumerate(indices) if places is not None]
    if len(given) != 1:
        raise RefusedError("it takes single positions along several axes")
    ((dim, places),) = given
    return layout.take(x, places, dim)


def _stack(rules: MaskRules, operands: Sequence[Value], dim: int) -> Value:
    """A concatenation along a new axis, by the rule of Concat."""
    rank = next(value.data.ndim for value in operands if isinstance(value, Masked)) + 1
    dim %= rank
    grown = [layout.unsqueeze(x, (dim,)) if isinstance(x, Masked) else x.unsqueeze(dim) for x in operands]
    return functions.concat(grown, dim, rules)


def _slice_scatter(
    rules: MaskRules, x: Value, source: Value, dim: int, start: int | None, end: int | None, step: int
) -> Value:
    """The parts of an axis before and behind a slice, and `source` between them, by the rule of Concat."""
    extent = x.shape[dim]
    places = range(extent)[slice(start, end, step)]
    if places == range(extent):
        return source
    if step != 1:
        raise RefusedError("it writes to entries that do not follow each other")
    sizes = [places.start, len(places), extent - places.stop]
    parts = layout.split(x, sizes, dim) if isinstance(x, Masked) else torch.split(x, sizes, dim)
    return functions.concat([p for p, n in zip((parts[0], source, parts[2]), sizes, strict=True) if n], dim, rules)


def _select_scatter(rules: MaskRules, x: Value, source: Value, dim: int, index: int) -> Value:
    one = layout.unsqueeze(source, (dim,)) if isinstance(source, Masked) else source.unsqueeze(dim)
    return _slice_scatter(rules, x, one, dim, index, index + 1 or None, 1)


def _overwritten(_: MaskRules, x: Value, source: Value, __: bool) -> Value:
    """`source` with the shape and the dtype of `x`, of which nothing else is left."""
    dtype = x.data.dtype if isinstance(x, Masked) else x.dtype
    if isinstance(source, Masked):
        return layout.expand(source.holding(source.data.to(dtype)), x.shape)
    return source.to(dtype).expand(x.shape)


def _repeat_interleave(_: MaskRules, x: Masked, repeats: int, dim: int | None, __: int | None) -> Value:
    if dim is None:
        raise RefusedError("it repeats the batch")
    places = [place for place in range(x.data.shape[dim]) for _ in range(repeats)]
    if dim % x.data.ndim in x.axes:
        return resample.nearest(x, {dim % x.data.ndim: places})
    return layout.take(x, torch.tensor(places, device=x.data.device), dim)


def _flip(_: MaskRules, x: Masked, dims: Sequence[int]) -> Value:
    for dim in dims:
        x = layout.crop(x, dim, range(x.data.shape[dim])[::-1])
    return x


def _roll(_: MaskRules, x: Masked, shifts: Sequence[int], dims: Sequence[int]) -> Value:
    return layout.roll(x, shifts, dims)


def _flatten(rules: MaskRules, x: Masked, start: int, end: int) -> Value:
    start, end = start % x.data.ndim, end % x.data.ndim
    return layout.reshape(x, (*x.data.shape[:start], -1, *x.data.shape[end + 1 :]), rules)


def _unflatten(rules: MaskRules, x: Masked, dim: int, sizes: Sequence[int]) -> Value:
    dim %= x.data.ndim
    return layout.reshape(x, (*x.data.shape[:dim], *sizes, *x.data.shape[dim + 1 :]), rules)


def _transpose(_: MaskRules, x: Masked, first: int, second: int) -> Value:
    return layout.transpose(x, _swapped(x.data.ndim, first, second))


def _rot90(rules: MaskRules, x: Masked, times: int, dims: Sequence[int]) -> Value:
    """Quarter turns from the first axis to the second, each a flip of the second and a transpose."""
    for _ in range(times % 4):
        flipped = _flip(rules, x, dims[1:])
        assert isinstance(flipped, Masked)
        x = layout.transpose(flipped, _swapped(x.data.ndim, *dims))
    return x


def _swapped(rank: int, first: int, second: int) -> list[int]:
    order = list(range(rank))
    order[first], order[second] = order[second], order[first]
    return order


def _movedim(_: MaskRules, x: Masked, source: Any, destination: Any) -> Value:
    numbered = torch.empty([*range(1, x.data.ndim + 1)], device="meta")  # axis i has the extent i + 1
    return layout.transpose(x, [extent - 1 for extent in torch.movedim(numbered, source, destination).shape])


def _squeeze(_: MaskRules, x: Masked, dims: int | Sequence[int] | None = None) -> Value:
    if dims is None:
        raise RefusedError("without axes it drops the batch axis when the batch is 1", "name the axes")
    return layout.squeeze(x, [dims] if isinstance(dims, int) else dims)


def _pad(_: MaskRules, x: Masked, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    pads = [(0, 0)] * (x.data.ndim - len(pairs)) + pairs[::-1]
    if mode == "constant":
        return layout.pad_constant(x, pads, float(value or 0))
    return layout.pad_mirror(x, pads, mode)


def _mirror(mode: str) -> Callable[..., Value]:
    return lambda rules, x, pad: _pad(rules, x, pad, mode)


def _pixel_unshuffle(rules: MaskRules, x: Masked, factor: int) -> Value:
    """SpaceToDepth, whose channels are those of the map, then the row and the column inside a block."""
    return layout.space_to_depth(x, factor, (0, 1, 3, 5, 2, 4), rules)


def _channel_shuffle(_: MaskRules, x: Masked, groups: int) -> Value:
    if 1 in x.axes:
        raise RefusedError("its channels are not axis 1")
    return functions.pointwise(lambda data: F.channel_shuffle(data, groups), x)


def _resize(mode: str, rounding: str = "") -> Callable[..., Value]:
    """upsample_nearest2d, _upsample_nearest_exact2d and upsample_bilinear2d, in both forms of their schemas.

    Args:
        mode: how coordinates are made where corners are not aligned, a name of ONNX.
        rounding: how the nearest pixel is chosen; linear if empty.
    """

    def rule(_: MaskRules, x: Masked, size: Sequence[int] | None, *options: Any) -> Value:
        x = windows.as_map(x)
        align, scales = (False, options) if rounding else (bool(options[0]), options[1:])
        factors = list((scales[0] or (None, None)) if len(scales) == 1 else scales)
        places = {}
        for axis, factor in zip(x.axes, factors, strict=True):
            extent = x.data.shape[axis]
            count = size[axis - 2] if size else math.floor(resample.snapped(extent * factor))
            scale = resample.ratio(extent, count, factor)
            places[axis] = resample.coordinates(extent, count, scale, "align_corners" if align else mode)
        if not rounding:
            return resample.linear(x, {a: resample.linear_weights(p, x.data.shape[a]) for a, p in places.items()})
        return resample.nearest(
            x, {a: resample.nearest_indices(p, x.data.shape[a], rounding) for a, p in places.items()}
        )

    return rule


def _copy(_: MaskRules, x: Masked, *__: Any) -> Value:
    return replace(x)


def _reshape(rules: MaskRules, x: Masked, shape: Sequence[int]) -> Value:
    return layout.reshape(x, shape, rules)


def _expand_as(_: MaskRules, x: Value, other: Value) -> Value:
    """Broadcast to the shape of another value; the mask of that one stays behind."""
    return layout.expand(x, other.shape) if isinstance(x, Masked) else x.expand(other.shape)


def _view_as(rules: MaskRules, x: Value, other: Value) -> Value:
    """Reshape to the shape of another value; the mask of that one stays behind."""
    return layout.reshape(x, other.shape, rules) if isinstance(x, Masked) else x.reshape(other.shape)


def _type_as(_: MaskRules, x: Value, other: Value, *__: Any) -> Value:
    """The dtype of another value, of which nothing else is read."""
    dtype = other.data.dtype
    return x.holding(x.data.to(dtype)) if isinstance(x, Masked) else x.to(dtype)


LAYOUT: dict[str, Callable[..., Any]] = {
    "_unsafe_view": _reshape,
    "_upsample_nearest_exact2d": _resize("half_pixel", "round_prefer_ceil"),
    "adjoint": lambda rules, x: _transpose(rules, x, -2, -1),
    "alias": lambda _, x: x,
    "cat": lambda rules, operands, dim: functions.concat(operands, dim, rules),
    "channel_shuffle": _channel_shuffle,
    "chunk": _chunk,
    "clone": _copy,
    "concat": lambda rules, operands, dim: functions.concat(operands, dim, rules),
    "constant_pad_nd": lambda rules, x, pad, value: _pad(rules, x, pad, "constant", value),
    "contiguous": _copy,
    "copy": _overwritten,
    "detach": lambda _, x: x.holding(x.data.detach()),
    "expand": lambda _, x, shape, __: layout.expand(x, shape),
    "expand_as": _expand_as,
    "flatten": _flatten,
    "flip": _flip,
    "index": _index,
    "index_select": lambda _, x, dim, index: layout.take(x, index, dim),
    "mT": lambda rules, x: _transpose(rules, x, -2, -1),
    "movedim": _movedim,
    "narrow": _narrow,
    "pad": _pad,
    "permute": lambda _, x, dims: layout.transpose(x, dims),
    "pixel_unshuffle": _pixel_unshuffle,
    "reflection_pad2d": _mirror("reflect"),
    "repeat": lambda _, x, repeats: layout.tile(x, repeats),
    "repeat_interleave": _repeat_interleave,
    "replication_pad2d": _mirror("replicate"),
    "reshape": _reshape,
    "roll": _roll,
    "rot90": _rot90,
    "select": _select,
    "select_scatter": _select_scatter,
    "slice": _slice,
    "slice_scatter": _slice_scatter,
    "split": _split,
    "split_with_sizes": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "sym_size": lambda _, x, dim: x.shape[dim],
    "tensor_split": _tensor_split,
    "tile": lambda _, x, repeats: layout.tile(x, repeats),
    "to.other": _type_as,
    "transpose": _transpose,
    "type_as": _type_as,
    "unbind": _unbind,
    "unflatten": _unflatten,
    "unsafe_chunk": _chunk,
    "unsafe_split": _split,
    "unsafe_split_with_sizes": _split,
    "unsqueeze": lambda _, x, dim: layout.unsqueeze(x, (dim,)),
    "upsample_bilinear2d": _resize("half_pixel"),
    "upsample_nearest2d": _resize("asymmetric", "floor"),
    "view": _reshape,
    "view_as": _view_as,
}
