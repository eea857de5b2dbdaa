"""An .onnx file as the source of a network."""

from __future__ import annotations

import hashlib
import pathlib
import re
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch

from lmonnx import reference
from lmonnx.errors import OptionError, SourceError
from lmonnx.exporters.normalise import fold
from lmonnx.exporters.ops.builder import extents
from lmonnx.exporters.sources.network import Array, Network, Reference
from lmonnx.exporters.sources.onnx_input import Given, with_image
from lmonnx.exporters.sources.onnx_load import external, load
from lmonnx.exporters.sources.onnx_original import averaged
from lmonnx.masking import MaskRules
from lmonnx.runtime.preprocessing import DEFAULT_SIZE, Preprocessing


def from_onnx(
    path: pathlib.Path,
    *,
    size: tuple[int, int] | None = None,
    dynamic: bool = False,
    preprocessing: Preprocessing | None = None,
    labels: tuple[str, ...] | None = None,
    image_input: str | None = None,
) -> Network:
    """A classifier in an ONNX file with one image input, float32 or float16, [N, C, H, W] or [N, H, W, C].

    The network takes and gives float32, whatever the file does.

    Args:
        path: the file.
        size: height and width in pixels, if the file leaves them open.
        dynamic: leave them open, too; ``size`` is then that of the proof and of photographs.
        preprocessing: how its images are made; the file does not say.
        labels: names of its classes.
        image_input: name of the input that takes the image, if there are several; the others must be initializers,
            or no output may need them.

    Raises:
        SourceError: if the file or its weights are missing or broken, it has no single image input, its outputs are no
            tensors, its nodes do not fit each other, or lmonnx wrote it.
        OptionError: if ``size`` contradicts the file, or is missing; if there is no input ``image_input``.
    """
    given = with_image(path, load(path), image_input)
    ir.external_data.load_to_model(given.model)  # the graph that is made of it keeps its weights elsewhere
    shape = extents(given.image)
    space = shape[1:3] if given.layout == "NHWC" else shape[2:4]
    wanted = size or (preprocessing.size if preprocessing else None)
    if dynamic:
        wanted = wanted or DEFAULT_SIZE
        _require_open(path, space)
    fixed = _size(path, space, wanted)
    _require_fitting(path, given, fixed, wanted if None in space else None)
    if not dynamic:  # else a branch may be that of this size alone
        _decide_branches(given, fixed)
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
        smallest=1 if dynamic else None,
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
    hashes += [(_digest(path.parent / name), name) for name in sorted({str(t.location) for t in external(model)})]
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


def _require_open(path: pathlib.Path, space: tuple[int | None, ...]) -> None:
    """The file leaves height and width open."""
    if any(side is not None for side in space):
        raise OptionError(
            f"{path} is made for images of {'×'.join(str(side or 'any') for side in space)} pixels; leave --size out, "
            "or write the file again with both sides open"
        )


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
    try:
        outputs = _answers(_session(path), given, array)
    except Exception as error:  # onnxruntime raises a class of its own for each status code
        raise SourceError(
            f"onnxruntime cannot run {path} itself: {str(error).splitlines()[0]}; write the model again, or leave the "
            "proof out: --no-verify"
        ) from error
    return tuple(output.astype(np.float32) if output.dtype == np.float16 else output for output in outputs)


def _session(path: pathlib.Path, *, as_written: bool = False) -> onnxruntime.InferenceSession:
    """A session of the file, on a CPU; ``as_written`` leaves every node as it is, under its name.

    Otherwise two faults of onnxruntime 1.31 are kept from it: that of :func:`averaged`; and a Pad of zeros before a
    MaxPool, as Keras has it, would lose its zeros when they are fused.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    # As ONNX defines it: the integer kernels that quantised nodes are fused to round otherwise, and some saturate.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model, fusion = path if as_written else averaged(path), ["Pad_Fusion"]
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=fusion)


def _answers(session: onnxruntime.InferenceSession, given: Given, array: Array, rows: int = 1) -> list[Array]:
    """The outputs for images [n, C, H, W], so many in a run."""
    if given.layout == "NHWC":
        array = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    array = array.astype(given.kind.numpy())
    wanted = {value.name for value in session.get_inputs()}
    feeds = {str(value.name): _zeros(value) for value in given.unread if value.name in wanted}
    starts = range(0, len(array), rows)
    runs = [session.run(None, {**feeds, str(given.image.name): array[i : i + rows]}) for i in starts]
    return [np.concatenate(output) for output in zip(*runs, strict=True)]


def _require_fitting(path: pathlib.Path, given: Given, size: tuple[int, int], asked: tuple[int, int] | None) -> None:
    """The nodes of the file fit each other: onnxruntime runs it on one image. If not on two, its batch is fixed at 1.

    What onnxruntime cannot load for other reasons, such as an operator that it does not have, is left to what follows.

    Args:
        path: the file.
        given: what it holds.
        size: height and width of the image in pixels.
        asked: the same, if the file leaves them open; otherwise None.
    """
    channels = extents(given.image)[3 if given.layout == "NHWC" else 1]
    try:
        session = _session(path, as_written=True)
    except Exception as error:  # onnxruntime raises a class of its own for each status code
        _refuse(path, error, _LOADING, asked)
        return
    try:
        _answers(session, given, np.zeros((1, channels or 1, *size), np.float32))
    except Exception as error:
        _refuse(path, error, _RUNNING, asked)
        return
    if extents(given.image)[0] is None and not _takes_two(session, given, (channels or 1, *size)):
        given.image.shape = ir.Shape([1, *(given.image.shape or ())[1:]])


def _takes_two(session: onnxruntime.InferenceSession, given: Given, shape: tuple[int, int, int]) -> bool:
    """Whether a file whose batch is free takes two images; exporters write the 1 of their example into shapes."""
    try:
        _answers(session, given, np.zeros((2, *shape), np.float32), rows=2)
    except Exception:
        return False
    return True


#: How onnxruntime names a node that does not fit, when it loads a file and when it runs it.
_LOADING = re.compile(r"Node ?\((?P<name>.*?)\) Op \((?P<operator>\w+)\) (?P<why>.*)|Type Error: (?P<kinds>.*)")
_RUNNING = re.compile(r"running (?P<operator>\w+) node. Name:'(?P<name>.*?)' Status Message: (?P<why>.*)", re.DOTALL)


def _refuse(path: pathlib.Path, error: Exception, pattern: re.Pattern[str], asked: tuple[int, int] | None) -> None:
    """Raises an error if onnxruntime's names a node."""
    found = pattern.search(str(error))
    if found is None:
        return
    parts = {"kinds": None, **found.groupdict()}
    what = parts["kinds"] or f"{parts['operator']} {parts['name']!r}: {parts['why']}".replace(" ''", "")
    where = f" with images of {asked[0]}×{asked[1]}" if asked else ""
    remedy = "try another size, or write the model again" if asked else "write the model again"
    line = next(line.strip() for line in what.splitlines() if line.strip())
    raise SourceError(f"the nodes of {path} do not fit each other{where}: {line.rstrip('.')}; {remedy}") from error


def _decide_branches(given: Given, size: tuple[int, int]) -> None:
    """Leaves of every If whose condition is a constant the branch that is taken, for the lowering and the reference."""
    if not any(node.op_type == "If" and not node.domain for node in given.model.graph):
        return
    assert given.image.shape is not None
    channels = extents(given.image)[3 if given.layout == "NHWC" else 1]
    given.image.shape = ir.Shape(
        [given.image.shape[0], *((*size, channels) if given.layout == "NHWC" else (channels, *size))]
    )
    fold(given.model)


def _zeros(value: ir.Value) -> Array:
    """Something for an input that no output needs."""
    assert value.dtype is not None
    return np.zeros([extent or 1 for extent in extents(value)], value.dtype.numpy())
