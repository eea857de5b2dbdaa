"""Maps of eight channels, which are filled by products alone, and of which some are 0 before their activation."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.families.case import Case, case
from tests.graphs import Step, step

_rng = np.random.default_rng(8)


def w(*shape: int) -> np.ndarray:
    """Normal weights; of a generator of their own, so that the cases of other families keep theirs."""
    return _rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))


#: From three channels to eight: what a gate can be closed in.
WIDEN = step("Conv", "x", w(8, 3, 1, 1), w(8))
#: NaN where removed, and 1 elsewhere; the same times the image.
NAN = (step("Div", "x", "x"), step("Mul", "0", "x"))
WEIGHTS = w(8, 1, 3, 3), w(8)


def depthwise(of: str, kernel: int = 3, **attributes: Any) -> Step:
    """A depthwise convolution of eight channels that keeps the extents, but for strides."""
    return step("Conv", of, w(8, 1, kernel, kernel), w(8), group=8, pads=[kernel // 2] * 4, **attributes)


#: An activation by the operators that it is made of, the first reading the widened map, and what zeros are made by
#: before it: a penalty where removed, the bias where kept, or nothing.
ACTIVATIONS: dict[str, tuple[tuple[Step, ...], str | None]] = {
    "Relu": ((step("Relu", "0"),), "penalty"),
    "Relu6": ((step("Clip", "0", np.array(0.0), np.array(6.0)),), "penalty"),
    "HardSwish": ((step("HardSwish", "0"),), "penalty"),
    "HardSwish in parts": ((step("HardSigmoid", "0", alpha=1 / 6), step("Mul", "0", "1")), "penalty"),
    "HardSwish in more parts": (
        (
            step("Add", "0", np.array(3.0)),
            step("Clip", "1", np.array(0.0), np.array(6.0)),
            step("Mul", "0", "2"),
            step("Div", "3", np.array(6.0)),
        ),
        "penalty",
    ),
    "Relu behind factors": ((step("Mul", "0", np.abs(w(8, 1, 1)) + 0.5), step("Relu", "1")), "penalty"),
    "Relu behind factors of both signs": ((step("Mul", "0", w(8, 1, 1)), step("Relu", "1")), "penalty"),
    "Relu, and a factor behind": ((step("Relu", "0"), step("Mul", "1", w(8, 1, 1))), "penalty"),
    "Relu, shifted": ((step("Relu", "0"), step("Add", "1", np.array(0.5))), None),
    "Clip to both sides": ((step("Clip", "0", np.array(-1.0), np.array(1.0)),), "bias"),
    "Clip away from zero": ((step("Clip", "0", np.array(-2.0), np.array(-1.0)),), None),
    "LeakyRelu": ((step("LeakyRelu", "0", alpha=0.1),), "bias"),
    "Sigmoid": ((step("Sigmoid", "0"),), None),
    "SiLU": ((step("Sigmoid", "0"), step("Mul", "0", "1")), "bias"),
    "GELU": (
        (
            step("Div", "0", np.array(2**0.5)),
            step("Erf", "1"),
            step("Add", "2", np.array(1.0)),
            step("Mul", "0", "3"),
            step("Mul", "4", np.array(0.5)),
        ),
        "bias",
    ),
    "Abs": ((step("Abs", "0"),), "bias"),
    "Cos": ((step("Cos", "0"),), None),
}


def blocks() -> list[Case]:
    """Cases, of which those of :data:`ACTIVATIONS` end in a depthwise convolution."""
    made = [
        # onnx's evaluator has no float64 Erf
        case(f"{steps[0].operator}/eight channels, {name}", *chain(steps), wide=name != "GELU")
        for name, (steps, _) in ACTIVATIONS.items()
    ]
    relu = step("Relu", "0")
    return [
        *made,
        case("Conv/eight channels, one ring", WIDEN, depthwise("0"), step("Add", "1", "0")),
        case("Conv/eight channels, stride 2", WIDEN, relu, depthwise("1", strides=[2, 2])),
        case("Conv/eight channels, 5x5 of stride 2", WIDEN, relu, depthwise("1", 5, strides=[2, 2])),
        case("Conv/eight channels, 7x7", WIDEN, depthwise("0", 7)),
        case("Conv/eight channels, dense", WIDEN, relu, step("Conv", "1", w(8, 8, 3, 3), pads=[1, 1, 1, 1])),
        case(
            "Conv/eight channels, of two sizes", WIDEN, relu, depthwise("1"), depthwise("1", 5), step("Add", "2", "3")
        ),
        case("Conv/eight channels, read before its activation", WIDEN, relu, depthwise("1"), step("Add", "0", "2")),
        case("Conv/eight channels, of NaN", *NAN, step("Conv", "1", *WIDEN.inputs[1:]), depthwise("2")),
        case("Conv/eight channels, behind a pool", WIDEN, step("MaxPool", "0", kernel_shape=[2, 2]), depthwise("1")),
        case(
            "AveragePool/eight channels",
            WIDEN,
            relu,
            step("AveragePool", "1", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        ),
        case(
            "Concat/eight channels",
            WIDEN,
            relu,
            depthwise("1"),
            step("Relu", "2"),
            step("Concat", "1", "3", axis=1),
            step("Conv", "4", w(8, 16, 3, 3), pads=[1, 1, 1, 1]),
        ),
        case("GlobalAveragePool/eight channels", WIDEN, relu, step("GlobalAveragePool", "1")),
    ]


def chain(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The widened map, an activation, and a depthwise convolution of it."""
    return (WIDEN, *steps, step("Conv", str(len(steps)), *WEIGHTS, group=8, pads=[1, 1, 1, 1]))
