"""From a lowered graph to a file that can be trusted: metadata, contract, proof, publication."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir

import lmonnx
from lmonnx.errors import OptionError, PublishError
from lmonnx.exporters.sources.network import Network
from lmonnx.masking import MaskRules
from lmonnx.runtime.contract import Contract
from lmonnx.runtime.form import Form

#: What takes part in an export, besides Python.
PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxscript", "timm", "torch", "torchvision")
#: Bytes of weights up to which a file holds them itself: protobuf's 2**31 − 1, less what the nodes take.
LARGEST = 2_000_000_000
#: The folder in the temporary one that an earlier pair of files is put aside in.
EARLIER = "earlier"


def contract_of(
    network: Network,
    model: ir.Model,
    rules: MaskRules,
    verified: dict[str, object],
    form: Form | None = None,
    data: str | None = None,
) -> Contract:
    """What the file will say about itself.

    Args:
        network: where it comes from.
        model: the graph as it will be written.
        rules: the mask rules that it was lowered with.
        verified: what the proof found, ``{"passed": None}`` before it.
        form: of its inputs and outputs; the default if None.
        data: name of the file beside it that holds the weights; None if it holds them itself.

    Raises:
        OptionError: if the labels are not as many as the classes.
    """
    shape = model.graph.outputs[0].shape
    classes = shape[-1] if shape else None
    if network.labels is not None and isinstance(classes, int) and len(network.labels) != classes:
        raise OptionError(f"there are {len(network.labels)} labels for {classes} classes; name each of them")
    return Contract(
        version=lmonnx.__version__,
        outputs={str(value.name): kind_of(value) for value in model.graph.outputs},
        preprocessing=network.preprocessing,
        labels=network.labels,
        rules={"average": rules.average, "concat": rules.concat},
        source={**network.origin, "layout": network.layout},
        verified=verified,
        versions={name: version for name in PACKAGES if (version := _version(name))},
        form=form or Form(),
        data=data,
    )


def kind_of(output: ir.Value) -> str:
    """Whether a classifier's output holds logits or probabilities, by the operator that ends it.

    "unknown" where that operator is neither a Softmax nor linear.
    """
    node = output.producer()
    while node is not None and node.op_type in ("Reshape", "Flatten", "Squeeze", "Identity", "Cast"):
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    if node is None:
        return "unknown"
    if node.op_type == "Softmax":
        return "probabilities"
    return "unknown" if node.op_type in ("LogSoftmax", "Sigmoid", "ArgMax", "TopK") else "logits"


@contextmanager
def publication(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to whose file moves to ``path`` if all inside goes well, and vanishes otherwise.

    The temporary folder is beside the destination, so that the move cannot stop half-way. A file of weights beside
    the file moves along, see :func:`data_of`. Should the process be killed while it replaces such a pair, the earlier
    one is in the folder ``earlier`` of the temporary one, which stays.

    Raises:
        PublishError: if the destination cannot be written.
    """
    if path.is_dir():
        raise PublishError(f"{path} is a directory; name the file to write in it")
    try:
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise PublishError(f"cannot write to {path.parent}: {error.strerror}; choose another destination") from error
    try:
        yield folder / path.name
        try:
            _move(folder, path)
        except OSError as error:
            raise PublishError(f"cannot write {path}: {error.strerror}; choose another destination") from error
    finally:
        if not any((folder / EARLIER).glob("*")):  # what could not be put back is all there is of it
            shutil.rmtree(folder, ignore_errors=True)


def data_of(model: ir.Model, path: pathlib.Path) -> str | None:
    """Name of the file beside ``path`` for weights that are too large for one file; None if they are not."""
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    return f"{path.name}.data" if size > LARGEST else None


def _move(folder: pathlib.Path, path: pathlib.Path) -> None:
    """The weights, if they are in a file beside the model, then the model.

    No model ever stands beside weights that are not its own: earlier files are put aside first, and back if a move
    fails or is interrupted. Weights of an earlier model that the new one has no use for go.
    """
    data = path.with_name(f"{path.name}.data")
    if not (folder / data.name).exists():
        stale = _has_weights_in(path, data.name)
        os.replace(folder / path.name, path)
        if stale:
            data.unlink(missing_ok=True)
        return
    earlier = folder / EARLIER
    earlier.mkdir()
    try:
        for there in (path, data):
            if there.exists():
                os.replace(there, earlier / there.name)
        for there in (data, path):
            os.replace(folder / there.name, there)
    except BaseException:  # a Ctrl-C too
        if (folder / path.name).exists():  # the new pair is not complete
            if not (folder / data.name).exists():
                data.unlink(missing_ok=True)
            for there in (data, path):
                if (earlier / there.name).exists():
                    os.replace(earlier / there.name, there)
        raise
    finally:
        if not (folder / path.name).exists():
            shutil.rmtree(earlier, ignore_errors=True)


def _has_weights_in(path: pathlib.Path, name: str) -> bool:
    """Whether a file is one that lmonnx wrote with its weights in the file ``name`` beside it."""
    try:
        props = onnx.load(path, load_external_data=False).metadata_props
    except Exception:  # there is no such file, or it is something else
        return False
    return {prop.key: prop.value for prop in props}.get("lmonnx.data") == json.dumps(name)


def write(model: ir.Model, contract: Contract, path: pathlib.Path) -> None:
    """Writes the model with its metadata, and checks what was written.

    Raises:
        PublishError: if it cannot be written.
    """
    model.metadata_props.clear()
    model.metadata_props.update(contract.to_props())
    try:
        ir.save(model, path, external_data=contract.data)
    except OSError as error:
        raise PublishError(f"cannot write {path}: {error.strerror}; choose another destination") from error
    check(path, contract.form, model.opset_imports[""])


def stamp(contract: Contract, path: pathlib.Path) -> None:
    """Writes other metadata into a file; weights in a file beside it are not read.

    Raises:
        PublishError: if it cannot be written.
    """
    proto = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(proto, contract.to_props())
    try:
        onnx.save(proto, path)
    except OSError as error:
        raise PublishError(f"cannot write {path}: {error.strerror}; choose another destination") from error


def check(path: pathlib.Path, form: Form, opset: int) -> None:
    """The contract's promises that can be read off the file.

    Standard operators only, one opset, and nothing but a Where with the mask reads the image.
    """
    onnx.checker.check_model(os.fspath(path))
    proto = onnx.load(path, load_external_data=False)
    domains = {entry.domain for entry in proto.opset_import} | {node.domain for node in proto.graph.node}
    assert domains == {""}, f"operators of the domains {domains}"
    assert [entry.version for entry in proto.opset_import] == [opset]
    nodes = {name: node for node in proto.graph.node for name in node.output}
    (reader,) = [node for node in proto.graph.node if "image" in node.input]
    kept = reader.input[0] if form.layout == "NCHW" else nodes[reader.input[0]].input[0]
    assert (reader.op_type, kept, reader.input[1]) == ("Where", "mask", "image")
    assert [value.name for value in proto.graph.input] == ["image", "mask"]
    batches = {value.type.tensor_type.shape.dim[0].dim_value for value in proto.graph.input}
    assert batches == {form.batch or 0}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
