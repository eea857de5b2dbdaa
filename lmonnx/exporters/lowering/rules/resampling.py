"""Operators that change the resolution: by interpolation, or by moving blocks of space into channels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.lowering.registry import FIXED, Operand, Refused, attributes, constant, rule, unpadded
from lmonnx.exporters.lowering.rules.windows import block, image_of
from lmonnx.exporters.ops.builder import Op, extents, ints
from lmonnx.exporters.ops.fill import neighbour_pad, rings, zeroed
from lmonnx.exporters.ops.masked import Masked
from lmonnx.exporters.ops.masks import as_float, covers

#: Attributes of a Resize that matter to nearest and linear.
KEPT = ("coordinate_transformation_mode", "mode", "nearest_mode")
#: A tap whose weight is below this is there by rounding of its coordinate alone, and keeps nothing.
ROUNDING = 1e-4


@rule("Resize")
def resize(
    op: Op, node: ir.Node, x: Masked, roi: Operand = None, scales: Operand = None, sizes: ir.Value | None = None
) -> Masked:
    """Nearest: the op, on the mask too. Linear: R(x⊙m) / R(m), kept where R(m) > 0."""
    x, settings, after = unpadded(x), attributes(node), extents(node.outputs[0])
    mode = settings.get("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise Refused(f"interpolation {mode!r} weighs pixels negatively, and has no mean over kept ones", "use linear")
    if settings.get("coordinate_transformation_mode") == "tf_crop_and_resize" or settings.get("antialias", 0):
        raise Refused("cropping and antialiasing while resizing are not defined", "resize without")
    if settings.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refused("a size that follows from the aspect ratio is not defined", "give both extents")
    if any(after[a] != n for a, n in enumerate(extents(x.data)) if a and a not in x.axes):
        raise Refused("it resizes channels")
    if any(after[a] is None for a in x.axes):
        raise Refused("the size that it makes is not known", FIXED)
    count = [after[a] or 0 for a in x.axes]
    factor = np.array([n / m for n, m in zip(count, x.space, strict=True)])
    full = np.ones(x.rank, np.float32)
    if by_scale := scales is not None and constant(scales, "its scale").size > 0:
        full[list(settings.get("axes") or range(x.rank))] = constant(scales, "its scale")
        factor = full[list(x.axes)]
    kept = {name: settings[name] for name in KEPT if name in settings}

    def resized(value: ir.Value, given: ir.Value | None = None) -> ir.Value:
        """By whole shapes: onnxruntime moves a Transpose through a Resize without its attribute axes."""
        inner = [(count[x.axes.index(a)] if a in x.axes else extents(value)[a]) or 0 for a in range(1, x.rank)]
        shape = None if by_scale else given or op.Concat(op.Shape(value, start=0, end=1), ints(inner), axis=0)
        made: ir.Value = op.call("Resize", value, None, full if by_scale else None, shape, **kept)
        assert value.shape is not None
        made.shape = ir.Shape([value.shape[0], *inner])
        return made

    whole = None if "axes" in settings else sizes
    if mode == "nearest":
        mask = op.Greater(resized(as_float(op, x.mask)), op.number(0.5))
        return x.but(data=resized(x.data, whole), mask=mask)
    transform = settings.get("coordinate_transformation_mode", "half_pixel")
    mask = x.mask
    for axis, extent, windows, scale in zip(x.axes, x.space, count, factor.tolist(), strict=True):
        mask = _reached(op, mask, axis, _positions(extent, windows, scale, transform))
    share = op.Where(mask, resized(as_float(op, x.mask)), op.number(1))
    data = resized(op.widened(zeroed(op, x)), whole)
    data = op.cast_like(op.Div(data, op.cast_like(share, data)), x.data)
    return x.but(data=data, mask=mask, zero=False, finite=True)


def _positions(extent: int, count: int, scale: float, transform: str) -> np.ndarray:
    """Where each of ``count`` results reads, as a coordinate among ``extent`` pixels (ONNX's Resize)."""
    i = np.arange(count, dtype=np.float64)
    centred = (i + 0.5) / scale - 0.5
    if transform == "align_corners":
        at = i * (extent - 1) / max(count - 1, 1)
    elif transform == "asymmetric":
        at = i / scale
    elif transform == "half_pixel_symmetric":
        at = extent / 2 * (1 - count / (scale * extent)) + centred
    elif transform == "pytorch_half_pixel" and count == 1:
        at = np.zeros(1)
    elif transform in ("half_pixel", "pytorch_half_pixel"):
        at = centred
    else:
        raise Refused(f"the coordinates {transform!r} are not known")
    return np.clip(at, 0, extent - 1)


def _reached(op: Op, mask: ir.Value, axis: int, at: np.ndarray) -> ir.Value:
    """Kept where the pixel before or after a position is, of those that have a weight."""
    low = np.floor(at + ROUNDING)
    before, after = low.astype(np.int64), (low + (at - low > ROUNDING)).astype(np.int64)
    taken: ir.Value = op.Gather(mask, before, axis=axis)
    return taken if (before == after).all() else op.Or(taken, op.Gather(mask, after, axis=axis))


@rule("SpaceToDepth")
def space_to_depth(op: Op, node: ir.Node, x: Masked) -> Masked:
    """A window of b × b pixels and stride b, of which every pixel becomes a channel of its own.

    [N, C, H, W] -> [N, C·b·b, H/b, W/b]. ``order`` of the form that normalisation recognises is how the new channels
    are arranged: a permutation of row in the block, column in the block, channel of the source.
    """
    x, settings = image_of(unpadded(x)), attributes(node)
    size = settings["blocksize"]
    window = block(size)
    data, mask = neighbour_pad(op, x, window), covers(op, x.mask, window)
    channels, (height, width) = extents(x.data)[1] or 0, x.space
    order = settings.get("order")
    if order is None:
        data = op.SpaceToDepth(data, blocksize=size)
    else:
        data = op.Reshape(data, ints([0, channels, height // size, size, width // size, size]))
        data = op.Transpose(data, perm=[0, *((3, 5, 1)[axis] for axis in order), 2, 4])
        data = op.Reshape(data, ints([0, channels * size * size, height // size, width // size]))
    return x.but(data=data, mask=mask, zero=False, finite=x.finite or rings(window) > 0)
