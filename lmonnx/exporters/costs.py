"""What a node costs: one table, operator -> operations, and the bytes that it moves.

An operation is an addition, a multiplication, a comparison or a function of one number; a multiply-add is two, as
torch.utils.flop_counter counts them, and a bias the start of a sum. Operators that arrange values and compute none cost
no operations. Bytes are activations read and written, each operand once, as if no two nodes were fused; weights are
counted apart, once for the graph. What a function such as Exp takes inside is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from lmonnx.exporters.normalise import OPEN, infer_shapes

Formula: TypeAlias = Callable[[ir.Node], int]


@dataclass(frozen=True)
class Cost:
    """Nodes and what they take.

    Attributes:
        nodes: how many.
        operations: additions, multiplications, comparisons and functions of one number; None if not known.
        bytes: activations read and written; None if not known.
    """

    nodes: int = 0
    operations: int | None = 0
    bytes: int | None = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.nodes + other.nodes, _sum(self.operations, other.operations), _sum(self.bytes, other.bytes))


def cost_of(node: ir.Node) -> Cost:
    """One node, from the shapes of its operands; what depends on an unknown shape is None."""
    return Cost(1, _known(OPERATIONS.get(node.op_type, _unknown), node), _known(_moved, node))


def one_row(model: ir.Model, size: tuple[int, int] | None = None) -> None:
    """Gives the values of ``model`` the shapes that they have for a batch of 1, in place.

    Open height and width become those of ``size``. Where inference fails they stay unknown, and so does what they cost.
    """
    known = dict(zip(OPEN, size, strict=True)) if size else {}
    for value in model.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([1, *(known.get(str(side), side) for side in value.shape[1:])])
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
    infer_shapes(model)


class _NotKnownError(Exception):
    """A shape, a dtype or a formula is missing."""


def _known(formula: Formula, node: ir.Node) -> int | None:
    try:
        return formula(node)
    except _NotKnownError:
        return None


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


def _unknown(_: ir.Node) -> int:
    raise _NotKnownError


def _extents(value: ir.Value | None) -> tuple[int, ...]:
    if value is None or value.shape is None or not all(isinstance(extent, int) for extent in value.shape):
        raise _NotKnownError
    return tuple(extent for extent in value.shape if isinstance(extent, int))


def _size(value: ir.Value | None) -> int:
    return math.prod(_extents(value))


def _operand(node: ir.Node, index: int) -> tuple[int, ...]:
    if index >= len(node.inputs):
        raise _NotKnownError
    return _extents(node.inputs[index])


def _each(count: int) -> Formula:
    """``count`` operations for every number of the result."""
    return lambda node: count * _size(node.outputs[0])


def _joined(node: ir.Node) -> int:
    """Operands brought together one after the other: one operation less than there are operands."""
    return (len(node.inputs) - 1) * _size(node.outputs[0])


def _convolution(node: ir.Node) -> int:
    """A multiply-add for every tap: weights are [K, C / groups, …kernel]."""
    return 2 * _size(node.outputs[0]) * math.prod(_operand(node, 1)[1:])


def _product(node: ir.Node) -> int:
    """A multiply-add for every term; the contracted axis is the last of the left operand, the first if transposed."""
    left = _operand(node, 0)
    transposed = node.attributes.get("transA")
    return 2 * _size(node.outputs[0]) * left[0 if transposed is not None and transposed.as_int() else -1]


def _contraction(node: ir.Node) -> int:
    """A multiply-add for every combination of what the letters of the equation stand for."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    letters: dict[str, int] = {}
    for i, names in enumerate(equation.partition("->")[0].split(",")):
        letters |= dict(zip(names, _operand(node, i), strict=True))
    return 2 * math.prod(letters.values())


def _windows(node: ir.Node) -> int:
    """One operation for every tap of every window."""
    if "kernel_shape" not in node.attributes:
        raise _NotKnownError
    return _size(node.outputs[0]) * math.prod(node.attributes["kernel_shape"].as_ints())


def _reduction(count: int) -> Formula:
    """``count`` operations for every number that is read."""
    return lambda node: count * math.prod(_operand(node, 0))


def _local_response(node: ir.Node) -> int:
    """Each number squared; the sum over the window, times a factor and shifted; a power, and the quotient."""
    return _size(node.outputs[0]) * (node.attributes["size"].as_int() + 4)


def _interpolation(node: ir.Node) -> int:
    """A multiply-add for every neighbour on both sides along each axis that changes; nearest computes none."""
    mode = node.attributes.get("mode")
    if mode is None or mode.as_string() == "nearest":
        return 0
    changed = sum(old != new for old, new in zip(_operand(node, 0), _extents(node.outputs[0]), strict=True))
    neighbours: int = (4 if mode.as_string() == "cubic" else 2) ** changed
    return 2 * neighbours * _size(node.outputs[0])


def _nothing(_: ir.Node) -> int:
    return 0


#: Operators whose result is the operand under another shape: nothing is computed, and nothing moved.
VIEWS = ("Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze", "Dropout")
ARRANGING = (
    "Concat", "ConstantOfShape", "Expand", "Gather", "GatherND", "Pad", "Range", "Slice", "SpaceToDepth", "Split",
    "Tile", "Transpose",
)  # fmt: skip
ELEMENTWISE = (
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Cos", "Cosh",
    "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish",
    "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu",
    "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign",
    "Sqrt", "Sub", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
)  # fmt: skip
OPERATIONS: dict[str, Formula] = {
    "Conv": _convolution,
    **dict.fromkeys(("Gemm", "MatMul"), _product),
    "Einsum": _contraction,
    **dict.fromkeys(("AveragePool", "MaxPool"), _windows),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMean", "ReduceMin"), _reduction(1)),
    **dict.fromkeys(("ReduceSum", "ReduceProd", "ArgMax", "ArgMin"), _reduction(1)),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare"), _reduction(2)),
    "ReduceLogSum": _reduction(1),
    "Hardmax": _reduction(1),
    "LRN": _local_response,
    "Resize": _interpolation,
    # scale, round and clip; subtract and scale
    "QuantizeLinear": _each(4),
    "DequantizeLinear": _each(2),
    **dict.fromkeys(ELEMENTWISE, _each(1)),
    "Clip": _each(2),
    **dict.fromkeys(("Max", "Mean", "Min", "Sum"), _joined),
    "BatchNormalization": _each(2),
    # sum; subtract; square, sum; divide; scale, shift
    **dict.fromkeys(("GroupNormalization", "InstanceNormalization", "LayerNormalization"), _each(7)),
    # square or absolute, sum; divide
    "LpNormalization": _each(3),
    "MeanVarianceNormalization": _each(5),
    "RMSNormalization": _each(4),
    # maximum; subtract; function; sum; divide, or subtract the logarithm
    **dict.fromkeys(("LogSoftmax", "Softmax"), _each(5)),
    **dict.fromkeys((*VIEWS, *ARRANGING), _nothing),
}


def _moved(node: ir.Node) -> int:
    """Bytes of the activations that a node reads and writes."""
    if node.op_type in VIEWS:
        return 0
    read = {value for value in node.inputs if value is not None and value.const_value is None}
    return sum(_bytes(value) for value in (*read, *node.outputs))


def _bytes(value: ir.Value) -> int:
    if value.dtype is None:
        raise _NotKnownError
    return math.ceil(_size(value) * value.dtype.itemsize)
