"""Nodes that the ONNX front end is tested on: one case for each operator and each situation that differs."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper


def case(operator: str, opset: int = 18, *, before: tuple[Any, ...] = (), **given: Any) -> Any:
    """One node that reads x (or what the nodes `before` make of it), parameters as arrays, attributes."""
    parameters = {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
    attributes = {name: value for name, value in given.items() if name not in parameters}
    data, outputs = attributes.pop("reads", ["x"]), attributes.pop("outputs", ["y"])
    also = attributes.pop("also", {})
    nodes = [*before, helper.make_node(operator, [*data, *parameters], outputs, name="tested", **attributes)]
    return operator, opset, nodes, parameters | also


def f32(*shape: int, seed: int = 0) -> Any:
    return (np.random.default_rng(seed).random(shape) + 0.5).astype(np.float32)


def i64(*values: int) -> Any:
    return np.array(values, np.int64)


NEGATED = (helper.make_node("Neg", ["x"], ["z"]),)
NHWC = (helper.make_node("Transpose", ["x"], ["z"], perm=[0, 2, 3, 1]),)
POOLED = (helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["z"]))
BOUNDED = (helper.make_node("Tanh", ["x"], ["z"]),)
POSITIVE = (helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Exp", ["a"], ["z"]))
PADDED = (helper.make_node("Pad", ["x"], ["z"], pads=[0, 0, 1, 2, 0, 0, 0, 1]),)

COMPARED = (
    helper.make_node("Neg", ["x"], ["n"]),
    helper.make_node("Greater", ["x", "n"], ["p"]),
    helper.make_node("Less", ["x", "limit"], ["q"]),
)
LIMIT = {"limit": np.array(0.5, np.float32)}
REPLACED = (*COMPARED, helper.make_node("Where", ["p", "x", "other"], ["z"]))
FLATTENED = (helper.make_node("Reshape", ["x", "flat"], ["z"]),)
AVERAGED = (helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 3]),)
QUANTISED = (helper.make_node("QuantizeLinear", ["x", "step"], ["z"]),)
RAISED = (helper.make_node("Unsqueeze", ["x", "one"], ["z"]),)
# A map of 6x5 pixels as one of 6x4 or of 5x5.
EVEN = (helper.make_node("Slice", ["x", "start", "end", "last"], ["z"]),)
FIFTHS = (helper.make_node("Slice", ["x", "start", "end", "second"], ["z"]),)
# Two channels, because onnx's evaluator normalises as many channels as there are images.
PAIR = (helper.make_node("Slice", ["x", "second", "four", "first"], ["z"]),)
BOUNDS = {"start": i64(0), "end": i64(-1), "last": i64(3), "second": i64(2), "four": i64(4), "first": i64(1)}
RESIZES = [
    ("nearest", {}),
    ("nearest", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    ("nearest", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "ceil"}),
    ("nearest", {"nearest_mode": "round_prefer_ceil"}),
    ("linear", {}),
    ("linear", {"coordinate_transformation_mode": "align_corners"}),
    ("linear", {"coordinate_transformation_mode": "asymmetric"}),
    ("linear", {"coordinate_transformation_mode": "pytorch_half_pixel"}),
]
CASES = [
    *[
        case(name)
        for name in [
            "Abs",
            "Asinh",
            "Atan",
            "Ceil",
            "Celu",
            "Cos",
            "Cosh",
            "Elu",
            "Erf",
            "Exp",
            "Floor",
            "HardSigmoid",
            "Identity",
            "LeakyRelu",
            "Mish",
            "Neg",
        ]
    ],
    *[
        case(name)
        for name in ["Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Tanh"]
    ],
    *[case(name) for name in ["Sin", "Sinh", "Tan"]],
    *[case(name, reads=["z"], before=BOUNDED) for name in ["Acos", "Asin", "Atanh"]],
    case("Acosh", reads=["z"], before=POSITIVE),
    case("IsNaN", reads=["z"], before=REPLACED, also=LIMIT | {"other": np.array(np.nan, np.float32)}),
    *[
        case("IsInf", reads=["z"], before=REPLACED, also=LIMIT | {"other": np.array(-np.inf, np.float32)}, **signs)
        for signs in ({}, {"detect_negative": 0}, {"detect_positive": 0})
    ],
    *[
        case(name, reads=["x", "z"], before=NEGATED)
        for name in ["Add", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum"]
    ],
    case("HardSwish"),
    case("Gelu", 20, approximate="tanh"),
    case("Log", reads=["z"], before=POSITIVE),
    case("Sqrt", reads=["z"], before=POSITIVE),
    case("Pow", reads=["z"], before=POSITIVE, exponent=np.float32(0.5).reshape(1)),
    case("Cast", to=TensorProto.INT32),
    case("Clip", low=np.array(-0.5, np.float32), high=np.array(0.25, np.float32)),
    case("Clip", 10, min=-0.5, max=0.25),
    case("Dropout", 12),
    case("PRelu", slope=f32(4, 1, 1)),
    case("BatchNormalization", s=f32(4), b=f32(4, seed=1), m=f32(4, seed=2), v=f32(4, seed=3)),
    case("InstanceNormalization", s=f32(4), b=f32(4, seed=1)),
    case("GroupNormalization", 21, s=f32(4), b=f32(4, seed=1), num_groups=2),
    case("LayerNormalization", reads=["z"], before=NHWC, s=f32(4), b=f32(4, seed=1)),
    case("LayerNormalization", s=f32(6, 5), axis=-2),
    case("Conv", w=f32(6, 2, 3, 3), b=f32(6), group=2, pads=[1, 1, 1, 1], strides=[2, 2]),
    case("Conv", w=f32(3, 4, 3, 2), auto_pad="SAME_UPPER", strides=[2, 1]),
    case("Conv", w=f32(3, 4, 2, 2), auto_pad="SAME_LOWER"),
    case("Conv", 10, reads=["z"], before=PADDED, w=f32(3, 4, 3, 3), pads=[0, 1, 1, 0]),
    case("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[0, 1, 1, 0]),
    case("MaxPool", kernel_shape=[2, 2], dilations=[2, 3], storage_order=1),
    case("MaxPool", 10, reads=["z"], before=PADDED, kernel_shape=[3, 3]),
    case("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], auto_pad="NOTSET"),
    case("AveragePool", kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("AveragePool", kernel_shape=[6, 5]),
    case("GlobalAveragePool"),
    case("GlobalMaxPool"),
    *[case(name, 17, axes=[2, 3], keepdims=0) for name in ("ReduceMean", "ReduceMax", "ReduceMin")],
    *[case(name, axes=i64(-1)) for name in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum")],
    case("ReduceMean", axes=i64(1)),
    case("ReduceSum", 12, axes=[2, 3]),
    case("Gather", indices=i64(2, 0, -1), axis=1),
    *[case(name, axes=i64(-1)) for name in ("ReduceL1", "ReduceL2", "ReduceSumSquare")],
    case("Softmax", axis=1),
    case("Softmax", 12, reads=["z"], before=NHWC, axis=3),
    case("LogSoftmax", axis=1),
    case("Concat", reads=["x", "z"], before=NEGATED, axis=1),
    case("Concat", reads=["x", "z"], before=NEGATED, axis=-1),
    case("Transpose", perm=[0, 2, 3, 1]),
    case("Reshape", shape=i64(0, 2, 2, 6, 5)),
    case("Reshape", shape=i64(0, 0, -1)),
    case("Reshape", shape=i64(0, -1)),
    case("Flatten"),
    case("Squeeze", reads=["z"], before=(helper.make_node("Unsqueeze", ["x"], ["z"], axes=[1]),), opset=12, axes=[1]),
    case("Unsqueeze", axes=i64(1, -1)),
    case("Unsqueeze", 12, axes=[2]),
    case("Pad", pads=i64(0, 0, 1, 2, 0, 0, 1, 0), mode="reflect"),
    case("Pad", pads=i64(1, 2, 0, 1), value=np.array(0, np.float32), axes=i64(3, 2), mode="edge"),
    case("MatMul", reads=["z"], before=NHWC, w=f32(4, 3)),
    case("Gemm", reads=["z"], before=POOLED, w=f32(3, 4), b=f32(3), transB=1, alpha=0.5),
    case("Einsum", w=f32(4, 3), equation="nchw,cd->nhdw"),
    case("LpNormalization", axis=1),
    case("Gather", indices=i64(2, 0, -1, 1), axis=3),
    case("Shape", start=1),
    case("Softmax", 11, reads=["z"], before=POOLED),
    *[
        case(name, reads=["x", "n"], before=COMPARED, also=LIMIT)
        for name in ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"]
    ],
    case("Equal", reads=["p", "q"], before=COMPARED, also=LIMIT),
    case("Mod", fmod=1, divisor=f32(1)),
    *[case(name, reads=["p", "q"], before=COMPARED, also=LIMIT) for name in ["And", "Or", "Xor"]],
    case("Not", reads=["p"], before=COMPARED, also=LIMIT),
    case("Where", reads=["p", "x", "n"], before=COMPARED, also=LIMIT),
    case("ThresholdedRelu", alpha=0.3),
    case("Shrink", lambd=0.4, bias=0.2),
    case("Swish", 24, alpha=1.5),
    case("Hardmax", axis=1),
    case("LRN", reads=["z"], before=PAIR, size=3, alpha=0.5, beta=0.6, bias=1.5, also=BOUNDS),
    case("MeanVarianceNormalization", axes=[2, 3]),
    case("RMSNormalization", 23, reads=["z"], before=NHWC, s=f32(4)),
    *[case(name, axes=i64(1), reads=["a"], before=POSITIVE) for name in ("ReduceLogSum", "ReduceLogSumExp")],
    case("ReduceProd", 17, axes=[1], keepdims=0),
    case("Split", sizes=i64(3, 1), axis=1, outputs=["other", "y"]),
    case("Split", 12, split=[2, 4], axis=2, outputs=["other", "y"]),
    case("Split", axis=3, num_outputs=2, outputs=["other", "y"]),
    case("Slice", starts=i64(1), ends=i64(-1), axes=i64(1)),
    case("Slice", starts=i64(-1, 5), ends=i64(-99, 1), axes=i64(-1, 2), steps=i64(-2, -1)),
    case("Slice", starts=i64(0, 1), ends=i64(2**62, 3)),
    case("Expand", 17, reads=["m"], before=AVERAGED, shape=i64(4, 6, 5)),
    case("Tile", repeats=i64(1, 2, 1, 2)),
    case("Gather", indices=i64(2, 0, -1, 1).reshape(2, 2), axis=1),
    case("Gather", indices=np.array(2, np.int64), axis=1),
    case("SpaceToDepth", reads=["z"], before=EVEN, blocksize=2, also=BOUNDS),
    case("SpaceToDepth", reads=["z"], before=FIFTHS, blocksize=5, also=BOUNDS),
    case("MatMul", reads=["w", "z"], before=FLATTENED, also={"w": f32(3, 4), "flat": i64(0, 0, -1)}),
    case("Pad", pads=i64(0, 1, 0, 0, 0, 2, 0, 0), value=np.array(3, np.float32)),
    case("QuantizeLinear", s=np.array(0.05, np.float32), zero=np.array(128, np.uint8)),
    case("QuantizeLinear", 13, s=f32(4) / 20, zero=np.array([0, 5, -9, 100], np.int8), axis=1),
    case(
        "DequantizeLinear",
        21,
        reads=["z"],
        before=QUANTISED,
        s2=f32(4),
        zero=np.array([1, 2, 3, 4], np.uint8),
        also={"step": np.array(0.02, np.float32)},
    ),
    case(
        "AveragePool", reads=["z"], before=RAISED, kernel_shape=[3, 1, 1], pads=[1, 0, 0, 1, 0, 0], also={"one": i64(1)}
    ),
    *[
        case("Resize", opset, reads=["x", "", ""], sizes=i64(2, 4, *size), mode=mode, **options)
        for mode, options in RESIZES
        for opset, size in ((11, (9, 10)), (19, (4, 3)))
    ],
    case("Resize", 18, reads=["x", ""], scales=np.array([2, 1.6], np.float32), axes=[2, 3]),
    case("Resize", 13, reads=["x", ""], scales=np.array([1, 1, 1.5, 2], np.float32), mode="linear"),
]
