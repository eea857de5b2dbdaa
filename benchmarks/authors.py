"""Layer masking as its authors run it, in PyTorch, for comparisons of speed. Frozen: it is not made faster.

Every convolution, one of 1×1 too, first fills its input for t = d·(k − 1) + 1 rounds, each a 3×3 depthwise
convolution with ones; masks are float, one channel, and max-pooled along (Balasubramanian & Feizi, ICCV 2023). Written
from the paper; :mod:`lmonnx.reference` is the definition, and follows any network.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmonnx.masking import MaskRules


class Masked(NamedTuple):
    """An activation and its mask: 1 = keep, of one channel, laid out like the data, which is anything elsewhere."""

    data: Tensor
    mask: Tensor

    @property
    def zeroed(self) -> Tensor:
        """The data with 0 where it is removed."""
        return self.data * self.mask


class LayerMasking(nn.Module):
    """A classifier of torchvision with a mask: (image ``[n, 3, H, W]``, mask ``[n, 1, H, W]`` bool) -> logits.

    Args:
        module: in evaluation mode; one that torch.fx can trace, of the operators below.
        rules: the mask rules, of which `average` and `concat` are followed.
    """

    def __init__(self, module: nn.Module, rules: MaskRules | None = None) -> None:
        super().__init__()
        self.rules = rules or MaskRules()
        self.traced = torch.fx.GraphModule(module, _Tracer().trace(module))

    def forward(self, image: Tensor, mask: Tensor) -> Any:
        """The logits."""
        kept = mask.to(image.dtype)
        return _Walk(self.traced, self.rules).run(Masked(image, kept))


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__name__ == "StochasticDepth" or super().is_leaf_module(m, module_qualified_name)


class _Walk(torch.fx.Interpreter):
    def __init__(self, traced: torch.fx.GraphModule, rules: MaskRules) -> None:
        super().__init__(traced)
        self.rules = rules

    def call_module(self, target: Any, args: tuple[Any, ...], _: dict[str, Any]) -> Any:
        module = self.fetch_attr(target)
        (x,) = args
        if not isinstance(x, Masked):
            return module(x)
        return MODULES.get(type(module), _pixelwise)(module, x, self.rules)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._applied(FUNCTIONS, target, args, kwargs)

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._applied(METHODS, getattr(Tensor, target), args, kwargs)

    def _applied(self, table: Mapping[Any, Any], target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not any(isinstance(x, Masked) for x in (*args, *(args[0] if isinstance(args[0], list) else ()))):
            return target(*args, **kwargs)
        return table[target](self.rules, *args, **kwargs)


def neighbour_pad(x: Masked, rounds: int) -> Tensor:
    """``x.data`` whose removed pixels took the mean of their filled neighbours, in as many rounds."""
    data, mask, channels = x.zeroed, x.mask, x.data.shape[1]
    ones = data.new_ones(channels, 1, 3, 3)
    for _ in range(rounds):
        count = F.conv2d(mask, ones[:1], padding=1)
        total = F.conv2d(data, ones, padding=1, groups=channels)
        data = data + torch.where(count > 0, (1 - mask) / (count + 1e-5), 0.0) * total
        mask = (mask + count > 0).to(data.dtype)
    return data


def _conv(module: nn.Conv2d, x: Masked, _: MaskRules) -> Masked:
    sides = zip(module.kernel_size, module.dilation, strict=True)
    data = module(neighbour_pad(x, max(dilation * (kernel - 1) + 1 for kernel, dilation in sides)))
    return Masked(data, _pooled(x.mask, module))


def _pooled(mask: Tensor, window: Any) -> Tensor:
    dilation = getattr(window, "dilation", 1)
    return F.max_pool2d(mask, window.kernel_size, window.stride, window.padding, dilation)


def _max_pool(module: nn.MaxPool2d, x: Masked, _: MaskRules) -> Masked:
    return Masked(module(x.zeroed), _pooled(x.mask, module))


def _average_pool(module: nn.AvgPool2d, x: Masked, rules: MaskRules) -> Masked:
    data, seen = module(x.zeroed), module(x.mask)
    if rules.average == "valid":
        data = data / torch.where(seen > 0, seen, 1)
    return Masked(data, (seen > 0).to(data.dtype))


def _global_pool(module: nn.AdaptiveAvgPool2d, x: Masked, rules: MaskRules) -> Tensor:
    assert module.output_size in (1, (1, 1))
    return _mean(rules, x)


def _mean(rules: MaskRules, x: Masked) -> Tensor:
    mean = x.zeroed.mean((2, 3), keepdim=True)
    return mean / (x.mask.mean((2, 3), keepdim=True) + 1e-8) if rules.average == "valid" else mean


def _pixelwise(module: nn.Module, x: Masked, _: MaskRules) -> Masked:
    """What acts on single pixels: a norm, an activation, a dense layer over channels that are last."""
    return Masked(module(x.data), x.mask)


def _of_pixels(function: Callable[..., Tensor]) -> Callable[..., Masked]:
    def apply(_: MaskRules, x: Masked, *args: Any, **kwargs: Any) -> Masked:
        return Masked(function(x.data, *args, **kwargs), x.mask)

    return apply


def _add(_: MaskRules, a: Masked, b: Masked) -> Masked:
    return Masked(a.data + b.data, a.mask * b.mask)


def _scale(_: MaskRules, a: Masked | Tensor, b: Masked | Tensor) -> Masked:
    x, factor = (a, b) if isinstance(a, Masked) else (b, a)
    assert isinstance(x, Masked)
    return Masked(x.data * factor, x.mask)


def _cat(rules: MaskRules, parts: list[Masked], dim: int) -> Masked:
    votes, least = sum(x.mask for x in parts), {"all": len(parts) - 0.5, "majority": len(parts) / 2, "any": 0.5}
    return Masked(torch.cat([x.zeroed for x in parts], dim), (votes > least[rules.concat]).to(parts[0].mask.dtype))


def _permute(_: MaskRules, x: Masked, *order: Any) -> Masked:
    return Masked(x.data.permute(*order), x.mask.permute(*order))


def _functional_pool(rules: MaskRules, x: Masked, size: Any) -> Tensor:
    assert tuple(size) == (1, 1)
    return _mean(rules, x)


#: What acts on more than single pixels. Anything that is in no table is an error.
MODULES: dict[type[nn.Module], Callable[[Any, Masked, MaskRules], Masked | Tensor]] = {
    nn.AdaptiveAvgPool2d: _global_pool,
    nn.AvgPool2d: _average_pool,
    nn.Conv2d: _conv,
    nn.MaxPool2d: _max_pool,
}
FUNCTIONS: dict[Any, Callable[..., Masked | Tensor]] = {
    F.adaptive_avg_pool2d: _functional_pool,
    F.layer_norm: _of_pixels(F.layer_norm),
    F.relu: _of_pixels(F.relu),
    operator.add: _add,
    operator.iadd: _add,
    operator.mul: _scale,
    torch.cat: _cat,
    torch.permute: _permute,
}
METHODS: dict[Any, Callable[..., Masked | Tensor]] = {Tensor.permute: _permute}
