"""What every step of normalisation does to a graph of onnx_ir."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes


def constant_for(node: ir.Node, name: str, array: np.ndarray) -> ir.Value:
    """An initializer ``<node>/<name>`` in the graph that ``node`` stands in; names of nodes are unique."""
    assert isinstance(node.graph, ir.Graph)
    tensor = ir.tensor(array)
    value = ir.Value(
        name=f"{node.name}/{name}", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape)
    )
    node.graph.register_initializer(value)
    return value


def known(value: ir.Value | None) -> np.ndarray | None:
    """The array behind ``value``; None if there is none before the graph runs."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def take_over(value: ir.Value, node: ir.Node) -> None:
    """Lets the output of ``node``, which reads ``value`` first, stand wherever ``value`` did, under its name."""
    output = node.outputs[0]
    value.replace_all_uses_with(output, replace_graph_outputs=True)
    node.replace_input_with(0, value)
    value.name, output.name = f"{value.name}/inner", value.name


def infer_shapes(model: ir.Model) -> None:
    """Infers the shapes of ``model`` in place; where that fails they stay unknown, and what needs one says so."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    finally:
        logger.setLevel(level)
