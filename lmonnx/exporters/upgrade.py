"""Operators of older opsets in the form that opset 18 has: one table, rewritten in place.

onnx's own converter stands aside: it keeps the numbers of a Hardmax below opset 13 and of a Resize below 11 and lets
their meaning change, without a word, and it cannot hold more than 2 GB. An operator that is not in ``CHANGES`` means
since opset 9 what it means in 18; ``tests/exporters/test_onnx_opsets.py`` holds the table against onnx's schemas.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from lmonnx.errors import SourceError
from lmonnx.exporters.graphs import take_over
from lmonnx.exporters.lowering.registry import attributes, constant_for, known

#: The opset of a normalised graph whose own is older.
OPSET = 18
#: The opsets that can be read: the reference knows them, and onnxruntime 1.31 runs them.
OLDEST, NEWEST = 9, 26


def upgrade(model: ir.Model) -> None:
    """Brings ``model``, whose shapes are inferred, to opset 18, or leaves it at its own if that is newer.

    Raises:
        SourceError: if its opset is not one of 9 to 26, or an operator of it has no equal in opset 18.
    """
    have = opset_of(model)
    for node in list(model.graph.all_nodes()):
        if node.domain:
            continue
        for since, rewrite in CHANGES.get(node.op_type, ()) if have < OPSET else ():
            if have < since:
                rewrite(node)
    model.opset_imports[""] = max(have, OPSET)
    for node in model.graph.all_nodes():
        if not node.domain:
            node.version = max(have, OPSET)


def opset_of(model: ir.Model) -> int:
    """The opset of the default domain.

    Raises:
        SourceError: if it is not one of 9 to 26.
    """
    have = model.opset_imports.get("")
    if have is None:
        raise SourceError("the model imports no opset of the default domain; write it again with a current exporter")
    if not OLDEST <= have <= NEWEST:
        raise SourceError(f"opset {have} is not read; write the model again at an opset from {OLDEST} to {NEWEST}")
    return have


Rewrite = Callable[[ir.Node], None]


def _inputs(*names: str) -> Rewrite:
    """Attributes that became the inputs behind the first one, in this order."""

    def rewrite(node: ir.Node) -> None:
        values: list[ir.Value | None] = []
        for name in names:
            attribute = node.attributes.pop(name, None)
            values.append(None if attribute is None else constant_for(node, name, _array(node, attribute)))
        while values and values[-1] is None:
            values.pop()
        node.resize_inputs(1 + len(values))
        for i, value in enumerate(values, start=1):
            node.replace_input_with(i, value)

    return rewrite


def _array(node: ir.Node, attribute: ir.Attr) -> np.ndarray:
    """A number in the dtype of the node's data, or integers as int64 of rank 1."""
    if attribute.type == ir.AttributeType.FLOAT:
        dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
        return np.array(attribute.value, (dtype or ir.DataType.FLOAT).numpy())
    return np.atleast_1d(np.array(attribute.value, np.int64))


def _without(*names: str) -> Rewrite:
    """Attributes that say nothing in evaluation mode."""

    def rewrite(node: ir.Node) -> None:
        for name in names:
            node.attributes.pop(name, None)

    return rewrite


def _setting(name: str, value: str) -> Rewrite:
    """An attribute that was not there yet, and whose default is another than what the operator did without it."""

    def rewrite(node: ir.Node) -> None:
        node.attributes[name] = ir.AttrString(name, value)

    return rewrite


def _named(operator: str) -> Rewrite:
    def rewrite(node: ir.Node) -> None:
        node.op_type = operator

    return rewrite


def _evaluating(node: ir.Node) -> None:
    """A BatchNormalization trained where it gave more than one output, before it had an attribute for that."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        node.attributes["training_mode"] = ir.AttrInt64("training_mode", 1)
    else:
        node.resize_outputs(1)


def _one_axis(node: ir.Node) -> None:
    """Softmax over ``axis`` and all axes behind it, which since opset 13 is over one axis alone."""
    x = node.inputs[0]
    assert x is not None
    axis = attributes(node).get("axis", 1)
    behind = None if x.shape is None else x.shape[axis:][1:]
    node.attributes["axis"] = ir.AttrInt64("axis", axis)
    if axis == -1 or (behind is not None and all(extent == 1 for extent in behind)):
        return
    node.attributes["axis"] = ir.AttrInt64("axis", -1)
    graph = node.graph
    assert graph is not None
    flat = ir.node("Flatten", [x], {"axis": axis}, name=f"{node.name}/flat")
    shape = ir.node("Shape", [x], name=f"{node.name}/shape")
    restored = ir.node("Reshape", [node.outputs[0], shape.outputs[0]], name=f"{node.name}/restored")
    node.replace_input_with(0, flat.outputs[0])
    restored.outputs[0].type, restored.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    node.outputs[0].shape = None
    take_over(node.outputs[0], restored)
    graph.insert_before(node, [flat])
    graph.insert_after(node, [shape, restored])


def _number_of_parts(node: ir.Node) -> None:
    """A Split in equal parts says since opset 18 how many they are."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _asymmetric(node: ir.Node) -> None:
    """Resize before it could be told where pixels are: a pixel's place is its index divided by the scale."""
    scales = node.inputs[1]
    array = known(scales)
    mode = attributes(node).get("mode", "nearest")
    if mode == "nearest" and array is not None and any(s < 1 and (1 / s) % 1 for s in array.tolist()):
        raise SourceError(
            f"{node.op_type} {node.name!r} shrinks by {array.tolist()}, which pixels it takes is not defined before "
            "opset 11; write the model again at opset 11 or later"
        )
    node.op_type = "Resize"
    node.resize_inputs(3)
    node.replace_input_with(2, scales)
    node.replace_input_with(1, None)
    for name, value in (("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", "floor"), ("mode", mode)):
        node.attributes[name] = ir.AttrString(name, value)


_AXES = _inputs("axes")
#: operator -> the opset from which it has another form, and what makes that of the older one.
CHANGES: dict[str, tuple[tuple[int, Rewrite], ...]] = {
    "BatchNormalization": ((14, _evaluating),),
    "Clip": ((11, _inputs("min", "max")),),
    "Dropout": ((12, _without("ratio")),),
    "Hardmax": ((13, _one_axis),),
    "LogSoftmax": ((13, _one_axis),),
    "Pad": ((11, _inputs("pads", "value")),),
    "ReduceL1": ((18, _AXES),),
    "ReduceL2": ((18, _AXES),),
    "ReduceLogSum": ((18, _AXES),),
    "ReduceLogSumExp": ((18, _AXES),),
    "ReduceMax": ((18, _AXES),),
    "ReduceMean": ((18, _AXES),),
    "ReduceMin": ((18, _AXES),),
    "ReduceProd": ((18, _AXES),),
    "ReduceSum": ((13, _AXES),),
    "ReduceSumSquare": ((18, _AXES),),
    "Resize": ((11, _asymmetric),),
    "RoiAlign": ((16, _setting("coordinate_transformation_mode", "output_half_pixel")),),
    "Scatter": ((11, _named("ScatterElements")),),
    "Slice": ((10, _inputs("starts", "ends", "axes")),),
    "Softmax": ((13, _one_axis),),
    "Split": ((13, _inputs("split")), (18, _number_of_parts)),
    "Squeeze": ((13, _AXES),),
    "TopK": ((10, _inputs("k")),),
    "Unsqueeze": ((13, _AXES),),
    "Upsample": ((10, _asymmetric),),
}
