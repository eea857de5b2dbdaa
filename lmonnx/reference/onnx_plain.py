"""ONNX operators on values without a mask: parameters, shape arithmetic, classifier heads.

Every function takes the call and the node's inputs, None for an absent optional one, as ONNX defines them for
the opsets that the front end reads. Floating numbers are in the dtype of the image, whatever the file says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lmonnx.reference.activation import RefusedError
from lmonnx.reference.functions import top_k
from lmonnx.reference.onnx_call import Call
from lmonnx.reference.onnx_elementwise import JOINS, POINTWISE
from lmonnx.reference.onnx_windows import plain_conv, plain_resize


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


#: Modes of ONNX's Pad that repeat pixels -> PyTorch's names of them.
PADDINGS = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _pad(call: Call, x: Tensor, *inputs: Tensor | None) -> Tensor:
    pairs = pad_pairs(call, x.shape, inputs)
    mode = call.get("mode", "constant")
    if mode != "constant" and mode not in PADDINGS:
        raise RefusedError(f"the reference has no padding by {mode}")
    if mode == "constant":
        flat = [extent for pair in reversed(pairs) for extent in pair]
        return F.pad(x, flat, value=pad_value(call, inputs))
    spatial = [extent for pair in reversed(pairs[2:]) for extent in pair]
    return F.pad(x, spatial, mode=PADDINGS[mode])


def _constant(call: Call) -> Tensor:
    for name, value in call.node.attributes.items():
        if name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
            return call.tensor(value)
    raise RefusedError(f"a Constant has the attributes {sorted(call.node.attributes)}")


def _constant_of_shape(call: Call, shape: Tensor) -> Tensor:
    value = call.tensor(call.get("value", np.zeros(1, np.float32)))
    return value.reshape(()).expand([int(extent) for extent in shape.tolist()]).clone()


def slices(call: Call, shape: Sequence[int], inputs: Sequence[Tensor | None]) -> list[tuple[int, range]]:
    """The positions that Slice takes along each of its axes."""
    given = [*inputs, *[None] * (4 - len(inputs))]
    starts, ends = call.numbers("starts", given[0]) or [], call.numbers("ends", given[1]) or []
    axes = call.numbers("axes", given[2]) or list(range(len(starts)))
    steps = call.numbers("steps", given[3]) or [1] * len(starts)
    found = zip(starts, ends, axes, steps, strict=True)
    return [(axis % len(shape), range(shape[axis])[start:end:step]) for start, end, axis, step in found]


def _slice(call: Call, x: Tensor, *inputs: Tensor | None) -> Tensor:
    for axis, positions in slices(call, x.shape, inputs):
        x = x.index_select(axis, torch.tensor(list(positions), dtype=torch.int64, device=x.device))
    return x


def _gather(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    axis = call.get("axis", 0) % x.ndim
    positive = torch.where(indices < 0, indices + x.shape[axis], indices).to(torch.int64)
    taken = x.index_select(axis, positive.reshape(-1))
    return taken.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def split_sizes(call: Call, extent: int, sizes: Tensor | None) -> list[int]:
    """The extents of Split's outputs: as given, or equal, the last one smaller if they do not divide."""
    given = call.numbers("split", sizes)
    if given:
        return given
    part = -(-extent // call.get("num_outputs", len(call.node.outputs)))
    return [min(part, extent - start) for start in range(0, extent, part)]


def _split(call: Call, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = call.get("axis", 0)
    return torch.split(x, split_sizes(call, x.shape[axis], sizes), axis)


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


def gemm(call: Call, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """The sum alpha · a @ b + beta · c, either of the matrices transposed."""
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


def log_sum(x: Tensor, dims: Sequence[int], *, keepdim: bool) -> Tensor:
    """The logarithm of the sum."""
    return x.sum(tuple(dims), keepdim=keepdim).log()


def product(x: Tensor, dims: Sequence[int], *, keepdim: bool) -> Tensor:
    """The product over several axes."""
    for dim in sorted(dims, reverse=True):
        x = x.prod(dim, keepdim=keepdim)
    return x


def _arg(extreme: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def function(call: Call, x: Tensor) -> Tensor:
        axis, x = call.get("axis", 0), x if not call.get("select_last_index", 0) else x.flip(call.get("axis", 0))
        found: Tensor = extreme(x, axis, keepdim=bool(call.get("keepdims", 1)))
        last: int = x.shape[axis] - 1
        return last - found if call.get("select_last_index", 0) else found

    return function


def _top_k(call: Call, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    return top_k(x, int(k.reshape(()).item()), call.get("axis", -1), bool(call.get("largest", 1)))


def hardmax(call: Call, x: Tensor) -> Tensor:
    """1 at the first maximum over `softmax_dims` and 0 elsewhere."""
    dims = softmax_dims(call, x.ndim)
    flat = x.flatten(dims[0], dims[-1])
    hot: Tensor = F.one_hot(flat.argmax(dims[0]), flat.shape[dims[0]])
    return hot.to(x.dtype).movedim(-1, dims[0]).reshape(x.shape)


def lp_norm(call: Call, x: Tensor) -> Tensor:
    """The numbers divided by their norm of order p along an axis; 0 where that is 0, as onnxruntime has it."""
    norm = torch.linalg.vector_norm(x, call.get("p", 2), call.get("axis", -1), keepdim=True)
    return x / torch.where(norm == 0, 1, norm)


def lrn(call: Call, x: Tensor) -> Tensor:
    """Local response normalisation, x / (bias + alpha / size · sum of squares over `size` channels) ^ beta."""
    size = call.get("size")
    before, squares = (size - 1) // 2, x.square().movedim(1, -1)
    total = F.pad(squares, (before, size - 1 - before)).unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    normalised: Tensor = x / (call.get("bias", 1.0) + call.get("alpha", 1e-4) / size * total) ** call.get("beta", 0.75)
    return normalised


def _one_hot(call: Call, places: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """The second value at the places and the first elsewhere; negative places count from the end."""
    count = int(depth.reshape(()).item())
    places = torch.where(places < 0, places + count, places).to(torch.int64)
    hot = torch.arange(count, device=places.device) == places.unsqueeze(-1)
    return torch.where(hot, values[1], values[0]).movedim(-1, call.get("axis", -1))


def _triangle(call: Call, x: Tensor, diagonal: Tensor | None = None) -> Tensor:
    at = 0 if diagonal is None else int(diagonal.reshape(()).item())
    return x.triu(at) if call.get("upper", 1) else x.tril(at)


def _cumulative_sum(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    if call.get("exclusive", 0) or call.get("reverse", 0):
        raise RefusedError("the reference has no exclusive or reversed sums")
    return x.cumsum(int(axis.reshape(()).item()))


def _dropout(_: Call, x: Tensor, __: Tensor | None = None, training: Tensor | None = None) -> tuple[Tensor, Tensor]:
    if training is not None and bool(training):
        raise RefusedError("a Dropout in training is random")
    return x, torch.ones_like(x, dtype=torch.bool)


PLAIN: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    **POINTWISE,
    **JOINS,
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "BitShift": lambda call, a, b: a << b if call.get("direction") == "LEFT" else a >> b,
    "CastLike": lambda _, x, like: x.to(like.dtype),
    "Concat": lambda call, *parts: torch.cat(parts, call.get("axis")),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": plain_conv,
    "CumSum": _cumulative_sum,
    "Dropout": _dropout,
    "Einsum": lambda call, *operands: torch.einsum(call.get("equation"), *operands),
    "Expand": lambda _, x, shape: x * torch.ones(shape.tolist(), dtype=x.dtype, device=x.device),
    "Flatten": lambda call, x: x.reshape(flattened_shape(call, x.shape)),
    "Gather": _gather,
    "Gemm": gemm,
    "Hardmax": hardmax,
    "Identity": lambda _, x: x,
    "LogSoftmax": softmax,
    "LpNormalization": lp_norm,
    "MatMul": lambda _, a, b: a @ b,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": lambda _, start, limit, delta: torch.arange(*[v.item() for v in (start, limit, delta)]).to(start),
    "ReduceL1": _reduce(lambda x, dims, keepdim: x.abs().sum(dims, keepdim=keepdim)),
    "ReduceL2": _reduce(lambda x, dims, keepdim: x.square().sum(dims, keepdim=keepdim).sqrt()),
    "ReduceLogSum": _reduce(log_sum),
    "ReduceLogSumExp": _reduce(torch.logsumexp),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceProd": _reduce(product),
    "ReduceSum": _reduce(torch.sum),
    "ReduceSumSquare": _reduce(lambda x, dims, keepdim: x.square().sum(dims, keepdim=keepdim)),
    "Reshape": lambda call, x, shape: x.reshape(resolved_shape(call, x.shape, shape)),
    "Resize": plain_resize,
    "Shape": lambda call, x: shape_of(call, x.shape),
    "Size": lambda call, x: call.tensor(np.array(x.numel())),
    "Slice": _slice,
    "Softmax": softmax,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda _, x, repeats: x.tile(repeats.tolist()),
    "TopK": _top_k,
    "Transpose": lambda call, x: x.permute(call.get("perm", list(range(x.ndim))[::-1])),
    "Trilu": _triangle,
    "Unsqueeze": _unsqueeze,
    "Upsample": plain_resize,
}
