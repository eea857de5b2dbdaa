"""An ONNX file as onnxruntime is given it to say what the original network computes."""

from __future__ import annotations

import pathlib

import onnx
import onnx_ir as ir
from onnx import helper

from lmonnx.exporters.sources.onnx_load import external


def averaged(path: pathlib.Path) -> bytes | pathlib.Path:
    """The file with means in the place of its global average pools; the file itself if it has none of a known rank.

    onnxruntime 1.31 adds up a GlobalAveragePool number by number in float32, so that a map of 224 × 224 comes out as
    wrong as 2e-4; its ReduceMean adds in parts. A file with weights in other files is left as it is.
    """
    model = onnx.load(path, load_external_data=False)
    pools = [node for node in model.graph.node if node.op_type == "GlobalAveragePool" and not node.domain]
    if not pools or any(True for _ in external(ir.load(path))):
        return path
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = {value.name: value.type.tensor_type.shape for value in (*graph.input, *graph.value_info, *graph.output)}
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    for node in pools:
        axes = list(range(2, len(values[node.input[0]].dim))) if node.input[0] in values else []
        if not axes:
            continue
        node.op_type = "ReduceMean"
        if opset < 18:
            node.attribute.append(helper.make_attribute("axes", axes))
        else:
            name = f"{node.output[0]}/axes"
            model.graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.INT64, [len(axes)], axes))
            node.input.append(name)
    content: bytes = model.SerializeToString()
    return content
