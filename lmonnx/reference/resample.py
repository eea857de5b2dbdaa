"""Resize under a mask: nearest moves the mask with the data, linear divides by the kept weight.

The source coordinates are exact fractions, so that which pixel is nearest, and which weight is 0, does not
depend on rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from lmonnx.reference.activation import Masked, wide

HALF = Fraction(1, 2)


def snapped(value: float) -> float:
    """`value`, or the whole number that it is but for the rounding of a float32 scale."""
    return round(value) if abs(value - round(value)) < 1e-3 else value


def ratio(extent: int, count: int, scale: float | None) -> Fraction:
    """Scale of an axis that grows from `extent` to `count` pixels, of which `scale` may be a rounded value."""
    whole = Fraction(count, extent)
    return whole if scale is None or abs(scale - whole) * extent < 1e-3 else Fraction(scale)


def coordinates(extent: int, count: int, scale: Fraction, mode: str) -> list[Fraction]:
    """Where each of `count` output pixels lies on the input axis, by ONNX's `coordinate_transformation_mode`.

    Raises:
        KeyError: if the mode is another one.
    """
    last = Fraction(extent - 1, count - 1) if count > 1 else Fraction(0)
    shift = Fraction(extent, 2) * (1 - Fraction(count) / (scale * extent))
    place: Callable[[int], Fraction] = {
        "align_corners": lambda i: i * last,
        "asymmetric": lambda i: i / scale,
        "half_pixel": lambda i: (i + HALF) / scale - HALF,
        "half_pixel_symmetric": lambda i: shift + (i + HALF) / scale - HALF,
        "pytorch_half_pixel": lambda i: (i + HALF) / scale - HALF if count > 1 else Fraction(0),
        "tf_half_pixel_for_nn": lambda i: (i + HALF) / scale,
    }[mode]
    return [place(i) for i in range(count)]


ROUNDINGS: dict[str, Callable[[Fraction], int]] = {
    "ceil": math.ceil,
    "floor": math.floor,
    "round_prefer_ceil": lambda c: math.floor(c + HALF),
    "round_prefer_floor": lambda c: math.ceil(c - HALF),
}


def nearest_indices(places: Sequence[Fraction], extent: int, rounding: str) -> list[int]:
    """The input pixel that each output pixel copies, by ONNX's `nearest_mode`."""
    return [min(max(ROUNDINGS[rounding](place), 0), extent - 1) for place in places]


def linear_weights(places: Sequence[Fraction], extent: int) -> list[list[Fraction]]:
    """The weight of each of `extent` input pixels in each output pixel; beyond the edge is the edge."""
    rows = []
    for place in places:
        row, low = [Fraction(0)] * extent, math.floor(place)
        for index, weight in ((low, low + 1 - place), (low + 1, place - low)):
            row[min(max(index, 0), extent - 1)] += weight
        rows.append(row)
    return rows


def pick(x: Tensor, indices: Mapping[int, Sequence[int]]) -> Tensor:
    """The pixels `indices[axis]` along each axis."""
    for axis, places in indices.items():
        x = x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
    return x


def blend(x: Tensor, weights: Mapping[int, Sequence[Sequence[Fraction]]]) -> Tensor:
    """Weighted sums of the pixels along each axis, `weights[axis]` being `[outputs, inputs]`."""
    for axis, rows in weights.items():
        matrix = torch.tensor([[float(w) for w in row] for row in rows], dtype=x.dtype, device=x.device)
        x = (x.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return x


def nearest(x: Masked, indices: Mapping[int, Sequence[int]]) -> Masked:
    """Nearest resize: the op, of the mask as of the data. `indices` as in `pick`, over space alone."""
    return Masked(pick(x.data, indices), pick(x.mask, indices), x.axes)


def linear(x: Masked, weights: Mapping[int, Sequence[Sequence[Fraction]]]) -> Masked:
    """Linear resize R: R(x ⊙ m) / R(m), kept where R(m) > 0, and 0 elsewhere. `weights` as in `blend`."""
    zeroed = wide(x.zeroed())
    kept = blend(x.mask.to(zeroed.dtype), weights)
    data = blend(zeroed, weights) / torch.where(kept > 0, kept, 1)
    return Masked(data.to(x.data.dtype), kept > 0, x.axes)
