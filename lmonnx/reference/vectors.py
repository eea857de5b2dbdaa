"""Pixels that a reshape made a vector of: removed ones are 0 in it, and no mask says which those are.

Sums and dense layers may read it, and what acts on single numbers on the way to them. What compares or averages the
numbers would count removed pixels as pixels that are 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from torch import Tensor

from lmonnx.reference.activation import Masked, RefusedError

WHY = "it reads pixels that a reshape made a vector, in which removed ones count as pixels that are 0"
REMEDY = "write it over height and width"

#: Operators by their ATen and their ONNX names.
MAKING = frozenset({
    "flatten", "reshape", "reshape_as", "squeeze", "view", "view_as", "_unsafe_view", "Flatten", "Reshape",
    "Squeeze",
})  # fmt: skip
ADDING = frozenset({
    "addmm", "bmm", "einsum", "linear", "linalg_vector_norm", "matmul", "mm", "norm", "sum", "sym_size", "Einsum",
    "Gemm", "LpNormalization", "MatMul", "ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare", "Shape", "Size",
})  # fmt: skip
COMPARING = frozenset({
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "amax", "amin",
    "aminmax", "argmax", "argmin", "argsort", "avg_pool1d", "avg_pool2d", "conv1d", "conv2d", "conv_transpose2d",
    "cummax", "cumprod", "cumsum", "group_norm", "instance_norm", "layer_norm", "log_softmax", "logsumexp", "max",
    "max_pool1d", "max_pool2d", "mean", "median", "min", "native_layer_norm", "prod", "rms_norm", "softmax", "sort",
    "std", "std_mean", "topk", "upsample_bilinear2d", "upsample_nearest2d", "var", "var_mean", "ArgMax", "ArgMin",
    "AveragePool", "Conv", "ConvTranspose", "CumSum", "GlobalAveragePool", "GlobalMaxPool", "GroupNormalization",
    "Hardmax", "InstanceNormalization", "LRN", "LayerNormalization", "LogSoftmax", "MaxPool",
    "MeanVarianceNormalization", "RMSNormalization", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "Resize", "Softmax", "SpaceToDepth", "TopK",
})  # fmt: skip


class Vectors:
    """Which values of a walk are such vectors; `note` is told of every node."""

    def __init__(self) -> None:
        self._names: set[Hashable] = set()

    def demand(self, operator: str, inputs: Iterable[Hashable]) -> None:
        """Raises RefusedError if the operator compares what it reads, and reads a vector of pixels."""
        if operator in COMPARING and not self._names.isdisjoint(inputs):
            raise RefusedError(WHY, REMEDY)

    def note(
        self, operator: str, inputs: Iterable[Hashable], outputs: Iterable[Hashable], given: Iterable[Any], made: Any
    ) -> None:
        """Remembers the outputs of a node if they hold pixels: of a vector, or of a masked value of several pixels."""
        several = any(isinstance(x, Masked) and any(x.data.shape[axis] != 1 for axis in x.axes) for x in given)
        fresh = several and operator in MAKING and isinstance(made, Tensor)
        if fresh or (operator not in ADDING and not self._names.isdisjoint(inputs)):
            self._names.update(outputs)
