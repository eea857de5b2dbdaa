"""Photographs in whatever form they come, as upright RGB pictures of 8 bits per channel."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from lmonnx.errors import ImageError
from lmonnx.runtime.arrays import Array, is_array, is_tensor, to_numpy

Picture: TypeAlias = str | os.PathLike[str] | Image.Image
"""The path of a file that Pillow reads, or a PIL image."""

Photo: TypeAlias = Picture | Array
"""A photograph: a picture, an array uint8 ``[H, W, 3]`` or ``[H, W]`` (grey), or a tensor of torch in torchvision's
layout, uint8 ``[3, H, W]`` or ``[1, H, W]``. Colours are RGB."""

_T = TypeVar("_T")

_EIGHT_BITS = "save it with 8 bits per channel"


def decode(photo: Photo, name: str = "the photograph") -> Image.Image:
    """A photograph as a person sees it: upright by its EXIF orientation, in RGB of 8 bits.

    Transparency is dropped, grey and palette colours become RGB. Of 16 bits per channel, the upper 8 are taken;
    Pillow's own conversion to RGB, which torchvision's loader uses, saturates there instead.

    Args:
        photo: a photograph, which is left as it is.
        name: how errors call it, where it is not a file.

    Raises:
        ImageError: if there is no such file, it is not an image, it is damaged, its range of values is unknown, or an
            array has another type or shape.
    """
    if is_array(photo):
        pixels = to_numpy(photo, name)
        pixels = _channels_last(pixels, name) if is_tensor(photo) else pixels
        return Image.fromarray(_require_pixels(pixels, name)).convert("RGB")
    return read(photo, name, to_rgb)


def listed(photos: Photo | Iterable[Photo]) -> list[Photo]:
    """One photograph or many, as a list; an array ``[n, H, W, 3]`` or a tensor ``[n, 3, H, W]`` is n of them.

    Nothing is decoded. An iterable is read to its end.

    Raises:
        ImageError: if there is no photograph, or a tensor has another shape.
    """
    if is_array(photos):
        values = to_numpy(photos, "photos")
        pixels = _channels_last(values, "photos") if is_tensor(photos) else values
        found: list[Photo] = [*pixels] if values.ndim == 4 else [pixels]
    elif isinstance(photos, (str, os.PathLike, Image.Image)) or not isinstance(photos, Iterable):
        found = [photos]
    else:
        found = [*photos]
    if not found:
        raise ImageError("there is no photograph")
    return found


def path_of(photo: object) -> str | None:
    """The path of a photograph or a mask that is a file."""
    return os.fspath(photo) if isinstance(photo, (str, os.PathLike)) else None


def read(picture: Picture, name: str, convert: Callable[[Image.Image, str], _T]) -> _T:
    """What ``convert`` makes of a picture that was loaded and turned upright by its EXIF orientation.

    Args:
        picture: a picture, which is left as it is.
        name: how errors call it, where it is not a file.
        convert: takes the picture and its name.

    Raises:
        ImageError: if there is no such file, it is not an image, or it is damaged.
    """
    if isinstance(picture, Image.Image):
        return _upright(picture, name, convert)
    path = path_of(picture)
    if path is None:
        raise ImageError(f"{name} is not a path, a PIL image or an array, but {type(picture).__name__}")
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise ImageError(f"{path}: is a pipe or a device, not an image file")
    try:
        with Image.open(path) as opened:
            return _upright(opened, path, convert)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such file") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path}: is a directory, not an image file") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: is not an image in a format that Pillow reads; use JPEG or PNG") from error
    except ImageError:
        raise
    except Exception as error:  # a plug-in of Pillow raises what it likes; AVIF's a RuntimeError
        raise ImageError(f"{path}: cannot be read: {error}") from error


def _upright(picture: Image.Image, name: str, convert: Callable[[Image.Image, str], _T]) -> _T:
    try:
        picture.load()
        return convert(ImageOps.exif_transpose(picture), name)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything at all on damaged bytes: struct.error, IndexError, …
        raise ImageError(f"{name}: is damaged, cut off or unsupported: {error}") from error


def to_rgb(picture: Image.Image, name: str) -> Image.Image:
    """A picture of any mode in RGB of 8 bits, without its transparency.

    Raises:
        ImageError: if its range of values is unknown.
    """
    if picture.mode.startswith("I"):
        return Image.fromarray((sixteen_bits(picture, name) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ImageError(f"{name}: holds floating point values of unknown range; {_EIGHT_BITS}")
    with warnings.catch_warnings():
        # Pillow advises RGBA for a palette with transparency; the transparency is dropped either way.
        warnings.filterwarnings("ignore", "Palette images with Transparency", UserWarning)
        return picture.convert("RGB")


def sixteen_bits(picture: Image.Image, name: str) -> npt.NDArray[np.int64]:
    """The values 0 … 65535, int64 ``[H, W]``, of a grey picture of mode I;16 or I.

    Raises:
        ImageError: if it holds values beyond 16 bits.
    """
    values = np.asarray(picture).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 0xFFFF):
        raise ImageError(f"{name}: holds integers beyond 16 bits, of unknown range; {_EIGHT_BITS}")
    return values


def _channels_last(values: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """``[(n,) 3, H, W]`` as ``[(n,) H, W, 3]``, and ``[(n,) 1, H, W]`` as ``[(n,) H, W]``."""
    if values.ndim not in (3, 4) or values.shape[-3] not in (1, 3):
        raise ImageError(
            f"{name}: a tensor of photographs is uint8 [3, H, W], [1, H, W] or [n, 3, H, W], "
            f"given {values.dtype} {list(values.shape)}"
        )
    return values[..., 0, :, :] if values.shape[-3] == 1 else np.moveaxis(values, -3, -1)


def _require_pixels(pixels: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        hint = "; Runner.run takes preprocessed images" if pixels.dtype.kind == "f" else ""
        raise ImageError(
            f"{name}: the array of a photograph is uint8 [H, W, 3] or [H, W] with values 0 … 255, "
            f"given {pixels.dtype} {list(pixels.shape)}{hint}"
        )
    if not pixels.size:
        raise ImageError(f"{name}: the array {list(pixels.shape)} is empty")
    return np.ascontiguousarray(pixels)
