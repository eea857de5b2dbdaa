"""ONNX files of other makers: what is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import lmonnx
from lmonnx.exporters.sources.onnx_file import from_onnx
from lmonnx.runtime import Runner
from tests.families.case import positive, w
from tests.graphs import Step, build, step

DATA = Path(os.environ.get("LMONNX_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))
SHAPE = (3, 24, 26)
CONV = step("Conv", "x", w(4, 3, 3, 3), w(4), strides=[2, 2])
POOL = step("GlobalAveragePool", "0")
NORM = positive(4), w(4), w(4), positive(4)


def after(last: int) -> tuple[Step, ...]:
    """A head behind step ``last``, whose result is a map of four channels."""
    conv = step("Conv", str(last), w(4, 4, 3, 3), pads=[1, 1, 1, 1])
    return conv, step("GlobalAveragePool", str(last + 1)), step("Flatten", str(last + 2))


#: Behind `after(0)`.
LABEL = (step("ArgMax", "3", axis=1, keepdims=0),)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def ones(*shape: int) -> onnx.TensorProto:
    """What a ConstantOfShape makes."""
    return onnx.numpy_helper.from_array(np.ones(shape, np.int64))


def turned(source: int, *, to: str) -> Step:
    return step("Transpose", str(source), perm=[0, 2, 3, 1] if to == "NHWC" else [0, 3, 1, 2])


def proven(model: onnx.ModelProto, folder: Path, **options: object) -> lmonnx.Export:
    for value in model.graph.output:
        if not value.type.tensor_type.HasField("shape"):  # which a file has to have
            value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["n", "classes"]))
    onnx.save(model, folder / "in.onnx")
    result = lmonnx.export(folder / "in.onnx", folder / "out.onnx", **options)  # type: ignore[arg-type]
    assert result.verification
    assert result.verification.passed
    return result


PADS = [0, 0, 1, 2, 0, 0, 2, 1]
CHAIN = ints(-1, 4, 11, 12)
#: What exporters leave around a network: the opset, and the steps.
GRAPHS: dict[str, tuple[int, Sequence[Step]]] = {
    "batch norm before a convolution": (
        13,
        (
            step("BatchNormalization", "x", positive(3), w(3), w(3), positive(3)),
            step("Conv", "0", w(4, 3, 3, 3)),
            *after(1),
        ),
    ),
    "batch norm after an addition": (
        9,
        (CONV, step("Relu", "0"), step("Add", "0", "1"), step("BatchNormalization", "2", *NORM), *after(3)),
    ),
    "batch norm between transposes": (
        11,
        (
            CONV,
            turned(0, to="NHWC"),
            step("Relu", "1"),
            turned(2, to="NCHW"),
            step("BatchNormalization", "3", *NORM),
            turned(4, to="NHWC"),
            turned(5, to="NCHW"),
            *after(6),
        ),
    ),
    "per-pixel matrices between transposes": (
        12,
        (
            CONV,
            turned(0, to="NHWC"),
            step("MatMul", "1", w(4, 4)),
            step("Add", "2", w(4)),
            turned(3, to="NCHW"),
            *after(4),
        ),
    ),
    "identities": (18, (CONV, step("Identity", "0"), step("Identity", "1"), step("Identity", "2"), *after(3))),
    "double and back": (12, (CONV, step("Cast", "0", to=11), step("Sigmoid", "1"), step("Cast", "2", to=1), *after(3))),
    "dropout whose mask is not read": (9, (CONV, step("Dropout", "0", outputs=2, ratio=0.3), *after(1))),
    "dropout that evaluates": (13, (CONV, step("Dropout", "0", np.array(0.3), np.array(False)), *after(1))),
    "pad of older opsets": (9, (step("Pad", "x", pads=PADS), step("Conv", "0", w(4, 3, 3, 3)), *after(1))),
    "pad before a pool": (
        11,
        (
            CONV,
            step("Pad", "0", ints(0, 0, 1, 1, 0, 0, 1, 1), np.array(-1e4)),
            step("MaxPool", "1", kernel_shape=[3, 3], strides=[2, 2]),
            *after(2),
        ),
    ),
    "pools named from the end": (13, (CONV, step("ReduceMean", "0", axes=[-1, -2], keepdims=0))),
    "pool and squeeze": (12, (CONV, POOL, step("Squeeze", "1", axes=[2, 3]), step("Gemm", "2", w(5, 4), transB=1))),
    "upsampling": (9, (CONV, step("Upsample", "0", np.array([1, 1, 2, 2], np.float32)), *after(1))),
    "flattened by the shape": (
        13,
        (
            CONV,
            POOL,
            step("Shape", "1"),
            step("Gather", "2", np.array(0), axis=0),
            step("Unsqueeze", "3", ints(0)),
            step("Concat", "4", ints(-1), axis=0),
            step("Reshape", "1", "5"),
        ),
    ),
    "what a table says of a label": (
        13,
        (CONV, *after(0), *LABEL, step("Gather", w(4, 4), "4"), step("Add", "3", "5")),
    ),
    "a label of zeros and a one": (
        13,
        (CONV, *after(0), *LABEL, step("OneHot", "4", np.array(4), np.array([0.5, 2.0])), step("Mul", "3", "5")),
    ),
    "a triangle of weights": (14, (CONV, *after(0), step("Trilu", w(4, 4), upper=0), step("MatMul", "3", "4"))),
    "the smallest, which are equal where nothing is kept": (
        13,
        (
            CONV,
            *after(0),
            step("TopK", "3", ints(3), largest=0, outputs=2),
            step("Cast", "4:1", to=1),
            step("Add", "4:0", "5"),
        ),
    ),
    "expanded by a chain of shapes": (
        13,
        (
            CONV,
            POOL,
            step("ConstantOfShape", ints(4), value=ones(1)),
            step("Mul", "2", ints(-1)),
            step("Equal", CHAIN, "3"),
            step("Where", "4", "2", CHAIN),
            step("Expand", "1", "5"),
            step("Add", "6", "0"),
            *after(7),
        ),
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_what_exporters_leave(name: str, tmp_path: Path) -> None:
    opset, steps = GRAPHS[name]
    proven(build(steps, SHAPE, opset), tmp_path)


def test_a_pad_of_zeros_before_a_maximum(tmp_path: Path) -> None:
    """As Keras has it; onnxruntime fuses the two, and loses the zeros where nothing else is above them."""
    below = step("Sub", "0", np.array(5.0))
    padded = step("Pad", "1", ints(0, 0, 1, 1, 0, 0, 1, 1)), step("MaxPool", "2", kernel_shape=[3, 3], strides=[2, 2])
    proven(build((CONV, below, *padded, *after(3)), SHAPE, 13), tmp_path)


#: A batch of 1 written into the graph, in steps behind CONV, which gives [1, 4, 11, 12].
LITERALS: dict[str, Sequence[Step]] = {
    "a vector": (POOL, step("Reshape", "1", ints(1, 4))),
    "a vector, whatever its length": (POOL, step("Reshape", "1", ints(1, -1))),
    "groups": (step("Reshape", "0", ints(1, 2, 2, 11, 12)), step("Reshape", "1", ints(1, 4, 11, 12)), *after(2)),
    "shuffled channels": (
        step("Reshape", "0", ints(1, 2, 2, 11, 12)),
        step("Transpose", "1", perm=[0, 2, 1, 3, 4]),
        step("Reshape", "2", ints(1, 4, 11, 12)),
        *after(3),
    ),
    "a computed shape": (
        step("Shape", "0"),
        step("Slice", "1", ints(0), ints(1)),
        step("Concat", "2", ints(2, 2, 11, 12), axis=0),
        step("Reshape", "0", "3"),
        step("Reshape", "4", ints(1, 4, 11, 12)),
        *after(5),
    ),
    "expanded": (POOL, step("Expand", "1", ints(1, 4, 11, 12)), step("Mul", "0", "2"), *after(3)),
    "channels of zeros": (
        step("ConstantOfShape", ints(1, 3, 11, 12)),
        step("Concat", "0", "1", axis=1),
        step("Conv", "2", w(4, 7, 1, 1)),
        *after(3),
    ),
    "tiled": (step("Tile", "0", ints(1, 1, 2, 1)), *after(1)),
    "from axis 0": (POOL, step("Flatten", "1", axis=0)),
    "the first row": (step("Slice", "0", ints(0), ints(1), ints(0)), *after(1)),
    "the first row and some columns": (step("Slice", "0", ints(2, 0), ints(9, 1), ints(3, 0)), *after(1)),
    "resized": (step("Resize", "0", "", "", ints(1, 4, 22, 24), mode="nearest"), *after(1)),
    "strided": (
        POOL,
        step("Reshape", "1", ints(-1)),
        step("Gather", "2", np.arange(4).reshape(1, 4, 1, 1), axis=0),
        step("Flatten", "3"),
    ),
    "pixels as rows": (
        turned(0, to="NHWC"),
        step("Reshape", "1", ints(132, 4)),
        step("Gemm", "2", w(4, 4), w(4)),
        step("Reshape", "3", ints(1, 11, 12, 4)),
        turned(4, to="NCHW"),
        *after(5),
    ),
    "squeezed": (POOL, step("Squeeze", "1", ints(2, 3)), step("Gemm", "2", w(5, 4), transB=1)),
}


@pytest.mark.parametrize("name", LITERALS)
def test_a_batch_of_1_becomes_free(name: str, tmp_path: Path) -> None:
    model = with_batch(build((CONV, *LITERALS[name]), (3, 24, 26), 13), 1)
    runner = Runner(proven(model, tmp_path).path, provider="cpu")
    assert [shape[0] for shape in _output_shapes(runner)] == ["batch"]


def test_a_batch_that_is_free_by_name_alone(tmp_path: Path) -> None:
    """TorchScript writes the 1 of the example's ``x.data.size()`` into a Reshape."""
    model = build((CONV, *LITERALS["shuffled channels"]), (3, 24, 26), 13)
    del model.graph.value_info[:]
    runner = Runner(proven(model, tmp_path).path, provider="cpu")
    assert [shape[0] for shape in _output_shapes(runner)] == ["batch"]


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The model with the batch of its input fixed, and what follows from that."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _output_shapes(runner: Runner) -> list[list[int | str]]:
    outputs = onnx.load(runner.path).graph.output
    return [[dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in outputs]


def test_constants_as_nodes(tmp_path: Path) -> None:
    """A number, integers, and tensors."""
    model = build(
        (CONV, step("Mul", "0", np.array(0.5)), step("Reshape", "1", ints(0, 4, 11, 12)), *after(2)), SHAPE, 13
    )
    values: dict[str, dict[str, Any]] = {
        "constant1_1": {"value_float": 0.5},
        "constant2_1": {"value_ints": [0, 4, 11, 12]},
    }
    constants = [
        helper.make_node("Constant", [], [tensor.name], **values.get(tensor.name, {"value": tensor}))
        for tensor in model.graph.initializer
    ]
    nodes = [*constants, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    proven(model, tmp_path)


def test_every_initializer_an_input(tmp_path: Path) -> None:
    model = build((CONV, *after(0)), SHAPE, 11)
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    proven(model, tmp_path)


def test_local_functions(tmp_path: Path) -> None:
    """One within another, with an attribute handed down."""
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    inner = helper.make_function("own", "Leak", ["a"], ["b"], [leaky], opset, ["slope"])
    calls = [
        helper.make_node("Leak", ["a"], ["c"], domain="own", slope=0.3),
        helper.make_node("Add", ["a", "c"], ["b"]),
    ]
    outer = helper.make_function("own", "Residual", ["a"], ["b"], calls, opset)
    model = build((CONV, step("Relu", "0"), *after(1)), SHAPE, 17)
    model.graph.node[1].op_type, model.graph.node[1].domain = "Residual", "own"
    model.functions.extend([inner, outer])
    model.opset_import.append(opset[1])
    proven(model, tmp_path)


def test_several_outputs(tmp_path: Path) -> None:
    model = build((CONV, *after(0)), SHAPE, 13)
    model.graph.output.append(helper.make_tensor_value_info("value0", TensorProto.FLOAT, ["n", 4, 11, 12]))
    runner = Runner(proven(model, tmp_path).path, provider="cpu")
    assert list(runner.contract.outputs) == ["value3", "value0"]


def test_the_alias_of_the_default_domain(tmp_path: Path) -> None:
    model = build((CONV, *after(0)), SHAPE, 13)
    model.opset_import[0].domain = "ai.onnx"
    proven(model, tmp_path)


@pytest.mark.parametrize("opset", [9, 13, 17, 21])
def test_group_norms_of_every_opset(opset: int, tmp_path: Path) -> None:
    """Taken apart, and in one piece since opset 21."""
    apart = (
        step("Reshape", "0", ints(0, 2, -1)),
        step("InstanceNormalization", "1", np.ones(2), np.zeros(2)),
        step("Reshape", "2", ints(0, 4, 11, 12)),
        step("Mul", "3", positive(4, 1, 1)),
        step("Add", "4", w(4, 1, 1)),
    )
    norm = step("GroupNormalization", "5", positive(4), w(4), num_groups=2) if opset >= 21 else step("Relu", "5")
    proven(build((CONV, *apart, norm, *after(6)), SHAPE, opset), tmp_path)


def test_layout_of_tensorflow(tmp_path: Path) -> None:
    """Image and activations [N, H, W, C]; padding as TensorFlow writes it; a batch of 1."""
    steps = (
        turned(0, to="NCHW"),
        step("Conv", "0", w(4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
        turned(1, to="NHWC"),
        step("Add", "2", w(4)),
        step("Clip", "3", np.array(0.0), np.array(6.0)),
        step("ReduceMean", "4", axes=[1, 2], keepdims=0),
        step("MatMul", "5", w(4, 5)),
        step("Softmax", "6", axis=-1),
    )
    first = Step("Transpose", ("x",), steps[0].attributes)
    model = with_batch(build((first, *steps[1:]), (24, 26, 3), 13), 1)
    runner = Runner(proven(model, tmp_path).path, provider="cpu")
    assert runner.contract.source["layout"] == "NHWC"
    assert runner.contract.outputs == {"value7": "probabilities"}


def test_a_converted_mobilenet(tmp_path: Path) -> None:
    path = DATA / "models" / "mobilenet_v1_025_224.onnx"
    if not path.is_file():
        pytest.skip(f"no network in {path} (LMONNX_TEST_DATA)")
    network = from_onnx(path)
    assert (network.size, network.layout, network.precision) == ((224, 224), "NCHW", "float32")
    assert lmonnx.export(path, tmp_path / "out.onnx").verification
