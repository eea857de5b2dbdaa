"""The masked activation: data, the mask of what is kept, and the axes that are space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lmonnx.errors import Offence, OptionError


class RefusedError(Exception):
    """Masking is not defined for what one node does; the front ends turn it into an Offence.

    Attributes:
        why: the reason, without the node's name.
        remedy: what the reader can do about it.
    """

    def __init__(self, why: str, remedy: str = "use a network without it, or ask for a rule") -> None:
        super().__init__(why)
        self.why, self.remedy = why, remedy


@dataclass(frozen=True)
class Border:
    """A constant Pad that waits for its window: neither filled nor counted as kept.

    Attributes:
        pads: padding before the first and after the last pixel, one pair for each spatial axis.
        value: the constant.
    """

    pads: tuple[tuple[int, int], ...]
    value: float


@dataclass(frozen=True)
class Masked:
    """A masked activation. What `data` holds at removed positions means nothing until an operator reads it.

    Attributes:
        data: any dtype, batch first.
        mask: bool, same rank, True = keep; full extent on the batch and on `axes`, extent 1 elsewhere.
        axes: the axes that are space, ascending for every value that a window can read.
        border: a constant Pad that is pending; not part of `data` nor of `mask`.
        unfolded: the map that was reshaped to `[N, groups, channels and space]`, whose shape, mask and axes a
            reshape back restores; exporters leave this form of group normalisation.
        rows: the map `[N, *space, C]` that was reshaped to a matrix of pixels `[N·…, C]`, which has no axis that is
            space; a reshape that undoes it restores mask and axes.
        tiles: of a map whose two spatial axes a reshape cut into blocks, for each of them the axis that counts
            blocks and the axis inside a block; a reshape that merges the latter into channels is a SpaceToDepth.
    """

    data: Tensor
    mask: Tensor
    axes: tuple[int, ...]
    border: Border | None = None
    unfolded: Masked | None = None
    tiles: tuple[tuple[int, int], ...] | None = None
    rows: Masked | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the original network has here, a pending border included."""
        shape = list(self.data.shape)
        if self.border:
            for axis, (before, after) in zip(self.axes, self.border.pads, strict=True):
                shape[axis] += before + after
        return tuple(shape)

    def filled(self, value: float) -> Tensor:
        """The data with `value` at removed positions; by selection, because NaN times zero is NaN."""
        return torch.where(self.mask, self.data, value)

    def zeroed(self) -> Tensor:
        """The data with 0 at removed positions, the specification's x ⊙ m.

        Raises:
            RefusedError: if the numbers are quantised, where 0 stands for another number.
        """
        if self.data.dtype in (torch.uint8, torch.int8, torch.uint16, torch.int16):
            raise RefusedError("it reads quantised numbers across positions", "dequantise before it")
        return self.filled(0)

    def holding(self, data: Tensor) -> Masked:
        """This mask over other data of the same layout."""
        return replace(self, data=data)


Value = Masked | Tensor


class Unknown:
    """Stands for the result of a node that was refused, so that the walk can look for further offences."""


def wide(x: Tensor) -> Tensor:
    """`x` in float32 at least: counts, sums and epsilons do not fit into float16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def join(image: Tensor, mask: Tensor) -> Masked:
    """Joins image and mask before anything else, so that a removed pixel's value never spreads.

    Args:
        image: floating `[images, C, H, W]`.
        mask: bool `[masks, 1, H, W]`, True = keep; the batch axes broadcast, 1 with n, n with 1, n with n.

    Returns:
        `[batch, C, H, W]`, 0 where removed.

    Raises:
        OptionError: if a dtype, a rank or an extent is another one.
    """
    if image.ndim != 4 or not image.is_floating_point():
        raise OptionError(f"image must be floating [images, C, H, W], not {image.dtype} {list(image.shape)}")
    if mask.ndim != 4 or mask.dtype != torch.bool or mask.shape[1] != 1:
        raise OptionError(f"mask must be bool [masks, 1, H, W], not {mask.dtype} {list(mask.shape)}")
    if image.shape[2:] != mask.shape[2:]:
        raise OptionError(f"image is {list(image.shape[2:])} and mask {list(mask.shape[2:])}; give both one size")
    images, masks = image.shape[0], mask.shape[0]
    if images != masks and 1 not in (images, masks):
        raise OptionError(f"{images} images do not pair with {masks} masks; give 1 with n, n with 1 or n with n")
    mask = mask.to(image.device).expand(max(images, masks) if images and masks else 0, -1, -1, -1)
    return Masked(torch.where(mask, image, 0), mask, (2, 3))


def settle(value: Value) -> Tensor:
    """An output of the network: removed positions of one that is still masked become 0."""
    if not isinstance(value, Masked):
        return value
    if value.border:
        raise RefusedError("an output is a constant Pad that no window has read")
    return value.filled(0)


def failure(error: Exception) -> RefusedError:
    """What PyTorch raised in a node, such as that dtypes or shapes do not fit, as a refusal."""
    first = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
    return RefusedError(f"the reference cannot compute it: {first}")


def offence(node: str, operator: str, inputs: Sequence[Any], refusal: RefusedError) -> Offence:
    """The Offence of a node; `inputs` are its values, of which tensors and masked activations are named."""
    shapes = [
        "×".join(["batch", *map(str, value.shape[1:])]) if isinstance(value, Masked) else _shape(value)
        for value in inputs
        if isinstance(value, Masked | Tensor)
    ]
    return Offence(node, operator, tuple(shapes), refusal.why, refusal.remedy)


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"
