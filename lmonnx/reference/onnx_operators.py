"""The masked functions by ONNX names: what each operator does to a masked input.

A function takes the call and the node's inputs, None for an absent optional one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lmonnx.masking import MaskRules
from lmonnx.reference import functions, layout, onnx_plain, onnx_windows, refusals
from lmonnx.reference.activation import Masked, RefusedError, Value
from lmonnx.reference.onnx_call import Call
from lmonnx.reference.onnx_elementwise import JOINS, POINTWISE

Rule = Callable[..., Value | tuple[Value, ...]]

# What passes a pending border on, because it is no operator at all or reads the border.
BORDER_READERS = frozenset(
    {"AveragePool", "Conv", "Dropout", "Identity", "MaxPool", "Pad", "Shape", "Slice", "Transpose"}
)

# What removed positions of each operand are read as where the function is not finite everywhere: the
# logarithm of a 0 that nobody reads would make every gradient NaN.
REMOVED: dict[str, tuple[float | None, ...]] = {
    "Acos": (0,),
    "Acosh": (1,),
    "Asin": (0,),
    "Atanh": (0,),
    "Cosh": (0,),
    "Div": (None, 1),
    "Exp": (0,),
    "Log": (1,),
    "Mod": (None, 1),
    "Pow": (1, 1),
    "Reciprocal": (1,),
    "Sinh": (0,),
    "Sqrt": (1,),
    "Tan": (0,),
}


def _global(reduce: Callable[..., Value]) -> Rule:
    def rule(call: Call, x: Masked) -> Value:
        if 1 in x.axes:
            raise RefusedError("its channels are not axis 1")
        return reduce(call, x, tuple(range(2, x.data.ndim)), keepdim=True)

    return rule


def _reduce(reduce: Callable[..., Value]) -> Rule:
    def rule(call: Call, x: Masked, axes: Tensor | None = None) -> Value:
        dims = onnx_plain.reduced_dims(call, x.data.ndim, axes)
        if not dims:
            return x
        return reduce(call, x, dims, keepdim=bool(call.get("keepdims", 1)))

    return rule


def _over_channels(function: Callable[..., Tensor], what: str) -> Callable[..., Value]:
    """A reduction that no removed position may enter: the op at every pixel; `what` names it."""

    def rule(_: Call, x: Masked, dims: Sequence[int], *, keepdim: bool) -> Value:
        return functions.over_channels(
            x, dims, what, lambda data: function(data, dims, keepdim=keepdim), keepdim=keepdim
        )

    return rule


def _mean(call: Call, x: Masked, dims: Sequence[int], *, keepdim: bool) -> Value:
    return functions.reduce_mean(x, dims, keepdim=keepdim, rules=call.rules)


def _sum(_: Call, x: Masked, dims: Sequence[int], *, keepdim: bool) -> Value:
    return functions.reduce_sum(x, dims, keepdim=keepdim)


def _summed(
    before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor] | None = None
) -> Callable[..., Value]:
    """The sum over kept of a function of each position, and a function of that sum."""

    def rule(call: Call, x: Masked, dims: Sequence[int], *, keepdim: bool) -> Value:
        total = _sum(call, x.holding(before(x.data)), dims, keepdim=keepdim)
        if after is None:
            return total
        return functions.onto(total, after)

    return rule


def _max(_: Call, x: Masked, dims: Sequence[int], *, keepdim: bool) -> Value:
    return functions.reduce_max(x, dims, keepdim=keepdim)


def _min(_: Call, x: Masked, dims: Sequence[int], *, keepdim: bool) -> Value:
    return functions.reduce_min(x, dims, keepdim=keepdim)


def _batch_norm(call: Call, x: Masked, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Value:
    if call.get("training_mode", 0) or any(call.node.outputs[1:]):
        raise RefusedError("it normalises with the statistics of the batch")
    return functions.batch_norm(x, scale, bias, mean, var, call.get("epsilon", 1e-5))


def _instance_norm(call: Call, x: Masked, scale: Tensor, bias: Tensor) -> Value:
    return functions.group_norm(x, x.data.shape[1], scale, bias, call.get("epsilon", 1e-5))


def _group_norm(call: Call, x: Masked, scale: Tensor, bias: Tensor) -> Value:
    groups, epsilon = call.get("num_groups"), call.get("epsilon", 1e-5)
    return functions.group_norm(x, groups, scale, bias, epsilon, per_group=call.opset < 21)


def _layer_norm(call: Call, x: Masked, scale: Tensor, bias: Tensor | None = None) -> Value:
    if any(call.node.outputs[1:]):
        raise RefusedError("its mean and deviation are asked for")
    dims = range(call.get("axis", -1) % x.data.ndim, x.data.ndim)
    return functions.layer_norm(x, dims, scale, bias, call.get("epsilon", 1e-5))


def _rms_norm(call: Call, x: Masked, scale: Tensor) -> Value:
    dims = range(call.get("axis", -1) % x.data.ndim, x.data.ndim)
    return functions.rms_norm(x, dims, scale, call.get("epsilon", 1e-5))


def _mean_variance_norm(call: Call, x: Masked) -> Value:
    """(x − mean) / (deviation + 1e-9), the statistics over kept; the batch, which ONNX reduces too by default, not."""
    dims = [axis % x.data.ndim for axis in call.get("axes", [0, 2, 3])]
    if 0 in dims:
        raise RefusedError("it normalises over the batch")
    return x.holding(functions.standardise(x, dims, 1e-9, outside=True))


def _lrn(call: Call, x: Masked) -> Value:
    if 1 in x.axes:
        raise RefusedError("its channels are not axis 1")
    return functions.pointwise(lambda data: onnx_plain.lrn(call, data), x)


def _lp_norm(call: Call, x: Masked) -> Value:
    functions.per_pixel(x, [call.get("axis", -1)], "a norm")
    return functions.pointwise(lambda data: onnx_plain.lp_norm(call, data), x)


def _gemm(call: Call, x: Masked, b: Tensor, c: Tensor | None = None) -> Value:
    if call.get("transA", 0) or x.data.ndim - 1 in x.axes:
        raise RefusedError("it is a product over space, which mixes pixels")
    return functions.pointwise(lambda data: onnx_plain.gemm(call, data, b, c), x)


def _hardmax(call: Call, x: Masked) -> Value:
    functions.per_pixel(x, onnx_plain.softmax_dims(call, x.data.ndim), "a maximum")
    return functions.pointwise(lambda data: onnx_plain.hardmax(call, data), x)


def _slice(call: Call, x: Masked, *inputs: Tensor | None) -> Value:
    for axis, positions in onnx_plain.slices(call, x.shape, inputs):
        x = layout.crop(x, axis, positions)
    return x


def _split(call: Call, x: Masked, sizes: Tensor | None = None) -> tuple[Value, ...]:
    axis = call.get("axis", 0)
    return layout.split(x, onnx_plain.split_sizes(call, x.data.shape[axis], sizes), axis)


def _softmax(call: Call, x: Masked) -> Value:
    functions.per_pixel(x, onnx_plain.softmax_dims(call, x.data.ndim), "a softmax")
    return functions.pointwise(lambda data: onnx_plain.softmax(call, data), x)


def _cast_like(_: Call, x: Value, like: Value) -> Value:
    dtype = like.data.dtype if isinstance(like, Masked) else like.dtype
    return functions.pointwise(lambda data: data.to(dtype), x) if isinstance(x, Masked) else x.to(dtype)


def _pointwise(name: str) -> Rule:
    removed, plain = REMOVED.get(name, (None,))[0], POINTWISE[name]
    return lambda call, x, *rest: functions.pointwise(lambda data: plain(call, data, *rest), x, removed)


def _join(name: str) -> Rule:
    removed, plain = REMOVED.get(name, ()), JOINS[name]
    return lambda call, *operands: functions.combine(lambda *data: plain(call, *data), operands, removed)


def _dropout(call: Call, x: Masked, _: Any = None, training: Tensor | None = None) -> Value:
    if any(call.node.outputs[1:]) or (training is not None and bool(training)):
        raise RefusedError("a Dropout in training is random")
    return x


def _transpose(call: Call, x: Masked) -> Value:
    return layout.transpose(x, call.get("perm", list(range(x.data.ndim))[::-1]))


def _reshape(call: Call, x: Masked, shape: Tensor) -> Value:
    return layout.reshape(x, onnx_plain.resolved_shape(call, x.data.shape, shape), call.rules)


def _flatten(call: Call, x: Masked) -> Value:
    return layout.reshape(x, onnx_plain.flattened_shape(call, x.data.shape), call.rules)


def _squeeze(call: Call, x: Masked, axes: Tensor | None = None) -> Value:
    dims = call.numbers("axes", axes)
    if dims is None:
        raise RefusedError("without axes it drops the batch axis when the batch is 1", "name the axes")
    return layout.squeeze(x, dims)


def _unsqueeze(call: Call, x: Masked, axes: Tensor | None = None) -> Value:
    return layout.unsqueeze(x, call.numbers("axes", axes) or [])


def _pad(call: Call, x: Masked, *inputs: Tensor | None) -> Value:
    pairs, mode = onnx_plain.pad_pairs(call, x.data.shape, inputs), call.get("mode", "constant")
    if mode == "constant":
        return layout.pad_constant(x, pairs, onnx_plain.pad_value(call, inputs))
    return layout.pad_mirror(x, pairs, onnx_plain.PADDINGS.get(mode, mode))


# Joins and Concat may have a mask in every input; the others only in their first.
JOINED = frozenset({*JOINS, "CastLike", "Concat", "Einsum", "MatMul"})

ONNX_OPERATORS: dict[str, Rule] = {
    **{name: _pointwise(name) for name in POINTWISE},
    **{name: _join(name) for name in JOINS},
    "AveragePool": onnx_windows.average_pool,
    "BatchNormalization": _batch_norm,
    "Concat": lambda call, *operands: functions.concat(operands, call.get("axis"), call.rules),
    "Conv": onnx_windows.conv,
    "Dropout": _dropout,
    "Einsum": lambda call, *operands: functions.einsum(call.get("equation"), operands),
    "Expand": lambda _, x, shape: layout.expand(x, shape.tolist()),
    "Flatten": _flatten,
    "Gather": lambda call, x, indices: layout.take(x, indices, call.get("axis", 0)),
    "Gemm": _gemm,
    "GlobalAveragePool": _global(_mean),
    "GlobalMaxPool": _global(_max),
    "GroupNormalization": _group_norm,
    "Hardmax": _hardmax,
    "Identity": lambda _, x: x,
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax,
    "LpNormalization": _lp_norm,
    "MatMul": lambda _, a, b: functions.matmul(a, b),
    "MaxPool": onnx_windows.max_pool,
    "MeanVarianceNormalization": _mean_variance_norm,
    "Pad": _pad,
    "RMSNormalization": _rms_norm,
    "ReduceL1": _reduce(_summed(torch.abs)),
    "ReduceL2": _reduce(_summed(torch.square, torch.sqrt)),
    "ReduceLogSum": _reduce(_over_channels(onnx_plain.log_sum, "the logarithm of a sum")),
    "ReduceLogSumExp": _reduce(_over_channels(torch.logsumexp, "the logarithm of a sum")),
    "ReduceMax": _reduce(_max),
    "ReduceMean": _reduce(_mean),
    "ReduceMin": _reduce(_min),
    "ReduceProd": _reduce(_over_channels(onnx_plain.product, "a product")),
    "ReduceSum": _reduce(_sum),
    "ReduceSumSquare": _reduce(_summed(torch.square)),
    "Reshape": _reshape,
    "Resize": onnx_windows.resize,
    "Shape": lambda call, x: onnx_plain.shape_of(call, x.shape),
    "Slice": _slice,
    "Softmax": _softmax,
    "SpaceToDepth": onnx_windows.space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda _, x, repeats: layout.tile(x, repeats.tolist()),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}

# Operators that a normalised graph has under another name.
FORMER: dict[str, Rule] = {"CastLike": _cast_like, "Upsample": onnx_windows.resize}

# Maps without a mask, such as a squeeze-excite gate, are maps that are kept everywhere: by area, where no
# epsilon is added, these rules then are the operators themselves.
WINDOWED = frozenset(
    {"AveragePool", "BatchNormalization", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}
    | {"GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization", "MeanVarianceNormalization"}
    | {"RMSNormalization", "SpaceToDepth"}
)


def masked_call(call: Call, inputs: Sequence[Value | None]) -> Value | tuple[Value, ...]:
    """What a node gives for inputs of which some are masked.

    Raises:
        RefusedError: if the operator has no rule, or its rule refuses these inputs.
    """
    name = call.node.operator
    rule = ONNX_OPERATORS.get(name) or FORMER.get(name)
    if name in refusals.ONNX:
        raise RefusedError(refusals.ONNX[name], "use a network without it")
    if rule is None:
        raise RefusedError("masking has no rule for it")
    if any(isinstance(x, Masked) and x.border for x in inputs) and name not in BORDER_READERS:
        raise RefusedError("a constant Pad that no convolution or pool has read reaches it")
    if name not in JOINED and any(isinstance(x, Masked) for x in inputs[1:]):
        raise RefusedError("one of its parameters is masked")
    return rule(call, *inputs)


def plain_call(call: Call, inputs: Sequence[Tensor | None]) -> Tensor | tuple[Tensor, ...]:
    """What a node gives for inputs none of which is masked.

    Raises:
        RefusedError: if the reference does not have the operator.
    """
    name = call.node.operator
    if name in onnx_plain.PLAIN:
        return onnx_plain.PLAIN[name](call, *inputs)
    if name not in WINDOWED or inputs[0] is None:
        raise RefusedError(
            refusals.ONNX.get(name, "the PyTorch reference, against which a graph is proven, does not have it")
        )
    x, mask = inputs[0], torch.ones((), dtype=torch.bool, device=inputs[0].device)
    axes = tuple(range(2, x.ndim))
    extents = [extent if axis in {0, *axes} else 1 for axis, extent in enumerate(x.shape)]
    kept = Masked(x, mask.expand(extents), axes)
    result = ONNX_OPERATORS[name](replace(call, rules=MaskRules(average="area")), kept, *inputs[1:])
    return result.data if isinstance(result, Masked) else result  # type: ignore[return-value]
