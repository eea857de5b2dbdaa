"""An .onnx file as the source of a network."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch

from lmonnx import reference
from lmonnx.errors import OptionError, SourceError
from lmonnx.exporters.ops.builder import extents
from lmonnx.exporters.sources.network import Array, Network, Reference
from lmonnx.exporters.sources.onnx_input import Given, with_image
from lmonnx.masking import MaskRules
from lmonnx.runtime.preprocessing import Preprocessing


def from_onnx(
    path: pathlib.Path,
    *,
    size: tuple[int, int] | None = None,
    preprocessing: Preprocessing | None = None,
    labels: tuple[str, ...] | None = None,
    image_input: str | None = None,
) -> Network:
    """A classifier in an ONNX file with one image input, float32 or float16, [N, C, H, W] or [N, H, W, C].

    The network takes and gives float32, whatever the file does.

    Args:
        path: the file.
        size: height and width in pixels, if the file leaves them open.
        preprocessing: how its images are made; the file does not say.
        labels: names of its classes.
        image_input: name of the input that takes the image, if there are several; the others must be initializers,
            or no output may need them.

    Raises:
        SourceError: if the file or its weights are missing or broken, it has no single image input, or lmonnx wrote it.
        OptionError: if ``size`` contradicts the file, or is missing; if there is no input ``image_input``.
    """
    given = with_image(path, _load(path), image_input)
    ir.external_data.load_to_model(given.model)  # the graph that is made of it keeps its weights elsewhere
    shape = extents(given.image)
    space = shape[1:3] if given.layout == "NHWC" else shape[2:4]
    wanted = size or (preprocessing.size if preprocessing else None)
    fixed = _size(path, space, wanted)
    chosen = {} if image_input is None else {"image_input": image_input}
    return Network(
        graph=given.model,
        size=fixed,
        layout=given.layout,
        reference=lambda rules: _reference(given, rules),
        plain=lambda array: _plain(path, given, array),
        front_end="onnx",
        preprocessing=preprocessing,
        labels=labels,
        origin={"kind": "onnx", "name": path.name, "sha256": sha256_of(path), **chosen},
        precision=given.precision,
    )


def sha256_of(path: pathlib.Path) -> str:
    """SHA-256 in hexadecimal of a file, or of it and the files beside it that hold its weights.

    Without such files it is that of the bytes. With them it is that of one line for each, the model first and the
    others by name: hash, two spaces, name, as sha256sum prints it; the model's name is left out.

    Raises:
        SourceError: if one cannot be read.
    """
    hashes = [(_digest(path), "")]
    try:
        model = ir.load(path)
    except Exception:  # not a model; whoever wants one will say so
        return hashes[0][0]
    hashes += [(_digest(path.parent / name), name) for name in sorted({str(t.location) for t in _external(model)})]
    if len(hashes) == 1:
        return hashes[0][0]
    lines = "".join(f"{digest}  {name}\n" for digest, name in hashes)
    return hashlib.sha256(lines.encode()).hexdigest()


def _digest(path: pathlib.Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def _external(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """The tensors of ``model`` that are kept in files beside it."""
    nodes = [
        *model.graph.all_nodes(),
        *(node for function in model.functions.values() for node in function.all_nodes()),
    ]
    tensors: list[object] = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    tensors += [attribute.value for node in nodes for attribute in node.attributes.values()]
    return (tensor for tensor in tensors if isinstance(tensor, ir.ExternalTensor))


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
    """What the file holds; weights beside it are there, and stay there."""
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    try:
        onnx.checker.check_model(str(path))
        model = ir.load(path)
    except Exception as error:  # protobuf, onnx and onnx_ir each have their own
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise SourceError(f"{path} is not a valid ONNX model: {line}") from error
    for tensor in _external(model):
        try:
            tensor.numpy()
        except Exception as error:  # the file is shorter than the model says
            raise SourceError(f"{tensor.path} does not hold {tensor.name!r} of {path}: {error}") from error
    if any(key.startswith("lmonnx.") for key in model.metadata_props):
        raise SourceError(f"{path} is a graph that lmonnx wrote, with a mask already; give what it was made from")
    return model


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


def _reference(given: Given, rules: MaskRules) -> Reference:
    """The file's nodes as they are; row by row where its batch is fixed at one."""
    program = program_of(given.model, given.layout, rules)

    def run(array: Array, mask: Array) -> tuple[Array, ...]:
        count = 1 if extents(given.image)[0] == 1 else len(array)
        rows = [_run(program, array[i : i + count], mask[i : i + count]) for i in range(0, len(array), count)]
        return tuple(np.concatenate(output) for output in zip(*rows, strict=True))

    return run


def _run(program: reference.NodeProgram, image: Array, mask: Array) -> tuple[Array, ...]:
    with torch.no_grad():
        outputs = program(torch.from_numpy(image), torch.from_numpy(mask))
    return tuple(np.asarray(output.cpu().numpy()) for output in outputs)


def _plain(path: pathlib.Path, given: Given, array: Array) -> tuple[Array, ...]:
    """The file itself, row by row, because its batch may be fixed at one; float32 in and out."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    # As ONNX defines it: the integer kernels that quantised nodes are fused to round otherwise, and some saturate.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if given.layout == "NHWC":
        array = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    array = array.astype(given.kind.numpy())
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        wanted = {value.name for value in session.get_inputs()}
        feeds = {str(value.name): _zeros(value) for value in given.unread if value.name in wanted}
        rows = [session.run(None, {**feeds, str(given.image.name): array[i : i + 1]}) for i in range(len(array))]
    except Exception as error:  # onnxruntime raises a class of its own for each status code
        raise SourceError(f"onnxruntime cannot run {path} itself: {str(error).splitlines()[0]}") from error
    outputs = [np.concatenate(output) for output in zip(*rows, strict=True)]
    return tuple(output.astype(np.float32) if output.dtype == np.float16 else output for output in outputs)


def _zeros(value: ir.Value) -> Array:
    """Something for an input that no output needs."""
    assert value.dtype is not None
    return np.zeros([extent or 1 for extent in extents(value)], value.dtype.numpy())
