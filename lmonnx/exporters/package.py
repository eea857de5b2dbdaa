"""From a lowered graph to a file that can be trusted: metadata, contract, proof, publication."""

from __future__ import annotations

import importlib.metadata
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

#: What takes part in an export, besides Python.
PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxscript", "torch", "torchvision")
#: Bytes that protobuf can hold in one message.
PROTOBUF_LIMIT = 2**31 - 1


def contract_of(network: Network, model: ir.Model, rules: MaskRules, verified: dict[str, object]) -> Contract:
    """What the file will say about itself.

    Raises:
        OptionError: if the labels are not as many as the classes, or the preprocessing is for other channels.
    """
    shape = model.graph.outputs[0].shape
    classes = shape[-1] if shape else None
    if network.labels is not None and isinstance(classes, int) and len(network.labels) != classes:
        raise OptionError(f"there are {len(network.labels)} labels for {classes} classes; name each of them")
    return Contract(
        version=lmonnx.__version__,
        outputs={str(value.name): kind_of(value) for value in model.graph.outputs},
        preprocessing=network.preprocessing and network.preprocessing.for_channels(network.channels),
        labels=network.labels,
        rules={"average": rules.average, "concat": rules.concat},
        source={**network.origin, "layout": network.layout},
        verified=verified,
        versions={name: version for name in PACKAGES if (version := _version(name))},
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

    The temporary folder is beside the destination, so that the move cannot stop half-way.

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
            os.replace(folder / path.name, path)
        except OSError as error:
            raise PublishError(f"cannot write {path}: {error.strerror}; choose another destination") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(model: ir.Model, contract: Contract, path: pathlib.Path) -> None:
    """Writes the model with its metadata, and checks what was written.

    Raises:
        PublishError: if it cannot be written, or is larger than one file can be.
    """
    model.metadata_props.clear()
    model.metadata_props.update(contract.to_props())
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if size > PROTOBUF_LIMIT:
        raise PublishError(f"the weights take {size / 1e9:.1f} GB and an .onnx file holds 2 GB at most")
    try:
        ir.save(model, path)
    except OSError as error:
        raise PublishError(f"cannot write {path}: {error.strerror}; choose another destination") from error
    check(onnx.load(path, load_external_data=False))


def check(proto: onnx.ModelProto) -> None:
    """The contract's promises that can be read off the file.

    Standard operators only, one opset, and nothing but the first node, a Where, reads the image.
    """
    onnx.checker.check_model(proto)
    domains = {opset.domain for opset in proto.opset_import} | {node.domain for node in proto.graph.node}
    assert domains == {""}, f"operators of the domains {domains}"
    readers = [node for node in proto.graph.node if "image" in node.input]
    assert readers == [proto.graph.node[0]], "the image is read by more than the first node"
    assert readers[0].op_type == "Where"
    assert [value.name for value in proto.graph.input] == ["image", "mask"]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
