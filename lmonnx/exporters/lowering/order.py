"""The order of the nodes in the file, which decides how much memory onnxruntime takes.

onnxruntime (1.31) runs nodes in an order of its own: it walks back from the outputs, and of what a node reads it
computes first what stands last in the file; its blocked convolutions stand there in the order of such a walk. A mask
that is spread to many channels should be computed right before the map that it is for, not at the start, to be held
until then. In that order it is if the file holds

- what depends on the image by depth, the shortest way first, so that the shortcut of a residual block stands before the
  branch, whose zeros need masks;
- what depends on the mask alone right before it is first read.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

#: Operators that read no pixel.
EXTENTS = ("Shape", "Size")


def arrange(graph: ir.Graph) -> None:
    """Brings the nodes of a lowered graph into that order, in place; what they compute stays the same."""
    nodes = list(graph)
    depths: dict[ir.Node, int] = {}
    for node in nodes:
        depths[node] = 1 + max((depths[before] for before in _before(node)), default=0)
    placed: dict[ir.Node, None] = {}
    for node in sorted(_following(graph), key=depths.__getitem__):
        _place(node, placed)
    for node in nodes:
        _place(node, placed)
    graph.remove(nodes)
    graph.extend(placed)


def _following(graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes that depend on the pixels of the image, in graph order."""
    (seen,) = ({value} for value in graph.inputs if value.name == "image")
    for node in graph:
        if node.op_type not in EXTENTS and any(value in seen for value in node.inputs):
            seen.update(node.outputs)
            yield node


def _place(node: ir.Node, placed: dict[ir.Node, None]) -> None:
    """Places ``node`` behind what it reads."""
    waiting = [node]
    while waiting:
        missing = [before for before in _before(waiting[-1]) if before not in placed]
        if missing:
            waiting += missing
        else:
            placed.setdefault(waiting.pop())


def _before(node: ir.Node) -> Iterator[ir.Node]:
    """The nodes that compute what ``node`` reads."""
    for value in node.inputs:
        producer = None if value is None else value.producer()
        if producer is not None:
            yield producer
