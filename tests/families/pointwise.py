"""Operators that treat every position alone, and reductions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from tests.families.case import AREA, CONV, Case, case, positive, w
from tests.graphs import step


def reductions() -> list[Case]:
    cases = []
    for operator in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare"):
        for name, axes, keepdims in (
            ("space", [2, 3], 1),
            ("space, squeezed", [-1, -2], 0),
            ("rows", [2], 1),
            ("columns, squeezed", [3], 0),
            ("channels", [1], 1),
            ("channels and space", [1, 2, 3], 1),
            ("channels and rows", [1, 2], 0),
        ):
            cases.append(case(f"{operator}/{name}", CONV, step(operator, "0", np.array(axes), keepdims=keepdims)))
    for operator in ("ReduceLogSum", "ReduceLogSumExp", "ReduceProd"):
        for name, keepdims in (("channels", 1), ("channels, squeezed", 0)):
            reduced = step(operator, "1", np.array([1]), keepdims=keepdims)
            cases.append(case(f"{operator}/{name}", step("Relu", "x"), step("Add", "0", np.array(0.125)), reduced))
    cases.append(case("ReduceMean/space, area", CONV, step("ReduceMean", "0", np.array([2, 3])), rules=AREA))
    return cases


def pointwise() -> list[Case]:
    plain = (
        "Abs Asinh Atan Ceil Celu Cos Cosh Elu Erf Exp Floor HardSigmoid HardSwish Identity LeakyRelu Mish Neg Relu "
        "Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Tanh"
    )
    cases = [case(f"{operator}/either sign", CONV, step(operator, "0")) for operator in plain.split()]
    cases += [
        case(f"{operator}/0 under the mask", step("Abs", "x"), step(operator, "0"))
        for operator in ("Log", "Sqrt", "Reciprocal")
    ]
    cases += [
        case(
            f"{operator}/between -1 and 1",
            CONV,
            step("Tanh", "0"),
            step("Mul", "1", np.array(0.9)),
            step(operator, "2"),
        )
        for operator in ("Acos", "Asin", "Atanh", "Tan")
    ]
    infinite, zero = (step("Relu", "x"), step("Div", "x", "0")), np.array(0.0)
    statistics = (positive(4), w(4), w(4), positive(4))
    return [
        *cases,
        case("Sqrt/NaN under the mask", step("Abs", "x"), step("Sub", "0", np.array(1e-9)), step("Sqrt", "1")),
        case("Acosh/NaN under the mask", step("Abs", "x"), step("Ceil", "0"), step("Acosh", "1")),
        case("Atanh/infinite under the mask", step("Cos", "x"), step("Atanh", "0")),
        case("IsNaN/of a logarithm", step("Log", "x"), step("IsNaN", "0"), step("Where", "1", zero, "0")),
        case("IsInf/of a quotient", *infinite, step("IsInf", "1"), step("Where", "2", zero, "1")),
        case(
            "IsInf/of one sign",
            *infinite,
            step("Neg", "1"),
            step("IsInf", "2", detect_negative=0),
            step("Where", "3", zero, "2"),
        ),
        case("Gelu/exact", step("Gelu", "x"), opset=20),
        case("Gelu/tanh", step("Gelu", "x", approximate="tanh"), opset=20),
        case("Swish/of its own", step("Swish", "x", alpha=1.5), opset=24),
        case("Shrink/hard", step("Shrink", "x", lambd=0.6)),
        case("Shrink/soft", CONV, step("Shrink", "0", lambd=0.4, bias=0.3)),
        case("ThresholdedRelu/of its own", CONV, step("ThresholdedRelu", "0", alpha=0.3)),
        case(
            "Not/then Cast",
            step("Greater", "x", np.array(0.1)),
            step("Not", "0"),
            step("Where", "1", "x", np.array(0.0)),
        ),
        case("HardSigmoid/of its own", step("HardSigmoid", "x", alpha=0.3, beta=0.4)),
        case("LeakyRelu/of its own", step("LeakyRelu", "x", alpha=0.3)),
        case("Clip/0 to 6", CONV, step("Clip", "0", np.array(0.0), np.array(1.5))),
        case("Clip/from above 0", step("Clip", "x", np.array(0.5), "")),
        case("Clip/below 0", step("Clip", "x", "", np.array(-0.5))),
        case("Clip/no bounds", step("Clip", "x")),
        case("Clip/bounds of one axis", CONV, step("Clip", "0", np.array([0.0]), np.array([0.7]))),
        case("Cast/float32", CONV, step("Cast", "0", to=onnx.TensorProto.FLOAT), wide=False),
        case("Cast/like a map", CONV, step("CastLike", np.array([3]), "0"), step("Mul", "0", "1")),
        case("Cast/a map like another", step("Greater", "x", np.array(0.1)), step("CastLike", "0", "x")),
        case("Dropout/evaluation", CONV, step("Dropout", "0")),
        case("BatchNormalization/alone", step("Relu", "x"), step("BatchNormalization", "0", *_three(statistics))),
        case("Softmax/channels", CONV, step("Softmax", "0", axis=1)),
        case("Selu/of a negative factor", CONV, step("Relu", "0"), step("Selu", "1", gamma=-1.0)),
        case("LpNormalization/channels", CONV, step("LpNormalization", "0", axis=1)),
        case("LpNormalization/channels, sums", CONV, step("LpNormalization", "0", axis=-3, p=1), wide=False),
        case("Hardmax/channels", CONV, step("Hardmax", "0", axis=1)),
        case("LogSoftmax/channels", CONV, step("LogSoftmax", "0", axis=1)),
    ]


def _three(statistics: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [part[:3] for part in statistics]
