"""Operators of PyTorch that its exporter takes apart or loses a part of, in ONNX as they are meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import opset18
from onnxscript.function_libs.torch_lib import ops
from onnxscript.onnx_types import TensorType

from lmonnx.exporters.ops.builder import LAST

#: Operators of ONNX, and how PyTorch's exporter writes its own in them; the types of both are for onnxscript's eyes.
onnx_: Any = opset18
torch_: Any = ops


def _var_mean(
    self: TensorType, dim: Sequence[int] | None = None, correction: float | None = None, keepdim: bool = False
) -> Any:
    """The mean as a mean: the exporter writes a sum divided by a number, which a mask does not rescale."""
    axes = () if dim is None else (onnx_.Constant(value_ints=list(dim)),)
    mean = onnx_.ReduceMean(self, *axes, keepdims=int(keepdim))
    return torch_.core.aten_var_correction(self, dim, correction, keepdim), mean


def _std_mean(
    self: TensorType, dim: Sequence[int] | None = None, correction: float | None = None, keepdim: bool = False
) -> Any:
    variance, mean = _var_mean(self, dim, correction, keepdim)
    return onnx_.Sqrt(variance), mean


def _avg_pool2d(
    self: TensorType,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """With its divisor, which the exporter drops; that of a whole window counts the padding too.

    Raises:
        ValueError: if windows reach beyond the padding, where ONNX divides by less.
    """
    if not divisor_override:
        return torch_.nn.aten_avg_pool2d(self, kernel_size, stride, padding, ceil_mode, count_include_pad)
    if ceil_mode:
        raise ValueError("avg_pool2d with both divisor_override and ceil_mode has no form in ONNX")
    sizes = list(kernel_size) * (2 // len(kernel_size))
    mean = torch_.nn.aten_avg_pool2d(self, kernel_size, stride, padding, False, True)
    factor = onnx_.Constant(value_float=sizes[0] * sizes[1] / divisor_override)
    return onnx_.Mul(mean, onnx_.CastLike(factor, self))


def _slice_scatter(
    self: TensorType, src: TensorType, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    """`x[:, a:b] = y` as the parts that it has then; the exporter turns the axis to the front and scatters.

    Raises:
        ValueError: if it writes to every second entry or the like.
    """
    shape: Any = self.shape
    axis = dim % len(shape)
    extent = shape[axis]
    if not isinstance(extent, int):
        if (start or 0, step) == (0, 1) and end in (None, LAST):
            return onnx_.Identity(src)
        return torch_.core.aten_slice_scatter(self, src, dim, start, end, step)
    places = range(extent)[start:end:step]
    if step != 1:
        raise ValueError(f"a slice in steps of {step} is written to, which has no form under a mask")
    bounds = (0, places.start), (places.stop, extent)
    before, after = (
        [onnx_.Slice(self, *(onnx_.Constant(value_ints=[n]) for n in (*bound, axis)))] if bound[0] < bound[1] else []
        for bound in bounds
    )
    return onnx_.Concat(*before, src, *after, axis=axis) if before or after else onnx_.Identity(src)


def _select_scatter(self: TensorType, src: TensorType, dim: int, index: int) -> Any:
    one = onnx_.Unsqueeze(src, onnx_.Constant(value_ints=[dim]))
    return _slice_scatter(self, one, dim, index, index + 1 or None)


#: operator -> what writes it, in place of PyTorch's own.
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.avg_pool2d.default: _avg_pool2d,
    torch.ops.aten.select_scatter.default: _select_scatter,
    torch.ops.aten.slice_scatter.default: _slice_scatter,
    torch.ops.aten.std_mean.correction: _std_mean,
    torch.ops.aten.var_mean.correction: _var_mean,
}
