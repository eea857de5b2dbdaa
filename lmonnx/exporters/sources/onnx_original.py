"""An ONNX file as onnxruntime is given it to say what the original network computes."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping

import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from lmonnx.exporters.sources.onnx_load import external


def averaged(path: pathlib.Path) -> bytes | pathlib.Path:
    """The file with its global averages taken axis by axis; the file itself if it has none.

    onnxruntime 1.31 adds up a GlobalAveragePool number by number in float32, so that a map of 224 × 224 comes out as
    wrong as 2e-4, and a ReduceMean over a map in a few running sums, 3e-6 at 112 × 112. A file with weights in other
    files is left as it is.
    """
    model = onnx.load(path, load_external_data=False)
    if not any(_is_average(node) for node in model.graph.node) or any(True for _ in external(ir.load(path))):
        return path
    graph = onnx.shape_inference.infer_shapes(model).graph
    typed = (*graph.input, *graph.value_info, *graph.output)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in typed if value.type.tensor_type.elem_type}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    }
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    nodes = [part for node in model.graph.node for part in _parts(node, ranks, constants, opset)]
    if len(nodes) == len(model.graph.node):
        return path
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    content: bytes = model.SerializeToString()
    return content


def _is_average(node: onnx.NodeProto) -> bool:
    return node.op_type in ("GlobalAveragePool", "ReduceMean") and not node.domain


def _parts(
    node: onnx.NodeProto, ranks: Mapping[str, int], constants: Mapping[str, onnx.TensorProto], opset: int
) -> Iterator[onnx.NodeProto]:
    """``node``, or, if it is an average over several axes that are known, one for each of them, the last one first."""
    rank = ranks.get(node.input[0], 0) if _is_average(node) else 0
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    axes: list[int] = []
    if rank and node.op_type == "GlobalAveragePool":
        axes = list(range(2, rank))
    elif rank:
        given = constants.get(node.input[1]) if len(node.input) > 1 else None
        listed = settings.get("axes", []) if given is None else numpy_helper.to_array(given).tolist()
        axes = sorted(axis % rank for axis in listed)
    if len(axes) < 2:
        yield node
        return
    value = node.input[0]
    for axis in reversed(axes):
        result = node.output[0] if axis == axes[0] else f"{node.output[0]}/mean over {axis}"
        keepdims = settings.get("keepdims", 1)
        if opset < 18:
            yield helper.make_node("ReduceMean", [value], [result], axes=[axis], keepdims=keepdims)
        else:
            where = f"{result}/axis"
            yield helper.make_node("Constant", [], [where], value_ints=[axis])
            yield helper.make_node("ReduceMean", [value, where], [result], keepdims=keepdims)
        value = result
