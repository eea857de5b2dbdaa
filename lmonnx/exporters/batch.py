"""A batch that the file fixes at 1, made free."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from lmonnx.errors import SourceError
from lmonnx.exporters.lowering.registry import BATCH, attributes, constant_for, known
from lmonnx.exporters.ops.builder import LAST

#: Operators that may write a number in the place of the batch.
LITERAL = ("Concat", "Expand", "Flatten", "Gather", "Reshape", "Slice", "Squeeze")


def is_fixed(image: ir.Value) -> bool:
    """Whether the file fixes its batch at 1.

    Raises:
        SourceError: if it fixes it at another number.
    """
    assert image.shape is not None
    batch = image.shape[0]
    if isinstance(batch, int) and batch != 1:
        raise SourceError(
            f"the batch of {image.name!r} is fixed at {batch}; write the model with a free batch, or with 1"
        )
    return isinstance(batch, int)


def free(graph: ir.Graph) -> None:
    """Rewrites every node that has the 1 of the batch as a literal, in a graph whose shapes are inferred for 1.

    Constant expressions are folded beforehand, so that no shape is computed in the graph any more.
    """
    (image,) = graph.inputs
    for node in list(_behind(graph, image)):
        if node.op_type in FREED:
            FREED[node.op_type](node)


def require_free(graph: ir.Graph) -> None:
    """Every output that depends on the image has the batch as its first axis, as far as shapes are known.

    Raises:
        SourceError: naming the first node that loses the batch, if it is one that has shapes as literals; the
            lowering says of other operators why they are refused.
    """
    (image,) = graph.inputs
    behind = list(_behind(graph, image))
    made = {value for node in behind for value in node.outputs}
    lost = [value for value in graph.outputs if value in made and _lost(value)]
    if not lost:
        return
    for node in behind:
        before = [value for value in node.inputs if value is not None and value.shape and _first(value) == BATCH]
        if before and node.op_type not in ("Shape", "Size") and _lost(node.outputs[0]):
            if node.op_type not in LITERAL:
                return
            shapes = _text(before[0]), _text(node.outputs[0])
            raise SourceError(
                f"{node.op_type} {node.name!r} loses the batch, from {shapes[0]} to {shapes[1]}; "
                "write the model so that the first axis of every activation is the batch"
            )
    raise SourceError(
        f"the output {lost[0].name!r} has the shape {_text(lost[0])} for every batch; "
        "write the model so that the first axis of every activation is the batch"
    )


def _lost(value: ir.Value) -> bool:
    return value.shape is not None and (not value.shape or isinstance(_first(value), int))


def _first(value: ir.Value) -> int | str | None:
    assert value.shape is not None
    extent = value.shape[0]
    return extent if isinstance(extent, int) else extent.value


def _text(value: ir.Value) -> str:
    return "a scalar" if not value.shape else "×".join(str(extent) for extent in value.shape)


def _behind(graph: ir.Graph, image: ir.Value) -> Iterator[ir.Node]:
    """The nodes that depend on the image, in order."""
    depending = {image}
    for node in graph:
        if any(value in depending for value in node.inputs if value is not None):
            depending.update(node.outputs)
            yield node


def _reshape(node: ir.Node) -> None:
    """A literal 1 in the place of the batch becomes 0, which keeps what is there.

    Where the batch is merged with other axes, or is taken out of them again, its place follows from the rest.
    """
    x, shape = node.inputs[0], known(node.inputs[1])
    if shape is None or shape.size < 2 or x is None or not x.shape:
        return
    if shape[0] < 1 or 1 not in (shape[0], x.shape[0]):
        return
    moved = shape[0] != x.shape[0]
    first = -1 if moved and (shape != -1).all() else 0
    node.replace_input_with(1, constant_for(node, "shape", np.array([first, *shape[1:]], np.int64)))
    node.attributes.pop("allowzero", None)


def _flatten(node: ir.Node) -> None:
    """With a batch of 1 Flatten from axis 0 is the same as from axis 1."""
    if attributes(node).get("axis", 1) == 0:
        node.attributes["axis"] = ir.AttrInt64("axis", 1)


def _concat(node: ir.Node) -> None:
    """A constant beside activations is repeated for every row."""
    rows = next((value for value in node.inputs if value is not None and value.const_value is None), None)
    axis = attributes(node)["axis"]
    assert isinstance(node.graph, ir.Graph)
    for i, value in enumerate(node.inputs):
        array = known(value)
        if array is None or rows is None or array.ndim < 2 or axis in (0, -array.ndim) or len(array) != 1:
            continue
        count = ir.node("Shape", [rows], {"start": 0, "end": 1}, name=f"{node.name}/rows")
        rest = constant_for(node, f"extents{i}", np.ones(array.ndim - 1, np.int64))
        shape = ir.node("Concat", [count.outputs[0], rest], {"axis": 0}, name=f"{node.name}/shape{i}")
        each = ir.node("Expand", [value, shape.outputs[0]], name=f"{node.name}/repeated{i}")
        node.graph.insert_before(node, [count, shape, each])
        node.replace_input_with(i, each.outputs[0])


def _gather(node: ir.Node) -> None:
    """All entries of a flattened value, in order, into a shape: PyTorch's as_strided. It is a Reshape of the value."""
    flat, places = node.inputs
    before, indices = None if flat is None else flat.producer(), known(places)
    if before is None or before.op_type != "Reshape" or indices is None or indices.ndim < 2 or len(indices) != 1:
        return
    target = known(before.inputs[1])
    if target is not None and target.tolist() == [-1] and np.array_equal(indices.ravel(), np.arange(_size(flat))):
        node.op_type = "Reshape"
        node.attributes.clear()
        node.replace_input_with(0, before.inputs[0])
        node.replace_input_with(1, constant_for(node, "shape", np.array([0, *indices.shape[1:]], np.int64)))


def _size(value: ir.Value | None) -> int:
    """Number of entries; 0 where that is not known."""
    extents = [] if value is None or value.shape is None else list(value.shape)
    return math.prod(extent if isinstance(extent, int) else 0 for extent in extents)


def _slice(node: ir.Node) -> None:
    """The first row of one is all rows."""
    starts, ends, axes, steps = ([*(known(value) for value in node.inputs[1:]), None, None])[:4]
    if starts is None or ends is None or (len(node.inputs) > 3 and node.inputs[3] is not None and axes is None):
        return
    places = list(range(len(starts))) if axes is None else axes.tolist()
    if 0 not in places:
        return
    i = places.index(0)
    if starts[i] == 0 and ends[i] >= 1 and (steps is None or steps[i] == 1):
        node.replace_input_with(2, constant_for(node, "ends", np.where(np.arange(len(ends)) == i, LAST, ends)))


def _squeeze(node: ir.Node) -> None:
    """Without axes it drops every extent of 1, the batch among them, which :func:`require_free` then says."""
    x = node.inputs[0]
    if len(node.inputs) == 1 and x is not None and x.shape is not None:
        axes = [i for i, extent in enumerate(x.shape) if extent == 1]
        node.resize_inputs(2)
        node.replace_input_with(1, constant_for(node, "axes", np.array(axes, np.int64)))


def _resize(node: ir.Node) -> None:
    """Sizes of all axes but the batch."""
    sizes = known(node.inputs[3]) if len(node.inputs) > 3 else None
    rank = len(node.inputs[0].shape or ()) if node.inputs[0] is not None else 0
    if sizes is not None and len(sizes) == rank:
        node.attributes["axes"] = ir.AttrInt64s("axes", list(range(1, rank)))
        node.replace_input_with(3, constant_for(node, "sizes", sizes[1:]))
        if node.inputs[1] is not None:
            node.replace_input_with(1, None)


#: operator -> what frees its literals from the batch, in place.
FREED: dict[str, Callable[[ir.Node], None]] = {
    "Concat": _concat,
    "Flatten": _flatten,
    "Gather": _gather,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Squeeze": _squeeze,
}
