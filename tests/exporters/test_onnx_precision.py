"""ONNX files in float16, and quantised to int8."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import lmonnx
from lmonnx.errors import SourceError, UnsupportedOpError
from lmonnx.exporters.lowering.engine import lower
from lmonnx.exporters.normalise import normalise
from lmonnx.exporters.sources.network import Network
from lmonnx.exporters.sources.onnx_file import from_onnx
from lmonnx.masking import MaskRules
from tests.families.case import positive, w
from tests.graphs import Run, build, images, masks, proto_of, step
from tests.laws import assert_close, check_laws

SIZE = (26, 24)
SHAPE = (3, *SIZE)
#: Convolutions of every kind, a pool, a gate over channels, a join, and a classifier.
STEPS = (
    step("Conv", "x", w(8, 3, 3, 3), w(8), strides=[2, 2], pads=[1, 1, 1, 1]),
    step("BatchNormalization", "0", positive(8), w(8), w(8), positive(8)),
    step("Relu", "1"),
    step("Conv", "2", w(8, 1, 3, 3), w(8), pads=[1, 1, 1, 1], group=8),
    step("HardSigmoid", "3"),
    step("Add", "4", "2"),
    step("MaxPool", "5", kernel_shape=[2, 2], strides=[2, 2]),
    step("GlobalAveragePool", "6"),
    step("Conv", "7", w(8, 8, 1, 1), w(8)),
    step("Sigmoid", "8"),
    step("Mul", "6", "9"),
    step("Conv", "10", w(16, 8, 1, 1), w(16)),
    step("Relu", "11"),
    step("GlobalAveragePool", "12"),
    step("Flatten", "13"),
    step("Gemm", "14", w(5, 16), w(5), transB=1),
)


POOLED = step("GlobalAveragePool", "1"), step("Flatten", "2")


def save(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "in.onnx")
    return folder / "in.onnx"


def test_float16_takes_and_gives_float32(tmp_path: Path) -> None:
    path = save(build(STEPS, SHAPE, 17, np.float16), tmp_path)
    network = from_onnx(path)
    assert network.precision == "float16"
    (image,), (output,) = network.graph.graph.inputs, network.graph.graph.outputs
    assert (image.name, image.dtype, output.name, output.dtype) == (
        "x",
        ir.DataType.FLOAT,
        "value15",
        ir.DataType.FLOAT,
    )
    (answer,) = network.plain(images(3, SHAPE))
    assert answer.dtype == np.float32
    assert answer.shape == (3, 5)
    result = lmonnx.export(path, tmp_path / "out.onnx")
    assert result.verification
    proto = onnx.load(result.path)
    kinds = {tensor.data_type for tensor in proto.graph.initializer if np.prod(tensor.dims) > 100}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert [value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)] == [1, 9, 1]


def test_float16_within_float32(tmp_path: Path) -> None:
    inside = [replace(each, inputs=tuple(map(_next, each.inputs))) for each in STEPS]
    model = build((step("Cast", "x", to=10), *inside, step("Cast", "16", to=1)), SHAPE, 13, np.float16)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    model = onnx.shape_inference.infer_shapes(model)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    path = save(model, tmp_path)
    assert from_onnx(path).precision == "float16"
    assert lmonnx.export(path, tmp_path / "out.onnx").verification


def _next(value: object) -> object:
    """The name of a value when a step stands before all others and takes the image."""
    if not isinstance(value, str):
        return value
    return "0" if value == "x" else str(int(value) + 1)


def test_weights_kept_in_float16_compute_in_float32(tmp_path: Path) -> None:
    weight = w(4, 3, 3, 3).astype(np.float16)
    steps = (step("Cast", weight, to=1), step("Conv", "x", "0"), step("GlobalAveragePool", "1"), step("Flatten", "2"))
    path = save(build(steps, SHAPE, 13), tmp_path)
    assert from_onnx(path).precision == "float32"
    assert lmonnx.export(path, tmp_path / "out.onnx").verification


@pytest.mark.parametrize("kind", ["BFLOAT16", "FLOAT8E4M3FN"])
def test_activations_that_cannot_be_proven(kind: str, tmp_path: Path) -> None:
    there = step("Cast", "x", to=onnx.TensorProto.DataType.Value(kind))
    path = save(build((there, step("Cast", "0", to=1), *POOLED), SHAPE, 19), tmp_path)
    with pytest.raises(
        SourceError, match=f"^Cast 'node0' gives {kind.lower()}, in which no graph can be proven; write"
    ):
        lmonnx.export(path, tmp_path / "out.onnx")


def test_weights_kept_in_bfloat16_compute_in_float32(tmp_path: Path) -> None:
    weight = w(4, 3, 3, 3).astype(ir.DataType.BFLOAT16.numpy())
    steps = (step("Cast", weight, to=1), step("Conv", "x", "0"), *POOLED)
    assert lmonnx.export(save(build(steps, SHAPE, 13), tmp_path), tmp_path / "out.onnx").verification


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Eight images for the calibration."""

    def __init__(self) -> None:
        self._left = iter(images(8, SHAPE))

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._left, None)
        return None if image is None else {"x": image[None]}


#: Each channel of the weights on a scale of its own, or not; dtype of the activations.
QUANTISED = [(False, QuantType.QUInt8), (True, QuantType.QInt8)]
every_scheme = pytest.mark.parametrize(("per_channel", "kind"), QUANTISED, ids=["tensor-uint8", "channel-int8"])


@pytest.fixture
def quantised(per_channel: bool, kind: QuantType, tmp_path: Path) -> Path:
    path = save(build(STEPS, SHAPE, 17), tmp_path)
    logging.disable(logging.WARNING)  # that the model was not prepared for it
    try:
        quantize_static(
            path,
            tmp_path / "int8.onnx",
            _Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            activation_type=kind,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)
    return tmp_path / "int8.onnx"


def as_defined(model: onnx.ModelProto) -> Run:
    """By onnxruntime, quantised nodes one by one: fused to integer kernels they round otherwise."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda image, mask: session.run(None, {"image": image, "mask": mask})[0]


def lowered(network: Network) -> onnx.ModelProto:
    normal = normalise(network.graph, network.size, network.layout)
    return proto_of(lower(normal, MaskRules(), layout=network.layout))


@every_scheme
def test_quantised_graph_equals_the_reference(quantised: Path) -> None:
    network = from_onnx(quantised)
    assert network.precision == "int8"
    mask = masks(SIZE)
    image = images(len(mask), SHAPE)
    expected = network.reference(MaskRules())(image.astype(np.float64), mask)[0]
    assert_close(as_defined(lowered(network))(image, mask), expected, 1e-5)


@every_scheme
def test_quantised_graph_obeys_the_laws(quantised: Path) -> None:
    network = from_onnx(quantised)
    mask = masks(SIZE)
    image = images(len(mask), SHAPE)
    (original,) = network.plain(image)
    check_laws(as_defined(lowered(network)), image, mask, original=original, tolerance=1e-5, rounding=1e-5)


@every_scheme
def test_quantised_weights_stay_integers(quantised: Path) -> None:
    network = from_onnx(quantised)
    made, given = lowered(network), onnx.load(quantised)
    for model in (given, made):
        integers = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
        assert sum(int(np.prod(tensor.dims)) for tensor in integers) >= 216 + 72 + 64 + 128 + 80
    floats = [
        tensor
        for tensor in made.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and not tensor.name.startswith("mask/")
    ]
    assert max(int(np.prod(tensor.dims)) for tensor in floats) <= 16


@every_scheme
def test_quantised_file_is_exported(quantised: Path, tmp_path: Path) -> None:
    assert lmonnx.export(quantised, tmp_path / "out.onnx").verification


def test_integer_operators_are_refused(tmp_path: Path) -> None:
    path = save(build(STEPS, SHAPE, 17), tmp_path)
    quantize_static(path, tmp_path / "int8.onnx", _Images(), quant_format=QuantFormat.QOperator)
    with pytest.raises(UnsupportedOpError, match="QLinearConv"):
        lmonnx.export(tmp_path / "int8.onnx", tmp_path / "out.onnx")
