"""Which input of an ONNX file is the image, what is no image, and weights beside the file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import lmonnx
from lmonnx.errors import LmonnxError, OptionError, SourceError
from lmonnx.exporters.normalise import normalise
from lmonnx.exporters.proof import images
from lmonnx.exporters.sources.onnx_file import from_onnx, sha256_of
from tests.families.case import w
from tests.graphs import Step, build, step

SHAPE = (3, 24, 26)
CONV = step("Conv", "x", w(4, 3, 3, 3), w(4), strides=[2, 2])
HEAD = (CONV, step("GlobalAveragePool", "0"), step("Flatten", "1"))


def model_of(*steps: Step, opset: int = 13) -> onnx.ModelProto:
    return build(steps or HEAD, SHAPE, opset)


def save(model: onnx.ModelProto, folder: Path, **settings: Any) -> Path:
    onnx.save(model, folder / "in.onnx", **settings)
    return folder / "in.onnx"


def with_input(name: str, kind: int, shape: list[int | str] | None, *, read: bool) -> onnx.ModelProto:
    """A network with a second input, which a Mul behind the head reads or nothing does."""
    model = model_of()
    model.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
    if read:
        model.graph.node.append(helper.make_node("Mul", ["value2", name], ["scaled"], "scale"))
        model.graph.output[0].name = "scaled"
    return model


def test_several_inputs_have_to_be_told_apart(tmp_path: Path) -> None:
    path = save(with_input("mask", TensorProto.BOOL, ["n", 1, 24, 26], read=False), tmp_path)
    with pytest.raises(
        SourceError, match=r"has 2 inputs \(x, mask\); name the one that takes the image with --image-in"
    ):
        from_onnx(path)
    with pytest.raises(OptionError, match="has no input 'photo'; its inputs are x, mask"):
        from_onnx(path, image_input="photo")


def test_an_input_of_no_effect_is_left_out(tmp_path: Path) -> None:
    path = save(with_input("other", TensorProto.INT64, ["n", 2], read=False), tmp_path)
    network = from_onnx(path, image_input="x")
    assert network.origin["image_input"] == "x"
    alone = from_onnx(save(model_of(), tmp_path))
    (expected,), (actual,) = (each.plain(images(2, 3, SHAPE[1:])) for each in (alone, network))
    np.testing.assert_array_equal(actual, expected)
    assert [value.name for value in normalise(network.graph, network.size, network.layout).graph.inputs] == ["x"]


def test_another_input_that_is_read_is_refused(tmp_path: Path) -> None:
    path = save(with_input("factor", TensorProto.FLOAT, [1], read=True), tmp_path)
    with pytest.raises(SourceError, match=r"reads the input 'factor' beside the image 'x'; make it an initializer"):
        from_onnx(path, image_input="x")
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full(1, 2, np.float32), "factor"))
    assert from_onnx(save(model, tmp_path)).plain(images(1, 3, SHAPE[1:]))[0].shape == (1, 4)


def test_an_image_that_has_a_default(tmp_path: Path) -> None:
    model = model_of()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1, *SHAPE), np.float32), "x"))
    path = save(model, tmp_path)
    with pytest.raises(SourceError, match=r"has 0 inputs \(none without a value\)"):
        from_onnx(path)
    onnx.save(model_of(), tmp_path / "plain.onnx")
    image = images(2, 3, SHAPE[1:])
    (actual,), (expected,) = (
        from_onnx(path, image_input="x").plain(image),
        from_onnx(tmp_path / "plain.onnx").plain(image),
    )
    np.testing.assert_array_equal(actual, expected)


def test_a_graph_of_lmonnx_is_no_source(tmp_path: Path) -> None:
    lmonnx.export(save(model_of(), tmp_path), tmp_path / "masked.onnx", verify=False)
    with pytest.raises(SourceError, match=r"masked\.onnx is a graph that lmonnx wrote, with a mask already"):
        lmonnx.export(tmp_path / "masked.onnx", tmp_path / "again.onnx")


TENSOR = helper.make_tensor_value_info
#: What an input may be besides an image, and what is said.
ODD: dict[str, tuple[onnx.ValueInfoProto, str]] = {
    "a scalar": (TENSOR("x", TensorProto.FLOAT, []), r"is not an image: the axes \[N, C, H, W\]"),
    "of unknown rank": (TENSOR("x", TensorProto.FLOAT, None), "is not a valid ONNX model: Field 'shape' of 'type' is"),
    "a vector": (TENSOR("x", TensorProto.FLOAT, ["n", 3]), "is not an image"),
    "a volume": (TENSOR("x", TensorProto.FLOAT, ["n", 3, 8, 24, 26]), "is not an image"),
    "of seven channels": (TENSOR("x", TensorProto.FLOAT, ["n", 7, 24, 26]), "with 1 to 4 channels"),
    "bytes": (TENSOR("x", TensorProto.UINT8, ["n", *SHAPE]), r"is UINT8; cut what turns pixels into float32 off"),
    "double": (TENSOR("x", TensorProto.DOUBLE, ["n", *SHAPE]), r"is DOUBLE; write the model in float32"),
    "bfloat16": (TENSOR("x", TensorProto.BFLOAT16, ["n", *SHAPE]), r"is BFLOAT16; write the model in float32"),
    "text": (TENSOR("x", TensorProto.STRING, ["n", *SHAPE]), r"is STRING; write the model in float32"),
    "a sequence": (
        helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, ["n", *SHAPE]),
        "is of type sequence; an image is a tensor",
    ),
    "optional": (
        helper.make_value_info("x", helper.make_optional_type_proto(helper.make_tensor_type_proto(1, ["n", *SHAPE]))),
        "is of type optional; an image is a tensor",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_image_is_said(kind: str, tmp_path: Path) -> None:
    value, message = ODD[kind]
    model = model_of()
    model.graph.input[0].CopyFrom(value)
    with pytest.raises(SourceError, match=message) as error:
        lmonnx.export(save(model, tmp_path), tmp_path / "out.onnx")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.onnx").exists()


def test_open_channels_are_those_of_the_convolution(tmp_path: Path) -> None:
    model = model_of()
    for place, name in enumerate(("n", "c", "h", "w")):
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_param = name
    assert from_onnx(save(model, tmp_path), size=SHAPE[1:]).channels == SHAPE[0]


def test_an_open_batch_as_a_number(tmp_path: Path) -> None:
    model = build((CONV, step("GlobalAveragePool", "0")), SHAPE, 13)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(model, tmp_path / "in.onnx")
    assert lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx").verification is not None


def test_a_batch_of_two_is_refused(tmp_path: Path) -> None:
    model = model_of()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(
        SourceError, match="the batch of 'x' is fixed at 2; write the model with a free batch, or with 1"
    ):
        lmonnx.export(save(model, tmp_path), tmp_path / "out.onnx")


#: Steps behind the global average that leave no batch.
LOST = {
    "Squeeze": step("Squeeze", "1", np.array([0])),
    "Squeeze without axes": step("Squeeze", "1"),
    "Gather": step("Gather", "1", np.array(0), axis=0),
    "Reshape": step("Reshape", "1", np.array([4])),
}


def test_a_batch_that_nothing_known_loses_is_refused(tmp_path: Path) -> None:
    some = step("Gather", "2", np.array([[0, 3]]), axis=0)
    model = model_of(*HEAD[:2], step("Reshape", "1", np.array([-1])), some)
    with pytest.raises(SourceError, match=r"the output 'value3' has the shape 1×2 for every batch"):
        lmonnx.export(save(model, tmp_path), tmp_path / "out.onnx")


@pytest.mark.parametrize("operator", LOST)
def test_a_batch_that_is_lost_is_refused(operator: str, tmp_path: Path) -> None:
    model = model_of(*HEAD[:2], LOST[operator])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("value2", TensorProto.FLOAT, None))
    model.graph.output[0].type.tensor_type.shape.SetInParent()
    del model.graph.value_info[:]
    with pytest.raises(LmonnxError, match=rf"{operator.split()[0]} 'node2'.*batch"):
        lmonnx.export(save(model, tmp_path), tmp_path / "out.onnx")


def beside(model: onnx.ModelProto, folder: Path) -> Path:
    """The model with every weight in a file beside it."""
    return save(model, folder, save_as_external_data=True, location="weights.bin", size_threshold=0)


def test_hash_covers_the_weights_beside_the_file(tmp_path: Path) -> None:
    alone = save(model_of(), tmp_path)
    assert sha256_of(alone) == hashlib.sha256(alone.read_bytes()).hexdigest()
    path = beside(model_of(), tmp_path)
    hashes = [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("in.onnx", "weights.bin")]
    lines = f"{hashes[0]}  \n{hashes[1]}  weights.bin\n"
    assert sha256_of(path) == from_onnx(path).origin["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    weights = bytearray((tmp_path / "weights.bin").read_bytes())
    weights[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(weights)
    assert sha256_of(path) != hashlib.sha256(lines.encode()).hexdigest()


DAMAGES = {
    "missing": r"in\.onnx is not a valid ONNX model: .*weights\.bin",
    "short": r"weights\.bin does not hold 'constant0_1' of .*in\.onnx",
    "outside": r"in\.onnx is not a valid ONNX model: .*\.\./weights\.bin",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_weights_that_are_not_there_are_named(damage: str, tmp_path: Path) -> None:
    path = beside(model_of(), tmp_path)
    if damage == "missing":
        (tmp_path / "weights.bin").unlink()
    elif damage == "short":
        (tmp_path / "weights.bin").write_bytes(b"12345678")
    else:
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            tensor.external_data[0].value = "../weights.bin"
        onnx.save(model, path)
    with pytest.raises(SourceError, match=DAMAGES[damage]) as error:
        from_onnx(path)
    assert "\n" not in str(error.value)


def test_a_constant_beside_the_file(tmp_path: Path) -> None:
    """Weights of a Constant node, which are no initializers."""
    model = model_of()
    constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in model.graph.initializer]
    nodes = [*constants, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    path = save(
        model, tmp_path, save_as_external_data=True, location="weights.bin", size_threshold=0, convert_attribute=True
    )
    assert (tmp_path / "weights.bin").stat().st_size > 400
    assert lmonnx.export(path, tmp_path / "out.onnx").verification
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.onnx", "out.onnx", "weights.bin"]
