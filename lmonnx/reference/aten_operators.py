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
from lmonnx.reference import functions, refusals, windows
from lmonnx.reference.activation import Masked, RefusedError, Value
from lmonnx.reference.aten_elementwise import ALIASES, JOINS, POINTWISE, SHAPED_LIKE
from lmonnx.reference.aten_layout import LAYOUT

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
        "narrow",
        "pad",
        "permute",
        "slice",
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


def _avg_pool3d(
    _: MaskRules,
    x: Masked,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    include_pad: bool,
    divisor: int | None,
) -> Value:
    kernel, strides, pads = ([*values] * (3 // len(values)) for values in (kernel, stride or kernel, padding))
    if ceil_mode:
        raise RefusedError("a window of three axes has no masked meaning with ceil_mode")
    window = Window(tuple(kernel), tuple(strides), (1, 1, 1), tuple((pad, pad) for pad in pads))
    return windows.channel_average(x, window, include_pad=include_pad, divisor=divisor)


def _conv2d(
    rules: MaskRules,
    x: Masked,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> Value:
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


def _norm(
    _: MaskRules, x: Masked, order: float | None, dims: Sequence[int] | None, keepdim: bool, dtype: Any = None
) -> Value:
    return functions.vector_norm(_cast(x, dtype), 2.0 if order is None else order, dims or (), keepdim=keepdim)


def _variance(after: Callable[[Tensor], Tensor] | None = None) -> Callable[..., Value]:
    """Rules of var and std, whose schemas name the correction or whether there is one."""

    def rule(rules: MaskRules, x: Masked, *options: Any) -> Value:
        given = [*options] if len(options) == 3 else [None, *options, False]
        dims, correction, keepdim = given
        correction = 1 if correction is None else float(correction)
        found = functions.variance(x, _listed(dims), correction, keepdim=bool(keepdim), rules=rules)
        return found if after is None else functions.onto(found, after)

    return rule


def _with_mean(spread: Callable[..., Value]) -> Callable[..., tuple[Value, Value]]:
    def rule(rules: MaskRules, x: Masked, *options: Any) -> tuple[Value, Value]:
        dims, keepdim = (options[0], options[2]) if len(options) == 3 else (None, False)
        return spread(rules, x, *options), _mean(rules, x, _listed(dims), bool(keepdim), None)

    return rule


def _listed(dims: int | Sequence[int] | None) -> Sequence[int]:
    return [dims] if isinstance(dims, int) else dims or ()


def _logsumexp(_: MaskRules, x: Masked, dims: Sequence[int], keepdim: bool) -> Value:
    what = "the logarithm of a sum"
    return functions.over_channels(
        x, dims, what, lambda data: data.logsumexp(tuple(dims), keepdim=keepdim), keepdim=keepdim
    )


def _glu(_: MaskRules, x: Masked, dim: int) -> Value:
    functions.per_pixel(x, (dim,), "a gate")
    return functions.pointwise(lambda data: torch.nn.functional.glu(data, dim), x)


def _rrelu(_: MaskRules, x: Masked, low: float, high: float, training: bool, __: Any) -> Value:
    if training:
        raise RefusedError("it is random", "put the module in eval mode")
    return functions.pointwise(lambda data: torch.nn.functional.rrelu(data, low, high), x)


def _einsum(_: MaskRules, equation: str, operands: Sequence[Value], __: Any) -> Value:
    return functions.einsum(equation, operands)


def _rms_norm(_: MaskRules, x: Masked, shape: Sequence[int], weight: Any, eps: float) -> Value:
    return functions.rms_norm(x, range(x.data.ndim - len(shape), x.data.ndim), weight, eps)


def _extreme(reduce: Callable[..., Value]) -> Callable[..., Value]:
    return lambda _, x, dims, keepdim: reduce(x, dims or (), keepdim=keepdim)


def _extreme_dim(reduce: Callable[..., Value]) -> Callable[..., tuple[Value, None]]:
    """max.dim and min.dim also return indices, which masking does not define."""
    return lambda _, x, dim, keepdim: (reduce(x, (dim,), keepdim=keepdim), None)


def _aminmax(_: MaskRules, x: Masked, dim: int | None, keepdim: bool) -> tuple[Value, Value]:
    dims = _listed(dim)
    return functions.reduce_min(x, dims, keepdim=keepdim), functions.reduce_max(x, dims, keepdim=keepdim)


def _over_rows(x: Masked, size: Sequence[int]) -> tuple[int]:
    """The axis that an adaptive pool of `[N, C, L]` to one number reduces."""
    if list(size) != [1]:
        raise RefusedError(refusals.CHANNELWISE)
    return (x.data.ndim - 1,)


def _adaptive_average_1d(rules: MaskRules, x: Masked, size: Sequence[int]) -> Value:
    return functions.reduce_mean(x, _over_rows(x, size), keepdim=True, rules=rules)


def _adaptive_max_1d(_: MaskRules, x: Masked, size: Sequence[int]) -> tuple[Value, None]:
    return functions.reduce_max(x, _over_rows(x, size), keepdim=True), None


def _linalg_norm(
    rules: MaskRules, x: Masked, order: float | None, dims: Sequence[int] | None, keepdim: bool, dtype: Any
) -> Value:
    if order is not None and len(dims or ()) != 1:
        raise RefusedError("the norm of a matrix has no masked meaning")
    return _norm(rules, x, order, dims, keepdim, dtype)


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


def _stored_norm(
    _: MaskRules, x: Masked, weight: Any, bias: Any, mean: Any, variance: Any, __: float, eps: float
) -> tuple[Value, None, None]:
    """What a batch norm in eval mode is in a graph without writing in place; its statistics are not read."""
    return functions.batch_norm(x, weight, bias, mean, variance, eps), None, None


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


def _linear(_: MaskRules, x: Masked, weight: Tensor, bias: Tensor | None) -> Value:
    product = functions.matmul(x, weight.T)
    return product if bias is None else functions.pointwise(lambda data: data + bias, product)


def _dropout(_: MaskRules, x: Masked, __: float, train: bool) -> Value:
    if train:
        raise RefusedError("it is random", "put the module in eval mode")
    return x


# Operators of which any operand may be masked; the others have masks in their first alone.
JOINED = frozenset({
    "cat", "concat", "copy", "einsum", "expand_as", "matmul", "select_scatter", "slice_scatter", "stack", "to.other",
    "type_as", "view_as",
})  # fmt: skip

OPERATORS: dict[str, Callable[..., Any]] = {
    **LAYOUT,
    "_native_batch_norm_legit_no_training": _stored_norm,
    "_log_softmax": _softmax(torch.log_softmax),
    "_softmax": _softmax(torch.softmax),
    "adaptive_avg_pool1d": _adaptive_average_1d,
    "adaptive_avg_pool2d": lambda rules, x, size: windows.adaptive_average(x, _pair(size), rules),
    "adaptive_max_pool1d": _adaptive_max_1d,
    "adaptive_max_pool2d": lambda _, x, size: (windows.adaptive_max(x, _pair(size)), None),
    "alpha_dropout": _dropout,
    "amax": _extreme(functions.reduce_max),
    "amin": _extreme(functions.reduce_min),
    "aminmax": _aminmax,
    "avg_pool2d": _avg_pool2d,
    "avg_pool3d": _avg_pool3d,
    "batch_norm": _batch_norm,
    "conv2d": _conv2d,
    "dropout": _dropout,
    "einsum": _einsum,
    "feature_alpha_dropout": _dropout,
    "feature_dropout": _dropout,
    "glu": _glu,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "linalg_norm": _linalg_norm,
    "linalg_vector_norm": _norm,
    "linear": _linear,
    "log_softmax": _softmax(torch.log_softmax),
    "logsumexp": _logsumexp,
    "matmul": lambda _, x, y: functions.matmul(x, y),
    "max.dim": _extreme_dim(functions.reduce_max),
    "max_pool2d": _max_pool2d,
    "max_pool2d_with_indices": lambda rules, *arguments: (_max_pool2d(rules, *arguments), None),
    "mean": _mean,
    "mean.default": lambda rules, x, dtype: _mean(rules, x, None, False, dtype),
    "min.dim": _extreme_dim(functions.reduce_min),
    "norm.ScalarOpt_dim": lambda rules, x, order, dims, keepdim: _norm(rules, x, order, dims, keepdim),
    "prelu": _prelu,
    "rms_norm": _rms_norm,
    "rrelu": _rrelu,
    "softmax": _softmax(torch.softmax),
    "std": _variance(torch.sqrt),
    "std_mean": _with_mean(_variance(torch.sqrt)),
    "sum": _sum,
    "sum.default": lambda rules, x, dtype: _sum(rules, x, None, False, dtype),
    "var": _variance(),
    "var_mean": _with_mean(_variance()),
}


# What is computed of plain values otherwise than PyTorch does, which breaks ties as it likes.
PLAIN: dict[Any, Callable[..., Any]] = {torch.ops.aten.topk.default: functions.top_k}


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
    name = ALIASES.get(name, name)
    if any(value.border for value in masked) and name not in BORDER_READERS:
        raise RefusedError("a constant Pad that no convolution or pool has read reaches it")
    qualified = f"{name}.{overload}"
    plain: Any = getattr(getattr(torch.ops.aten, name, None), overload, None)
    if name in SHAPED_LIKE and isinstance(arguments[0], Masked):
        rest = _rest(target, arguments, 1)
        return target(arguments[0].data, *rest[0], **rest[1])
    rule = OPERATORS.get(qualified) or OPERATORS.get(name)
    if rule:
        if not JOINED & {name, qualified} and (len(masked) > 1 or not isinstance(arguments[0], Masked)):
            raise RefusedError("one of its parameters is masked")
        return rule(rules, *arguments)
    if qualified in JOINS or (name in JOINS and name not in POINTWISE):
        removed = JOINS[qualified if qualified in JOINS else name][: len(arguments)]
        operands, rest = arguments[: len(removed)], _rest(target, arguments, len(removed))
        return functions.combine(lambda *data: plain(*data, *rest[0], **rest[1]), operands, removed)
    if name in POINTWISE:
        if len(masked) > 1 or not isinstance(arguments[0], Masked):
            raise RefusedError("one of its parameters is masked")
        rest = _rest(target, arguments, 1)
        return functions.pointwise(lambda x: plain(x, *rest[0], **rest[1]), arguments[0], POINTWISE[name])
    if name in refusals.ATEN:
        raise RefusedError(refusals.ATEN[name], "use a network without it")
    raise RefusedError("masking has no rule for it")


def _rest(target: Any, arguments: Sequence[Any], start: int) -> tuple[list[Any], dict[str, Any]]:
    """The arguments from `start` on, as the positional and the keyword-only ones of the operator."""
    rest = list(zip(target._schema.arguments, arguments, strict=True))[start:]
    positional = [value for argument, value in rest if not argument.kwarg_only]
    return positional, {argument.name: value for argument, value in rest if argument.kwarg_only}
