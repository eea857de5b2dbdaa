"""Operators that bring activations together."""

from __future__ import annotations

import numpy as np

from lmonnx.masking import MaskRules
from tests.families.case import Case, case, w
from tests.graphs import Step, step


def joins() -> list[Case]:
    one = step("Conv", "x", w(3, 3, 1, 1))
    wide = step("Conv", "x", w(3, 3, 3, 3), w(3), pads=[1, 1, 1, 1])
    signs = (wide, one, *(step("Greater", value, np.array(0.0)) for value in "01"))
    cases = [
        case(f"{operator}/two masks", wide, one, step(operator, "0", "1"))
        for operator in ("Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean")
    ]
    gate = (step("GlobalAveragePool", "0"), step("Conv", "1", w(3, 3, 1, 1), w(3)), step("Sigmoid", "2"))
    narrow = step("Conv", "x", w(3, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    return [
        *cases,
        case("Add/residual block", wide, step("Relu", "0"), step("Add", "1", "x")),
        case("Add/two strided branches", narrow, step("Conv", "x", w(3, 3, 1, 1), strides=[2, 2]),
             step("Add", "0", "1")),
        case("Add/three branches", wide, narrow, step("Conv", "0", w(3, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
             step("Add", "1", "2")),
        case("Add/a constant for each channel", step("Relu", "x"), step("Add", "0", w(3, 1, 1))),
        case("Min/an infinite constant", step("Min", "x", np.array(np.inf))),
        case("Add/a constant for each position", step("Add", w(1, 1, 10, 13), "x")),
        case("Sum/one operand", step("Sum", "x")),
        case("Sum/three", wide, one, step("Sum", "0", "1", "x")),
        case("Max/a constant", step("Max", "x", np.array(0.25))),
        case("Mul/squeeze-excite", wide, *gate, step("Mul", "3", "0")),
        case("Mul/gate of either sign", wide, *gate[:2], step("Mul", "0", "2")),
        case("Mul/broadcast over columns", step("ReduceMean", "x", np.array([3])), wide, step("Mul", "0", "1")),
        case("Mul/both broadcast", step("ReduceMean", "x", np.array([3])), step("ReduceMax", "x", np.array([2])),
             step("Mul", "0", "1")),
        case("Mul/coordinate attention", wide, *_coordinate_attention(), step("Mul", "0", "10"),
             step("Mul", "13", "12")),
        case("Div/a constant", step("Div", "x", np.array(6.0))),
        case("Div/0 by 0 under the mask", wide, step("Div", "0", "x")),
        case("Pow/2", wide, step("Pow", "0", np.array(2.0))),
        case("Pow/-1", step("Pow", "x", np.array(-1.0))),
        case("PRelu/slope for each channel", wide, step("PRelu", "0", w(3, 1, 1))),
        *[
            case(f"Concat/channels, {rule}", wide, one, step("Concat", "0", "x", "1", axis=1),
                 rules=MaskRules(concat=rule))
            for rule in ("all", "any", "majority")
        ],
        *[
            case(f"Concat/an unmasked operand, {rule}", *_gate_map(), step("Concat", "3", "x", axis=1),
                 rules=MaskRules(concat=rule))
            for rule in ("all", "any", "majority")
        ],
        case("Concat/one operand", step("Concat", "x", axis=1), rules=MaskRules(concat="majority")),
        case("Concat/rows", wide, one, step("Concat", "0", "1", axis=2)),
        case("Concat/columns", wide, one, step("Concat", "0", "1", axis=-1)),
        *[
            case(f"{operator}/two masks, then Where", wide, one, step(operator, "0", "1"), step("Where", "2", "x", "0"))
            for operator in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
        ],
        *[
            case(f"{operator}/then Where", *signs, step(operator, "2", "3"), step("Where", "4", "0", "1"))
            for operator in ("And", "Or", "Xor")
        ],
        case("Where/a constant branch", wide, step("Greater", "0", np.array(0.25)),
             step("Where", "1", "0", np.array(0.0))),
        case("Where/an infinite branch", wide, step("Greater", "0", np.array(0.25)),
             step("Where", "1", np.array(-np.inf), "0"), step("Exp", "2")),
        case("Where/a constant condition", wide, step("Where", w(1, 3, 10, 13) > 0, "0", "x")),
        case("Mod/of numbers", step("Mod", "x", np.array(0.375), fmod=1)),
        case("Mul/a gate for each row", wide, step("ReduceMean", "0", np.array([3])),
             step("Squeeze", "1", np.array([3])), step("Sigmoid", "2"), step("Unsqueeze", "3", np.array([3])),
             step("Mul", "0", "4")),
        case("Mul/a gate for each row, without keepdims", wide, step("ReduceMean", "0", np.array([3]), keepdims=0),
             step("Sigmoid", "1"), step("Unsqueeze", "2", np.array([3])), step("Mul", "0", "3")),
        case("Einsum/channels to channels", wide, step("Einsum", "0", w(3, 5), equation="nchw,cd->ndhw")),
        case("Einsum/to channels last", wide, step("Einsum", w(3, 5), "0", equation="cd, nchw -> nwhd"),
             step("Transpose", "1", perm=[0, 3, 2, 1])),
        case("Einsum/an outer product", wide, step("Einsum", "0", w(2), equation="nchw,d->ndchw"),
             step("Reshape", "1", np.array([0, 6, 10, 13]))),
        case("MatMul/the activation on the right", step("Reshape", "x", np.array([0, 3, 130])),
             step("MatMul", w(5, 3), "0"), step("Reshape", "1", np.array([0, 5, 10, 13]))),
        case("MatMul/channels last", step("Transpose", "x", perm=[0, 2, 3, 1]), step("MatMul", "0", w(3, 5)),
             step("Transpose", "1", perm=[0, 3, 1, 2])),
    ]  # fmt: skip


def _gate_map() -> tuple[Step, ...]:
    """Steps 0 to 3: a map [N, 3, 10, 13] that no mask applies to."""
    return (
        step("GlobalAveragePool", "x"),
        step("Conv", "0", w(3, 3, 1, 1)),
        step("Mul", "1", np.ones((1, 1, 10, 13))),
        step("Relu", "2"),
    )


def _coordinate_attention() -> tuple[Step, ...]:
    """Steps 1 to 12 over a map [N, 3, 10, 13] of step 0: a gate for each row (10) and one for each column (12).

    Hou et al., Coordinate Attention for Efficient Mobile Network Design (CVPR 2021).
    """
    turned = [0, 1, 3, 2]
    return (
        step("ReduceMean", "0", np.array([3])),
        step("ReduceMean", "0", np.array([2])),
        step("Transpose", "2", perm=turned),
        step("Concat", "1", "3", axis=2),
        step("Conv", "4", w(4, 3, 1, 1), w(4)),
        step("Tanh", "5"),
        step("Split", "6", np.array([10, 13]), axis=2, outputs=2),
        step("Transpose", "7:1", perm=turned),
        step("Conv", "7:0", w(3, 4, 1, 1)),
        step("Sigmoid", "9"),
        step("Conv", "8", w(3, 4, 1, 1)),
        step("Sigmoid", "11"),
    )
