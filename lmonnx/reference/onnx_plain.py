"""ONNX operators on values without a mask: parameters, shape arithmetic, classifier heads.

Every function takes the call and the node's inputs, None for an absent optional one, as ONNX defines them for
opsets 9 to 22. Floating numbers are in the dtype of the image, whatever the file says.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lmonnx.masking import MaskRules
from lmonnx.reference.activation import RefusedError


@dataclass(frozen=True)
class Node:
    """One node of an ONNX graph, in Python and NumPy values.

    Attributes:
        name: the node's name, for messages.
        operator: such as `"Conv"`.
        inputs: names of values; `""` is an absent optional input.
        outputs: names of values; `""` is an output that is not asked for.
        attributes: integers, floats, strings, lists of them, arrays for tensors.
        domain: `""` for ONNX's own operators.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    domain: str = ""


@dataclass(frozen=True)
class Call:
    """A node in its circumstances.

    Attributes:
        node: what is called.
        opset: of the file.
        rules: the choices of layer masking.
        dtype: floating, of the computation.
        device: of the computation.
    """

    node: Node
    opset: int
    rules: MaskRules
    dtype: torch.dtype
    device: torch.device

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or ONNX's default for it."""
        return self.node.attributes.get(name, default)

    def tensor(self, array: NDArray[Any] | Sequence[Any] | float) -> Tensor:
        """A tensor of a file's numbers on the device; floating ones in the dtype of the computation."""
        array = np.asarray(array)
        floating = array.dtype.kind == "f"
        tensor = torch.from_numpy(np.array(array, np.float64 if floating else array.dtype))
        return tensor.to(self.device, self.dtype if floating else tensor.dtype)

    def numbers(self, name: str, given: Tensor | None) -> list[int] | None:
        """Integers that older opsets have as the attribute `name` and newer ones as an input."""
        if given is not None:
            return [int(number) for number in given.reshape(-1).tolist()]
        value = self.get(name)
        return None if value is None else [int(number) for number in np.atleast_1d(value)]

    def numeric_type(self, to: int) -> torch.dtype:
        """The torch dtype of a TensorProto data type."""
        integers = {
            2: torch.uint8,
            3: torch.int8,
            5: torch.int16,
            6: torch.int32,
            7: torch.int64,
            9: torch.bool,
        }
        if to in (1, 10, 11, 16):
            return self.dtype
        if to not in integers:
            raise RefusedError(f"the reference has no data type {to}")
        return integers[to]


# Elementwise functions of one activation; further inputs are parameters.
POINTWISE: dict[str, Callable[..., Tensor]] = {
    "Abs": lambda _, x: x.abs(),
    "Cast": lambda call, x: x.to(call.numeric_type(call.get("to"))),
    "Ceil": lambda _, x: x.ceil(),
    "Celu": lambda call, x: F.celu(x, call.get("alpha", 1.0)),
    "Clip": lambda call, x, low=None, high=None: _clip(call, x, low, high),
    "Elu": lambda call, x: F.elu(x, call.get("alpha", 1.0)),
    "Erf": lambda _, x: torch.erf(x),
    "Exp": lambda _, x: x.exp(),
    "Floor": lambda _, x: x.floor(),
    "Gelu": lambda call, x: F.gelu(x, approximate=call.get("approximate", "none")),
    "HardSigmoid": lambda call, x: (call.get("alpha", 0.2) * x + call.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda _, x: x * (x / 6 + 0.5).clamp(0, 1),
    "LeakyRelu": lambda call, x: F.leaky_relu(x, call.get("alpha", 0.01)),
    "Log": lambda _, x: x.log(),
    "Mish": lambda _, x: F.mish(x),
    "Neg": lambda _, x: -x,
    "Reciprocal": lambda _, x: x.reciprocal(),
    "Relu": lambda _, x: torch.relu(x),
    "Round": lambda _, x: x.round(),
    "Selu": lambda call, x: _selu(x, call.get("alpha", 1.6732632423543772), call.get("gamma", 1.0507009873554805)),
    "Sigmoid": lambda _, x: torch.sigmoid(x),
    "Sign": lambda _, x: x.sign(),
    "Softplus": lambda _, x: torch.logaddexp(x, torch.zeros_like(x)),
    "Softsign": lambda _, x: F.softsign(x),
    "Sqrt": lambda _, x: x.sqrt(),
    "Tanh": lambda _, x: x.tanh(),
}

# Elementwise functions of several activations.
JOINS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda _, a, b: a + b,
    "Div": lambda _, a, b: a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc"),
    "Max": lambda _, *values: functools.reduce(torch.maximum, values),
    "Mean": lambda _, *values: functools.reduce(torch.add, values) / len(values),
    "Min": lambda _, *values: functools.reduce(torch.minimum, values),
    "Mul": lambda _, a, b: a * b,
    "PRelu": lambda _, x, slope: torch.where(x >= 0, x, slope * x),
    "Pow": lambda _, a, b: (a**b).to(a.dtype),
    "Sub": lambda _, a, b: a - b,
    "Sum": lambda _, *values: functools.reduce(torch.add, values),
}


def _clip(call: Call, x: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    """Clip, whose bounds are attributes before opset 11 and inputs since."""
    least = call.get("min") if low is None else low.to(x.dtype)
    most = call.get("max") if high is None else high.to(x.dtype)
    x = x if least is None else torch.maximum(x, torch.as_tensor(least, dtype=x.dtype, device=x.device))
    return x if most is None else torch.minimum(x, torch.as_tensor(most, dtype=x.dtype, device=x.device))


def _selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    return gamma * (x.clamp(min=0) + alpha * torch.expm1(x.clamp(max=0)))


def softmax(call: Call, x: Tensor) -> Tensor:
    """Softmax and LogSoftmax over `softmax_dims`."""
    dims = softmax_dims(call, x.ndim)
    x = x - x.logsumexp(dims, keepdim=True)
    return x if call.node.operator == "LogSoftmax" else x.exp()


def softmax_dims(call: Call, rank: int) -> tuple[int, ...]:
    """The axes that share a sum: `axis` alone since opset 13, it and all after it before."""
    if call.opset >= 13:
        return (call.get("axis", -1) % rank,)
    return tuple(range(call.get("axis", 1) % rank, rank))


def resolved_shape(call: Call, old: Sequence[int], asked: Tensor) -> list[int]:
    """The shape that Reshape asks for, with 0 replaced by the old extent; one extent may be −1."""
    shape = [int(extent) for extent in asked.tolist()]
    if call.get("allowzero", 0):
        return shape
    return [old[axis] if extent == 0 else extent for axis, extent in enumerate(shape)]


def flattened_shape(call: Call, old: Sequence[int]) -> list[int]:
    """The two extents that Flatten leaves."""
    axis = call.get("axis", 1)
    axis = axis + len(old) if axis < 0 else axis
    return [math.prod(old[:axis]), math.prod(old[axis:])]


def pad_pairs(call: Call, shape: Sequence[int], inputs: Sequence[Tensor | None]) -> list[tuple[int, int]]:
    """Before and after for every axis, from Pad's attributes or from its inputs pads, value and axes."""
    pads = call.numbers("pads", inputs[0] if inputs else None) or []
    axes = call.numbers("axes", inputs[2] if len(inputs) > 2 else None) or list(range(len(pads) // 2))
    pairs = [(0, 0)] * len(shape)
    for index, axis in enumerate(axes):
        pairs[axis % len(shape)] = (pads[index], pads[index + len(axes)])
    return pairs


def pad_value(call: Call, inputs: Sequence[Tensor | None]) -> float:
    """Pad's constant."""
    given = inputs[1] if len(inputs) > 1 else None
    return float(call.get("value", 0.0) if given is None else given.item())


def _pad(call: Call, x: Tensor, *inputs: Tensor | None) -> Tensor:
    pairs = pad_pairs(call, x.shape, inputs)
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    mode = call.get("mode", "constant")
    if mode not in modes:
        raise RefusedError(f"the reference has no padding by {mode}")
    if mode == "constant":
        flat = [extent for pair in reversed(pairs) for extent in pair]
        return F.pad(x, flat, value=pad_value(call, inputs))
    spatial = [extent for pair in reversed(pairs[2:]) for extent in pair]
    return F.pad(x, spatial, mode=modes[mode])


def _constant(call: Call) -> Tensor:
    for name, value in call.node.attributes.items():
        if name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
            return call.tensor(value)
    raise RefusedError(f"a Constant has the attributes {sorted(call.node.attributes)}")


def _constant_of_shape(call: Call, shape: Tensor) -> Tensor:
    value = call.tensor(call.get("value", np.zeros(1, np.float32)))
    return value.reshape(()).expand([int(extent) for extent in shape.tolist()]).clone()


def _slice(call: Call, x: Tensor, *inputs: Tensor | None) -> Tensor:
    given = [*inputs, *[None] * (4 - len(inputs))]
    starts, ends = call.numbers("starts", given[0]) or [], call.numbers("ends", given[1]) or []
    axes = call.numbers("axes", given[2]) or list(range(len(starts)))
    steps = call.numbers("steps", given[3]) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        indices = range(x.shape[axis])[start:end:step]
        x = x.index_select(axis, torch.tensor(list(indices), dtype=torch.int64, device=x.device))
    return x


def _gather(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    axis = call.get("axis", 0) % x.ndim
    positive = torch.where(indices < 0, indices + x.shape[axis], indices).to(torch.int64)
    taken = x.index_select(axis, positive.reshape(-1))
    return taken.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _split(call: Call, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis, parts = call.get("axis", 0), len(call.node.outputs)
    given = call.numbers("split", sizes)
    return torch.split(x, given or -(-x.shape[axis] // parts), axis)


def shape_of(call: Call, shape: Sequence[int]) -> Tensor:
    """What Shape gives for a value of this shape, int64 `[rank]`."""
    wanted = shape[slice(call.get("start", 0), call.get("end"))]
    return torch.tensor(list(wanted), dtype=torch.int64, device=call.device)


def _squeeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    dims = call.numbers("axes", axes)
    return x.squeeze() if dims is None else x.squeeze(tuple(dims))


def _unsqueeze(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    dims = call.numbers("axes", axes) or []
    for dim in sorted(dim % (x.ndim + len(dims)) for dim in dims):
        x = x.unsqueeze(dim)
    return x


def _gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    product = (a.T if call.get("transA", 0) else a) @ (b.T if call.get("transB", 0) else b)
    product = float(call.get("alpha", 1.0)) * product
    return product if c is None else product + float(call.get("beta", 1.0)) * c


def reduced_dims(call: Call, rank: int, axes: Tensor | None) -> tuple[int, ...]:
    """The axes that a reduction reduces: all of them if none are named."""
    dims = call.numbers("axes", axes)
    if not dims:
        return () if call.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(dim % rank for dim in dims)


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(call: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
        dims = reduced_dims(call, x.ndim, axes)
        return function(x, dims, keepdim=bool(call.get("keepdims", 1))) if dims else x

    return reduce


def _product(x: Tensor, dims: Sequence[int], *, keepdim: bool) -> Tensor:
    for dim in sorted(dims, reverse=True):
        x = x.prod(dim, keepdim=keepdim)
    return x


def _argmax(call: Call, x: Tensor) -> Tensor:
    return x.argmax(call.get("axis", 0), keepdim=bool(call.get("keepdims", 1)))


def _dropout(_: Call, x: Tensor, *__: Tensor | None) -> tuple[Tensor, Tensor]:
    return x, torch.ones_like(x, dtype=torch.bool)


PLAIN: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    **POINTWISE,
    **JOINS,
    "And": lambda _, a, b: a & b,
    "ArgMax": _argmax,
    "CastLike": lambda _, x, like: x.to(like.dtype),
    "Concat": lambda call, *parts: torch.cat(parts, call.get("axis")),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Dropout": _dropout,
    "Equal": lambda _, a, b: a == b,
    "Expand": lambda _, x, shape: x * torch.ones(shape.tolist(), dtype=x.dtype, device=x.device),
    "Flatten": lambda call, x: x.reshape(flattened_shape(call, x.shape)),
    "Gather": _gather,
    "Gemm": _gemm,
    "Greater": lambda _, a, b: a > b,
    "Identity": lambda _, x: x,
    "Less": lambda _, a, b: a < b,
    "LogSoftmax": softmax,
    "MatMul": lambda _, a, b: a @ b,
    "Not": lambda _, x: ~x,
    "Or": lambda _, a, b: a | b,
    "Pad": _pad,
    "Range": lambda _, start, limit, delta: torch.arange(*[v.item() for v in (start, limit, delta)]).to(start),
    "ReduceL1": _reduce(lambda x, dims, keepdim: x.abs().sum(dims, keepdim=keepdim)),
    "ReduceL2": _reduce(lambda x, dims, keepdim: x.square().sum(dims, keepdim=keepdim).sqrt()),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceProd": _reduce(_product),
    "ReduceSum": _reduce(torch.sum),
    "ReduceSumSquare": _reduce(lambda x, dims, keepdim: x.square().sum(dims, keepdim=keepdim)),
    "Reshape": lambda call, x, shape: x.reshape(resolved_shape(call, x.shape, shape)),
    "Shape": lambda call, x: shape_of(call, x.shape),
    "Size": lambda call, x: call.tensor(np.array(x.numel())),
    "Slice": _slice,
    "Softmax": softmax,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda _, x, repeats: x.tile(repeats.tolist()),
    "Transpose": lambda call, x: x.permute(call.get("perm", list(range(x.ndim))[::-1])),
    "Unsqueeze": _unsqueeze,
    "Where": lambda _, condition, a, b: torch.where(condition, a, b),
}
