"""Photographs and masks paired, as rows of a graph's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lmonnx.errors import ImageError
from lmonnx.runtime import masks as masking
from lmonnx.runtime.arrays import Bools
from lmonnx.runtime.batching import Feeds
from lmonnx.runtime.masks import Box, Mask
from lmonnx.runtime.photos import Photo, decode, path_of
from lmonnx.runtime.preprocessing import Preprocessing

Size = tuple[int, int]
Encode: TypeAlias = Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]
"""A crop, uint8 ``[H, W, 3]`` in RGB, as a graph's input ``image`` of one row."""

_Loaded = tuple[Bools | Box | None, str]


def pair(
    preprocessing: Preprocessing,
    photos: Sequence[Photo],
    masks: Sequence[Mask | None],
    removes: bool,
    encode: Encode,
) -> tuple[Feeds, Iterator[Feeds]]:
    """What a graph is asked for n photographs under one mask, one photograph under n masks, or n under n.

    Args:
        preprocessing: where the network looks in a photograph.
        photos: photographs, decoded when their turn comes.
        masks: masks, read when their turn comes; ``None`` keeps everything.
        removes: the masks say what is removed, not what is kept.
        encode: makes the graph's input of what the network sees.

    Returns:
        The input that all rows share, if there is one, of one row: ``image`` or ``mask``, bool ``[1, 1, H, W]``; and an
        iterator of the others, a row each.

    Raises:
        ImageError: if the numbers do not pair; while iterating, if a photograph or a mask cannot be read or does not
            fit.
    """
    if len(photos) != len(masks) and 1 not in (len(photos), len(masks)):
        raise ImageError(f"{len(photos)} photographs and {len(masks)} masks do not pair; give as many, or one")
    pictures, loaded = _prepared(preprocessing, photos, encode), _loaded(masks)
    if len(photos) == 1:
        image, size, name = next(pictures)
        return {"image": image}, ({"mask": _fitted(preprocessing, mask, size, name, removes)} for mask in loaded)
    if len(masks) == 1:
        first = next(loaded)
        if first[0] is None:
            return {"mask": np.ones((1, 1, *preprocessing.size), np.bool_)}, ({"image": row[0]} for row in pictures)
        loaded = repeat(first)
    return {}, (
        {"image": image, "mask": _fitted(preprocessing, mask, size, name, removes)}
        for (image, size, name), mask in zip(pictures, loaded, strict=False)
    )


def _prepared(
    preprocessing: Preprocessing, photos: Sequence[Photo], encode: Encode
) -> Iterator[tuple[npt.NDArray[Any], Size, str]]:
    """Image, size of the photograph, and what errors call it."""
    for number, photo in enumerate(photos):
        name = path_of(photo) or f"photos[{number}]"
        picture = decode(photo, name)
        try:
            yield encode(preprocessing.crop(picture)), (picture.height, picture.width), name
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from error


def _loaded(masks: Sequence[Mask | None]) -> Iterator[_Loaded]:
    for number, mask in enumerate(masks):
        name = path_of(mask) or f"masks[{number}]"
        yield masking.load(mask, name), name


def _fitted(preprocessing: Preprocessing, mask: _Loaded, size: Size, photo: str, removes: bool) -> Bools:
    try:
        return masking.fit(mask[0], size, preprocessing, removes, mask[1])[None, None]
    except ImageError as error:
        raise ImageError(f"{photo}: {error}") from error
