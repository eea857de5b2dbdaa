"""Entries taken along one axis, which PyTorch's exporter writes over the axis moved to the front, in one node."""

from __future__ import annotations

import onnx_ir as ir

from lmonnx.exporters.lowering.registry import attributes, constant_for, known


def recognise_gathers(graph: ir.Graph) -> None:
    """Transpose of an axis to the front, GatherND of its entries, Transpose back -> Gather along the axis, in place.

    So does PyTorch write ``x[:, [2, 1, 0]]``. The places are constants, of any shape, which stands where the axis was.
    """
    for middle in list(graph):
        if middle.op_type != "GatherND" or middle.domain or attributes(middle).get("batch_dims", 0):
            continue
        places, front = known(middle.inputs[1]), middle.inputs[0].producer() if middle.inputs[0] else None
        users = [use.node for use in middle.outputs[0].uses()]
        if places is None or not places.ndim or places.shape[-1] != 1 or front is None or len(users) != 1:
            continue
        perm, axes = _perm(front), places.ndim - 1
        if not perm or sorted(perm[1:]) != list(perm[1:]) or middle.outputs[0].is_graph_output():
            continue
        axis, rest = perm[0], list(range(axes, axes + len(perm) - 1))
        if _perm(users[0]) == (*rest[:axis], *range(axes), *rest[axis:]):
            _replace(graph, users[0], front.inputs[0], constant_for(middle, "places", places[..., 0]), axis)


def _perm(node: ir.Node) -> tuple[int, ...]:
    """Of a Transpose that says it; empty for any other node."""
    return tuple(attributes(node).get("perm", ())) if node.op_type == "Transpose" and not node.domain else ()


def _replace(graph: ir.Graph, back: ir.Node, x: ir.Value | None, places: ir.Value, axis: int) -> None:
    """Puts a Gather in the place of the Transpose ``back``; what it read goes once nothing else reads it."""
    y, old = back.outputs[0], back.inputs[0]
    gather = ir.node("Gather", [x, places], {"axis": axis}, name=f"{back.name}/Gather", version=back.version)
    gather.outputs[0].type, gather.outputs[0].shape = y.type, y.shape
    ir.convenience.replace_nodes_and_values(graph, back, [back], [gather], [y], gather.outputs)
    while old is not None and not old.uses() and not old.is_graph_output() and (node := old.producer()) is not None:
        old = node.inputs[0]
        graph.remove(node, safe=True)
