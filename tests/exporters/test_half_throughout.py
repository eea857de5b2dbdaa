"""Float16 files where a runtime computes all of them in float16, also what they say is float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import from_array, to_array

from lmonnx.masking import MaskRules
from tests.cases import Case, w
from tests.exporters.test_half import OVER_SPACE
from tests.graphs import build, by_evaluator, images, lowered, masks, proto_of, step

SINGLE, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
LARGEST = float(np.finfo(np.float16).max)


def throughout(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of which nothing is float32 any more."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.data_type == SINGLE:
            array = to_array(tensor)
            assert np.abs(array).max(initial=0) <= LARGEST, f"{tensor.name}: {array}"
            tensor.CopyFrom(from_array(array.astype(np.float16), tensor.name))
    for node in copy.graph.node:
        for attribute in node.attribute:
            assert attribute.type != onnx.AttributeProto.TENSOR
            if node.op_type == "Cast" and attribute.i == SINGLE:
                attribute.i = HALF
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.tensor_type.elem_type == SINGLE:
            value.type.tensor_type.elem_type = HALF
    del copy.graph.value_info[:]
    return copy


def answers(model: onnx.ModelProto, rules: MaskRules, layout: str, shape: Any) -> tuple[np.ndarray, np.ndarray]:
    """What the float16 file of a network says, and what it says where all of it is float16."""
    channels, *size = shape
    made = proto_of(lowered(model, rules, layout))
    mask = masks((size[0], size[1]))
    image = images(len(mask), (channels, *size)).astype(np.float16)
    return by_evaluator(made)(image, mask), by_evaluator(throughout(made))(image, mask)


@pytest.mark.parametrize("case", OVER_SPACE, ids=lambda case: case.name)
def test_every_sum_and_division(case: Case) -> None:
    """What divides by a count or by a norm's deviation is finite with nothing, and with one pixel, kept."""
    shape = case.shape if case.layout == "NCHW" else (case.shape[2], *case.shape[:2])
    file, all_of_it = answers(case.model(np.float16), case.rules, case.layout, shape)
    assert np.isfinite(all_of_it).all()
    # A norm of one kept pixel divides by the root of its epsilon, of which float16 has few bits.
    tolerance = 4e-2 if case.operator == "InstanceNormalization" else 5e-3
    assert np.abs(file - all_of_it).max() <= tolerance * max(1.0, float(np.abs(file).max()))


@pytest.mark.parametrize("operator", ["GroupNormalization", "InstanceNormalization", "GlobalAveragePool"])
def test_more_pixels_than_float16_counts(operator: str) -> None:
    """16 channels of 72×72 pixels are 82944 numbers, and float16 ends at 65504."""
    ones, zeros = np.ones(16), np.zeros(16)
    last = {
        "GroupNormalization": step(operator, "0", ones, zeros, num_groups=1, epsilon=1e-9),
        "InstanceNormalization": step(operator, "0", ones, zeros, epsilon=1e-9),
        "GlobalAveragePool": step(operator, "0"),
    }[operator]
    model = build([step("Conv", "x", w(16, 3, 1, 1)), last], (3, 72, 72), 21, np.float16)
    file, all_of_it = answers(model, MaskRules(), "NCHW", (3, 72, 72))
    assert np.isfinite(all_of_it).all()
    # The last mask keeps one pixel, whose deviation is the epsilon, 0 in float16.
    assert np.abs(file - all_of_it)[:-1].max() <= 2e-2 * max(1.0, float(np.abs(file).max()))


def test_a_layer_that_is_left_in_float32_is_filled_and_gated_with_numbers_of_float16() -> None:
    weights, cast = w(8, 3, 3, 3).astype(np.float32), step("Cast", "x", to=SINGLE)
    steps = (
        cast,
        step("Conv", "0", weights),
        step("Relu", "1"),
        step("Conv", "2", w(8, 8, 3, 3).astype(np.float32)),
        step("Cast", "3", to=HALF),
        step("GlobalAveragePool", "4"),
    )
    file, all_of_it = answers(build(steps, (3, 26, 24), 18, np.float16), MaskRules(), "NCHW", (3, 26, 24))
    assert np.abs(file - all_of_it).max() <= 5e-3 * float(np.abs(file).max())
