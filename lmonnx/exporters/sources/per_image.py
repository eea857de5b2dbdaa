"""Forms in which PyTorch's exporter lays the images of a batch out as something else, written for each image."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
import onnx_ir.passes.common as passes

from lmonnx.exporters.lowering.registry import attributes, known
from lmonnx.exporters.ops.builder import sides

#: Reductions over a new first axis, and the operators that join what was stacked there.
JOINS = {"ReduceMax": "Max", "ReduceMean": "Mean", "ReduceMin": "Min", "ReduceSum": "Sum"}


def write_for_each_image(model: ir.Model) -> None:
    """Brings both forms that follow into one in which the batch stays what it is, in place."""
    _normalise_channels(model)
    _join_parts(model.graph)
    passes.RemoveUnusedNodesPass()(model)


def _normalise_channels(model: ir.Model) -> None:
    """Reshape [N, C, …] to [1, N·C, …], BatchNormalization, Reshape back -> BatchNormalization of C channels.

    InstanceNorm with running statistics, which PyTorch repeats for each image; no image depends on another.
    """
    for norm, before, tiles, back in list(_side_by_side(model.graph)):
        y, inputs = back.outputs[0], [before.inputs[0], *(tile.inputs[0] for tile in tiles)]
        channels = ir.node("BatchNormalization", inputs, attributes(norm), name=norm.name)
        channels.outputs[0].type, channels.outputs[0].shape = y.type, y.shape
        ir.convenience.replace_nodes_and_values(model.graph, back, [back], [channels], [y], channels.outputs)


def _join_parts(graph: ir.Graph) -> None:
    """Unsqueeze of every part, Concat over the new first axis, ReduceSum over it -> Sum, and so on for ``JOINS``."""
    for node in list(graph):
        axes = known(node.inputs[1]) if node.op_type in JOINS and len(node.inputs) == 2 else None
        stack = node.inputs[0].producer() if axes is not None and node.inputs[0] is not None else None
        if (
            stack is None
            or stack.op_type != "Concat"
            or attributes(stack)["axis"]
            or attributes(node).get("keepdims", 1)
        ):
            continue
        parts = [value.producer() for value in stack.inputs if value is not None]
        grown = [part for part in parts if part is not None and part.op_type == "Unsqueeze" and _first(part.inputs[1])]
        if _first(node.inputs[1]) and len(grown) == len(stack.inputs):
            old = node.outputs[0]
            join = ir.node(JOINS[node.op_type], [part.inputs[0] for part in grown], name=node.name)
            join.outputs[0].type, join.outputs[0].shape = old.type, old.shape
            ir.convenience.replace_nodes_and_values(graph, node, [node], [join], [old], join.outputs)


def _first(axes: ir.Value | None) -> bool:
    """Whether the axes are the first one alone."""
    named = known(axes)
    return named is not None and named.tolist() == [0]


def _side_by_side(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Node, list[ir.Node], ir.Node]]:
    """The batch norm, the Reshape before it, what repeats its statistics, and the Reshape behind it."""
    for norm in graph:
        users = [use.node for use in norm.outputs[0].uses()] if norm.op_type == "BatchNormalization" else []
        before = norm.inputs[0].producer() if users and norm.inputs[0] is not None else None
        if before is None or before.op_type != "Reshape" or [user.op_type for user in users] != ["Reshape"]:
            continue
        x, (back,) = before.inputs[0], users
        tiles = [value.producer() for value in norm.inputs[1:] if value is not None]
        if x is None or x.shape is None or back.outputs[0].shape is None or not _one_row(before):
            continue
        repeated = [tile for tile in tiles if tile is not None and _for_each_image(tile, x)]
        if len(repeated) == 4 and sides(x)[1:] == sides(back.outputs[0])[1:] and None not in sides(x)[1:]:
            yield norm, before, repeated, back


def _one_row(reshape: ir.Node) -> bool:
    """Whether the first extent of the result is 1, by its shape or by the shape that is asked for."""
    result, asked = reshape.outputs[0], reshape.inputs[1]
    maker = asked.producer() if asked is not None else None
    first = known(maker.inputs[0] if maker is not None and maker.op_type == "Concat" else asked)
    return (first is not None and first.flat[0] == 1) or (result.shape is not None and sides(result)[0] == 1)


def _for_each_image(tile: ir.Node, x: ir.Value) -> bool:
    """Whether a node repeats one constant for each channel of ``x`` as often as ``x`` has images."""
    if tile.op_type != "Tile" or tile.inputs[1] is None:
        return False
    once, count = known(tile.inputs[0]), tile.inputs[1].producer()
    if once is None or once.shape != sides(x)[1:2] or count is None or count.op_type != "Shape":
        return False
    return count.inputs[0] is x and (attributes(count).get("start", 0), attributes(count).get("end")) == (0, 1)
