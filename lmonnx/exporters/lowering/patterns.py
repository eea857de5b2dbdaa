"""What an operator means where an exporter has taken it apart: the chain becomes one node again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import onnx_ir as ir

from lmonnx.exporters.lowering.registry import INTERNAL_DOMAIN
from lmonnx.exporters.ops.builder import extents

NHWC_TO_NCHW, NCHW_TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
#: What each axis of a map is once its blocks are axes of their own, by the layout before: channel, row of blocks and
#: row in the block, column of blocks and column in the block.
ROLES = {"NCHW": "NCHhWw", "NHWC": "NHhWwC"}


def recognise_blocks(graph: ir.Graph) -> None:
    """Reshape [N, C, H/b, b, W/b, b], Transpose, Reshape [N, C·b·b, H/b, W/b] -> SpaceToDepth, in place.

    So does PyTorch write pixel_unshuffle; before, after or both the channels may be last. ``order`` of the node says
    how the new channels are arranged: a permutation of row in the block, column in the block, channel of before.
    No inference of shapes may follow, which knows standard operators only.
    """
    for split, turn, merge in list(_chains(graph)):
        x, y = split.inputs[0], merge.outputs[0]
        if x is None or any(value.shape is None for value in (x, split.outputs[0], y)):
            continue
        roles = _roles(extents(x), extents(split.outputs[0]))
        if roles is None:
            continue
        size = dict(zip(roles, extents(split.outputs[0]), strict=True))
        turned = "".join(roles[axis] for axis in turn.attributes["perm"].as_ints())
        last, order = turned.startswith("NHW"), turned.replace("N", "", 1).replace("HW", "", 1)
        if not (last or turned.endswith("HW")) or not turned.startswith("N") or sorted(order) != ["C", "h", "w"]:
            continue
        channels = (size["C"] or 0) * (size["h"] or 0) ** 2
        made = (size["H"], size["W"], channels) if last else (channels, size["H"], size["W"])
        if extents(y)[1:] == made:
            settings = {"blocksize": size["h"], "order": tuple(map("hwC".index, order))}
            _replace(graph, (split, turn, merge), settings, first=roles == ROLES["NHWC"], last=last)


def _chains(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Node, ir.Node]]:
    """Reshape, Transpose, Reshape, of which nothing else reads what is between them."""
    for turn in graph:
        if turn.op_type != "Transpose" or "perm" not in turn.attributes or turn.inputs[0] is None:
            continue
        split, users = turn.inputs[0].producer(), [use.node for use in turn.outputs[0].uses()]
        if split is None or split.op_type != "Reshape" or len(users) != 1 or users[0].op_type != "Reshape":
            continue
        between = (split.outputs[0], turn.outputs[0])
        if not any(value.is_graph_output() for value in between) and len(split.outputs[0].uses()) == 1:
            yield split, turn, users[0]


def _roles(before: tuple[int | None, ...], after: tuple[int | None, ...]) -> str | None:
    """The roles of the axes of ``after``, if it is the map ``before`` with blocks as axes of their own."""
    if len(before) != 4 or len(after) != 6 or None in (*before[1:], *after[1:]):
        return None
    for layout, roles in ROLES.items():
        size = dict(zip(roles, after, strict=True))
        whole = {"C": size["C"], "H": (size["H"] or 0) * (size["h"] or 0), "W": (size["W"] or 0) * (size["w"] or 0)}
        if size["h"] == size["w"] != 1 and all(before[i] == whole[axis] for i, axis in enumerate(layout) if i):
            return roles
    return None


def _replace(
    graph: ir.Graph, chain: tuple[ir.Node, ir.Node, ir.Node], settings: dict[str, Any], *, first: bool, last: bool
) -> None:
    """Puts a SpaceToDepth in the place of ``chain``; channels are last before it (``first``), after it, or both."""
    x, merge = chain[0].inputs[0], chain[2]
    assert x is not None
    y, nodes = merge.outputs[0], list[ir.Node]()

    def add(operator: str, settings: dict[str, Any], shape: Sequence[int | None], domain: str = "") -> None:
        value = nodes[-1].outputs[0] if nodes else x
        node = ir.node(operator, [value], settings, domain=domain, name=f"{merge.name}/{operator}")
        node.outputs[0].name = f"{merge.name}/{operator}/{len(nodes)}"
        node.outputs[0].type, node.outputs[0].shape = y.type, ir.Shape(shape)
        nodes.append(node)

    if first:
        add("Transpose", {"perm": NHWC_TO_NCHW}, [extents(x)[axis] for axis in NHWC_TO_NCHW])
    add("SpaceToDepth", settings, [extents(y)[axis] for axis in NHWC_TO_NCHW] if last else extents(y), INTERNAL_DOMAIN)
    if last:
        add("Transpose", {"perm": NCHW_TO_NHWC}, extents(y))
    ir.convenience.replace_nodes_and_values(graph, merge, list(chain), nodes, [y], nodes[-1].outputs)
