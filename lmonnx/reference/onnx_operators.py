"""The masked functions by ONNX names: what each operator does to a masked input.

A function takes the call and the node's inputs, None for an absent optional one, for opsets 9 to 22.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lmonnx.masking import MaskRules, Window
from lmonnx.reference import functions, layout, onnx_plain, windows
from lmonnx.reference.activation import Masked, RefusedError, Value
from lmonnx.reference.onnx_plain import Call

Rule = Callable[..., Value | tuple[Value, ...]]

# What passes a pending border on, because it is no operator at all or reads the border.
BORDER_READERS = frozenset({"AveragePool", "Conv", "Dropout", "Identity", "MaxPool", "Pad", "Shape"})

# What removed positions of each operand are read as where the function is not finite everywhere: the
# logarithm of a 0 that nobody reads would make every gradient NaN.
REMOVED: dict[str, tuple[float | None, ...]] = {
    "Div": (None, 1),
    "Exp": (0,),
    "Log": (1,),
    "Pow": (1, 1),
    "Reciprocal": (1,),
    "Sqrt": (1,),
}


def window_of(call: Call, kernel: Sequence[int], size: Sequence[int]) -> Window:
    """The window of a Conv or a pool, with auto_pad resolved for a map of this size."""
    rank = len(kernel)
    pads = call.get("pads") or [0] * (2 * rank)
    window = Window(
        tuple(kernel),
        tuple(call.get("strides") or [1] * rank),
        tuple(call.get("dilations") or [1] * rank),
        tuple(zip(pads[:rank], pads[rank:], strict=True)),
        bool(call.get("ceil_mode", 0)),
    )
    auto = call.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pairs = windows.same_pads(window, tuple(size), upper=auto == "SAME_UPPER")
        return replace(window, pads=pairs, ceil_mode=False)
    return replace(window, pads=((0, 0),) * rank) if auto == "VALID" else window


def _conv(call: Call, x: Masked, weight: Tensor, bias: Tensor | None = None) -> Value:
    window = window_of(call, weight.shape[2:], x.shape[2:])
    return windows.conv(x, weight, bias, window, call.get("group", 1), call.rules)


def _max_pool(call: Call, x: Masked) -> Value:
    if any(call.node.outputs[1:]):
        raise RefusedError("the indices of a maximum have no masked meaning")
    return windows.max_pool(x, window_of(call, call.get("kernel_shape"), x.shape[2:]))


def _average_pool(call: Call, x: Masked) -> Value:
    window = window_of(call, call.get("kernel_shape"), x.shape[2:])
    include_pad = bool(call.get("count_include_pad", 0))
    return windows.average_pool(x, window, include_pad=include_pad, rules=call.rules)


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
        return total.holding(after(total.data)) if isinstance(total, Masked) else after(total)

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


def _softmax(call: Call, x: Masked) -> Value:
    functions.per_pixel(x, onnx_plain.softmax_dims(call, x.data.ndim), "a softmax")
    return functions.pointwise(lambda data: onnx_plain.softmax(call, data), x)


def _pointwise(name: str) -> Rule:
    removed, plain = REMOVED.get(name, (None,))[0], onnx_plain.POINTWISE[name]
    return lambda call, x, *rest: functions.pointwise(lambda data: plain(call, data, *rest), x, removed)


def _join(name: str) -> Rule:
    removed, plain = REMOVED.get(name, ()), onnx_plain.JOINS[name]
    return lambda call, *operands: functions.combine(lambda *data: plain(call, *data), operands, removed)


def _dropout(call: Call, x: Masked, _: Any = None, training: Tensor | None = None) -> Value:
    if any(call.node.outputs[1:]) or (training is not None and bool(training)):
        raise RefusedError("a Dropout in training is random")
    return x


def _transpose(call: Call, x: Masked) -> Value:
    return layout.transpose(x, call.get("perm", list(range(x.data.ndim))[::-1]))


def _reshape(call: Call, x: Masked, shape: Tensor) -> Value:
    return layout.reshape(x, onnx_plain.resolved_shape(call, x.data.shape, shape))


def _flatten(call: Call, x: Masked) -> Value:
    return layout.reshape(x, onnx_plain.flattened_shape(call, x.data.shape))


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
    if mode not in ("reflect", "edge"):
        raise RefusedError(f"padding by {mode} has no masked meaning")
    return layout.pad_mirror(x, pairs, "reflect" if mode == "reflect" else "replicate")


# Joins and Concat may have a mask in every input; the others only in their first.
JOINED = frozenset({*onnx_plain.JOINS, "Concat", "MatMul"})

ONNX_OPERATORS: dict[str, Rule] = {
    **{name: _pointwise(name) for name in onnx_plain.POINTWISE},
    **{name: _join(name) for name in onnx_plain.JOINS},
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Concat": lambda call, *operands: functions.concat(operands, call.get("axis"), call.rules),
    "Conv": _conv,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gather": lambda call, x, indices: layout.take(x, indices, call.get("axis", 0)),
    "GlobalAveragePool": _global(_mean),
    "GlobalMaxPool": _global(_max),
    "GroupNormalization": _group_norm,
    "Identity": lambda _, x: x,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax,
    "MatMul": lambda _, a, b: functions.matmul(a, b),
    "MaxPool": _max_pool,
    "Pad": _pad,
    "ReduceL1": _reduce(_summed(torch.abs)),
    "ReduceL2": _reduce(_summed(torch.square, torch.sqrt)),
    "ReduceMax": _reduce(_max),
    "ReduceMean": _reduce(_mean),
    "ReduceMin": _reduce(_min),
    "ReduceSum": _reduce(_sum),
    "ReduceSumSquare": _reduce(_summed(torch.square)),
    "Reshape": _reshape,
    "Shape": lambda call, x: onnx_plain.shape_of(call, x.shape),
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}

# Maps without a mask, such as a squeeze-excite gate, are maps that are kept everywhere: by area, where no
# epsilon is added, these rules then are the operators themselves.
WINDOWED = frozenset(
    {"AveragePool", "BatchNormalization", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}
    | {"GroupNormalization", "InstanceNormalization", "LayerNormalization"}
)


def masked_call(call: Call, inputs: Sequence[Value | None]) -> Value | tuple[Value, ...]:
    """What a node gives for inputs of which some are masked.

    Raises:
        RefusedError: if the operator has no rule, or its rule refuses these inputs.
    """
    name = call.node.operator
    rule = ONNX_OPERATORS.get(name)
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
        raise RefusedError("the reference has no such operator")
    x, mask = inputs[0], torch.ones((), dtype=torch.bool, device=inputs[0].device)
    axes = tuple(range(2, x.ndim))
    extents = [extent if axis in {0, *axes} else 1 for axis, extent in enumerate(x.shape)]
    kept = Masked(x, mask.expand(extents), axes)
    result = ONNX_OPERATORS[name](replace(call, rules=MaskRules(average="area")), kept, *inputs[1:])
    return result.data if isinstance(result, Masked) else result  # type: ignore[return-value]
