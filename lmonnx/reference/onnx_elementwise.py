"""ONNX operators that treat every position alone, by their ONNX names, on plain tensors.

Every function takes the call and the node's inputs, None for an absent optional one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lmonnx.reference.activation import RefusedError
from lmonnx.reference.onnx_call import INTEGERS, Call

# Elementwise functions of one activation; further inputs are parameters.
POINTWISE: dict[str, Callable[..., Tensor]] = {
    "Abs": lambda _, x: x.abs(),
    "Acos": lambda _, x: x.acos(),
    "Acosh": lambda _, x: x.acosh(),
    "Asin": lambda _, x: x.asin(),
    "Asinh": lambda _, x: x.asinh(),
    "Atan": lambda _, x: x.atan(),
    "Atanh": lambda _, x: x.atanh(),
    "Cast": lambda call, x: x.to(call.numeric_type(call.get("to"))),
    "Ceil": lambda _, x: x.ceil(),
    "Celu": lambda call, x: F.celu(x, call.get("alpha", 1.0)),
    "Clip": lambda call, x, low=None, high=None: _clip(call, x, low, high),
    "Cos": lambda _, x: x.cos(),
    "Cosh": lambda _, x: x.cosh(),
    "DequantizeLinear": lambda call, x, scale, zero=None: _dequantise(call, x, scale, zero),
    "Elu": lambda call, x: F.elu(x, call.get("alpha", 1.0)),
    "Erf": lambda _, x: torch.erf(x),
    "Exp": lambda _, x: x.exp(),
    "Floor": lambda _, x: x.floor(),
    "Gelu": lambda call, x: F.gelu(x, approximate=call.get("approximate", "none")),
    "HardSigmoid": lambda call, x: (call.get("alpha", 0.2) * x + call.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda _, x: x * (x / 6 + 0.5).clamp(0, 1),
    "IsInf": lambda call, x: _is_infinite(x, call.get("detect_positive", 1), call.get("detect_negative", 1)),
    "IsNaN": lambda _, x: x.isnan(),
    "LeakyRelu": lambda call, x: F.leaky_relu(x, call.get("alpha", 0.01)),
    "Log": lambda _, x: x.log(),
    "Mish": lambda _, x: F.mish(x),
    "Neg": lambda _, x: -x,
    "Not": lambda _, x: ~x,
    "QuantizeLinear": lambda call, x, scale, zero=None: _quantise(call, x, scale, zero),
    "Reciprocal": lambda _, x: x.reciprocal(),
    "Relu": lambda _, x: torch.relu(x),
    "Round": lambda _, x: x.round(),
    "Selu": lambda call, x: _selu(x, call.get("alpha", 1.6732632423543772), call.get("gamma", 1.0507009873554805)),
    "Shrink": lambda call, x: _shrink(x, call.get("lambd", 0.5), call.get("bias", 0.0)),
    "Sigmoid": lambda _, x: torch.sigmoid(x),
    "Sign": lambda _, x: x.sign(),
    "Sin": lambda _, x: x.sin(),
    "Sinh": lambda _, x: x.sinh(),
    "Softplus": lambda _, x: torch.logaddexp(x, torch.zeros_like(x)),
    "Softsign": lambda _, x: F.softsign(x),
    "Sqrt": lambda _, x: x.sqrt(),
    "Swish": lambda call, x: x * torch.sigmoid(call.get("alpha", 1.0) * x),
    "Tan": lambda _, x: x.tan(),
    "Tanh": lambda _, x: x.tanh(),
    "ThresholdedRelu": lambda call, x: torch.where(x > call.get("alpha", 1.0), x, 0),
}

# Elementwise functions of several activations.
JOINS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda _, a, b: a + b,
    "And": lambda _, a, b: a & b,
    "Div": lambda _, a, b: a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc"),
    "Equal": lambda _, a, b: a == b,
    "Greater": lambda _, a, b: a > b,
    "GreaterOrEqual": lambda _, a, b: a >= b,
    "Less": lambda _, a, b: a < b,
    "LessOrEqual": lambda _, a, b: a <= b,
    "Max": lambda _, *values: functools.reduce(torch.maximum, values),
    "Mean": lambda _, *values: functools.reduce(torch.add, values) / len(values),
    "Min": lambda _, *values: functools.reduce(torch.minimum, values),
    "Mod": lambda call, a, b: torch.fmod(a, b) if call.get("fmod", 0) else torch.remainder(a, b),
    "Mul": lambda _, a, b: a * b,
    "Or": lambda _, a, b: a | b,
    "PRelu": lambda _, x, slope: torch.where(x >= 0, x, slope * x),
    "Pow": lambda _, a, b: (a**b).to(a.dtype),
    "Sub": lambda _, a, b: a - b,
    "Sum": lambda _, *values: functools.reduce(torch.add, values),
    "Where": lambda _, condition, a, b: torch.where(condition, a, b),
    "Xor": lambda _, a, b: a ^ b,
}


def _clip(call: Call, x: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    """Clip, whose bounds are attributes before opset 11 and inputs since."""
    least = call.get("min") if low is None else low.to(x.dtype)
    most = call.get("max") if high is None else high.to(x.dtype)
    x = x if least is None else torch.maximum(x, torch.as_tensor(least, dtype=x.dtype, device=x.device))
    return x if most is None else torch.minimum(x, torch.as_tensor(most, dtype=x.dtype, device=x.device))


def _selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    return gamma * (x.clamp(min=0) + alpha * torch.expm1(x.clamp(max=0)))


def _is_infinite(x: Tensor, positive: int, negative: int) -> Tensor:
    return (x.isposinf() & bool(positive)) | (x.isneginf() & bool(negative))


def _shrink(x: Tensor, threshold: float, bias: float) -> Tensor:
    return torch.where(x < -threshold, x + bias, torch.where(x > threshold, x - bias, 0))


def _quantise(call: Call, x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """Half to even, then saturated; the type is that of the zero point, or `output_dtype`, or uint8."""
    asked = call.get("output_dtype", 0)
    dtype = zero.dtype if zero is not None else INTEGERS.get(asked) if asked else torch.uint8
    if dtype not in (torch.uint8, torch.int8, torch.uint16, torch.int16):
        raise RefusedError(f"the reference does not quantise to {dtype or f'the data type {asked}'}")
    steps, limits = torch.round(x / _of_channels(call, x, scale)), torch.iinfo(dtype)
    steps = steps if zero is None else steps + _of_channels(call, x, zero).to(steps.dtype)
    return steps.clamp(limits.min, limits.max).to(dtype)


def _dequantise(call: Call, x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    steps = x.to(call.dtype)
    steps = steps if zero is None else steps - _of_channels(call, x, zero).to(steps.dtype)
    return steps * _of_channels(call, x, scale)


def _of_channels(call: Call, x: Tensor, parameter: Tensor) -> Tensor:
    """A scale or zero point for the whole tensor or for each index of `axis`, such that it broadcasts to `x`."""
    if call.get("block_size", 0) or parameter.ndim > 1:
        raise RefusedError("it quantises in blocks")
    if parameter.numel() == 1:
        return parameter.reshape(())
    shape = [1] * x.ndim
    shape[call.get("axis", 1)] = -1
    return parameter.reshape(shape)
