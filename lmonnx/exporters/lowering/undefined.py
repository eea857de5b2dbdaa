"""Operators that masking is not defined for, wherever they stand, and why."""

from __future__ import annotations

import onnx_ir as ir

ATTENTION = "it compares positions with each other, as attention does"
_INTEGERS = "its integers have no place for neighbour padding; quantise with QuantizeLinear, DequantizeLinear"
_RECURRENT = "its state runs along positions, and what it is behind a removed one is not defined"
_BRANCHES = "control flow is not followed, and which way it goes may depend on removed pixels; export without it"
_BOXES = "where it reads depends on boxes, and what a removed pixel in one is worth is not defined"

UNDEFINED = {
    "Attention": ATTENTION,
    "AffineGrid": "where its grid is sampled depends on the data",
    "ConvInteger": _INTEGERS,
    "ConvTranspose": "it spreads pixels instead of gathering them, so what a removed one leaves is not defined",
    "CumSum": "a sum along positions is not defined where some are removed",
    "DeformConv": "where its windows read depends on the data",
    "DepthToSpace": "it spreads a pixel over several, of which none is known to be removed",
    "DynamicQuantizeLinear": "its scale follows from all values, those of removed pixels too; quantise statically",
    "GRU": _RECURRENT,
    "GlobalLpPool": "its norm over kept pixels is not defined",
    "GridSample": "where it reads depends on the data",
    "If": _BRANCHES,
    "LSTM": _RECURRENT,
    "Loop": _BRANCHES,
    "LpPool": "its norm over kept pixels is not defined",
    "MatMulInteger": _INTEGERS,
    "MaxRoiPool": _BOXES,
    "MaxUnpool": "it puts values back at positions that a masked pool did not keep",
    "NonMaxSuppression": "it compares boxes with each other, and a removed pixel is in none",
    "NonZero": "how many numbers it gives depends on removed pixels",
    "QLinearConv": _INTEGERS,
    "QLinearMatMul": _INTEGERS,
    "RNN": _RECURRENT,
    "RoiAlign": _BOXES,
    "Scan": _BRANCHES,
    "TopK": "an order among positions is not defined where some are removed",
}
#: Behind a refused node it is not known any more which axes are space; there these are attention, if that many of
#: their operands are activations.
SUSPECTS = {"Softmax": 1, "LogSoftmax": 1, "MatMul": 2, "Einsum": 2}


#: Operators that draw numbers, on an activation or not: two runs of such a graph do not agree.
RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
DRAWS = "it draws random numbers", "export the network without it, or with numbers drawn beforehand"
DROPS = (
    "it is in training mode, in which it drops values at random",
    "export the network in evaluation mode; in PyTorch write dropout(x, training=self.training)",
)


def drawing(node: ir.Node) -> tuple[str, str] | None:
    """Why a node whose result is random is refused, and what to do; None for any other node."""
    if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
        training = node.inputs[2].const_value
        return DROPS if training is None or training.numpy().any() else None
    return DRAWS if node.op_type in RANDOM else None


def undefined(operator: str, activations: int) -> str | None:
    """Why ``operator`` is not defined where so many of its operands are activations; None if that is not known."""
    if activations >= SUSPECTS.get(operator, activations + 1):
        return ATTENTION
    return UNDEFINED.get(operator)
