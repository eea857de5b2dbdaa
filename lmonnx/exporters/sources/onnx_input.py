"""One float32 image input, whatever inputs an ONNX file has."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

import onnx_ir as ir
import onnx_ir.passes.common as passes

from lmonnx.errors import OptionError, SourceError
from lmonnx.exporters.graphs import infer_shapes, to_float32
from lmonnx.exporters.indexing import recognise_gathers
from lmonnx.exporters.normalise import inlined
from lmonnx.exporters.ops.builder import extents
from lmonnx.exporters.sources.network import CHANNELS
from lmonnx.runtime.form import Precision

#: What the inputs of floating images become, and what to do about others.
FLOATING = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
REMEDIES = {
    ir.DataType.UINT8: "cut what turns pixels into float32 off its beginning, and give that as the preprocessing",
}


@dataclass(frozen=True)
class Given:
    """An ONNX model with one float32 image input.

    Attributes:
        model: functions inlined, no Constant nodes, float32 image and outputs.
        image: the image input.
        kind: dtype of the file's own image input.
        unread: inputs of the file that no output needs, which a session wants to be fed all the same.
        precision: what the model computes in.
    """

    model: ir.Model
    image: ir.Value
    kind: ir.DataType
    unread: tuple[ir.Value, ...]
    precision: Precision

    @property
    def layout(self) -> str:
        """``"NCHW"`` or ``"NHWC"``, of the image: where a number of channels stands."""
        shape = extents(self.image)
        return "NHWC" if shape[3] in CHANNELS and shape[1] not in CHANNELS else "NCHW"


def with_image(path: pathlib.Path, source: ir.Model, name: str | None) -> Given:
    """The model of the file ``path`` as a network of one image.

    Args:
        path: for messages.
        source: what the file holds; it stays as it is.
        name: of the input that takes the image; None if there is but one.

    Raises:
        SourceError: if no single input is an image of float32 or float16.
        OptionError: if there is no input of that name.
    """
    model = source.clone()
    if name is not None:
        _require_name(path, model, name)
        model.graph.initializers.pop(name, None)
    model = inlined(model)
    passes.RemoveUnusedNodesPass()(model)
    image, unread = _chosen(path, model, name)
    _settle_channels(image)
    _require_image(path, image)
    assert image.dtype is not None
    kind = image.dtype
    if kind == ir.DataType.FLOAT16:
        image = _from_float32(model.graph, image)
    infer_shapes(model)
    recognise_gathers(model.graph)
    precision = _precision(model.graph, image)
    to_float32(model.graph)
    return Given(model, image, kind, unread, precision)


def _require_name(path: pathlib.Path, model: ir.Model, name: str) -> None:
    names = [str(value.name) for value in model.graph.inputs]
    if name not in names:
        raise OptionError(f"{path} has no input {name!r}; its inputs are {', '.join(names)}")


def _chosen(path: pathlib.Path, model: ir.Model, name: str | None) -> tuple[ir.Value, tuple[ir.Value, ...]]:
    """The image, which alone stays an input of ``model``, and the inputs that nothing reads."""
    inputs = list(model.graph.inputs)
    if name is None and len(inputs) != 1:
        names = ", ".join(str(value.name) for value in inputs) or "none without a value"
        raise SourceError(
            f"{path} has {len(inputs)} inputs ({names}); name the one that takes the image with --image-input, "
            "the others have to be initializers, or of no effect"
        )
    image = next(value for value in inputs if name in (None, value.name))
    others = [value for value in inputs if value is not image]
    read = [str(value.name) for value in others if value.uses() or value.is_graph_output()]
    if read:
        raise SourceError(
            f"{path} reads the input {', '.join(map(repr, read))} beside the image {image.name!r}; "
            "make it an initializer, with the value that it has for every image"
        )
    for value in others:
        model.graph.inputs.remove(value)
    return image, tuple(others)


def _settle_channels(image: ir.Value) -> None:
    """Channels that the file leaves open are those that the convolution of its image reads."""
    if image.shape is None or len(image.shape) != 4 or {extents(image)[1], extents(image)[3]} & set(CHANNELS):
        return
    for use in image.uses():
        weight = use.node.inputs[1] if use.node.op_type == "Conv" else None
        if weight is not None and weight.shape is not None and extents(image)[1] is None:
            group = use.node.attributes.get_int("group", 1)
            image.shape = ir.Shape([image.shape[0], weight.shape[1] * group, *image.shape[2:]])
            return


def _require_image(path: pathlib.Path, image: ir.Value) -> None:
    if not isinstance(image.type, ir.TensorType):
        kind = "nothing that is known" if image.type is None else type(image.type).__name__.removesuffix("Type").lower()
        raise SourceError(f"the input {image.name!r} of {path} is of type {kind}; an image is a tensor")
    if image.shape is None or len(image.shape) != 4 or not {extents(image)[1], extents(image)[3]} & set(CHANNELS):
        raise SourceError(
            f"the input {image.name!r} of {path} is not an image: the axes [N, C, H, W] or [N, H, W, C] are needed, "
            f"with {CHANNELS[0]} to {CHANNELS[-1]} channels that the file says"
        )
    if image.dtype not in FLOATING:
        remedy = REMEDIES.get(image.type.dtype, "write the model in float32")
        raise SourceError(f"the input {image.name!r} of {path} is {image.dtype}; {remedy}")


def _from_float32(graph: ir.Graph, image: ir.Value) -> ir.Value:
    """An image of float32 under the same name, and a Cast to what the file takes."""
    given = ir.Value(name=image.name, type=ir.TensorType(ir.DataType.FLOAT), shape=image.shape)
    cast = ir.node("Cast", [given], {"to": image.dtype}, name=f"{image.name}/cast")
    cast.outputs[0].name = f"{image.name}/cast"
    cast.outputs[0].type, cast.outputs[0].shape = image.type, image.shape
    graph.inputs.remove(image)
    graph.inputs.append(given)
    image.replace_all_uses_with(cast.outputs[0], replace_graph_outputs=True)
    first = next(iter(graph), None)
    graph.append(cast) if first is None else graph.insert_before(first, cast)
    return given


def _precision(graph: ir.Graph, image: ir.Value) -> Precision:
    """What the nodes that depend on the image compute in, at the coarsest."""
    depending = {image}
    behind = []
    for node in graph:
        if any(value in depending for value in node.inputs if value is not None):
            depending.update(node.outputs)
            behind.append(node)
    if any(node.op_type == "QuantizeLinear" for node in behind):
        return "int8"
    if any(value.dtype == ir.DataType.FLOAT16 for value in depending):
        return "float16"
    return "float32"
