"""From a photograph to the tensor that a network expects, equal to torchvision's presets, without torch.

    photograph --decode--> RGB --resize--> --centre crop--> crop [H, W, 3] --normalise--> image [1, C, H, W]

The pixels equal those of torchvision's ``ImageClassification`` preset on PIL images: Pillow's antialiased
filters, torchvision's rounding of sizes and offsets, arithmetic in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from lmonnx.errors import ImageError, OptionError
from lmonnx.runtime.photos import Photo, decode

Interpolation: TypeAlias = Literal["bilinear", "bicubic", "nearest"]
ChannelOrder: TypeAlias = Literal["RGB", "BGR"]

_Float = TypeVar("_Float", np.float32, np.float64)

DEFAULT_SIZE = (224, 224)
"""Height and width in pixels of an image, where nothing says them."""

MAX_RESIZED_PIXELS = 1 << 28
"""A thin strip grows without bound when its short side is enlarged; larger pictures than this are refused."""


@dataclass(frozen=True)
class Geometry:
    """Where the network's input lies in a photograph; sizes are (height, width) in pixels.

    Attributes:
        resized: size of the photograph after the resize.
        crop: size of the network's input.
        offset: top and left of the crop in the resized photograph, negative where the crop is larger
            than the photograph and the margin is filled with zeros.
    """

    resized: tuple[int, int]
    crop: tuple[int, int]
    offset: tuple[int, int]

    def apply(self, picture: Image.Image, filter_: Image.Resampling) -> Image.Image:
        """Resize and crop ``picture``; margins outside of it are zero."""
        (height, width), (top, left) = self.crop, self.offset
        resized = picture.resize((self.resized[1], self.resized[0]), filter_)
        return resized.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes the input of a network: (pixel / scale − mean) / std, in float32.

    Attributes:
        size: height and width of the network's input, in pixels: the centre crop.
        resize: length of the photograph's short side before the crop, in pixels; ``None`` resizes
            straight to ``size`` and ignores the aspect ratio.
        interpolation: filter of the resize; ``"bilinear"`` and ``"bicubic"`` are antialiased.
        mean: subtracted from each channel, in channel order, after the division by ``scale``; one number, if ``std``
            is one too, for a network of one channel, which sees the crop in grey (luma of ITU-R 601-2). Beside a
            ``std`` of three, one number stands for all.
        std: divides each channel, in channel order; one number or three, as ``mean``.
        scale: divides the pixels 0 … 255; 1 keeps them.
        channel_order: order of the network's input channels.

    Raises:
        OptionError: if a field has a value that is not allowed.
    """

    size: tuple[int, int]
    resize: int | None = None
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    scale: float = 255.0
    channel_order: ChannelOrder = "RGB"

    def __post_init__(self) -> None:
        sides = _sequence("size", self.size)
        if len(sides) != 2 or not all(_positive_int(side) for side in sides):
            raise OptionError(f"size={self.size!r} is not (height, width) in pixels, such as (224, 224)")
        if self.resize is not None and not _positive_int(self.resize):
            raise OptionError(f"resize={self.resize!r} is not a whole number of pixels; None resizes to size")
        for name, choices in (("interpolation", Interpolation), ("channel_order", ChannelOrder)):
            if getattr(self, name) not in get_args(choices):
                allowed = ", ".join(get_args(choices))
                raise OptionError(f"{name}={getattr(self, name)!r} is unknown; choose one of {allowed}")
        for name in ("mean", "std"):
            values = _sequence(name, getattr(self, name))
            if len(values) not in (1, 3) or not all(map(_finite, values)):
                raise OptionError(f"{name}={getattr(self, name)!r} is not one or three finite numbers, one per channel")
            object.__setattr__(self, name, tuple(map(float, values)))
        channels = max(len(self.mean), len(self.std))
        for name in ("mean", "std"):
            values = getattr(self, name)
            object.__setattr__(self, name, values if len(values) == channels else values * channels)
        if any(value <= 0 for value in self.std):
            raise OptionError(f"std={self.std!r} has to be positive")
        if not _finite(self.scale) or self.scale <= 0:
            raise OptionError(f"scale={self.scale!r} is not a positive number; 255 brings pixels to 0 … 1")
        object.__setattr__(self, "size", sides)
        object.__setattr__(self, "scale", float(self.scale))

    def for_channels(self, channels: int) -> Preprocessing:
        """The same for a network of so many input channels, where mean and std are equal in all channels.

        Raises:
            OptionError: if they are not, or the network has neither 1 nor 3 channels.
        """
        if channels not in (1, 3):
            raise OptionError(f"photographs have 1 or 3 channels and the network's image {channels}; leave them out")
        if channels == 1 and self.channel_order != "RGB":
            raise OptionError(f"channel_order={self.channel_order!r} and the network's image has one channel")
        if len(self.mean) == channels:
            return self
        for name in ("mean", "std"):
            if len(set(getattr(self, name))) > 1:
                raise OptionError(f"{name}={getattr(self, name)!r} and the network's image has {channels} channels")
        return replace(self, mean=self.mean[:1] * channels, std=self.std[:1] * channels)

    def geometry(self, size: tuple[int, int]) -> Geometry:
        """Where the network looks in a photograph of ``size`` (height, width), as torchvision rounds it.

        Raises:
            ImageError: if the photograph has no pixels, or is a strip that would grow too large.
        """
        height, width = size
        if height < 1 or width < 1:
            raise ImageError(f"the picture of {width}×{height} pixels is empty")
        resized = self.size
        if self.resize is not None:
            short, long = min(size), max(size)
            grown = int(self.resize * long / short)
            resized = (self.resize, grown) if height <= width else (grown, self.resize)
        if resized[0] * resized[1] > MAX_RESIZED_PIXELS:
            raise ImageError(
                f"the picture of {width}×{height} pixels is too thin: with a short side of {self.resize} it "
                f"becomes {resized[1]}×{resized[0]}; crop it first"
            )
        return Geometry(resized, self.size, (_offset(resized[0], self.size[0]), _offset(resized[1], self.size[1])))

    def crop(self, photo: Photo) -> npt.NDArray[np.uint8]:
        """The pixels that the network sees, uint8 ``[H, W, 3]``, RGB whatever the channel order is.

        Raises:
            ImageError: if the photograph cannot be read.
        """
        picture = decode(photo)
        geometry = self.geometry((picture.height, picture.width))
        return np.array(geometry.apply(picture, Image.Resampling[self.interpolation.upper()]))

    def normalise(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """A crop, uint8 ``[H, W, 3]`` in RGB, as the network's input, float32 ``[1, C, H, W]``."""
        return self.scaled(self.channels(pixels), np.float32)

    def channels(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A crop, uint8 ``[H, W, 3]`` in RGB, as a row of pixels ``[1, H, W, C]``: RGB, or grey for one channel."""
        if pixels.dtype != np.uint8 or pixels.shape != (*self.size, 3):
            raise ImageError(
                f"a crop is uint8 {[*self.size, 3]}, given {pixels.dtype} {list(pixels.shape)}; "
                "Preprocessing.crop makes one"
            )
        grey = len(self.mean) == 1
        return (np.asarray(Image.fromarray(pixels).convert("L"))[..., None] if grey else pixels)[None]

    def scaled(self, pixels: npt.NDArray[np.uint8], dtype: type[_Float]) -> npt.NDArray[_Float]:
        """Pixels, uint8 ``[n, H, W, C]`` in RGB or grey, as images of the network, ``dtype`` ``[n, C, H, W]``."""
        ordered = pixels if self.channel_order == "RGB" else pixels[..., ::-1]
        mean, std = np.array(self.mean, dtype), np.array(self.std, dtype)
        values: npt.NDArray[_Float] = (ordered.astype(dtype) / dtype(self.scale) - mean) / std
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    def prepare(self, photo: Photo) -> npt.NDArray[np.float32]:
        """The network's input, float32 ``[1, C, H, W]``, of a photograph.

        Raises:
            ImageError: if the photograph cannot be read.
        """
        return self.normalise(self.crop(photo))

    def to_json(self) -> dict[str, Any]:
        """The fields, as JSON knows them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of :meth:`to_json`.

        Raises:
            OptionError: if a field is missing, unknown, or has a value that is not allowed.
        """
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            odd = sorted(names.symmetric_difference(values))
            raise OptionError(f"preprocessing has missing or unknown fields: {', '.join(odd)}")
        arguments: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**arguments)


def short_side(size: tuple[int, int], crop: str | Fraction) -> int:
    """Length in pixels of a photograph's short side before the crop, of which the network sees a share.

    floor(max(size) / crop), as timm rounds its ``crop_pct`` (``create_transform``), in exact arithmetic: 224/232 of
    the picture is 232 pixels.

    Args:
        size: height and width of the network's input, in pixels.
        crop: the share, 0 < crop ≤ 1, as a fraction or as text: ``"0.875"``, ``"224/256"``.

    Raises:
        OptionError: if ``crop`` is not such a share, or so small that no picture is resized so far.
    """
    try:
        share = Fraction(crop) if isinstance(crop, (str, Fraction)) else Fraction(0)
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share <= 1:
        raise OptionError(f"crop={crop!r} is not a share above 0 and up to 1; write 0.875 or 224/256")
    side = math.floor(max(size) / share)
    if side**2 > MAX_RESIZED_PIXELS:
        raise OptionError(f"crop={crop!r} of a picture resized to {side} pixels; such large ones are not made")
    return side


def _offset(length: int, crop: int) -> int:
    """First pixel of a centre crop as torchvision rounds it, negative where it pads before the picture."""
    return -((crop - length) // 2) if crop > length else round((length - crop) / 2.0)


def _sequence(name: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)):
        raise OptionError(f"{name}={value!r} is not a tuple of numbers")
    return tuple(value)


def _positive_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
