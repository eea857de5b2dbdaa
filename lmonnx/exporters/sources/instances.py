"""InstanceNorm with running statistics, which PyTorch exports as a batch norm of all images side by side."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
import onnx_ir.passes.common as passes

from lmonnx.exporters.lowering.registry import attributes, known
from lmonnx.exporters.ops.builder import sides


def normalise_channels(model: ir.Model) -> None:
    """Reshape [N, C, …] to [1, N·C, …], BatchNormalization, Reshape back -> BatchNormalization of C channels.

    PyTorch repeats the statistics of the channels for each image; in evaluation mode no image depends on another.
    """
    found = list(_side_by_side(model.graph))
    for norm, x, tiles, back in found:
        y = back.outputs[0]
        channels = ir.node(
            "BatchNormalization", [x, *(tile.inputs[0] for tile in tiles)], attributes(norm), name=norm.name
        )
        channels.outputs[0].type, channels.outputs[0].shape = y.type, y.shape
        ir.convenience.replace_nodes_and_values(model.graph, back, [back], [channels], [y], channels.outputs)
    if found:
        passes.RemoveUnusedNodesPass()(model)


def _side_by_side(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Value, list[ir.Node], ir.Node]]:
    """The batch norm, the map before the first Reshape, what repeats its statistics, and the second Reshape."""
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
            yield norm, x, repeated, back


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
