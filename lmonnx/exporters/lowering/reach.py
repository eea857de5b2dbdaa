"""How many rings around kept pixels each convolution needs filled, by what is read of its result.

A window that has seen a kept pixel reads at most d·(k − 1) from it. But of many convolutions fewer windows are read
than have seen one: the sum at the end of a residual block keeps what the block's input kept, and nothing reads the ring
that its 3×3 convolution grew. Windows that lie on kept pixels read half as far, those whose input has grown already may
read kept pixels alone.

The walk goes backwards over the source and says of every value under which mask it is read, an expression of the graph
that a first lowering built.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from lmonnx.exporters.lowering.registry import attributes
from lmonnx.exporters.lowering.rules.joins import JOINS
from lmonnx.exporters.lowering.rules.layout import permuted
from lmonnx.exporters.lowering.rules.pointwise import POINTWISE
from lmonnx.exporters.lowering.rules.windows import image_of, window_of
from lmonnx.exporters.ops.builder import Op, extents
from lmonnx.exporters.ops.fill import rings
from lmonnx.exporters.ops.masked import Masked
from lmonnx.exporters.ops.masks import contains, covers, taps_of
from lmonnx.exporters.ops.pools import joint
from lmonnx.masking import Window

#: Operators that treat every position alone wherever they leave the mask as it is.
ALONE = {
    *POINTWISE, "BatchNormalization", "Cast", "Clip", "DequantizeLinear", "Dropout", "Gather", "Hardmax", "Identity",
    "LRN", "LogSoftmax", "LpNormalization", "MatMul", "QuantizeLinear", "Selu", "Slice", "Softmax", "Split",
}  # fmt: skip
#: Those that do if the axes from this one on are not space.
NORMS = {"LayerNormalization", "RMSNormalization"}

_Values = Mapping[ir.Value, Any]


def note_rings(graph: ir.Graph, op: Op, values: _Values) -> None:
    """Writes into ``meta["rings"]`` of every Conv how many rings it needs.

    Args:
        graph: the source.
        op: what the first lowering built with; masks are added to its graph, which is of no further use.
        values: what each value of the source became there.
    """
    read: dict[ir.Value, list[ir.Value]] = defaultdict(list)
    for output in graph.outputs:
        if isinstance(made := values.get(output), Masked):
            read[output].append(made.mask)
    for node in reversed(list(graph)):
        wanted = [_together(made.mask, read[value]) for value, made in _masked(node.outputs, values)]
        inputs = [*_masked(node.inputs, values)]
        if node.op_type == "Conv" and len(wanted) == 1 and inputs:
            (_, x), *_ = inputs
            window = joint(_window(node), image_of(x).border)
            node.meta["rings"] = reach(op, window, x.mask, wanted[0])
        for value, x in inputs:
            read[value].append(_wanted_of(op, node, x, wanted, values) or x.mask)


def _window(node: ir.Node) -> Window:
    return window_of(extents(node.inputs[1])[2:], attributes(node))  # type: ignore[arg-type]


def _masked(some: Sequence[ir.Value | None], values: _Values) -> Iterator[tuple[ir.Value, Masked]]:
    for value in some:
        if value is not None and isinstance(made := values.get(value), Masked):
            yield value, made


def _together(own: ir.Value, masks: Sequence[ir.Value]) -> ir.Value:
    """A mask that keeps what any of ``masks`` keeps: one of them, or ``own``, which all of them are within."""
    return next((mask for mask in masks if all(contains(mask, other) for other in masks)), own)


def _wanted_of(op: Op, node: ir.Node, x: Masked, wanted: Sequence[ir.Value], values: _Values) -> ir.Value | None:
    """The mask under which ``node`` reads ``x`` if its results are read under ``wanted``; None if it reads all."""
    results = [made for _, made in _masked(node.outputs, values)]
    if not results or len(wanted) < len(node.outputs):
        return None
    mask = wanted[0] if len(wanted) == 1 else _together(results[0].mask, wanted)
    if node.op_type == "Transpose":
        perm = list(attributes(node)["perm"])
        return permuted(op, mask, [perm.index(axis) for axis in range(len(perm))])
    unchanged = all(made.mask is x.mask for made in results)
    if node.op_type in JOINS or node.op_type == "Concat":
        within = extents(mask) == extents(x.mask) and contains(x.mask, mask)
        return mask if unchanged or within else None
    if node.op_type in NORMS:
        first = attributes(node).get("axis", -1) % x.rank
        return mask if first > max(x.axes) else None
    if node.op_type == "Conv" and rings(_window(node)) > 0:
        return None
    return mask if unchanged and (node.op_type in ALONE or node.op_type == "Conv") else None


def reach(op: Op, window: Window, mask: ir.Value, wanted: ir.Value) -> int:
    """How far from kept pixels of ``mask`` the windows at the kept positions of ``wanted`` read, in pixels.

    That is, as Chebyshev distance, to the nearest of those pixels that are certain to be kept: any that the window
    reads; the one that it lies on, if ``wanted`` is within a mask of those; or, if ``mask`` is itself what another
    window made of a mask that contains ``wanted``, all pixels from which that window sees this one.
    """
    taps = [(min(some), max(some)) for some in taps_of(window)]
    far = rings(window)
    point = Window((1,) * len(taps), window.strides, (1,) * len(taps), ((0, 0),) * len(taps))
    on = covers(op, mask, point)
    if extents(on) == extents(wanted) and contains(on, wanted):
        far = min(far, max(max(high, -low) for low, high in taps))
    if "covers" not in mask.meta or {*window.strides} != {1}:
        return far
    inner, before = mask.meta["covers"]
    plain = {*before.strides, *before.dilations} == {1}
    if plain and extents(mask) == extents(inner) == extents(wanted) and contains(inner, wanted):
        box = [(-max(some), -min(some)) for some in taps_of(before)]
        beyond = [max(high - most, least - low, 0) for (low, high), (least, most) in zip(taps, box, strict=True)]
        far = min(far, max(beyond))
    return far
