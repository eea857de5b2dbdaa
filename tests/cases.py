"""One table of operator cases: every operator that can be masked, in the situations that differ.

A case is a graph of a few nodes. It runs through the lowering, in onnxruntime and in onnx's evaluator, and through
the reference; see test_operators.py. Its name begins with the operator that it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from lmonnx.masking import MaskRules
from tests.graphs import Step, build, step

_rng = np.random.default_rng(7)


def w(*shape: int) -> np.ndarray:
    """Normal weights."""
    return _rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))


def positive(*shape: int) -> np.ndarray:
    return _rng.uniform(0.5, 1.5, size=shape)


DEFAULT = MaskRules()


@dataclass(frozen=True, eq=False)
class Case:
    """A graph about one operator.

    Attributes:
        name: the operator, a slash, and the situation.
        steps: the nodes.
        shape: of the image, without the batch.
        rules: the mask rules.
        opset: of the graph.
        layout: of the graph's image input.
        map: whether what reads across positions is put behind the case in turn, if its result is a map.
        original: whether an all-True mask gives the original output: not where a window sees nothing but padding,
            which no mask keeps.
        wide: whether a float64 form says something; a Cast to float32 does not have one.
    """

    name: str
    steps: tuple[Step, ...]
    shape: tuple[int, ...] = (3, 10, 13)
    rules: MaskRules = DEFAULT
    opset: int = 18
    layout: str = "NCHW"
    map: bool = True
    original: bool = True
    wide: bool = True

    @property
    def operator(self) -> str:
        return self.name.partition("/")[0]

    def model(self, dtype: Any = np.float32) -> onnx.ModelProto:
        return build(self.steps, self.shape, self.opset, dtype)

    def probes(self) -> list[Case]:
        """The case, and if its result is a map, the case followed by what reads across positions.

        This is where values that were left unzeroed at removed positions would be seen.
        """
        shape = [d.dim_value for d in self.model().graph.output[0].type.tensor_type.shape.dim]
        if not self.map or len(shape) != 4 or min(shape[2:]) < 3:
            return [self]
        last = str(len(self.steps) - 1)
        return [
            self,
            self.followed_by("Conv", step("Conv", last, w(2, shape[1], 3, 3), pads=[1, 1, 1, 1])),
            self.followed_by("MaxPool", step("MaxPool", last, kernel_shape=[3, 3], strides=[2, 2])),
            self.followed_by("GlobalAveragePool", step("GlobalAveragePool", last)),
        ]

    def followed_by(self, name: str, *steps: Step) -> Case:
        return replace(self, name=f"{self.name}, then {name}", steps=(*self.steps, *steps))


def case(name: str, *steps: Step, **settings: Any) -> Case:
    return Case(name, steps, **settings)


AREA = MaskRules(average="area")
CONV = step("Conv", "x", w(4, 3, 3, 3), w(4), pads=[1, 1, 1, 1])
PROBE = (5, 3, 3, 3)


def _windows() -> list[Case]:
    def conv(name: str, weight: Sequence[int], **attributes: Any) -> Case:
        return case(f"Conv/{name}", step("Conv", "x", w(*weight), w(weight[0]), **attributes))

    def pooled(operator: str, name: str, *before: Step, rules: MaskRules | None = None, **attributes: Any) -> Case:
        source = str(len(before) - 1) if before else "x"
        return case(f"{operator}/{name}", *before, step(operator, source, **attributes), rules=rules or MaskRules())

    def pad(value: float, *pads: int) -> Step:
        return step("Pad", "x", np.array([0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]]), np.array(float(value)))

    relu = step("Relu", "x")
    three = {"kernel_shape": [3, 3]}
    return [
        conv("3x3", (4, 3, 3, 3), pads=[1, 1, 1, 1]),
        conv("no padding", (4, 3, 3, 3)),
        conv("stride 2", (4, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]),
        conv("1x1", (4, 3, 1, 1)),
        conv("1x1 stride 2", (4, 3, 1, 1), strides=[2, 2]),
        replace(conv("padding alone", (4, 3, 1, 1), pads=[1, 2, 0, 1]), original=False),
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
        case("Pad/no pixels", pad(0, 0, 0, 0, 0), step("Conv", "0", w(4, 3, 3, 3))),
        case("Pad/reflect", step("Pad", "x", np.array([0, 0, 1, 2, 0, 0, 2, 1]), mode="reflect")),
        case("Pad/edge", step("Pad", "x", np.array([0, 0, 1, 2, 0, 0, 2, 1]), mode="edge")),
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


def _reductions() -> list[Case]:
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
    cases.append(case("ReduceMean/space, area", CONV, step("ReduceMean", "0", np.array([2, 3])), rules=AREA))
    return cases


def _pointwise() -> list[Case]:
    plain = (
        "Abs Ceil Celu Elu Erf Exp Floor HardSigmoid HardSwish Identity LeakyRelu Mish Neg Relu Round Selu Sigmoid "
        "Sign Softplus Softsign Tanh"
    )
    cases = [case(f"{operator}/either sign", CONV, step(operator, "0")) for operator in plain.split()]
    cases += [
        case(f"{operator}/0 under the mask", step("Abs", "x"), step(operator, "0"))
        for operator in ("Log", "Sqrt", "Reciprocal")
    ]
    statistics = (positive(4), w(4), w(4), positive(4))
    return [
        *cases,
        case("Sqrt/NaN under the mask", step("Abs", "x"), step("Sub", "0", np.array(1e-9)), step("Sqrt", "1")),
        case("Gelu/exact", step("Gelu", "x"), opset=20),
        case("Gelu/tanh", step("Gelu", "x", approximate="tanh"), opset=20),
        case("HardSigmoid/of its own", step("HardSigmoid", "x", alpha=0.3, beta=0.4)),
        case("LeakyRelu/of its own", step("LeakyRelu", "x", alpha=0.3)),
        case("Clip/0 to 6", CONV, step("Clip", "0", np.array(0.0), np.array(1.5))),
        case("Clip/from above 0", step("Clip", "x", np.array(0.5), "")),
        case("Clip/below 0", step("Clip", "x", "", np.array(-0.5))),
        case("Clip/no bounds", step("Clip", "x")),
        case("Clip/bounds of one axis", CONV, step("Clip", "0", np.array([0.0]), np.array([0.7]))),
        case("Cast/float32", CONV, step("Cast", "0", to=onnx.TensorProto.FLOAT), wide=False),
        case("Dropout/evaluation", CONV, step("Dropout", "0")),
        case("BatchNormalization/alone", step("Relu", "x"), step("BatchNormalization", "0", *_three(statistics))),
        case("Softmax/channels", CONV, step("Softmax", "0", axis=1)),
        case("LogSoftmax/channels", CONV, step("LogSoftmax", "0", axis=1)),
    ]


def _three(statistics: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [part[:3] for part in statistics]


def _joins() -> list[Case]:
    one = step("Conv", "x", w(3, 3, 1, 1))
    wide = step("Conv", "x", w(3, 3, 3, 3), w(3), pads=[1, 1, 1, 1])
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
            case(f"Concat/an unmasked operand, {rule}", *gate_map(), step("Concat", "3", "x", axis=1),
                 rules=MaskRules(concat=rule))
            for rule in ("all", "any", "majority")
        ],
        case("Concat/one operand", step("Concat", "x", axis=1), rules=MaskRules(concat="majority")),
        case("Concat/rows", wide, one, step("Concat", "0", "1", axis=2)),
        case("Concat/columns", wide, one, step("Concat", "0", "1", axis=-1)),
        case("MatMul/channels last", step("Transpose", "x", perm=[0, 2, 3, 1]), step("MatMul", "0", w(3, 5)),
             step("Transpose", "1", perm=[0, 3, 1, 2])),
    ]  # fmt: skip


def gate_map() -> tuple[Step, ...]:
    """Steps 0 to 3: a map [N, 3, 10, 13] that no mask applies to."""
    return (
        step("GlobalAveragePool", "x"),
        step("Conv", "0", w(3, 3, 1, 1)),
        step("Mul", "1", np.ones((1, 1, 10, 13))),
        step("Relu", "2"),
    )


def _layout() -> list[Case]:
    there, back = step("Transpose", "x", perm=[0, 2, 3, 1]), [0, 3, 1, 2]
    split = (
        step("Reshape", "x", np.array([0, 2, 2, 10, 13])),
        step("Transpose", "0", perm=[0, 2, 1, 3, 4]),
        step("Reshape", "1", np.array([0, 4, 10, 13])),
    )
    batch = (
        step("Shape", "x"),
        step("Gather", "0", np.array([0])),
        step("Concat", "1", np.array([-1]), axis=0),
        CONV,
        step("Reshape", "3", "2"),
    )
    nhwc = {"layout": "NHWC", "shape": (10, 13, 3)}
    return [
        case("Transpose/there", CONV, step("Transpose", "0", perm=[0, 2, 3, 1]), map=False),
        case("Transpose/there and back", there, step("Relu", "0"), step("Transpose", "1", perm=back)),
        case("Transpose/space turned", step("Transpose", "x", perm=[0, 1, 3, 2]), map=False),
        case("Transpose/NHWC input", step("Transpose", "x", perm=back), step("Conv", "0", w(4, 3, 3, 3)),
             step("Transpose", "1", perm=[0, 2, 3, 1]), step("ReduceMean", "2", np.array([1, 2])), **nhwc),
        case("Reshape/channel shuffle", *split, shape=(4, 10, 13)),
        case("Reshape/space merged", CONV, step("Reshape", "0", np.array([0, 4, -1]))),
        case("Reshape/space merged and split", CONV, step("Reshape", "0", np.array([0, 4, -1])),
             step("Reshape", "1", np.array([0, 4, 10, 13]))),
        case("Reshape/vector", CONV, step("Reshape", "0", np.array([-1, 520]))),
        case("Reshape/extents of 1", step("Reshape", "x", np.array([-1, 1, 3, 10, 1, 13])),
             step("Reshape", "0", np.array([0, 3, 10, 13]))),
        case("Shape/batch of a vector", *batch),
        case("Flatten/vector", CONV, step("Flatten", "0")),
        case("Flatten/vector, after a pool", step("AveragePool", "x", kernel_shape=[3, 3]), step("Flatten", "0")),
        case("Unsqueeze/and Squeeze", CONV, step("Unsqueeze", "0", np.array([1])), step("Relu", "1"),
             step("Squeeze", "2", np.array([1]))),
        case("Squeeze/space of one pixel", step("Conv", "x", w(4, 3, 10, 13)), step("Squeeze", "0", np.array([2, 3]))),
    ]  # fmt: skip


def _gathers() -> list[Case]:
    one = step("Gather", "0", np.array(2), axis=1)
    return [
        case("Gather/channels reordered", CONV, step("Gather", "0", np.array([3, -4, 1]), axis=1)),
        case("Gather/one channel", CONV, one, step("Unsqueeze", "1", np.array([1]))),
        case("Gather/one group", step("Reshape", "x", np.array([0, 2, 2, 10, 13])),
             step("Gather", "0", np.array(1), axis=1), shape=(4, 10, 13)),
    ]  # fmt: skip


def _norms() -> list[Case]:
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
    ]  # fmt: skip


CASES = [*_windows(), *_reductions(), *_pointwise(), *_joins(), *_layout(), *_gathers(), *_norms()]
assert len({case.name for case in CASES}) == len(CASES)
