"""An .onnx file as the source of a network."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch

from lmonnx import reference
from lmonnx.errors import OptionError, SourceError
from lmonnx.exporters.normalise import inlined
from lmonnx.exporters.ops.builder import extents
from lmonnx.exporters.sources.network import Array, Network, Reference
from lmonnx.masking import MaskRules
from lmonnx.runtime.preprocessing import Preprocessing

#: Numbers of channels that an image has; the layout of an input is told by where one of them stands.
CHANNELS = (1, 3, 4)


def from_onnx(
    path: pathlib.Path,
    *,
    size: tuple[int, int] | None = None,
    preprocessing: Preprocessing | None = None,
    labels: tuple[str, ...] | None = None,
) -> Network:
    """A classifier in an ONNX file with one image input, float32 [N, C, H, W] or [N, H, W, C].

    Args:
        path: the file.
        size: height and width in pixels, if the file leaves them open.
        preprocessing: how its images are made; the file does not say.
        labels: names of its classes.

    Raises:
        SourceError: if the file is missing, broken, or has no single image input.
        OptionError: if ``size`` contradicts the file, or is missing.
    """
    model = inlined(_load(path))
    image = _image_input(path, model)
    shape = extents(image)
    layout = "NHWC" if shape[3] in CHANNELS and shape[1] not in CHANNELS else "NCHW"
    space = shape[1:3] if layout == "NHWC" else shape[2:4]
    wanted = size or (preprocessing.size if preprocessing else None)
    fixed = _size(path, space, wanted)
    return Network(
        graph=model,
        size=fixed,
        layout=layout,
        reference=lambda rules: _reference(model, image, layout, rules),
        plain=lambda array: _plain(path, str(image.name), layout, array),
        front_end="onnx",
        preprocessing=preprocessing,
        labels=labels,
        origin={"kind": "onnx", "name": path.name, "sha256": sha256_of(path)},
    )


def sha256_of(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal; weights in a file beside it are not part of it.

    Raises:
        SourceError: if it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def nodes_of(model: ir.Model) -> list[reference.Node]:
    """The graph of ``model`` as the reference reads it: names, operators, attributes as Python values."""
    return [
        reference.Node(
            name=str(node.name),
            operator=node.op_type,
            inputs=tuple("" if value is None else str(value.name) for value in node.inputs),
            outputs=tuple(str(value.name) for value in node.outputs),
            attributes={name: _python(attribute.value) for name, attribute in node.attributes.items()},
            domain=node.domain,
        )
        for node in model.graph
    ]


def arrays_of(model: ir.Model) -> dict[str, Array]:
    """The initializers of ``model`` by name."""
    return {
        name: np.array(value.const_value.numpy())
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def program_of(model: ir.Model, layout: str, rules: MaskRules) -> reference.NodeProgram:
    """The ONNX front end of the reference for the graph of ``model``, which has one input."""
    (image,) = model.graph.inputs
    return reference.mask_aware_nodes(
        nodes_of(model),
        arrays_of(model),
        image=str(image.name),
        outputs=[str(value.name) for value in model.graph.outputs],
        opset=model.opset_imports[""],
        rules=rules,
        layout=layout,
    )


def _load(path: pathlib.Path) -> ir.Model:
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    try:
        onnx.checker.check_model(str(path))
        model = ir.load(path)
        ir.external_data.load_to_model(model)
        return model
    except Exception as error:  # protobuf, onnx and onnx_ir each have their own
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise SourceError(f"{path} is not a valid ONNX model: {line}") from error


def _image_input(path: pathlib.Path, model: ir.Model) -> ir.Value:
    inputs = model.graph.inputs
    if len(inputs) != 1:
        names = ", ".join(str(value.name) for value in inputs) or "none"
        raise SourceError(f"{path} has {len(inputs)} inputs ({names}); a network with one image input is needed")
    (image,) = inputs
    if image.shape is None or len(image.shape) != 4 or not {extents(image)[1], extents(image)[3]} & set(CHANNELS):
        raise SourceError(
            f"the input {image.name!r} of {path} is not an image: the axes [N, C, H, W] or [N, H, W, C] are needed, "
            "with 1, 3 or 4 channels"
        )
    if image.dtype != ir.DataType.FLOAT:
        raise SourceError(f"the input {image.name!r} of {path} is {image.dtype}; write the model in float32")
    return image


def _size(path: pathlib.Path, space: tuple[int | None, ...], wanted: tuple[int, int] | None) -> tuple[int, int]:
    known = tuple(have if have is not None else want for have, want in zip(space, wanted or (None, None), strict=True))
    if None in known:
        raise OptionError(f"{path} leaves the size of the image open; give it, such as --size 224")
    if wanted is not None and known != wanted:
        raise OptionError(
            f"{path} is made for {known[0]}×{known[1]} pixels and {wanted[0]}×{wanted[1]} are asked for; "
            "leave the size out, or write the file again"
        )
    return known  # type: ignore[return-value]


def _python(value: Any) -> Any:
    if isinstance(value, ir.TensorProtocol):
        return value.numpy()
    return list(value) if isinstance(value, tuple) else value


def _reference(model: ir.Model, image: ir.Value, layout: str, rules: MaskRules) -> Reference:
    """The file's nodes as they are; row by row where its batch is fixed at one."""
    program = program_of(model, layout, rules)

    def run(array: Array, mask: Array) -> tuple[Array, ...]:
        count = 1 if extents(image)[0] == 1 else len(array)
        rows = [_run(program, array[i : i + count], mask[i : i + count]) for i in range(0, len(array), count)]
        return tuple(np.concatenate(output) for output in zip(*rows, strict=True))

    return run


def _run(program: reference.NodeProgram, image: Array, mask: Array) -> tuple[Array, ...]:
    with torch.no_grad():
        outputs = program(torch.from_numpy(image), torch.from_numpy(mask))
    return tuple(np.asarray(output.cpu().numpy()) for output in outputs)


def _plain(path: pathlib.Path, image: str, layout: str, array: Array) -> tuple[Array, ...]:
    """Row by row, because the file's batch may be fixed at one."""
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for each status code
        raise SourceError(f"onnxruntime cannot run {path} itself: {str(error).splitlines()[0]}") from error
    if layout == "NHWC":
        array = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    rows = [session.run(None, {image: array[i : i + 1]}) for i in range(len(array))]
    return tuple(np.concatenate(output) for output in zip(*rows, strict=True))
