"""What every step of normalisation does to a graph of onnx_ir."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from lmonnx.exporters.lowering.registry import attributes, constant_for, known
from lmonnx.exporters.ops.masks import output_extents
from lmonnx.masking import Window

FLOATING = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def weights_with(model: ir.Model, what: np.ufunc) -> list[str]:
    """Names of the floating initializers of which ``what``, such as ``np.isnan``, holds anywhere."""
    tensors = ((name, value.const_value) for name, value in model.graph.initializers.items())
    return [name for name, x in tensors if x is not None and x.dtype in FLOATING and what(x.numpy()).any()]


def take_over(value: ir.Value, node: ir.Node) -> None:
    """Lets the output of ``node``, which reads ``value`` first, stand wherever ``value`` did, under its name."""
    output = node.outputs[0]
    value.replace_all_uses_with(output, replace_graph_outputs=True)
    node.replace_input_with(0, value)
    value.name, output.name = f"{value.name}/inner", value.name


def to_float32(graph: ir.Graph) -> None:
    """Outputs of float16 as float32, under the same names."""
    for value in [value for value in graph.outputs if value.dtype == ir.DataType.FLOAT16]:
        cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, name=f"{value.name}/cast")
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), value.shape
        readers = [(use.node, use.idx) for use in value.uses() if use.node is not cast]
        graph.append(cast)
        take_over(value, cast)
        for node, place in readers:
            node.replace_input_with(place, value)


#: Operators that onnx has no inference for -> one whose result has the shape of its first input, like theirs.
STAND_INS = {"GroupNormalization": "InstanceNormalization", "MeanVarianceNormalization": "Identity"}


def infer_shapes(model: ir.Model) -> None:
    """Infers the shapes of ``model`` in place; where that fails they stay unknown, and what needs one says so.

    A ceil_mode that adds no window to its pool goes: below opset 22 onnx's inference counts one that would begin in
    the padding, which no runtime computes.
    """
    _infer(model)
    while any(_drop_ceil_mode(node) for node in model.graph):
        for value in (value for node in model.graph for value in node.outputs):
            value.shape = None
        _infer(model)


def _drop_ceil_mode(node: ir.Node) -> bool:
    """Whether ``node`` is a pool that lost its ceil_mode, because it has the windows that it has without."""
    if node.op_type not in ("AveragePool", "MaxPool"):
        return False
    settings, space = attributes(node), _space(node)
    if not settings.get("ceil_mode", 0) or settings.get("auto_pad", "NOTSET") != "NOTSET" or not space:
        return False
    ones, pads = (1,) * len(space), settings.get("pads", (0,) * 2 * len(space))
    window = Window(
        kernel=settings["kernel_shape"],
        strides=settings.get("strides", ones),
        dilations=settings.get("dilations", ones),
        pads=tuple(zip(pads[: len(space)], pads[len(space) :], strict=True)),
    )
    if output_extents(window, space) != output_extents(replace(window, ceil_mode=True), space):
        return False
    node.attributes["ceil_mode"] = ir.AttrInt64("ceil_mode", 0)
    return True


def _space(node: ir.Node) -> list[int]:
    """The extents of space that ``node`` reads; none if they are not all known."""
    x = node.inputs[0] if node.inputs else None
    space = [] if x is None or x.shape is None else list(x.shape)[2:]
    numbers = [extent for extent in space if isinstance(extent, int)]
    return numbers if len(numbers) == len(space) else []


def _infer(model: ir.Model) -> None:
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    disguised = [(node, node.op_type) for node in model.graph.all_nodes() if node.op_type in STAND_INS]
    for node, operator in disguised:
        node.op_type = STAND_INS[operator]
    try:
        passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    finally:
        for node, operator in disguised:
            node.op_type = operator
        logger.setLevel(level)


def settle_extents(graph: ir.Graph) -> bool:
    """Replaces by constants the extents that are taken out of a Shape and known already; whether there are any."""
    taken = [(node, array) for node in graph if (array := _taken(node)) is not None and (array >= 0).all()]
    for node, array in taken:
        node.outputs[0].replace_all_uses_with(constant_for(node, "extents", array))
        graph.remove(node, safe=True)
    return bool(taken)


def _taken(node: ir.Node) -> np.ndarray | None:
    """What a Gather or Slice takes out of a Shape, −1 for what is not known; None if it is not such a node."""
    shape = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if node.op_type not in ("Gather", "Slice") or shape is None or shape.op_type != "Shape":
        return None
    x, places = shape.inputs[0], [known(value) for value in node.inputs[1:]]
    arrays = [place for place in places if place is not None]
    if x is None or x.shape is None or len(arrays) < len(places) or node.outputs[0].is_graph_output():
        return None
    part = slice(*(shape.attributes[name].value if name in shape.attributes else None for name in ("start", "end")))
    extents = np.array([extent if isinstance(extent, int) else -1 for extent in x.shape], np.int64)[part]
    if node.op_type == "Slice":
        starts, ends, *_ = arrays
        step = int(arrays[3][0]) if len(arrays) > 3 else 1
        return extents[int(starts[0]) : int(ends[0]) : step]
    return np.asarray(extents[arrays[0]]) if (np.abs(arrays[0]) < len(extents)).all() else None


def settle_targets(graph: ir.Graph) -> bool:
    """Replaces by constants the targets of Reshapes that are the batch before and numbers; whether there are any.

    The batch is then 0, which keeps what is there, and what a −1 stands for can be inferred.
    """
    settled = [(node, array) for node in graph if (array := _target(graph, node)) is not None]
    for node, array in settled:
        node.replace_input_with(1, constant_for(node, "target", array))
    return bool(settled)


def _target(graph: ir.Graph, node: ir.Node) -> np.ndarray | None:
    """[0, …] if ``node`` is a Reshape to the batch, which what it reads has before too, and numbers; None if not."""
    if node.op_type != "Reshape" or node.domain or attributes(node).get("allowzero", 0):
        return None
    x, shape = node.inputs[0], node.inputs[1].producer() if node.inputs[1] is not None else None
    if x is None or shape is None or shape.op_type != "Concat" or not shape.inputs:
        return None
    first, *parts = shape.inputs
    rest = [part for part in map(known, parts) if part is not None]
    whole = _whole(first)
    if (
        len(rest) < len(parts)
        or whole is None
        or not (x is whole or (_has_batch(graph, x) and _has_batch(graph, whole)))
    ):
        return None
    return np.concatenate([[0], *rest]).astype(np.int64)


def _has_batch(graph: ir.Graph, value: ir.Value) -> bool:
    """Whether the first extent is known to be the image's; other names in a file may be wrong."""
    batch = graph.inputs[0].shape[0] if graph.inputs and graph.inputs[0].shape else None
    named = isinstance(batch, ir.SymbolicDim) and batch.value is not None
    return named and bool(value.shape) and value.shape[0] == batch  # type: ignore[index]


def _whole(value: ir.Value | None) -> ir.Value | None:
    """The value whose first extent ``value`` is, of shape [1]; None if it is anything else."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Unsqueeze" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None or node.op_type not in ("Gather", "Slice") or node.inputs[0] is None:
        return None
    shape, places = node.inputs[0].producer(), [known(place) for place in node.inputs[1:]]
    if shape is None or shape.op_type != "Shape" or shape.attributes:
        return None
    taken = [None if place is None else place.ravel().tolist() for place in places[:2]]
    return shape.inputs[0] if taken == ([[0]] if node.op_type == "Gather" else [[0], [1]]) else None
