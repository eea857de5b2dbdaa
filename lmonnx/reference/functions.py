"""Masked operators that slide no window: pointwise, joins, reductions, normalisations.

They follow the rules of layer masking (Balasubramanian & Feizi, ICCV 2023) and their extension to other
operators. Every function raises RefusedError where masking is not defined. The batch is axis 0 and stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lmonnx.masking import MaskRules
from lmonnx.reference.activation import Masked, RefusedError, Value, wide


def pointwise(function: Callable[[Tensor], Tensor], x: Masked, removed: float | None = None) -> Masked:
    """The op at every pixel; the mask is unchanged.

    Args:
        function: maps a tensor to one of the same shape, element by element or pixel by pixel.
        x: any layout.
        removed: what removed positions are read as, for functions that leave the finite numbers there: the
            logarithm of a 0 that nobody reads would still make every gradient NaN.
    """
    return x.holding(function(x.data if removed is None else x.filled(removed)))


def combine(function: Callable[..., Tensor], operands: Sequence[Any], removed: Sequence[float | None] = ()) -> Masked:
    """Elementwise of several operands, at least one masked: the op, and the intersection of the masks.

    Args:
        function: takes the operands' data in their order and broadcasts them.
        operands: masked activations, tensors and numbers; the last two count as kept everywhere.
        removed: what removed positions of each operand are read as, see `pointwise`.
    """
    fills = [*removed, *[None] * (len(operands) - len(removed))]
    data = function(*[_read(value, fill) for value, fill in zip(operands, fills, strict=True)])
    masked = [value for value in operands if isinstance(value, Masked)]
    if any(value.data.ndim < data.ndim for value in masked):
        raise RefusedError(f"a masked operand is broadcast to {data.ndim} axes, so that none of its own stays in place")
    axes = _common_axes(masked)
    rows = masked[0].rows if all(value.rows is masked[0].rows for value in masked) else None
    return Masked(data, _intersection(masked, data, axes), axes, rows=rows)


def top_k(x: Tensor, k: int, dim: int = -1, largest: bool = True, _: bool = True) -> tuple[Tensor, Tensor]:
    """The k largest or smallest numbers of a plain tensor and their places; of equal ones the first, as ONNX has it."""
    found = x.sort(dim=dim, descending=largest, stable=True)
    return found.values.narrow(dim, 0, k), found.indices.narrow(dim, 0, k)


def _read(value: Any, removed: float | None) -> Any:
    if not isinstance(value, Masked):
        return value
    return value.data if removed is None else value.filled(removed)


def _common_axes(masked: Sequence[Masked]) -> tuple[int, ...]:
    """Space of any operand; to one of a single pixel there it is space as well."""
    axes = tuple(sorted({axis for value in masked for axis in value.axes}))
    if any(value.data.shape[axis] != 1 for value in masked for axis in axes if axis not in value.axes):
        raise RefusedError(f"its operands have space on different axes, {[value.axes for value in masked]}")
    return axes


def _intersection(masked: Sequence[Masked], data: Tensor, axes: Sequence[int]) -> Tensor:
    """Kept where every operand is, at the full extents of `data` on the batch and over space, its `axes`."""
    mask = masked[0].mask
    for value in masked[1:]:
        mask = mask & value.mask
    full = {0, *axes}
    return mask.expand([n if axis in full else -1 for axis, n in enumerate(data.shape)])


def concat(operands: Sequence[Value], axis: int, rules: MaskRules) -> Masked:
    """Concatenation of masked and plain operands over channels (`rules.concat`) or over space.

    Over channels a pixel is kept where all, any or the majority of the operands keep it; an operand is 0
    where it is removed and the join keeps it, unless `removed="computed"`.
    """
    axes = _common_axes([value for value in operands if isinstance(value, Masked)])
    axis %= operands[0].ndim if isinstance(operands[0], Tensor) else operands[0].data.ndim
    if axis == 0:
        raise RefusedError("it concatenates the batch")
    parts = [value if isinstance(value, Masked) else _kept_everywhere(value, axes) for value in operands]
    data = torch.cat([part.data if rules.removed == "computed" else part.zeroed() for part in parts], axis)
    if axis in axes:
        return Masked(data, torch.cat([part.mask for part in parts], axis), axes)
    votes = torch.stack([part.mask for part in parts]).sum(0)
    needed = {"all": len(parts), "any": 1, "majority": len(parts) // 2 + 1}[rules.concat]
    return Masked(data, votes >= needed, axes)


def _kept_everywhere(plain: Tensor, axes: tuple[int, ...]) -> Masked:
    shape = [n if axis in {0, *axes} else 1 for axis, n in enumerate(plain.shape)]
    return Masked(plain, torch.ones(shape, dtype=torch.bool, device=plain.device), axes)


def per_pixel(x: Masked, dims: Sequence[int], what: str) -> tuple[int, ...]:
    """`dims` counted from 0, none of which may be space or the batch; `what` names the operator's doing."""
    positive = tuple(dim % x.data.ndim for dim in dims)
    if 0 in positive:
        raise RefusedError(f"{what} over the batch")
    if set(positive) & set(x.axes):
        raise RefusedError(f"{what} over space has no masked meaning")
    return positive


def matmul(x: Value, y: Value) -> Masked:
    """Product of a masked activation with a plain matrix, over an axis that is not space: the op at every pixel.

    Args:
        x: masked `[N, …, K]`, or the plain matrix `[M, K]`.
        y: the plain matrix `[K, M]`, or masked `[N, …, K, P]`.
    """
    if isinstance(x, Masked) and isinstance(y, Masked):
        raise RefusedError("it is a product of two activations, which mixes pixels, as attention does")
    masked, matrix = (x, y) if isinstance(x, Masked) else (y, x)
    assert isinstance(masked, Masked)
    assert isinstance(matrix, Tensor)
    if matrix.ndim != 2:
        raise RefusedError("one operand is not a plain matrix, so pixels would be mixed")
    per_pixel(masked, [-1 if masked is x else -2], "a product")
    return pointwise((lambda data: data @ matrix) if masked is x else (lambda data: matrix @ data), masked)


def einsum(equation: str, operands: Sequence[Value]) -> Masked:
    """Product of one masked activation with plain operands that keeps its batch and its space.

    Args:
        equation: without an ellipsis, such as `"nchw,kc->nkhw"`.
        operands: one of them masked.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    labels = left.split(",")
    masked = [value for value in operands if isinstance(value, Masked)]
    if len(masked) != 1:
        raise RefusedError("it is a product of two activations, which mixes pixels, as attention does")
    if not arrow or "." in equation or len(labels) != len(operands):
        raise RefusedError(f"the equation {equation!r} does not name every axis of the operands and the result")
    (x,) = masked
    own = next(label for label, value in zip(labels, operands, strict=True) if value is x)
    space = [own[axis] for axis in x.axes]
    if not right.startswith(own[0]) or any(label not in right for label in space) or len(set(own)) != len(own):
        raise RefusedError(f"the product {equation!r} is over space or over the batch")
    data = torch.einsum(equation, *[value.data if isinstance(value, Masked) else value for value in operands])
    order = [own.index(label) for label in right if label in (own[0], *space)]
    kept = x.mask.permute(*order, *[axis for axis in range(x.mask.ndim) if axis not in order])
    kept = kept.reshape([n if label in (own[0], *space) else 1 for label, n in zip(right, data.shape, strict=True)])
    return Masked(data, kept, tuple(axis for axis, label in enumerate(right) if label in space))


def reduce_mean(x: Masked, dims: Sequence[int], *, keepdim: bool, rules: MaskRules) -> Value:
    """Mean over channels per pixel; over space mean(x ⊙ m) / (mean(m) + 1e-8), or mean(x ⊙ m) by area.

    Args:
        x: any layout.
        dims: what is reduced; all space consumes the mask, one of two spatial axes leaves any() along it.
        keepdim: whether reduced axes stay with extent 1.
        rules: `average`.
    """
    dims = _reducible(x, dims)
    if not set(dims) & set(x.axes):
        return _reduced(x, x.data.mean(dims, keepdim=keepdim), dims, keepdim)
    mean = wide(x.zeroed()).mean(dims, keepdim=keepdim)
    if rules.average == "valid":
        mean = mean / (x.mask.to(mean.dtype).mean(dims, keepdim=keepdim) + 1e-8)
    return _reduced(x, mean.to(x.data.dtype), dims, keepdim)


def reduce_sum(x: Masked, dims: Sequence[int], *, keepdim: bool) -> Value:
    """Sum over kept, not rescaled; `dims` and the result's mask as in `reduce_mean`."""
    dims = _reducible(x, dims)
    source = x.zeroed() if set(dims) & set(x.axes) else x.data
    return _reduced(x, source.sum(dims, keepdim=keepdim), dims, keepdim)


def reduce_max(x: Masked, dims: Sequence[int], *, keepdim: bool) -> Value:
    """Maximum over kept, 0 if none; `dims` and the result's mask as in `reduce_mean`."""
    dims = _reducible(x, dims)
    if not set(dims) & set(x.axes):
        return _reduced(x, x.data.amax(dims, keepdim=keepdim), dims, keepdim)
    kept = x.mask.any(dims, keepdim=keepdim)
    highest = x.filled(-math.inf).amax(dims, keepdim=keepdim)
    return _reduced(x, torch.where(kept, highest, 0), dims, keepdim)


def reduce_min(x: Masked, dims: Sequence[int], *, keepdim: bool) -> Value:
    """Minimum over kept, 0 if none; `dims` and the result's mask as in `reduce_mean`."""
    lowest = reduce_max(x.holding(-x.data), dims, keepdim=keepdim)
    return lowest.holding(-lowest.data) if isinstance(lowest, Masked) else -lowest


def over_channels(
    x: Masked, dims: Sequence[int], what: str, function: Callable[[Tensor], Tensor], *, keepdim: bool
) -> Value:
    """A reduction of axes that are neither space nor the batch, the op at every pixel; `what` names it."""
    positive = per_pixel(x, dims, what)
    return _reduced(x, function(x.data), positive, keepdim)


def _reducible(x: Masked, dims: Sequence[int]) -> tuple[int, ...]:
    positive = tuple(dim % x.data.ndim for dim in dims)
    if not positive or 0 in positive:
        raise RefusedError("it reduces the batch")
    return positive


def _reduced(x: Masked, data: Tensor, dims: Sequence[int], keepdim: bool) -> Value:
    """`data` is `x` reduced over `dims`: plain if no space is left, else kept where any reduced pixel was."""
    if set(x.axes) <= set(dims):
        return data
    if keepdim:
        return Masked(data, x.mask.any(tuple(dims), keepdim=True), x.axes)
    left = [axis for axis in range(x.data.ndim) if axis not in dims]
    return Masked(data, x.mask.any(tuple(dims)), tuple(left.index(axis) for axis in x.axes if axis in left))


def standardise(x: Masked, dims: Sequence[int], epsilon: float, *, outside: bool = False) -> Tensor:
    """(x − mean) / sqrt(biased variance + epsilon) over `dims`, statistics over kept and in two passes.

    Args:
        x: any layout.
        dims: channels alone, per pixel; or some of space too, over the kept pixels, count = max(kept, 1).
        epsilon: the operator's own.
        outside: whether epsilon is added to the root instead.

    Returns:
        The shape and dtype of `x`.
    """
    counted, dims = _counted(x, dims), tuple(dims)
    data = wide(x.data)
    count = counted.expand(data.shape).sum(dims, keepdim=True).clamp(min=1)
    centred = data - torch.where(counted, data, 0).sum(dims, keepdim=True) / count
    variance = torch.where(counted, centred, 0).square().sum(dims, keepdim=True) / count
    if outside:
        return (centred / (variance.sqrt() + epsilon)).to(x.data.dtype)
    return (centred * torch.rsqrt(variance + epsilon)).to(x.data.dtype)


def _counted(x: Masked, dims: Sequence[int]) -> Tensor:
    """What statistics over `dims` count: the kept positions if space is among them, else every one."""
    return x.mask if set(dims) & set(x.axes) else torch.ones_like(x.mask)


def variance(x: Masked, dims: Sequence[int], correction: float, *, keepdim: bool, rules: MaskRules) -> Value:
    """Mean of the squared deviations from the mean, both by `reduce_mean`, times N / (N − correction).

    N is the number of positions that the operator itself averages over: like the area of an average pool, its
    own factor is not changed by the mask. An exporter writes a variance as these two means, so they follow
    the same rule.
    """
    positive = _reducible(x, dims)
    mean = reduce_mean(x, positive, keepdim=True, rules=rules)
    centred = combine(torch.sub, [x, mean.data if isinstance(mean, Masked) else mean])
    squares = reduce_mean(centred.holding(centred.data.square()), positive, keepdim=keepdim, rules=rules)
    count = math.prod(x.data.shape[dim] for dim in positive)
    factor = count / (count - correction) if count > correction else math.nan
    return onto(squares, lambda data: data * factor)


def onto(value: Value, function: Callable[[Tensor], Tensor]) -> Value:
    """A function of every element of a value that may be plain by now."""
    return value.holding(function(value.data)) if isinstance(value, Masked) else function(value)


def vector_norm(x: Masked, order: float, dims: Sequence[int], *, keepdim: bool) -> Value:
    """The norm of order 1, 2 or infinity over kept, not rescaled; 0 if none."""
    if order == math.inf:
        return reduce_max(x.holding(x.data.abs()), dims, keepdim=keepdim)
    if order == 1:
        return reduce_sum(x.holding(x.data.abs()), dims, keepdim=keepdim)
    if order != 2:
        raise RefusedError(f"the norm of order {order:g} has no masked meaning")
    return onto(reduce_sum(x.holding(x.data.square()), dims, keepdim=keepdim), torch.sqrt)


def rms_norm(x: Masked, dims: Sequence[int], weight: Tensor | None, epsilon: float) -> Masked:
    """Root mean square normalisation, x / sqrt(mean(x²) + epsilon) over trailing `dims`.

    The mean is per pixel over channels alone, over kept with space among them.

    Args:
        x: any layout.
        dims: trailing axes, counted from 0.
        weight: of the extents of `dims`; None is 1.
        epsilon: added to the mean square.
    """
    if 0 in dims:
        raise RefusedError("it normalises over the batch")
    counted, dims = _counted(x, dims), tuple(dims)
    data = wide(x.data)
    count = counted.expand(data.shape).sum(dims, keepdim=True).clamp(min=1)
    square = torch.where(counted, data, 0).square().sum(dims, keepdim=True) / count
    data = (data * torch.rsqrt(square + epsilon)).to(x.data.dtype)
    return x.holding(data if weight is None else data * weight)


def group_norm(
    x: Masked,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    epsilon: float,
    *,
    per_group: bool = False,
) -> Masked:
    """Group normalisation over kept pixels; `groups` = C is instance normalisation.

    Args:
        x: `[N, C, *space]`.
        groups: divides C.
        weight: `[C]`, or `[groups]` if `per_group`; None is 1.
        bias: as `weight`; None is 0.
        epsilon: added to the variance.
        per_group: whether scale and bias belong to a group, as in ONNX before opset 21.
    """
    if 1 in x.axes:
        raise RefusedError("its channels are not axis 1")
    grouped = Masked(
        x.data.reshape(x.data.shape[0], groups, -1, *x.data.shape[2:]),
        x.mask.unsqueeze(1),
        tuple(axis + 1 for axis in x.axes),
    )
    data = standardise(grouped, range(2, grouped.data.ndim), epsilon).flatten(1, 2)
    if per_group:
        repeats = x.data.shape[1] // groups
        weight = weight if weight is None else weight.repeat_interleave(repeats)
        bias = bias if bias is None else bias.repeat_interleave(repeats)
    shape = (-1, *[1] * (x.data.ndim - 2))
    data = data if weight is None else data * weight.reshape(shape)
    return x.holding(data if bias is None else data + bias.reshape(shape))


def layer_norm(x: Masked, dims: Sequence[int], weight: Tensor | None, bias: Tensor | None, epsilon: float) -> Masked:
    """Layer normalisation over trailing `dims`: per pixel over channels, over kept with space among them.

    Args:
        x: any layout.
        dims: trailing axes, counted from 0.
        weight: of the extents of `dims`; None is 1.
        bias: as `weight`; None is 0.
        epsilon: added to the variance.
    """
    if 0 in dims:
        raise RefusedError("it normalises over the batch")
    data = standardise(x, dims, epsilon)
    data = data if weight is None else data * weight
    return x.holding(data if bias is None else data + bias)


def batch_norm(
    x: Masked, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, epsilon: float
) -> Masked:
    """Batch normalisation with running statistics, an affine map of each channel.

    Args:
        x: `[N, C, *space]`.
        weight: `[C]`; None is 1.
        bias: `[C]`; None is 0.
        mean: `[C]`.
        variance: `[C]`.
        epsilon: added to the variance.
    """
    if 1 in x.axes:
        raise RefusedError("its channels are not axis 1")
    return pointwise(lambda data: torch.nn.functional.batch_norm(data, mean, variance, weight, bias, eps=epsilon), x)
