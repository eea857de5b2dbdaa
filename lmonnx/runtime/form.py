"""The form of an exported graph: what its inputs look like, and what was put behind its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from lmonnx.errors import OptionError

ImageKind: TypeAlias = Literal["float32", "uint8"]
Precision: TypeAlias = Literal["float32", "float16", "int8"]

PRECISIONS: Mapping[str, Precision] = {"fp32": "float32", "fp16": "float16"}
"""The precisions that an export is asked for."""

MAX_BATCH = 1 << 16
"""Rows of a fixed batch, at most; the activations of more fit into no memory."""

#: What holds of files that lmonnx wrote before graphs took images of any size, and before there was a precision.
_BEFORE_SIZES = {"size": None, "smallest": 1, "precision": None}
_LAYOUTS = {"float32": "NCHW", "uint8": "NHWC"}


@dataclass(frozen=True)
class Form:
    """How a graph takes images and masks, and how it answers.

    Attributes:
        image: ``"float32"``, an image of the network as preprocessing makes it, ``[images, C, H, W]``; or ``"uint8"``,
            pixels 0 … 255 in RGB or grey, ``[images, H, W, C]``, that the graph normalises itself.
        batch: rows of both inputs and of every output in each run; ``None`` if the batch axes are free and broadcast.
        softmax: whether a softmax was put behind the outputs that held logits.
        size: height and width in pixels that a graph of open height and width was proven at, and that photographs are
            brought to; ``None`` if the graph has a size of its own.
        smallest: how many pixels a side the images of such a graph have at least.
        precision: what the network's weights and maps are in; images and outputs of ``"float16"`` and of ``"int8"``,
            which is between quantise and dequantise, are float32 too. ``None`` if a file of before does not say.

    Raises:
        OptionError: if one of them has a value that is not allowed.
    """

    image: ImageKind = "float32"
    batch: int | None = None
    softmax: bool = False
    size: tuple[int, int] | None = None
    smallest: int = 1
    precision: Precision | None = "float32"

    def __post_init__(self) -> None:
        if self.image not in get_args(ImageKind):
            raise OptionError(f"image={self.image!r} is unknown; choose one of {', '.join(get_args(ImageKind))}")
        if self.batch is not None and not (_whole(self.batch) and self.batch <= MAX_BATCH):
            raise OptionError(f"batch={self.batch!r} is not a number of rows, 1 … {MAX_BATCH}; None leaves it free")
        if not isinstance(self.softmax, bool):
            raise OptionError(f"softmax={self.softmax!r} is not True or False")
        if self.precision not in (None, *get_args(Precision)):
            raise OptionError(f"precision={self.precision!r} is unknown; it is one of {', '.join(get_args(Precision))}")
        if not _whole(self.smallest):
            raise OptionError(f"smallest={self.smallest!r} is not a number of pixels")
        if self.size is not None:
            sides = tuple(self.size) if isinstance(self.size, (tuple, list)) else ()
            if len(sides) != 2 or not all(_whole(side) and side >= self.smallest for side in sides):
                raise OptionError(f"size={self.size!r} is not (height, width) in pixels, from {self.smallest} on")
            object.__setattr__(self, "size", sides)

    @property
    def layout(self) -> str:
        """Order of the axes of ``image``: ``"NCHW"`` or ``"NHWC"``."""
        return _LAYOUTS[self.image]

    def shape(self, channels: int, size: tuple[int, int]) -> tuple[int, int, int]:
        """Of one row of ``image``."""
        return (*size, channels) if self.layout == "NHWC" else (channels, *size)

    def to_json(self) -> dict[str, Any]:
        """The fields and the layout, as JSON knows them."""
        return {**asdict(self), "layout": self.layout}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Form:
        """The inverse of :meth:`to_json`.

        Raises:
            OptionError: if a field is missing, unknown, or has a value that is not allowed.
        """
        values = {**_BEFORE_SIZES, **values}
        fields = {name: value for name, value in values.items() if name != "layout"}
        if set(values) != set(cls().to_json()):
            odd = sorted(set(values).symmetric_difference(cls().to_json()))
            raise OptionError(f"form has missing or unknown fields: {', '.join(odd)}")
        form = cls(**fields)
        if values["layout"] != form.layout:
            raise OptionError(f"form says {values['layout']!r}, and an image of {form.image} is {form.layout}")
        return form


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
