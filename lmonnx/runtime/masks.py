"""Masks in whatever form they come, fitted to what the network sees of a photograph. True = keep, everywhere."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from operator import index
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from lmonnx.errors import ImageError, OptionError
from lmonnx.runtime.arrays import Array, Bools, bool_hint, is_array, to_numpy
from lmonnx.runtime.photos import Picture, read, sixteen_bits, to_rgb
from lmonnx.runtime.preprocessing import Preprocessing

_COLOUR_SLACK = 8  # what lossy compression does to grey, of 255


@dataclass(frozen=True)
class Box:
    """A rectangle that is kept, in pixels of the photograph as a person sees it; the last two are exclusive.

    Raises:
        OptionError: if a side is not a whole number.
    """

    left: int
    top: int
    right: int
    bottom: int

    def __post_init__(self) -> None:
        for name, value in vars(self).copy().items():
            try:
                object.__setattr__(self, name, index(value))
            except TypeError as error:
                raise OptionError(f"a box has whole pixels, its {name} is {value!r}") from error

    def mask(self, size: tuple[int, int]) -> Bools:
        """The mask, bool ``[H, W]``, for a photograph of ``size`` (height, width) in pixels.

        Raises:
            ImageError: if the box is empty, or reaches beyond the photograph.
        """
        height, width = size
        if not (0 <= self.left < self.right <= width and 0 <= self.top < self.bottom <= height):
            raise ImageError(
                f"the box {','.join(map(str, astuple(self)))} (left, top, right, bottom) is empty or not inside the "
                f"photograph of {width}×{height} pixels"
            )
        kept = np.zeros(size, np.bool_)
        kept[self.top : self.bottom, self.left : self.right] = True
        return kept


Mask: TypeAlias = Picture | Array | Box
"""A mask: a picture (white = keep), an array or tensor of bool ``[H, W]`` or ``[1, H, W]``, or a box."""


def listed(masks: Mask | Iterable[Mask | None] | None) -> list[Mask | None]:
    """One mask or many, as a list; an array or tensor ``[n, H, W]`` or ``[n, 1, H, W]`` is n of them.

    Nothing is decoded. An iterable is read to its end.

    Raises:
        ImageError: if there is no mask.
    """
    if is_array(masks):
        array = to_numpy(masks, "masks")
        if array.ndim == 4 and array.shape[1] == 1:
            array = array[:, 0]
        found: list[Mask | None] = [*array] if array.ndim == 3 else [array]
    elif isinstance(masks, (str, os.PathLike, Image.Image)) or not isinstance(masks, Iterable):
        found = [masks]
    else:
        found = [*masks]
    if not found:
        raise ImageError("there is no mask; None keeps everything")
    return found


def load(mask: Mask | None, name: str = "the mask") -> Bools | Box | None:
    """A mask as bool ``[H, W]``; a box and ``None`` stay what they are until a photograph's size is known.

    Args:
        mask: a mask.
        name: how errors call it, where it is not a file.

    Raises:
        ImageError: if the picture cannot be read or does not say clearly what is kept, or an array has another type
            or shape.
    """
    if mask is None or isinstance(mask, Box):
        return mask
    if not is_array(mask):
        return read_mask(mask, name)
    array = to_numpy(mask, name)
    kept = array[0] if array.ndim == 3 and len(array) == 1 else array
    if kept.dtype != np.bool_ or kept.ndim != 2:
        raise ImageError(f"{name} is bool [H, W], given {array.dtype} {list(array.shape)}{bool_hint(array)}")
    return kept


def read_mask(picture: Picture, name: str = "the mask") -> Bools:
    """A picture as a mask, bool ``[H, W]``: at least half of the range of its values is kept, less is removed.

    It is turned upright by its EXIF orientation. Grey of 1, 8 and 16 bits, palettes and RGB are read if they hold
    greys.

    Raises:
        ImageError: if it cannot be read, or what it keeps is not clear: transparency, colours, floating point, or
            values that are all dark and not all 0, as in a mask of 0 and 1.
    """
    return read(picture, name, _kept)


def fit(
    mask: Bools | Box | None,
    size: tuple[int, int],
    preprocessing: Preprocessing,
    removes: bool = False,
    name: str = "the mask",
) -> Bools:
    """What a mask keeps of the network's input, bool ``[H, W]``.

    A mask of the photograph's size takes the photograph's way, resize (nearest) and crop. One of another size that is
    the network's is used as it is. A margin of the crop outside of the photograph is kept: the network was trained
    with zeros there.

    Args:
        mask: what :func:`load` gave.
        size: height and width of the photograph, upright, in pixels.
        preprocessing: how the photograph becomes the network's input.
        removes: mask and box say what is removed, not what is kept; ``None`` still keeps everything.
        name: how errors call the mask.

    Raises:
        ImageError: if the mask has neither size, or a box is not inside the photograph.
    """
    if mask is None:
        return np.ones(preprocessing.size, np.bool_)
    kept = mask.mask(size) if isinstance(mask, Box) else mask
    removed = kept if removes else ~kept
    if kept.shape == size:
        picture = Image.fromarray(removed.astype(np.uint8))
        seen = preprocessing.geometry(size).apply(picture, Image.Resampling.NEAREST)
        return ~np.asarray(seen).astype(np.bool_)
    if kept.shape == preprocessing.size:
        return ~removed
    raise ImageError(
        f"{name} has {_pixels(kept.shape)}, neither as many as the photograph, {_pixels(size)} (upright by its EXIF "
        f"orientation), nor as the network's input, {_pixels(preprocessing.size)}"
    )


def _pixels(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}×{shape[0]} pixels"


def _kept(picture: Image.Image, name: str) -> Bools:
    if picture.has_transparency_data and np.asarray(picture.convert("RGBA"))[..., 3].min(initial=255) < 255:
        raise ImageError(f"{name}: has transparent pixels, white and black say what is kept; flatten it")
    values, top = _greys(picture, name)
    largest = int(values.max(initial=0))
    if 0 < 2 * largest < top:
        raise ImageError(
            f"{name}: its largest value is {largest} of {top}, so nothing in it counts as white; "
            f"give what is kept the value {top}"
        )
    return values > top // 2


def _greys(picture: Image.Image, name: str) -> tuple[npt.NDArray[Any], int]:
    """The values ``[H, W]`` of a picture and the largest that they could be."""
    if picture.mode.startswith("I"):
        return sixteen_bits(picture, name), 0xFFFF
    channels = np.asarray(to_rgb(picture, name))
    if np.ptp(channels, axis=-1).max(initial=0) > _COLOUR_SLACK:
        raise ImageError(f"{name}: is coloured, white and black say what is kept; save it as black and white")
    return channels[..., 1], 0xFF
