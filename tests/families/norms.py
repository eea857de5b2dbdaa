"""Normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.families.case import Case, case, positive, w
from tests.graphs import Step, step


def norms() -> list[Case]:
    six = step("Conv", "x", w(6, 3, 3, 3), w(6), pads=[1, 1, 1, 1])
    taken_apart = (
        six,
        step("Reshape", "0", np.array([0, 3, -1])),
        step("InstanceNormalization", "1", np.ones(3), np.zeros(3), epsilon=2**-10),
        step("Reshape", "2", np.array([0, 6, 10, 13])),
        step("Mul", "3", positive(6, 1, 1)),
        step("Add", "4", w(6, 1, 1)),
    )
    return [
        case("InstanceNormalization/2d", six, step("InstanceNormalization", "0", positive(6), w(6), epsilon=2**-10)),
        case("InstanceNormalization/NaN under the mask", step("Abs", "x"), step("Log", "0"),
             step("InstanceNormalization", "1", positive(3), w(3), epsilon=2**-10)),
        case("GroupNormalization/taken apart", *taken_apart),
        case("GroupNormalization/opset 21", six, step("GroupNormalization", "0", positive(6), w(6), num_groups=2),
             opset=21),
        case("LayerNormalization/channels last", step("Transpose", "x", perm=[0, 2, 3, 1]),
             step("LayerNormalization", "0", positive(3), w(3), epsilon=2**-10),
             step("Transpose", "1", perm=[0, 3, 1, 2])),
        case("LayerNormalization/over space", six,
             step("LayerNormalization", "0", positive(6, 10, 13), w(6, 10, 13), axis=1, epsilon=2**-10)),
        case("LRN/channels", six, step("LRN", "0", size=3, alpha=0.2, beta=0.6, bias=1.5), wide=False),
        case("LRN/after Relu", step("Relu", "x"), step("LRN", "0", size=5), wide=False),
        case("RMSNormalization/channels last", step("Transpose", "x", perm=[0, 2, 3, 1]),
             step("RMSNormalization", "0", positive(3), axis=-1, epsilon=2**-10),
             step("Transpose", "1", perm=[0, 3, 1, 2]), opset=23),
        case("MeanVarianceNormalization/space", step("MeanVarianceNormalization", "x", axes=[2, 3]), map=False),
        case("MeanVarianceNormalization/channels and space",
             step("MeanVarianceNormalization", "x", axes=[1, 2, 3]), map=False),
        case("MeanVarianceNormalization/channels", six, step("MeanVarianceNormalization", "0", axes=[1]), wide=False),
        case("LRN/taken apart", step("Mul", "x", "x"), step("Reshape", "0", np.array([-1, 1, 3, 10, 13])),
             step("Pad", "1", np.array([0, 0, 1, 0, 0, 0, 0, 1, 0, 0])),
             step("AveragePool", "2", kernel_shape=[3, 1, 1], strides=[1, 1, 1]), step("Squeeze", "3", np.array([1])),
             step("Add", "4", np.array(1.0)), step("Div", "x", "5")),
    ]  # fmt: skip


def quantised() -> list[Case]:
    """Steps of a power of two, so that no rounding of the numbers before turns a number to the next step."""
    fine, zero, low = np.array(2**-4, np.float32), np.array(7, np.int8), np.array(0, np.uint8)
    there, back = step("QuantizeLinear", "x", fine, zero), step("DequantizeLinear", "0", fine, zero)
    each = np.array([2**-3, 2**-4, 2**-5], np.float32)

    def both(operator: str, name: str, *steps: Step, **settings: Any) -> Case:
        return case(f"{operator}/{name}", *steps, wide=False, **settings)

    return [
        both("QuantizeLinear", "and back", there, back),
        both("QuantizeLinear", "0 is the least", step("QuantizeLinear", "x", fine, low),
             step("DequantizeLinear", "0", fine, low)),
        both("QuantizeLinear", "NaN under the mask", step("Abs", "x"), step("Log", "0"),
             step("QuantizeLinear", "1", fine, zero), step("DequantizeLinear", "2", fine, zero)),
        both("DequantizeLinear", "one scale for each channel", step("QuantizeLinear", "x", each, axis=1),
             step("DequantizeLinear", "0", each, axis=1)),
        both("DequantizeLinear", "behind a MaxPool of integers", there,
             step("MaxPool", "0", kernel_shape=[3, 3], strides=[2, 2]), step("DequantizeLinear", "1", fine, zero)),
        both("DequantizeLinear", "of weights", step("DequantizeLinear", np.arange(-54, 54, dtype=np.int8).reshape(
             4, 3, 3, 3), np.array(2**-5, np.float32)), step("Conv", "x", "0", pads=[1, 1, 1, 1])),
    ]  # fmt: skip
