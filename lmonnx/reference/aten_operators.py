"""The masked functions by ATen names: what each operator of an exported graph does to a masked input.

A function takes the rules and the operator's arguments in the order of its schema, defaults filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lmonnx.masking import MaskRules, Window
from lmonnx.reference import functions, layout, windows
from lmonnx.reference.activation import Masked, RefusedError, Value

# Elementwise operators of one operand, and what removed positions are read as where the function is not
# finite everywhere: the logarithm of a 0 that nobody reads would make every gradient NaN.
POINTWISE: dict[str, float | None] = {
    "abs": None,
    "celu": None,
    "clamp": None,
    "clamp_max": None,
    "clamp_min": None,
    "elu": None,
    "erf": None,
    "exp": 0,
    "gelu": None,
    "hardsigmoid": None,
    "hardswish": None,
    "hardtanh": None,
    "leaky_relu": None,
    "log": 1,
    "log_sigmoid": None,
    "mish": None,
    "neg": None,
    "reciprocal": 1,
    "relu": None,
    "relu6": None,
    "rsqrt": 1,
    "selu": None,
    "sigmoid": None,
    "silu": None,
    "softplus": None,
    "sqrt": 1,
    "square": None,
    "tanh": None,
    "to": None,
}

# Elementwise operators of two operands, and what removed positions of each are read as.
JOINS: dict[str, tuple[float | None, float | None]] = {
    "add": (None, None),
    "div": (None, 1),
    "max.other": (None, None),
    "maximum": (None, None),
    "min.other": (None, None),
    "minimum": (None, None),
    "mul": (None, None),
    "pow": (1, 1),
    "rsub": (None, None),
    "sub": (None, None),
}

# What passes a pending border on, because it is no operator at all or reads the border.
BORDER_READERS = frozenset(
    [
        "alias",
        "avg_pool2d",
        "clone",
        "constant_pad_nd",
        "contiguous",
        "conv2d",
        "detach",
        "dropout",
        "feature_dropout",
        "max_pool2d",
        "pad",
        "sym_size",
    ]
)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def _window(
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Window:
    (top, left), kernel = _pair(padding), _pair(kernel)
    strides = _pair(stride) if stride else kernel
    return Window(kernel, strides, _pair(dilation), ((top, top), (left, left)), ceil_mode)


def _conv2d(
    rules: MaskRules,
    x: Value,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> Value:
    if not isinstance(x, Masked) or not isinstance(weight, Tensor):
        raise RefusedError("a weight is masked")
    window = _window(weight.shape[2:], stride, (0,) if isinstance(padding, str) else padding, dilation)
    if padding == "same":
        window = replace(window, pads=windows.same_pads(window, x.shape[2:], upper=True))
    return windows.conv(x, weight, bias, window, groups, rules)


def _max_pool2d(_: MaskRules, x: Masked, *window: Any) -> Value:
    return windows.max_pool(x, _window(*window))


def _avg_pool2d(
    rules: MaskRules,
    x: Masked,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    include_pad: bool,
    divisor: int | None,
) -> Value:
    window = _window(kernel, stride, padding, ceil_mode=ceil_mode)
    return windows.average_pool(x, window, include_pad=include_pad, divisor=divisor, rules=rules)


def _mean(rules: MaskRules, x: Masked, dims: Sequence[int] | None, keepdim: bool, dtype: Any) -> Value:
    return functions.reduce_mean(_cast(x, dtype), dims or (), keepdim=keepdim, rules=rules)


def _sum(_: MaskRules, x: Masked, dims: Sequence[int] | None, keepdim: bool, dtype: Any) -> Value:
    return functions.reduce_sum(_cast(x, dtype), dims or (), keepdim=keepdim)


def _cast(x: Masked, dtype: torch.dtype | None) -> Masked:
    return x if dtype is None else x.holding(x.data.to(dtype))


def _extreme(reduce: Callable[..., Value]) -> Callable[..., Value]:
    return lambda _, x, dims, keepdim: reduce(x, dims or (), keepdim=keepdim)


def _extreme_dim(reduce: Callable[..., Value]) -> Callable[..., tuple[Value, None]]:
    """max.dim and min.dim also return indices, which masking does not define."""
    return lambda _, x, dim, keepdim: (reduce(x, (dim,), keepdim=keepdim), None)


def _softmax(function: Callable[..., Tensor]) -> Callable[..., Value]:
    def softmax(_: MaskRules, x: Masked, dim: int, dtype: torch.dtype | None) -> Value:
        functions.per_pixel(x, (dim,), "a softmax")
        return functions.pointwise(lambda data: function(data, dim, dtype=dtype), x)

    return softmax


def _batch_norm(
    _: MaskRules, x: Masked, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *options: Any
) -> Value:
    if training:
        raise RefusedError("it normalises with the statistics of the batch", "track running statistics")
    return functions.batch_norm(x, weight, bias, mean, variance, options[1])


def _instance_norm(
    rules: MaskRules, x: Masked, weight: Any, bias: Any, mean: Any, variance: Any, own: bool, *options: Any
) -> Value:
    if not own:
        return _batch_norm(rules, x, weight, bias, mean, variance, False, *options)
    return functions.group_norm(x, x.data.shape[1], weight, bias, options[1])


def _group_norm(_: MaskRules, x: Masked, groups: int, weight: Any, bias: Any, eps: float, __: bool) -> Value:
    return functions.group_norm(x, groups, weight, bias, eps)


def _layer_norm(_: MaskRules, x: Masked, shape: Sequence[int], weight: Any, bias: Any, eps: float, __: bool) -> Value:
    return functions.layer_norm(x, range(x.data.ndim - len(shape), x.data.ndim), weight, bias, eps)


def _prelu(_: MaskRules, x: Masked, weight: Tensor) -> Value:
    if 1 in x.axes:
        raise RefusedError("its channels are not axis 1")
    return functions.pointwise(lambda data: torch.prelu(data, weight), x)


def _cat(rules: MaskRules, operands: Sequence[Value], dim: int) -> Value:
    return functions.concat(operands, dim, rules)


def _linear(_: MaskRules, x: Masked, weight: Tensor, bias: Tensor | None) -> Value:
    product = functions.matmul(x, weight.T)
    return product if bias is None else functions.pointwise(lambda data: data + bias, product)


def _flatten(_: MaskRules, x: Masked, start: int, end: int) -> Value:
    start, end = start % x.data.ndim, end % x.data.ndim
    return layout.reshape(x, (*x.data.shape[:start], -1, *x.data.shape[end + 1 :]))


def _spliced(x: Masked, dim: int, sizes: Sequence[int]) -> tuple[int, ...]:
    return (*x.data.shape[:dim], *sizes, *x.data.shape[dim + 1 :])


def _transpose(_: MaskRules, x: Masked, first: int, second: int) -> Value:
    order = list(range(x.data.ndim))
    order[first], order[second] = order[second], order[first]
    return layout.transpose(x, order)


def _squeeze(_: MaskRules, x: Masked, dims: int | Sequence[int] | None = None) -> Value:
    if dims is None:
        raise RefusedError("without axes it drops the batch axis when the batch is 1", "name the axes")
    return layout.squeeze(x, [dims] if isinstance(dims, int) else dims)


def _pad(_: MaskRules, x: Masked, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    pads = [(0, 0)] * (x.data.ndim - len(pairs)) + pairs[::-1]
    if mode == "constant":
        return layout.pad_constant(x, pads, float(value or 0))
    if mode not in ("reflect", "replicate"):
        raise RefusedError(f"padding by {mode} has no masked meaning")
    return layout.pad_mirror(x, pads, "reflect" if mode == "reflect" else "replicate")


def _constant_pad_nd(rules: MaskRules, x: Masked, pad: Sequence[int], value: float) -> Value:
    return _pad(rules, x, pad, "constant", value)


def _dropout(_: MaskRules, x: Masked, __: float, train: bool) -> Value:
    if train:
        raise RefusedError("it is random", "put the module in eval mode")
    return x


def _copy(_: MaskRules, x: Masked, *__: Any) -> Value:
    return replace(x)


def _reshape(_: MaskRules, x: Masked, shape: Sequence[int]) -> Value:
    return layout.reshape(x, shape)


OPERATORS: dict[str, Callable[..., Any]] = {
    "_assert_tensor_metadata": lambda *_: None,
    "_log_softmax": _softmax(torch.log_softmax),
    "_softmax": _softmax(torch.softmax),
    "adaptive_avg_pool2d": lambda rules, x, size: windows.adaptive_average(x, _pair(size), rules),
    "adaptive_max_pool2d": lambda _, x, size: (windows.adaptive_max(x, _pair(size)), None),
    "alias": lambda _, x: x,
    "amax": _extreme(functions.reduce_max),
    "amin": _extreme(functions.reduce_min),
    "avg_pool2d": _avg_pool2d,
    "batch_norm": _batch_norm,
    "cat": _cat,
    "clone": _copy,
    "constant_pad_nd": _constant_pad_nd,
    "contiguous": _copy,
    "conv2d": _conv2d,
    "detach": lambda _, x: x.holding(x.data.detach()),
    "dropout": _dropout,
    "feature_dropout": _dropout,
    "flatten": _flatten,
    "group_norm": _group_norm,
    "index_select": lambda _, x, dim, index: layout.take(x, index, dim),
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "log_softmax": _softmax(torch.log_softmax),
    "matmul": lambda _, x, weight: functions.matmul(x, weight),
    "max.dim": _extreme_dim(functions.reduce_max),
    "max_pool2d": _max_pool2d,
    "mean": _mean,
    "mean.default": lambda rules, x, dtype: _mean(rules, x, None, False, dtype),
    "min.dim": _extreme_dim(functions.reduce_min),
    "pad": _pad,
    "permute": lambda _, x, dims: layout.transpose(x, dims),
    "prelu": _prelu,
    "reshape": _reshape,
    "select": lambda _, x, dim, index: layout.take(x, torch.tensor(index, device=x.data.device), dim),
    "softmax": _softmax(torch.softmax),
    "squeeze": _squeeze,
    "sum": _sum,
    "sum.default": lambda rules, x, dtype: _sum(rules, x, None, False, dtype),
    "sym_size": lambda _, x, dim: x.shape[dim],
    "transpose": _transpose,
    "unflatten": lambda _, x, dim, sizes: layout.reshape(x, _spliced(x, dim % x.data.ndim, sizes)),
    "unsqueeze": lambda _, x, dim: layout.unsqueeze(x, (dim,)),
    "view": _reshape,
}


def masked_call(target: Any, rules: MaskRules, arguments: Sequence[Any], masked: Sequence[Masked]) -> Any:
    """What an ATen operator gives for arguments of which some are masked.

    Args:
        target: the operator's overload.
        rules: the mask rules.
        arguments: in the order of the schema, defaults filled in.
        masked: the masked activations among them.

    Raises:
        RefusedError: if the operator has no rule, or its rule refuses these arguments.
    """
    packet, _, overload = str(target).removeprefix("aten.").partition(".")
    name = packet.rstrip("_") if target._schema.is_mutable else packet
    if any(value.border for value in masked) and name not in BORDER_READERS:
        raise RefusedError("a constant Pad that no convolution or pool has read reaches it")
    qualified = f"{name}.{overload}"
    plain: Any = getattr(getattr(torch.ops.aten, name, None), overload, None)
    if qualified in JOINS or name in JOINS:
        operands, rest = arguments[:2], _rest(target, arguments, 2)
        removed = JOINS[qualified if qualified in JOINS else name]
        return functions.combine(lambda a, b: plain(a, b, *rest[0], **rest[1]), operands, removed)
    rule = OPERATORS.get(qualified) or OPERATORS.get(name)
    if rule:
        return rule(rules, *arguments)
    if name in POINTWISE:
        if len(masked) > 1 or not isinstance(arguments[0], Masked):
            raise RefusedError("one of its parameters is masked")
        rest = _rest(target, arguments, 1)
        return functions.pointwise(lambda x: plain(x, *rest[0], **rest[1]), arguments[0], POINTWISE[name])
    raise RefusedError("masking has no rule for it")


def _rest(target: Any, arguments: Sequence[Any], start: int) -> tuple[list[Any], dict[str, Any]]:
    """The arguments from `start` on, as the positional and the keyword-only ones of the operator."""
    rest = list(zip(target._schema.arguments, arguments, strict=True))[start:]
    positional = [value for argument, value in rest if not argument.kwarg_only]
    return positional, {argument.name: value for argument, value in rest if argument.kwarg_only}
