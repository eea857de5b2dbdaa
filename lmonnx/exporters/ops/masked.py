"""The value that the lowering computes with: data, its mask, and what is known about both."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from lmonnx.exporters.ops.builder import UnknownShapeError, extents

#: ``meta`` of what a convolution of single pixels computes: what it reads, a :class:`Masked` of the same mask.
POINTWISE_OF = "pointwise of"


@dataclass(frozen=True)
class Border:
    """A constant Pad over space that waits for the window that reads it.

    Attributes:
        pads: pixels before and after, for each spatial axis.
        value: the constant.
    """

    pads: tuple[tuple[int, int], ...]
    value: float


@dataclass(frozen=True)
class Masked:
    """An activation of which some positions are removed.

    At kept positions ``data`` is exact. At removed ones it is whatever the last operator left there, and the
    three facts say how much is known about that; an operator that reads across positions calls
    :func:`lmonnx.exporters.ops.fill.zeroed` first.

    Attributes:
        data: any rank; the batch is axis 0.
        mask: bool, same rank as ``data``, True = kept; extent 1 on channels, and on space
            the extents of ``data``. Its batch is 1, or that of image and mask together.
        axes: which axes of ``data`` are space, ascending; a Transpose may have turned rows and columns.
        border: a pending constant Pad; ``data`` and ``mask`` are without it.
        zero: ``data`` is 0 at every removed position.
        finite: no removed position holds NaN or infinity.
        nonnegative: ``data`` is at least 0 everywhere.
    """

    data: ir.Value
    mask: ir.Value
    axes: tuple[int, ...]
    border: Border | None = None
    zero: bool = False
    finite: bool = True
    nonnegative: bool = False

    def but(self, **changes: Any) -> Masked:
        """The same activation with some attributes changed."""
        return dataclasses.replace(self, **changes)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(extents(self.data))

    @property
    def space(self) -> tuple[int, ...]:
        """Extents of the spatial axes, in pixels, without a pending border."""
        sizes = tuple(extents(self.data)[axis] for axis in self.axes)
        if None in sizes:
            raise UnknownShapeError(f"the height or width of {self.data.name!r} is not known")
        return sizes  # type: ignore[return-value]

    def as_image(self) -> Masked | None:
        """The same laid out [N, C, …space], as ONNX's windows and global pools read it; None if it is not.

        An axis behind the channels that is not space because a Reshape made it of a single pixel becomes space.
        """
        behind = tuple(range(2, self.rank))
        lone = [axis for axis in behind if axis not in self.axes]
        if not lone and self.axes == behind:
            return self
        if not self.axes or not {*self.axes} < {*behind} or any(extents(self.data)[axis] != 1 for axis in lone):
            return None
        pads = dict(zip(self.axes, self.border.pads, strict=True)) if self.border else {}
        border = self.border and Border(tuple(pads.get(axis, (0, 0)) for axis in behind), self.border.value)
        return self.but(axes=behind, border=border)

    def axes_without(self, gone: Collection[int]) -> tuple[int, ...]:
        """The spatial axes that are left once the axes ``gone`` are squeezed out of the data."""
        return tuple(axis - sum(g < axis for g in gone) for axis in self.axes if axis not in gone)
