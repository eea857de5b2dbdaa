"""Operators that treat every position alone: the mask stays, the facts about removed positions may change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.lowering.registry import Operand, Refused, attributes, rule, unpadded
from lmonnx.exporters.ops.builder import Op
from lmonnx.exporters.ops.masked import Masked


@dataclass(frozen=True)
class Facts:
    """What an elementwise function does to the facts about removed positions.

    Attributes:
        zero: f(0) = 0.
        finite: f is finite at every finite number.
        sign: "+" if f(x) >= 0 for every x, "=" if only for x >= 0, "-" if not even then.
    """

    zero: bool
    finite: bool
    sign: str


POINTWISE = {
    "Abs": Facts(zero=True, finite=True, sign="+"),
    "Acos": Facts(zero=False, finite=False, sign="-"),
    "Acosh": Facts(zero=False, finite=False, sign="-"),
    "Asin": Facts(zero=True, finite=False, sign="-"),
    "Asinh": Facts(zero=True, finite=True, sign="="),
    "Atan": Facts(zero=True, finite=True, sign="="),
    "Atanh": Facts(zero=True, finite=False, sign="-"),
    "Ceil": Facts(zero=True, finite=True, sign="="),
    "Celu": Facts(zero=True, finite=True, sign="="),
    "Cos": Facts(zero=False, finite=True, sign="-"),
    "Cosh": Facts(zero=False, finite=False, sign="+"),
    "Elu": Facts(zero=True, finite=True, sign="="),
    "Erf": Facts(zero=True, finite=True, sign="="),
    "Exp": Facts(zero=False, finite=False, sign="+"),
    "Floor": Facts(zero=True, finite=True, sign="="),
    "Gelu": Facts(zero=True, finite=True, sign="="),
    "HardSigmoid": Facts(zero=False, finite=True, sign="+"),
    "HardSwish": Facts(zero=True, finite=True, sign="="),
    "IsInf": Facts(zero=True, finite=True, sign="-"),
    "IsNaN": Facts(zero=True, finite=True, sign="-"),
    "LeakyRelu": Facts(zero=True, finite=True, sign="="),
    "Log": Facts(zero=False, finite=False, sign="-"),
    "Mish": Facts(zero=True, finite=True, sign="="),
    "Neg": Facts(zero=True, finite=True, sign="-"),
    "Not": Facts(zero=False, finite=True, sign="-"),
    "Reciprocal": Facts(zero=False, finite=False, sign="="),
    "Relu": Facts(zero=True, finite=True, sign="+"),
    "Round": Facts(zero=True, finite=True, sign="="),
    "Shrink": Facts(zero=False, finite=True, sign="-"),
    "Sigmoid": Facts(zero=False, finite=True, sign="+"),
    "Sign": Facts(zero=True, finite=True, sign="="),
    "Sin": Facts(zero=True, finite=True, sign="-"),
    "Sinh": Facts(zero=True, finite=False, sign="="),
    "Softplus": Facts(zero=False, finite=True, sign="+"),
    "Softsign": Facts(zero=True, finite=True, sign="="),
    "Sqrt": Facts(zero=True, finite=False, sign="="),
    "Swish": Facts(zero=True, finite=True, sign="="),
    "Tan": Facts(zero=True, finite=False, sign="-"),
    "Tanh": Facts(zero=True, finite=True, sign="="),
    "ThresholdedRelu": Facts(zero=True, finite=True, sign="="),
}


def _pointwise(facts: Facts) -> Callable[..., Masked]:
    def apply(op: Op, node: ir.Node, x: Masked) -> Masked:
        return x.but(
            data=op.call(node.op_type, unpadded(x).data, **attributes(node)),
            zero=x.zero and facts.zero,
            finite=x.finite and facts.finite,
            nonnegative=facts.sign == "+" or (facts.sign == "=" and x.nonnegative),
        )

    return apply


for _operator, _facts in POINTWISE.items():
    rule(_operator)(_pointwise(_facts))


@rule("Selu")
def selu(op: Op, node: ir.Node, x: Masked) -> Masked:
    """The op; where its factor is negative so is what it makes of positive numbers."""
    made = _pointwise(Facts(zero=True, finite=True, sign="="))(op, node, x)
    return made.but(nonnegative=made.nonnegative and attributes(node).get("gamma", 1.0) >= 0)


@rule("Clip")
def clip(op: Op, node: ir.Node, x: Masked, low: Operand = None, high: Operand = None) -> Masked:
    """The op; bounds that are constants say what it does to zero and to the sign."""
    least, most = _bound(low, -np.inf), _bound(high, np.inf)
    return x.but(
        data=op.Clip(unpadded(x).data, low, high),
        zero=x.zero and least <= 0 <= most,
        nonnegative=least >= 0 or (x.nonnegative and most >= 0),
    )


def _bound(operand: Operand, absent: float) -> float:
    if operand is None:
        return absent
    known = isinstance(operand, ir.Value) and operand.const_value is not None
    return float(operand.const_value.numpy().reshape(-1)[0]) if known else np.nan  # type: ignore[union-attr]


@rule("Cast")
def cast(op: Op, node: ir.Node, x: Masked) -> Masked:
    """The op. A narrower type may overflow to infinity, and float16 may have before; an integer has no NaN to zero."""
    data = op.call("Cast", unpadded(x).data, **attributes(node))
    assert x.data.dtype is not None
    assert data.dtype is not None
    return x.but(
        data=data,
        finite=x.finite and data.dtype.itemsize >= x.data.dtype.itemsize and x.data.dtype != ir.DataType.FLOAT16,
        nonnegative=x.nonnegative and data.dtype.is_floating_point(),  # an integer may wrap around
    )


@rule("BatchNormalization")
def batch_normalization(op: Op, node: ir.Node, x: Masked, *statistics: ir.Value) -> Masked:
    """The op with its stored statistics: an affine function of each channel."""
    data = op.call("BatchNormalization", unpadded(x).data, *statistics, **attributes(node))
    return x.but(data=data, zero=False, nonnegative=False)


@rule("Identity", "Dropout")
def identity(op: Op, node: ir.Node, x: Masked, *settings: Operand) -> Masked:
    """Nothing, in evaluation mode; the engine refuses a Dropout that drops."""
    return x


@rule("Shape")
def shape(op: Op, node: ir.Node, x: Masked) -> ir.Value:
    """The op; no pixel's value is read."""
    return op.Shape(unpadded(x).data, **attributes(node))


@rule("LpNormalization")
def lp_normalization(op: Op, node: ir.Node, x: Masked) -> Masked:
    """Over channels: the op at every pixel."""
    settings: dict[str, Any] = attributes(node)
    if settings.get("axis", -1) % x.rank in (0, *x.axes):
        raise Refused("its norm over space is not defined")
    data = op.call(node.op_type, unpadded(x).data, **settings)
    return x.but(data=data, zero=False, finite=False)


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(op: Op, node: ir.Node, x: Masked) -> Masked:
    """Over channels: the op at every pixel."""
    settings: dict[str, Any] = attributes(node)
    if settings.get("axis", -1) % x.rank in (0, *x.axes):
        raise Refused("a softmax over space compares positions with each other, as attention does")
    positive = node.op_type != "LogSoftmax"
    return x.but(
        data=op.call(node.op_type, unpadded(x).data, **settings),
        zero=False,
        finite=x.finite and positive,
        nonnegative=positive,
    )
