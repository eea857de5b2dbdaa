"""What an ONNX file holds, read and checked: what is wrong with it is said before anything is made of it."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from lmonnx.errors import SourceError
from lmonnx.exporters.graphs import infer_shapes

#: What onnx's checker says of what is put right here.
_REPAIRED = re.compile("must be topologically sorted|Field '(type|shape)' of '(value_info|type)' is required")
#: What onnx says of a file -> what to do about it.
REMEDIES = {
    "is higher than the checker's": "write it again with a lower ir_version, or upgrade the package onnx",
    "ir_version set properly|Unable to parse": "it is damaged, or no ONNX file; fetch or write it again",
    "Field '(type|shape)' of": "write it again with the types and shapes of its inputs and outputs",
    "should be stored in": "put that file there, or write the model again",
    "should be file inside|should be a relative path": "write it again with its weights in a file beside it",
}
OTHERWISE = "write it again with a current exporter"


def load(path: pathlib.Path) -> ir.Model:
    """The model in a file, its nodes in topological order; weights beside it are there, and stay there.

    Raises:
        SourceError: if there is no such file, it or its weights are broken, lmonnx wrote it, or an output of it is no
            tensor.
    """
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    try:
        model = _checked(path)
    except SourceError:
        raise
    except Exception as error:  # protobuf, onnx and onnx_ir each have their own
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        remedy = next((remedy for said, remedy in REMEDIES.items() if re.search(said, line)), OTHERWISE)
        raise SourceError(f"{path} is not a valid ONNX model: {line.rstrip('.')}; {remedy}") from error
    for tensor in external(model):
        try:
            tensor.numpy()
        except Exception as error:  # the file is shorter than the model says
            raise SourceError(
                f"{tensor.path} does not hold {tensor.name!r} of {path}: {error}; fetch or write both files again"
            ) from error
    if any(key.startswith("lmonnx.") for key in model.metadata_props):
        raise SourceError(f"{path} is a graph that lmonnx wrote, with a mask already; give what it was made from")
    for value in model.graph.outputs:
        if not isinstance(value.type, ir.TensorType):
            raise SourceError(
                f"the output {value.name!r} of {path} is a {_kind(value)}, not a tensor; write the model without it"
            )
    _open_extents(model.graph)
    return model


def _open_extents(graph: ir.Graph) -> None:
    """Extents of inputs and outputs of −1, as Paddle's converter writes them, are not known."""
    for value in (*graph.inputs, *graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([None if isinstance(n, int) and n < 0 else n for n in value.shape])


def external(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """The tensors of ``model`` that are kept in files beside it."""
    nodes = [
        *model.graph.all_nodes(),
        *(node for function in model.functions.values() for node in function.all_nodes()),
    ]
    tensors: list[object] = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    tensors += [attribute.value for node in nodes for attribute in node.attributes.values()]
    return (tensor for tensor in tensors if isinstance(tensor, ir.ExternalTensor))


def _checked(path: pathlib.Path) -> ir.Model:
    """The model, if onnx's checker has nothing against it but what is put right.

    That is the order of its nodes, which onnxruntime reads in any, and its converter to float16 leaves some behind
    those that read them; and an output without a shape, if that follows from the nodes.
    """
    try:
        onnx.checker.check_model(str(path))
        return ir.load(path)
    except onnx.checker.ValidationError as error:
        if not _REPAIRED.search(str(error)):
            raise
    _require_makers(path)
    model = ir.load(path)
    try:
        passes.TopologicalSortPass()(model)
    except ValueError as error:
        raise SourceError(f"{path} has nodes that wait for each other; {OTHERWISE}") from error
    if any(value.shape is None for value in model.graph.outputs):
        infer_shapes(model)
    onnx.checker.check_model(_without_external(ir.to_proto(model)))
    return model


def _require_makers(path: pathlib.Path) -> None:
    """Every value that a node reads is made somewhere."""
    graph = onnx.load(path, load_external_data=False).graph
    made = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    made |= {tensor.values.name for tensor in graph.sparse_initializer}
    made |= {name for node in graph.node for name in node.output}
    for node in graph.node:
        if lost := [name for name in node.input if name not in made]:
            raise SourceError(
                f"{node.op_type} {node.name or node.output[0]!r} of {path} reads {lost[0]!r}, which is neither an "
                f"input nor an initializer nor made by another node; {OTHERWISE}"
            )


def _without_external(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the weights beside the file, which onnx's checker would look for in the current folder."""
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.ClearField("raw_data")
            tensor.dims[:] = [0]
    return model


def _kind(value: ir.Value) -> str:
    """``"sequence"``."""
    return type(value.type).__name__.removesuffix("Type").lower()
