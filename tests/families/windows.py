"""Operators that slide a window over space, and global pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmonnx.masking import MaskRules
from tests.families.case import AREA, CONV, Case, case, positive, w
from tests.graphs import Step, step


def windows() -> list[Case]:
    def conv(name: str, weight: Sequence[int], **attributes: Any) -> Case:
        return case(f"Conv/{name}", step("Conv", "x", w(*weight), w(weight[0]), **attributes))

    def pooled(operator: str, name: str, *before: Step, rules: MaskRules | None = None, **attributes: Any) -> Case:
        source = str(len(before) - 1) if before else "x"
        return case(f"{operator}/{name}", *before, step(operator, source, **attributes), rules=rules or MaskRules())

    def pad(value: float, *pads: int, of: str = "x") -> Step:
        return step("Pad", of, np.array([0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]]), np.array(float(value)))

    relu = step("Relu", "x")
    three = {"kernel_shape": [3, 3]}
    return [
        conv("3x3", (4, 3, 3, 3), pads=[1, 1, 1, 1]),
        conv("no padding", (4, 3, 3, 3)),
        conv("stride 2", (4, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]),
        conv("1x1", (4, 3, 1, 1)),
        conv("1x1 stride 2", (4, 3, 1, 1), strides=[2, 2]),
        conv("padding alone", (4, 3, 1, 1), pads=[1, 2, 0, 1]),
        conv("7x7 stride 2", (4, 3, 7, 7), pads=[3, 3, 3, 3], strides=[2, 2]),
        conv("dilated", (4, 3, 3, 3), pads=[2, 2, 2, 2], dilations=[2, 2]),
        conv("oblong", (4, 3, 1, 5), pads=[0, 2, 0, 2]),
        conv("even, uneven pads", (4, 3, 4, 2), pads=[1, 0, 2, 1], strides=[3, 1]),
        conv("depthwise", (3, 1, 3, 3), pads=[1, 1, 1, 1], group=3),
        conv("SAME_UPPER", (4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
        conv("SAME_LOWER", (4, 3, 4, 4), strides=[2, 3], auto_pad="SAME_LOWER"),
        conv("VALID", (4, 3, 3, 3), auto_pad="VALID"),
        case("Conv/twice", CONV, step("Conv", "0", w(5, 4, 3, 3), pads=[1, 1, 1, 1])),
        case("Conv/folded norm", CONV, step("BatchNormalization", "0", positive(4), w(4), w(4), positive(4))),
        case("Conv/computed kernel", step("Add", w(4, 3, 3, 3), w(4, 3, 3, 3)), step("Conv", "x", "0")),
        case("Pad/zero, then Conv", pad(0, 1, 2, 0, 1), step("Conv", "0", w(4, 3, 3, 3), strides=[2, 2])),
        case("Pad/zero, then padded Conv", pad(0, 1, 1, 1, 1), step("Conv", "0", w(4, 3, 3, 3), pads=[1, 0, 0, 1])),
        case("Pad/1.5, then Conv", pad(1.5, 1, 1, 1, 1), step("Conv", "0", w(4, 3, 3, 3))),
        case("Pad/-2, then MaxPool", pad(-2, 1, 1, 1, 1), step("MaxPool", "0", **three)),
        case("Pad/zero, then AveragePool", pad(0, 1, 1, 1, 1), step("AveragePool", "0", **three)),
        case("Pad/channels", CONV, step("Pad", "0", np.array([0, 2, 0, 0, 0, 1, 0, 0]))),
        case(
            "Pad/channels and space",
            step("Pad", "x", np.array([0, 0, 1, 1, 0, 2, 1, 0])),
            step("Conv", "0", w(4, 5, 3, 3)),
        ),
        case("Pad/cut and zero, then Conv", pad(0, -1, -2, 1, 1), step("Conv", "0", w(4, 3, 1, 1), strides=[2, 2])),
        case(
            "Pad/cut and zero, then AveragePool",
            pad(0, -1, -1, 1, 1),
            step("AveragePool", "0", kernel_shape=[1, 1], strides=[2, 2]),
        ),
        case(
            "Pad/cut and zero, then MaxPool",
            pad(0, -1, -1, 1, 1),
            step("MaxPool", "0", kernel_shape=[1, 1], strides=[2, 2]),
        ),
        case(
            "Pad/zero, cut on the other side by a Slice, then AveragePool",
            pad(0, 0, 0, 1, 1),
            step("Slice", "0", np.array([1, 1]), np.array([2**31 - 1, 2**31 - 1]), np.array([2, 3])),
            step("AveragePool", "1", kernel_shape=[1, 1], strides=[2, 2]),
        ),
        case(
            "Pad/1.5, cut and every other by a Slice, then Conv",
            CONV,
            pad(1.5, 3, 2, 2, 3, of="0"),
            step("Slice", "1", np.array([1, 2]), np.array([-1, -2]), np.array([2, 3]), np.array([2, 1])),
            step("Slice", "2", np.array([1]), np.array([3]), np.array([1])),
            step("Conv", "3", w(4, 2, 3, 3)),
        ),
        case(
            "Pad/zero, cut by a Pad, then MaxPool",
            pad(0, 1, 1, 1, 1),
            pad(0, -2, 0, 1, -1, of="0"),
            step("MaxPool", "1", **three),
        ),
        case("Pad/cut alone", CONV, step("Pad", "0", np.array([0, 0, -2, 0, 0, 0, -1, -3]))),
        case("Pad/no pixels", pad(0, 0, 0, 0, 0), step("Conv", "0", w(4, 3, 3, 3))),
        case("Pad/reflect", step("Pad", "x", np.array([0, 0, 1, 2, 0, 0, 2, 1]), mode="reflect")),
        case("Pad/edge", step("Pad", "x", np.array([0, 0, 1, 2, 0, 0, 2, 1]), mode="edge")),
        case("Pad/wrap", step("Pad", "x", np.array([0, 0, 1, 2, 0, 0, 2, 1]), mode="wrap"), opset=19),
        pooled("MaxPool", "either sign", pads=[1, 1, 1, 1], strides=[2, 2], **three),
        pooled("MaxPool", "after Relu", relu, pads=[1, 1, 1, 1], strides=[2, 2], **three),
        pooled("MaxPool", "after Conv", CONV, pads=[1, 1, 1, 1], **three),
        pooled("MaxPool", "after Conv and Relu", CONV, step("Relu", "0"), strides=[2, 2], **three),
        pooled("MaxPool", "ceil_mode", ceil_mode=1, strides=[2, 2], **three),
        pooled(
            "MaxPool", "ceil_mode drops a window", ceil_mode=1, strides=[3, 3], kernel_shape=[1, 2], pads=[0, 0, 0, 1]
        ),
        pooled("MaxPool", "dilated", dilations=[2, 3], **three),
        pooled("MaxPool", "whole map", kernel_shape=[10, 13]),
        pooled("MaxPool", "SAME_UPPER", auto_pad="SAME_UPPER", strides=[2, 2], **three),
        pooled("AveragePool", "2x2", kernel_shape=[2, 2], strides=[2, 2]),
        pooled("AveragePool", "padding not counted", pads=[1, 1, 1, 1], **three),
        pooled("AveragePool", "padding counted", pads=[1, 1, 1, 1], count_include_pad=1, **three),
        pooled("AveragePool", "ceil_mode", ceil_mode=1, strides=[2, 2], **three),
        pooled("AveragePool", "area", pads=[1, 1, 1, 1], rules=AREA, **three),
        pooled("AveragePool", "1x1", kernel_shape=[1, 1]),
        pooled("AveragePool", "after Conv", CONV, kernel_shape=[2, 2], strides=[2, 2]),
        pooled("AveragePool", "whole map", kernel_shape=[10, 13]),
        pooled("AveragePool", "whole map, area", CONV, kernel_shape=[10, 13], rules=AREA),
        pooled("AveragePool", "SAME_LOWER", auto_pad="SAME_LOWER", strides=[2, 2], kernel_shape=[2, 2]),
        pooled("GlobalAveragePool", "valid", CONV),
        pooled("GlobalAveragePool", "area", CONV, rules=AREA),
        pooled("GlobalMaxPool", "either sign", CONV),
        pooled("GlobalMaxPool", "negative", step("Exp", "x"), step("Neg", "0")),
    ]
