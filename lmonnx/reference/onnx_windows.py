"""ONNX operators that slide a window, masked and plain, and the resizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import torch.nn.functional as F
from torch import Tensor

from lmonnx.masking import Window
from lmonnx.reference import layout, resample, windows
from lmonnx.reference.activation import Masked, RefusedError, Value
from lmonnx.reference.onnx_call import Call


def window_of(call: Call, kernel: Sequence[int], size: Sequence[int]) -> Window:
    """The window of a Conv or a pool, with auto_pad resolved for a map of this size."""
    rank = len(kernel)
    pads = call.get("pads") or [0] * (2 * rank)
    window = Window(
        tuple(kernel),
        tuple(call.get("strides") or [1] * rank),
        tuple(call.get("dilations") or [1] * rank),
        tuple(zip(pads[:rank], pads[rank:], strict=True)),
        bool(call.get("ceil_mode", 0)),
    )
    auto = call.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pairs = windows.same_pads(window, tuple(size), upper=auto == "SAME_UPPER")
        return replace(window, pads=pairs, ceil_mode=False)
    return replace(window, pads=((0, 0),) * rank) if auto == "VALID" else window


def conv(call: Call, x: Masked, weight: Tensor, bias: Tensor | None = None) -> Value:
    """Conv of a masked map."""
    window = window_of(call, weight.shape[2:], x.shape[2:])
    return windows.conv(x, weight, bias, window, call.get("group", 1), call.rules)


def plain_conv(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Conv along one, two or three axes."""
    window = window_of(call, weight.shape[2:], x.shape[2:])
    flat = [extent for pair in reversed(window.pads) for extent in pair]
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[weight.ndim - 2]
    return function(F.pad(x, flat), weight, bias, window.strides, 0, window.dilations, call.get("group", 1))


def max_pool(call: Call, x: Masked) -> Value:
    """MaxPool of a masked map, without indices."""
    if any(call.node.outputs[1:]):
        raise RefusedError("the indices of a maximum have no masked meaning")
    return windows.max_pool(x, window_of(call, call.get("kernel_shape"), x.shape[2:]))


def average_pool(call: Call, x: Masked) -> Value:
    """AveragePool of a masked map, or along the axis before space alone."""
    window = window_of(call, call.get("kernel_shape"), x.shape[2:])
    include_pad = bool(call.get("count_include_pad", 0))
    if len(window.kernel) == 3:
        return windows.channel_average(x, window, include_pad=include_pad)
    return windows.average_pool(x, window, include_pad=include_pad, rules=call.rules)


def space_to_depth(call: Call, x: Masked) -> Value:
    """SpaceToDepth: the row and the column inside a block, then the channels of the map."""
    return layout.space_to_depth(x, call.get("blocksize"), (0, 3, 5, 1, 2, 4), call.rules)


def resize(call: Call, x: Masked, *inputs: Tensor | None) -> Value:
    """Resize and Upsample of a masked map, over space alone."""
    if x.border:
        raise RefusedError("a constant Pad that no convolution or pool has read reaches it")
    places = _places(call, x.data, inputs)
    if any(axis not in x.axes for axis in places):
        raise RefusedError("it resizes other axes than space")
    if call.get("mode", "nearest") == "nearest":
        return resample.nearest(x, _indices(call, x.data, places))
    return resample.linear(x, _weights(x.data, places))


def plain_resize(call: Call, x: Tensor, *inputs: Tensor | None) -> Tensor:
    """Resize and Upsample of a map without a mask."""
    places = _places(call, x, inputs)
    if call.get("mode", "nearest") == "nearest":
        return resample.pick(x, _indices(call, x, places))
    return resample.blend(x, _weights(x, places))


def _places(call: Call, x: Tensor, inputs: Sequence[Tensor | None]) -> dict[int, list[Fraction]]:
    """The source coordinates along each axis that is resized.

    Upsample and the Resize of opset 10 have scales alone and begin pixels at 0; Resize of opset 11 and later has
    sizes too, and names its coordinates. The batch is not resized, whatever size a file has for it.
    """
    if call.get("mode", "nearest") not in ("nearest", "linear"):
        raise RefusedError("cubic weights are negative too, so that the kept share of a window may be 0 or below")
    if call.get("antialias", 0) or call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise RefusedError("an antialiased resize, and one that keeps the aspect ratio, are not defined")
    old = _begins_at_zero(call)
    given = [*inputs, None, None, None]
    scales, sizes = (given[0], None) if old else (given[1], given[2])
    mode = "asymmetric" if old else call.get("coordinate_transformation_mode", "half_pixel")
    if mode == "tf_crop_and_resize":
        raise RefusedError("it crops too")
    sized = sizes is not None and sizes.numel() > 0
    numbers = sizes if sized else scales
    if numbers is None:
        raise RefusedError("it has neither scales nor sizes")
    places = {}
    for axis, number in zip(call.get("axes") or range(x.ndim), numbers.tolist(), strict=True):
        extent, scale = x.shape[axis], None if sized else float(number)
        count = int(number) if scale is None else math.floor(resample.snapped(extent * scale))
        if axis % x.ndim != 0 and count != extent:
            places[axis % x.ndim] = resample.coordinates(extent, count, resample.ratio(extent, count, scale), mode)
    return places


def _begins_at_zero(call: Call) -> bool:
    return call.node.operator == "Upsample" or call.opset < 11


def _indices(call: Call, x: Tensor, places: dict[int, list[Fraction]]) -> dict[int, list[int]]:
    indices = {}
    for axis, coordinates in places.items():
        shrinks = len(coordinates) < x.shape[axis]
        rounding = call.get("nearest_mode", "round_prefer_floor")
        if _begins_at_zero(call):
            rounding = "ceil" if shrinks else "floor"  # onnxruntime's; ONNX does not say
        indices[axis] = resample.nearest_indices(coordinates, x.shape[axis], rounding)
    return indices


def _weights(x: Tensor, places: dict[int, list[Fraction]]) -> dict[int, list[list[Fraction]]]:
    return {axis: resample.linear_weights(found, x.shape[axis]) for axis, found in places.items()}
