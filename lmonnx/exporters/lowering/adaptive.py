"""Adaptive pools whose map they do not divide: the gathers that PyTorch exports them as, and the sizes that work."""

from __future__ import annotations

import onnx_ir as ir

from lmonnx.exporters.lowering.registry import FIXED, Refused, attributes
from lmonnx.exporters.ops.builder import extents
from lmonnx.exporters.ops.masks import output_extents
from lmonnx.masking import Window

#: How many pixels larger or smaller than the image a size is looked for.
REACH = 512
#: Operators behind which nothing of an axis of space is left.
REDUCING = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMean")


def adaptive_pool(node: ir.Node) -> Refused | None:
    """The refusal of the Transpose that begins PyTorch's gather of single pixels; None for any other node.

    It moves space before the batch, [N, C, H, W] -> [H, W, N, C], for a GatherND. Where its constant indices are
    [H', kh, W', kw, 2], those of the pixels of H' × W' windows, it is an adaptive pool.
    """
    users = [use.node for use in node.outputs[0].uses()]
    if tuple(attributes(node).get("perm", ())) != (2, 3, 0, 1) or [user.op_type for user in users] != ["GatherND"]:
        return None
    x, indices = node.inputs[0], users[0].inputs[1]
    if x is not None and None in extents(x)[2:]:
        why = "it begins an adaptive pool to more than 1×1, whose windows depend on the height and width"
        return Refused(why, FIXED)
    if x is None or indices is None or len(extents(indices)) != 5:
        why = "it begins a choice of single pixels by their places, as nearest-exact interpolation is exported"
        return Refused(why, "interpolate by nearest or linear")
    after = (extents(indices)[0] or 0, extents(indices)[2] or 0)
    why = f"it begins an adaptive pool of {_text(extents(x)[2:])} pixels to {_text(after)}, which does not divide them"
    sizes = [_nearest(x, axis, count) for axis, count in enumerate(after, start=2)]
    if None in sizes:
        return Refused(why, f"export at a size of the image that makes the map a multiple of {_text(after)}")
    return Refused(why, f"export at a size that works; the nearest is {_text(sizes)}")


def _text(pair: object) -> str:
    assert isinstance(pair, (tuple, list))
    return "×".join(map(str, pair))


def _nearest(x: ir.Value, axis: int, count: int) -> int | None:
    """The extent of the image along ``axis`` nearest to its own for which that of ``x`` is a multiple of ``count``."""
    assert isinstance(x.graph, ir.Graph)
    (image,) = x.graph.inputs
    given = extents(image)[axis]
    if given is None or _extent(x, axis, given) != extents(x)[axis]:
        return None
    for extent in sorted(range(1, given + REACH), key=lambda extent: (abs(extent - given), extent)):
        found = _extent(x, axis, extent)
        if found is not None and found > 0 and found % count == 0:
            return extent
    return None


def _extent(x: ir.Value, axis: int, extent: int) -> int | None:
    """That of ``x`` along ``axis`` for an image of ``extent``, if windows alone decide; None if a map vanishes."""
    assert isinstance(x.graph, ir.Graph)
    known: dict[ir.Value, int] = {x.graph.inputs[0]: extent}
    for node in x.graph:
        operands = [known[value] for value in node.inputs if value in known]
        if not operands:
            continue
        made = _through(node, axis, max(operands))
        if made < 1:
            return None
        known.update(dict.fromkeys(node.outputs, made))
        if x in known:
            break
    return known.get(x)


def least_side(graph: ir.Graph, most: int) -> int | None:
    """The smallest extent of the image for which every window fits into its map; None if it is above ``most``.

    So does none that is larger, and none whose taps can lie on both sides of all pixels.
    """
    (image,) = graph.inputs
    return next((n for n in range(1, most + 1) if all(_fits(graph, {image: n}, axis) for axis in (2, 3))), None)


def _fits(graph: ir.Graph, known: dict[ir.Value, int], axis: int) -> bool:
    """Whether no map vanishes along ``axis``, as far as windows alone decide."""
    for node in graph:
        operands = [known[value] for value in node.inputs if value in known]
        if operands:
            extent = max(operands)
            made = _through(node, axis, extent)
            if made < 1 or any(extent < dilation for dilation in attributes(node).get("dilations", ())):
                return False
            known.update(dict.fromkeys(node.outputs, made))
    return True


def _through(node: ir.Node, axis: int, extent: int) -> int:
    """What ``node`` makes of an extent; an operand that is broadcast is not the largest."""
    settings = attributes(node)
    if node.op_type in REDUCING:
        return 1
    if "kernel_shape" not in settings:
        return extent
    i, half = axis - 2, len(settings["kernel_shape"])
    if i >= half:
        return extent
    window = Window(
        kernel=(settings["kernel_shape"][i],),
        strides=(settings["strides"][i],),
        dilations=(settings.get("dilations", (1,) * half)[i],),
        pads=((settings["pads"][i], settings["pads"][half + i]),),
        ceil_mode=bool(settings.get("ceil_mode", 0)),
    )
    return output_extents(window, (extent,))[0]
